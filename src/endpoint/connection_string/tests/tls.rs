//! Tests of the `sslmode` that a string results in.

use super::*;

const PROXY: &str = "p.proxy-c9akciq32rqv.us-east-2.rds.amazonaws.com";
const DSQL: &str = "abcdefghijklmnopqrstuvwx12.dsql.us-east-1.on.aws";

fn sslmode(parsed: &ConnectionString) -> Option<&'static str> {
    parsed.sslmode().unwrap().map(|mode| mode.as_str())
}

/// FAULTS.md row 55: `ssl=true` of a JDBC URL means verify-full there, and `require` for libpq.
#[test]
fn only_sslmode_lowers_sslmode() {
    for (parameters, mode) in [
        ("ssl=true", "verify-full"),
        ("requiressl=1", "verify-full"),
        ("requiressl=0", "verify-full"),
        ("sslmode=verify-full&ssl=true", "verify-full"),
        ("sslmode=verify-full&requiressl=1", "verify-full"),
        ("sslmode=verify-full&requiressl=0", "verify-full"),
        ("ssl=true&sslmode=require", "require"),
        ("sslmode=require&requiressl=0", "require"),
        ("sslmode=verify-ca&ssl=true", "verify-ca"),
    ] {
        let iam = parse(&format!("postgres://u@{HOST}?{parameters}"));
        let mut supplied = parse(&format!("postgres://u@db.example.com?{parameters}"));
        supplied.supply_password();
        let pairs = parameters.replace('&', " ");
        let pairs = parse(&format!("user=u host={HOST} {pairs}"));
        let password = parse(&format!("postgres://u:p@{HOST}?{parameters}"));
        for parsed in [iam, supplied, pairs, password] {
            parsed.check().unwrap();
            assert_eq!(sslmode(&parsed), Some(mode), "{parameters}");
        }
        let mut set = parse(&format!("postgres://u@{HOST}?{parameters}"));
        set.set_sslmode(SslMode::VerifyFull);
        assert_eq!(sslmode(&set), Some("verify-full"), "{parameters}");
    }
    // Where the defaults are libpq's, so is the meaning: the last one takes effect.
    for (parameters, mode) in [
        ("ssl=true", "require"),
        ("sslmode=verify-full&ssl=true", "require"),
        ("requiressl=1&sslmode=disable", "disable"),
        ("sslmode=require&requiressl=0", "prefer"),
    ] {
        let parsed = parse(&format!("postgres://u:p@localhost?{parameters}"));
        parsed.check().unwrap();
        assert_eq!(sslmode(&parsed), Some(mode), "{parameters}");
    }
}

/// FAULTS.md row 55: with `prefer`, a server in between would read the password.
#[test]
fn a_password_for_a_host_of_aws_requires_a_verified_server() {
    let cluster = "c.cluster-c9akciq32rqv.eu-west-1.rds.amazonaws.com.";
    for host in [HOST, PROXY, DSQL, cluster] {
        for input in [
            format!("postgres://u:p@{host}/d"),
            format!("host={} password=p", host.to_uppercase()),
            format!("postgres://u@{host}?iam=off"),
        ] {
            let parsed = parse(&input);
            parsed.check().unwrap();
            assert_eq!(sslmode(&parsed), Some("verify-full"), "{input}");
            assert!(parsed.has_tls_defaults() && parsed.server().is_ok());
        }
        let parsed = parse(&format!("postgres://u:p@{host}/d?sslmode=disable"));
        parsed.check().unwrap();
        assert_eq!(sslmode(&parsed), Some("disable"));
    }
    for host in ["localhost", "10.0.0.1", "db.internal", "%2Ftmp", ""] {
        let parsed = parse(&format!("postgres://u:p@{host}/d"));
        parsed.check().unwrap();
        assert_eq!(sslmode(&parsed), None, "{host}");
        assert!(!parsed.has_tls_defaults());
    }
}

/// FAULTS.md row 55: anyone can get a certificate of a public root.
#[test]
fn verify_ca_is_rejected_with_public_roots() {
    for host in [PROXY, DSQL] {
        for input in [
            format!("postgres://u@{host}?sslmode=verify-ca"),
            format!("postgres://u:p@{host}?sslmode=verify-ca"),
            format!("postgres://u@localhost?iam_host={host}&sslmode=verify-ca"),
        ] {
            let error = refusal(&input).to_string();
            assert!(error.contains("sslmode=verify-full"), "{error}");
        }
        let own = format!("postgres://u@{host}?sslmode=verify-ca&sslrootcert=/ca.pem");
        parse(&own).check().unwrap();
    }
    let instance = format!("postgres://u@{HOST}?sslmode=verify-ca");
    parse(&instance).check().unwrap();
}
