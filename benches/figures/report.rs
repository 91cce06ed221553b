//! Inserts the table of all figures, and the machine they were measured on, into the text that is written by
//! hand.

use std::fs;
use std::path::Path;
use std::process::Command;

use diesel::prelude::*;
use diesel::sql_types::Text;

use crate::Bench;
use crate::database::emulator;
use crate::summary;

const SUMMARY: [&str; 2] = [
    "<!-- the summary, written by script/bench -->\n",
    "<!-- end of the summary -->\n",
];
const ALL: [&str; 2] = ["<!-- written by script/bench -->\n", "<!-- end -->\n"];

pub(crate) fn write(bench: &Bench) {
    if !bench.is_quick && bench.results.are_partly_quick() {
        println!("BENCHMARKS.md is left alone, since some of the results are of a quick run");
        return;
    }
    let text = fs::read_to_string(Path::new(crate::ROOT).join("BENCHMARKS.md")).unwrap();
    let run = format!(
        "{} on {}",
        bench.pick("A quick run", "A full run"),
        machine()
    );
    let text = replace(&text, SUMMARY, &summary::table(&bench.results));
    let text = replace(&text, ALL, &format!("{run}\n\n{}", bench.results.table()));
    let path = bench.output("BENCHMARKS.md");
    fs::write(&path, text).unwrap();
    println!("{}", path.display());
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
        say("date", &["-u", "+%F"]),
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
