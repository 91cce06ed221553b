//! Says to the library's files that they are being modelled.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=rds_iam_loom");
}
