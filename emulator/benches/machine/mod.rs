//! Measurements from outside: other programs, and the kernel's figures for this process. Linux only.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rds_iam_emulator::Emulator;

/// New connections per second of four clients that open one for each statement.
pub(crate) fn pgbench(connection: &str, password: &str) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("one.sql");
    fs::write(&script, "SELECT 1;\n").unwrap();
    let output = Command::new("pgbench")
        .args([
            "--no-vacuum",
            "--connect",
            "--client=4",
            "--jobs=2",
            "--time=5",
            "--file",
        ])
        .arg(&script)
        .arg(connection)
        .env("PGPASSWORD", password)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .unwrap();
    rate.split(' ').next().unwrap().parse().unwrap()
}

/// The emulator's URL for clients that encrypt and do not verify. Reading and verifying certificates is the clients'
/// work, and a fifth of a login.
pub(crate) fn unverified(emulator: &Emulator) -> String {
    format!(
        "host=127.0.0.1 port={} user=app dbname=postgres sslmode=require",
        emulator.port()
    )
}

/// The time to copy 200 MB out of the database.
pub(crate) fn copy(connection: &str, password: &str) -> Duration {
    let statement = "COPY (SELECT repeat('x', 999) FROM generate_series(1, 200000)) TO STDOUT";
    let start = Instant::now();
    let status = Command::new("psql")
        .args([connection, "--no-psqlrc", "-qc", statement])
        .env("PGPASSWORD", password)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    start.elapsed()
}

/// The CPU time of this process, whose only work is the emulator's while other programs are clients.
pub(crate) fn own_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may have spaces: user and system time are fields 14 and 15, in ticks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// In bytes.
pub(crate) fn resident_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

/// The PostgreSQL of an emulator, with TLS of its own, which clients reach over TCP without the emulator.
pub(crate) struct PostgresqlWithTls {
    _emulator: Emulator,
}

/// An address of this machine where no other PostgreSQL is likely to listen.
const ADDRESS: &str = "127.77.0.1";

impl PostgresqlWithTls {
    pub(crate) fn start() -> Option<PostgresqlWithTls> {
        let emulator = Emulator::builder()
            .postgres_setting("listen_addresses", ADDRESS)
            .start()
            .ok()?;
        for statement in [
            "COPY (SELECT) TO PROGRAM 'openssl req -x509 -nodes -newkey ec \
             -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost \
             -keyout server.key -out server.crt'",
            "COPY (SELECT 'hostssl all all all trust' UNION SELECT 'local all all trust') \
             TO PROGRAM 'cat > pg_hba.conf'",
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ] {
            emulator.execute(statement).ok()?;
        }
        let server = PostgresqlWithTls {
            _emulator: emulator,
        };
        // PostgreSQL reads the new settings some time later.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let ready = Command::new("psql")
                .args([&server.url(), "--no-psqlrc", "-qc", "SELECT 1"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .ok()?;
            if ready.success() {
                return Some(server);
            }
        }
        None
    }

    pub(crate) fn url(&self) -> String {
        format!("host={ADDRESS} user=rdsadmin dbname=postgres sslmode=require")
    }
}
