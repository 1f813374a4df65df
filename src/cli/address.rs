//! Addresses of this machine, as they are typed.
//!
//! Enters: text. Leaves: an IP address, with its port where one is needed. Must not look up a name: `localhost` is known.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::units::UnitError;

const LOCALHOST: &str = "localhost";

/// An address to listen on; `localhost` is 127.0.0.1.
pub(super) fn parse_ip(text: &str) -> Result<IpAddr, UnitError> {
    if text.eq_ignore_ascii_case(LOCALHOST) {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let text = text.trim_start_matches('[').trim_end_matches(']');
    text.parse().map_err(|_| {
        UnitError(
            "give an IP address of this machine, such as 127.0.0.1, 0.0.0.0 (all) or ::1, or localhost"
                .into(),
        )
    })
}

/// An address with its port.
pub(super) fn parse_socket(text: &str) -> Result<SocketAddr, UnitError> {
    let refused = || UnitError("give an address and a port, such as 127.0.0.1:8089".into());
    let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
    let port = port.parse().map_err(|_| refused())?;
    if host.eq_ignore_ascii_case(LOCALHOST) {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_an_address_and_other_names_are_none() {
        for (text, expected) in [
            ("localhost", Some("127.0.0.1")),
            ("LocalHost", Some("127.0.0.1")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("::1", Some("::1")),
            ("[::1]", Some("::1")),
            ("example.com", None),
            ("127.0.0.1:80", None),
            ("", None),
        ] {
            let found = parse_ip(text).ok().map(|ip| ip.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        for (text, expected) in [
            ("localhost:8089", Some("127.0.0.1:8089")),
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("[::1]:1", Some("[::1]:1")),
            ("8089", None),
            (":8089", None),
            ("localhost:x", None),
            ("example.com:1", None),
        ] {
            let found = parse_socket(text).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
