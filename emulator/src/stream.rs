//! A connection with or without TLS.

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a client or to PostgreSQL.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
