//! The certificates of one emulator, generated at start.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind};

/// Properties of a server's certificate.
pub(crate) struct Wanted<'a> {
    pub(crate) names: &'a [String],
    pub(crate) expired: bool,
}

/// A root certificate, which clients trust, and the intermediate one that signs the servers'. All keys are P-256,
/// which halves the cost of a login compared with RSA.
pub(crate) struct Authority {
    pub(crate) ca_pem: String,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Generates both with new keys.
    pub(crate) fn generate(engine: Engine) -> Result<Authority, Error> {
        authority(engine).map_err(not_made)
    }

    /// Generates the certificate of a server, which presents the chain.
    pub(crate) fn server(&self, wanted: &Wanted<'_>) -> Result<Arc<ServerConfig>, Error> {
        self.issue(wanted).map_err(not_made)
    }

    fn issue(&self, wanted: &Wanted<'_>) -> Result<Arc<ServerConfig>, Cause> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(wanted.names)?;
        if let Some(name) = wanted.names.first() {
            parameters.distinguished_name.push(
                DnType::CommonName,
                name.chars().take(64).collect::<String>(),
            );
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        if wanted.expired {
            parameters.not_after = date_time_ymd(2000, 1, 1);
        }
        let server = parameters.signed_by(&key, &self.intermediate)?;
        let chain: Vec<CertificateDer<'static>> =
            vec![server.der().clone(), self.intermediate.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        // Clients that use direct TLS require this protocol. Others ignore it.
        config.alpn_protocols = vec![ALPN.to_vec()];
        // PostgreSQL disables session tickets.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn not_made(cause: Cause) -> Error {
    Error::with_cause(
        ErrorKind::Setting,
        "no certificate can be made for these host names",
        cause,
    )
}

fn authority(engine: Engine) -> Result<Authority, Cause> {
    let (root_name, intermediate_name) = match engine {
        Engine::Rds => ("RDS IAM Emulator Root CA", "RDS IAM Emulator Regional CA"),
        Engine::Proxy | Engine::Dsql => (
            "Public Root CA of the Emulator",
            "Public CA of the Emulator",
        ),
    };
    let root = CertifiedIssuer::self_signed(certificate_of(root_name, 1)?, KeyPair::generate()?)?;
    let intermediate = CertifiedIssuer::signed_by(
        certificate_of(intermediate_name, 0)?,
        KeyPair::generate()?,
        &root,
    )?;
    Ok(Authority {
        ca_pem: root.pem(),
        intermediate,
    })
}

/// The ALPN protocol that a client names in direct TLS.
pub(crate) const ALPN: &[u8] = b"postgresql";

fn certificate_of(name: &str, below: u8) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}
