//! diesel's `PgConnection`, over libpq. Only this folder writes connection strings.
//!
//! The password is never part of the string, since diesel shows it to every instrumentation. libpq reads the
//! password from a file instead: a memory file if possible, created for one login and removed after it.

mod conninfo;
pub(super) mod libpq;
mod passfile;
mod shutdown;

use std::net::SocketAddr;
use std::time::Duration;

use diesel::r2d2::R2D2Connection;
use diesel::sql_types::Text;
use diesel::{Connection, ConnectionError, PgConnection, QueryableByName, RunQueryDsl};

use self::conninfo::{Conninfo, NO_FILE};
use super::{classify, sealed};
use crate::endpoint::ConnectionString;
use crate::error::{Error, ErrorKind};
use crate::private_file::PrivateFile;
use crate::roots::Roots;
use crate::token::Token;

/// libpq's minimum for `connect_timeout`, in seconds.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(2);

/// libpq reads `connect_timeout` into an `int`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(i32::MAX as u64 - 1);

/// A libpq connection string without the password, and the file of root certificates that it names.
#[derive(Debug)]
pub struct Connector {
    conninfo: Conninfo,
    _roots: Option<PrivateFile>,
}

diesel::define_sql_function! {
    #[sql_name = "pg_catalog.current_setting"]
    fn current_setting(name: Text) -> Text;
}

/// A row of one column of text.
#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

#[expect(private_interfaces, reason = "as at the trait")]
impl sealed::Backend for PgConnection {
    type Connection = PgConnection;
    type Error = diesel::r2d2::Error;
    type Connector = Connector;
    type Tuning = ();

    const HAS_OWN_RULES: bool = true;

    fn prepare(
        target: &ConnectionString,
        roots: Option<&Roots>,
        _tuning: &(),
    ) -> Result<Connector, Error> {
        // libpq would initialize OpenSSL with an exit handler that frees memory which a pool's threads may be
        // using when `main` returns. Such programs crashed. The first initialization wins, so it is done here.
        // If another library was first, `exit` at least waits for connects.
        openssl::init();

        let mut conninfo = Conninfo::new(target)?;
        let mut roots_file = None;
        match roots {
            Some(Roots::Carried(pem)) => {
                let file = PrivateFile::new(pem.as_bytes()).map_err(cannot_hand_over)?;
                conninfo.push("sslrootcert", file.path());
                roots_file = Some(file);
            }
            Some(Roots::File(path)) => conninfo.push("sslrootcert", path),
            Some(Roots::System) => conninfo.push("sslrootcert", "system"),
            // With `require`, libpq would verify the certificate if it found roots in any place, which was not
            // configured.
            None if target.login().is_guarded() => conninfo.push("sslrootcert", NO_FILE),
            None => {}
        }
        Ok(Connector {
            conninfo,
            _roots: roots_file,
        })
    }

    fn establish(
        connector: &Connector,
        password: Option<&Token>,
        address: Option<SocketAddr>,
        timeout: Duration,
    ) -> Result<PgConnection, Error> {
        let mut conninfo = connector.conninfo.clone();
        // Rounded, since a part of the time has passed already.
        let timeout = timeout.clamp(SHORTEST_TIMEOUT, LONGEST_TIMEOUT);
        let seconds = timeout.saturating_add(Duration::from_millis(500)).as_secs();
        conninfo.push("connect_timeout", &seconds.to_string());
        if let Some(address) = address {
            conninfo.push("hostaddr", &host_address(address));
            conninfo.push("port", &address.port().to_string());
        }
        let passfile = match password {
            Some(password) => Some(
                PrivateFile::new(passfile::line(password.expose_secret())?.as_bytes())
                    .map_err(cannot_hand_over)?,
            ),
            None => None,
        };
        if let Some(user) = password.and_then(Token::user) {
            // Of two values libpq takes the last.
            conninfo.push("user", user);
        }
        if let Some(file) = &passfile {
            conninfo.push("passfile", file.path());
            // Otherwise PGPASSWORD would be used.
            conninfo.push("password", "");
        }
        let _under_way = shutdown::ConnectGuard::begin()?;
        <PgConnection as Connection>::establish(conninfo.as_str()).map_err(|error| match error {
            ConnectionError::BadConnection(text) => libpq::classify(&text),
            error => Error::with_cause(
                ErrorKind::Configuration,
                "libpq does not accept the connection's settings; correct the connection string",
                error,
            ),
        })
    }

    fn ping(connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        Ok(R2D2Connection::ping(connection)?)
    }

    fn ping_writer(connection: &mut PgConnection) -> Result<(), diesel::r2d2::Error> {
        // The setting that libpq queries for `target_session_attrs=read-write`. It is on for a standby, and
        // with `default_transaction_read_only`.
        let query = diesel::select(current_setting("transaction_read_only"));
        match query.get_result::<String>(connection)?.as_str() {
            "off" => Ok(()),
            _ => Err(classify::read_only().into()),
        }
    }

    fn lines(
        connection: &mut PgConnection,
        query: &str,
    ) -> Result<Vec<String>, diesel::r2d2::Error> {
        let lines: Vec<Line> = diesel::sql_query(query).load(connection)?;
        Ok(lines.into_iter().map(|it| it.line).collect())
    }

    fn is_broken(connection: &mut PgConnection) -> bool {
        R2D2Connection::is_broken(connection)
    }
}

impl From<Error> for diesel::r2d2::Error {
    fn from(error: Error) -> diesel::r2d2::Error {
        ConnectionError::BadConnection(error.to_string()).into()
    }
}

/// Writes an address for libpq, with the zone of a link-local one.
fn host_address(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(address) if address.scope_id() != 0 => {
            format!("{}%{}", address.ip(), address.scope_id())
        }
        address => address.ip().to_string(),
    }
}

fn cannot_hand_over(cause: std::io::Error) -> Error {
    Error::with_cause(
        ErrorKind::Internal,
        "cannot make a file for libpq to read; raise the limit of open files, or set TMPDIR to a \
         folder that can be written",
        cause,
    )
}
