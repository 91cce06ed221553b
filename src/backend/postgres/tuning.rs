//! The application's changes to the `postgres::Config` of a login.

use std::fmt;
use std::sync::Arc;

use postgres::Config;

use crate::error::Error;

/// The closure of [`ManagerBuilder::tune_config`](crate::ManagerBuilder::tune_config); none by default.
#[derive(Clone, Default)]
pub struct Tuning(Option<Arc<Tune>>);

type Tune = dyn Fn(&mut Config) + Send + Sync;

impl Tuning {
    pub(crate) fn new(tune: impl Fn(&mut Config) + Send + Sync + 'static) -> Tuning {
        Tuning(Some(Arc::new(tune)))
    }

    /// Returns the settings of a login with the application's changes. User and TLS stay as they are.
    ///
    /// # Errors
    ///
    /// If the application adds a server or a password, which no method of `Config` removes.
    pub(super) fn apply(&self, settings: &Config) -> Result<Config, Error> {
        let mut config = settings.clone();
        let Some(tune) = &self.0 else {
            return Ok(config);
        };
        tune(&mut config);
        let has_server = !config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty();
        if has_server
            || config.get_ports() != settings.get_ports()
            || config.get_password().is_some()
        {
            return Err(Error::configuration(
                "the closure of tune_config sets a host, an address, a port or a password; leave them out there, and \
                 set them in the connection string and on the builder",
            ));
        }
        // A token must not be sent without TLS, nor as another user than the one that it is signed for.
        config.ssl_mode(settings.get_ssl_mode());
        config.ssl_negotiation(settings.get_ssl_negotiation());
        if let Some(user) = settings.get_user() {
            config.user(user);
        }
        Ok(config)
    }
}

impl fmt::Debug for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tuning").field(&self.0.is_some()).finish()
    }
}
