//! Inserts the table of all figures, and the machine they were measured on, into the text that is written by
//! hand.

use std::fs;
use std::path::Path;
use std::process::Command;

use diesel::prelude::*;
use diesel::sql_types::Text;

use crate::Bench;
use crate::database::emulator;
use crate::figure::Results;
use crate::summary;

const SUMMARY: [&str; 2] = [
    "<!-- the summary, written by script/bench -->\n",
    "<!-- end of the summary -->\n",
];
const ALL: [&str; 2] = ["<!-- written by script/bench -->\n", "<!-- end -->\n"];

const HEAD: &str = "| figure | what | ours | baseline | unit | ratio | target | reached | beside it |\n\
                    |---|---|---:|---:|---|---:|---|---|---|\n";

/// A run of some of the figures replaces their rows, and leaves the other rows and the description of the full run.
pub(crate) fn write(bench: &Bench, is_full: bool) {
    if !bench.is_quick && bench.results.are_partly_quick() {
        println!("BENCHMARKS.md is left alone, since some of the results are of a quick run");
        return;
    }
    let text = fs::read_to_string(Path::new(crate::ROOT).join("BENCHMARKS.md")).unwrap();
    let text = match summary::table(&bench.results) {
        Some(summary) => replace(&text, SUMMARY, &summary),
        None => text,
    };
    let earlier = between(&text, ALL);
    let text = match is_full || bench.is_quick {
        true => {
            let kind = bench.pick("A quick run", "A full run");
            let rows = bench.results.rows(&today()).concat();
            let all = format!("{kind} on {}\n\n{HEAD}{rows}", machine());
            replace(&text, ALL, &all)
        }
        false => replace(&text, ALL, &updated(earlier, &bench.results)),
    };
    let path = bench.output("BENCHMARKS.md");
    fs::write(&path, text).unwrap();
    println!("{}", path.display());
}

/// The table of an earlier run with newer rows in the places of those of the same name, or behind them.
fn updated(earlier: &str, results: &Results) -> String {
    let (run, rows) = earlier.split_once(HEAD).unwrap();
    let (_, date) = run.split_once(" run on ").unwrap();
    let (date, _) = date.split_once(':').unwrap();
    let name = |row: &str| row.split('`').nth(1).unwrap().to_owned();
    let mut rows: Vec<String> = rows.split_inclusive('\n').map(str::to_owned).collect();
    for newer in results.rows(date) {
        match rows.iter_mut().find(|row| name(row) == name(&newer)) {
            Some(row) => *row = newer,
            None => rows.push(newer),
        }
    }
    format!("{run}{HEAD}{}", rows.concat())
}

/// The date, in UTC.
pub(crate) fn today() -> String {
    say("date", &["-u", "+%F"])
}

fn between<'a>(text: &'a str, [begin, end]: [&str; 2]) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap();
    rest.split_once(end).unwrap().0
}

/// The text with something else between two marks.
fn replace(text: &str, [begin, end]: [&str; 2], between: &str) -> String {
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    format!("{before}{begin}{between}{end}{after}")
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown");
    format!(
        "{}: {cores} cores of {}, Linux {}, {}, PostgreSQL {}, libpq {}, {}.",
        today(),
        cpu.trim_start_matches(['\t', ' ', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        say("rustc", &["--version"]),
        server_version(),
        say("pkg-config", &["--modversion", "libpq"]),
        openssl::version::version(),
    )
}

fn server_version() -> String {
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = Text)]
        server_version: String,
    }
    let emulator = emulator();
    let mut connection = PgConnection::establish(&emulator.superuser_url()).unwrap();
    let version: Version = diesel::sql_query("SHOW server_version")
        .get_result(&mut connection)
        .unwrap();
    version.server_version
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn say(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
