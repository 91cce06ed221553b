//! RDS's IAM login on a laptop.
