//! The crate `postgres`'s `Client`, over native-tls.
//!
//! Its own limit of a connect ends with the TCP connection, and it tries the next address also where
//! the one before refused the login. So TLS is negotiated here, on a line that knows when to give up,
//! and addresses are tried here one by one.

mod blocking;
mod judge;
mod line;
mod settings;
mod tls;

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::{Client, Config, NoTls, SimpleQueryMessage};

use self::settings::{Place, Settings};
pub use self::tls::PostgresTls;
use super::{password, sealed, verdict};
use crate::clock::Clock;
use crate::endpoint::ConnectionString;
use crate::error::{Error, ErrorKind};
use crate::roots::Roots;

/// How long an open connection may take to show that it lives.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// Everything about a login but its password.
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
    ) -> Result<Client, Error> {
        let Settings {
            config,
            place,
            connect_timeout,
        } = &connector.settings;
        let mut config = config.clone();
        if let Some(password) = password {
            password::check(password)?;
            // Kept in plain memory, of which the last copy goes when the login is over.
            config.password(password);
        }
        let timeout = connect_timeout.map_or(timeout, |wanted| wanted.min(timeout));
        let (host, port, addresses) = match place {
            Place::Socket(folder) => {
                config.host_path(folder).connect_timeout(timeout);
                let connect = || config.connect(NoTls);
                return blocking::run(connect)?.map_err(judge::judge);
            }
            Place::Server {
                host,
                port,
                dialled,
            } => (host, *port, resolve(dialled, *port)?),
        };
        let clock = Clock::default();
        let deadline = clock.now().monotonic + timeout;
        let mut failure = verdict::NETWORK.error("the host has no address");
        for (at, address) in addresses.iter().enumerate() {
            // What comes after the TCP connection may take all of it.
            let left = deadline.saturating_duration_since(clock.now().monotonic);
            let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            let mut config = config.clone();
            config.host(host).hostaddr(*address).port(port);
            match dial(config.connect_timeout(share), connector.tls.until(deadline)) {
                Err(error) if error.kind() == ErrorKind::Network => failure = error,
                done => return done,
            }
        }
        Err(failure)
    }

    fn ping(&mut self) -> Result<(), Error> {
        checked(blocking::run(|| self.is_valid(PING_LIMIT)))
    }

    fn ping_writer(&mut self) -> Result<(), Error> {
        let asked = blocking::run(|| self.simple_query("SHOW transaction_read_only"));
        let is_off = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
            _ => false,
        };
        match asked {
            Ok(Ok(messages)) if !messages.iter().any(is_off) => Err(verdict::read_only()),
            asked => checked(asked.map(|answer| answer.map(drop))),
        }
    }

    fn is_broken(&mut self) -> bool {
        self.is_closed()
    }
}

/// Connects to the one address in `config`.
fn dial(config: &Config, tls: PostgresTls) -> Result<Client, Error> {
    let watch = tls.watch();
    let client = blocking::run(|| config.connect(tls))?;
    watch.end();
    client.map_err(judge::judge)
}

fn resolve(name: &str, port: u16) -> Result<Vec<IpAddr>, Error> {
    let addresses = (name, port)
        .to_socket_addrs()
        .map_err(|cause| verdict::NETWORK.error(cause))?;
    Ok(addresses.map(|address| address.ip()).collect())
}

/// What is said of a connection that was tried, or could not be.
fn checked(tried: Result<Result<(), postgres::Error>, Error>) -> Result<(), Error> {
    static SAID: AtomicBool = AtomicBool::new(false);
    match tried {
        Ok(outcome) => outcome.map_err(|error| {
            let message = "the connection does not answer; it is replaced";
            Error::with_cause(ErrorKind::Network, message, error)
        }),
        Err(error) => {
            if !SAID.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "a connection was taken from a pool in asynchronous code");
            }
            // To fail would have the pool open another, over and over.
            Ok(())
        }
    }
}
