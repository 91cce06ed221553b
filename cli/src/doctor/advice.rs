//! Policies and statements to copy, with the names of the connection in them.

use diesel_rds_iam::{Endpoint, Engine};
use serde_json::json;

/// The policy that allows an identity to log in. Unknown parts are in capitals.
pub(super) fn policy(endpoint: &Endpoint, account: Option<&str>) -> String {
    let region = endpoint.region().unwrap_or("REGION");
    let partition = partition(region);
    let account = account.unwrap_or("ACCOUNT-ID");
    let (action, resource) = match endpoint.engine() {
        Engine::Dsql => {
            let action = match endpoint.user() {
                "admin" => "dsql:DbConnectAdmin",
                _ => "dsql:DbConnect",
            };
            let cluster = first_label(endpoint);
            let resource = format!("arn:{partition}:dsql:{region}:{account}:cluster/{cluster}");
            (action, resource)
        }
        _ => {
            let (id, user) = (resource_id(endpoint), endpoint.user());
            let resource = format!("arn:{partition}:rds-db:{region}:{account}:dbuser:{id}/{user}");
            ("rds-db:connect", resource)
        }
    };
    // In AWS's order, which a JSON map does not keep.
    format!(
        "{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [{{\n    \"Effect\": \"Allow\",\n    \
         \"Action\": {},\n    \"Resource\": {}\n  }}]\n}}",
        json!(action),
        json!(resource),
    )
}

/// Whether `endpoint` has a name that AWS gave to a database, rather than an alias, an address or the
/// name of a tunnel.
pub(super) fn is_aws_name(endpoint: &Endpoint) -> bool {
    // Only such a name has a region in it, but for that of a global database.
    let named = Endpoint::new(endpoint.host(), endpoint.port(), endpoint.user());
    named.is_ok_and(|named| named.region().is_some()) || is_global(endpoint)
}

/// Whether `endpoint` is the writer of an Aurora global database, in one of its clusters.
fn is_global(endpoint: &Endpoint) -> bool {
    endpoint.host().ends_with(".global.rds.amazonaws.com")
}

/// The command that prints the policy's resource id; `None` if the policy already has it, or if the
/// host name does not tell which database it is.
pub(super) fn resource_hint(endpoint: &Endpoint) -> Option<String> {
    if !is_aws_name(endpoint) || is_global(endpoint) {
        return None;
    }
    let name = first_label(endpoint);
    let region = endpoint.region().unwrap_or("REGION");
    let (command, query) = match kind(endpoint) {
        Kind::Dsql => return None,
        Kind::Cluster => (
            format!("describe-db-clusters --db-cluster-identifier {name}"),
            "DBClusters[0].DbClusterResourceId",
        ),
        Kind::Proxy => (
            format!("describe-db-proxies --db-proxy-name {name}"),
            "DBProxies[0].DBProxyArn",
        ),
        Kind::Instance => (
            format!("describe-db-instances --db-instance-identifier {name}"),
            "DBInstances[0].DbiResourceId",
        ),
    };
    Some(format!(
        "aws rds {command} --region {region} --query '{query}' --output text"
    ))
}

/// The statement that allows `endpoint`'s user to log in with a token.
pub(super) fn grant(endpoint: &Endpoint, account: Option<&str>) -> String {
    let user = quoted(endpoint.user());
    match endpoint.engine() {
        Engine::Dsql => {
            let partition = partition(endpoint.region().unwrap_or_default());
            let account = account.unwrap_or("ACCOUNT-ID");
            format!("AWS IAM GRANT {user} TO 'arn:{partition}:iam::{account}:role/ROLE-NAME';")
        }
        _ => format!("GRANT rds_iam TO {user};"),
    }
}

/// The statements that create `endpoint`'s user and allow it to log in with a token.
pub(super) fn create_and_grant(endpoint: &Endpoint, account: Option<&str>) -> String {
    let user = quoted(endpoint.user());
    format!(
        "CREATE ROLE {user} WITH LOGIN;\n{}",
        grant(endpoint, account)
    )
}

/// The statement that allows `endpoint`'s user to log in at all.
pub(super) fn allow_login(endpoint: &Endpoint) -> String {
    format!("ALTER ROLE {} LOGIN;", quoted(endpoint.user()))
}

/// The statement that allows `endpoint`'s user to connect to `database`.
pub(super) fn grant_connect(endpoint: &Endpoint, database: &str) -> String {
    let (user, database) = (quoted(endpoint.user()), quoted(database));
    format!("GRANT CONNECT ON DATABASE {database} TO {user};")
}

/// Whether the endpoint is an RDS Proxy, which logs in to the database with its own password.
pub(super) fn is_proxy(endpoint: &Endpoint) -> bool {
    kind(endpoint) == Kind::Proxy
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Instance,
    Cluster,
    Proxy,
    Dsql,
}

fn kind(endpoint: &Endpoint) -> Kind {
    let id = endpoint.host().split('.').nth(1).unwrap_or_default();
    // Additional endpoints of a proxy have one more label.
    let is_proxy = endpoint.host().contains(".proxy-");
    match endpoint.engine() {
        Engine::Dsql => Kind::Dsql,
        _ if is_proxy => Kind::Proxy,
        _ if id.starts_with("cluster-") || is_global(endpoint) => Kind::Cluster,
        _ => Kind::Instance,
    }
}

/// The resource id of the policy, by its prefix.
fn resource_id(endpoint: &Endpoint) -> &'static str {
    match kind(endpoint) {
        Kind::Cluster => "cluster-RESOURCE-ID",
        Kind::Proxy => "prx-RESOURCE-ID",
        _ => "db-RESOURCE-ID",
    }
}

fn first_label(endpoint: &Endpoint) -> &str {
    endpoint.host().split('.').next().unwrap_or_default()
}

fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}

/// A name as an SQL identifier, quoted if necessary.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, user: &str) -> Endpoint {
        Endpoint::new(host, 5432, user).unwrap()
    }

    #[test]
    fn each_kind_of_endpoint_has_its_policy_and_its_grant() {
        for (host, user, resource, grant) in [
            (
                "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com",
                "app",
                "arn:aws:rds-db:eu-west-1:123456789012:dbuser:db-RESOURCE-ID/app",
                "GRANT rds_iam TO app;",
            ),
            (
                "mydb.cluster-c9akciq32rqv.us-gov-west-1.rds.amazonaws.com",
                "o'Brien",
                "arn:aws-us-gov:rds-db:us-gov-west-1:123456789012:dbuser:cluster-RESOURCE-ID/o'Brien",
                "GRANT rds_iam TO \"o'Brien\";",
            ),
            (
                "mydb.proxy-c9akciq32rqv.eu-west-1.rds.amazonaws.com",
                "app",
                "arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-RESOURCE-ID/app",
                "GRANT rds_iam TO app;",
            ),
            (
                "abcd.dsql.us-east-1.on.aws",
                "admin",
                "arn:aws:dsql:us-east-1:123456789012:cluster/abcd",
                "AWS IAM GRANT admin TO 'arn:aws:iam::123456789012:role/ROLE-NAME';",
            ),
        ] {
            let endpoint = endpoint(host, user);
            let account = Some("123456789012");
            let policy: serde_json::Value =
                serde_json::from_str(&policy(&endpoint, account)).unwrap();
            assert_eq!(policy["Statement"][0]["Resource"], resource);
            assert_eq!(super::grant(&endpoint, account), grant);
            let names_the_database =
                resource_hint(&endpoint).is_none_or(|hint| hint.contains("mydb"));
            assert!(names_the_database, "{host}");
            assert!(is_aws_name(&endpoint), "{host}");
        }
    }

    #[test]
    fn an_alias_an_address_and_a_tunnel_name_no_database() {
        for host in ["localhost", "10.0.0.1", "db.example.com"] {
            let endpoint = endpoint(host, "app").with_region("eu-west-1").unwrap();
            assert!(!is_aws_name(&endpoint), "{host}");
            assert_eq!(resource_hint(&endpoint), None, "{host}");
        }
    }

    #[test]
    fn a_global_database_names_none_of_its_clusters() {
        let host = "mydb.global-c9akciq32rqv.global.rds.amazonaws.com";
        let endpoint = endpoint(host, "app").with_region("eu-west-1").unwrap();
        assert!(is_aws_name(&endpoint));
        assert_eq!(resource_hint(&endpoint), None);
        assert!(policy(&endpoint, None).contains(":cluster-RESOURCE-ID/app"));
    }
}
