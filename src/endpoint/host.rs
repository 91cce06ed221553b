//! Derives the service and the region from a host name.
//!
//! By syntax alone: a list of regions would be incomplete as soon as AWS opens another one. Each partition has
//! one domain, and partitions are few. The forms are those of the RDS, Aurora and Aurora DSQL user guides and
//! of the patterns in AWS's own drivers:
//!
//! * `NAME.ID.REGION.rds.DOMAIN`, in most partitions;
//! * `NAME.ID.rds.REGION.DOMAIN` in China and in the isolated partitions;
//! * `NAME.global-ID.global.rds.DOMAIN`, which moves between regions and contains none;
//! * `CLUSTER.dsql.REGION.on.aws`, and `CLUSTER.dsql-SERVICE.REGION.on.aws` through PrivateLink.
//!
//! ID identifies the account and begins with the kind, except for an instance: `cluster-ro-c9akciq32rqv`. A
//! database that is reachable over IPv4 and IPv6 has one name for both.

/// The domains of the endpoints of AWS's partitions, from the SDKs' endpoint rules and AWS's drivers. All names
/// below them belong to AWS. A longer name that only contains one of them is not recognised.
const DOMAINS: [&str; 12] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "amazonaws.au",
    "amazonaws.uk",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "on.aws",
    "on.amazonwebservices.com.cn",
    "on.amazonwebservices.eu",
];

/// The kind of endpoint that a host name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    Instance,
    ClusterWriter,
    ClusterReader,
    ClusterCustom,
    /// RDS Proxy, its default endpoint or an additional one.
    Proxy,
    /// A shard group of Aurora Limitless.
    ShardGroup,
    /// The writer of an Aurora global database, in whichever region it is at present.
    Global,
    /// RDS, of a kind that this crate does not recognise.
    OtherRds,
    Dsql,
    /// Not a name of AWS: an alias, an address, a tunnel.
    Unknown,
}

/// The information in a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostName<'a> {
    pub(crate) kind: HostKind,
    pub(crate) region: Option<&'a str>,
}

const UNKNOWN: HostName<'static> = HostName {
    kind: HostKind::Unknown,
    region: None,
};

impl<'a> HostName<'a> {
    /// Parses `host`, which is in lower case and without a trailing dot.
    pub(crate) fn read(host: &'a str) -> HostName<'a> {
        let Some((name, domain)) = split_domain(host) else {
            return UNKNOWN;
        };
        let labels: Vec<&str> = name.split('.').collect();
        if !labels.iter().all(|label| is_label(label)) {
            return UNKNOWN;
        }
        match labels.as_slice() {
            [_, service, region] if is_dsql(service) && domain.starts_with("on.") => {
                if is_region(region) {
                    HostName {
                        kind: HostKind::Dsql,
                        region: Some(region),
                    }
                } else {
                    UNKNOWN
                }
            }
            [name @ .., id, region, "rds" | "rds-fips"]
            | [name @ .., id, "rds" | "rds-fips", region] => rds(name, id, region),
            _ => UNKNOWN,
        }
    }
}

fn rds<'a>(name: &[&str], id: &str, region: &'a str) -> HostName<'a> {
    let kind = rds_kind(id);
    let name_fits = match name {
        [_] => true,
        // Additional endpoints of a proxy have one label more.
        [_, "endpoint"] => kind == HostKind::Proxy,
        _ => false,
    };
    match (name_fits, kind, region) {
        (true, HostKind::Global, "global") => HostName { kind, region: None },
        (true, _, region) if kind != HostKind::Global && is_region(region) => HostName {
            kind,
            region: Some(region),
        },
        _ => UNKNOWN,
    }
}

fn rds_kind(id: &str) -> HostKind {
    // The longer prefixes first, since they begin with `cluster-` as well.
    const PREFIXES: [(&str, HostKind); 6] = [
        ("cluster-ro-", HostKind::ClusterReader),
        ("cluster-custom-", HostKind::ClusterCustom),
        ("cluster-", HostKind::ClusterWriter),
        ("proxy-", HostKind::Proxy),
        ("shardgrp-", HostKind::ShardGroup),
        ("global-", HostKind::Global),
    ];
    PREFIXES
        .iter()
        .find(|(prefix, _)| id.starts_with(prefix))
        .map(|(_, kind)| *kind)
        .unwrap_or(if id.contains('-') {
            HostKind::OtherRds
        } else {
            HostKind::Instance
        })
}

/// Splits off the domain of AWS that `name` is in.
fn split_domain(host: &str) -> Option<(&str, &'static str)> {
    DOMAINS.iter().find_map(|domain| {
        let name = host.strip_suffix(domain)?.strip_suffix('.')?;
        Some((name, *domain))
    })
}

fn is_dsql(service: &str) -> bool {
    service == "dsql" || service.starts_with("dsql-")
}

/// Whether `label` has the form of `eu-west-1`, `us-gov-west-1` and `eusc-de-east-1`: words of letters, and a
/// number at the end.
pub(super) fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let is_word =
        |part: &&str| part.len() >= 2 && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts.as_slice() {
        [words @ .., number] => {
            words.len() >= 2
                && words.iter().all(is_word)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        }
        [] => false,
    }
}

pub(super) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Endpoint, Engine};

    /// The name of a kind in the first column of `hosts.tsv`.
    const KINDS: [(&str, HostKind); 10] = [
        ("instance", HostKind::Instance),
        ("cluster writer", HostKind::ClusterWriter),
        ("cluster reader", HostKind::ClusterReader),
        ("cluster custom", HostKind::ClusterCustom),
        ("proxy", HostKind::Proxy),
        ("limitless shard group", HostKind::ShardGroup),
        ("global writer", HostKind::Global),
        ("Aurora DSQL", HostKind::Dsql),
        ("RDS, unknown kind", HostKind::OtherRds),
        ("not an RDS name", HostKind::Unknown),
    ];

    #[test]
    fn every_form_is_recognised() {
        let cases = include_str!("../../tests/data/hosts.tsv")
            .lines()
            .chain(include_str!("../../tests/data/more-hosts.tsv").lines())
            .filter(|line| !line.starts_with("host\t"));
        let mut seen = 0;
        for case in cases {
            let columns: Vec<&str> = case.split('\t').collect();
            let [host, region, kind] = columns[..] else {
                panic!("not three columns: {case}");
            };
            let (_, kind) = KINDS
                .iter()
                .find(|(name, _)| kind.starts_with(name))
                .unwrap_or_else(|| panic!("no such kind: {case}"));
            let endpoint = Endpoint::new(host, 5432, "app").unwrap();
            let region = Some(region).filter(|region| !region.is_empty());
            let expected = HostName {
                kind: *kind,
                region,
            };
            assert_eq!(endpoint.host_name(), expected, "{case}");
            assert_eq!(endpoint.region(), region, "{case}");
            let is_dsql = endpoint.engine() == Engine::Dsql;
            assert_eq!(is_dsql, *kind == HostKind::Dsql, "{case}");
            seen += 1;
        }
        assert!(seen > 80, "only {seen} cases were read");
    }
}
