//! The application's migrations, and the plan of what to run.

use std::collections::BTreeMap;

use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;

use super::history::History;
use super::{Direction, Status, Step};
use crate::error::{Error, ErrorKind};

/// The migrations by version, which is the order in which they run.
pub(super) struct Migrations(BTreeMap<String, Box<dyn Migration<Pg>>>);

/// A migration, and whether to apply or to revert it.
pub(super) struct Planned<'a> {
    pub(super) migration: &'a dyn Migration<Pg>,
    pub(super) step: Step,
}

impl Migrations {
    pub(super) fn read(source: &impl MigrationSource<Pg>) -> Result<Migrations, Error> {
        let given = source.migrations().map_err(|cause| {
            Error::with_cause(
                ErrorKind::Configuration,
                "the migrations cannot be read; each is a folder VERSION_NAME with an up.sql",
                cause,
            )
        })?;
        let mut migrations = BTreeMap::new();
        for migration in given {
            let version = migration.name().version().to_string();
            let name = migration.name().to_string();
            if let Some(other) = migrations.insert(version, migration) {
                return Err(Error::configuration(format!(
                    "the migrations {} and {name} have the same version; rename one of them",
                    other.name()
                )));
            }
        }
        Ok(Migrations(migrations))
    }

    pub(super) fn pending(&self, history: &History) -> Vec<Planned<'_>> {
        let pending = self
            .0
            .iter()
            .filter(|(version, _)| !history.contains_key(*version));
        pending
            .map(|(version, migration)| Planned::new(version, migration, Direction::Up))
            .collect()
    }

    /// Returns the plan to revert the last `number` applied migrations.
    pub(super) fn last(&self, history: &History, number: usize) -> Result<Vec<Planned<'_>>, Error> {
        let versions = history.keys().rev().take(number);
        versions
            .map(|version| match self.0.get(version) {
                Some(migration) => Ok(Planned::new(version, migration, Direction::Down)),
                None => Err(Error::new(
                    ErrorKind::Migration,
                    format!(
                        "migration {version} is applied and not among those given, so it cannot be \
                         reverted; use the migrations of the release that has applied it"
                    ),
                )),
            })
            .collect()
    }

    pub(super) fn list(&self, history: &History) -> Vec<Status> {
        let mut all = BTreeMap::new();
        for (version, migration) in &self.0 {
            all.insert(version, (Some(migration.name().to_string()), None));
        }
        for (version, applied_at) in history {
            all.entry(version).or_default().1 = Some(*applied_at);
        }
        all.into_iter()
            .map(|(version, (name, applied_at))| Status {
                version: version.clone(),
                name,
                applied_at,
            })
            .collect()
    }
}

impl<'a> Planned<'a> {
    fn new(version: &str, migration: &'a dyn Migration<Pg>, direction: Direction) -> Planned<'a> {
        Planned {
            migration,
            step: Step {
                version: version.to_owned(),
                name: migration.name().to_string(),
                direction,
            },
        }
    }

    /// Returns the plan to apply the same migration.
    pub(super) fn up(&self) -> Planned<'a> {
        Planned::new(&self.step.version, self.migration, Direction::Up)
    }

    pub(super) fn is_in_transaction(&self) -> bool {
        self.migration.metadata().run_in_transaction()
    }
}
