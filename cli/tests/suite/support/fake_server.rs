//! A server that speaks as much of PostgreSQL's protocol as a refusal needs, with a certificate of the
//! test's choice.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameRef};
use tempfile::TempDir;

/// The host that the certificates of tests are for.
pub const HOST: &str = "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com";

/// A running server.
pub struct FakeServer {
    port: u16,
    folder: TempDir,
    message: Arc<Mutex<String>>,
}

impl FakeServer {
    /// Refuses each login. Its certificate has this name and this issuer.
    pub fn start(name: &str, issuer: &str) -> FakeServer {
        let (key, certificate, ca) = certificate(name, issuer);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.to_pem().unwrap()).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
        acceptor.set_private_key(&key).unwrap();
        acceptor.set_certificate(&certificate).unwrap();
        let acceptor = acceptor.build();
        let message = Arc::new(Mutex::new(String::new()));
        let said = message.clone();
        let port = listen(move |mut client| {
            client.write_all(b"S").unwrap();
            // A client that does not trust the certificate disconnects.
            if let Ok(stream) = acceptor.accept(client) {
                refuse(stream, &said.lock().unwrap());
            }
        });
        FakeServer {
            port,
            folder,
            message,
        }
    }

    /// The message of refusals from now on.
    pub fn say(&self, message: &str) {
        message.clone_into(&mut self.message.lock().unwrap());
    }

    /// A connection string for this server, without its root.
    pub fn url(&self) -> String {
        format!(
            "postgres://app@{HOST}/shop?hostaddr=127.0.0.1&port={}",
            self.port
        )
    }

    /// The parameter with which a client trusts this server.
    pub fn root(&self) -> String {
        format!(
            "&sslrootcert={}",
            self.folder.path().join("ca.pem").display()
        )
    }
}

/// Runs `serve` with each client after its request for TLS. Returns the port.
pub fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 8];
            if client.read_exact(&mut request).is_ok() {
                serve(client);
            }
        }
    });
    port
}

fn refuse(mut stream: SslStream<TcpStream>, message: &str) {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return;
    }
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    let _ = stream.read_exact(&mut startup);
    let mut fields = Vec::new();
    for (field, value) in [
        ('S', "FATAL"),
        ('V', "FATAL"),
        ('C', "28000"),
        ('M', message),
    ] {
        fields.push(field as u8);
        fields.extend(value.as_bytes());
        fields.push(0);
    }
    fields.push(0);
    let _ = stream.write_all(b"E");
    let _ = stream.write_all(&u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    let _ = stream.write_all(&fields);
    let _ = stream.shutdown();
}

fn certificate(name: &str, issuer: &str) -> (PKey<Private>, X509, X509) {
    let ca_key = key();
    let ca_name = common_name(issuer);
    let ca = build(&ca_key, &ca_key, &ca_name, &ca_name, None);
    let key = key();
    let certificate = build(&key, &ca_key, &common_name("leaf"), &ca_name, Some(name));
    (key, certificate, ca)
}

fn build(
    key: &PKey<Private>,
    signer: &PKey<Private>,
    subject: &X509NameRef,
    issuer: &X509NameRef,
    name: Option<&str>,
) -> X509 {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(1 + u32::from(name.is_some())).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(subject).unwrap();
    builder.set_issuer_name(issuer).unwrap();
    builder.set_pubkey(key).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(2).unwrap())
        .unwrap();
    let extension = match name {
        Some(name) => {
            let context = builder.x509v3_context(None, None);
            SubjectAlternativeName::new()
                .dns(name)
                .build(&context)
                .unwrap()
        }
        None => BasicConstraints::new().critical().ca().build().unwrap(),
    };
    builder.append_extension(extension).unwrap();
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    builder.build()
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn common_name(text: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, text).unwrap();
    name.build()
}
