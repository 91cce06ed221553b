//! Sets the cfg with which the library's files are compiled for the models.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=rds_iam_loom");
}
