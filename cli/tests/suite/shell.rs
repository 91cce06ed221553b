//! Help texts, completions and manual pages.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{rds_iam, run, text};

const COMMANDS: [&str; 7] = [
    "token",
    "exec",
    "doctor",
    "migrate",
    "emulate",
    "completions",
    "man",
];

#[test]
fn each_help_text_has_examples() {
    for command in COMMANDS {
        let help = text(run(rds_iam().args([command, "--help"])));
        let examples = help.split("Examples:").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("rds-iam {command}")), "{help}");
    }
    let help = text(run(rds_iam().arg("--help")));
    assert!(COMMANDS.iter().all(|command| help.contains(command)));
}

#[test]
fn help_does_not_show_values_from_the_environment() {
    let ran = run(rds_iam()
        .args(["token", "--help"])
        .env("DATABASE_URL", "postgres://app:hunter2@h/db"));
    assert!(!text(ran).contains("hunter2"));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(run(rds_iam().args(["completions", shell])));
        for word in ["doctor", "token-lifetime"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        // `exec` starts it, and users do not.
        assert!(!script.contains("refresh-passfile"), "{shell}");
        if shell == "bash" {
            let mut bash = Command::new("bash")
                .arg("-n")
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = bash.stdin.take().unwrap();
            input.write_all(script.as_bytes()).unwrap();
            drop(input);
            assert!(bash.wait().unwrap().success());
        }
    }
}

#[test]
fn there_is_a_manual_page_for_each_subcommand() {
    let page = text(run(rds_iam().arg("man")));
    assert!(page.contains(".TH rds-iam 1"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("man1");
    text(run(rds_iam().args(["man", "--dir"]).arg(&target)));
    for command in COMMANDS {
        let page = target.join(format!("rds-iam-{command}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("Examples:"), "{page}");
    }
}
