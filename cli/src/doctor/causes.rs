//! What the server, libpq or AWS reports, with the step that it belongs to and the advice for it.
//!
//! The rows are those of the guide, `src/guide/failures.md`. A test holds the two together.

use super::step::Step;

/// A cause of a failed login or of missing credentials.
#[derive(Debug)]
pub(super) struct Cause {
    /// Parts of its messages. A quoted name is `""` here.
    messages: &'static [&'static str],
    pub(super) step: Step,
    pub(super) advice: Advice,
}

/// What to do about a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// The token was refused: the policy, for the endpoint that the token is signed for.
    Policy,
    /// The user is not a member of `rds_iam`, or does not exist.
    CreateAndGrant,
    /// The server accepted the token, and the role does not exist.
    Create,
    /// The role has no `LOGIN`.
    AllowLogin,
    /// The role may not use the database.
    GrantConnect,
    /// Something that needs no names of the connection.
    Text(&'static str),
}

use Advice::{AllowLogin, Create, CreateAndGrant, GrantConnect, Policy, Text};

/// The first that matches applies, so the server's messages come before those of the network.
static CAUSES: &[Cause] = &[
    // A pooler passes messages of the server on.
    Cause {
        messages: &[
            "no more connections allowed",
            "query_wait_timeout",
            "server login has been failing",
            "could not get connection from the pool",
            "max clients reached",
            "endpoint has been disabled",
        ],
        step: Step::Login,
        advice: Text("check the limits, the servers and the log of the connection pooler"),
    },
    Cause {
        messages: &[
            "no such database",
            "no such user",
            "No pool configured for database",
            "Tenant or user not found",
        ],
        step: Step::String,
        advice: Text("correct database and user, or add them to the connection pooler's settings"),
    },
    Cause {
        messages: &["sni was not received", "Endpoint ID is not specified"],
        step: Step::Tls,
        advice: Text("set host to the server's name, and hostaddr to the address to dial"),
    },
    Cause {
        messages: &["authentication failed because of too many competing requests"],
        step: Step::Login,
        advice: Text(
            "open fewer connections at a time: RDS Proxy limits the rate of logins; nothing is wrong \
             with the token",
        ),
    },
    Cause {
        messages: &["Rate of connection to proxy exceeded"],
        step: Step::Login,
        advice: Text("open fewer connections at a time: RDS Proxy limits their rate"),
    },
    Cause {
        messages: &["nable to accept connection, rate exceeded"],
        step: Step::Login,
        advice: Text(
            "open fewer connections at a time: Aurora DSQL limits the rate of connections",
        ),
    },
    Cause {
        messages: &["nable to accept connection, too many open connections"],
        step: Step::Login,
        advice: Text(
            "close connections, or raise the cluster's quota of connections in the Service Quotas of \
             AWS",
        ),
    },
    Cause {
        messages: &[
            "PAM authentication failed for user",
            "nable to accept connection, access denied",
        ],
        step: Step::Login,
        advice: Policy,
    },
    Cause {
        messages: &["The IAM authentication failed for the role"],
        step: Step::Login,
        advice: Policy,
    },
    Cause {
        // libpq 16 and later let only a cleartext password leave, and say what the server requested instead.
        messages: &[
            "password authentication failed for user",
            "server requested SASL authentication",
            "server requested a hashed password",
        ],
        step: Step::Role,
        advice: CreateAndGrant,
    },
    Cause {
        messages: &["role \"\" does not exist"],
        step: Step::Role,
        advice: Create,
    },
    Cause {
        messages: &["is not permitted to log in"],
        step: Step::Role,
        advice: AllowLogin,
    },
    Cause {
        messages: &["permission denied for database"],
        step: Step::Role,
        advice: GrantConnect,
    },
    Cause {
        messages: &["This RDS proxy has no credentials for the role"],
        step: Step::Role,
        advice: Text(
            "add a secret with this user's password to the proxy, or switch the proxy to end-to-end \
             IAM authentication",
        ),
    },
    Cause {
        messages: &["database \"\" does not exist"],
        step: Step::String,
        advice: Text(
            "correct the database name in the connection string, after the last `/` of a URL; the \
             server accepted the login",
        ),
    },
    Cause {
        messages: &["no pg_hba.conf entry for"],
        step: Step::Login,
        advice: Text(
            "wait, if an Aurora Serverless cluster resumes; on RDS, remove replication= from the \
             connection string, which IAM does not support, and check that the connection is encrypted; \
             on another server, add a `hostssl` line for this user to pg_hba.conf",
        ),
    },
    Cause {
        messages: &["no encryption", "IAM is allowed only with SSL connections"],
        step: Step::Tls,
        advice: Text(
            "connect to the database itself: something between here and the server removes the \
             encryption, which a token requires",
        ),
    },
    Cause {
        messages: &[
            "invalid value for parameter",
            "unrecognized configuration parameter",
            "invalid command-line argument",
            "requires a value",
        ],
        step: Step::String,
        advice: Text(
            "correct this setting in the connection string, options among them, or in PGOPTIONS, PGTZ, \
             PGDATESTYLE and PGGEQO; the server accepted the login",
        ),
    },
    Cause {
        messages: &["GSSAPI encryption required"],
        step: Step::String,
        advice: Text("remove gssencmode from the connection string: a token requires TLS"),
    },
    Cause {
        messages: &[
            "too many clients already",
            "remaining connection slots are reserved",
        ],
        step: Step::Login,
        advice: Text(
            "close connections: max_connections of the server is reached; reduce max_size of the \
             pools, or use RDS Proxy",
        ),
    },
    Cause {
        messages: &[
            "the database system is starting up",
            "is shutting down",
            "the database system is",
        ],
        step: Step::Login,
        advice: Text("wait until the server accepts logins, and try again"),
    },
    Cause {
        messages: &["in a read-only transaction"],
        step: Step::Server,
        advice: Text(
            "connect to the writer: use the cluster endpoint, or set target_session_attrs=read-write",
        ),
    },
    Cause {
        messages: &[
            "session is read-only",
            "session is not read-only",
            "server is in hot standby mode",
            "server is not in hot standby mode",
        ],
        step: Step::Server,
        advice: Text(
            "correct target_session_attrs, or connect to the endpoint of such a server; after a \
             failover, wait until the name leads to it",
        ),
    },
    Cause {
        messages: &["timed out waiting for connection"],
        step: Step::Login,
        advice: Text(
            "find connections that the application holds for too long, then raise max_size of the pool",
        ),
    },
    Cause {
        messages: &["is not authorized to perform: sts:AssumeRole"],
        step: Step::Credentials,
        advice: Text(
            "allow sts:AssumeRole in the policy of the identity that assumes the role, and the \
             identity in the role's trust policy",
        ),
    },
    Cause {
        messages: &[
            "ExpiredToken",
            "The security token included in the request is expired",
        ],
        step: Step::Credentials,
        advice: Text("renew the AWS credentials, for example with `aws sso login`"),
    },
    Cause {
        messages: &["InvalidClientTokenId", "SignatureDoesNotMatch"],
        step: Step::Credentials,
        advice: Text("replace the AWS keys at their source: they are wrong or were deleted"),
    },
    Cause {
        messages: &[
            "server sent an error response during SSL exchange",
            "could not fork new process",
        ],
        step: Step::Login,
        advice: Text(
            "open fewer connections, or use a larger instance: the server has no memory for more",
        ),
    },
    Cause {
        messages: &["received unencrypted data after SSL response"],
        step: Step::Tls,
        advice: Text("check the route and its proxies: a machine in between added data"),
    },
    Cause {
        messages: &["incorrect server signature", "malformed SCRAM message"],
        step: Step::Login,
        advice: Text("correct host and port: the server does not know the password"),
    },
    Cause {
        messages: &["certificate verify failed"],
        step: Step::Tls,
        advice: Text(
            "set sslrootcert to a file with the root of the server's certificate, or iam_host for an \
             RDS Proxy or Aurora DSQL behind an alias",
        ),
    },
    Cause {
        messages: &["does not match host name"],
        step: Step::Tls,
        advice: Text(
            "set iam_host to the database's own name, which the certificate contains; host remains the \
             name that is dialled",
        ),
    },
    Cause {
        messages: &["could not translate host name", "cannot be resolved"],
        step: Step::Dns,
        advice: Text(
            "correct the host name; the name of a private database may resolve inside its VPC only",
        ),
    },
    Cause {
        messages: &["timeout expired", "Connection timed out"],
        step: Step::Tcp,
        advice: Text(
            "check the security group, the route and the VPN between here and the database",
        ),
    },
    Cause {
        messages: &["Connection refused"],
        step: Step::Tcp,
        advice: Text("check that the database is running, and that the port is correct"),
    },
    Cause {
        messages: &[
            "SSL connection has been closed unexpectedly",
            "received invalid response to SSL negotiation",
        ],
        step: Step::Tls,
        advice: Text(
            "correct host and port, and check for a proxy or a load balancer in between: the other \
             side is not PostgreSQL, or the connection was cut",
        ),
    },
    Cause {
        messages: &[
            "server closed the connection unexpectedly",
            "could not get socket error status",
        ],
        step: Step::Login,
        advice: Text(
            "check the targets of a load balancer in between, and the memory of the instance in its \
             metrics",
        ),
    },
];

/// The cause of a message of the server, libpq or AWS; `None` if it is not known.
pub(super) fn classify(message: &str) -> Option<&'static Cause> {
    let message = without_names(message);
    CAUSES
        .iter()
        .find(|cause| cause.messages.iter().any(|part| message.contains(part)))
}

/// Names in quotes may be any text, also that of another message.
fn without_names(message: &str) -> String {
    message
        .split('"')
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of the first table of the guide, by row.
    fn guide() -> Vec<Vec<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/guide/failures.md");
        let text = std::fs::read_to_string(path).unwrap();
        let table = text.split("\n# ").nth(1).unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let messages = row.split(" | ").next().unwrap();
            messages
                .trim_end_matches('`')
                .split("`, `")
                .map(str::to_owned)
                .collect()
        })
        .collect()
    }

    #[test]
    fn each_row_of_the_guide_has_one_cause_and_each_cause_a_row() {
        let rows = guide();
        assert!(rows.len() > 25, "{rows:?}");
        let mut found = Vec::new();
        for row in &rows {
            let causes: Vec<_> = row.iter().map(|message| classify(message)).collect();
            let first = causes[0].unwrap_or_else(|| panic!("{row:?} has no cause"));
            for cause in causes {
                assert!(cause.is_some_and(|it| std::ptr::eq(it, first)), "{row:?}");
            }
            found.push(first);
        }
        for cause in CAUSES {
            assert!(
                found.iter().any(|it| std::ptr::eq(*it, cause)),
                "{cause:?} has no row"
            );
        }
    }

    #[test]
    fn a_name_is_no_message() {
        for name in [
            "no encryption",
            "too many clients already",
            "is shutting down",
        ] {
            let message = format!("FATAL:  PAM authentication failed for user \"{name}\"");
            assert_eq!(classify(&message).unwrap().advice, Policy, "{name}");
        }
        assert!(classify("role \"database\" is odd").is_none());
    }
}
