//! `diesel_rds_iam::migrate`, and diesel's `MigrationHarness` on a pooled connection.

mod lock;

use std::fs;
use std::time::{Duration, SystemTime};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_migrations::{FileBasedMigrations, MigrationHarness};
use diesel_rds_iam::migrate::{self, Direction, Options, Progress, Status, Step};
use diesel_rds_iam::{ErrorKind, PgConnectionManager};
use rds_iam_emulator::Emulator;
use tempfile::TempDir;

use crate::support::PATIENCE;
use crate::support::database::{auth_builder, emulator, shared_emulator};

#[test]
fn a_failure_names_its_migration_and_a_later_run_applies_the_rest() {
    let database = Database::new("failure");
    let folder = Folder::new(&[
        ("1_good", "CREATE TABLE good ()", "DROP TABLE good"),
        ("2_bad", "CREATE TABLE half (); SELECT 1 / 0", ""),
        ("3_after", "CREATE TABLE after_it ()", ""),
    ]);
    let mut other = superuser_of(shared_emulator(), &database.name);
    let options = || Options::new().lock_wait(Duration::ZERO);
    let error = migrate::run_pending(&database.manager, folder.source(), options()).unwrap_err();
    // The lock is free at once, although the session that held it may not have ended yet.
    let key = migrate::DEFAULT_LOCK_KEY;
    for function in ["pg_try_advisory_lock", "pg_advisory_unlock"] {
        assert_eq!(
            text(
                &mut other,
                &format!("SELECT {function}({key})::text AS text")
            ),
            "true"
        );
    }
    assert_eq!(error.kind(), ErrorKind::Migration);
    assert_eq!(
        error.to_string(),
        "migration 2_bad could not be applied and was rolled back; done before it and kept: \
         1: division by zero"
    );
    assert_eq!(database.tables(), ["good"]);

    // The migration also leaves a transaction open that it has begun itself.
    folder.write("2_bad", "up.sql", "BEGIN; SELECT 1 / 0");
    folder.write("2_bad", "metadata.toml", "run_in_transaction = false");
    let error = migrate::run_pending(&database.manager, folder.source(), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    assert!(
        error.to_string().contains("outside a transaction"),
        "{error}"
    );

    folder.write("2_bad", "up.sql", "CREATE TABLE mended ()");
    let ran = migrate::run_pending(&database.manager, folder.source(), options()).unwrap();
    assert_eq!(names(&ran), ["2_bad", "3_after"]);
    assert_eq!(database.tables(), ["after_it", "good", "mended"]);
}

#[test]
fn time_limits_apply_to_every_migration_and_to_nothing_else() {
    let database = Database::new("limits");
    let name = &database.name;
    database.superuser(&format!(
        "ALTER DATABASE {name} SET statement_timeout = '30s'"
    ));
    let note = "INSERT INTO seen SELECT current_setting('lock_timeout') || ' ' || \
                current_setting('statement_timeout')";
    let own =
        format!("CREATE TABLE seen (text text); {note}; SET statement_timeout = 1; RESET ALL");
    let folder = Folder::new(&[("1_own", &own, "")]);
    let run = |options| migrate::run_pending(&database.manager, folder.source(), options);

    run(Options::new()).unwrap();
    for (number, migration) in [(2, format!("{note}; RESET ALL")), (3, note.to_owned())] {
        folder.add(&format!("{number}_set"), &migration, "");
    }
    let hour = Duration::from_secs(3600);
    let set = Options::new()
        .lock_timeout(hour / 2400)
        .statement_timeout(hour);
    assert_eq!(run(set).unwrap().len(), 2);
    folder.add("4_none", note, "");
    let none = Options::new()
        .statement_timeout(Duration::ZERO)
        .lock_timeout(Duration::from_nanos(1));
    run(none).unwrap();
    let seen = database.text("SELECT string_agg(text, ', ') AS text FROM seen");
    assert_eq!(seen, "0 30s, 1500ms 1h, 1500ms 1h, 1ms 0");

    let pool = database.manager.pool_builder().max_size(1).build().unwrap();
    let mut connection = pool.get().unwrap();
    let others = "SELECT current_setting('lock_timeout') AS text";
    assert_eq!(text(&mut connection, others), "0");

    // The limit applies to a migration: another session has locked its table.
    connection.batch_execute("BEGIN; LOCK TABLE seen").unwrap();
    folder.add("5_waits", "ALTER TABLE seen ADD COLUMN more int", "");
    let error = run(Options::new().lock_timeout(Duration::from_millis(10))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    assert!(
        error.to_string().ends_with("due to lock timeout"),
        "{error}"
    );
}

/// The index waits for all sessions with a snapshot; those that wait for the lock must have none.
/// FAULTS.md row 18.
#[test]
fn migrations_outlast_their_token() {
    let emulator = emulator();
    emulator.create_database("long", "app").unwrap();
    let manager = manager_of(&emulator, "long");
    let folder = Folder::new(&[
        ("1_one", "CREATE TABLE one ()", ""),
        ("2_two", "CREATE TABLE two ()", ""),
    ]);
    let options = Options::new().on_progress(|progress| {
        if let Progress::Started { .. } = progress {
            emulator.set_server_clock_skew(3600);
        }
    });
    let ran = migrate::run_pending(&manager, folder.source(), options).unwrap();
    assert_eq!(names(&ran), ["1_one", "2_two"]);
    // The same token is no longer accepted for a login.
    let error = manager.try_connect().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LoginRefused);
}

#[test]
fn progress_is_reported_in_order() {
    let database = Database::new("in_order");
    let folder = Folder::new(&[
        ("2_two", "CREATE TABLE two ()", "DROP TABLE two"),
        ("10_ten", "CREATE TABLE ten ()", "DROP TABLE ten"),
        ("3-0_three", "CREATE TABLE three ()", "DROP TABLE three"),
    ]);
    let mut told = Vec::new();
    let tells = |told: &mut Vec<String>, progress: Progress<'_>| {
        told.push(match progress {
            Progress::Planned { steps } => format!("{steps} steps"),
            Progress::Started { step } => format!("{:?} {step}", step.direction),
            Progress::Finished { step, took } if took < PATIENCE => format!("done {step}"),
            other => panic!("{other:?}"),
        });
    };
    let mut expected = vec!["3 steps".to_owned()];
    // As text, which is how diesel orders versions.
    for name in ["10_ten", "2_two", "3-0_three"] {
        expected.extend([format!("Up {name}"), format!("done {name}")]);
    }
    let options = Options::new().on_progress(|progress| tells(&mut told, progress));
    let ran = migrate::run_pending(&database.manager, folder.source(), options).unwrap();
    assert_eq!(names(&ran), ["10_ten", "2_two", "3-0_three"]);
    assert_eq!(told, expected);
    assert_eq!((&*ran[2].version, ran[2].direction), ("30", Direction::Up));

    let none = |progress: Progress<'_>| panic!("nothing is to be done: {progress:?}");
    let options = || Options::new().on_progress(none);
    let ran = migrate::run_pending(&database.manager, folder.source(), options());
    assert_eq!(ran.unwrap(), []);
    let reverted = migrate::revert(&database.manager, folder.source(), 0, options());
    assert_eq!(reverted.unwrap(), []);
}

#[test]
fn the_last_migrations_are_reverted_and_redone() {
    let database = Database::new("reverted");
    let folder = Folder::new(&[
        ("1_one", "CREATE TABLE one ()", "DROP TABLE one"),
        ("2_two", "CREATE TABLE two ()", "DROP TABLE two"),
        ("3_three", "CREATE TABLE three ()", "DROP TABLE three"),
    ]);
    let manager = &database.manager;
    let run = || migrate::run_pending(manager, folder.source(), Options::new()).unwrap();
    run();
    let redone = migrate::redo(manager, folder.source(), 2, Options::new()).unwrap();
    assert_eq!(names(&redone), ["3_three", "2_two", "2_two", "3_three"]);
    let ways = redone.iter().map(|step| step.direction);
    use Direction::{Down, Up};
    assert_eq!(ways.collect::<Vec<_>>(), [Down, Down, Up, Up]);

    // All of them are applied, or none.
    folder.write("3_three", "up.sql", "CREATE TABLE two ()");
    let error = migrate::redo(manager, folder.source(), usize::MAX, Options::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    assert_eq!(
        error.to_string(),
        "migration 3_three could not be applied, and everything was rolled back: relation \"two\" \
         already exists"
    );
    assert_eq!(database.tables(), ["one", "three", "two"]);

    let reverted = migrate::revert(manager, folder.source(), 1, Options::new()).unwrap();
    assert_eq!(names(&reverted), ["3_three"]);
    let reverted = migrate::revert(manager, folder.source(), usize::MAX, Options::new()).unwrap();
    assert_eq!(names(&reverted), ["2_two", "1_one"]);
    assert_eq!(database.tables(), [""; 0]);
}

#[test]
fn migrations_of_another_release_are_not_reverted() {
    let database = Database::new("other_release");
    let manager = &database.manager;
    let one = ("1_one", "CREATE TABLE one ()", "DROP TABLE one");
    let newer = Folder::new(&[one, ("2_two", "CREATE TABLE two ()", "DROP TABLE two")]);
    let older = Folder::new(&[one]);
    migrate::run_pending(manager, newer.source(), Options::new()).unwrap();
    // It has no pending migrations, so it does not need the lock.
    let ran = migrate::run_pending(manager, older.source(), Options::new()).unwrap();
    assert_eq!(ran, []);
    let error = migrate::revert(manager, older.source(), 2, Options::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Migration);
    assert!(
        error.to_string().contains("migration 2 is applied"),
        "{error}"
    );
    assert_eq!(database.tables(), ["one", "two"]);
}

#[test]
fn listing_needs_only_read_rights() {
    let database = Database::new("listed");
    let manager = &database.manager;
    let name = &database.name;
    database.superuser(&format!(
        "ALTER DATABASE {name} SET TimeZone = 'Asia/Tokyo'"
    ));
    let folder = Folder::new(&[("1_one", "SELECT 1", ""), ("2_two", "SELECT 1", "")]);
    let listed = migrate::list(manager, folder.source()).unwrap();
    let shown = |listed: &[Status]| -> Vec<(String, Option<String>, bool)> {
        let shown = listed.iter().map(|status| {
            (
                status.version.clone(),
                status.name.clone(),
                status.is_pending(),
            )
        });
        shown.collect()
    };
    let entry = |version: &str, name: Option<&str>, is_pending| {
        (version.to_owned(), name.map(str::to_owned), is_pending)
    };
    assert_eq!(
        shown(&listed),
        [
            entry("1", Some("1_one"), true),
            entry("2", Some("2_two"), true)
        ]
    );
    let there = "SELECT (to_regclass('__diesel_schema_migrations') IS NOT NULL)::text AS text";
    assert_eq!(database.text(there), "false");

    migrate::run_pending(manager, folder.source(), Options::new()).unwrap();
    let later = Folder::new(&[("2_two", "SELECT 1", ""), ("3_three", "SELECT 1", "")]);
    database.superuser(&format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on"
    ));
    let listed = migrate::list(manager, later.source()).unwrap();
    assert_eq!(
        shown(&listed),
        [
            entry("1", None, false),
            entry("2", Some("2_two"), false),
            entry("3", Some("3_three"), true),
        ]
    );
    let age = SystemTime::now().duration_since(listed[0].applied_at.unwrap());
    assert!(age.unwrap() < 10 * PATIENCE);
}

#[test]
fn invalid_migrations_are_rejected_before_dialling() {
    let manager = PgConnectionManager::new("host=h.example user=app iam_region=eu-west-1").unwrap();
    let folder = Folder::new(&[
        ("2026-01-01_one", "SELECT 1", ""),
        ("20260101_two", "SELECT 1", ""),
    ]);
    let error = migrate::run_pending(&manager, folder.source(), Options::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    for name in ["2026-01-01_one", "20260101_two"] {
        assert!(error.to_string().contains(name), "{error}");
    }

    let source = folder.source();
    drop(folder);
    let error = migrate::run_pending(&manager, source, Options::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[test]
fn diesels_run_pending_migrations_works_on_a_pooled_connection() {
    let database = Database::new("harness");
    let folder = Folder::new(&[("1_one", "CREATE TABLE one ()", "DROP TABLE one")]);
    let pool = database.manager.pool_builder().max_size(1).build().unwrap();
    let mut connection = pool.get().unwrap();
    let ran = connection.run_pending_migrations(folder.source()).unwrap();
    assert_eq!(ran.len(), 1);
    assert_eq!(database.tables(), ["one"]);
    connection.revert_last_migration(folder.source()).unwrap();
    assert_eq!(database.tables(), [""; 0]);
}

/// A database of the shared emulator that only one test uses.
struct Database {
    name: String,
    url: String,
    manager: PgConnectionManager,
}

impl Database {
    fn new(name: &str) -> Database {
        let emulator = shared_emulator();
        emulator.create_database(name, "app").unwrap();
        Database {
            name: name.to_owned(),
            url: url_of(emulator, name),
            manager: manager_of(emulator, name),
        }
    }

    fn hold_lock(&self) -> PgConnection {
        hold_lock(shared_emulator(), &self.name)
    }

    fn superuser(&self, statement: &str) {
        execute(&mut superuser_of(shared_emulator(), &self.name), statement);
    }

    /// Ends the user's sessions, and waits until they have ended.
    fn end_sessions(&self) {
        self.superuser(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity \
             WHERE usename = 'app' AND datname = current_database()",
        );
    }

    fn text(&self, query: &str) -> String {
        text(&mut superuser_of(shared_emulator(), &self.name), query)
    }

    fn tables(&self) -> Vec<String> {
        let tables = self.text(
            "SELECT coalesce(string_agg(tablename, ' ' ORDER BY tablename), '') AS text \
             FROM pg_tables WHERE schemaname = 'public' AND tablename !~ '^__diesel'",
        );
        tables.split_whitespace().map(str::to_owned).collect()
    }
}

fn url_of(emulator: &Emulator, database: &str) -> String {
    format!("{}&dbname={database}", emulator.url("app"))
}

fn manager_of(emulator: &Emulator, database: &str) -> PgConnectionManager {
    let auth = auth_builder(emulator).build().unwrap();
    let builder = PgConnectionManager::builder(&url_of(emulator, database));
    builder.auth(auth).build().unwrap()
}

fn superuser_of(emulator: &Emulator, database: &str) -> PgConnection {
    let url = emulator.superuser_url();
    let url = url.replace("dbname=postgres", &format!("dbname={database}"));
    PgConnection::establish(&url).unwrap()
}

/// Another session that holds the lock until it is dropped.
fn hold_lock(emulator: &Emulator, database: &str) -> PgConnection {
    let mut connection = superuser_of(emulator, database);
    let key = migrate::DEFAULT_LOCK_KEY;
    execute(&mut connection, &format!("SELECT pg_advisory_lock({key})"));
    connection
}

fn execute(connection: &mut PgConnection, statement: &str) {
    connection.batch_execute(statement).unwrap();
}

/// The value of the column `text` in the single row of a query.
fn text(connection: &mut PgConnection, query: &str) -> String {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        text: String,
    }
    let row: Row = diesel::sql_query(query).get_result(connection).unwrap();
    row.text
}

fn names(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|step| &*step.name).collect()
}

/// A folder of migrations, removed when it is dropped.
struct Folder(TempDir);

impl Folder {
    /// Name, up and down of each.
    fn new(migrations: &[(&str, &str, &str)]) -> Folder {
        let folder = Folder(TempDir::new().unwrap());
        for (name, up, down) in migrations {
            folder.add(name, up, down);
        }
        folder
    }

    fn add(&self, name: &str, up: &str, down: &str) {
        fs::create_dir(self.0.path().join(name)).unwrap();
        self.write(name, "up.sql", up);
        self.write(name, "down.sql", down);
    }

    fn write(&self, name: &str, file: &str, text: &str) {
        fs::write(self.0.path().join(name).join(file), text).unwrap();
    }

    fn source(&self) -> FileBasedMigrations {
        FileBasedMigrations::from_path(self.0.path()).unwrap()
    }
}
