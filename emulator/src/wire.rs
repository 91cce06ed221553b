//! The TCP connection to a client, below TLS, where faults are applied to each byte.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::faults::WireFaults;

/// A TCP connection that splits, delays or drops the data that is sent over it.
pub(crate) struct Wire {
    tcp: TcpStream,
    faults: Arc<WireFaults>,
    /// Delays and silence apply to open sessions only.
    in_session: Arc<AtomicBool>,
    delay: Option<Pin<Box<Sleep>>>,
    silent: Arc<AtomicBool>,
    reset: Arc<AtomicBool>,
}

/// Controls a wire that is wrapped in TLS.
#[derive(Clone)]
pub(crate) struct WireHandle {
    in_session: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    reset: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream, faults: Arc<WireFaults>) -> Wire {
        // A login exchanges small packets, which must not be delayed by Nagle's algorithm.
        let _ = tcp.set_nodelay(true);
        Wire {
            tcp,
            faults,
            in_session: Arc::default(),
            delay: None,
            silent: Arc::default(),
            reset: Arc::default(),
        }
    }

    pub(crate) fn handle(&self) -> WireHandle {
        WireHandle {
            in_session: Arc::clone(&self.in_session),
            silent: Arc::clone(&self.silent),
            reset: Arc::clone(&self.reset),
        }
    }

    /// Waits for the first byte without consuming it; `None` if the client has left.
    pub(crate) async fn peek(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let count = self.tcp.peek(&mut first).await?;
        let [byte] = first;
        Ok((count > 0).then_some(byte))
    }

    /// The address that the client has connected to.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        self.tcp.local_addr().map(|address| address.ip()).ok()
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
            || (self.in_session.load(Ordering::Relaxed) && self.faults.silent())
    }
}

impl WireHandle {
    /// Marks the end of the login.
    pub(crate) fn session_begins(&self) {
        self.in_session.store(true, Ordering::Relaxed);
    }

    /// Drops all data that is sent from now on.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Makes the wire reset the connection when it is dropped, instead of closing it.
    pub(crate) fn reset_at_end(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_silent() {
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.in_session.load(Ordering::Relaxed) {
            let delay = self.faults.delay();
            if self.delay.is_none() && !delay.is_zero() {
                self.delay = Some(Box::pin(sleep(delay)));
            }
            if let Some(delay) = &mut self.delay {
                ready!(delay.as_mut().poll(context));
            }
        }
        let slice = if self.faults.one_byte() {
            bytes.get(..1).unwrap_or_default()
        } else {
            bytes
        };
        let written = ready!(Pin::new(&mut self.tcp).poll_write(context, slice));
        // The delay applies to each piece of data.
        self.delay = None;
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.tcp.set_zero_linger();
        }
    }
}
