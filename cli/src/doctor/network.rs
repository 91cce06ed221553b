//! Name resolution and the TCP connection.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Context;
use super::step::{Problem, StepResult};

pub(super) fn resolve(context: &Context) -> StepResult<Vec<SocketAddr>> {
    let host = context.parameter("host");
    let given = context.parameter("hostaddr");
    let dialled = if given.is_empty() { host } else { given };
    let port: u16 = context.parameter("port").parse().unwrap_or(5432);
    let found = (dialled, port)
        .to_socket_addrs()
        .map(Iterator::collect::<Vec<_>>)
        .and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::other("no addresses")),
            false => Ok(addresses),
        });
    let addresses = found.map_err(|error| {
        Problem::new(
            format!("{dialled} does not resolve: {error}"),
            "correct the host name; the name of a private database may resolve inside its VPC only",
        )
    })?;
    let mut text: Vec<String> = Vec::new();
    for address in &addresses {
        let address = address.ip().to_string();
        if !text.contains(&address) {
            text.push(address);
        }
    }
    let how = if given.is_empty() {
        ""
    } else {
        ", from hostaddr"
    };
    Ok((addresses, format!("{}{how}", text.join(", ")).into()))
}

/// Connects to the first address that answers. `limit` is for each, as in libpq.
pub(super) fn dial(addresses: &[SocketAddr], limit: Duration) -> StepResult<TcpStream> {
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, limit) {
            Ok(stream) => return Ok((stream, format!("connected to {address}").into())),
            Err(error) => failures.push((address, error)),
        }
    }
    let is_refused = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::ConnectionRefused;
    let next = if failures.iter().all(is_refused) {
        "check that the database is running, and that the port is correct"
    } else {
        "allow this machine's address in the database's security group, and check the route to the VPC"
    };
    let failures: Vec<String> = failures
        .iter()
        .map(|(address, error)| format!("{address}: {error}"))
        .collect();
    Err(Problem::new(
        format!("no TCP connection to {}", failures.join("; ")),
        next,
    ))
}
