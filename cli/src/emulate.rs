//! `rds-iam emulate`: RDS's login on this machine.

use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use clap::Args;
use humantime::{format_duration, format_rfc3339_seconds};
use rds_iam_emulator::{AuroraCluster, Builder, Emulator, Login};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

pub(crate) const EXAMPLES: &str = "\
Examples:
  rds-iam emulate --watch                         # run the printed lines in another terminal
  rds-iam emulate --token-lifetime 60s --watch    # to see rotations soon
  rds-iam emulate --upstream postgres://postgres:secret@localhost:5432/postgres --database shop
  eval \"$(rds-iam emulate --shell &)\"             # in the background, like ssh-agent;
  kill \"$RDS_IAM_EMULATOR_PID\"                    # ends it
  rds-iam emulate --port 0 --json                 # for the fixture of a test, which reads one line

The emulator starts a PostgreSQL server, whose programs must be installed (Debian: postgresql; Homebrew:
postgresql@17). Ctrl-C, SIGTERM or SIGHUP ends both and deletes the data. A server that --upstream names
goes on. The emulator creates what is missing there, and leaves it: the roles rds_iam and USER, a
database of each user's own, and --database. It connects to that server without TLS. The user of the
URL must be a superuser: the emulator sets a password for each user whose token it has verified, and
logs in as that user. Only for tests: every emulator accepts the keys that it prints.";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The port to listen on, at 127.0.0.1; 0 for any free one
    #[arg(long, default_value_t = 5433)]
    port: u16,

    /// A database user who logs in with tokens, and owns a database of the same name; may be given more than
    /// once
    #[arg(long = "user", value_name = "USER", default_value = "app")]
    users: Vec<String>,

    /// The database of the first user; by default it has that user's name
    #[arg(long)]
    database: Option<String>,

    /// The region that tokens must be signed for
    #[arg(long, default_value = "eu-west-1")]
    region: String,

    /// How long a token is accepted, such as 60s or 15m. A client that assumes 15 minutes has a login
    /// refused first; for the library, set IamAuthBuilder::token_lifetime as well
    #[arg(long, default_value = "15m", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,

    /// Starts an Aurora cluster of this many servers, 2 to 16, each at an address of its own: 127.0.0.1,
    /// 127.0.0.2 and so on, which macOS has only after `ifconfig lo0 alias`. SIGUSR1 makes the next one the writer
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["upstream", "database", "watch", "shell", "json"])]
    members: Option<usize>,

    /// The URL of an existing PostgreSQL server to use, instead of starting one
    #[arg(
        long,
        value_name = "URL",
        env = "RDS_IAM_EMULATOR_UPSTREAM",
        hide_env_values = true
    )]
    upstream: Option<Secret>,

    /// Prints a line for each login: the time, the user, the token and the result
    #[arg(long)]
    watch: bool,

    /// Prints only lines for a shell to evaluate, then closes standard output
    #[arg(long)]
    shell: bool,

    /// Prints one line of JSON when the emulator is ready: the URL, the keys, the region, the CA's path and
    /// AWS's endpoints
    #[arg(long, conflicts_with_all = ["shell", "watch"])]
    json: bool,
}

/// A URL that may hold a password.
#[derive(Clone)]
struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    // Registered first, so that a signal during the start ends what was started.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    if let Some(members) = arguments.members {
        signals.add_signal(SIGUSR1)?;
        return run_cluster(arguments, members, &mut signals);
    }
    let emulator = start(arguments)?;
    let logins = arguments.watch.then(|| emulator.watch());
    announce(arguments, &emulator)?;
    let watching = logins.map(|logins| thread::spawn(move || print_all(&logins)));

    signals.forever().next();
    // Stops PostgreSQL and removes its folder.
    drop(emulator);
    if let Some(watching) = watching {
        let _ = watching.join();
    }
    Ok(ExitCode::SUCCESS)
}

fn run_cluster(
    arguments: &Arguments,
    number: usize,
    signals: &mut Signals,
) -> Result<ExitCode, Box<dyn Error>> {
    let cluster = builder(arguments)
        .port(cluster_port(arguments.port)?)
        .start_cluster(number)?;
    for user in &arguments.users {
        cluster.create_iam_user(user)?;
    }
    announce_cluster(arguments, &cluster)?;
    for signal in signals.forever() {
        if signal != SIGUSR1 {
            break;
        }
        let former = cluster.writer();
        let next = (former + 1) % number;
        cluster.promote(next)?;
        cluster.demote(former)?;
        cluster.update_lists()?;
        writeln!(io::stdout(), "# the writer is {}", cluster.id(next))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All members listen on one port, since the cluster's names have only one.
fn cluster_port(port: u16) -> io::Result<u16> {
    if port != 0 {
        return Ok(port);
    }
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(free.local_addr()?.port())
}

fn announce_cluster(arguments: &Arguments, cluster: &AuroraCluster) -> Result<(), Box<dyn Error>> {
    let (user, _) = first_of(arguments);
    let mut output = io::stdout().lock();
    writeln!(
        output,
        "# An Aurora cluster of {} servers; the writer is {}. SIGUSR1 makes the next one the writer, and \
         Ctrl-C ends it.\n# For /etc/hosts:",
        cluster.members(),
        cluster.id(cluster.writer()),
    )?;
    for member in (0..cluster.members()).filter_map(|at| cluster.member(at)) {
        writeln!(output, "# {} {}", member.addr().ip(), member.host())?;
    }
    let resolve = cluster.resolve();
    for host in [cluster.host(), cluster.reader_host()] {
        for address in resolve(&host, cluster.signed_port())? {
            writeln!(output, "# {} {host}", address.ip())?;
        }
    }
    let keys = cluster.member(cluster.writer());
    let (key, secret) = keys.map_or(("", ""), |it| (it.access_key(), it.secret_key()));
    let region = keys.map_or("", Emulator::region);
    export(
        &mut output,
        &[
            ("DATABASE_URL", &cluster.url(&cluster.host(), user)),
            ("READER_URL", &cluster.url(&cluster.reader_host(), user)),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", region),
        ],
    )
}

/// Prints lines for a shell.
fn export(output: &mut impl Write, variables: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    // A session token of other credentials would be combined with these keys.
    writeln!(output, "unset AWS_SESSION_TOKEN")?;
    for (name, value) in variables {
        writeln!(output, "export {name}='{}'", value.replace('\'', r"'\''"))?;
    }
    Ok(())
}

fn builder(arguments: &Arguments) -> Builder {
    Emulator::builder()
        .port(arguments.port)
        .region(&arguments.region)
        .token_lifetime(arguments.token_lifetime)
}

fn start(arguments: &Arguments) -> Result<Emulator, Box<dyn Error>> {
    let mut builder = builder(arguments);
    if let Some(Secret(url)) = &arguments.upstream {
        builder = builder.upstream(url);
    }
    let emulator = builder.start()?;
    for user in &arguments.users {
        emulator.ensure_iam_user(user)?;
    }
    let (user, database) = first_of(arguments);
    emulator.ensure_database(database, user)?;
    Ok(emulator)
}

fn first_of(arguments: &Arguments) -> (&str, &str) {
    let user = arguments.users.first().map_or("app", String::as_str);
    (user, arguments.database.as_deref().unwrap_or(user))
}

fn announce(arguments: &Arguments, emulator: &Emulator) -> Result<(), Box<dyn Error>> {
    let (user, database) = first_of(arguments);
    let mut output = io::stdout().lock();
    if arguments.json {
        writeln!(output, "{}", description(emulator, user, database))?;
        return Ok(());
    }
    if !arguments.shell {
        writeln!(
            output,
            "# RDS's login on port {}, for tokens of {} that live {}; Ctrl-C ends it. To use it:",
            emulator.port(),
            emulator.region(),
            format_duration(arguments.token_lifetime),
        )?;
    }
    export(
        &mut output,
        &[
            ("DATABASE_URL", &emulator.url_of(user, database)),
            ("AWS_ACCESS_KEY_ID", emulator.access_key()),
            ("AWS_SECRET_ACCESS_KEY", emulator.secret_key()),
            ("AWS_REGION", emulator.region()),
        ],
    )?;
    if arguments.shell {
        writeln!(output, "export RDS_IAM_EMULATOR_PID={}", std::process::id())?;
        output.flush()?;
        // `$(…)` of the shell ends when no process has the pipe open for writing.
        rustix::stdio::dup2_stdout(io::stderr())?;
    }
    Ok(())
}

/// Everything that a client needs, as in `schema/emulate.json`. The keys are not secret: every emulator has the same.
fn description(emulator: &Emulator, user: &str, database: &str) -> Value {
    let aws = emulator.aws();
    json!({
        "schema_version": 1,
        "url": emulator.url_of(user, database),
        "host": emulator.host(),
        "address": emulator.addr().ip(),
        "port": emulator.port(),
        "user": user,
        "database": database,
        "region": emulator.region(),
        "access_key_id": emulator.access_key(),
        "secret_access_key": emulator.secret_key(),
        "ca_path": emulator.ca_path(),
        "aws": {
            "sts_url": aws.sts_url(),
            "container_credentials_url": aws.container_credentials_url(),
            "container_authorization_token": aws.container_authorization_token(),
            "metadata_url": aws.metadata_url(),
        },
    })
}

fn print_all(logins: &Receiver<Login>) {
    for login in logins {
        // The emulator goes on if the reader of standard output has ended.
        let _ = writeln!(
            io::stdout(),
            "{} {login}",
            format_rfc3339_seconds(login.at())
        );
    }
}
