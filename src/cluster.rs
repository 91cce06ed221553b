//! The members of an Aurora cluster or an RDS Multi-AZ DB cluster, and the order in which they are tried. No I/O.
//!
//! After a failover the cluster's DNS name leads to the old writer for tens of seconds, while each member keeps its
//! own name. So a manager learns the members from connections that it opens anyway, and dials them by name.

mod balance;
mod query;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use self::balance::{Balance, Held};
pub(crate) use self::query::Source;
use crate::endpoint::{ClusterHost, ClusterRole};
use crate::error::ErrorKind;

/// The interval between two reads of the list of members. AWS's drivers have the same.
const READ_INTERVAL: Duration = Duration::from_secs(30);

/// The interval after a connect to a member has failed.
const READ_INTERVAL_IN_TROUBLE: Duration = Duration::from_secs(1);

/// A member that failed is tried after all others for this long, and twice as long after each further failure...
const SHORTEST_BACK_OFF: Duration = Duration::from_secs(5);

/// ...up to this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5 * 60);

/// A login that takes this long may have met a silent server. Others begin elsewhere meanwhile.
const SUSPICIOUS_AFTER: Duration = Duration::from_millis(500);

/// A member of a cluster, as the database reported it last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterMember {
    /// The instance's identifier.
    pub id: Arc<str>,
    /// The instance's own host name, which tokens for it are signed for.
    pub host: String,
    /// Whether it accepted writes when it was seen last. For an RDS Multi-AZ DB cluster that is known after a
    /// login at the member only.
    pub is_writer: bool,
    /// How far it is behind the writer. Zero for an RDS Multi-AZ DB cluster, which does not report it.
    pub lag: Duration,
}

/// Where a login is attempted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The cluster's own name.
    Name,
    /// A member, by its id.
    Member(Arc<str>),
}

/// One attempt of a connect.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) place: Place,
    /// 1 where any server is accepted, after all readers have failed.
    pub(crate) pass: u8,
    /// Keeps the connection that is to be opened counted.
    pub(crate) held: Option<Held>,
}

/// The purpose of the connections, and the known state of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    host: ClusterHost,
    role: ClusterRole,
    max_lag: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    source: Source,
    members: Vec<ClusterMember>,
    /// The member at which a login that requires writes succeeded last.
    writer: Option<Arc<str>>,
    read_at: Option<Instant>,
    is_in_trouble: bool,
    failures: HashMap<Place, Failures>,
    logins_begun: u64,
    /// The logins under way by their number, with their start.
    under_way: HashMap<u64, (Place, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    number: u32,
    /// Until when the place is tried after all others.
    until: Instant,
}

/// A login that is under way.
pub(crate) struct UnderWay<'a> {
    cluster: &'a Cluster,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.cluster.state.lock().under_way.remove(&self.number);
    }
}

impl Cluster {
    pub(crate) fn new(host: ClusterHost, role: ClusterRole, max_lag: Option<Duration>) -> Cluster {
        Cluster {
            host,
            role,
            max_lag,
            state: Mutex::default(),
        }
    }

    pub(crate) fn members(&self) -> Vec<ClusterMember> {
        self.state.lock().members.clone()
    }

    pub(crate) fn has_members(&self) -> bool {
        !self.state.lock().members.is_empty()
    }

    /// Returns the candidates for one connect, in the order in which they are tried. The first is counted in
    /// `balance` already, so that simultaneous connects do not all choose the same reader.
    pub(crate) fn candidates(&self, balance: &Arc<Balance>, now: Instant) -> Vec<Candidate> {
        let state = self.state.lock();
        let mut counts = balance.lock();
        let mut places = match self.role {
            ClusterRole::Writer => state.for_writes(),
            ClusterRole::Readers { .. } => state.for_reads(self.max_lag, |id| counts.of(id)),
        };
        // Stable, so that those that work keep their order.
        places.sort_by_key(|(pass, place)| (*pass, state.is_suspect(place, now)));
        let mut candidates: Vec<_> = places
            .into_iter()
            .filter(|(pass, _)| *pass == 0 || self.role == ClusterRole::Readers { or_writer: true })
            .map(|(pass, place)| Candidate {
                place,
                pass,
                held: None,
            })
            .collect();
        if let Some(first) = candidates.first_mut()
            && let Place::Member(id) = &first.place
        {
            first.held = Some(counts.hold(balance, id));
        }
        candidates
    }

    /// Records that a login at `place` is under way, until the result is dropped.
    pub(crate) fn begin_at(&self, place: &Place, now: Instant) -> UnderWay<'_> {
        let mut state = self.state.lock();
        state.logins_begun += 1;
        let number = state.logins_begun;
        state.under_way.insert(number, (place.clone(), now));
        UnderWay {
            cluster: self,
            number,
        }
    }

    /// Records that no connection was opened at `place`.
    pub(crate) fn failed_at(&self, place: &Place, kind: ErrorKind, now: Instant) {
        let mut state = self.state.lock();
        state.is_in_trouble = true;
        // A reader that is asked for writes answers at once, and may be promoted a moment later.
        if self.role == ClusterRole::Writer && kind == ErrorKind::ServerUnavailable {
            return;
        }
        let number = state.failures.get(place).map_or(0, |it| it.number);
        let back_off = SHORTEST_BACK_OFF.saturating_mul(1 << number.min(10));
        let failures = Failures {
            number: number.saturating_add(1),
            until: now + back_off.min(LONGEST_BACK_OFF),
        };
        state.failures.insert(place.clone(), failures);
    }

    /// Returns the source of the members if they are to be read over a connection that has just been opened. The next
    /// read is due an interval later.
    pub(crate) fn take_due_read(&self, now: Instant) -> Option<Source> {
        let mut state = self.state.lock();
        let interval = match state.is_in_trouble {
            true => READ_INTERVAL_IN_TROUBLE,
            false => READ_INTERVAL,
        };
        let is_due = state
            .read_at
            .is_none_or(|at| now.saturating_duration_since(at) >= interval);
        if !is_due || state.source == Source::None {
            return None;
        }
        state.read_at = Some(now);
        Some(state.source)
    }

    /// Sets the source of the members from now on. [`Source::None`] ends the reads.
    pub(crate) fn set_source(&self, source: Source) {
        let mut state = self.state.lock();
        state.source = source;
        if source == Source::None {
            state.members.clear();
            state.writer = None;
        }
    }

    /// Stores the list that a connection to `place` has returned. Returns the id of the connection's own server,
    /// if the list tells it.
    pub(crate) fn learn(&self, place: &Place, lines: &[String]) -> Option<Arc<str>> {
        let rows: Vec<_> = lines
            .iter()
            .filter_map(|line| query::Row::parse(line, &self.host))
            .take(query::MOST_MEMBERS)
            .collect();
        if rows.is_empty() {
            return None;
        }
        let mut state = self.state.lock();
        let own = rows.iter().find(|row| row.is_self);
        let own = own.map(|row| Arc::<str>::from(&*row.id));
        let asked = match place {
            Place::Member(id) => Some(id.clone()),
            Place::Name => own.clone(),
        };
        // A reader's list is stale for a while after a failover. The list of a server that accepts writes is current.
        let is_at_writer = self.role == ClusterRole::Writer;
        let reported = rows.iter().find(|row| row.is_writer);
        match (is_at_writer, &asked, reported) {
            (true, Some(asked), _) => announce(asked, state.writer_is(asked)),
            (false, _, Some(reported)) => {
                state.writer_is(&reported.id.as_str().into());
            }
            _ => {}
        }
        let writer = state.writer.clone();
        state.members = rows
            .into_iter()
            .map(|row| ClusterMember {
                is_writer: writer.as_deref() == Some(&*row.id),
                id: row.id.into(),
                host: row.host,
                lag: row.lag,
            })
            .collect();
        state.is_in_trouble = false;
        let State {
            members, failures, ..
        } = &mut *state;
        failures.retain(|place, _| match place {
            Place::Name => true,
            Place::Member(id) => members.iter().any(|member| member.id == *id),
        });
        asked
    }

    /// Records a login at `place`.
    pub(crate) fn succeeded(&self, place: &Place) {
        let mut state = self.state.lock();
        state.failures.remove(place);
        if let (ClusterRole::Writer, Place::Member(id)) = (self.role, place) {
            announce(id, state.writer_is(id));
        }
    }

    /// Returns the lag of member `id` if it is too far behind for this pool.
    pub(crate) fn excessive_lag(&self, id: &str) -> Option<Duration> {
        let max_lag = self.max_lag?;
        let state = self.state.lock();
        let member = state.members.iter().find(|member| &*member.id == id)?;
        (member.lag > max_lag).then_some(member.lag)
    }
}

impl State {
    /// The writer that was known last, the cluster's name, then the other members.
    fn for_writes(&self) -> Vec<(u8, Place)> {
        let is_writer = |member: &&ClusterMember| Some(&member.id) == self.writer.as_ref();
        let (writer, others): (Vec<_>, Vec<_>) = self.members.iter().partition(is_writer);
        let member = |member: &ClusterMember| Place::Member(member.id.clone());
        let mut places: Vec<_> = writer.into_iter().map(member).collect();
        places.push(Place::Name);
        places.extend(others.into_iter().map(member));
        places.into_iter().map(|place| (0, place)).collect()
    }

    /// The readers with the fewest connections and the least lag first, then the cluster's name; and after all
    /// of them the writer.
    fn for_reads(
        &self,
        max_lag: Option<Duration>,
        count: impl Fn(&str) -> usize,
    ) -> Vec<(u8, Place)> {
        let is_writer = |member: &&ClusterMember| Some(&member.id) == self.writer.as_ref();
        let mut readers: Vec<_> = self
            .members
            .iter()
            .filter(|member| !is_writer(member))
            .filter(|member| max_lag.is_none_or(|limit| member.lag <= limit))
            .collect();
        fastrand::shuffle(&mut readers);
        readers.sort_by_key(|member| (count(&member.id), member.lag));
        let member = |member: &ClusterMember| Place::Member(member.id.clone());
        let mut places: Vec<_> = readers.into_iter().map(|it| (0, member(it))).collect();
        // The name may lead to a reader that is too far behind.
        let with_name = max_lag.is_none() || self.members.is_empty();
        places.extend(with_name.then_some((0, Place::Name)));
        let writer = self.members.iter().filter(is_writer);
        places.extend(writer.map(|it| (1, member(it))));
        places.extend(with_name.then_some((1, Place::Name)));
        places
    }

    fn is_suspect(&self, place: &Place, now: Instant) -> bool {
        let has_failed = self.failures.get(place).is_some_and(|it| now < it.until);
        let hangs = |(other, begun): &(Place, Instant)| {
            other == place && now.saturating_duration_since(*begun) > SUSPICIOUS_AFTER
        };
        has_failed || self.under_way.values().any(hangs)
    }

    /// Returns the former writer, if this is another one.
    fn writer_is(&mut self, id: &Arc<str>) -> Option<Arc<str>> {
        if self.writer.as_ref() == Some(id) {
            return None;
        }
        for member in &mut self.members {
            member.is_writer = member.id == *id;
        }
        self.writer.replace(id.clone())
    }
}

/// Logged for the operator. Lists of readers are not reported, since they are stale for a while after a failover.
fn announce(writer: &str, former: Option<Arc<str>>) {
    if let Some(former) = former {
        tracing::info!(writer, former = &*former, "the cluster has another writer");
    }
}

#[cfg(test)]
mod tests;
