//! The command `rds-iam`.

fn main() {}
