//! Runs a test in a process of its own, for state that belongs to a whole process: its environment, its loggers, its
//! instrumentation.

use std::path::Path;
use std::process::{self, Command, Stdio};

/// Names the test of this process, so that no other test runs its child's part.
const TEST: &str = "RDS_IAM_CHILD_TEST";

/// The prefix of the values that a parent passes.
const ARGUMENT: &str = "RDS_IAM_CHILD_";

/// A process that runs one test.
pub struct Child {
    test: String,
    command: Command,
}

/// Whether this process was started for the test `test` of `module`.
pub fn is_running(module: &str, test: &str) -> bool {
    std::env::var(TEST).is_ok_and(|running| running == name(module, test))
}

/// The value that the parent passed under this name.
pub fn argument(name: &str) -> String {
    std::env::var(format!("{ARGUMENT}{name}")).unwrap()
}

impl Child {
    /// Prepares a process for the test `test` of `module` (`module_path!()`), which calls [`is_running`]. Its
    /// environment has no settings of AWS and PostgreSQL, except that the instance metadata is disabled and the home
    /// folder is `home`, which is empty.
    pub fn new(module: &str, test: &str, home: &Path) -> Child {
        let test = name(module, test);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &test, "--nocapture", "--test-threads=1"]);
        forget_aws_and_postgresql(&mut command);
        command.env(TEST, &test).env("HOME", home);
        Child { test, command }
    }

    /// Passes `value` to the child.
    pub fn argument(mut self, name: &str, value: impl AsRef<str>) -> Child {
        let name = format!("{ARGUMENT}{name}");
        self.command.env(name, value.as_ref());
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Child {
        self.command.env(name, value);
        self
    }

    pub fn envs<const N: usize>(mut self, environment: [(&str, String); N]) -> Child {
        self.command.envs(environment);
        self
    }

    /// Moves it to a network of its own, in which the loopback interface has `addresses` as well.
    ///
    /// # Errors
    ///
    /// Why this machine does not allow that.
    pub fn in_network_namespace(mut self, addresses: &[&str]) -> Result<Child, String> {
        let mut script = "ip link set lo up".to_owned();
        for address in addresses {
            script += &format!(" && ip address add {address} dev lo");
        }
        let namespace = |then: &str| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--net", "sh", "-c"]);
            command.arg(format!("{script} && {then}")).arg("sh");
            command
        };
        let trial = namespace("true")
            .output()
            .map_err(|error| error.to_string())?;
        if !trial.status.success() {
            return Err(String::from_utf8_lossy(&trial.stderr).trim_end().to_owned());
        }
        let mut moved = namespace("exec \"$@\"");
        moved
            .arg(self.command.get_program())
            .args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        self.command = moved;
        Ok(self)
    }

    /// Starts it, with pipes to its standard input and output.
    pub fn spawn(mut self) -> process::Child {
        let pipes = self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        pipes.spawn().unwrap()
    }

    /// Waits for its end. Fails if the child fails, or if it ran no test of that name.
    pub fn run(mut self) {
        let output = self.command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && stdout.contains("1 passed"),
            "{} in a process of its own, {:?}:\n{stdout}\n{stderr}",
            self.test,
            self.command
                .get_envs()
                .filter(|(name, _)| !name.to_string_lossy().starts_with(ARGUMENT))
                .collect::<Vec<_>>(),
        );
        // With --nocapture, prints its figures.
        print!("{stdout}");
    }
}

/// The name that libtest uses: without the name of the crate.
fn name(module: &str, test: &str) -> String {
    let (_crate, module) = module.split_once("::").unwrap();
    format!("{module}::{test}")
}

/// Removes this machine's settings of AWS and PostgreSQL from `command`'s environment, and disables the instance
/// metadata.
pub fn forget_aws_and_postgresql(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("AWS_") || name.starts_with("PG") {
            command.env_remove(&*name);
        }
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
}
