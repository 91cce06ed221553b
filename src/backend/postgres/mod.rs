//! The crate `postgres`'s `Client`, over native-tls.
//!
//! The crate's own time limit of a connect ends with the TCP connection. So TLS is negotiated here, on a stream
//! with a deadline.

mod blocking;
mod connect_error;
mod connection;
mod deadline_stream;
mod ping;
mod role;
mod settings;
mod tls;
mod tuning;

use std::net::SocketAddr;
use std::time::Duration;

use postgres::{Client, NoTls};

pub use self::connection::PostgresConnection;
use self::settings::{Place, Settings};
pub use self::tls::PostgresTls;
pub(crate) use self::tuning::Tuning;
use super::{password, sealed};
use crate::clock::Clock;
use crate::endpoint::ConnectionString;
use crate::error::Error;
use crate::roots::Roots;
use crate::token::Token;

/// All settings of a login but the password.
#[derive(Debug)]
pub struct Connector {
    settings: Settings,
    tuning: Tuning,
    tls: PostgresTls,
}

impl Connector {
    pub(crate) fn tls(&self) -> PostgresTls {
        self.tls.clone()
    }
}

#[expect(private_interfaces, reason = "as at the trait")]
impl sealed::Backend for Client {
    type Connection = PostgresConnection;
    type Error = Error;
    type Connector = Connector;
    type Tuning = Tuning;

    const HAS_OWN_RULES: bool = false;

    fn prepare(
        target: &ConnectionString,
        roots: Option<&Roots>,
        tuning: &Tuning,
    ) -> Result<Connector, Error> {
        Ok(Connector {
            settings: Settings::new(target)?,
            tuning: tuning.clone(),
            tls: PostgresTls::new(target, roots)?,
        })
    }

    fn establish(
        connector: &Connector,
        password: Option<&Token>,
        address: Option<SocketAddr>,
        timeout: Duration,
    ) -> Result<PostgresConnection, Error> {
        let Settings {
            config,
            place,
            role,
        } = &connector.settings;
        let mut config = connector.tuning.apply(config)?;
        if let Some(password) = password {
            let secret = password.expose_secret();
            password::check(secret)?;
            // The crate keeps it in plain memory. The last copy is dropped when the login is done.
            config.password(secret);
            if let Some(user) = password.user() {
                config.user(user);
            }
        }
        config.connect_timeout(timeout);
        let check = |connected: Result<Client, postgres::Error>| {
            let mut client = connected.map_err(connect_error::classify)?;
            role.map_or(Ok(()), |role| role.check(&mut client))?;
            Ok::<_, Error>(client)
        };
        let connected = match (place, address) {
            (Place::Socket(folder), _) => {
                config.host_path(folder);
                blocking::run(|| check(config.connect(NoTls)))?
            }
            (Place::Server(host), address) => {
                config.host(host);
                if let Some(address) = address {
                    config.hostaddr(address.ip()).port(address.port());
                }
                let deadline = Clock::default().now().monotonic + timeout;
                let tls = connector.tls.until(deadline);
                let watch = tls.watch();
                let connected = blocking::run(|| check(config.connect(tls)))?;
                watch.end();
                connected
            }
        };
        let client = connected.map_err(|error| match address {
            // libpq names the address in its own text.
            Some(address) => error.with_note(&format!("at {address}")),
            None => error,
        })?;
        Ok(PostgresConnection::new(client))
    }

    fn ping(connection: &mut PostgresConnection) -> Result<(), Error> {
        ping::ping(connection)
    }

    fn ping_writer(connection: &mut PostgresConnection) -> Result<(), Error> {
        ping::ping_writer(connection)
    }

    fn lines(connection: &mut PostgresConnection, query: &str) -> Result<Vec<String>, Error> {
        ping::lines(connection, query)
    }

    fn is_broken(connection: &mut PostgresConnection) -> bool {
        connection.is_closed()
    }
}
