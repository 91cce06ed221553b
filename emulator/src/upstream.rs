//! A foreign PostgreSQL behind the emulator, instead of its own.
//!
//! That PostgreSQL cannot verify tokens. The emulator sets a password for each user whose token it has
//! verified, and logs in there as that user. As on RDS, `RESET SESSION AUTHORIZATION` and start-up
//! options therefore have that user's rights only.

use std::collections::HashSet;
use std::io;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use postgres_protocol::password::scram_sha_256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::error::{Error, ErrorKind};
use crate::postgres::admin::Admin;
use crate::stream::Stream;

/// The maximum size of a message before a session is open. Real ones are far smaller.
const LONGEST_MESSAGE: usize = 1 << 20;

const DEFAULT_PORT: u16 = 5432;

/// How many times a login is attempted whose password another emulator has changed meanwhile.
const ATTEMPTS: u32 = 4;

/// The address of the upstream, and the user of the emulator there.
pub(crate) struct Upstream {
    config: Config,
    user: String,
    /// The password of all users whose tokens were verified. Generated for this emulator.
    password: String,
    /// The users whose password has been set.
    users: Mutex<HashSet<String>>,
}

/// An open session, and the messages of the server up to there.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    /// The messages that complete a client's login, up to the first `ReadyForQuery`.
    pub(crate) greeting: Vec<u8>,
}

/// Why no session was opened.
pub(crate) enum NotOpened {
    Io,
    /// The server's last message.
    Refused(Vec<u8>),
}

impl From<io::Error> for NotOpened {
    fn from(_: io::Error) -> NotOpened {
        NotOpened::Io
    }
}

/// A password of 256 random bits.
fn random_password() -> Result<String, Error> {
    let mut bytes = [0; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| {
            Error::new(
                ErrorKind::Io,
                "the system has no random bytes for a password",
            )
        })?;
    Ok(hex::encode(bytes))
}

struct Message {
    kind: u8,
    /// All of it, unchanged.
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
        // Without the cause, which may quote the password.
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
        Ok(Upstream {
            config,
            user,
            password: random_password()?,
            users: Mutex::default(),
        })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// A connection on which nothing has been sent.
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

    /// Opens a session by the client's own start-up packet, as the user whose token was verified.
    ///
    /// PostgreSQL reads the user from that packet itself, and checks the password that the emulator has
    /// set for the verified user. If the two readings ever differed, the password would be wrong.
    pub(crate) async fn open(
        &self,
        admin: &Admin,
        user: &[u8],
        startup: &[u8],
    ) -> Result<Opened, NotOpened> {
        // The emulator would lose its own access if it changed the password of its own user.
        if user == self.user.as_bytes() {
            let password = self.config.get_password().unwrap_or_default();
            return self.log_in(user, password, startup).await;
        }
        self.set_password(admin, user, false).await;
        for _ in 1..ATTEMPTS {
            match self.log_in(user, self.password.as_bytes(), startup).await {
                // The role was created again, or another emulator has set a password.
                Err(NotOpened::Refused(packet)) if is_invalid_password(&packet) => {
                    self.set_password(admin, user, true).await;
                }
                result => return result,
            }
        }
        self.log_in(user, self.password.as_bytes(), startup).await
    }

    /// Sets the password of `user`, once unless `again`. If that fails, PostgreSQL refuses the login.
    async fn set_password(&self, admin: &Admin, user: &[u8], again: bool) {
        let Ok(name) = std::str::from_utf8(user) else {
            return;
        };
        let mut users = self.users.lock().await;
        if !again && users.contains(name) {
            return;
        }
        // PostgreSQL receives the hash only, so that no statement log contains the password.
        let hash = scram_sha_256(self.password.as_bytes());
        match admin
            .execute_format("ALTER ROLE %I PASSWORD %L", &[name, &hash])
            .await
        {
            Ok(()) => {
                users.insert(name.to_owned());
            }
            Err(error) => {
                tracing::warn!(target: "rds_iam_emulator", "no password could be set upstream: {error}");
            }
        }
    }

    async fn log_in(
        &self,
        user: &[u8],
        password: &[u8],
        startup: &[u8],
    ) -> Result<Opened, NotOpened> {
        let mut stream = self.connect().await?;
        stream.write_all(startup).await?;
        stream.flush().await?;
        let mut greeting = authenticate(&mut stream, user, password).await?;
        read_until_ready(&mut stream, &mut greeting).await?;
        Ok(Opened { stream, greeting })
    }
}

/// Answers the server's requests for a password, and returns its `AuthenticationOk` and the messages before it.
async fn authenticate(
    stream: &mut Box<dyn Stream>,
    user: &[u8],
    password: &[u8],
) -> Result<Vec<u8>, NotOpened> {
    let mut greeting = Vec::new();
    let mut scram = None;
    loop {
        let message = read(stream).await?;
        match message.kind {
            b'E' => return Err(NotOpened::Refused(message.packet)),
            // NegotiateProtocolVersion and notices are for the client.
            b'v' | b'N' => {
                greeting.extend_from_slice(&message.packet);
                continue;
            }
            b'R' => {}
            _ => return Err(NotOpened::Io),
        }
        let (code, rest) = message
            .body()
            .split_first_chunk::<4>()
            .ok_or(NotOpened::Io)?;
        match u32::from_be_bytes(*code) {
            0 => {
                greeting.extend_from_slice(&message.packet);
                return Ok(greeting);
            }
            3 => {
                say(stream, |buffer| {
                    frontend::password_message(password, buffer)
                })
                .await?;
            }
            5 => {
                let salt = rest.first_chunk::<4>().ok_or(NotOpened::Io)?;
                let hash = md5_hash(user, password, *salt);
                say(stream, |buffer| {
                    frontend::password_message(hash.as_bytes(), buffer)
                })
                .await?;
            }
            10 => {
                let begun = ScramSha256::new(password, ChannelBinding::unsupported());
                say(stream, |buffer| {
                    frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), buffer)
                })
                .await?;
                scram = Some(begun);
            }
            11 => {
                let scram = scram.as_mut().ok_or(NotOpened::Io)?;
                scram.update(rest)?;
                say(stream, |buffer| {
                    frontend::sasl_response(scram.message(), buffer)
                })
                .await?;
            }
            12 => scram.as_mut().ok_or(NotOpened::Io)?.finish(rest)?,
            _ => return Err(NotOpened::Io),
        }
    }
}

/// Whether an error's SQLSTATE is `invalid_password`.
fn is_invalid_password(packet: &[u8]) -> bool {
    packet
        .get(5..)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .any(|field| field == b"C28P01")
}

/// Collects the messages for the client until the server is ready: its settings, and the key for cancelling.
async fn read_until_ready(
    stream: &mut Box<dyn Stream>,
    heard: &mut Vec<u8>,
) -> Result<(), NotOpened> {
    loop {
        let message = read(stream).await?;
        match message.kind {
            b'Z' => {
                heard.extend_from_slice(&message.packet);
                return Ok(());
            }
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
