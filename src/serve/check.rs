//! Is a serve on this port ready? For the health check of a container, which holds no other program to ask with.
//!
//! Enters: an address. Leaves: a line, and an exit code. Must not take longer than such a check may.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::exit;
use crate::output;

/// For each step; readiness is answered from memory, or after one question to the store.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than any answer to this question has.
const MAX_ANSWER_BYTES: u64 = 4_096;

/// Asks, prints the answer, and returns the exit code: 1 when it is not ready, or not there.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands for a whole run, which can fail"
)]
pub(super) fn check(listen: SocketAddr) -> anyhow::Result<u8> {
    let address = reachable(listen);
    let (line, code) = match ask(address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => ("ready".to_owned(), exit::OK),
        Ok(answer) => {
            let status = answer.lines().next().unwrap_or_default();
            (format!("not ready: {status}"), exit::NO)
        }
        Err(error) => (format!("not ready: {error}"), exit::NO),
    };
    output::print(&format!("http://{address} is {line}\n"));
    Ok(code)
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let host = format!("host: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(format!("GET /readyz HTTP/1.1\r\n{host}").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Who listens on all addresses listens on loopback too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
