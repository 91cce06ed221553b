//! A cluster that is created once per machine, account and PostgreSQL version, and copied for each emulator.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::error::{Error, ErrorKind};
use crate::postgres::account::Account;
use crate::postgres::binaries::Binaries;
use crate::sigv4;

/// The superuser that owns the cluster, named as on RDS, where customers cannot use it either.
pub(crate) const SUPERUSER: &str = "rdsadmin";

/// The options of `initdb`. WAL segments are small, because the first one would otherwise be nearly half of
/// what is copied.
const INITDB: [&str; 6] = [
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--wal-segsize=4",
    "--no-sync",
    "--no-instructions",
];

/// The `pg_hba.conf`. The emulator has verified members of `rds_iam` before it opens a connection for them, and
/// admits no client as the superuser. PostgreSQL itself asks all other users for a password (`md5` means SCRAM
/// if the password is stored that way).
const HBA: &str = "\
local all rdsadmin trust
local replication rdsadmin trust
local all +rds_iam trust
local all all md5
";

/// The same for a service whose users all log in with a token.
pub(crate) const HBA_WITHOUT_PASSWORDS: &str = "\
local all all trust
local replication rdsadmin trust
";

/// A database that becomes the first user's own by being renamed. To create one takes as long as a tenth of a
/// start.
pub(crate) const SPARE_DATABASE: &str = "rds_iam_emulator_spare";

/// The roles that exist in every new RDS database, and [`SPARE_DATABASE`].
const CONTENT: &str = "\
CREATE ROLE rds_superuser;
CREATE ROLE rds_iam;
CREATE ROLE rds_replication;
CREATE DATABASE rds_iam_emulator_spare;
";

/// The folder of the database `template0` since PostgreSQL 15.
const TEMPLATE0: &str = "base/4";

/// Copies the template to `target`, which must not exist. Creates the template first if there is none.
pub(crate) fn copy_to(target: &Path, binaries: &Binaries, account: Account) -> Result<(), Error> {
    let failed = |cause| Error::io("the cluster could not be copied from its template", cause);
    match cache_folder() {
        Some(cache) => {
            let template = ready(&cache, binaries, account)?;
            copy(&template, target, account).map_err(failed)
        }
        // The folder belongs to another user, so no template is kept.
        None => make(target, binaries, account),
    }
}

/// The folder of the templates, if this user owns it.
fn cache_folder() -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("rds-iam-emulator-{uid}"));
    // The account of PostgreSQL must be able to pass through, and other users must not read or write.
    let _ = fs::DirBuilder::new().mode(0o711).create(&folder);
    let metadata = fs::symlink_metadata(&folder).ok()?;
    let ours = metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o022 == 0;
    ours.then_some(folder)
}

/// Returns the template in `cache`. The first process that needs it creates it.
fn ready(cache: &Path, binaries: &Binaries, account: Account) -> Result<PathBuf, Error> {
    let failed = |cause| {
        Error::io(
            format!("the template cluster in {cache:?} could not be made"),
            cause,
        )
    };
    // The name contains everything that the template is made from, so that a change creates another one.
    let contents = format!(
        "{}\n{account:?}\n{INITDB:?}\n{HBA}{CONTENT}{TEMPLATE0}",
        binaries.version
    );
    let name: String = sigv4::hash(contents.as_bytes()).chars().take(16).collect();
    let template = cache.join(&name);
    if template.is_dir() {
        return Ok(template);
    }
    let lock = File::create(cache.join(format!("{name}.lock"))).map_err(failed)?;
    lock.lock().map_err(failed)?;
    if template.is_dir() {
        return Ok(template);
    }
    // Created under another name and then renamed, so that an incomplete one is never copied.
    let making = cache.join(format!("{name}.new"));
    match fs::remove_dir_all(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    make(&making, binaries, account)?;
    share_template0(&making, &cache.join(format!("{name}.template0"))).map_err(failed)?;
    fs::rename(&making, &template).map_err(failed)?;
    Ok(template)
}

/// Moves the files of `template0` to `shared`, and leaves a link to them. No session can connect to that database,
/// so nothing writes to it, and all clusters can share it. It is a quarter of what would be copied.
fn share_template0(cluster: &Path, shared: &Path) -> io::Result<()> {
    let own = cluster.join(TEMPLATE0);
    // An earlier version of PostgreSQL has it elsewhere.
    if !own.is_dir() {
        return Ok(());
    }
    match fs::remove_dir_all(shared) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&own, shared)?;
    symlink(shared, own)
}

/// Creates a cluster in `target`.
fn make(target: &Path, binaries: &Binaries, account: Account) -> Result<(), Error> {
    let failed = |cause| Error::io(format!("no cluster could be made in {target:?}"), cause);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(target)
        .map_err(failed)?;
    account.own(target).map_err(failed)?;
    let mut initdb = account.command(binaries.initdb());
    initdb
        .args(["--username", SUPERUSER])
        .args(INITDB)
        .arg("--pgdata")
        .arg(target);
    run(&mut initdb, "", "initdb")?;

    let hba = target.join("pg_hba.conf");
    fs::write(&hba, HBA).map_err(failed)?;
    let mut single = account.command(binaries.postgres());
    single
        .args(["--single", "-F", "-D"])
        .arg(target)
        .arg("postgres");
    run(&mut single, CONTENT, "postgres --single")
}

fn run(command: &mut std::process::Command, input: &str, name: &str) -> Result<(), Error> {
    let failed = |cause: String| {
        Error::with_cause(
            ErrorKind::Postgres,
            format!("PostgreSQL's {name} failed"),
            cause,
        )
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the program has ended, its standard error says more than a broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if output.status.success() && !messages.contains("ERROR:") {
        return Ok(());
    }
    Err(failed(format!("{}: {}", output.status, messages.trim())))
}

/// Copies a folder and its content. Links stay links.
pub(crate) fn copy(source: &Path, target: &Path, account: Account) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    if metadata.is_symlink() {
        return symlink(fs::read_link(source)?, target);
    }
    if metadata.is_dir() {
        fs::create_dir(target)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy(&entry.path(), &target.join(entry.file_name()), account)?;
        }
        fs::set_permissions(target, fs::Permissions::from_mode(metadata.mode() & 0o777))?;
    } else {
        fs::copy(source, target)?;
    }
    account.own(target)
}
