//! Reports the events to the facade of the crate `metrics`. The guide's page `observability` lists the names.
//!
//! No label names a host or a user: the number of series stays the same however many databases an
//! application has.

use std::sync::Once;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};

use super::{
    ConnectFailed, ConnectionOpened, ConnectionRetired, RefreshFailed, RetireReason, TokenSigned,
};
use crate::error::ErrorKind;

const TOKENS_SIGNED: &str = "rds_iam_tokens_signed_total";
const SIGNING_SECONDS: &str = "rds_iam_token_signing_seconds";
const REFRESHES_FAILED: &str = "rds_iam_refreshes_failed_total";
const STALE_SERVED: &str = "rds_iam_stale_tokens_served_total";
const LOGINS_REFUSED: &str = "rds_iam_logins_refused_total";
const LOGINS_RETRIED: &str = "rds_iam_logins_retried_total";
const CONNECTIONS_OPENED: &str = "rds_iam_connections_opened_total";
const CONNECTIONS_TO_MEMBERS: &str = "rds_iam_connections_to_members_total";
const OPENING_SECONDS: &str = "rds_iam_connection_opening_seconds";
const CONNECTS_FAILED: &str = "rds_iam_connects_failed_total";
const CONNECTIONS_RETIRED: &str = "rds_iam_connections_retired_total";

pub(super) fn token_signed(event: &TokenSigned<'_>) {
    describe_once();
    counter!(TOKENS_SIGNED).increment(1);
    histogram!(SIGNING_SECONDS).record(event.took);
}

pub(super) fn refresh_failed(event: &RefreshFailed<'_>) {
    describe_once();
    counter!(REFRESHES_FAILED, "kind" => kind(event.error.kind())).increment(1);
}

pub(super) fn stale_served() {
    describe_once();
    counter!(STALE_SERVED).increment(1);
}

pub(super) fn login_refused() {
    describe_once();
    counter!(LOGINS_REFUSED).increment(1);
}

pub(super) fn login_retried() {
    describe_once();
    counter!(LOGINS_RETRIED).increment(1);
}

pub(super) fn connection_opened(event: &ConnectionOpened<'_>) {
    describe_once();
    counter!(CONNECTIONS_OPENED).increment(1);
    if event.member.is_some() {
        counter!(CONNECTIONS_TO_MEMBERS).increment(1);
    }
    histogram!(OPENING_SECONDS).record(event.took);
}

pub(super) fn connect_failed(event: &ConnectFailed<'_>) {
    describe_once();
    let kind = match event.was_rate_limited {
        true => "rate_limited",
        false => kind(event.error.kind()),
    };
    counter!(CONNECTS_FAILED, "kind" => kind).increment(1);
}

pub(super) fn connection_retired(event: &ConnectionRetired) {
    describe_once();
    let reason = match event.reason {
        RetireReason::Lifetime => "lifetime",
        RetireReason::RetireAll => "retire_all",
        RetireReason::ReadOnly => "read_only",
    };
    counter!(CONNECTIONS_RETIRED, "reason" => reason).increment(1);
}

fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Configuration => "configuration",
        ErrorKind::CredentialsNotFound => "credentials_not_found",
        ErrorKind::CredentialsRefused => "credentials_refused",
        ErrorKind::CredentialsUnavailable => "credentials_unavailable",
        ErrorKind::CredentialsTimeout => "credentials_timeout",
        ErrorKind::CredentialsExpired => "credentials_expired",
        ErrorKind::LoginRefused => "login_refused",
        ErrorKind::Throttled => "throttled",
        ErrorKind::ServerUnavailable => "server_unavailable",
        ErrorKind::Network => "network",
        ErrorKind::Tls => "tls",
        ErrorKind::Customizer => "customizer",
        ErrorKind::Migration => "migration",
        ErrorKind::MigrationLock => "migration_lock",
        ErrorKind::Internal => "internal",
    }
}

/// Described at the first event, when a recorder must be installed anyway.
fn describe_once() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        describe_counter!(
            TOKENS_SIGNED,
            "Tokens signed, or other rotating passwords fetched"
        );
        describe_histogram!(
            SIGNING_SECONDS,
            Unit::Seconds,
            "Time to sign a token, including a fetch of credentials"
        );
        describe_counter!(REFRESHES_FAILED, "Failed attempts to get a token, by kind");
        describe_counter!(STALE_SERVED, "Tokens used although their refresh was due");
        describe_counter!(
            LOGINS_REFUSED,
            "Logins that the server refused, including second attempts"
        );
        describe_counter!(LOGINS_RETRIED, "Second attempts with a new token");
        describe_counter!(CONNECTIONS_OPENED, "Connections logged in");
        describe_counter!(
            CONNECTIONS_TO_MEMBERS,
            "Those of them that lead to a known member of a cluster"
        );
        describe_histogram!(
            OPENING_SECONDS,
            Unit::Seconds,
            "Time to open a connection, including the token and a second attempt"
        );
        describe_counter!(
            CONNECTS_FAILED,
            "Connections that could not be opened, by kind"
        );
        describe_counter!(
            CONNECTIONS_RETIRED,
            "Working pooled connections that were retired, by reason"
        );
    });
}
