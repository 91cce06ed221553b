//! The metrics that are reported to the facade of the crate `metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use diesel_rds_iam::{ManualClock, PgConnectionManager};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use parking_lot::Mutex;
use rds_iam_emulator::Fault;
use serde_json::Value;

use crate::support::child::{self, Child};
use crate::support::database::{auth_builder, emulator};

/// The sums of counters, and the number of values recorded in histograms.
#[derive(Clone, Default)]
struct Figures(Arc<Mutex<BTreeMap<String, u64>>>);

/// One of them.
struct Figure(Figures, String);

impl Figure {
    fn add(&self, value: u64) {
        *self.0.0.lock().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for Figure {
    fn increment(&self, value: u64) {
        self.add(value);
    }

    fn absolute(&self, _: u64) {
        panic!("counters are only added to");
    }
}

impl HistogramFn for Figure {
    fn record(&self, seconds: f64) {
        assert!((0.0..600.0).contains(&seconds), "{seconds} s");
        self.add(1);
    }
}

impl Figures {
    fn of(&self, key: &Key) -> Figure {
        let labels = key
            .labels()
            .map(|it| format!(" {}={}", it.key(), it.value()));
        let name = key.name().to_owned() + &labels.collect::<String>();
        Figure(self.clone(), name)
    }

    fn describe(&self, key: &KeyName) {
        let name = format!("described {}", key.as_str());
        *self.0.lock().entry(name).or_default() += 1;
    }
}

impl Recorder for Figures {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&key);
    }

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        self.describe(&key);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.of(key)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("{key} is a gauge");
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(self.of(key)))
    }
}

#[test]
fn a_login_a_refusal_and_a_retry_are_counted() {
    const TEST: &str = "a_login_a_refusal_and_a_retry_are_counted";
    if !child::is_running(module_path!(), TEST) {
        return Child::new(module_path!(), TEST, Path::new("/dev/null/none")).run();
    }
    let figures = Figures::default();
    metrics::set_global_recorder(figures.clone()).unwrap();

    let emulator = emulator();
    let time = ManualClock::starting_at(SystemTime::now() - Duration::from_secs(60));
    let auth = auth_builder(&emulator).clock(time.clock()).build().unwrap();
    let manager = PgConnectionManager::builder(&emulator.url("app")).auth(auth);
    let manager = manager.build().unwrap();
    drop(manager.try_connect().unwrap());
    // One login is refused and retried with success, one is refused twice, and the last ones are rate-limited.
    time.advance(Duration::from_secs(1));
    emulator.fault(Fault::RefuseNext(1));
    drop(manager.try_connect().unwrap());
    time.advance(Duration::from_secs(1));
    emulator.fault(Fault::RefuseNext(u32::MAX));
    for _ in 0..8 {
        assert!(manager.try_connect().is_err());
    }

    let figures = figures.0.lock();
    let figure = |name: &str| figures.get(name).copied().unwrap_or_default();
    let stats = manager.stats();
    assert_eq!(figure("rds_iam_connections_opened_total"), 2);
    assert_eq!(figure("rds_iam_connection_opening_seconds"), 2);
    assert_eq!(figure("rds_iam_logins_retried_total"), 2);
    assert_eq!(figure("rds_iam_logins_refused_total"), stats.logins_refused);
    assert_eq!(figure("rds_iam_tokens_signed_total"), stats.tokens_signed);
    assert_eq!(figure("rds_iam_token_signing_seconds"), stats.tokens_signed);
    assert_eq!(
        figure("rds_iam_connects_failed_total kind=login_refused"),
        6
    );
    assert_eq!(figure("rds_iam_connects_failed_total kind=rate_limited"), 2);
    assert!(stats.logins_refused > 6, "{stats:?}");

    // The described metrics are those that the guide lists, once each.
    let described: Vec<&str> = figures
        .iter()
        .filter_map(|(name, times)| name.strip_prefix("described ").map(|it| (it, times)))
        .inspect(|(name, times)| assert_eq!(**times, 1, "{name}"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(described, listed());
}

/// The metrics that the guide lists.
fn listed() -> Vec<&'static str> {
    let page = include_str!("../../src/guide/observability.md");
    let mut listed: Vec<&str> = page
        .split('`')
        .filter(|it| it.starts_with("rds_iam_") && !it.contains(' '))
        .collect();
    listed.sort_unstable();
    listed
}

#[test]
fn the_dashboard_shows_each_metric_by_its_labels() {
    let dashboard = include_str!("../../examples/grafana_dashboard.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut shown = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        let labels = match expression.split_once("sum by (") {
            Some((_, rest)) => rest.split(')').next().unwrap(),
            None => "",
        };
        let words = expression.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        for word in words.filter(|word| word.starts_with("rds_iam_")) {
            // A histogram or summary has a sum and a count.
            let is_part = word.ends_with("_sum") || word.ends_with("_count");
            let metric = if is_part {
                word.rsplit_once('_').unwrap().0
            } else {
                word
            };
            assert_eq!(is_part, metric.ends_with("_seconds"), "{expression}");
            let row = include_str!("../../src/guide/observability.md")
                .lines()
                .find(|line| line.starts_with(&format!("| `{metric}` |")))
                .unwrap_or_else(|| panic!("{metric} is not listed"));
            let own_labels = row
                .rsplit(" | ")
                .next()
                .unwrap()
                .trim_matches([' ', '|', '`']);
            assert_eq!(labels, own_labels, "{expression}");
            shown.insert(metric.to_owned());
        }
    }
    assert_eq!(shown.iter().collect::<Vec<_>>(), listed());
}
