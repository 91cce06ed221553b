//! Starts the parts of an emulator.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::aws::AwsEndpoints;
use crate::builder::Builder;
use crate::certificates::{Authority, Wanted};
use crate::clock::Clock;
use crate::credentials::{Credentials, Keyring};
use crate::emulator::Emulator;
use crate::error::Error;
use crate::faults::Faults;
use crate::language::CurrentLanguage;
use crate::listener::{Listener, Port};
use crate::login::LoginLog;
use crate::policy::Policy;
use crate::postgres::account::Account;
use crate::postgres::admin::{self, Admin};
use crate::postgres::binaries::Binaries;
use crate::postgres::cluster::{self, Cluster};
use crate::server::{Millis, Server};
use crate::sessions::Sessions;
use crate::threads::Threads;
use crate::upstream::Upstream;

/// The access key that is accepted if no other is configured.
const ACCESS_KEY: &str = "AKIAEMULATOREXAMPLE0";

/// Its secret, which is valid for emulators only.
const SECRET_KEY: &str = "rds/iam/emulator/EXAMPLE/secret/key+0123";

/// The role whose members log in with tokens.
const MAKE_RDS_IAM: &str = "\
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_iam') THEN
        CREATE ROLE rds_iam;
    END IF;
END $$";

impl Emulator {
    pub(crate) fn start(builder: Builder) -> Result<Emulator, Error> {
        raise_descriptor_limit();
        let other = builder
            .upstream
            .as_deref()
            .map(Upstream::parse)
            .transpose()?;
        let (folder, cluster) = match other {
            Some(_) => (temporary_folder(Account::Own)?, None),
            None => {
                let account = Account::choose()?;
                let binaries = Binaries::find()?;
                let folder = temporary_folder(account)?;
                let cluster = Cluster::start(
                    folder.path(),
                    builder.engine.hba(),
                    binaries,
                    account,
                    builder.settings,
                    builder.member.as_ref().and_then(|it| it.primary.as_deref()),
                )?;
                (folder, Some(cluster))
            }
        };

        let threads = Threads::start()?;
        let inside = threads.enter();
        let ip = builder.member.as_ref().map(|member| member.address);
        let port = Port::reserve(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), builder.port)?;
        let address = port.address();
        let (host, signed_port) = builder
            .endpoint
            .unwrap_or_else(|| (builder.engine.default_host(&builder.region), address.port()));
        let (authority, other_hosts) = match builder.member {
            Some(member) => (member.authority, member.other_hosts),
            None => (Arc::new(Authority::generate(builder.engine)?), Vec::new()),
        };
        let names = builder.certificate_names.unwrap_or_else(|| {
            let own = [host.as_str(), "localhost", "127.0.0.1", "::1"].map(str::to_owned);
            own.into_iter().chain(other_hosts.clone()).collect()
        });
        let tls = authority.server(&Wanted {
            names: &names,
            expired: builder.expired_certificate,
        })?;
        let ca_pem = authority.ca_pem.clone();
        let ca_path = folder.path().join("ca.pem");
        fs::write(&ca_path, &ca_pem)
            .map_err(|cause| Error::io("the CA's certificate could not be written", cause))?;

        let mut accepted = builder.credentials;
        if accepted.is_empty() {
            accepted.push(Credentials::new(ACCESS_KEY, SECRET_KEY));
        }
        let keyring = Arc::new(Keyring::default());
        let credentials = accepted
            .first()
            .cloned()
            .unwrap_or_else(|| Credentials::new(ACCESS_KEY, SECRET_KEY));
        for credentials in accepted {
            keyring.add(credentials);
        }
        let session_limit = builder
            .session_limit
            .or(builder.engine.session_limit())
            .unwrap_or_default();
        let clock = Arc::new(Clock::default());
        let aws = AwsEndpoints::start(
            Arc::clone(&clock),
            Arc::clone(&keyring),
            builder.region.clone(),
        )?;
        let writer = cluster.as_ref().map(Cluster::writer).unwrap_or_default();
        let admin = match &other {
            Some(other) => other.config().clone(),
            None => admin::config(&writer),
        };
        let server = Arc::new(Server {
            engine: builder.engine,
            region: builder.region,
            host,
            other_hosts,
            signed_port,
            force_ssl: builder.force_ssl,
            authentication_timeout: Millis::new(builder.authentication_timeout),
            token_lifetime: Millis::new(builder.token_lifetime),
            session_limit: Millis::new(session_limit),
            tls: TlsAcceptor::from(tls),
            clock,
            keyring,
            policy: Policy::default(),
            language: CurrentLanguage::default(),
            logins: LoginLog::default(),
            faults: Faults::default(),
            sessions: Sessions::default(),
            admin: Admin::new(admin),
            upstream: cluster::socket(&writer).into(),
            other,
        });
        let listener = Listener::build(Arc::clone(&server), port);
        drop(inside);
        let emulator = Emulator {
            server,
            listener,
            aws,
            address,
            credentials,
            ca_pem,
            ca_path,
            threads,
            cluster,
            _folder: folder,
        };
        // The emulator's own template contains the role already.
        emulator.execute(match emulator.cluster {
            Some(_) => "SELECT",
            None => MAKE_RDS_IAM,
        })?;
        let listener = emulator.listener.clone();
        emulator
            .threads
            .wait(async move { listener.open().await })?;
        Ok(emulator)
    }
}

/// The folder of all files of this emulator. Its name is short, since the path of a socket is limited to about
/// a hundred bytes.
fn temporary_folder(account: Account) -> Result<tempfile::TempDir, Error> {
    let failed = |cause| {
        Error::io(
            "no temporary folder could be made: set TMPDIR to a folder that can be written",
            cause,
        )
    };
    let default = std::env::temp_dir();
    let parent = if default.as_os_str().len() > 60 {
        Path::new("/tmp")
    } else {
        &default
    };
    let folder = tempfile::Builder::new()
        .prefix("rds-iam-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(failed)?;
    account.own(folder.path()).map_err(failed)?;
    Ok(folder)
}

/// Raises the limit of file descriptors for a thousand sessions, which use two thousand; the usual limit is
/// 1,024. It is not raised further, since some programs examine every possible descriptor. If this fails, the
/// emulator starts anyway, with room for fewer sessions.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 65_536;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
