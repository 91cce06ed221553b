//! Faults that can be activated while the emulator runs.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::rejection::Rejection;

/// The number of new IAM connections per second that AWS advises to stay below.
pub const ADVISED_LOGINS_PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// A fault, active until [`heal`](crate::Emulator::heal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Refuses this many logins with a token, whatever the token.
    RefuseNext(u32),
    /// Delays everything at this stage.
    Delay(Stage, Duration),
    /// Makes the server silent at this stage. The connection stays open.
    BlackHole(Stage),
    /// Makes the server reset the connection at this stage.
    Reset(Stage),
    /// Sends each byte to the client in a packet of its own.
    OneByteAtATime,
    /// Refuses logins with a token above this number per second, as AWS does; see
    /// [`ADVISED_LOGINS_PER_SECOND`].
    Throttle(NonZeroU32),
    /// Makes an [RDS Proxy](crate::Engine::Proxy) reject connections above this number per second, before they
    /// log in. The other engines have no such limit.
    LimitConnections(NonZeroU32),
    /// Rejects this many connections with this error, and then accepts connections again. Rejections of several
    /// kinds follow each other in the order of their activation.
    RejectNext(Rejection, u32),
    /// Answers the request for TLS with the error `PAM authentication failed`, in the clear, as an attacker on
    /// the network can. A client must not count it as a refused login.
    ErrorBeforeTls,
    /// Sends such an error in the clear between the answer to the request for TLS and the handshake. A client
    /// must not use what it receives there (CVE-2021-23222).
    BytesBeforeTls,
    /// Resets all connections to this address, and serves those to the other one; see
    /// [`Emulator::addrs`](crate::Emulator::addrs).
    ResetAddress(IpAddr),
}

/// A stage in the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The TCP connection has just been accepted.
    Accept,
    /// TLS has been agreed on, and has not begun.
    Tls,
    /// The password has arrived, and has not been answered.
    Login,
    /// The session is open. Data that was sent before the fault is not affected.
    Data,
}

/// The active faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    wire: Arc<WireFaults>,
}

#[derive(Debug, Default)]
struct State {
    refuse_next: u32,
    at_stage: Vec<Fault>,
    rejections: Vec<(Rejection, u32)>,
    error_before_tls: bool,
    bytes_before_tls: bool,
    reset_addresses: Vec<IpAddr>,
    logins: Rate,
    connections: Rate,
}

/// A limit per second, if there is one.
#[derive(Debug, Default)]
struct Rate {
    limit: Option<NonZeroU32>,
    recent: VecDeque<Instant>,
}

impl Rate {
    /// Returns the limit if one more at `now` exceeds it. Otherwise counts it.
    fn exceeds(&mut self, now: Instant) -> Option<NonZeroU32> {
        let limit = self.limit?;
        let second = Duration::from_secs(1);
        while self
            .recent
            .front()
            .is_some_and(|earlier| now.saturating_duration_since(*earlier) >= second)
        {
            self.recent.pop_front();
        }
        let is_full = self.recent.len() >= usize::try_from(limit.get()).unwrap_or(usize::MAX);
        if !is_full {
            self.recent.push_back(now);
        }
        is_full.then_some(limit)
    }
}

/// The faults that apply to each byte, for which no lock must be taken.
#[derive(Debug, Default)]
pub(crate) struct WireFaults {
    one_byte: AtomicBool,
    delay_nanos: AtomicU64,
    silent: AtomicBool,
}

impl WireFaults {
    pub(crate) fn one_byte(&self) -> bool {
        self.one_byte.load(Ordering::Relaxed)
    }

    /// The delay of each piece of data.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_nanos(self.delay_nanos.load(Ordering::Relaxed))
    }

    /// Whether all data that is sent is dropped.
    pub(crate) fn silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

impl Faults {
    /// Activates a fault. It replaces one of its kind and stage.
    pub(crate) fn add(&self, fault: Fault) {
        let mut state = self.lock();
        match fault {
            Fault::RefuseNext(count) => state.refuse_next = count,
            Fault::Throttle(rate) => state.logins.limit = Some(rate),
            Fault::LimitConnections(rate) => state.connections.limit = Some(rate),
            Fault::RejectNext(rejection, count) => {
                state.rejections.retain(|(other, _)| *other != rejection);
                state.rejections.push((rejection, count));
            }
            Fault::ErrorBeforeTls => state.error_before_tls = true,
            Fault::BytesBeforeTls => state.bytes_before_tls = true,
            Fault::ResetAddress(address) => state.reset_addresses.push(address),
            Fault::OneByteAtATime => self.wire.one_byte.store(true, Ordering::Relaxed),
            Fault::Delay(Stage::Data, delay) => {
                let nanos = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
                self.wire.delay_nanos.store(nanos, Ordering::Relaxed);
            }
            Fault::BlackHole(Stage::Data) => self.wire.silent.store(true, Ordering::Relaxed),
            Fault::Delay(..) | Fault::BlackHole(_) | Fault::Reset(_) => {
                state.at_stage.retain(|other| !same_place(other, &fault));
                state.at_stage.push(fault);
            }
        }
    }

    /// Deactivates all faults.
    pub(crate) fn clear(&self) {
        *self.lock() = State::default();
        self.wire.one_byte.store(false, Ordering::Relaxed);
        self.wire.delay_nanos.store(0, Ordering::Relaxed);
        self.wire.silent.store(false, Ordering::Relaxed);
    }

    pub(crate) fn wire(&self) -> Arc<WireFaults> {
        Arc::clone(&self.wire)
    }

    /// The faults at `stage`, in the order of their activation.
    pub(crate) fn at(&self, stage: Stage) -> Vec<Fault> {
        let state = self.lock();
        let here = |fault: &&Fault| matches!(fault, Fault::Delay(at, _) | Fault::BlackHole(at) | Fault::Reset(at) if *at == stage);
        state.at_stage.iter().filter(here).copied().collect()
    }

    /// Whether a test has requested that this login be refused.
    pub(crate) fn refuses_this(&self) -> bool {
        let mut state = self.lock();
        let refuses = state.refuse_next > 0;
        state.refuse_next = state.refuse_next.saturating_sub(1);
        refuses
    }

    /// Whether this new connection fails because PostgreSQL cannot start a process.
    pub(crate) fn cannot_fork(&self) -> bool {
        self.take_rejection(|rejection| rejection == Rejection::CannotFork)
            .is_some()
    }

    /// The rejection of this connection, whose start-up packet has been read.
    pub(crate) fn rejects_this(&self) -> Option<Rejection> {
        self.take_rejection(|rejection| rejection != Rejection::CannotFork)
    }

    fn take_rejection(&self, is_wanted: impl Fn(Rejection) -> bool) -> Option<Rejection> {
        let mut state = self.lock();
        state.rejections.retain(|(_, count)| *count > 0);
        let (rejection, count) = state
            .rejections
            .iter_mut()
            .find(|(kind, _)| is_wanted(*kind))?;
        *count -= 1;
        Some(*rejection)
    }

    /// Whether the request for TLS is answered with an error.
    pub(crate) fn error_before_tls(&self) -> bool {
        self.lock().error_before_tls
    }

    /// Whether an error is sent in the clear before the handshake.
    pub(crate) fn bytes_before_tls(&self) -> bool {
        self.lock().bytes_before_tls
    }

    /// Whether connections to `address` are reset.
    pub(crate) fn resets(&self, address: IpAddr) -> bool {
        self.lock().reset_addresses.contains(&address)
    }

    /// Whether a login at `now` exceeds the limit per second.
    pub(crate) fn throttles(&self, now: Instant) -> bool {
        self.lock().logins.exceeds(now).is_some()
    }

    /// Returns the limit of connections per second if one at `now` exceeds it.
    pub(crate) fn turns_away(&self, now: Instant) -> Option<NonZeroU32> {
        self.lock().connections.exceeds(now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_place(one: &Fault, other: &Fault) -> bool {
    match (one, other) {
        (Fault::Delay(one, _), Fault::Delay(other, _))
        | (Fault::BlackHole(one), Fault::BlackHole(other))
        | (Fault::Reset(one), Fault::Reset(other)) => one == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_admits_its_number_of_logins_per_second() {
        let faults = Faults::default();
        let start = crate::clock::monotonic();
        assert!(!faults.throttles(start), "not asked for");
        faults.add(Fault::Throttle(NonZeroU32::new(2).unwrap()));
        let after = |millis| start + Duration::from_millis(millis);
        assert!(!faults.throttles(after(0)));
        assert!(!faults.throttles(after(600)));
        assert!(faults.throttles(after(999)));
        assert!(!faults.throttles(after(1_000)), "the first is a second ago");
        assert!(faults.throttles(after(1_500)));
    }

    #[test]
    fn a_fault_replaces_the_earlier_one_of_its_kind_and_stage() {
        let faults = Faults::default();
        let delay = |millis| Fault::Delay(Stage::Login, Duration::from_millis(millis));
        faults.add(delay(1));
        faults.add(Fault::Reset(Stage::Login));
        faults.add(delay(2));
        assert_eq!(
            faults.at(Stage::Login),
            [Fault::Reset(Stage::Login), delay(2)]
        );
        assert_eq!(faults.at(Stage::Tls), []);
        faults.clear();
        assert_eq!(faults.at(Stage::Login), []);
    }
}
