//! Serves one client, from accept to close.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::authenticate;
use crate::certificates::ALPN;
use crate::clock::monotonic;
use crate::faults::{Fault, Stage};
use crate::packet::{self, Initial, Malformed, Startup};
use crate::refusal::{End, Refusal};
use crate::rejection::CANNOT_FORK;
use crate::server::Server;
use crate::sessions::SessionEnd;
use crate::stream::Stream;
use crate::upstream::NotOpened;
use crate::wire::{Wire, WireHandle};

/// The first byte of a TLS handshake. A start-up packet cannot begin with it, since it would be too long.
const TLS_HANDSHAKE: u8 = 0x16;

/// As large as a TLS record.
const BUFFER: usize = 16 * 1024;

/// A client whose first request has been read.
struct Client {
    stream: Box<dyn Stream>,
    encrypted: bool,
    /// Its packet, unchanged.
    packet: Vec<u8>,
    initial: Initial,
}

/// Serves one client until the client or PostgreSQL closes, or a test ends all connections.
pub(crate) async fn serve(server: Arc<Server>, tcp: TcpStream, peer: SocketAddr) {
    // Dropped last: `end_all` waits until this connection is closed.
    let mut connected = server.sessions.connect();
    let wire = Wire::new(tcp, server.faults.wire());
    let handle = wire.handle();
    // The wire must be told how to end before it is dropped, so this is done inside the future.
    let ended = async {
        if connected.ended().await == SessionEnd::Reset {
            handle.reset_at_end();
        }
    };
    tokio::select! {
        // Errors of a connection are reported to the client only; here the connection ends.
        _ = converse(&server, wire, &handle, peer) => {}
        () = ended => {}
    }
}

async fn converse(
    server: &Server,
    mut wire: Wire,
    handle: &WireHandle,
    peer: SocketAddr,
) -> io::Result<()> {
    let deadline = Instant::from_std(monotonic()) + server.authentication_timeout.get();
    misbehave(server, Stage::Accept, handle, &mut wire).await?;
    if wire.local_ip().is_some_and(|ip| server.faults.resets(ip)) {
        handle.reset_at_end();
        return Ok(());
    }
    if server.faults.cannot_fork() {
        before(deadline, handle, reject_unread(wire, CANNOT_FORK)).await;
        return Ok(());
    }
    // As in PostgreSQL, a client that sends its start-up packet too late gets no message.
    let negotiated = before(deadline, handle, negotiate(server, wire, handle)).await;
    let Some(mut client) = negotiated.transpose()?.flatten() else {
        return Ok(());
    };
    let Initial::Startup(startup) = &client.initial else {
        return cancel(server, &client.packet).await;
    };
    let stream = &mut client.stream;
    let authenticated = authenticate(server, stream, client.encrypted, startup, handle, peer);
    match before(deadline, handle, authenticated).await {
        Some(Ok(verified)) => converse_with_postgres(server, client, verified, handle).await,
        Some(Err(end)) => refuse(server, stream, end).await,
        None => refuse(server, stream, End::Refused(Refusal::too_slow(server))).await,
    }
}

/// Runs a part of the login until `deadline`. A requested black hole has no deadline.
async fn before<T>(
    deadline: Instant,
    handle: &WireHandle,
    part: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(part);
    match timeout_at(deadline, &mut part).await {
        Ok(value) => Some(value),
        Err(_) if handle.is_silent() => Some(part.await),
        Err(_) => None,
    }
}

/// Opens the session in PostgreSQL, and passes on all bytes in both directions.
async fn converse_with_postgres(
    server: &Server,
    mut client: Client,
    verified: Option<Vec<u8>>,
    handle: &WireHandle,
) -> io::Result<()> {
    let _open = server.sessions.open();
    let mut postgres = match (&server.other, verified) {
        (Some(other), Some(user)) => match other.open(&server.admin, &user, &client.packet).await {
            Ok(opened) => {
                client.stream.write_all(&opened.greeting).await?;
                client.stream.flush().await?;
                opened.stream
            }
            Err(NotOpened::Refused(last_word)) => {
                client.stream.write_all(&last_word).await?;
                return refuse(server, &mut client.stream, End::HangUp).await;
            }
            Err(NotOpened::Io) => return no_postgres(server, client).await,
        },
        _ => match dial(server).await {
            Ok(mut postgres) => {
                postgres.write_all(&client.packet).await?;
                postgres
            }
            Err(_) => return no_postgres(server, client).await,
        },
    };
    misbehave(server, Stage::Data, handle, &mut client.stream).await?;
    handle.session_begins();
    let splice = copy_bidirectional_with_sizes(&mut client.stream, &mut postgres, BUFFER, BUFFER);
    let limit = server.session_limit.get();
    if limit.is_zero() {
        splice.await?;
    } else {
        tokio::select! {
            ended = splice => { ended?; }
            () = sleep(limit) => {}
        }
    }
    Ok(())
}

async fn no_postgres(server: &Server, mut client: Client) -> io::Result<()> {
    let end = End::Refused(Refusal::shutting_down(server));
    refuse(server, &mut client.stream, end).await
}

/// A connection to PostgreSQL on which nothing has been sent.
async fn dial(server: &Server) -> io::Result<Box<dyn Stream>> {
    match &server.other {
        Some(other) => other.connect().await,
        None => Ok(Box::new(UnixStream::connect(server.upstream()).await?)),
    }
}

/// Reads the client's request, after the encryption that it asks for. `None` if it has left.
async fn negotiate(
    server: &Server,
    mut wire: Wire,
    handle: &WireHandle,
) -> io::Result<Option<Client>> {
    if wire.peek().await? == Some(TLS_HANDSHAKE) {
        return encrypt(server, wire, handle, true).await;
    }
    loop {
        let (packet, initial) = match read_initial(&mut wire).await {
            Ok(read) => read,
            Err(end) => {
                refuse(server, &mut wire, end).await?;
                return Ok(None);
            }
        };
        match initial {
            Initial::Tls => {
                if server.faults.error_before_tls() {
                    reject_unread(wire, &Refusal::forged(server).packet(server)).await?;
                    return Ok(None);
                }
                let mut answer = b"S".to_vec();
                if server.faults.bytes_before_tls() {
                    answer.extend(Refusal::forged(server).packet(server));
                }
                wire.write_all(&answer).await?;
                return encrypt(server, wire, handle, false).await;
            }
            Initial::Gss => wire.write_all(b"N").await?,
            Initial::Cancel | Initial::Startup(_) => {
                return Ok(Some(Client {
                    stream: Box::new(wire),
                    encrypted: false,
                    packet,
                    initial,
                }));
            }
        }
    }
}

async fn encrypt(
    server: &Server,
    mut wire: Wire,
    handle: &WireHandle,
    direct: bool,
) -> io::Result<Option<Client>> {
    misbehave(server, Stage::Tls, handle, &mut wire).await?;
    let mut stream = server.tls.accept(wire).await?;
    let handshake = stream.get_ref().1;
    // Direct TLS requires ALPN.
    if direct && handshake.alpn_protocol() != Some(ALPN) {
        return Ok(None);
    }
    let unnamed = match handshake.server_name() {
        Some(_) => None,
        None => server.engine.no_server_name(),
    };
    let end = match (read_initial(&mut stream).await, unnamed) {
        (Ok(_), Some(answer)) => End::Refused(answer.into()),
        // A request for encryption inside encryption gets PostgreSQL's error for an unsupported protocol.
        (Ok((packet, Initial::Tls | Initial::Gss)), None) => packet::unsupported(&packet).into(),
        (Ok((packet, initial)), None) => {
            return Ok(Some(Client {
                stream: Box::new(stream),
                encrypted: true,
                packet,
                initial,
            }));
        }
        (Err(end), _) => end,
    };
    refuse(server, &mut stream, end).await?;
    Ok(None)
}

/// Reads one packet without a type byte, and returns its bytes and its content.
async fn read_initial(stream: &mut (impl Stream + ?Sized)) -> Result<(Vec<u8>, Initial), End> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; packet::startup_length(header)?];
    stream.read_exact(&mut body).await?;
    let initial = packet::parse_initial(&body)?;
    Ok(([header.as_slice(), &body].concat(), initial))
}

/// Decides whether the session may be opened. Returns the user whose token was verified, or `None` if
/// PostgreSQL itself asks for a password.
async fn authenticate(
    server: &Server,
    stream: &mut Box<dyn Stream>,
    encrypted: bool,
    startup: &Startup,
    handle: &WireHandle,
    peer: SocketAddr,
) -> Result<Option<Vec<u8>>, End> {
    if !authenticate::wants_token(server, startup, encrypted, peer).await? {
        return Ok(None);
    }
    stream.write_all(&packet::password_request()).await?;
    stream.flush().await?;
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let length = packet::password_length(header).inspect_err(|malformed| {
        // A message shorter than its own length field contains no password, and is not recorded as a login.
        if *malformed == Malformed::HangUp && header > *b"p\0\0\0\x04" {
            authenticate::password_too_long(server, startup);
        }
    })?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let password = packet::parse_password(&body)?;
    misbehave(server, Stage::Login, handle, stream).await?;
    authenticate::verify_password(server, startup, password).map_err(End::Refused)?;
    Ok(Some(startup.user.clone()))
}

/// Applies the faults of this stage. An error ends the connection.
async fn misbehave(
    server: &Server,
    stage: Stage,
    handle: &WireHandle,
    stream: &mut impl Stream,
) -> io::Result<()> {
    for fault in server.faults.at(stage) {
        match fault {
            Fault::Delay(_, delay) => sleep(delay).await,
            Fault::BlackHole(_) => {
                handle.fall_silent();
                // Reading detects that the client has left.
                tokio::io::copy(stream, &mut tokio::io::sink()).await?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Fault::Reset(_) => {
                handle.reset_at_end();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Sends the last message, if there is one, and closes.
async fn refuse(server: &Server, stream: &mut (impl Stream + ?Sized), end: End) -> io::Result<()> {
    if let End::Refused(refusal) = end {
        stream.write_all(&refusal.packet(server)).await?;
    }
    stream.flush().await?;
    stream.shutdown().await
}

/// Sends a last message to a client whose data is not read, and waits until it has left. Otherwise the system
/// would reset the connection, and the client might not see the message.
async fn reject_unread(mut wire: Wire, message: &[u8]) -> io::Result<()> {
    wire.write_all(message).await?;
    wire.shutdown().await?;
    tokio::io::copy(&mut wire, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Passes on a cancel request. PostgreSQL closes the connection when it is done, and so does this.
async fn cancel(server: &Server, packet: &[u8]) -> io::Result<()> {
    let mut postgres = dial(server).await?;
    postgres.write_all(packet).await?;
    let mut nothing = [0; 1];
    let _ = tokio::time::timeout(Duration::from_secs(10), postgres.read(&mut nothing)).await;
    Ok(())
}
