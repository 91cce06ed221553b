//! The clusters whose members can be dialled by their own names.

use std::net::IpAddr;

use super::connection_string::{ConnectionString, DEFAULT_PORT, TARGET_SESSION_ATTRS, is_socket};
use super::host::{HostKind, is_label};
use crate::error::Error;

/// The host name of a cluster's endpoint, without its first label and the prefix of its kind: what the names of its
/// members end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterHost(String);

/// What the connections to a cluster are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterRole {
    Writer,
    Readers {
        /// Whether the writer serves if there is no reader.
        or_writer: bool,
    },
}

impl ClusterHost {
    /// `host` is a cluster's endpoint, in the form that is signed.
    pub(crate) fn of(host: &str) -> Option<ClusterHost> {
        let (_, rest) = host.split_once('.')?;
        let prefixes = ["cluster-ro-", "cluster-"];
        let domain = prefixes
            .iter()
            .find_map(|prefix| rest.strip_prefix(prefix))?;
        Some(ClusterHost(domain.to_owned()))
    }

    /// Returns the host name of the member `id`. `None` if `id` is not the identifier of an instance.
    pub(crate) fn member(&self, id: &str) -> Option<String> {
        is_label(id).then(|| format!("{id}.{}", self.0))
    }
}

impl ConnectionString {
    /// Returns the cluster whose members may be dialled instead of its name, and what for.
    ///
    /// None if the string says where to dial, by an address or through a tunnel: the members cannot be reached in
    /// the same way.
    pub(crate) fn cluster(&self) -> Result<Option<(ClusterHost, ClusterRole)>, Error> {
        let role = match self.get(TARGET_SESSION_ATTRS) {
            Some("read-write" | "primary") => ClusterRole::Writer,
            Some("prefer-standby") => ClusterRole::Readers { or_writer: true },
            Some("standby" | "read-only") => ClusterRole::Readers { or_writer: false },
            _ => return Ok(None),
        };
        if self.has_no_cluster || !self.login().is_guarded() || self.get("hostaddr").is_some() {
            return Ok(None);
        }
        let host = self.get("host").unwrap_or_default();
        let is_fixed =
            host == "localhost" || is_socket(host) || host.contains(',') || is_address(host);
        if host.is_empty() || is_fixed {
            return Ok(None);
        }
        let endpoint = self.server()?;
        let port = self.get("port").unwrap_or(DEFAULT_PORT);
        if port.trim().parse() != Ok(endpoint.port()) {
            return Ok(None);
        }
        let fits = match endpoint.host_name().kind {
            HostKind::ClusterWriter => true,
            HostKind::ClusterReader => role != ClusterRole::Writer,
            _ => false,
        };
        let host = fits.then(|| ClusterHost::of(endpoint.host())).flatten();
        Ok(host.map(|host| (host, role)))
    }

    /// Returns this string for the member of a cluster with the host name `host`.
    pub(crate) fn at_member(&self, host: &str) -> ConnectionString {
        let mut member = self.clone();
        member.put("host", host);
        member.iam.host = None;
        member.iam.port = None;
        member
    }

    /// Connects to readers if there are any: `target_session_attrs=prefer-standby`.
    pub(crate) fn prefer_readers(&mut self) {
        self.put(TARGET_SESSION_ATTRS, "prefer-standby");
    }
}

fn is_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITER: &str = "mycluster.cluster-c9akciq32rqv.eu-west-1.rds.amazonaws.com";
    const READER: &str = "mycluster.cluster-ro-c9akciq32rqv.eu-west-1.rds.amazonaws.com";

    fn role_of(string: &str) -> Option<ClusterRole> {
        let parsed = ConnectionString::parse(string).unwrap();
        parsed.cluster().unwrap().map(|(_, role)| role)
    }

    #[test]
    fn a_member_has_the_name_of_its_cluster_without_the_prefix() {
        for (cluster, member) in [
            (WRITER, "one.c9akciq32rqv.eu-west-1.rds.amazonaws.com"),
            (READER, "one.c9akciq32rqv.eu-west-1.rds.amazonaws.com"),
            (
                "a.cluster-c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn",
                "one.c9akciq32rqv.rds.cn-north-1.amazonaws.com.cn",
            ),
        ] {
            let host = ClusterHost::of(cluster).unwrap();
            assert_eq!(host.member("one").as_deref(), Some(member));
            for id in ["", "a.b", "-a", "a b", "A", "a/", "évil"] {
                assert_eq!(host.member(id), None, "{id:?}");
            }
        }
    }

    #[test]
    fn members_are_dialled_where_the_role_is_known_and_the_cluster_by_its_name() {
        let readers = |or_writer| Some(ClusterRole::Readers { or_writer });
        for (rest, role) in [
            (format!("host={WRITER}"), None),
            (format!("host={WRITER} target_session_attrs=any"), None),
            (
                format!("host={WRITER} target_session_attrs=read-write"),
                Some(ClusterRole::Writer),
            ),
            (
                format!("host={WRITER}. target_session_attrs=primary"),
                Some(ClusterRole::Writer),
            ),
            (
                format!("host={READER} target_session_attrs=prefer-standby"),
                readers(true),
            ),
            (
                format!("host={WRITER} target_session_attrs=read-only"),
                readers(false),
            ),
            (
                format!("host={READER} target_session_attrs=read-write"),
                None,
            ),
            (
                format!("host=db.example.com iam_host={WRITER} target_session_attrs=read-write"),
                Some(ClusterRole::Writer),
            ),
        ] {
            assert_eq!(role_of(&format!("user=app {rest}")), role, "{rest}");
        }
        for without in [
            "iam_cluster=off".to_owned(),
            "iam=off password=x".to_owned(),
            "hostaddr=10.0.0.1".to_owned(),
            "port=5433 iam_port=5432".to_owned(),
            format!("host=localhost iam_host={WRITER}"),
            format!("host=127.0.0.1 iam_host={WRITER}"),
            format!("host={WRITER},{WRITER}"),
            "host=db.example.com".to_owned(),
            "host=mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com".to_owned(),
            "host=p.proxy-c9akciq32rqv.eu-west-1.rds.amazonaws.com".to_owned(),
            "host=c.cluster-custom-c9akciq32rqv.eu-west-1.rds.amazonaws.com".to_owned(),
        ] {
            let string =
                format!("user=app host={WRITER} target_session_attrs=read-write {without}");
            assert_eq!(role_of(&string), None, "{without}");
        }
    }
}
