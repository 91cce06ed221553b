use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use x509_parser::prelude::*;

use super::*;
use crate::clock::Clock;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate of the crate: its comment, its subject's common name and its expiry.
struct Root {
    comment: &'static str,
    name: String,
    end: SystemTime,
    last_day: String,
}

fn roots(pem: &'static str) -> Vec<Root> {
    let comments = pem.lines().filter_map(|line| line.strip_prefix("# "));
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(Result::unwrap)
        .collect();
    assert_eq!(comments.clone().count(), certificates.len());
    comments
        .zip(certificates)
        .map(|(comment, der)| {
            assert!(is_one_sequence(&der), "{comment}");
            let (rest, certificate) = X509Certificate::from_der(&der).unwrap();
            assert!(rest.is_empty(), "{comment}");
            assert!(certificate.is_ca(), "{comment}");
            let subject = certificate.subject();
            let name = subject.iter_common_name().next().unwrap();
            let end = certificate.validity().not_after.timestamp();
            let date = certificate.validity().not_after.to_datetime().date();
            Root {
                comment,
                name: name.as_str().unwrap().to_owned(),
                end: SystemTime::UNIX_EPOCH + Duration::from_secs(end.try_into().unwrap()),
                last_day: date.to_string(),
            }
        })
        .collect()
}

fn endpoint(host: &str) -> Endpoint {
    Endpoint::new(host, 5432, "app").unwrap()
}

fn carried(host: &str) -> &'static str {
    match Roots::carried(&endpoint(host)).unwrap() {
        Roots::Carried(pem) => pem,
        other => panic!("{host}: {other:?}"),
    }
}

fn refusal(endpoint: &Endpoint) -> String {
    let error = Roots::carried(endpoint).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

/// This test is expected to fail some day. Then a release with a new bundle is due, while the old roots are still
/// valid for applications that are updated later.
#[test]
fn no_included_root_expires_within_90_days() {
    let soon = Clock::default().now().wall + 90 * DAY;
    for root in [RDS, GOVCLOUD, PUBLIC].into_iter().flat_map(roots) {
        assert!(root.end > soon, "{} ends on {}", root.name, root.last_day);
    }
}

#[test]
fn every_root_certificate_matches_its_comment() {
    for root in roots(RDS).into_iter().chain(roots(GOVCLOUD)) {
        let expected = format!("{} (not after {})", root.name, root.last_day);
        assert_eq!(root.comment, expected);
    }
    for root in roots(PUBLIC) {
        assert!(root.comment.starts_with(&root.name), "{}", root.comment);
    }
    assert_eq!(roots(PUBLIC).len(), 5);
}

#[test]
fn every_region_has_its_three_root_certificates() {
    let mut regions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for root in roots(RDS).into_iter().chain(roots(GOVCLOUD)) {
        let rest = root.name.strip_prefix("Amazon RDS ").unwrap();
        let (region, key) = rest.split_once(" Root CA ").unwrap();
        regions.entry(region.into()).or_default().push(key.into());
    }
    assert_eq!(regions.len(), 36);
    for (region, keys) in regions {
        assert_eq!(keys, ["ECC384 G1", "RSA2048 G1", "RSA4096 G1"], "{region}");
        let found = roots(of_region(&region).unwrap());
        let names: Vec<&str> = found.iter().map(|root| root.name.as_str()).collect();
        let expected = keys
            .iter()
            .map(|key| format!("Amazon RDS {region} Root CA {key}"));
        assert_eq!(names, expected.collect::<Vec<_>>());
    }
    for region in [
        "",
        "us",
        "us-east",
        "us-east-11",
        "east-1",
        "us-gov-west-2",
        "global",
    ] {
        assert_eq!(of_region(region), None, "{region}");
    }
}

#[test]
fn a_connection_gets_the_roots_of_its_region() {
    const ID: &str = "c9akciq32rqv";
    let ireland = of_region("eu-west-1").unwrap();
    for name in [
        "mydb.",
        "app.cluster-",
        "app.cluster-ro-",
        "app.cluster-custom-",
        "a.shardgrp-",
    ] {
        assert_eq!(
            carried(&format!("{name}{ID}.eu-west-1.rds.amazonaws.com")),
            ireland
        );
    }
    // Certificates of AWS Certificate Manager's.
    for host in [
        "pool.proxy-c9akciq32rqv.eu-west-1.rds.amazonaws.com",
        "read.endpoint.proxy-c9akciq32rqv.us-gov-west-1.rds.amazonaws.com",
        "ab12cd.dsql.us-east-2.on.aws",
    ] {
        assert_eq!(carried(host), PUBLIC, "{host}");
    }
    // A name without a region, and a region that was set.
    for host in [
        "10.0.0.5",
        "db.example.com",
        "w.global-c9akciq32rqv.global.rds.amazonaws.com",
    ] {
        let endpoint = endpoint(host);
        assert_eq!(carried(host), RDS, "{host}: any of them may be the one");
        let roots = Roots::carried(&endpoint.with_region("eu-west-1").unwrap()).unwrap();
        assert_eq!(roots, Roots::Carried(ireland));
    }
    // A region that was set does not override that of the name.
    let elsewhere = endpoint(&format!("mydb.{ID}.eu-west-1.rds.amazonaws.com"))
        .with_region("us-east-1")
        .unwrap();
    assert_eq!(Roots::carried(&elsewhere).unwrap(), Roots::Carried(ireland));
}

#[test]
fn a_region_without_included_roots_is_an_error() {
    for (host, hint) in [
        (
            "mydb.c9akciq32rqv.us-gov-south-1.rds.amazonaws.com",
            "us-gov-south-1",
        ),
        (
            "mydb.c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn",
            "cn-north-1.amazonaws.com.cn/",
        ),
        (
            "pool.proxy-c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn",
            "cn-north-1",
        ),
        (
            "mydb.c9akciq32rqv.rds.us-iso-east-1.c2s.ic.gov",
            "us-iso-east-1",
        ),
        (
            "pool.proxy-c9akciq32rqv.rds.us-isob-east-1.sc2s.sgov.gov",
            "us-isob-east-1",
        ),
        (
            "pool.proxy-c9akciq32rqv.eusc-de-east-1.rds.amazonaws.eu",
            "eusc-de-east-1",
        ),
        (
            "mydb.c9akciq32rqv.zz-south-9.rds.amazonaws.com",
            "zz-south-9",
        ),
    ] {
        let endpoint = endpoint(host);
        let text = refusal(&endpoint);
        assert!(
            text.contains("sslrootcert") && text.contains(hint),
            "{text}"
        );
    }
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn a_file_with_certificates_is_accepted() {
    let mixed = [b"\xff not UTF-8\n", PUBLIC.as_bytes()].concat();
    let crlf = PUBLIC.replace('\n', "\r\n");
    for content in [RDS.as_bytes(), &mixed, crlf.as_bytes()] {
        let file = file(content);
        let path = file.path().to_str().unwrap();
        assert_eq!(Roots::given(path).unwrap(), Roots::File(path.into()));
    }
    assert_eq!(Roots::given("system").unwrap(), Roots::System);
}

#[test]
fn an_unusable_file_is_rejected_with_its_own_reason() {
    let one = roots_text("Amazon Root CA 3");
    let body: String = one.lines().filter(|line| !line.starts_with("--")).collect();
    // Truncated where base64 can still be decoded, so that only the certificate's own length shows it.
    let short = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        &body[..64]
    );
    let key = one.replace("CERTIFICATE", "PRIVATE KEY");
    let garbled = one.replacen("MII", "M!I", 1);
    let unended = one.replace("-----END", "");
    let second_short = format!("{PUBLIC}{short}");
    for (content, reason) in [
        ("", "holds no certificate"),
        ("# nothing\n", "holds no certificate"),
        (&key, "holds no certificate"),
        (&body, "holds no certificate"),
        (&short, "damaged"),
        (&garbled, "damaged"),
        (&unended, "damaged"),
        (&second_short, "damaged"),
    ] {
        let file = file(content.as_bytes());
        let error = Roots::given(file.path().to_str().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(
            text.contains(reason) && text.contains("sslrootcert"),
            "{content}: {text}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    for path in [
        directory.path().to_path_buf(),
        directory.path().join("none.pem"),
    ] {
        let text = Roots::given(path.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(text.contains("cannot be read: "), "{text}");
    }
}

/// The PEM text of one of the public roots.
fn roots_text(name: &str) -> String {
    let (_, rest) = PUBLIC.split_once(&format!("# {name} ")).unwrap();
    let begin = rest.find("-----BEGIN").unwrap();
    let end = rest.find("# ").unwrap_or(rest.len());
    rest[begin..end].to_owned()
}
