//! The loop that accepts connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::connection;
use crate::error::Error;
use crate::server::Server;

/// The length of the accept queue. In a burst of clients no SYN must be dropped.
const BACKLOG: u32 = 1024;

/// How many free ports are tried until one is free on both addresses.
const ATTEMPTS: usize = 16;

/// A port on loopback that stays reserved for this emulator while it refuses connections.
pub(crate) struct Port {
    ipv4: Reservation,
    /// `None` if this machine has no IPv6, if another program listens on this port there, or if the other address is
    /// not 127.0.0.1.
    ipv6: Option<Reservation>,
}

struct Reservation {
    address: SocketAddr,
    /// Bound, but not listening, so connections are refused while the listener is closed.
    _socket: TcpSocket,
}

impl Port {
    /// Reserves a free port of `ip`, or `port` if it is not zero. Reserves it on ::1 as well if `ip` is 127.0.0.1
    /// and the port is free there.
    pub(crate) fn reserve(ip: IpAddr, port: u16) -> Result<Port, Error> {
        let failed = |cause| {
            Error::io(
                format!("port {port} of {ip} is not available: set another one, or 0 for any"),
                cause,
            )
        };
        let address = SocketAddr::from((ip, port));
        if port != 0 {
            // SO_REUSEPORT would share the port with another emulator as well.
            std::net::TcpListener::bind(address).map_err(failed)?;
        }
        let mut reserved = Port::reserve_both(address).map_err(failed)?;
        for _ in 1..ATTEMPTS {
            if port != 0 || reserved.ipv6.is_some() {
                break;
            }
            reserved = Port::reserve_both(address).map_err(failed)?;
        }
        Ok(reserved)
    }

    fn reserve_both(address: SocketAddr) -> io::Result<Port> {
        let ipv4 = Reservation::of(address)?;
        let ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, ipv4.address.port()));
        // The members of a cluster can listen on one port of several other addresses.
        let is_free =
            address.ip() == Ipv4Addr::LOCALHOST && std::net::TcpListener::bind(ipv6).is_ok();
        let ipv6 = is_free.then(|| Reservation::of(ipv6).ok()).flatten();
        Ok(Port { ipv4, ipv6 })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.ipv4.address
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let both = [Some(&self.ipv4), self.ipv6.as_ref()];
        let reserved = both.into_iter().flatten();
        reserved.map(|reservation| reservation.address).collect()
    }

    fn listen(&self) -> io::Result<Listening> {
        Ok(Listening {
            ipv4: self.ipv4.listen()?,
            ipv6: self.ipv6.as_ref().map(Reservation::listen).transpose()?,
        })
    }
}

impl Reservation {
    fn of(address: SocketAddr) -> io::Result<Reservation> {
        let socket = shared_socket(address)?;
        Ok(Reservation {
            address: socket.local_addr()?,
            _socket: socket,
        })
    }

    fn listen(&self) -> io::Result<TcpListener> {
        shared_socket(self.address)?.listen(BACKLOG)
    }
}

/// The open port.
struct Listening {
    ipv4: TcpListener,
    ipv6: Option<TcpListener>,
}

impl Listening {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let ipv6 = async {
            match &self.ipv6 {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = self.ipv4.accept() => accepted,
            accepted = ipv6 => accepted,
        }
    }
}

fn shared_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Opens and closes the port.
#[derive(Clone)]
pub(crate) struct Listener {
    addresses: Vec<SocketAddr>,
    orders: mpsc::UnboundedSender<(Order, oneshot::Sender<io::Result<()>>)>,
}

#[derive(Clone, Copy)]
enum Order {
    Open,
    Close,
}

impl Listener {
    /// Starts the accept loop. The port is closed at first.
    pub(crate) fn build(server: Arc<Server>, port: Port) -> Listener {
        let (sender, orders) = mpsc::unbounded_channel();
        let addresses = port.addresses();
        tokio::spawn(accept_loop(server, port, orders));
        Listener {
            addresses,
            orders: sender,
        }
    }

    /// The addresses on 127.0.0.1 and, if this machine has IPv6, on ::1.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) async fn open(&self) -> Result<(), Error> {
        self.order(Order::Open).await
    }

    pub(crate) async fn close(&self) -> Result<(), Error> {
        self.order(Order::Close).await
    }

    async fn order(&self, order: Order) -> Result<(), Error> {
        let (answer, result) = oneshot::channel();
        let _ = self.orders.send((order, answer));
        let gone = || io::Error::other("its loop has ended");
        result
            .await
            .unwrap_or_else(|_| Err(gone()))
            .map_err(|cause| Error::io("the emulator cannot listen on its port", cause))
    }
}

async fn accept_loop(
    server: Arc<Server>,
    port: Port,
    mut orders: mpsc::UnboundedReceiver<(Order, oneshot::Sender<io::Result<()>>)>,
) {
    let mut listener: Option<Listening> = None;
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
                    // For want of descriptors. Without a pause the loop would only keep a processor busy until
                    // some are freed.
                    tracing::warn!(target: "rds_iam_emulator", "accepting a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
}
