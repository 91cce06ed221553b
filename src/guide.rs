//! Pages about no single item: how to set things up, what was chosen and why, and what to do when
//! something fails.
//!
//! | page | answers |
//! |---|---|
//! | [`setup`] | what has to be switched on, written and granted before a login with IAM works, on each kind of machine |
//! | [`defaults`] | what each default is, and why |
//! | [`failures`] | what an error means and what to do, by its text |
//! | [`rds_proxy`] | what is different behind RDS Proxy |
//! | [`failover`] | what happens to a pool when the database moves, and what to set |
//! | [`aurora_dsql`] | what is different with Aurora DSQL |
//! | [`testing`] | tests without an AWS account, against the emulator |
//! | [`coming_from`] | from diesel's `ConnectionManager`, or a library of another language |
//! | [`security`] | where a token can and cannot be seen |
//!
//! What is said of AWS has the page of AWS's that says so beside it.

#[doc = include_str!("guide/setup.md")]
pub mod setup {}

#[doc = include_str!("guide/defaults.md")]
pub mod defaults {}

#[doc = include_str!("guide/failures.md")]
pub mod failures {}

#[doc = include_str!("guide/rds_proxy.md")]
pub mod rds_proxy {}

#[doc = include_str!("guide/failover.md")]
pub mod failover {}

#[doc = include_str!("guide/aurora_dsql.md")]
pub mod aurora_dsql {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guide/security.md")]
pub mod security {}
