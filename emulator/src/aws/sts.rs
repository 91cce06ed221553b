//! The Security Token Service, with its query protocol.

use std::collections::HashMap;
use std::time::Duration;

use crate::aws::request::{Refused, Request};
use crate::aws::{ACCOUNT, Issued, Reply, State, authorization, lock};
use crate::credentials::Credentials;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// Parameters that are secrets.
const SECRET_PARAMETERS: [&str; 3] = ["WebIdentityToken", "TokenCode", "SAMLAssertion"];

impl Refused {
    fn reply(&self, state: &State) -> Reply {
        let fault = if self.status < 500 {
            "Sender"
        } else {
            "Receiver"
        };
        xml(
            self.status,
            format!(
                "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{}</Code>\
                 <Message>{}</Message></Error><RequestId>{}</RequestId></ErrorResponse>",
                self.code,
                escape(&self.message),
                state.request_id(),
            ),
        )
    }
}

/// The parameters of a request, without secrets.
pub(super) fn describe(request: &Request) -> (String, HashMap<String, String>) {
    let mut parameters = parameters(request);
    parameters.retain(|name, _| !SECRET_PARAMETERS.contains(&name.as_str()));
    let action = parameters.remove("Action").unwrap_or_default();
    (action, parameters)
}

/// Answers a request.
pub(super) fn answer(state: &State, request: &Request) -> Reply {
    let parameters = parameters(request);
    let action = parameters.get("Action").map_or("", String::as_str);
    let result = match action {
        "AssumeRole" => {
            authorization::signer(state, request).and_then(|_| assume_role(state, &parameters))
        }
        "AssumeRoleWithWebIdentity" => assume_role_with_web_identity(state, &parameters),
        "GetCallerIdentity" => {
            authorization::signer(state, request).map(|signer| caller_identity(&signer))
        }
        _ => Err(Refused::new(
            400,
            "InvalidAction",
            format!("Could not find operation {action} for version 2011-06-15"),
        )),
    };
    match result {
        Ok(result) => xml(
            200,
            format!(
                "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>\
                 <ResponseMetadata><RequestId>{}</RequestId></ResponseMetadata></{action}Response>",
                state.request_id(),
            ),
        ),
        Err(refused) => refused.reply(state),
    }
}

/// The response of a service that is down.
pub(super) fn failing(state: &State) -> Reply {
    Refused::new(500, "InternalFailure", "An internal error occurred").reply(state)
}

/// The response of a service that throttles its callers.
pub(super) fn throttled(state: &State) -> Reply {
    Refused::new(400, "Throttling", "Rate exceeded").reply(state)
}

fn assume_role(state: &State, parameters: &HashMap<String, String>) -> Result<String, Refused> {
    let role = Role::read(parameters)?;
    let roles = lock(&state.roles).clone();
    if !roles.is_empty() {
        let trusted = roles.get(role.arn).is_some_and(|external_id| {
            external_id.is_none() || external_id.as_ref() == parameters.get("ExternalId")
        });
        if !trusted {
            return Err(Refused::new(
                403,
                "AccessDenied",
                format!(
                    "not authorized to perform: sts:AssumeRole on resource: {}",
                    role.arn
                ),
            ));
        }
    }
    let issued = state.issue(role.arn, role.duration);
    Ok(role.result(&issued))
}

fn assume_role_with_web_identity(
    state: &State,
    parameters: &HashMap<String, String>,
) -> Result<String, Refused> {
    let role = Role::read(parameters)?;
    required(parameters, "WebIdentityToken")?;
    let issued = state.issue(role.arn, role.duration);
    Ok(format!(
        "<SubjectFromWebIdentityToken>system:serviceaccount:default:emulator\
         </SubjectFromWebIdentityToken><Audience>sts.amazonaws.com</Audience>{}",
        role.result(&issued),
    ))
}

fn caller_identity(signer: &Credentials) -> String {
    let user = format!("arn:aws:iam::{ACCOUNT}:user/emulator");
    let arn = signer.principal.as_deref().unwrap_or(&user);
    format!(
        "<Arn>{}</Arn><UserId>{}</UserId><Account>{}</Account>",
        escape(arn),
        escape(&signer.access_key),
        arn.split(':').nth(4).unwrap_or(ACCOUNT),
    )
}

/// The role that a caller requests.
struct Role<'a> {
    arn: &'a str,
    name: &'a str,
    session: &'a str,
    duration: Option<Duration>,
}

impl<'a> Role<'a> {
    fn read(parameters: &'a HashMap<String, String>) -> Result<Role<'a>, Refused> {
        let arn = required(parameters, "RoleArn")?;
        let session = required(parameters, "RoleSessionName")?;
        let invalid = |message: String| Refused::new(400, "ValidationError", message);
        let name = arn
            .split_once(":role/")
            .filter(|(before, name)| before.starts_with("arn:") && !name.is_empty())
            .map(|(_, path)| path.rsplit('/').next().unwrap_or(path))
            .ok_or_else(|| invalid(format!("{arn} is invalid")))?;
        let duration = match parameters.get("DurationSeconds") {
            Some(text) => match text.parse() {
                Ok(seconds @ 900..=43_200) => Some(Duration::from_secs(seconds)),
                _ => {
                    return Err(invalid(
                        "DurationSeconds must be between 900 and 43200".to_owned(),
                    ));
                }
            },
            None => None,
        };
        Ok(Role {
            arn,
            name,
            session,
            duration,
        })
    }

    fn result(&self, issued: &Issued) -> String {
        let account = self.arn.split(':').nth(4).unwrap_or(ACCOUNT);
        let partition = self.arn.split(':').nth(1).unwrap_or("aws");
        format!(
            "<AssumedRoleUser><AssumedRoleId>AROAEMULATOREXAMPLE00:{session}</AssumedRoleId>\
             <Arn>arn:{partition}:sts::{account}:assumed-role/{name}/{session}</Arn>\
             </AssumedRoleUser><Credentials><AccessKeyId>{id}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials>",
            session = escape(self.session),
            name = escape(self.name),
            account = escape(account),
            partition = escape(partition),
            id = issued.credentials.access_key,
            secret = issued.credentials.secret_key,
            token = issued.session_token,
            expiration = issued.expiration,
        )
    }
}

fn required<'a>(parameters: &'a HashMap<String, String>, name: &str) -> Result<&'a str, Refused> {
    match parameters.get(name) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(Refused::new(
            400,
            "ValidationError",
            format!("1 validation error detected: {name} must not be null"),
        )),
    }
}

/// Parameters are in the body of a POST, or in the query.
fn parameters(request: &Request) -> HashMap<String, String> {
    form_urlencoded::parse(request.query.as_bytes())
        .chain(form_urlencoded::parse(&request.body))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

fn xml(status: u16, body: String) -> Reply {
    Reply {
        status,
        content_type: "text/xml",
        body,
        token_ttl: None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
