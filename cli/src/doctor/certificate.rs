//! The verification of the server's certificate, and the names in it.
//!
//! The chain is verified before names are read. OpenSSL would compare names first, and the names of a
//! certificate that is not trusted are text that the other side chose.

use std::net::IpAddr;

use diesel_rds_iam::{Endpoint, Roots};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::SslRef;
use openssl::stack::Stack;
use openssl::x509::store::{X509StoreBuilder, X509StoreBuilderRef};
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{X509, X509NameRef, X509Ref, X509StoreContext, X509VerifyResult};

use super::Context;
use super::step::Problem;

/// OpenSSL's code for an expired certificate. [x509_vfy.h]
const HAS_EXPIRED: i32 = 10;

/// The certificates that the server's has to chain to.
pub(super) fn store(context: &Context) -> Result<X509StoreBuilder, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    match context.manager.roots() {
        Some(Roots::Carried(pem)) => add(&mut store, pem.as_bytes())?,
        // The library read this file and found certificates when it parsed the string.
        Some(Roots::File(path)) => add(&mut store, &std::fs::read(path).unwrap_or_default())?,
        Some(Roots::System) => store.set_default_paths()?,
        _ => {}
    }
    Ok(store)
}

fn add(store: &mut X509StoreBuilderRef, pem: &[u8]) -> Result<(), ErrorStack> {
    X509::stack_from_pem(pem)?
        .into_iter()
        .try_for_each(|root| store.add_cert(root))
}

/// Verifies the certificate as `sslmode` requires. Returns the description of a good one.
pub(super) fn verify(context: &Context, ssl: &SslRef) -> Result<String, Problem> {
    let version = ssl.version_str();
    let Some(certificate) = ssl.peer_certificate() else {
        return Err(Problem::new(
            "the server has no certificate",
            "check that this is the right server",
        ));
    };
    // Without roots nothing is verified, as with `sslmode=require`.
    if context.manager.roots().is_none() {
        let names = shown(&names(&certificate));
        return Ok(format!(
            "{version}, for {names}, not verified because of sslmode"
        ));
    }
    let result = ssl.verify_result();
    if result != X509VerifyResult::OK {
        return Err(untrusted(&certificate, result));
    }
    if context.parameter("sslmode") == "verify-full" && !is_for_host(context, ssl, &certificate) {
        return Err(for_another_host(context, &certificate));
    }
    let names = shown(&names(&certificate));
    let chain = ssl.verified_chain();
    let length = chain.map_or(0, |chain| chain.len());
    let root = chain.and_then(|chain| chain.iter().last());
    let root = root.map_or_else(String::new, |root| common_name(root.subject_name()));
    Ok(format!(
        "{version}, for {names}, a chain of {length}, issued by the root {root:?}"
    ))
}

/// Whether the certificate, whose chain was verified, is for the host of the connection.
fn is_for_host(context: &Context, ssl: &SslRef, certificate: &X509Ref) -> bool {
    let host = context.endpoint.host();
    let verified = || -> Result<bool, ErrorStack> {
        let mut expected = X509VerifyParam::new()?;
        match host.parse::<IpAddr>() {
            Ok(address) => expected.set_ip(address)?,
            Err(_) => expected.set_host(host)?,
        }
        let mut store = store(context)?;
        store.set_param(&expected)?;
        let none = Stack::new()?;
        let chain = ssl.peer_cert_chain().unwrap_or(&none);
        X509StoreContext::new()?.init(&store.build(), certificate, chain, |it| it.verify_cert())
    };
    verified().unwrap_or(false)
}

fn for_another_host(context: &Context, certificate: &X509Ref) -> Problem {
    let host = context.endpoint.host();
    let names = names(certificate);
    let problem = Problem::new(
        format!("the certificate is for {}, not for {host}", shown(&names)),
        "set iam_host to the database's own name, which tokens are signed for and the certificate contains; \
         host remains the name that is dialled",
    );
    // A public root has signed certificates for many other servers too.
    match names.iter().find(|name| is_database_of_aws(name)) {
        Some(name) => problem.paste(format!("iam_host={name}")),
        None => problem,
    }
}

/// Whether only AWS can have a certificate for `name`, which is the name of one database.
fn is_database_of_aws(name: &str) -> bool {
    let endpoint = Endpoint::new(name, 5432, "user");
    is_host_name(name) && endpoint.is_ok_and(|endpoint| endpoint.region().is_some())
}

/// Names of a certificate that no trusted root signed are the other side's words, so they are marked
/// as a claim and never part of the advice.
fn untrusted(certificate: &X509Ref, result: X509VerifyResult) -> Problem {
    let why = result.error_string();
    if result.as_raw() == HAS_EXPIRED {
        let end = certificate.not_after();
        return Problem::new(
            format!("the certificate expired on {end} ({why})"),
            "renew the server's certificate, or correct this machine's clock",
        );
    }
    let issuer = common_name(certificate.issuer_name());
    Problem::new(
        format!(
            "the certificate, which claims the issuer {issuer:?}, does not chain to a trusted root \
             ({why})"
        ),
        "check that this is the right server and that no proxy of the network intercepts TLS; then set \
         sslrootcert to a file with its root",
    )
    .paste("https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem")
}

fn names(certificate: &X509Ref) -> Vec<String> {
    certificate
        .subject_alt_names()
        .into_iter()
        .flatten()
        .filter_map(|name| Some(name.dnsname()?.to_owned()))
        .collect()
}

/// Host names as they are, and anything else in quotes.
fn shown(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .map(|name| match is_host_name(name.trim_start_matches("*.")) {
            true => name.clone(),
            false => format!("{name:?}"),
        })
        .collect();
    match shown.as_slice() {
        [] => "no name".to_owned(),
        names => names.join(", "),
    }
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn common_name(name: &X509NameRef) -> String {
    name.entries_by_nid(Nid::COMMONNAME)
        .next()
        .and_then(|entry| entry.data().to_string().ok())
        .unwrap_or_else(|| "unnamed".to_owned())
}
