//! Credentials of the machine: the container credentials endpoint and EC2's metadata service.

use crate::aws::request::Request;
use crate::aws::{ACCOUNT, INSTANCE_ROLE, Issued, Reply, State, timestamp};

/// The path of the container endpoint.
pub(super) const CONTAINER_PATH: &str = "/container-credentials";

/// The lifetime of a metadata token: requested by the client, and returned by the service.
pub(super) const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

const TOKEN_PATH: &str = "/latest/api/token";
const REGION_PATH: &str = "/latest/meta-data/placement/region";
const ROLES_PATH: &str = "/latest/meta-data/iam/security-credentials/";

/// Answers a request to the container endpoint.
pub(super) fn container(state: &State, request: &Request) -> Reply {
    if request.header("authorization") != state.container_authorization_token() {
        return Reply::text(401, "the authorization token is missing or wrong");
    }
    let role_arn = instance_role_arn();
    let issued = state.issue(&role_arn, None);
    json(format!(
        r#"{{"RoleArn":"{role_arn}",{}}}"#,
        credentials(&issued)
    ))
}

/// Answers a request to the metadata service, version 2. Every request but that for a token requires one.
pub(super) fn answer(state: &State, request: &Request) -> Reply {
    if request.path == TOKEN_PATH {
        return token(state, request);
    }
    if request.header("x-aws-ec2-metadata-token") != state.metadata_token() {
        return Reply::text(401, "Unauthorized");
    }
    match request.path.as_str() {
        REGION_PATH => Reply::text(200, state.region.as_str()),
        ROLES_PATH => Reply::text(200, INSTANCE_ROLE),
        path if path.strip_prefix(ROLES_PATH) == Some(INSTANCE_ROLE) => {
            let issued = state.issue(&instance_role_arn(), None);
            json(format!(
                r#"{{"Code":"Success","LastUpdated":"{}","Type":"AWS-HMAC",{}}}"#,
                timestamp(state.clock.now()),
                credentials(&issued)
            ))
        }
        _ => Reply::text(404, "Not Found"),
    }
}

fn token(state: &State, request: &Request) -> Reply {
    let seconds: Option<u32> = request.header(TTL_HEADER).parse().ok();
    match (request.method.as_str(), seconds) {
        ("PUT", Some(1..=21_600)) => Reply {
            token_ttl: seconds,
            ..Reply::text(200, state.metadata_token())
        },
        ("PUT", _) => Reply::text(400, "Bad Request"),
        _ => Reply::text(405, "Method Not Allowed"),
    }
}

fn instance_role_arn() -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{INSTANCE_ROLE}")
}

/// The fields that both endpoints return. No value contains a character that JSON escapes.
fn credentials(issued: &Issued) -> String {
    format!(
        r#""AccessKeyId":"{}","SecretAccessKey":"{}","Token":"{}","Expiration":"{}""#,
        issued.credentials.access_key,
        issued.credentials.secret_key,
        issued.session_token,
        issued.expiration,
    )
}

fn json(body: String) -> Reply {
    Reply {
        status: 200,
        content_type: "application/json",
        body,
        token_ttl: None,
    }
}
