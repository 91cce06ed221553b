//! Rounds and medians, and how much of the machine other programs used meanwhile.

use std::fs;
use std::time::{Duration, Instant};

/// A round is discarded if other programs used more than this part of the machine's time.
const MOST_LOST: f64 = 0.05;

/// The maximum number of rounds, as a multiple of the wanted ones, if rounds are disturbed again and again.
const MOST_TRIES: usize = 2;

/// The results of rounds, and how many were discarded.
pub(crate) struct Rounds<T> {
    pub(crate) kept: Vec<T>,
    pub(crate) dropped: usize,
    /// How many were kept although they were disturbed, because there were no better ones.
    pub(crate) disturbed: usize,
}

/// Runs `round` until it has `wanted` undisturbed results, or twice as many in all.
pub(crate) fn rounds<T>(wanted: usize, mut round: impl FnMut() -> T) -> Rounds<T> {
    let mut results = Vec::new();
    let is_quiet = |lost: &f64| *lost <= MOST_LOST;
    while results.iter().filter(|(lost, _)| is_quiet(lost)).count() < wanted
        && results.len() < wanted * MOST_TRIES
    {
        let before = CpuTime::now();
        let result = round();
        results.push((CpuTime::now().lost_since(&before), result));
    }
    let all = results.len();
    results.sort_by(|one, other| f64::total_cmp(&one.0, &other.0));
    results.truncate(wanted);
    Rounds {
        dropped: all - results.len(),
        disturbed: results.iter().filter(|(lost, _)| !is_quiet(lost)).count(),
        kept: results.into_iter().map(|(_, result)| result).collect(),
    }
}

/// Two measurements side by side, round by round.
pub(crate) struct Comparison {
    pub(crate) ours: f64,
    pub(crate) baseline: f64,
    /// The median of the rounds' ratios, which is not the ratio of the medians.
    pub(crate) ratio: f64,
    /// The same for the baseline against itself, which shows the noise of a ratio.
    pub(crate) null: f64,
    pub(crate) dropped: usize,
    pub(crate) disturbed: usize,
}

/// Measures the baseline, this crate, and the baseline again in each round, so that a machine that becomes
/// slower or faster affects both alike.
pub(crate) fn compare(
    wanted: usize,
    mut ours: impl FnMut() -> f64,
    mut baseline: impl FnMut() -> f64,
) -> Comparison {
    let rounds = rounds(wanted, || [baseline(), ours(), baseline()]);
    let each = |value: fn(&[f64; 3]) -> f64| median(rounds.kept.iter().map(value));
    Comparison {
        ours: each(|[_, ours, _]| *ours),
        baseline: each(|[before, _, after]| (before + after) / 2.0),
        ratio: each(|[before, ours, after]| 2.0 * ours / (before + after)),
        null: each(|[before, _, after]| after / before),
        dropped: rounds.dropped,
        disturbed: rounds.disturbed,
    }
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(&mut values.into_iter().collect::<Vec<_>>(), 0.5)
}

/// The value below which this part of all values lies.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[(last as f64 * part).ceil() as usize]
}

/// The duration of `work` in seconds.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Waits until `is_so` returns true. Panics after a generous time limit.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "waiting: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The machine's processor time since its start, in ticks. All zeros without `/proc`.
struct CpuTime {
    all: u64,
    /// The time that the hypervisor gave to other machines, and that other programs used here.
    others: u64,
}

impl CpuTime {
    fn now() -> CpuTime {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        // The user time includes that of guests.
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = &ticks[..] else {
            return CpuTime { all: 0, others: 0 };
        };
        let used = user + nice + system;
        CpuTime {
            all: used + idle + iowait + irq + softirq + steal,
            others: (used + steal).saturating_sub(process::ticks_of_family()),
        }
    }

    /// The part of all time that others used since `earlier`. The kernel's rounding accounts for a tick or two.
    fn lost_since(&self, earlier: &CpuTime) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        let others = self.others.saturating_sub(earlier.others + 2);
        others as f64 / all as f64
    }
}

/// This process in `/proc`.
pub(crate) mod process {
    use std::collections::HashMap;
    use std::fs;

    /// The names of its threads.
    pub(crate) fn threads() -> Vec<String> {
        fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect()
    }

    /// Its open file descriptors.
    pub(crate) fn descriptors() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// Its resident memory in KiB.
    pub(crate) fn resident_memory() -> f64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse().unwrap()
    }

    /// The processor time in seconds of all descendants that have ended, with a resolution of a hundredth.
    pub(crate) fn cpu_time_of_children() -> f64 {
        let own = Process::read("self").unwrap();
        own.ticks_of_children as f64 / 100.0
    }

    /// The processor time of this process and its descendants, in ticks.
    pub(crate) fn ticks_of_family() -> u64 {
        let Ok(all) = fs::read_dir("/proc") else {
            return 0;
        };
        let all: HashMap<u32, Process> = all
            .filter_map(|entry| {
                let id = entry.ok()?.file_name().to_str()?.to_owned();
                Some((id.parse().ok()?, Process::read(&id)?))
            })
            .collect();
        let belongs = |mut id: u32| {
            while id != std::process::id() {
                match all.get(&id) {
                    Some(process) => id = process.parent,
                    None => return false,
                }
            }
            true
        };
        let family = all.iter().filter(|(id, _)| belongs(**id));
        family
            .map(|(_, process)| process.ticks + process.ticks_of_children)
            .sum()
    }

    struct Process {
        parent: u32,
        ticks: u64,
        ticks_of_children: u64,
    }

    impl Process {
        fn read(id: &str) -> Option<Process> {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            // After the name, which may contain spaces and ends with a parenthesis, from field 3 on.
            let (_, rest) = stat.rsplit_once(')')?;
            let field = |number: usize| -> Option<u64> {
                rest.split_whitespace().nth(number - 3)?.parse().ok()
            };
            Some(Process {
                parent: u32::try_from(field(4)?).ok()?,
                ticks: field(14)? + field(15)?,
                ticks_of_children: field(16)? + field(17)?,
            })
        }
    }
}
