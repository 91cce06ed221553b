//! A network that is cut while pools are busy, and a pool that is not used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel_rds_iam::r2d2::{ManageConnection, NopErrorHandler, Pool};
use parking_lot::Mutex;
use rds_iam_emulator::{Fault, Stage};

use crate::Bench;
use crate::database::{Database, emulator};
use crate::figure::Figure;
use crate::measure::wait_until;

const USERS: u32 = 8;
const THINK: Duration = Duration::from_millis(20);

/// The longest `get()` of two pools from before the network was cut until the test is given up.
pub(crate) fn checkout(bench: &Bench) {
    let given_up = Duration::from_secs(bench.pick(40, 120));
    let emulator = emulator();
    let database = Database::of(&emulator);
    let ours = database.manager(database.auth()).pool_builder();
    let ours = ours.error_handler(Box::new(NopErrorHandler));
    let stock = Pool::builder().error_handler(Box::new(NopErrorHandler));
    let ours = Users::start(ours.build().unwrap());
    let stock = Users::start(stock.build(database.stock()).unwrap());
    wait_until("all users to be served", || {
        ours.are_served() && stock.are_served()
    });
    emulator.fault(Fault::BlackHole(Stage::Accept));
    if !cut(emulator.port()) {
        println!("silent_checkout: not measured, this process may not drop packets");
        return;
    }
    thread::sleep(given_up);
    let (ours, stock) = (ours.longest_get(), stock.longest_get());
    let what = format!(
        "the longest `get()` after the network was cut; given up after {} s",
        given_up.as_secs()
    );
    let figure = Figure::new("silent_checkout", &what, "s", ours).against(stock);
    bench.results.add(figure.target("< 30 s", ours < 30.0));
}

/// Drops all packets to the server in connections that are open now. Those that are opened later are accepted, and
/// not answered. Returns whether this process may do so.
#[cfg(target_os = "linux")]
pub(crate) fn cut(port: u16) -> bool {
    crate::packets::ignore_packets_at(port)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn cut(_: u16) -> bool {
    false
}

/// Threads that use a pool. They are not waited for: those of a pool without time limits end with the process.
struct Users {
    gets: Vec<Arc<Mutex<Gets>>>,
    ends: Arc<AtomicBool>,
}

#[derive(Default)]
struct Gets {
    served: u32,
    longest: Duration,
    /// When the one began that has not returned.
    pending: Option<Instant>,
}

impl Users {
    fn start<M: ManageConnection>(pool: Pool<M>) -> Users {
        let ends = Arc::new(AtomicBool::new(false));
        let start = |_| {
            let gets = Arc::new(Mutex::new(Gets::default()));
            let (pool, own, ends) = (pool.clone(), gets.clone(), ends.clone());
            thread::spawn(move || use_pool(&pool, &own, &ends));
            gets
        };
        Users {
            gets: (0..USERS).map(start).collect(),
            ends,
        }
    }

    fn are_served(&self) -> bool {
        self.gets.iter().all(|gets| gets.lock().served >= 20)
    }

    /// In seconds, those included that have not returned.
    fn longest_get(&self) -> f64 {
        let longest = self.gets.iter().map(|gets| {
            let gets = gets.lock();
            let pending = gets.pending.map(|since| since.elapsed());
            gets.longest.max(pending.unwrap_or_default())
        });
        longest.max().unwrap().as_secs_f64()
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn use_pool<M: ManageConnection>(pool: &Pool<M>, gets: &Mutex<Gets>, ends: &AtomicBool) {
    while !ends.load(Ordering::Relaxed) {
        let asked = Instant::now();
        gets.lock().pending = Some(asked);
        let is_served = pool.get().is_ok();
        let mut gets = gets.lock();
        gets.pending = None;
        gets.longest = gets.longest.max(asked.elapsed());
        gets.served += u32::from(is_served);
        drop(gets);
        thread::sleep(THINK);
    }
}

/// The sessions of a pool that may have none, 65 s after its last query.
pub(crate) fn sleep(bench: &Bench) {
    const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
    const ASLEEP: Duration = Duration::from_secs(65);
    let (our_emulator, their_emulator) = (emulator(), emulator());
    let ours = Database::of(&our_emulator);
    let ours = ours.manager(ours.auth()).pool_builder().min_idle(Some(0));
    let ours = ours.idle_timeout(Some(IDLE_TIMEOUT)).build().unwrap();
    // As applications have it: r2d2's other settings.
    let theirs = Pool::builder().idle_timeout(Some(IDLE_TIMEOUT));
    let theirs = theirs.build(Database::of(&their_emulator).stock()).unwrap();
    query(&ours);
    query(&theirs);
    thread::sleep(ASLEEP);
    let what = "sessions 65 s after the last query, with min_idle(0) and an idle_timeout of 30 s, beside the \
                default min_idle of r2d2";
    let sessions = our_emulator.sessions();
    let figure = Figure::new("sleep", what, "sessions", sessions as f64);
    let figure = figure.against(their_emulator.sessions() as f64);
    bench.results.add(figure.target("0", sessions == 0));
}

/// From all connections at once, so that the pool is full.
fn query<M: ManageConnection<Connection = PgConnection>>(pool: &Pool<M>) {
    let mut connections: Vec<_> = (0..pool.max_size()).map(|_| pool.get().unwrap()).collect();
    for connection in &mut connections {
        connection.batch_execute("SELECT 1").unwrap();
    }
}
