//! libpq's `sslmode`.

/// How the server is verified before a secret is sent to it: libpq's `sslmode`.
///
/// The default with IAM is [`VerifyFull`](SslMode::VerifyFull). [`VerifyCa`](SslMode::VerifyCa) and
/// [`Require`](SslMode::Require) must be set explicitly. The others are rejected with IAM: without TLS the token
/// would be sent unencrypted, and it is valid for any client that reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server requires it.
    Allow,
    /// TLS if the server supports it, and a second attempt without it after a refused login.
    Prefer,
    /// TLS without verification of the server, unless `sslrootcert` is set: then as
    /// [`VerifyCa`](SslMode::VerifyCa), like libpq.
    Require,
    /// TLS, with a certificate from a trusted root, for any name.
    VerifyCa,
    /// TLS, with a certificate from a trusted root for the host that is dialled.
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

    /// Returns libpq's name, such as `verify-full`.
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

    /// Returns whether the server's certificate is checked against trusted roots.
    pub(crate) fn verifies(&self) -> bool {
        matches!(self, SslMode::VerifyCa | SslMode::VerifyFull)
    }

    /// Returns whether nothing is sent without TLS.
    pub(super) fn encrypts(&self) -> bool {
        matches!(self, SslMode::Require) || self.verifies()
    }
}
