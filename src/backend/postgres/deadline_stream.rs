//! A TCP connection that fails when its login takes too long. The crate `postgres` is built on tokio, so only
//! this file and `runtime` name it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use postgres::Socket;
use postgres::tls::ChannelBinding;
use postgres_native_tls::TlsStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep_until};

/// An SSLRequest: its length, and its code. [protocol-message-formats of PostgreSQL's manual]
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// The state that the waiting thread shares with the stream.
#[derive(Debug, Default)]
pub(super) struct LoginDeadline {
    is_over: AtomicBool,
    is_broken: AtomicBool,
}

impl LoginDeadline {
    /// Marks the end of the login, after which there is no limit.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether the stream failed, or reached its deadline, during the login.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// The stream.
#[derive(Debug)]
pub struct DeadlineStream {
    socket: Socket,
    watch: Arc<LoginDeadline>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl DeadlineStream {
    pub(super) fn new(
        socket: Socket,
        watch: Arc<LoginDeadline>,
        deadline: Instant,
    ) -> DeadlineStream {
        DeadlineStream {
            socket,
            watch,
            timer: Some(Box::pin(sleep_until(deadline.into()))),
        }
    }

    /// Requests TLS. The server answers `S` if it supports it, and `N` if not.
    pub(super) async fn ask_for_tls(&mut self) -> io::Result<u8> {
        self.write_all(&SSL_REQUEST).await?;
        self.read_u8().await
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut Socket>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(timer) = &mut self.timer else {
            return work(Pin::new(&mut self.socket), cx);
        };
        if self.watch.is_over.load(Ordering::Relaxed) {
            self.timer = None;
            return work(Pin::new(&mut self.socket), cx);
        }
        let done = if timer.as_mut().poll(cx).is_ready() {
            let message = "the server did not answer within connect_timeout";
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        } else {
            ready!(work(Pin::new(&mut self.socket), cx))
        };
        if done.is_err() {
            self.watch.is_broken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(done)
    }
}

impl AsyncRead for DeadlineStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        let filled = buffer.filled().len();
        ready!(line.poll(cx, |socket, cx| socket.poll_read(cx, buffer)))?;
        if line.timer.is_some() && buffer.filled().len() == filled {
            // The server closed the connection, which TLS may report as another error.
            line.watch.is_broken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for DeadlineStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .poll(cx, |socket, cx| socket.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, |socket, cx| socket.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .poll(cx, |socket, cx| socket.poll_shutdown(cx))
    }
}

/// The stream, with or without TLS.
#[expect(
    missing_debug_implementations,
    reason = "that of postgres-native-tls has none"
)]
pub enum Stream {
    Plain(DeadlineStream),
    Encrypted(Box<TlsStream<DeadlineStream>>),
}

impl postgres::tls::TlsStream for Stream {
    fn channel_binding(&self) -> ChannelBinding {
        match self {
            Stream::Plain(_) => ChannelBinding::none(),
            Stream::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(line) => Pin::new(line).poll_read(cx, buffer),
            Stream::Encrypted(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(line) => Pin::new(line).poll_write(cx, bytes),
            Stream::Encrypted(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(line) => Pin::new(line).poll_flush(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(line) => Pin::new(line).poll_shutdown(cx),
            Stream::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
