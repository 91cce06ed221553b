//! The HTTP client with which the AWS SDK fetches credentials: HTTP/1.1, with TLS by the system's library.
//!
//! The SDK's default client brings rustls and aws-lc, which are a third of the work of an application's first
//! build. Credentials are fetched a few times an hour, so that each request has a connection of its own, and
//! nothing is kept between them.

mod last_request;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::{Request, Uri};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

pub(crate) use self::last_request::{LastRequest, Outcome};

/// The time limit of one TCP connection and TLS handshake, if the SDK sets none.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The client. Its proxies are those of the environment at the time of its creation.
#[derive(Clone)]
pub(crate) struct Client {
    proxies: Arc<Matcher>,
    /// Created on first use: reading the system's root certificates takes time, and not every source of credentials
    /// has TLS.
    tls: Arc<OnceLock<tokio_native_tls::TlsConnector>>,
    last_request: LastRequest,
}

impl Client {
    /// Each request sets `last_request`.
    pub(crate) fn from_env(last_request: LastRequest) -> Client {
        Client {
            proxies: Arc::new(Matcher::from_env()),
            tls: Arc::default(),
            last_request,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            client: self.clone(),
            connect_limit: settings.connect_timeout().unwrap_or(CONNECT_LIMIT),
            read_limit: settings.read_timeout(),
        })
    }
}

#[derive(Clone, Debug)]
struct Connector {
    client: Client,
    connect_limit: Duration,
    /// From the request to the headers of the response.
    read_limit: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let uri = request.uri().parse::<Uri>();
            let destination = uri.map_err(|_| invalid("the URL is not valid"));
            let address = destination
                .and_then(|uri| Destination::of(&uri))?
                .authority();
            let last_request = &connector.client.last_request;
            last_request.begin(&address);
            let result = connector.send(request).await;
            last_request.end(&address, &result);
            result
        })
    }
}

/// A connection of any kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Stream = Box<dyn Io>;

/// The destination of a request.
struct Destination {
    host: String,
    port: u16,
    is_tls: bool,
}

impl Destination {
    fn of(uri: &Uri) -> Result<Destination, ConnectorError> {
        let host = uri.host().ok_or_else(|| invalid("the URL has no host"))?;
        let is_tls = uri.scheme_str() == Some("https");
        Ok(Destination {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
        })
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether this is an address of the machine itself or of its host: the credentials endpoints of ECS, EKS and
    /// EC2, and loopback. They are not reachable through a proxy, which would also see the tokens of containers.
    /// [AWS SDK reference, container credential provider and IMDS]
    fn is_local(&self) -> bool {
        match self.host.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => {
                // fd00:ec2::/32 has EC2's metadata and EKS's agent.
                let is_aws = matches!(address.segments(), [0xfd00, 0x0ec2, ..]);
                address.is_loopback() || address.is_unicast_link_local() || is_aws
            }
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x();
        let mut request: Request<SdkBody> =
            request.map_err(|error| ConnectorError::user(error.into()))?;
        let destination = Destination::of(request.uri())?;
        let proxy = match destination.is_local() {
            true => None,
            false => self.client.proxies.intercept(request.uri()),
        };
        let host = request.uri().authority().map(|it| it.as_str().to_owned());
        if let Some(host) = host.and_then(|it| HeaderValue::try_from(it).ok()) {
            request.headers_mut().entry(HOST).or_insert(host);
        }
        let stream = match &proxy {
            None => self.connect(&destination).await?,
            Some(proxy) => {
                if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
                    return Err(ConnectorError::user(UnsupportedProxy.into()));
                }
                let stream = self.connect(&Destination::of(proxy.uri())?).await?;
                let authorization = proxy.basic_auth().cloned();
                if destination.is_tls {
                    self.tunnel(stream, &destination, authorization).await?
                } else {
                    if let Some(authorization) = authorization {
                        let headers = request.headers_mut();
                        headers.insert(PROXY_AUTHORIZATION, authorization);
                    }
                    stream
                }
            }
        };
        if proxy.is_none() || destination.is_tls {
            // Only a proxy gets the whole URL.
            let path = request.uri().path_and_query().map_or("/", |it| it.as_str());
            *request.uri_mut() = path.parse().map_err(|_| invalid("the URL has no path"))?;
        }
        let mut sender = handshake(stream).await?;
        let answer = sender.send_request(request);
        let answer = match self.read_limit {
            Some(limit) => within(limit, "the response", answer).await?,
            None => answer.await,
        };
        let response = answer.map_err(broken)?.map(SdkBody::from_body_1_x);
        HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
    }

    /// Opens a connection, with TLS if the destination has it.
    async fn connect(&self, destination: &Destination) -> Result<Stream, ConnectorError> {
        let stream = self.dial(destination).await?;
        match destination.is_tls {
            true => self.encrypt(Box::new(stream), &destination.host).await,
            false => Ok(Box::new(stream)),
        }
    }

    /// Tries the addresses of the host one by one, with an equal share of the time for each.
    async fn dial(&self, destination: &Destination) -> Result<TcpStream, ConnectorError> {
        let names = lookup_host((destination.host.as_str(), destination.port));
        let found = within(self.connect_limit, "the resolution of its name", names).await?;
        let addresses: Vec<_> = found.map_err(|error| at(destination, error))?.collect();
        let share = self.connect_limit / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut failure = invalid("the host has no address");
        for address in addresses {
            match within(share, "the TCP connection", TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = at(destination, error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn encrypt(&self, stream: Stream, host: &str) -> Result<Stream, ConnectorError> {
        let connector = match self.client.tls.get() {
            Some(connector) => connector,
            None => {
                let connector = native_tls::TlsConnector::new();
                let connector =
                    connector.map_err(|error| ConnectorError::other(error.into(), None))?;
                self.client.tls.get_or_init(|| connector.into())
            }
        };
        let handshake = connector.connect(host, stream);
        let encrypted = within(self.connect_limit, "the TLS handshake", handshake).await?;
        let encrypted = encrypted.map_err(|error| ConnectorError::io(error.into()))?;
        Ok(Box::new(encrypted))
    }

    /// Makes a proxy connect to the destination, and negotiates TLS with the destination.
    async fn tunnel(
        &self,
        proxy: Stream,
        destination: &Destination,
        authorization: Option<HeaderValue>,
    ) -> Result<Stream, ConnectorError> {
        let authority = destination.authority();
        let mut request = Request::connect(&authority).header(HOST, &authority);
        if let Some(authorization) = authorization {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let request = request.body(SdkBody::empty());
        let request = request.map_err(|error| ConnectorError::user(error.into()))?;
        let mut sender = handshake(proxy).await?;
        let answer = sender.send_request(request);
        let answer = within(self.connect_limit, "the proxy", answer).await?;
        let answer = answer.map_err(broken)?;
        if !answer.status().is_success() {
            let message = format!(
                "the proxy refused to connect to {authority}: {}",
                answer.status()
            );
            return Err(ConnectorError::io(message.into()));
        }
        let tunnel = hyper::upgrade::on(answer).await.map_err(broken)?;
        let tunnel = Box::new(TokioIo::new(tunnel));
        self.encrypt(tunnel, &destination.host).await
    }
}

/// The environment names a SOCKS proxy.
#[derive(Debug)]
pub(crate) struct UnsupportedProxy;

impl fmt::Display for UnsupportedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the proxy of the environment is a SOCKS proxy, which is not supported; set HTTPS_PROXY to an HTTP proxy, \
             or NO_PROXY to the host of the request",
        )
    }
}

impl std::error::Error for UnsupportedProxy {}

async fn handshake(stream: Stream) -> Result<SendRequest<SdkBody>, ConnectorError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends with the response, or when the sender is dropped.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Result<T, ConnectorError> {
    timeout(limit, work).await.map_err(|_| {
        let message = format!("{what} took longer than {limit:?}");
        ConnectorError::timeout(message.into())
    })
}

fn at(destination: &Destination, error: io::Error) -> ConnectorError {
    let message = format!("{}: {error}", destination.authority());
    ConnectorError::io(io::Error::new(error.kind(), message).into())
}

fn broken(error: hyper::Error) -> ConnectorError {
    ConnectorError::io(error.into())
}

fn invalid(message: &'static str) -> ConnectorError {
    ConnectorError::user(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_recognised() {
        let is_local = |url: &str| Destination::of(&url.parse().unwrap()).unwrap().is_local();
        for url in [
            "http://169.254.170.2/v2/credentials",
            "http://169.254.170.23/v1/credentials",
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://[fd00:ec2::254]/latest",
            "http://[fe80::1]/",
            "http://[::1]:1338/",
            "http://127.0.0.1:51679/",
            "http://LOCALHOST:51679/",
        ] {
            assert!(is_local(url), "{url}");
        }
        for url in [
            "https://sts.eu-west-1.amazonaws.com/",
            "http://169.253.170.2/",
            "http://169.254.170.2.example.com/",
            "http://[fd00:ec3::23]/",
            "http://10.0.0.1/",
        ] {
            assert!(!is_local(url), "{url}");
        }
    }
}
