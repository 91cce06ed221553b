//! The statements that read a cluster's members, and their results. All names are qualified: the search path is the
//! application's.

use std::time::Duration;

use crate::endpoint::ClusterHost;

/// Aurora has 16 members at most, and a Multi-AZ DB cluster three.
pub(super) const MOST_MEMBERS: usize = 32;

/// What the members are read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// Not determined yet. It has a query of its own.
    #[default]
    Unknown,
    Aurora,
    MultiAz,
    /// They cannot be read.
    None,
}

/// Returns one line, which [`Source::from_line`] reads. A function that does not exist, or that the user may not
/// call, is no error here.
const DETECT: &str = "\
    SELECT CASE \
    WHEN pg_catalog.has_function_privilege(\
        pg_catalog.to_regproc('pg_catalog.aurora_replica_status'), 'EXECUTE') THEN 'aurora' \
    WHEN pg_catalog.to_regproc('pg_catalog.aurora_replica_status') IS NOT NULL THEN 'no right' \
    WHEN pg_catalog.to_regnamespace('rds_tools') IS NULL THEN 'no function' \
    WHEN NOT pg_catalog.has_schema_privilege('rds_tools', 'USAGE') THEN 'no right' \
    WHEN pg_catalog.to_regproc('rds_tools.show_topology') IS NULL THEN 'no function' \
    WHEN pg_catalog.has_function_privilege(\
        pg_catalog.to_regproc('rds_tools.show_topology'), 'EXECUTE') THEN 'multi-az' \
    ELSE 'no right' END AS line";

/// As AWS's drivers read them: without members that have not been seen for five minutes, unless it is the writer.
/// [aws-advanced-jdbc-wrapper, AuroraPgDialect]
const AURORA: &str = "\
    SELECT pg_catalog.concat_ws(E'\\t', server_id, \
        CASE WHEN session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' THEN 'writer' ELSE 'reader' END, \
        CASE WHEN server_id OPERATOR(pg_catalog.=) pg_catalog.aurora_db_instance_identifier() \
            THEN 'self' ELSE 'other' END, \
        COALESCE(replica_lag_in_msec, 0)) AS line \
    FROM pg_catalog.aurora_replica_status() \
    WHERE EXTRACT(EPOCH FROM (pg_catalog.now() OPERATOR(pg_catalog.-) last_update_timestamp)) \
            OPERATOR(pg_catalog.<=) 300 \
        OR session_id OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' \
        OR last_update_timestamp IS NULL";

/// It reports neither the writer nor the server that answers. A login shows the writer.
const MULTI_AZ: &str = "\
    SELECT pg_catalog.concat_ws(E'\\t', endpoint, 'unknown', 'other', 0) AS line \
    FROM rds_tools.show_topology('diesel-rds-iam')";

impl Source {
    /// Reads the line of [`DETECT`]. `Err` has the reason for which the members cannot be read.
    pub(crate) fn from_line(line: &str) -> Result<Source, &'static str> {
        match line {
            "aurora" => Ok(Source::Aurora),
            "multi-az" => Ok(Source::MultiAz),
            "no right" => Err("the user has no right to call the function that lists them"),
            _ => Err("the server has no function that lists them"),
        }
    }

    /// The statement that reads the members, a line for each.
    pub(crate) fn query(self) -> &'static str {
        match self {
            Source::Aurora => AURORA,
            Source::MultiAz => MULTI_AZ,
            Source::Unknown | Source::None => DETECT,
        }
    }
}

/// One member, as the server reports it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) is_writer: bool,
    /// Whether this is the server that reports it.
    pub(super) is_self: bool,
    pub(super) lag: Duration,
}

impl Row {
    /// `None` for a line that names no server of the cluster `host`: a server must not choose what is dialled.
    pub(super) fn parse(line: &str, host: &ClusterHost) -> Option<Row> {
        let mut fields = line.split('\t');
        let name = fields.next()?.to_ascii_lowercase();
        let (role, own, lag) = (fields.next()?, fields.next()?, fields.next()?);
        // An instance's id, or its host name.
        let id = name.split('.').next()?.to_owned();
        let member = host.member(&id)?;
        if name != id && name != member {
            return None;
        }
        // The lag is a `real` in Aurora.
        let milliseconds: f64 = lag.parse().ok()?;
        Some(Row {
            id,
            host: member,
            is_writer: role == "writer",
            is_self: own == "self",
            lag: Duration::try_from_secs_f64(milliseconds / 1000.0).unwrap_or_default(),
        })
    }
}
