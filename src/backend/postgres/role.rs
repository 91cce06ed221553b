//! The values of `target_session_attrs` that the crate `postgres` does not have.

use postgres::{Client, SimpleQueryMessage};

use super::connect_error;
use crate::backend::classify;
use crate::endpoint::ConnectionString;
use crate::error::Error;

/// The role of a server in replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Standby,
}

impl Role {
    /// Returns the role that `target` requires. `None` if it requires none.
    pub(super) fn required_by(target: &ConnectionString) -> Option<Role> {
        match target.get("target_session_attrs") {
            Some("primary") => Some(Role::Primary),
            Some("standby") => Some(Role::Standby),
            _ => None,
        }
    }

    /// Fails if the server has the other role. One round trip, as with libpq before version 14.
    pub(super) fn check(self, client: &mut Client) -> Result<(), Error> {
        let messages = client.simple_query("SELECT pg_catalog.pg_is_in_recovery()");
        let is_standby = messages.map_err(connect_error::classify)?.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")),
        );
        match (self, is_standby) {
            (Role::Primary, false) | (Role::Standby, true) => Ok(()),
            // In libpq's words.
            (Role::Primary, true) => {
                Err(classify::NOT_WANTED.error("server is in hot standby mode"))
            }
            (Role::Standby, false) => {
                Err(classify::NOT_WANTED.error("server is not in hot standby mode"))
            }
        }
    }
}
