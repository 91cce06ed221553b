//! The database that a token is signed for, and the connection string that names it. No I/O.

mod cluster;
mod connection_string;
mod foreign;
mod grammar;
mod host;
mod keyword;
mod servers;
mod ssl_mode;

use std::sync::Arc;

pub(crate) use cluster::{ClusterHost, ClusterRole};
pub(crate) use connection_string::{ConnectionString, Login};
pub(crate) use host::{HostKind, HostName};
#[cfg(any(feature = "diesel", feature = "postgres"))]
pub(crate) use keyword::is_keyword_of_libpq;
pub(crate) use servers::Destination;
pub use ssl_mode::SslMode;

use crate::error::Error;

/// The service that checks a token. The two kinds of tokens are signed differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// RDS, Aurora or RDS Proxy: the token names host, port and user.
    Rds,
    /// Aurora DSQL: the token names the host, and the action says whether the user is `admin`.
    Dsql,
}

/// Where a region comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegionSource {
    /// From the configuration: [`Endpoint::with_region`], `iam_region`, or a builder's setter.
    Set,
    /// From the host name.
    HostName,
    /// From the AWS configuration: `AWS_REGION`, a profile, or the instance's metadata.
    AwsConfiguration,
}

/// The database that a token is signed for: host, port, user and region.
///
/// RDS compares host and port with its own, so they must be those of the database's endpoint, also if another
/// host is dialled. For aliases and tunnels, see `iam_host` and `iam_port`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Arc<str>,
    port: u16,
    user: Arc<str>,
    region: Option<Arc<str>>,
    engine: Engine,
}

impl Endpoint {
    /// Creates the endpoint at `host` and `port` for the database user `user`.
    ///
    /// The host is converted to the form that is signed: lower case, without a trailing dot. Region and engine
    /// are read from it if it is an RDS or Aurora DSQL name. An alias or an address contains no region, and its
    /// engine is assumed to be RDS.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration) if the host is empty or is not a host
    /// name or address (a Unix socket, say) or is only the id of a DSQL cluster, the port is 0, or the user is empty or holds a zero
    /// byte.
    ///
    /// ```
    /// use diesel_rds_iam::{Endpoint, Engine};
    ///
    /// let endpoint = Endpoint::new("MyDB.c9akciq32rqv.eu-west-1.rds.amazonaws.com", 5432, "app")?;
    /// assert_eq!(endpoint.host(), "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com");
    /// assert_eq!(endpoint.region(), Some("eu-west-1"));
    /// assert_eq!(endpoint.engine(), Engine::Rds);
    /// # Ok::<(), diesel_rds_iam::Error>(())
    /// ```
    pub fn new(host: &str, port: u16, user: &str) -> Result<Endpoint, Error> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if host.is_empty() {
            return Err(Error::configuration(
                "the host to sign for is empty: set host, or iam_host where another is dialled",
            ));
        }
        // The host becomes part of a URL that is signed. It must not contain a path or a query.
        if !host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
        {
            return Err(Error::configuration(
                "the host to sign for is not a host name or an address: letters, digits and `-._:` \
                 make one; set host, or iam_host where another is dialled",
            ));
        }
        if is_cluster_id(&host) {
            return Err(Error::configuration(
                "the host is the id of an Aurora DSQL cluster: set host to the cluster's endpoint, \
                 ID.dsql.REGION.on.aws",
            ));
        }
        if port == 0 {
            return Err(Error::configuration(
                "the port to sign for is 0: set port, or iam_port where another is dialled",
            ));
        }
        if user.is_empty() || user.contains('\0') {
            return Err(Error::configuration(
                "the database user is empty or holds a zero byte: set user",
            ));
        }
        let name = HostName::read(&host);
        Ok(Endpoint {
            port,
            user: user.into(),
            region: name.region.map(Arc::from),
            engine: match name.kind {
                HostKind::Dsql => Engine::Dsql,
                _ => Engine::Rds,
            },
            host: host.into(),
        })
    }

    /// Sets the region, which takes precedence over that of the host name.
    ///
    /// # Errors
    /// [`Configuration`](crate::ErrorKind::Configuration) if `region` does not have the form of a region's name,
    /// such as `eu-west-1`. An availability zone (`eu-west-1a`) does not.
    pub fn with_region(mut self, region: &str) -> Result<Endpoint, Error> {
        let region = region.to_ascii_lowercase();
        if !host::is_region(&region) {
            return Err(Error::configuration(
                "the region is not a region's name, such as eu-west-1 (eu-west-1a is an availability zone): \
                 set iam_region",
            ));
        }
        self.region = Some(region.into());
        Ok(self)
    }

    /// Returns the host name, in lower case and without a trailing dot. An IPv6 address has no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, which is part of the signature for RDS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the database user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the region: the one that was set, else the one in the host name.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Returns whether this is RDS or Aurora DSQL.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Returns where this endpoint's region comes from, if it has one.
    pub(crate) fn region_source(&self) -> RegionSource {
        match self.host_name().region == self.region() {
            true => RegionSource::HostName,
            false => RegionSource::Set,
        }
    }

    /// # Errors
    ///
    /// If the region of the AWS configuration may be another one than that of this endpoint, which names none.
    pub(crate) fn may_be_in_configured_region(&self) -> Result<(), Error> {
        match (self.region(), self.host_name().kind) {
            (None, HostKind::Global) => Err(Error::configuration(
                "the endpoint of a global database names no region, and that of the aws configuration may be \
                 another one; set iam_region to the region of the cluster that writes",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the information in the host name, independent of any configured region.
    pub(crate) fn host_name(&self) -> HostName<'_> {
        HostName::read(&self.host)
    }
}

/// Whether `host` has the form of a DSQL cluster's id: 26 letters and digits. AWS's connectors accept it as a host.
fn is_cluster_id(host: &str) -> bool {
    host.len() == 26
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_host_is_normalised_for_signing() {
        let endpoint = Endpoint::new("MyDB.C9AKCIQ32RQV.eu-west-1.RDS.amazonaws.com.", 1, "App");
        let endpoint = endpoint.unwrap();
        assert_eq!(
            endpoint.host(),
            "mydb.c9akciq32rqv.eu-west-1.rds.amazonaws.com"
        );
        assert_eq!((endpoint.port(), endpoint.user()), (1, "App"));
        assert_eq!(endpoint, Endpoint::new(endpoint.host(), 1, "App").unwrap());
        assert_ne!(endpoint, Endpoint::new(endpoint.host(), 1, "app").unwrap());
    }

    #[test]
    fn an_endpoint_that_cannot_be_signed_for_is_rejected() {
        for (host, port, user) in [
            ("", 5432, "app"),
            (".", 5432, "app"),
            ("/var/run/postgresql", 5432, "app"),
            ("h/?Action=connect", 5432, "app"),
            ("h#", 5432, "app"),
            ("a@h", 5432, "app"),
            ("a b", 5432, "app"),
            ("bücher.example", 5432, "app"),
            ("h", 0, "app"),
            ("abcdefghijklmnopqrstuvwx12", 5432, "app"),
            ("h", 5432, ""),
            ("h", 5432, "a\0"),
        ] {
            let error = Endpoint::new(host, port, user).expect_err(host);
            assert_eq!(error.kind(), ErrorKind::Configuration);
        }
        let endpoint = Endpoint::new("h", 5432, "app").unwrap();
        for region in [
            "",
            "eu west 1",
            "eu/west",
            "é",
            "a\nb",
            "eu-west-1a",
            "Ireland",
            "europe",
        ] {
            let error = endpoint.clone().with_region(region).expect_err(region);
            assert_eq!(error.kind(), ErrorKind::Configuration);
        }
    }

    #[test]
    fn an_endpoint_can_be_shared_between_threads() {
        fn is_send_sync_clone<T: Send + Sync + Clone>() {}
        is_send_sync_clone::<Endpoint>();
    }
}
