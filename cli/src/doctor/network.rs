//! The way to the server: its address, and whether anything answers there.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Patient;
use super::step::{Outcome, Trouble};

/// How long one address may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn resolve(patient: &Patient) -> Outcome<Vec<SocketAddr>> {
    let host = patient.parameter("host");
    let given = patient.parameter("hostaddr");
    let dialled = if given.is_empty() { host } else { given };
    let port: u16 = patient.parameter("port").parse().unwrap_or(5432);
    let found = (dialled, port)
        .to_socket_addrs()
        .map(Iterator::collect::<Vec<_>>)
        .and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::other("there is none")),
            false => Ok(addresses),
        });
    let addresses = found.map_err(|error| {
        Trouble::new(
            format!("{dialled} has no address here: {error}"),
            "correct the host name; that of a private database is known inside its VPC only",
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
        ", as hostaddr says"
    };
    Ok((addresses, format!("{}{how}", text.join(", ")).into()))
}

pub(super) fn dial(addresses: &[SocketAddr]) -> Outcome<TcpStream> {
    let mut failures = Vec::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_LIMIT) {
            Ok(stream) => return Ok((stream, format!("connected to {address}").into())),
            Err(error) => failures.push((address, error)),
        }
    }
    let is_refused = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::ConnectionRefused;
    let next = if failures.iter().all(is_refused) {
        "see that the database is running, and that this is its port"
    } else {
        "let this machine in: its address in the database's security group, and a route to the VPC"
    };
    let failures: Vec<String> = failures
        .iter()
        .map(|(address, error)| format!("{address}: {error}"))
        .collect();
    Err(Trouble::new(
        format!("nothing answers at {}", failures.join("; ")),
        next,
    ))
}
