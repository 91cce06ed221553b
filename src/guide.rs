//! Guide pages: how to set IAM up, which defaults apply and why, and what to do if something fails.
//!
//! | page | content |
//! |---|---|
//! | [`setup`] | what to switch on, grant and allow before a login with IAM works, on each kind of machine |
//! | [`deployment`] | recipes: ECS, EKS, Lambda, EC2, Terraform, the CDK, a Dockerfile |
//! | [`defaults`] | each default and its reason |
//! | [`failures`] | each error and log line, by its text, and what to do |
//! | [`observability`] | log lines, counters, events and metrics |
//! | [`migrations`] | migrations at an application's start |
//! | [`rds_proxy`] | differences behind RDS Proxy |
//! | [`failover`] | what happens to a pool at a failover, and what to set |
//! | [`aurora_dsql`] | differences with Aurora DSQL |
//! | [`aurora_serverless`] | Aurora Serverless v2 that pauses: pool settings, and what the first query sees |
//! | [`testing`] | tests without an AWS account, against the emulator |
//! | [`coming_from`] | from diesel's `ConnectionManager`, or a library of another language |
//! | [`own_manager`] | with a connection manager or a pool of the application's own, such as bb8 or deadpool |
//! | [`security`] | where a token can be read and where it cannot |
//!
//! Statements about AWS link to the AWS page that they come from.

#![cfg_attr(
    not(feature = "migrations"),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "some link to items of optional features"
    )
)]

#[doc = include_str!("guide/setup.md")]
pub mod setup {}

#[doc = include_str!("guide/deployment.md")]
pub mod deployment {}

#[doc = include_str!("guide/defaults.md")]
pub mod defaults {}

#[doc = include_str!("guide/failures.md")]
pub mod failures {}

#[doc = include_str!("guide/observability.md")]
pub mod observability {}

#[doc = include_str!("guide/migrations.md")]
pub mod migrations {}

#[doc = include_str!("guide/rds_proxy.md")]
pub mod rds_proxy {}

#[doc = include_str!("guide/failover.md")]
pub mod failover {}

#[doc = include_str!("guide/aurora_dsql.md")]
pub mod aurora_dsql {}

#[doc = include_str!("guide/aurora_serverless.md")]
pub mod aurora_serverless {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guide/own_manager.md")]
pub mod own_manager {}

#[doc = include_str!("guide/security.md")]
pub mod security {}
