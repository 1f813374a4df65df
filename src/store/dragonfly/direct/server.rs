//! Connecting to a server of the Redis protocol, and being let in.
//!
//! Enters: where it is and as whom to come. Leaves: a connection that is ready for commands. Must not try twice, nor wait
//! beyond its time.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use fred::rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::super::connect;
use super::super::resp::{self, Reader, Reply};
use super::super::words;
use crate::config::{Login, Node, Servers, StoreConfig, StoreUrl, Topology};

/// Many times the table of slots of the largest cluster, which is the largest answer.
const MAX_REPLY_BYTES: usize = 64 * 1024 * 1024;

pub(in super::super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
pub(in super::super) type Connection = Box<dyn Stream>;

/// Where to connect to, and as whom.
#[derive(Clone)]
pub(in super::super) struct Server {
    address: Address,
    login: Login,
    database: Option<u8>,
    tls: Option<Tls>,
    /// It is a replica of a cluster, and is to answer all the same.
    is_replica: bool,
    timeout: Duration,
}

/// How the connection is encrypted, and whom it must be with.
#[derive(Clone)]
struct Tls {
    connector: TlsConnector,
    /// What a certificate is for whose server is known by address.
    name: Option<String>,
}

impl Tls {
    fn of(config: &StoreConfig, servers: &Servers) -> Option<Self> {
        // fred has read the files already, so this cannot fail but when they are changed.
        let connector = Arc::new(connect::tls(&config.tls).ok()?).into();
        let name = match servers.topology {
            Topology::Cluster => connect::first_name(&servers.nodes).map(str::to_owned),
            Topology::One | Topology::Sentinel { .. } => None,
        };
        Some(Self { connector, name })
    }

    async fn over(&self, stream: TcpStream, host: &str) -> io::Result<Connection> {
        let is_address = host.parse::<IpAddr>().is_ok();
        let name = self.name.as_deref().filter(|_| is_address).unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }
}

#[derive(Clone)]
enum Address {
    Tcp(Node),
    Unix(PathBuf),
    Behind(Arc<Sentinels>),
}

/// Who knows where the master is, each time that it is connected to.
struct Sentinels {
    servers: Vec<Server>,
    service: String,
}

impl Sentinels {
    /// Where the first who answers says that the master is.
    async fn master(&self, patience: Duration) -> io::Result<Node> {
        let mut failed = io::Error::from(io::ErrorKind::NotFound);
        for sentinel in &self.servers {
            let words = [
                b"SENTINEL",
                &b"get-master-addr-by-name"[..],
                self.service.as_bytes(),
            ];
            // In a box, as connecting to a sentinel is connecting.
            let told = Box::pin(sentinel.ask(&words));
            match tokio::time::timeout(patience, told).await {
                Ok(Ok(told)) => {
                    let node = || {
                        let [host, port] = told.list()? else {
                            return None;
                        };
                        let (host, port) = (host.text()?.to_owned(), port.text()?.parse().ok()?);
                        Some(Node { host, port })
                    };
                    if let Some(node) = node() {
                        return Ok(node);
                    }
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    }
}

impl Server {
    /// The only one, the first that was named of a cluster, or whichever its sentinels name; `None` for what this cannot
    /// speak to.
    pub(in super::super) fn of(config: &StoreConfig) -> Option<Self> {
        let mut server = Self {
            address: Address::Unix(PathBuf::new()),
            login: config.login.clone(),
            database: None,
            tls: None,
            is_replica: false,
            timeout: connect::timeout(config),
        };
        let servers = match &config.url {
            StoreUrl::Tcp(servers) => servers,
            StoreUrl::Unix(path) => {
                server.address = Address::Unix(path.clone());
                return Some(server);
            }
            StoreUrl::Embedded(_) => return None,
        };
        if servers.tls {
            server.tls = Some(Tls::of(config, servers)?);
        }
        server.address = match &servers.topology {
            Topology::One | Topology::Cluster => Address::Tcp(servers.nodes[0].clone()),
            Topology::Sentinel { service } => {
                let login = &config.sentinel_login;
                let at = |node| Self {
                    login: login.clone(),
                    ..server.at(node, false)
                };
                let (servers, service) = (servers.nodes.iter().map(at).collect(), service.clone());
                Address::Behind(Arc::new(Sentinels { servers, service }))
            }
        };
        server.database = servers.database;
        Some(server)
    }

    /// Another one of those that belong together.
    pub(in super::super) fn at(&self, node: &Node, is_replica: bool) -> Self {
        Self {
            address: Address::Tcp(node.clone()),
            is_replica,
            ..self.clone()
        }
    }

    pub(in super::super) async fn connect(&self) -> io::Result<Connection> {
        let connected = async {
            let mut connection: Connection = match &self.address {
                Address::Tcp(node) => self.over_tcp(node).await?,
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Address::Behind(sentinels) => {
                    let patience = self.timeout / 4;
                    self.over_tcp(&sentinels.master(patience).await?).await?
                }
            };
            self.greet(&mut connection).await?;
            if matches!(self.address, Address::Behind(_)) {
                is_master(&mut connection).await?;
            }
            Ok(connection)
        };
        let connected = tokio::time::timeout(self.timeout, connected).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The answer to one command over a connection of its own.
    pub(in super::super) async fn ask(&self, words: &[&[u8]]) -> io::Result<Reply> {
        let mut connection = self.connect().await?;
        reply(&mut connection, words).await
    }

    async fn over_tcp(&self, node: &Node) -> io::Result<Connection> {
        let stream = self.tcp(node).await?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => tls.over(stream, &node.host).await,
        }
    }

    async fn tcp(&self, node: &Node) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((&*node.host, node.port)).await?;
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&stream);
        socket.set_tcp_user_timeout(Some(self.gone()))?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(connect::IDLE)
            .with_interval(connect::IDLE_PROBE_EVERY)
            .with_retries(connect::IDLE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    }

    /// After so long without a sign of life the connection is given up.
    pub(super) fn gone(&self) -> Duration {
        self.timeout * connect::TIMEOUTS_UNTIL_GONE
    }

    async fn greet(&self, connection: &mut Connection) -> io::Result<()> {
        let Login { user, password } = &self.login;
        if let Some(password) = password {
            let mut words = vec![&b"AUTH"[..]];
            words.extend(user.as_ref().map(String::as_bytes));
            words.push(password.reveal().as_bytes());
            command(connection, &words).await?;
        }
        if let Some(database) = self.database {
            let number = database.to_string();
            command(connection, &[b"SELECT", number.as_bytes()]).await?;
        }
        if self.is_replica {
            command(connection, &[b"READONLY"]).await?;
        }
        // A server that has too many connections, or still loads, says so only when it is asked. Who may not ask this may
        // read all the same.
        match command(connection, &[b"PING"]).await {
            Err(error) if words::is_about_permission(&error.to_string()) => Ok(()),
            answer => answer,
        }
    }
}

/// Sends a command that is answered by `+OK` or the like.
async fn command(connection: &mut Connection, words: &[&[u8]]) -> io::Result<()> {
    send(connection, words).await?;
    let mut reader = Reader::default();
    loop {
        if connection.read_buf(reader.buffer()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer = reader.status().map_err(|_| io::ErrorKind::InvalidData)?;
        if let Some(answer) = answer {
            return answer.map_err(io::Error::other);
        }
    }
}

/// Sends a command, and gives its answer, whatever it is but a refusal.
async fn reply(connection: &mut Connection, words: &[&[u8]]) -> io::Result<Reply> {
    send(connection, words).await?;
    let mut came = BytesMut::new();
    loop {
        if connection.read_buf(&mut came).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match Reply::read(&came) {
            Ok(Some(Reply::Error(said))) => return Err(io::Error::other(said)),
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) if came.len() < MAX_REPLY_BYTES => {}
            Ok(None) | Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A sentinel may not have heard yet of a master that is none any more.
async fn is_master(connection: &mut Connection) -> io::Result<()> {
    match reply(connection, &[b"ROLE"]).await {
        Ok(role) => match role.list().and_then(|role| role.first()?.text()) {
            Some("master") => Ok(()),
            _ => Err(io::Error::other(
                "the sentinels name a server that is no master",
            )),
        },
        Err(error) if words::is_about_permission(&error.to_string()) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn send(connection: &mut Connection, words: &[&[u8]]) -> io::Result<()> {
    let mut bytes = Vec::new();
    resp::put_command(words, &mut bytes);
    connection.write_all(&bytes).await?;
    connection.flush().await
}
