//! Use of this crate in asynchronous code, where blocking calls of tokio panic.

use diesel::connection::SimpleConnection;
use tokio::runtime::{Builder, Runtime};

use crate::support::database::{emulator, manager, shared_emulator};

fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_all().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap(),
    ]
}

/// FAULTS.md rows 11 and 12.
#[test]
fn everything_can_be_done_inside_tokio() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let task = tokio::spawn(async {
                let manager = manager(shared_emulator());
                drop(manager.try_connect().unwrap());
                let pool = manager.into_pool().unwrap();
                pool.get().unwrap().batch_execute("SELECT 1").unwrap();
                pool.get().unwrap().batch_execute("SELECT 1").unwrap();
                // Drops the last handles of the pool, the manager and the identity here.
            });
            task.await.unwrap();
        });
    }
}

/// FAULTS.md row 11.
#[test]
fn a_pool_can_be_dropped_while_a_panic_unwinds() {
    let emulator = emulator();
    let pool = manager(&emulator).into_pool().unwrap();
    let panicked = std::thread::spawn(move || {
        let _pool = pool;
        panic!("the thread panics, as this test wants it to");
    });
    let payload = panicked.join().unwrap_err();
    assert_eq!(
        payload.downcast_ref::<&str>(),
        Some(&"the thread panics, as this test wants it to")
    );
    emulator
        .wait_for_sessions(0, crate::support::PATIENCE)
        .unwrap();
}
