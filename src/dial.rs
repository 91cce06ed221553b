//! Resolves the name of a server, and chooses among its addresses.
//!
//! libpq tries all addresses of a name in one call, with a time-out for each and a single text for all errors,
//! and the crate `postgres` tries the next address even after a refused login. So the manager resolves names
//! itself, and a driver dials one address.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::endpoint::{ConnectionString, Destination};
use crate::error::{Error, ErrorKind};
use crate::sync::{Condvar, Mutex};

/// The shortest share of the time that one of several addresses gets: libpq counts whole seconds, from two.
const SHORTEST_SHARE: Duration = Duration::from_secs(2);

const THREAD_NAME: &str = "rds-iam-resolve";

type Resolve = dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Resolves host names to addresses.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Resolve>);

impl Resolver {
    pub(crate) fn new(
        resolve: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        Resolver(Arc::new(resolve))
    }
}

/// The system's resolver.
impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// The addresses of one server.
#[derive(Debug)]
pub(crate) enum Addresses {
    /// The driver finds the server by itself.
    OfDriver,
    Fixed(SocketAddr),
    /// Resolved again for each connect.
    Named(Arc<Lookup>),
}

impl Addresses {
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] if `target` does not name exactly one server.
    pub(crate) fn new(target: &ConnectionString, resolver: Resolver) -> Result<Addresses, Error> {
        Ok(match target.destination()? {
            Destination::Driver => Addresses::OfDriver,
            Destination::Address(address) => Addresses::Fixed(address),
            Destination::Name(host, port) => Addresses::Named(Arc::new(Lookup {
                host,
                port,
                resolver,
                state: Mutex::default(),
                done: Condvar::default(),
            })),
        })
    }

    /// Returns the addresses to dial, in their order. `None` stands for the driver's own way to the server.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Network`] if the name has no address, or none is found within `limit`.
    pub(crate) fn find(&self, limit: Duration) -> Result<Vec<Option<SocketAddr>>, Error> {
        match self {
            Addresses::OfDriver => Ok(vec![None]),
            Addresses::Fixed(address) => Ok(vec![Some(*address)]),
            Addresses::Named(lookup) => {
                let found = lookup.run(limit);
                let addresses = found.map_err(|cause| cannot_resolve(&lookup.host, cause))?;
                Ok(addresses.into_iter().map(Some).collect())
            }
        }
    }
}

fn cannot_resolve(host: &str, cause: io::Error) -> Error {
    Error::with_cause(
        ErrorKind::Network,
        format!("the host name {host:?} cannot be resolved; check it, and this machine's DNS"),
        cause,
    )
}

/// Lookups of one name, one at a time and each on a thread of its own: a lookup cannot be cancelled, and must
/// not outlast the connect that waits for it. One that does serves the next caller.
pub(crate) struct Lookup {
    host: String,
    port: u16,
    resolver: Resolver,
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Default)]
struct State {
    /// The process in which a lookup is running. A forked child has none of its parent's threads.
    running_in: Option<u32>,
    /// The number of lookups that have ended.
    ended: u64,
    found: Option<Result<Vec<SocketAddr>, (io::ErrorKind, String)>>,
}

impl Lookup {
    fn run(self: &Arc<Self>, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        let (is_running, before) = {
            let mut state = self.state.lock();
            let this = process::id();
            (state.running_in.replace(this) == Some(this), state.ended)
        };
        // Not with the lock held: a process that is forked while the thread starts would find it locked for ever.
        if !is_running && let Err(error) = self.start() {
            self.finish(Err(error));
        }
        let state =
            self.done
                .wait_while_for(self.state.lock(), |state| state.ended == before, limit);
        if state.ended == before {
            let message = format!("no answer within {limit:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        let found = state.found.clone().unwrap_or_else(|| Ok(Vec::new()));
        found.map_err(|(kind, text)| io::Error::new(kind, text))
    }

    fn start(self: &Arc<Self>) -> io::Result<()> {
        let lookup = self.clone();
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
        thread.spawn(move || lookup.resolve()).map(drop)
    }

    fn resolve(&self) {
        let resolve = AssertUnwindSafe(|| (self.resolver.0)(&self.host, self.port));
        let found = panic::catch_unwind(resolve)
            .unwrap_or_else(|_| Err(io::Error::other("the resolver panicked")));
        let found = found.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
            false => Ok(addresses),
        });
        self.finish(found);
    }

    /// Hands a result to all callers that wait.
    fn finish(&self, found: io::Result<Vec<SocketAddr>>) {
        let mut state = self.state.lock();
        state.found = Some(found.map_err(|error| (error.kind(), error.to_string())));
        state.ended += 1;
        state.running_in = None;
        drop(state);
        self.done.notify_all();
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

/// Returns the time for the next of `remaining` candidates, of what is `left` for all of them.
pub(crate) fn share_of(left: Duration, remaining: usize) -> Duration {
    let remaining = u32::try_from(remaining).unwrap_or(u32::MAX).max(1);
    (left / remaining).max(SHORTEST_SHARE.min(left))
}

/// Failed attempts at the candidates of one connect.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Vec<Error>);

impl Attempts {
    /// Records the failure of one candidate. Returns the error of the connect if it ends the search, since
    /// another candidate would bring the same.
    pub(crate) fn failed(&mut self, error: Error) -> Result<(), Error> {
        let goes_on = matches!(
            error.kind(),
            ErrorKind::Network | ErrorKind::Tls | ErrorKind::ServerUnavailable
        );
        if goes_on {
            self.0.push(error);
            return Ok(());
        }
        Err(self.beside(error))
    }

    /// Records the failure of a candidate that does not end the search, whatever it was.
    pub(crate) fn add(&mut self, error: Error) {
        self.0.push(error);
    }

    /// Returns the error of the attempt that got furthest, with those of the others as its context. Of two
    /// that got equally far, the later one decides.
    pub(crate) fn furthest(&mut self) -> Error {
        let kinds = self.0.iter().map(|error| error.kind().progress());
        let Some((at, _)) = kinds.enumerate().max_by_key(|(_, progress)| *progress) else {
            let message = "there was no time left to dial the server; raise connect_timeout";
            return Error::new(ErrorKind::Network, message);
        };
        let decisive = self.0.remove(at);
        self.beside(decisive)
    }

    /// Returns `decisive` with the other attempts as a note.
    fn beside(&mut self, decisive: Error) -> Error {
        if self.0.is_empty() {
            return decisive;
        }
        let others: Vec<String> = self.0.drain(..).map(|it| it.to_string()).collect();
        decisive.with_note(&format!("also failed: {}", others.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn addresses(resolver: Resolver) -> Addresses {
        let target = ConnectionString::parse("host=db.example.com user=app iam_region=eu-west-1");
        Addresses::new(&target.unwrap(), resolver).unwrap()
    }

    #[test]
    fn a_lookup_that_hangs_times_out_and_its_late_result_serves_the_next_caller() {
        let calls = Arc::new(AtomicUsize::new(0));
        let (release, released) = mpsc::channel::<()>();
        let (counted, released) = (calls.clone(), std::sync::Mutex::new(released));
        let addresses = addresses(Resolver::new(move |_, port| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = released.lock().unwrap().recv();
            Ok(vec![([10, 0, 0, 1], port).into()])
        }));
        for _ in 0..2 {
            let error = addresses.find(Duration::from_millis(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Network);
            assert!(
                error.to_string().contains("no answer within 1ms"),
                "{error}"
            );
        }
        assert!(calls.load(Ordering::SeqCst) <= 1);
        drop(release);
        let found = addresses.find(LONG).unwrap();
        assert_eq!(found, [Some(([10, 0, 0, 1], 5432).into())]);
    }

    #[test]
    fn a_resolver_that_finds_nothing_or_panics_is_an_error() {
        for (resolver, text) in [
            (Resolver::new(|_, _| Ok(Vec::new())), "no address"),
            (Resolver::new(|_, _| panic!("in a test")), "panicked"),
            (
                Resolver::new(|_, _| Err(io::Error::other("no route"))),
                "no route",
            ),
        ] {
            let error = addresses(resolver).find(LONG).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Network);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn time_is_shared_out_and_none_gets_less_than_libpq_counts() {
        let seconds = Duration::from_secs;
        assert_eq!(share_of(seconds(9), 1), seconds(9));
        assert_eq!(share_of(seconds(9), 3), seconds(3));
        assert_eq!(share_of(seconds(9), 9), seconds(2));
        assert_eq!(share_of(seconds(1), 3), seconds(1));
    }

    /// FAULTS.md row 34.
    #[test]
    fn the_attempt_that_got_furthest_decides() {
        let of = |kind| Error::new(kind, format!("{kind:?}"));
        let mut attempts = Attempts::default();
        attempts.failed(of(ErrorKind::ServerUnavailable)).unwrap();
        attempts.failed(of(ErrorKind::Tls)).unwrap();
        attempts.failed(of(ErrorKind::Network)).unwrap();
        let error = attempts.furthest();
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert_eq!(
            error.to_string(),
            "Tls (also failed: ServerUnavailable; Network)"
        );

        attempts.failed(of(ErrorKind::Network)).unwrap();
        let error = attempts.failed(of(ErrorKind::LoginRefused)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoginRefused);
        assert_eq!(Attempts::default().furthest().kind(), ErrorKind::Network);
    }
}
