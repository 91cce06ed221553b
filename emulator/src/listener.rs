//! The loop that accepts connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};

use crate::connection;
use crate::error::Error;
use crate::server::Server;

/// The length of the accept queue. In a burst of clients no SYN must be dropped.
const BACKLOG: u32 = 1024;

/// A port on loopback that stays reserved for this emulator while it refuses connections.
pub(crate) struct Port {
    address: SocketAddr,
    /// Bound, but not listening, so connections are refused while the listener is closed.
    _reservation: TcpSocket,
}

impl Port {
    /// Reserves a free port of `ip`, or `port` if it is not zero.
    pub(crate) fn reserve(ip: IpAddr, port: u16) -> Result<Port, Error> {
        let failed = |cause| {
            Error::io(
                format!("port {port} of {ip} cannot be had: set another one, or 0 for any"),
                cause,
            )
        };
        let address = SocketAddr::from((ip, port));
        if port != 0 {
            // SO_REUSEPORT would share the port with another emulator as well.
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

/// Opens and closes the port.
#[derive(Clone)]
pub(crate) struct Listener(mpsc::UnboundedSender<(Order, oneshot::Sender<std::io::Result<()>>)>);

#[derive(Clone, Copy)]
enum Order {
    Open,
    Close,
}

impl Listener {
    /// Starts the accept loop. The port is closed at first.
    pub(crate) fn build(server: Arc<Server>, port: Port) -> Listener {
        let (sender, orders) = mpsc::unbounded_channel();
        tokio::spawn(accept_loop(server, port, orders));
        Listener(sender)
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

async fn accept_loop(
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
                    // For want of descriptors. Without a pause the loop would only keep a processor busy until
                    // some are freed.
                    tracing::warn!(target: "rds_iam_emulator", "accepting a connection failed: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
}
