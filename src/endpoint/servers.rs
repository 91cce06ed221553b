//! Connection strings with several hosts, and the place where each of them is dialled.

use std::net::{IpAddr, SocketAddr};

use super::connection_string::{
    ConnectionString, DEFAULT_PORT, TARGET_SESSION_ATTRS, is_socket, port_number,
};
use crate::error::Error;

const LOAD_BALANCE_HOSTS: &str = "load_balance_hosts";

/// Where one server is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A Unix socket, which the driver finds by itself.
    Driver,
    Address(SocketAddr),
    Name(String, u16),
}

impl ConnectionString {
    /// Returns a connection string for each server, in the order in which they are tried.
    ///
    /// `target_session_attrs=prefer-standby` takes two passes over all hosts, as in libpq: for a standby, and
    /// then for any server.
    pub(crate) fn servers(&self) -> Result<Vec<ConnectionString>, Error> {
        let hosts = self.hosts()?;
        if self.get(TARGET_SESSION_ATTRS) != Some("prefer-standby") {
            return Ok(hosts);
        }
        let pass = |attributes: &'static str| {
            hosts.clone().into_iter().map(move |mut host| {
                host.put(TARGET_SESSION_ATTRS, attributes);
                host
            })
        };
        Ok(pass("standby").chain(pass("any")).collect())
    }

    /// Splits the lists of hosts, addresses and ports. As in libpq, there are as many hosts as addresses, if
    /// both are given, and a single port is that of all hosts.
    fn hosts(&self) -> Result<Vec<ConnectionString>, Error> {
        let list = |keyword: &str| -> Vec<&str> {
            self.get(keyword)
                .map(|value| value.split(',').collect())
                .unwrap_or_default()
        };
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let number = hosts.len().max(addresses.len()).max(1);
        let fits = |list: &Vec<&str>| list.is_empty() || list.len() == number;
        if !fits(&hosts) || !fits(&addresses) || !(fits(&ports) || ports.len() == 1) {
            return Err(Error::configuration(
                "host, hostaddr and port list different numbers of servers: give one port for all, or \
                 as many of each",
            ));
        }
        if number > 1 && (self.iam.host.is_some() || self.iam.port.is_some()) {
            return Err(Error::configuration(
                "iam_host and iam_port name one database, and the connection string several hosts: name \
                 one host, or set host to the databases' own names and hostaddr to what is dialled",
            ));
        }
        let server = |at: usize| {
            let mut server = self.clone();
            for (keyword, list) in [("host", &hosts), ("hostaddr", &addresses), ("port", &ports)] {
                match list.get(at).or(list.first()) {
                    Some(value) => server.put(keyword, value),
                    None => server.remove(keyword),
                }
            }
            server.remove(LOAD_BALANCE_HOSTS);
            server
        };
        Ok((0..number).map(server).collect())
    }

    /// Returns the pass in which this server is tried: where a standby is preferred, any other server comes
    /// second.
    pub(crate) fn pass(&self) -> u8 {
        u8::from(self.get(TARGET_SESSION_ATTRS) == Some("any"))
    }

    /// Returns whether servers and their addresses are tried in random order: `load_balance_hosts=random`.
    pub(crate) fn is_load_balanced(&self) -> Result<bool, Error> {
        match self.get(LOAD_BALANCE_HOSTS) {
            None | Some("disable") => Ok(false),
            Some("random") => Ok(true),
            Some(_) => Err(Error::configuration(
                "load_balance_hosts is neither disable nor random",
            )),
        }
    }

    /// Returns where the one server of this string is dialled.
    pub(crate) fn destination(&self) -> Result<Destination, Error> {
        let port = port_number("port", self.get("port").unwrap_or(DEFAULT_PORT))?;
        if let Some(address) = self.get("hostaddr") {
            if let Ok(address) = address.parse::<IpAddr>() {
                return Ok(Destination::Address((address, port).into()));
            }
            // The system's resolver reads an IPv6 address with a zone, such as fe80::1%eth0.
            if address.contains(':') {
                return Ok(Destination::Name(address.to_owned(), port));
            }
            return Err(Error::configuration(
                "hostaddr is not an IP address: set host for a name",
            ));
        }
        let host = self.get("host").ok_or_else(|| {
            Error::configuration(
                "the connection string names no host: set host to the server's name, or to the folder \
                 of its Unix socket",
            )
        })?;
        if is_socket(host) {
            return Ok(Destination::Driver);
        }
        Ok(match host.parse::<IpAddr>() {
            Ok(address) => Destination::Address((address, port).into()),
            Err(_) => Destination::Name(host.to_owned(), port),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destinations(input: &str) -> Vec<Destination> {
        let servers = ConnectionString::parse(input).unwrap().servers().unwrap();
        let place = |server: &ConnectionString| server.destination().unwrap();
        servers.iter().map(place).collect()
    }

    fn name(host: &str, port: u16) -> Destination {
        Destination::Name(host.to_owned(), port)
    }

    #[test]
    fn lists_of_hosts_addresses_and_ports_are_those_of_libpq() {
        for (input, expected) in [
            ("host=a", vec![name("a", 5432)]),
            ("host=a,b", vec![name("a", 5432), name("b", 5432)]),
            ("host=a,b port=6", vec![name("a", 6), name("b", 6)]),
            ("host=a,b port=6,", vec![name("a", 6), name("b", 5432)]),
            ("postgres://u@a:6,b/d", vec![name("a", 6), name("b", 5432)]),
            (
                "postgres://u@a,b:7/d?port=8",
                vec![name("a", 8), name("b", 8)],
            ),
            (
                "postgres://u@a%2Cb/d",
                vec![name("a", 5432), name("b", 5432)],
            ),
            (
                "postgres://u@[::1]:6,[::2]/d",
                vec![
                    Destination::Address("[::1]:6".parse().unwrap()),
                    Destination::Address("[::2]:5432".parse().unwrap()),
                ],
            ),
            (
                "host=a,b hostaddr=10.0.0.1,10.0.0.2",
                vec![
                    Destination::Address("10.0.0.1:5432".parse().unwrap()),
                    Destination::Address("10.0.0.2:5432".parse().unwrap()),
                ],
            ),
            (
                "host=a hostaddr=fe80::1%eth0",
                vec![name("fe80::1%eth0", 5432)],
            ),
            ("host=/run,a", vec![Destination::Driver, name("a", 5432)]),
        ] {
            assert_eq!(destinations(input), expected, "{input}");
        }
    }

    #[test]
    fn a_preferred_standby_takes_two_passes() {
        let parsed = ConnectionString::parse("host=a,b target_session_attrs=prefer-standby");
        let servers = parsed.unwrap().servers().unwrap();
        let of = |server: &ConnectionString| {
            let host = server.get("host").unwrap().to_owned();
            (host, server.pass())
        };
        let order: Vec<_> = servers.iter().map(of).collect();
        let expected = [("a", 0), ("b", 0), ("a", 1), ("b", 1)];
        assert_eq!(order, expected.map(|(host, pass)| (host.to_owned(), pass)));
        let attributes = servers
            .iter()
            .map(|server| server.get(TARGET_SESSION_ATTRS));
        let expected = ["standby", "standby", "any", "any"].map(Some);
        assert_eq!(attributes.collect::<Vec<_>>(), expected);
    }
}
