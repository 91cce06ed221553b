//! What all connections share, and the loop that takes them in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::clock::Clock;
use crate::connection;
use crate::credentials::Keyring;
use crate::engine::Engine;
use crate::error::Error;
use crate::faults::Faults;
use crate::language::CurrentLanguage;
use crate::login::LoginLog;
use crate::policy::Policy;
use crate::postgres::admin::Admin;
use crate::sessions::Sessions;
use crate::upstream::Upstream;

/// Connections that wait to be taken in: a burst of clients shall not see their SYNs dropped.
const BACKLOG: u32 = 1024;

/// What the server is, and what it knows.
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) region: String,
    pub(crate) host: String,
    /// The port that tokens must be signed for.
    pub(crate) signed_port: u16,
    pub(crate) force_ssl: bool,
    pub(crate) authentication_timeout: Millis,
    pub(crate) token_lifetime: Millis,
    /// Zero: none.
    pub(crate) session_limit: Millis,
    pub(crate) tls: TlsAcceptor,
    pub(crate) clock: Arc<Clock>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) policy: Policy,
    pub(crate) language: CurrentLanguage,
    pub(crate) logins: LoginLog,
    pub(crate) faults: Faults,
    pub(crate) sessions: Sessions,
    pub(crate) admin: Admin,
    pub(crate) upstream: RwLock<PathBuf>,
    /// Somebody else's PostgreSQL, in the place of that one.
    pub(crate) other: Option<Upstream>,
}

/// A span of time that can be changed while it is in use.
pub(crate) struct Millis(AtomicU64);

impl Millis {
    pub(crate) fn new(duration: Duration) -> Millis {
        let millis = Millis(AtomicU64::new(0));
        millis.set(duration);
        millis
    }

    pub(crate) fn set(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Server {
    /// The socket of the PostgreSQL that new sessions go to.
    pub(crate) fn upstream(&self) -> PathBuf {
        self.upstream
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_upstream(&self, socket: PathBuf) {
        *self
            .upstream
            .write()
            .unwrap_or_else(PoisonError::into_inner) = socket;
    }
}

/// A port of our own on loopback, which nobody else gets while the door is closed.
pub(crate) struct Port {
    address: SocketAddr,
    /// Bound, and never listening: who connects while the door is closed is refused.
    _reservation: TcpSocket,
}

impl Port {
    /// Takes a free port, or `port` if it is not zero.
    pub(crate) fn reserve(port: u16) -> Result<Port, Error> {
        let failed = |cause| {
            Error::io(
                format!("port {port} of 127.0.0.1 cannot be had: set another one, or 0 for any"),
                cause,
            )
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if port != 0 {
            // Sockets that share their port would share it with another emulator, too.
            std::net::TcpListener::bind(address).map_err(failed)?;
        }
        let reservation = shared_socket(address).map_err(failed)?;
        Ok(Port {
            address: reservation.local_addr().map_err(failed)?,
            _reservation: reservation,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&self) -> std::io::Result<TcpListener> {
        shared_socket(self.address)?.listen(BACKLOG)
    }
}

fn shared_socket(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Opens and closes the door.
#[derive(Clone)]
pub(crate) struct Door(mpsc::UnboundedSender<(Order, oneshot::Sender<std::io::Result<()>>)>);

#[derive(Clone, Copy)]
enum Order {
    Open,
    Close,
}

impl Door {
    /// Starts the loop that takes connections in; the door is closed at first.
    pub(crate) fn build(server: Arc<Server>, port: Port) -> Door {
        let (sender, orders) = mpsc::unbounded_channel();
        tokio::spawn(attend(server, port, orders));
        Door(sender)
    }

    pub(crate) async fn open(&self) -> Result<(), Error> {
        self.order(Order::Open).await
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.order(Order::Close).await
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        let (answer, result) = oneshot::channel();
        let _ = self.0.send((order, answer));
        let gone = || std::io::Error::other("its loop has ended");
        result
            .await
            .unwrap_or_else(|_| Err(gone()))
            .map_err(|cause| Error::io("the emulator cannot listen on its port", cause))
    }
}

async fn attend(
    server: Arc<Server>,
    port: Port,
    mut orders: mpsc::UnboundedReceiver<(Order, oneshot::Sender<std::io::Result<()>>)>,
) {
    let mut listener: Option<TcpListener> = None;
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            order = orders.recv() => {
                let Some((order, answer)) = order else {
                    return;
                };
                let result = match order {
                    Order::Close => {
                        listener = None;
                        Ok(())
                    }
                    Order::Open if listener.is_some() => Ok(()),
                    Order::Open => port.listen().map(|opened| listener = Some(opened)),
                };
                let _ = answer.send(result);
            }
            accepted = accepted => match accepted {
                Ok((tcp, peer)) => {
                    tokio::spawn(connection::serve(Arc::clone(&server), tcp, peer));
                }
                Err(error) => {
                    // Out of descriptors: those in use will be freed, and asking again at once
                    // would only keep a processor busy.
                    tracing::warn!(target: "rds_iam_emulator", "accepting a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
}
