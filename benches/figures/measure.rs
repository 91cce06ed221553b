//! Rounds, medians, and how much of the machine was somebody else's meanwhile.

use std::fs;
use std::time::{Duration, Instant};

/// A round in which the machine lost more than this part of its time to others says nothing.
const MOST_STEAL: f64 = 0.05;

/// What an even machine would show more often than this is looked for no longer.
const MOST_TRIES: usize = 2;

/// What rounds brought, and which of them were left out.
pub(crate) struct Rounds<T> {
    pub(crate) kept: Vec<T>,
    pub(crate) dropped: usize,
    /// How many were kept although others had much of the machine, for want of better ones.
    pub(crate) disturbed: usize,
}

/// Runs `round` until it has `wanted` results that were not disturbed, or twice as many altogether.
pub(crate) fn rounds<T>(wanted: usize, mut round: impl FnMut() -> T) -> Rounds<T> {
    let mut results = Vec::new();
    let is_quiet = |steal: &f64| *steal <= MOST_STEAL;
    while results.iter().filter(|(steal, _)| is_quiet(steal)).count() < wanted
        && results.len() < wanted * MOST_TRIES
    {
        let before = CpuTime::now();
        let result = round();
        results.push((CpuTime::now().stolen_since(&before), result));
    }
    let all = results.len();
    results.sort_by(|one, other| f64::total_cmp(&one.0, &other.0));
    results.truncate(wanted);
    Rounds {
        dropped: all - results.len(),
        disturbed: results.iter().filter(|(steal, _)| !is_quiet(steal)).count(),
        kept: results.into_iter().map(|(_, result)| result).collect(),
    }
}

/// One thing beside another, round by round.
pub(crate) struct Comparison {
    pub(crate) ours: f64,
    pub(crate) baseline: f64,
    /// The median of the rounds' ratios, which is not that of the medians.
    pub(crate) ratio: f64,
    /// The same for the baseline against itself: what of a ratio is noise.
    pub(crate) null: f64,
    pub(crate) dropped: usize,
    pub(crate) disturbed: usize,
}

/// In each round the baseline, ours, and the baseline again, so that a machine that becomes slower or
/// faster meanwhile does so for both.
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

/// The value below which this part of all values are.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[(last as f64 * part).ceil() as usize]
}

/// How long `work` takes, in seconds.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Waits until `is_so`; panics if it takes longer than anything should.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "waiting: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The machine's processor time, in ticks, since it started.
struct CpuTime {
    all: u64,
    stolen: u64,
}

impl CpuTime {
    /// All zeros where there is no `/proc`.
    fn now() -> CpuTime {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        // cpu user nice system idle iowait irq softirq steal guest guest_nice; guests are in user.
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        CpuTime {
            all: ticks.iter().sum(),
            stolen: ticks.get(7).copied().unwrap_or_default(),
        }
    }

    fn stolen_since(&self, earlier: &CpuTime) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        self.stolen.saturating_sub(earlier.stolen) as f64 / all as f64
    }
}

/// This process as the kernel sees it.
pub(crate) mod process {
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

    /// Its memory that is in RAM, in KiB.
    pub(crate) fn resident_memory() -> f64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse().unwrap()
    }

    /// The processor time of the children that have ended, and of theirs, in seconds, in steps of a
    /// hundredth.
    pub(crate) fn cpu_time_of_children() -> f64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        // After the name, which may have spaces: these are fields 16 and 17 of all.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(16 - 3).take(2);
        ticks
            .map(|ticks| ticks.parse::<f64>().unwrap())
            .sum::<f64>()
            / 100.0
    }
}
