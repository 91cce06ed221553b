//! The members of a cluster, and where its name leads.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use diesel_rds_iam::ClusterMember;

use super::Context;
use super::step::{Observation, StepResult};

/// A member, with what is to be said of it.
struct Member {
    host: String,
    text: String,
}

impl From<&ClusterMember> for Member {
    fn from(member: &ClusterMember) -> Member {
        let lag = match member.lag {
            Duration::ZERO => String::new(),
            lag => format!(", {lag:?} behind"),
        };
        let role = if member.is_writer { "writer" } else { "reader" };
        Member {
            host: member.host.clone(),
            text: format!("{} ({role}{lag})", member.id),
        }
    }
}

/// Reports what the login has read. Nothing here fails: without members, connections follow the name.
pub(super) fn members(context: &Context) -> StepResult<()> {
    let members = context.manager.cluster_members();
    let members: Vec<Member> = members.iter().map(Member::from).collect();
    if members.is_empty() {
        return Ok(((), Observation::Skipped(reason(context))));
    }
    Ok((
        (),
        describe(context.parameter("host"), &members, &resolve).into(),
    ))
}

fn reason(context: &Context) -> String {
    let is_cluster = context.endpoint.host().contains(".cluster-");
    if !is_cluster {
        return "skipped: the host is not the endpoint of a cluster".to_owned();
    }
    match context.parameter("target_session_attrs") {
        "" | "any" => {
            "skipped: members are dialled only with target_session_attrs=read-write, or prefer-standby for \
             reads"
        }
        _ => {
            "skipped: the user cannot read them, or the connection string says where to dial; \
             connections follow the cluster's name"
        }
    }
    .to_owned()
}

fn describe(
    name: &str,
    members: &[Member],
    resolve: &dyn Fn(&str) -> io::Result<BTreeSet<IpAddr>>,
) -> String {
    let listed: Vec<&str> = members.iter().map(|member| &*member.text).collect();
    let leads_to = match resolve(name) {
        Ok(found) => {
            let is_there = |member: &&Member| {
                resolve(&member.host).is_ok_and(|addresses| !addresses.is_disjoint(&found))
            };
            let there = members.iter().filter(is_there);
            let there: Vec<&str> = there.map(|member| &*member.host).collect();
            match there.is_empty() {
                true => "the name leads to none of their addresses".to_owned(),
                false => format!("the name leads to {}", there.join(", ")),
            }
        }
        Err(error) => format!("the name does not resolve: {error}"),
    };
    format!("{}; {leads_to}", listed.join(", "))
}

fn resolve(host: &str) -> io::Result<BTreeSet<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|it| it.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_and_the_target_of_the_name_are_shown() {
        let member = |id: &str, role: &str| Member {
            host: format!("{id}.example.com"),
            text: format!("{id} ({role})"),
        };
        let members = [member("a", "writer"), member("b", "reader")];
        let at = |host: &str| match host {
            "cluster.example.com" | "b.example.com" => Ok([[10, 0, 0, 2].into()].into()),
            "a.example.com" => Ok([[10, 0, 0, 1].into()].into()),
            _ => Err(io::Error::other("no such name")),
        };
        let listed = "a (writer), b (reader)";
        for (name, leads_to) in [
            ("cluster.example.com", "the name leads to b.example.com"),
            (
                "other.example.com",
                "the name does not resolve: no such name",
            ),
        ] {
            let shown = describe(name, &members, &at);
            assert_eq!(shown, format!("{listed}; {leads_to}"));
        }
        let elsewhere = describe("cluster.example.com", &members[..1], &at);
        assert!(
            elsewhere.ends_with("none of their addresses"),
            "{elsewhere}"
        );
    }
}
