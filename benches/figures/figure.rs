//! One figure, the file of results, and the table made from it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::measure::Comparison;
use crate::report;

/// Marks the results of a quick run.
const QUICK: &str = "quick";

/// The date of the measurement.
const DATE: &str = "date";

/// One line of the results.
pub(crate) struct Figure(Map<String, Value>);

impl Figure {
    pub(crate) fn new(name: &str, what: &str, unit: &str, ours: f64) -> Figure {
        let mut figure = Map::new();
        figure.insert("name".to_owned(), json!(name));
        figure.insert("ours".to_owned(), json!(rounded(ours)));
        figure.insert("baseline".to_owned(), Value::Null);
        figure.insert("ratio".to_owned(), Value::Null);
        figure.insert("unit".to_owned(), json!(unit));
        figure.insert("what".to_owned(), json!(what));
        Figure(figure)
    }

    /// A figure that was measured in turns with its baseline.
    pub(crate) fn compared(name: &str, what: &str, unit: &str, measured: &Comparison) -> Figure {
        Figure::new(name, what, unit, measured.ours)
            .with("baseline", rounded(measured.baseline))
            .with("ratio", rounded(measured.ratio))
            .with("null", rounded(measured.null))
            .rounds(measured.dropped, measured.disturbed)
    }

    /// A figure that another program measured.
    pub(crate) fn parse(line: &str) -> Figure {
        let mut figure = Figure(serde_json::from_str(line).unwrap());
        for key in ["ours", "baseline", "ratio"] {
            if let Some(value) = figure.0[key].as_f64() {
                figure = figure.with(key, rounded(value));
            }
        }
        figure
    }

    pub(crate) fn against(self, baseline: f64) -> Figure {
        let ratio = self.number("ours") / baseline;
        self.with("baseline", rounded(baseline))
            .with("ratio", rounded(ratio))
    }

    /// Adds another value that belongs to it.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Figure {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// How many rounds were discarded, and how many should have been, if any.
    pub(crate) fn rounds(mut self, dropped: usize, disturbed: usize) -> Figure {
        if dropped > 0 {
            self = self.with("rounds dropped", dropped);
        }
        if disturbed > 0 {
            self = self.with("rounds disturbed", disturbed);
        }
        self
    }

    /// The target, and whether it is met.
    pub(crate) fn target(self, target: &str, met: bool) -> Figure {
        self.with("target", target).with("met", met)
    }

    pub(crate) fn ratio_at_most(self, most: f64) -> Figure {
        let met = self.number("ratio") <= most;
        self.target(&format!("≤ {most} ×"), met)
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap()
    }

    pub(crate) fn name(&self) -> &str {
        self.text("name")
    }

    pub(crate) fn optional(&self, key: &str) -> Option<f64> {
        self.0.get(key).and_then(Value::as_f64)
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn cell(&self, key: &str) -> String {
        match self.0.get(key) {
            Some(Value::Number(number)) => grouped(number.as_f64().unwrap()),
            _ => String::new(),
        }
    }

    /// Values for which the table has no column.
    fn beside(&self) -> String {
        const COLUMNS: [&str; 10] = [
            "name", "ours", "baseline", "ratio", "unit", "what", "target", "met", QUICK, DATE,
        ];
        let rest = self
            .0
            .iter()
            .filter(|(key, _)| !COLUMNS.contains(&key.as_str()));
        let rest = rest.map(|(key, value)| match value {
            Value::Number(number) => format!("{key} {}", grouped(number.as_f64().unwrap())),
            Value::String(text) => format!("{key} {text}"),
            value => format!("{key} {value}"),
        });
        rest.collect::<Vec<_>>().join(", ")
    }
}

/// The file of results: one figure per line, each name once.
pub(crate) struct Results {
    path: PathBuf,
    is_quick: bool,
}

impl Results {
    pub(crate) fn at(path: &Path, is_quick: bool) -> Results {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Results {
            path: path.to_owned(),
            is_quick,
        }
    }

    pub(crate) fn clear(&self) {
        fs::write(&self.path, "").unwrap();
    }

    /// Whether some results are of a quick run.
    pub(crate) fn are_partly_quick(&self) -> bool {
        self.read()
            .iter()
            .any(|figure| figure.0.contains_key(QUICK))
    }

    /// Adds a figure, replaces an earlier one of its name, and prints it.
    pub(crate) fn add(&self, figure: Figure) {
        let mut figure = figure.with(DATE, report::today());
        if self.is_quick {
            figure = figure.with(QUICK, true);
        }
        let missed = match figure.0.get("met") {
            Some(Value::Bool(false)) => "  MISSED",
            _ => "",
        };
        println!(
            "{:<34} {:>12} {:>12} {:<12} {:>8}   {}{missed}  {}",
            figure.text("name"),
            figure.cell("ours"),
            figure.cell("baseline"),
            figure.text("unit"),
            figure.cell("ratio"),
            figure.text("target"),
            figure.beside(),
        );
        let mut figures = self.read();
        match figures
            .iter_mut()
            .find(|other| other.text("name") == figure.text("name"))
        {
            Some(earlier) => *earlier = figure,
            None => figures.push(figure),
        }
        let mut lines = String::new();
        for figure in figures {
            let _ = writeln!(lines, "{}", Value::Object(figure.0));
        }
        fs::write(&self.path, lines).unwrap();
    }

    /// Formats the figures as rows of a table. Those that were not measured on `date` have their own.
    pub(crate) fn rows(&self, date: &str) -> Vec<String> {
        let row = |figure: Figure| {
            let reached = match figure.0.get("met") {
                Some(Value::Bool(true)) => "yes",
                Some(Value::Bool(false)) => "**no**",
                _ => "",
            };
            let mut beside = figure.beside();
            let measured = figure.text(DATE);
            if measured != date {
                let separator = if beside.is_empty() { "" } else { ", " };
                beside = format!("{beside}{separator}measured on {measured}");
            }
            format!(
                "| `{}` | {} | {} | {} | {} | {} | {} | {reached} | {beside} |\n",
                figure.text("name"),
                figure.text("what"),
                figure.cell("ours"),
                figure.cell("baseline"),
                figure.text("unit"),
                figure.cell("ratio"),
                figure.text("target"),
            )
        };
        self.read().into_iter().map(row).collect()
    }

    pub(crate) fn read(&self) -> Vec<Figure> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(Figure::parse).collect()
    }
}

/// Rounds to four digits; more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || value.abs() >= 1000.0 {
        return value.round();
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    format!("{value:.*}", usize::try_from(digits).unwrap_or(0))
        .parse()
        .unwrap()
}

/// Adds a comma between thousands.
pub(crate) fn grouped(value: f64) -> String {
    if value.abs() < 10_000.0 {
        return value.to_string();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
