//! One of the servers that a connection string names, and how to log in there.

use std::sync::Arc;

use super::passwords::Passwords;
use crate::auth::{IamAuth, LoginLimiter, Password};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::dial::{Addresses, Resolver};
use crate::endpoint::ConnectionString;
use crate::error::Error;
use crate::roots::Roots;

pub(super) struct Server<C: Backend> {
    pub(super) connector: C::Connector,
    pub(super) addresses: Addresses,
    /// Servers of a later pass are tried only after all of an earlier one.
    pub(super) pass: u8,
    pub(super) roots: Option<Roots>,
    pub(super) passwords: Passwords,
    /// Shared with all managers that log in with the same settings and the same source of passwords.
    pub(super) limiter: Arc<LoginLimiter>,
}

/// What all servers of one manager have in common.
pub(super) struct Login<C: Backend> {
    pub(super) auth: IamAuth,
    /// The builder's password.
    pub(super) password: Option<Password>,
    pub(super) clock: Clock,
    pub(super) resolver: Resolver,
    pub(super) tuning: C::Tuning,
}

impl<C: Backend> Login<C> {
    /// Returns the server that `target` names.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for settings that cannot work.
    pub(super) fn server(&self, target: &ConnectionString) -> Result<Server<C>, Error> {
        let passwords = Passwords::of(target, &self.auth, self.password.as_ref(), &self.clock)?;
        let roots = roots_for(target)?;
        let limiter = match passwords.source() {
            Some(source) => source.limiter(&login_settings(target)),
            None => Arc::default(),
        };
        let addresses = match follows_libpq::<C>(target) {
            true => Addresses::OfDriver,
            false => Addresses::new(target, self.resolver.clone())?,
        };
        Ok(Server {
            connector: C::prepare(target, roots.as_ref(), &self.tuning)?,
            addresses,
            pass: target.pass(),
            roots,
            passwords,
            limiter,
        })
    }
}

/// The servers that `target` names. A driver that chooses among them itself gets all of them in one string.
pub(super) fn servers_of<C: Backend>(
    target: &ConnectionString,
) -> Result<Vec<ConnectionString>, Error> {
    match follows_libpq::<C>(target) {
        true => Ok(vec![target.clone()]),
        false => target.servers(),
    }
}

fn follows_libpq<C: Backend>(target: &ConnectionString) -> bool {
    C::HAS_OWN_RULES && !target.login().is_guarded()
}

/// The parameters that cannot change the server's answer to a login.
const NO_LOGIN_SETTINGS: &[&str] = &[
    "application_name",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
];

/// What the server's answer to a login can depend on: with other settings, a login may be accepted.
fn login_settings(target: &ConnectionString) -> String {
    let mut settings: Vec<_> = target
        .parameters()
        .filter(|(keyword, _)| !NO_LOGIN_SETTINGS.contains(keyword))
        .map(|(keyword, value)| format!("{keyword}={value:?}"))
        .collect();
    settings.sort();
    settings.join("\n")
}

/// The root certificates that the server's certificate must chain to. `None` leaves that to the TLS library,
/// for `sslmode=require` and logins without IAM.
fn roots_for(target: &ConnectionString) -> Result<Option<Roots>, Error> {
    let verifies = target.sslmode()?.is_some_and(|mode| mode.verifies());
    match target.sslrootcert() {
        Some(given) => Roots::given(given).map(Some),
        None if verifies && target.has_tls_defaults() => {
            Roots::carried(&target.server()?).map(Some)
        }
        None => Ok(None),
    }
}
