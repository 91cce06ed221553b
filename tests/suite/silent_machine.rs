//! Open connections to a machine that has vanished: no packet arrives from it, not even an acknowledgement.

#[cfg(feature = "postgres")]
use std::sync::Arc;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

#[cfg(target_os = "linux")]
use diesel_rds_iam::{Backend, PgConnectionManager, RdsConnectionManager};
#[cfg(feature = "postgres")]
use diesel_rds_iam::{Error, PostgresConnectionManager};
#[cfg(feature = "postgres")]
use rds_iam_emulator::{Fault, Stage};

use crate::support::PATIENCE;
#[cfg(target_os = "linux")]
use crate::support::database::Ask;
use crate::support::database::{auth_builder, emulator};
#[cfg(target_os = "linux")]
use crate::support::packets::{ignore_packets_at, own_sockets};

/// FAULTS.md row 54.
#[cfg(target_os = "linux")]
#[test]
fn both_drivers_get_time_limits_for_a_silent_machine() {
    let Some(_) = own_sockets(|_, _| false) else {
        return;
    };
    let seconds = Duration::from_secs;
    let emulator = emulator();
    let check = |parameters: &str, expected: [Duration; 3], count: u32| {
        let url = format!("{}{parameters}", emulator.url("app"));
        let auth = || auth_builder(&emulator).build().unwrap();
        let diesel = PgConnectionManager::builder(&url)
            .auth(auth())
            .build()
            .unwrap();
        let connection = diesel.try_connect().unwrap();
        assert_eq!(tcp_settings_of(emulator.port()), [(expected, count)]);
        drop(connection);
        #[cfg(feature = "postgres")]
        {
            let builder = PostgresConnectionManager::builder(&url).auth(auth());
            let connection = builder.build().unwrap().try_connect().unwrap();
            assert_eq!(tcp_settings_of(emulator.port()), [(expected, count)]);
            drop(connection);
            emulator.wait_for_sessions(0, PATIENCE).unwrap();
        }
    };
    check("", [seconds(15), seconds(3), seconds(23)], 3);
    check(
        "&keepalives_idle=40&keepalives_interval=6&keepalives_count=4&tcp_user_timeout=50000",
        [seconds(40), seconds(6), seconds(50)],
        4,
    );
    let systems = |name: &str| {
        let value = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_keepalive_{name}"));
        value.unwrap().trim().parse::<u32>().unwrap()
    };
    let times = [systems("time"), systems("intvl"), 0].map(|it| seconds(it.into()));
    check(
        "&keepalives_idle=0&keepalives_interval=0&keepalives_count=0&tcp_user_timeout=0",
        times,
        systems("probes"),
    );
}

/// FAULTS.md row 54. The limit is short here; the test above uses the defaults.
#[cfg(target_os = "linux")]
#[test]
fn a_query_and_a_checkout_end_when_the_machine_has_vanished() {
    vanish::<diesel::PgConnection>();
    #[cfg(feature = "postgres")]
    vanish::<diesel_rds_iam::postgres::Client>();
}

#[cfg(target_os = "linux")]
fn vanish<C: Backend>()
where
    C::Connection: Ask,
{
    let emulator = emulator();
    let url = format!("{}&tcp_user_timeout=2000", emulator.url("app"));
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = RdsConnectionManager::<C>::builder(&url).auth(auth);
    let pool = manager.build().unwrap().pool_builder().max_size(2);
    let pool = pool.min_idle(None).build().unwrap();
    let [mut in_use, idle] = [(); 2].map(|()| pool.get().unwrap());
    drop(idle);
    if !ignore_packets_at(emulator.port()) {
        return;
    }
    let begun = Instant::now();
    in_use.try_ask("1").unwrap_err();
    let query = begun.elapsed();

    // The checkout test fails as well, and the machine's successor responds.
    let begun = Instant::now();
    let mut connection = pool.get_timeout(PATIENCE).unwrap();
    assert_eq!(connection.ask("1"), "1");
    let checkout = begun.elapsed();
    println!("a query ended after {query:?}, and a checkout after {checkout:?}");
    assert!(query < PATIENCE);
}

/// Of this process's connections to `port`: the time until the first keepalive, the interval, the time limit of
/// unacknowledged data; and the number of keepalives.
#[cfg(target_os = "linux")]
fn tcp_settings_of(port: u16) -> Vec<([Duration; 3], u32)> {
    use rustix::net::sockopt;

    let sockets = own_sockets(|_, peer| peer.port() == port).unwrap();
    let settings = sockets.iter().map(|socket| {
        assert!(sockopt::socket_keepalive(socket).unwrap());
        let user_timeout = sockopt::tcp_user_timeout(socket).unwrap();
        let times = [
            sockopt::tcp_keepidle(socket).unwrap(),
            sockopt::tcp_keepintvl(socket).unwrap(),
            Duration::from_millis(user_timeout.into()),
        ];
        (times, sockopt::tcp_keepcnt(socket).unwrap())
    });
    settings.collect()
}

/// Records the errors of a pool's checkout tests.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug, Default)]
struct Errors(Arc<parking_lot::Mutex<Vec<String>>>);

#[cfg(feature = "postgres")]
impl r2d2::HandleError<Error> for Errors {
    fn handle_error(&self, error: Error) {
        self.0.lock().push(error.to_string());
    }
}

/// FAULTS.md row 54.
#[cfg(feature = "postgres")]
#[test]
fn one_silent_connection_is_waited_for_and_no_other() {
    let emulator = emulator();
    let auth = auth_builder(&emulator).build().unwrap();
    let manager = PostgresConnectionManager::builder(&emulator.url("app"));
    let errors = Errors::default();
    let pool = manager.auth(auth).build().unwrap().pool_builder();
    let pool = pool.max_size(3).min_idle(None);
    let pool = pool
        .error_handler(Box::new(errors.clone()))
        .build()
        .unwrap();
    drop([(); 3].map(|()| pool.get().unwrap()));
    emulator.fault(Fault::BlackHole(Stage::Data));
    pool.get_timeout(Duration::from_secs(1)).err().unwrap();
    let errors = errors.0.lock().clone();
    let count = |text: &str| errors.iter().filter(|it| it.contains(text)).count();
    assert_eq!(count("does not answer"), 1, "{errors:?}");
    assert_eq!(count("stopped responding"), 2, "{errors:?}");

    emulator.heal();
    pool.get_timeout(PATIENCE)
        .unwrap()
        .batch_execute("SELECT 1")
        .unwrap();
}
