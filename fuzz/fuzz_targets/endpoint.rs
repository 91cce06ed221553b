//! Any text as host, port, user and region: no panic, no region except the one that is set or in the name, and a
//! token that names exactly this host, port and user.
//!
//! The input is four lines: port, region (none if empty), host, and the user to the end.

#![no_main]

use std::sync::LazyLock;

use diesel_rds_iam::aws_credential_types::Credentials;
use diesel_rds_iam::{Endpoint, Engine, ErrorKind, IamAuth, TokenSource};
use libfuzzer_sys::fuzz_target;
use url::Url;

/// The suffixes by which AWS's drivers recognise a name: the domains of its partitions.
const DOMAINS: [&str; 12] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".amazonaws.au",
    ".amazonaws.uk",
    ".c2s.ic.gov",
    ".sc2s.sgov.gov",
    ".cloud.adc-e.uk",
    ".csp.hci.ic.gov",
    ".on.aws",
    ".on.amazonwebservices.com.cn",
    ".on.amazonwebservices.eu",
];

/// A region for host names that contain none.
const ELSEWHERE: &str = "eu-west-1";

/// Keeps the signing thread alive.
static FIRST: LazyLock<TokenSource> = LazyLock::new(|| {
    let endpoint = Endpoint::new("localhost", 5432, "app").and_then(|e| e.with_region(ELSEWHERE));
    let source = identity().source(&endpoint.expect("a good endpoint"));
    source.token().expect("a token");
    source
});

fuzz_target!(|text: &str| {
    LazyLock::force(&FIRST);
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (port, region, host, user) = (line(), line(), line(), line());
    let port = port.parse().unwrap_or(5432);

    let endpoint = match Endpoint::new(host, port, user) {
        Ok(endpoint) => endpoint,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Configuration),
    };
    let canonical = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    assert_eq!(endpoint.host(), canonical);
    assert_eq!((endpoint.port(), endpoint.user()), (port, user));
    // Only one of several dots at the end is removed. With the rest it is not a name of RDS, and stays unchanged.
    if !canonical.ends_with('.') {
        let again = Endpoint::new(&canonical, port, user);
        assert_eq!(again.ok().as_ref(), Some(&endpoint));
    }
    assert_region_is_in_the_name(&endpoint);

    let endpoint = match (region, endpoint.region()) {
        ("", Some(_)) => endpoint,
        ("", None) => endpoint.with_region(ELSEWHERE).expect("a region"),
        (region, _) => match endpoint.with_region(region) {
            Ok(endpoint) => {
                assert_eq!(
                    endpoint.region(),
                    Some(region.to_ascii_lowercase().as_str())
                );
                endpoint
            }
            Err(error) => return assert_eq!(error.kind(), ErrorKind::Configuration),
        },
    };
    sign(&endpoint);
});

fn identity() -> IamAuth {
    let credentials = Credentials::new(
        "AKIDEXAMPLE",
        "secret",
        Some("session/+=".into()),
        None,
        "fuzz",
    );
    let auth = IamAuth::builder().credentials_provider(credentials).build();
    auth.expect("good settings")
}

fn assert_region_is_in_the_name(endpoint: &Endpoint) {
    let labels: Vec<&str> = endpoint.host().split('.').collect();
    let is_aws = DOMAINS
        .iter()
        .any(|domain| endpoint.host().ends_with(domain));
    let is_beside = |service: &str, region: &str| {
        let is_rds = matches!(service, "rds" | "rds-fips");
        let is_dsql = service == "dsql" || service.starts_with("dsql-");
        (is_rds || is_dsql) && is_region(region)
    };
    let named: Vec<&str> = labels
        .windows(2)
        .flat_map(|pair| [(pair[0], pair[1]), (pair[1], pair[0])])
        .filter(|(service, region)| is_beside(service, region))
        .map(|(_, region)| region)
        .collect();
    match endpoint.region() {
        Some(region) => assert!(is_aws && named.contains(&region), "{endpoint:?}"),
        // The simplest form must be accepted.
        None => {
            if let [name, id, region, "rds", "amazonaws", "com"] = labels[..] {
                let plain = |label: &str| {
                    !label.is_empty()
                        && label.len() < 64
                        && label.bytes().all(|byte| byte.is_ascii_alphanumeric())
                };
                assert!(
                    !(plain(name) && plain(id) && is_region(region)),
                    "{endpoint:?}"
                );
            }
        }
    }
    if endpoint.engine() == Engine::Dsql {
        assert!(
            is_aws && labels.iter().any(|label| label.starts_with("dsql")),
            "{endpoint:?}"
        );
    }
}

fn is_region(label: &str) -> bool {
    let (words, number) = label.rsplit_once('-').unwrap_or_default();
    let is_word = |word: &str| word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.contains('-')
        && words.split('-').all(is_word)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && label.len() < 64
}

fn sign(endpoint: &Endpoint) {
    let token = match identity().source(endpoint).token() {
        Ok(token) => token,
        // A host of permitted characters that still makes no valid URL: `a::b`.
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Configuration, "{error}"),
    };
    // The crate does not recognise this scheme, so it changes nothing.
    let url = Url::parse(&format!("token://{}", token.expose_secret())).expect("a URL");
    let values = |name: &str| -> Vec<String> {
        let pairs = url.query_pairs().filter(|(key, _)| key == name);
        pairs.map(|(_, value)| value.into_owned()).collect()
    };
    assert_eq!(url.host_str(), Some(endpoint.host()));
    assert_eq!((url.path(), url.fragment()), ("/", None));
    let scope = values("X-Amz-Credential").join("");
    let region = endpoint.region().expect("a region");
    match endpoint.engine() {
        Engine::Rds => {
            assert_eq!(url.port(), Some(endpoint.port()));
            assert_eq!(values("DBUser"), [endpoint.user()]);
            assert_eq!(values("Action"), ["connect"]);
            assert!(
                scope.ends_with(&format!("/{region}/rds-db/aws4_request")),
                "{scope}"
            );
        }
        _ => {
            assert_eq!((url.port(), values("DBUser").len()), (None, 0));
            assert!(
                scope.ends_with(&format!("/{region}/dsql/aws4_request")),
                "{scope}"
            );
        }
    }
    assert_eq!(values("X-Amz-Security-Token"), ["session/+="]);
    assert_eq!(values("X-Amz-Signature").len(), 1);
}
