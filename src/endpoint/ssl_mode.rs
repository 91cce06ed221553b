//! libpq's `sslmode`.

/// How far a server is trusted before anything secret is sent to it; libpq's `sslmode`.
///
/// The default with IAM is [`VerifyFull`](SslMode::VerifyFull). [`VerifyCa`](SslMode::VerifyCa) and
/// [`Require`](SslMode::Require) have to be asked for, and the rest are refused with IAM, because a
/// token is sent in clear inside the connection and is good for anyone who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server insists.
    Allow,
    /// TLS if the server has it, and again without after a refused login.
    Prefer,
    /// TLS with whoever answers, unless `sslrootcert` is set: then as
    /// [`VerifyCa`](SslMode::VerifyCa), as libpq has it.
    Require,
    /// TLS, with a certificate from a trusted root, for whatever name.
    VerifyCa,
    /// TLS, with a certificate from a trusted root for the very host that is dialled.
    VerifyFull,
}

impl SslMode {
    const ALL: [SslMode; 6] = [
        SslMode::Disable,
        SslMode::Allow,
        SslMode::Prefer,
        SslMode::Require,
        SslMode::VerifyCa,
        SslMode::VerifyFull,
    ];

    /// The name that libpq has for it, such as `verify-full`.
    pub fn as_str(&self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Allow => "allow",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<SslMode> {
        SslMode::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// Whether the server's certificate is checked against trusted roots.
    pub(crate) fn verifies(&self) -> bool {
        matches!(self, SslMode::VerifyCa | SslMode::VerifyFull)
    }

    /// Whether nothing is sent unless the connection is encrypted.
    pub(super) fn encrypts(&self) -> bool {
        matches!(self, SslMode::Require) || self.verifies()
    }
}
