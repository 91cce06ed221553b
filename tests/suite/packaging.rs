//! The statements of the manifests about the packages.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A version of Rust as written in a manifest, in which the last parts are optional.
fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// `script/check-release rust` builds with the minimum version, which has to be installed for that. This test needs
/// only the lock file, and clippy checks the use of the standard library.
#[test]
fn no_dependency_asks_for_a_newer_rust_than_is_stated() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stated = version(env!("CARGO_PKG_RUST_VERSION"));
    let packages = metadata["packages"].as_array().unwrap();
    let asks = |package: &&Value| {
        let wanted = package["rust_version"].as_str();
        wanted.is_some_and(|wanted| version(wanted) > stated)
    };
    let newer: Vec<_> = packages
        .iter()
        .filter(asks)
        .map(|package| &package["id"])
        .collect();
    assert!(packages.len() > 100, "only {} packages", packages.len());
    assert!(newer.is_empty(), "newer than {stated:?}: {newer:?}");
}

/// TLS is that of the system's library, which libpq or the crate `postgres` links anyway. Another library, in
/// particular aws-lc, would be a large part of an application's first build.
#[test]
fn the_library_and_the_command_bring_no_tls_of_their_own() {
    for (package, unwanted) in [
        (
            "diesel-rds-iam",
            ["aws-lc-sys ", "ring ", "rustls "].as_slice(),
        ),
        // The emulator is a server with TLS of its own.
        ("rds-iam", ["aws-lc-sys "].as_slice()),
    ] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--edges",
                "normal,build",
                "--prefix",
                "none",
            ])
            .args(["--all-features", "--package", package])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(tree.lines().any(|line| line.starts_with("aws-config ")));
        for name in unwanted {
            let found = tree.lines().find(|line| line.starts_with(name));
            assert_eq!(found, None, "{package}");
        }
    }
}

/// Not even for tests: it would be most of a contributor's first build, and needs a C compiler of its own.
#[test]
fn no_package_of_the_workspace_brings_aws_lc() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    assert!(lock.contains("name = \"aws-config\"\n"));
    let found = lock.lines().find(|line| line.contains("\"aws-lc-"));
    assert_eq!(found, None);
}
