//! Rules for a parsed connection string: the endpoint to sign for, the `sslmode`, and combinations of
//! parameters that cannot work.

use std::net::Ipv6Addr;

use super::{ConnectionString, DEFAULT_PORT, Login, is_socket, port_number};
use crate::endpoint::Endpoint;
use crate::endpoint::foreign;
use crate::endpoint::host::{HostKind, HostName};
use crate::endpoint::keyword::is_keyword_of_libpq;
use crate::endpoint::ssl_mode::SslMode;
use crate::error::Error;

impl ConnectionString {
    /// Returns the endpoint to sign for: `iam_host` and `iam_port`, or else the dialled host and port.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Error> {
        let user = self.get("user").ok_or_else(|| {
            Error::configuration("login needs a database user: set user in the connection string")
        })?;
        self.endpoint_of(user)
    }

    /// Returns the endpoint whose certificate is expected, the first of several. The user, which the environment may
    /// name in a login without IAM, does not matter for it.
    pub(crate) fn server(&self) -> Result<Endpoint, Error> {
        let servers = self.servers()?;
        let server = servers.first().unwrap_or(self);
        server.endpoint_of(server.get("user").unwrap_or("postgres"))
    }

    fn endpoint_of(&self, user: &str) -> Result<Endpoint, Error> {
        let dialled = self.get("host").ok_or_else(|| {
            Error::configuration(
                "login needs a host: set host in the connection string to the name that the \
                 server's certificate has (hostaddr, if any, says which address to dial)",
            )
        })?;
        if is_socket(dialled) {
            return Err(Error::configuration(
                "IAM login needs TLS, and host is a Unix socket: set host to the database's \
                 endpoint, or iam=off for a local database",
            ));
        }
        let port = match self.iam.port {
            Some(port) => port,
            None => port_number("port", self.get("port").unwrap_or(DEFAULT_PORT))?,
        };
        let host = self.iam.host.as_deref().unwrap_or(dialled);
        let endpoint = Endpoint::new(host, port, user)?;
        match &self.iam.region {
            Some(region) => endpoint.with_region(region),
            None => Ok(endpoint),
        }
    }

    /// Returns the name in the server's certificate if another host is dialled, which is an alias or a tunnel:
    /// that of the database, since the certificate does not contain the alias.
    pub(crate) fn verified_host(&self) -> Result<Option<String>, Error> {
        if self.iam.host.is_none() || self.dials_a_socket() || !self.login().is_guarded() {
            return Ok(None);
        }
        Ok(Some(self.endpoint()?.host().to_owned()))
    }

    fn dials_a_socket(&self) -> bool {
        self.get("host").is_some_and(is_socket)
    }

    /// Whether a dialled host has a name of RDS or Aurora DSQL. A string for libpq may list several.
    fn dials_aws(&self) -> bool {
        self.get("host").is_some_and(|hosts| {
            hosts.split(',').any(|host| {
                let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
                HostName::read(&host).kind != HostKind::Unknown
            })
        })
    }

    /// Whether this crate's defaults for TLS apply: `verify-full`, against the root certificates that it
    /// contains. A password in the string gets libpq's defaults instead, unless the host is AWS's, where the
    /// roots are known and a server in between would read the password.
    pub(crate) fn has_tls_defaults(&self) -> bool {
        match self.login() {
            Login::Iam => true,
            Login::Supplied => !self.dials_a_socket(),
            Login::Password(_) | Login::None => self.dials_aws(),
        }
    }

    /// Returns the `sslmode` to connect with. `None` leaves it to libpq, and is not returned with IAM.
    ///
    /// Where this crate's defaults apply, only `sslmode` sets it: `ssl=true` and `requiressl` would otherwise
    /// lower `verify-full` to `require`.
    pub(crate) fn sslmode(&self) -> Result<Option<SslMode>, Error> {
        if !self.has_tls_defaults() {
            return Ok(self.libpqs_sslmode);
        }
        match self.sslmode {
            None => Ok(Some(SslMode::VerifyFull)),
            Some(mode) if !mode.encrypts() && matches!(self.login(), Login::Iam) => {
                Err(Error::configuration(format!(
                    "sslmode={} can send the token unencrypted; remove sslmode (default: verify-full) or \
                     set verify-ca or require",
                    mode.as_str()
                )))
            }
            mode => Ok(mode),
        }
    }

    /// Checks that the parameters can work together. Runs once, after the builder's settings.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_parameters()?;
        let sslmode = self.sslmode()?;
        if self.use_iam == Some(true) && (self.password.is_some() || self.has_supplied_password) {
            return Err(Error::configuration(
                "IAM login is required (iam=on, or require_iam), and the connection string has a \
                 password or the builder sets one; remove one of the two",
            ));
        }
        if matches!(self.login(), Login::Iam) {
            self.check_iam()?;
        }
        self.check_roots(sslmode)?;
        if !self.login().is_guarded() {
            return Ok(());
        }
        if self.get("gssencmode").is_some_and(|mode| mode != "disable") {
            return Err(Error::configuration(
                "gssencmode can replace TLS, which the login requires: remove gssencmode, or set it to disable",
            ));
        }
        if self.has_tls_defaults() {
            self.endpoint()?;
        }
        // A passfile would replace the token or the password. A service could set a host, a user or an
        // sslmode that was not checked.
        for keyword in ["passfile", "service", "servicefile"] {
            if self.get(keyword).is_some() {
                return Err(Error::configuration(format!(
                    "{keyword} cannot be used with IAM login or a password of the builder's: leave it \
                     out, or set iam=off"
                )));
            }
        }
        Ok(())
    }

    /// Rejects parameters that libpq does not support. It would reject them at each connect, and quote them.
    fn check_parameters(&self) -> Result<(), Error> {
        let is_unknown = |(keyword, _): &&(String, String)| !is_keyword_of_libpq(keyword);
        match self.parameters.iter().find(is_unknown) {
            None => Ok(()),
            Some((name, _)) if !self.mentions_password => Err(foreign::unknown_parameter(name)),
            Some(_) => Err(Error::configuration(
                "the connection string has a password, and a keyword that libpq does not support: \
                 correct it, or put single quotes around a password that holds spaces (in a URL, \
                 write %26 for an `&`)",
            )),
        }
    }

    /// Checks what only AWS would reject otherwise, as a refused login without a reason.
    fn check_iam(&self) -> Result<(), Error> {
        let endpoint = self.endpoint()?;
        if endpoint.host().parse::<Ipv6Addr>().is_ok() {
            return Err(Error::configuration(
                "the host to sign for is an IPv6 address, which no token can name: set iam_host to the \
                 database's endpoint",
            ));
        }
        if endpoint.host().contains(':') {
            return Err(Error::configuration(
                "the host to sign for has a port behind a `:`: set the host alone, and the port in port \
                 or iam_port",
            ));
        }
        if let (Some(named), Some(set)) = (endpoint.host_name().region, endpoint.region())
            && named != set
        {
            return Err(Error::configuration(format!(
                "iam_region is {set}, and the host to sign for is in {named}: leave iam_region out, or \
                 correct the host"
            )));
        }
        if let Some(arn) = &self.iam.role_arn
            && !is_role_arn(arn)
        {
            return Err(Error::configuration(
                "iam_role_arn is not the ARN of a role: set one such as \
                 arn:aws:iam::123456789012:role/NAME",
            ));
        }
        Ok(())
    }

    /// Rejects roots that would let too many servers pass with this `sslmode`.
    fn check_roots(&self, sslmode: Option<SslMode>) -> Result<(), Error> {
        let Some(mode) = sslmode.filter(|mode| *mode != SslMode::VerifyFull) else {
            return Ok(());
        };
        if self.sslrootcert() == Some("system") {
            return Err(Error::configuration(
                "sslrootcert=system trusts every public certificate, so libpq takes it with \
                 sslmode=verify-full only: set that, or name a file in sslrootcert",
            ));
        }
        let trusts_carried_roots = self.sslrootcert().is_none() && self.has_tls_defaults();
        if mode == SslMode::VerifyCa
            && trusts_carried_roots
            && matches!(
                self.server()?.host_name().kind,
                HostKind::Proxy | HostKind::Dsql
            )
        {
            return Err(Error::configuration(
                "sslmode=verify-ca accepts every certificate of Amazon's public roots, which anyone can \
                 get, for RDS Proxy and Aurora DSQL: set sslmode=verify-full",
            ));
        }
        Ok(())
    }
}

/// Whether `arn` has the form `arn:PARTITION:iam::ACCOUNT:role/NAME`.
fn is_role_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [scheme, partition, service, region, account, resource] = parts.as_slice() else {
        return false;
    };
    *scheme == "arn"
        && partition.starts_with("aws")
        && *service == "iam"
        && region.is_empty()
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource
            .strip_prefix("role/")
            .is_some_and(|name| !name.is_empty())
}
