//! The root certificates to trust: those that the crate contains, a file, or the system's.
//!
//! libpq reads its root file at every connect, which takes about half a millisecond a certificate. So a
//! connection gets the roots of its own region only, three of about a hundred.

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::endpoint::{Endpoint, HostKind};
use crate::error::{Error, ErrorKind};

/// RDS's own roots, region by region; see `certs/README.md`.
const RDS: &str = include_str!("../certs/rds-global-bundle.pem");

/// The roots of RDS's two regions in GovCloud, of the same form.
const GOVCLOUD: &str = include_str!("../certs/rds-govcloud-bundle.pem");

/// The public roots that the certificates of RDS Proxy and Aurora DSQL chain to.
const PUBLIC: &str = include_str!("../certs/amazon-trust-services.pem");

/// The root certificates that a server's certificate must chain to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// PEM text that the crate contains: RDS's roots of the region, or the public roots of Amazon for RDS Proxy and
    /// Aurora DSQL.
    Carried(&'static str),
    /// A PEM file of the user's, which contains certificates.
    File(String),
    /// The certificates that the system trusts, which libpq 16 and later can find.
    System,
}

impl Roots {
    /// The roots of `sslrootcert`: `system`, or a readable PEM file with a certificate.
    pub(crate) fn given(sslrootcert: &str) -> Result<Roots, Error> {
        if sslrootcert == "system" {
            return Ok(Roots::System);
        }
        certificates_in(Path::new(sslrootcert))?;
        Ok(Roots::File(sslrootcert.to_owned()))
    }

    /// The roots for `endpoint` that the crate contains.
    ///
    /// A name that is not AWS's counts as an alias of an instance or a cluster. Without a region it gets all of RDS's
    /// roots, which cost some 50 ms a connect. For an alias of a proxy, `iam_host` must name the proxy, or
    /// `sslrootcert` the roots.
    pub(crate) fn carried(endpoint: &Endpoint) -> Result<Roots, Error> {
        let name = endpoint.host_name();
        // The database's location decides, so the region in its name takes precedence over a configured one.
        let Some(region) = name.region.or(endpoint.region()) else {
            return Ok(Roots::Carried(RDS));
        };
        let pem = match name.kind {
            HostKind::Proxy | HostKind::Dsql => has_public_roots(region).then_some(PUBLIC),
            _ => of_region(region),
        };
        pem.map(Roots::Carried).ok_or_else(|| no_roots(region))
    }

    /// The certificates; `None` if they are left to the TLS library.
    #[cfg(feature = "postgres")]
    pub(crate) fn certificates(&self) -> Result<Option<Vec<CertificateDer<'static>>>, Error> {
        match self {
            Roots::Carried(pem) => decode(pem.as_bytes()).map(Some),
            Roots::File(path) => certificates_in(Path::new(path)).map(Some),
            Roots::System => Ok(None),
        }
    }
}

/// The part of a bundle between the first comment that names `region` and the next of another.
fn of_region(region: &str) -> Option<&'static str> {
    let bundle = if region.starts_with("us-gov-") {
        GOVCLOUD
    } else {
        RDS
    };
    let head = format!("# Amazon RDS {region} Root CA ");
    let rest = bundle.get(bundle.find(&head)?..)?;
    let end = rest
        .match_indices("\n# ")
        .map(|(at, _)| at + 1)
        .find(|at| rest.get(*at..).is_some_and(|next| !next.starts_with(&head)))
        .unwrap_or(rest.len());
    rest.get(..end)
}

/// Whether AWS Certificate Manager issues certificates there from the public roots that the crate contains. China and
/// the isolated partitions have trust stores of their own, which the crate does not contain.
fn has_public_roots(region: &str) -> bool {
    !(region.starts_with("cn-") || region.starts_with("eusc-") || region.contains("-iso"))
}

fn no_roots(region: &str) -> Error {
    let bundle = if region.starts_with("cn-") {
        " (https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem)"
    } else {
        ""
    };
    Error::configuration(format!(
        "this crate contains no root certificates for the region {region}: set sslrootcert to the file that \
         AWS publishes for it{bundle}"
    ))
}

/// The certificates in the file at `path`.
///
/// # Errors
///
/// If it cannot be read, is not PEM or holds none.
fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = fs::read(path).map_err(|cause| {
        Error::with_cause(
            ErrorKind::Configuration,
            "the file that sslrootcert names cannot be read",
            cause,
        )
    })?;
    let certificates = decode(&pem)?;
    if certificates.is_empty() {
        return Err(Error::configuration(
            "the file that sslrootcert names holds no certificate: it has to be PEM, with lines \
             that say BEGIN CERTIFICATE",
        ));
    }
    Ok(certificates)
}

fn decode(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem)
        .map(|certificate| match certificate {
            Ok(certificate) if is_one_sequence(&certificate) => Ok(certificate),
            // Without its cause, which quotes the line. The file may be a private key by mistake.
            _ => Err(corrupt()),
        })
        .collect()
}

fn corrupt() -> Error {
    Error::configuration(
        "the file that sslrootcert names is damaged: a certificate in it cannot be decoded",
    )
}

/// Whether `der` is a sequence of the length that it states. A truncated certificate is not. The TLS library
/// checks its content.
fn is_one_sequence(der: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    match der {
        [SEQUENCE, length @ 0..=0x7f, rest @ ..] => rest.len() == usize::from(*length),
        [SEQUENCE, 0x81, length, rest @ ..] => rest.len() == usize::from(*length),
        [SEQUENCE, 0x82, high, low, rest @ ..] => {
            rest.len() == usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}
