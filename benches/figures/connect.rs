//! The cost of a new connection.

use std::fs;
use std::sync::Mutex;

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};
use diesel_rds_iam::PgConnectionManager;
use diesel_rds_iam::r2d2::ManageConnection;

use crate::Bench;
use crate::database::{Database, emulator};
use crate::figure::Figure;
use crate::measure::{Comparison, compare, seconds};

/// Compared with diesel's manager with the same roots.
pub(crate) fn overhead(bench: &Bench) {
    let emulator = emulator();
    let database = Database::of(&emulator);
    let what = "a new connection, with a cached token";
    let figure = beside_stock(bench, "connect_overhead", what, &database, &database);
    bench.results.add(figure.ratio_at_most(1.03));
}

/// Compared with diesel's manager with all roots of RDS.
pub(crate) fn bundle(bench: &Bench) {
    let emulator = emulator();
    let database = Database::of(&emulator);
    let folder = tempfile::tempdir().unwrap();
    // The emulator's certificate has a root of its own, which both get as well.
    let with_own_root = |name: &str, roots: String| {
        let path = folder.path().join(name);
        fs::write(&path, roots + "\n" + emulator.ca_pem()).unwrap();
        database.clone().trusting(&path)
    };
    let global = include_str!("../../certs/rds-global-bundle.pem").to_owned();
    let global = with_own_root("global", global);
    let chosen = with_own_root("chosen", chosen_roots(&database));
    let what = "a new connection, with the roots that the crate chooses";
    let figure = beside_stock(bench, "connect_bundle", what, &chosen, &global);
    bench.results.add(figure.ratio_at_most(0.35));
}

fn beside_stock(
    bench: &Bench,
    name: &str,
    what: &str,
    ours: &Database,
    stock: &Database,
) -> Figure {
    let (ours, stock) = (ours.manager(ours.auth()), stock.stock());
    let measured = compare_connects(
        bench,
        || drop(ours.try_connect().unwrap()),
        || drop(stock.connect().unwrap()),
    );
    Figure::compared(name, what, "ms", &measured)
}

/// In milliseconds, after one connection of each.
pub(crate) fn compare_connects(bench: &Bench, ours: impl Fn(), baseline: impl Fn()) -> Comparison {
    ours();
    baseline();
    // A few at a time, so that other load on the machine affects both alike.
    let count = 5;
    let each = |connect: &dyn Fn()| {
        let spent = seconds(|| (0..count).for_each(|_| connect()));
        spent / f64::from(count) * 1e3
    };
    compare(bench.pick(15, 101), || each(&ours), || each(&baseline))
}

/// The roots that a manager passes to libpq for an instance in the emulator's region, as diesel's
/// instrumentation sees them.
fn chosen_roots(database: &Database) -> String {
    static SEEN: Mutex<Option<String>> = Mutex::new(None);

    fn look(event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartEstablishConnection { url, .. } = event {
            let (_, rest) = url.split_once("sslrootcert='").unwrap();
            let (path, _) = rest.split_once('\'').unwrap();
            *SEEN.lock().unwrap() = Some(fs::read_to_string(path).unwrap());
        }
    }

    let url = format!(
        "host={} hostaddr=127.0.0.1 port={} user=app",
        database.host, database.port
    );
    let manager = PgConnectionManager::builder(&url).auth(database.auth());
    let manager = manager.build().unwrap();
    set_default_instrumentation(|| Some(Box::new(look) as Box<dyn Instrumentation>)).unwrap();
    // The emulator's root is not among them.
    assert!(manager.try_connect().is_err());
    set_default_instrumentation(|| None).unwrap();
    SEEN.lock().unwrap().take().unwrap()
}
