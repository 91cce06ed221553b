//! Finds PostgreSQL's programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, ErrorKind};

/// The folder that contains `postgres` and `initdb`. It takes precedence over all other places.
const VARIABLE: &str = "RDS_IAM_EMULATOR_PG_BIN";

/// Folders of installations that are not on the PATH; `*` stands for a version.
const PLACES: [&str; 7] = [
    "/usr/lib/postgresql/*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql*/bin",
];

/// PostgreSQL's programs.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    folder: PathBuf,
    /// As the server prints it: `postgres (PostgreSQL) 15.18`.
    pub(crate) version: String,
}

impl Binaries {
    pub(crate) fn find() -> Result<Binaries, Error> {
        if let Some(folder) = env::var_os(VARIABLE) {
            return Binaries::in_folder(Path::new(&folder)).ok_or_else(|| {
                Error::new(
                    ErrorKind::PostgresNotFound,
                    format!(
                        "{VARIABLE} is {folder:?}, which has no initdb and postgres that run: set \
                         it to the folder that `pg_config --bindir` prints, or unset it"
                    ),
                )
            });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(told_by_pg_config())
            .chain(PLACES.iter().flat_map(|place| newest_first(place)))
            .find_map(|folder| Binaries::in_folder(&folder))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::PostgresNotFound,
                    format!(
                        "PostgreSQL was not found: install it (Debian, Ubuntu: `apt-get install \
                         postgresql`; macOS: `brew install postgresql`), or set {VARIABLE} to the \
                         folder that holds its initdb and postgres"
                    ),
                )
            })
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    fn in_folder(folder: &Path) -> Option<Binaries> {
        if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(Binaries {
            folder: folder.to_owned(),
            version: String::from_utf8(output.stdout).ok()?.trim().to_owned(),
        })
    }
}

fn told_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(folder.trim()))
}

/// The folders that match a pattern with one `*`, the highest version first.
fn newest_first(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return Vec::new();
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let version: String = name
                .strip_prefix(prefix)?
                .chars()
                .skip_while(|character| !character.is_ascii_digit())
                .take_while(char::is_ascii_digit)
                .collect();
            let folder = format!("{parent}/{name}{after}");
            Some((version.parse().unwrap_or(0), PathBuf::from(folder)))
        })
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, folder)| folder).collect()
}
