//! The examples, as a reader would run them.

use std::process::Command;

use crate::support::example;

#[test]
fn the_quickstart_rotates_and_loses_nothing() {
    let output = Command::new(example("quickstart"))
        .arg("60")
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}{complaint}");
    let last = shown.lines().last().unwrap();
    let figure = |name: &str| -> u64 {
        let pair = last
            .split(' ')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.unwrap().parse().unwrap()
    };
    assert!(figure("rotations") >= 3, "{last}");
    assert!(figure("logins") > 0 && figure("queries") > 0, "{last}");
    assert_eq!((figure("refused"), figure("errors")), (0, 0), "{last}");
}

/// `script/soak`, as long as it takes to see that it works. It finds nothing wrong before its first
/// fault.
#[test]
fn a_soak_without_faults_counts_its_writes() {
    let output = Command::new(example("soak"))
        .args(["0", "1"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}{complaint}");
    let last = shown.lines().last().unwrap();
    assert!(last.starts_with("soak: ok seed=1 "), "{last}");
    assert!(!last.contains("writes=0 "), "{last}");
}
