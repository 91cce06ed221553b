//! The crate `postgres`'s `Client`, over native-tls.
//!
//! The crate's own time limit of a connect ends with the TCP connection, and it tries the next address even
//! after a refused login. So TLS is negotiated here, on a stream with a deadline, and addresses are tried here
//! one by one.

mod blocking;
mod connect_error;
mod connection;
mod deadline_stream;
mod ping;
mod settings;
mod tls;

use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use postgres::{Client, Config, NoTls};

pub use self::connection::PostgresConnection;
use self::settings::{Place, Settings};
pub use self::tls::PostgresTls;
use super::{classify, password, sealed};
use crate::clock::Clock;
use crate::endpoint::ConnectionString;
use crate::error::{Error, ErrorKind};
use crate::roots::Roots;

/// All settings of a login but the password.
#[derive(Debug)]
pub struct Connector {
    settings: Settings,
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

    fn prepare(target: &ConnectionString, roots: Option<&Roots>) -> Result<Connector, Error> {
        Ok(Connector {
            settings: Settings::new(target)?,
            tls: PostgresTls::new(target, roots)?,
        })
    }

    fn establish(
        connector: &Connector,
        password: Option<&str>,
        timeout: Duration,
    ) -> Result<PostgresConnection, Error> {
        let Settings {
            config,
            place,
            connect_timeout,
        } = &connector.settings;
        let mut config = config.clone();
        if let Some(password) = password {
            password::check(password)?;
            // The crate keeps it in plain memory. The last copy is dropped when the login is done.
            config.password(password);
        }
        let timeout = connect_timeout.map_or(timeout, |wanted| wanted.min(timeout));
        let (host, port, addresses) = match place {
            Place::Socket(folder) => {
                config.host_path(folder).connect_timeout(timeout);
                let connect = || config.connect(NoTls);
                let client = blocking::run(connect)?.map_err(connect_error::classify)?;
                return Ok(PostgresConnection::new(client));
            }
            Place::Server {
                host,
                port,
                dialled,
            } => (host, *port, resolve(dialled, *port)?),
        };
        let clock = Clock::default();
        let deadline = clock.now().monotonic + timeout;
        let mut failure = classify::NETWORK.error("the host has no address");
        for (at, address) in addresses.iter().enumerate() {
            // The steps after the TCP connection may take all of it.
            let left = deadline.saturating_duration_since(clock.now().monotonic);
            let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            let mut config = config.clone();
            config.host(host).hostaddr(*address).port(port);
            match dial(config.connect_timeout(share), connector.tls.until(deadline)) {
                Err(error) if error.kind() == ErrorKind::Network => failure = error,
                done => return done.map(PostgresConnection::new),
            }
        }
        Err(failure)
    }

    fn ping(connection: &mut PostgresConnection) -> Result<(), Error> {
        ping::ping(connection)
    }

    fn ping_writer(connection: &mut PostgresConnection) -> Result<(), Error> {
        ping::ping_writer(connection)
    }

    fn is_broken(connection: &mut PostgresConnection) -> bool {
        connection.is_closed()
    }
}

/// Connects to the one address in `config`.
fn dial(config: &Config, tls: PostgresTls) -> Result<Client, Error> {
    let watch = tls.watch();
    let client = blocking::run(|| config.connect(tls))?;
    watch.end();
    client.map_err(connect_error::classify)
}

fn resolve(name: &str, port: u16) -> Result<Vec<IpAddr>, Error> {
    let addresses = (name, port)
        .to_socket_addrs()
        .map_err(|cause| classify::NETWORK.error(cause))?;
    Ok(addresses.map(|address| address.ip()).collect())
}
