//! Somebody else's PostgreSQL behind the emulator, instead of its own.
//!
//! It knows nothing of tokens, so the emulator logs in there by itself, as the user of the URL that
//! it was given, and has the session go on as the user whose token was verified.

use std::io;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::connection::Stream;
use crate::error::{Error, ErrorKind};
use crate::packet;

/// The longest message that is read before a session is open; none comes near it.
const LONGEST_MESSAGE: usize = 1 << 20;

const DEFAULT_PORT: u16 = 5432;

/// Where it is, and who the emulator is there.
#[derive(Clone)]
pub(crate) struct Upstream {
    config: Config,
    user: String,
}

/// A session that was opened, and what the server said about it.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    /// The messages that tell a client of its login, up to the first `ReadyForQuery`.
    pub(crate) greeting: Vec<u8>,
}

/// Why no session was opened.
pub(crate) enum NotOpened {
    Io,
    /// The server's own last message.
    Refused(Vec<u8>),
}

impl From<io::Error> for NotOpened {
    fn from(_: io::Error) -> NotOpened {
        NotOpened::Io
    }
}

struct Message {
    kind: u8,
    /// All of it, as it came.
    packet: Vec<u8>,
}

impl Message {
    fn body(&self) -> &[u8] {
        self.packet.get(5..).unwrap_or_default()
    }
}

impl Upstream {
    pub(crate) fn parse(url: &str) -> Result<Upstream, Error> {
        let wrong = |what: &str| Error::new(ErrorKind::Setting, what);
        // Without its cause, which may quote the password.
        let config: Config = url.parse().map_err(|_| {
            wrong("the upstream is no URL of a PostgreSQL: write postgres://user:password@host/database")
        })?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(wrong(
                "the upstream is reached without TLS: leave sslmode out of its URL",
            ));
        }
        if config.get_hosts().is_empty() {
            return Err(wrong("the upstream's URL names no host"));
        }
        let user = config
            .get_user()
            .ok_or_else(|| wrong("the upstream's URL names no user"))?
            .to_owned();
        Ok(Upstream { config, user })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let port = self.config.get_ports().first().copied();
        let port = port.unwrap_or(DEFAULT_PORT);
        match (
            self.config.get_hostaddrs().first(),
            self.config.get_hosts().first(),
        ) {
            (Some(address), _) => Ok(Box::new(TcpStream::connect((*address, port)).await?)),
            (None, Some(Host::Tcp(host))) => {
                Ok(Box::new(TcpStream::connect((host.as_str(), port)).await?))
            }
            (None, Some(Host::Unix(folder))) => {
                let socket = folder.join(format!(".s.PGSQL.{port}"));
                Ok(Box::new(UnixStream::connect(socket).await?))
            }
            (None, None) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// Opens a session for the user whose start-up packet this is.
    pub(crate) async fn open(&self, startup: &[u8]) -> Result<Opened, NotOpened> {
        let mut stream = self.connect().await?;
        let parameters = packet::parameters(startup);
        let asked = parameters
            .iter()
            .find(|(name, _)| name == "user")
            .map_or("", |(_, user)| user.as_str());
        let ours = parameters.iter().map(|(name, value)| match name.as_str() {
            "user" => ("user", self.user.as_str()),
            name => (name, value.as_str()),
        });
        // Without it, it would be the one with our name.
        let names_database = parameters.iter().any(|(name, _)| name == "database");
        let database = (!names_database).then_some(("database", asked));
        say(&mut stream, |buffer| {
            frontend::startup_message(ours.chain(database), buffer)
        })
        .await?;
        let mut greeting = self.authenticate(&mut stream).await?;
        read_until_ready(&mut stream, &mut greeting).await?;
        if asked != self.user {
            let name = asked.replace('"', "\"\"");
            let statement = format!("SET SESSION AUTHORIZATION \"{name}\"");
            say(&mut stream, |buffer| frontend::query(&statement, buffer)).await?;
            read_until_ready(&mut stream, &mut greeting).await?;
        }
        // That the session is ready is said once, at the end.
        greeting.extend_from_slice(&READY);
        Ok(Opened { stream, greeting })
    }

    /// Answers what the server asks, and returns its word that it is content.
    async fn authenticate(&self, stream: &mut Box<dyn Stream>) -> Result<Vec<u8>, NotOpened> {
        let password = self.config.get_password().unwrap_or_default();
        let mut scram = None;
        loop {
            let message = read(stream).await?;
            if message.kind == b'E' {
                return Err(NotOpened::Refused(message.packet));
            }
            let (code, rest) = message
                .body()
                .split_first_chunk::<4>()
                .ok_or(NotOpened::Io)?;
            match (message.kind, u32::from_be_bytes(*code)) {
                (b'R', 0) => return Ok(message.packet),
                (b'R', 3) => {
                    say(stream, |buffer| {
                        frontend::password_message(password, buffer)
                    })
                    .await?;
                }
                (b'R', 5) => {
                    let salt = rest.first_chunk::<4>().ok_or(NotOpened::Io)?;
                    let hash = md5_hash(self.user.as_bytes(), password, *salt);
                    say(stream, |buffer| {
                        frontend::password_message(hash.as_bytes(), buffer)
                    })
                    .await?;
                }
                (b'R', 10) => {
                    let begun = ScramSha256::new(password, ChannelBinding::unsupported());
                    say(stream, |buffer| {
                        frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), buffer)
                    })
                    .await?;
                    scram = Some(begun);
                }
                (b'R', 11) => {
                    let scram = scram.as_mut().ok_or(NotOpened::Io)?;
                    scram.update(rest)?;
                    say(stream, |buffer| {
                        frontend::sasl_response(scram.message(), buffer)
                    })
                    .await?;
                }
                (b'R', 12) => scram.as_mut().ok_or(NotOpened::Io)?.finish(rest)?,
                _ => return Err(NotOpened::Io),
            }
        }
    }
}

/// `ReadyForQuery`, outside a transaction.
const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

/// Collects what a client is to hear until the server is ready: its settings, and the key for
/// cancelling.
async fn read_until_ready(
    stream: &mut Box<dyn Stream>,
    heard: &mut Vec<u8>,
) -> Result<(), NotOpened> {
    loop {
        let message = read(stream).await?;
        match message.kind {
            b'Z' => return Ok(()),
            b'E' => return Err(NotOpened::Refused(message.packet)),
            b'S' | b'K' | b'N' => heard.extend_from_slice(&message.packet),
            _ => {}
        }
    }
}

async fn read(stream: &mut Box<dyn Stream>) -> io::Result<Message> {
    let mut packet = vec![0; 5];
    stream.read_exact(&mut packet).await?;
    let (kind, length) = match packet.as_slice() {
        [kind, length @ ..] => (
            *kind,
            length.first_chunk::<4>().copied().unwrap_or_default(),
        ),
        [] => (0, [0; 4]),
    };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if !(4..LONGEST_MESSAGE).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    packet.extend_from_slice(&body);
    Ok(Message { kind, packet })
}

async fn say(
    stream: &mut Box<dyn Stream>,
    write: impl FnOnce(&mut bytes::BytesMut) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = bytes::BytesMut::new();
    write(&mut buffer)?;
    stream.write_all(&buffer).await?;
    stream.flush().await
}
