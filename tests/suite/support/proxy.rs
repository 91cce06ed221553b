//! An HTTP proxy that records its requests, and a server with TLS in front of one without.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// A proxy that connects to `backend` for every requested host.
pub struct RecordingProxy {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl RecordingProxy {
    /// `backend` gets plain requests, and `tls_backend` the requests that clients send through a tunnel.
    pub fn start(backend: SocketAddr, tls_backend: SocketAddr) -> RecordingProxy {
        RecordingProxy::start_at("127.0.0.1:0", backend, tls_backend)
    }

    pub fn start_at(address: &str, backend: SocketAddr, tls_backend: SocketAddr) -> RecordingProxy {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorded = requests.clone();
        serve(listener, move |mut client| {
            let request = read_message(&mut client)?;
            let first = String::from_utf8_lossy(&request);
            let first = first.lines().next().unwrap_or_default().to_owned();
            let is_tunnel = first.starts_with("CONNECT ");
            recorded.lock().push(first);
            if !is_tunnel {
                return pass_on(&request, client, backend);
            }
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            let (mut to, mut from) = (TcpStream::connect(tls_backend)?, client.try_clone()?);
            let (mut back, mut client) = (to.try_clone()?, client);
            thread::spawn(move || io::copy(&mut from, &mut to));
            io::copy(&mut back, &mut client).map(drop)
        });
        RecordingProxy { url, requests }
    }

    /// The first lines of all requests.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

/// Serves `backend` with TLS. Returns the address, and the root certificate for clients.
pub fn with_tls(name: &str, backend: SocketAddr) -> (SocketAddr, String) {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let identity =
        native_tls::Identity::from_pkcs8(certificate.as_bytes(), key.as_bytes()).unwrap();
    let acceptor = native_tls::TlsAcceptor::new(identity).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, move |client| {
        let mut client = acceptor.accept(client).map_err(io::Error::other)?;
        let request = read_message(&mut client)?;
        pass_on(&request, client, backend)
    });
    (address, certificate)
}

/// Responds to each request with `body`.
pub fn respond(listener: TcpListener, body: String) {
    serve(listener, move |mut client| {
        read_message(&mut client)?;
        let length = body.len();
        write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    });
}

/// Ends with the process.
fn serve(
    listener: TcpListener,
    handle: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) {
    thread::spawn(move || {
        let handle = Arc::new(handle);
        for client in listener.incoming().map_while(Result::ok) {
            let handle = handle.clone();
            // The client reports a broken connection.
            thread::spawn(move || handle(client));
        }
    });
}

fn pass_on(request: &[u8], mut client: impl Write, backend: SocketAddr) -> io::Result<()> {
    let mut backend = TcpStream::connect(backend)?;
    backend.write_all(request)?;
    client.write_all(&read_message(&mut backend)?)?;
    client.flush()
}

/// Reads one request or response: its head, and as many bytes as `Content-Length` says.
fn read_message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let mut byte = [0];
    while !message.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        message.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&message).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    message.extend(body);
    Ok(message)
}
