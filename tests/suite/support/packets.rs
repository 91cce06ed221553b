//! Loss of packets on this process's own sockets, on Linux. The benchmarks use this file as well.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// Lets the kernel drop all packets that arrive at `port`, in connections that are open now. Acknowledgements stop
/// too, as those of a machine without power.
pub(crate) fn ignore_packets_at(port: u16) -> bool {
    /// BPF's instruction `ret 0`: keep no byte of the packet.
    const RETURN: u16 = 6;
    let of_server = |local: SocketAddr, _: SocketAddr| local.port() == port;
    let Some(sockets) = own_sockets(of_server) else {
        return false;
    };
    assert!(!sockets.is_empty());
    for socket in sockets {
        let socket = socket2::SockRef::from(&socket);
        let drop_all = [socket2::SockFilter::new(RETURN, 0, 0, 0)];
        if let Err(error) = socket.attach_filter(&drop_all) {
            println!("skipped: a sandbox keeps this process from filtering packets: {error}");
            return false;
        }
    }
    true
}

/// This process's open TCP connections whose own address and peer satisfy `are_meant`. `None` if a sandbox hides
/// them.
pub(crate) fn own_sockets(
    are_meant: impl Fn(SocketAddr, SocketAddr) -> bool,
) -> Option<Vec<OwnedFd>> {
    use rustix::net::{getpeername, getsockname};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    // A duplicate that another thread makes meanwhile would keep a closed connection open.
    static EXAMINING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = EXAMINING.lock().unwrap_or_else(PoisonError::into_inner);
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    if let Err(error) = pidfd_getfd(&process, 2, PidfdGetfdFlags::empty()) {
        println!("skipped: a sandbox keeps this process from examining its sockets: {error}");
        return None;
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let descriptors = descriptors.filter_map(|entry| {
        let name = entry.unwrap().file_name();
        let number = name.to_str().unwrap().parse().unwrap();
        // Another test may have closed it since.
        pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()
    });
    let connection = |socket: OwnedFd| {
        let local = SocketAddr::try_from(getsockname(&socket).ok()?).ok()?;
        let peer = SocketAddr::try_from(getpeername(&socket).ok()??).ok()?;
        are_meant(local, peer).then_some(((local, peer), socket))
    };
    // By their addresses, since a copy that is made here can take the number of a descriptor that another test has
    // closed, and be found again.
    let connections: HashMap<_, _> = descriptors.filter_map(connection).collect();
    Some(connections.into_values().collect())
}
