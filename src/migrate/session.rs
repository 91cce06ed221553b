//! The connection that migrations run on.

use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::result::QueryResult;
use diesel_migrations::MigrationHarness;

use super::history::{self, History};
use super::lock;
use super::options::{Direction, Options, Progress, Step};
use super::source::Planned;
use super::statement::{failed, is_lost};
use crate::PgConnectionManager;
use crate::clock::Clock;
use crate::endpoint::Engine;
use crate::error::{Error, ErrorKind};

/// A session outside any pool. It ends when this is dropped, which releases its locks and its settings.
pub(super) struct Session<'a> {
    connection: PgConnection,
    clock: Clock,
    options: Options<'a>,
    is_dsql: bool,
}

/// The step at which a plan failed.
struct Failure {
    step: Step,
    is_in_transaction: bool,
    /// The number of steps that were done before.
    done: usize,
    cause: Box<dyn std::error::Error + Send + Sync>,
}

impl<'a> Session<'a> {
    pub(super) fn open(
        manager: &PgConnectionManager,
        options: Options<'a>,
    ) -> Result<Session<'a>, Error> {
        let engine = manager.endpoint().map(|endpoint| endpoint.engine());
        Ok(Session {
            connection: manager.try_connect()?,
            clock: manager.clock().clone(),
            options,
            is_dsql: engine == Some(Engine::Dsql),
        })
    }

    pub(super) fn history(&mut self) -> Result<History, Error> {
        history::read(&mut self.connection).map_err(|cause| {
            failed(
                &mut self.connection,
                "cannot read the table __diesel_schema_migrations; grant the user SELECT on it",
                cause,
            )
        })
    }

    pub(super) fn create_history(&mut self) -> Result<(), Error> {
        history::create(&mut self.connection).map_err(|cause| {
            failed(
                &mut self.connection,
                "cannot create the table __diesel_schema_migrations; grant the user CREATE on its \
                 schema",
                cause,
            )
        })
    }

    /// Does `work` while this process holds the lock. Without a lock on Aurora DSQL, which has none.
    pub(super) fn locked<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.is_dsql {
            return work(self);
        }
        lock::acquire(&mut self.connection, &self.clock, &mut self.options)?;
        let result = work(self);
        lock::release(&mut self.connection, self.options.lock_key);
        result
    }

    /// Runs the steps one by one. Those before a failed one stay done.
    pub(super) fn perform(&mut self, plan: &[Planned<'_>]) -> Result<Vec<Step>, Error> {
        self.go_through(plan).map_err(|failure| {
            let kept = match failure.done {
                0 => String::new(),
                done => format!("; done before it and kept: {done}"),
            };
            let fate = if failure.is_in_transaction {
                " and was rolled back"
            } else {
                " and ran outside a transaction, so a part of it may have been done"
            };
            self.explain(failure, &format!("{fate}{kept}"))
        })
    }

    /// Runs all steps in one transaction, if each of them can run in one.
    pub(super) fn perform_as_one(&mut self, plan: &[Planned<'_>]) -> Result<Vec<Step>, Error> {
        if self.is_dsql || !plan.iter().all(Planned::is_in_transaction) {
            return self.perform(plan);
        }
        AnsiTransactionManager::begin_transaction(&mut self.connection)
            .map_err(|cause| failed(&mut self.connection, "cannot begin a transaction", cause))?;
        match self.go_through(plan) {
            Ok(done) => {
                AnsiTransactionManager::commit_transaction(&mut self.connection).map_err(
                    |cause| {
                        failed(
                            &mut self.connection,
                            "everything was rolled back at its commit",
                            cause,
                        )
                    },
                )?;
                Ok(done)
            }
            Err(failure) => {
                // If this fails, the session has ended, and the server rolls back.
                let _ = AnsiTransactionManager::rollback_transaction(&mut self.connection);
                Err(self.explain(failure, ", and everything was rolled back"))
            }
        }
    }

    fn go_through(&mut self, plan: &[Planned<'_>]) -> Result<Vec<Step>, Failure> {
        let steps = plan.len();
        if steps > 0 {
            (self.options.on_progress)(Progress::Planned { steps });
        }
        let mut done = Vec::new();
        for planned in plan {
            let step = &planned.step;
            (self.options.on_progress)(Progress::Started { step });
            let started = self.clock.now();
            if let Err(cause) = self.take(planned) {
                return Err(Failure {
                    step: step.clone(),
                    is_in_transaction: planned.is_in_transaction(),
                    done: done.len(),
                    cause,
                });
            }
            let now = self.clock.now();
            let took = now.monotonic.saturating_duration_since(started.monotonic);
            tracing::info!(
                migration = step.name,
                ?took,
                "migration {}",
                step.direction.done()
            );
            (self.options.on_progress)(Progress::Finished { step, took });
            done.push(step.clone());
        }
        Ok(done)
    }

    fn take(&mut self, planned: &Planned<'_>) -> diesel::migration::Result<()> {
        // Before each step, because a migration may set its own for the rest of the session.
        self.limit("lock_timeout", self.options.lock_timeout)?;
        self.limit("statement_timeout", self.options.statement_timeout)?;
        match planned.step.direction {
            Direction::Up => self.connection.run_migration(planned.migration),
            Direction::Down => self.connection.revert_migration(planned.migration),
        }
        .map(drop)
    }

    fn limit(&mut self, setting: &str, limit: Option<Duration>) -> QueryResult<()> {
        let Some(limit) = limit else { return Ok(()) };
        // Rounded up, since 0 means no limit to PostgreSQL.
        let milliseconds = limit.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
        self.connection
            .batch_execute(&format!("SET {setting} = {milliseconds}"))
    }

    fn explain(&mut self, failure: Failure, fate: &str) -> Error {
        let Failure { step, cause, .. } = failure;
        let text = cause.to_string();
        // diesel puts the name of the migration before the server's message; ours has it already.
        let cause = text
            .strip_prefix(&format!("Failed to run {step} with: "))
            .unwrap_or(&text);
        let what = step.direction.done();
        if is_lost(&mut self.connection) {
            let message = format!("the connection broke before migration {step} was {what}");
            return Error::with_cause(ErrorKind::Network, message, cause);
        }
        let message = format!("migration {step} could not be {what}{fate}");
        Error::with_cause(ErrorKind::Migration, message, cause)
    }
}
