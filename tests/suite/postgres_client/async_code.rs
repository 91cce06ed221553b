//! Clients that are opened, used or dropped in asynchronous code, or while their thread ends.

use std::cell::RefCell;
use std::thread;

use diesel_rds_iam::{ErrorKind, PostgresConnection, PostgresPool};
use rds_iam_emulator::Emulator;
use tokio::runtime::{Builder, Runtime};

use super::manager;
use crate::support::PATIENCE;
use crate::support::child::{self, Child};
use crate::support::database::{Ask, emulator, shared_emulator};

fn runtimes() -> [Runtime; 2] {
    let threads = Builder::new_multi_thread().worker_threads(2).build();
    [
        Builder::new_current_thread().build().unwrap(),
        threads.unwrap(),
    ]
}

/// FAULTS.md row 12.
#[test]
fn a_call_in_asynchronous_code_gets_an_error_that_names_spawn_blocking() {
    let emulator = emulator();
    let manager = manager(&emulator);
    let pool = manager.pool_builder().max_size(2).build().unwrap();
    for runtime in runtimes() {
        runtime.block_on(async {
            let inner = manager.clone();
            let task = tokio::spawn(async move {
                for error in [
                    inner.try_connect().err().unwrap(),
                    inner.into_pool().err().unwrap(),
                ] {
                    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
                    assert!(error.to_string().contains("spawn_blocking"), "{error}");
                }
            });
            task.await.unwrap();

            // Checked out and in without a panic, and without a login for each checkout.
            let logins = emulator.login_count();
            drop(pool.get().unwrap());
            assert!(emulator.login_count() <= logins + 1);

            let inner = pool.clone();
            let user = tokio::task::spawn_blocking(move || {
                let mut client = inner.get().unwrap();
                client.ask("current_user")
            });
            assert_eq!(user.await.unwrap(), "app");
        });
    }
}

/// FAULTS.md row 12: a connection that is used there panics in the application's own code, and the pool keeps
/// working.
#[test]
fn a_pool_survives_panics_in_asynchronous_code() {
    let pool = manager(shared_emulator())
        .pool_builder()
        .max_size(1)
        .build()
        .unwrap();
    for runtime in runtimes() {
        let inner = pool.clone();
        let task = runtime.spawn(async move {
            let mut client = inner.get().unwrap();
            client.ask("current_user")
        });
        assert!(runtime.block_on(task).unwrap_err().is_panic());
        assert_eq!(pool.get().unwrap().ask("current_user"), "app");
    }
}

/// FAULTS.md row 11: in a process of its own, since two panics at a time would end this one.
#[test]
fn a_pool_can_be_dropped_anywhere() {
    const TEST: &str = "a_pool_can_be_dropped_anywhere";
    if !child::is_running(module_path!(), TEST) {
        let home = tempfile::tempdir().unwrap();
        return Child::new(module_path!(), TEST, home.path()).run();
    }
    let emulator = emulator();
    let all_are_gone = || emulator.wait_for_sessions(0, PATIENCE).unwrap();
    for runtime in runtimes() {
        // The rest of an asynchronous `main`.
        let pool = full_pool(&emulator);
        runtime.block_on(async move { drop(pool) });
        all_are_gone();

        let pool = full_pool(&emulator);
        let connection = manager(&emulator).try_connect().unwrap();
        let task = runtime.spawn(async move { drop((connection, pool)) });
        runtime.block_on(task).unwrap();
        all_are_gone();

        let pool = full_pool(&emulator);
        let task = runtime.spawn(async move {
            let _pool = pool;
            panic!("the task panics, as this test wants it to");
        });
        let payload = runtime.block_on(task).unwrap_err().into_panic();
        let text = payload.downcast_ref::<&str>().unwrap();
        assert_eq!(*text, "the task panics, as this test wants it to");
        all_are_gone();

        // Tasks that are dropped with their runtime.
        let pool = full_pool(&emulator);
        drop(runtime.spawn(async move {
            let _pool = pool;
            std::future::pending::<()>().await;
        }));
        drop(runtime);
        all_are_gone();
    }
}

/// No more sessions are open than the pool may have.
fn full_pool(emulator: &Emulator) -> PostgresPool {
    let manager = manager(emulator);
    let pool = manager.pool_builder().max_size(3).min_idle(None);
    let pool = pool.build().unwrap();
    drop([(); 3].map(|()| pool.get().unwrap()));
    assert_eq!(emulator.sessions(), 3);
    pool
}

/// FAULTS.md row 11: after the thread locals that tokio needs were destroyed. In a process of its own, which a panic
/// there would end.
#[test]
fn a_connection_can_be_dropped_by_an_ending_thread() {
    const TEST: &str = "a_connection_can_be_dropped_by_an_ending_thread";
    thread_local! {
        static CONNECTION: RefCell<Option<PostgresConnection>> = const { RefCell::new(None) };
    }
    if !child::is_running(module_path!(), TEST) {
        let home = tempfile::tempdir().unwrap();
        return Child::new(module_path!(), TEST, home.path()).run();
    }
    let emulator = emulator();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Created before tokio's thread locals, which are therefore dropped first.
            CONNECTION.set(None);
            CONNECTION.set(Some(manager(&emulator).try_connect().unwrap()));
        });
    });
    emulator.wait_for_sessions(0, PATIENCE).unwrap();
}
