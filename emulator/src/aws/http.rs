//! HTTP for AWS's endpoints. They share one port and differ by path.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, DATE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::aws::request::Request;
use crate::aws::{AwsBehaviour, AwsCall, AwsService, Reply, State, metadata, sts};
use crate::error::Error;

/// The maximum size of a request's body.
const BODY_LIMIT: usize = 256 * 1024;

/// How long a client may take to send the headers of a request, and then its body.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The pause after a failed `accept`, which would otherwise fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Listens on a free port. Must be called inside the runtime.
pub(super) fn listen(state: Arc<State>) -> Result<SocketAddr, Error> {
    let failed = |cause| Error::io("no port of 127.0.0.1 is free for AWS's endpoints", cause);
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::spawn(accept_all(state, listener));
    Ok(address)
}

/// Accepts connections until the runtime ends. A failed `accept`, for example for want of file descriptors, is
/// logged and retried.
async fn accept_all(state: Arc<State>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let state = Arc::clone(&state);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(serve(&state, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(READ_LIMIT)
                    .serve_connection(TokioIo::new(tcp), service);
                tokio::spawn(connection);
            }
            Err(error) => {
                tracing::warn!(target: "rds_iam_emulator", "accepting a connection to AWS's endpoints failed: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(state: &State, request: hyper::Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match timeout(READ_LIMIT, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return respond(state, Reply::text(413, "the request is too large")),
        Err(_) => return respond(state, Reply::text(408, "the request is incomplete")),
    };
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    let service = match request.path.as_str() {
        "/" => AwsService::Sts,
        metadata::CONTAINER_PATH => AwsService::Container,
        _ => AwsService::Metadata,
    };
    let behaviour = state.behaviour(service);
    if let AwsBehaviour::Slow(delay) = behaviour {
        sleep(delay).await;
    }
    let (action, parameters) = match service {
        AwsService::Sts => sts::describe(&request),
        _ => (request.path.clone(), HashMap::new()),
    };
    let mut reply = match (service, behaviour) {
        (AwsService::Sts, AwsBehaviour::Failing) => sts::failing(state),
        (AwsService::Sts, AwsBehaviour::Throttled) => sts::throttled(state),
        (_, AwsBehaviour::Failing) => Reply::text(500, "Internal Server Error"),
        (_, AwsBehaviour::Throttled) => Reply::text(429, "Too Many Requests"),
        (AwsService::Sts, _) => sts::answer(state, &request),
        (AwsService::Container, _) => metadata::container(state, &request),
        (AwsService::Metadata, _) => metadata::answer(state, &request),
    };
    if behaviour == AwsBehaviour::Garbled {
        reply.body = reply.body.chars().rev().collect();
    }
    state.record(AwsCall {
        service,
        action,
        parameters,
        status: reply.status,
    });
    respond(state, reply)
}

fn respond(state: &State, reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    // The date of the server's clock. Otherwise hyper would add that of this machine.
    if let Ok(date) = HeaderValue::from_str(&super::http_date(state.clock.now())) {
        response.headers_mut().insert(DATE, date);
    }
    if let Some(seconds) = reply.token_ttl {
        response
            .headers_mut()
            .insert(metadata::TTL_HEADER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use crate::aws::AwsEndpoints;
    use crate::clock::monotonic;

    use super::READ_LIMIT;

    /// Sends `part` of a request and nothing more. Returns what the endpoint sends until it closes the connection.
    async fn answer_to(part: &str) -> String {
        let aws =
            AwsEndpoints::start(<_>::default(), <_>::default(), "eu-west-1".to_owned()).unwrap();
        let address = aws.sts_url().replace("http://", "");
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(part.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The clock of tokio is paused: it advances when all tasks wait, so the limits pass at once.
    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_not_held_for_ever() {
        let real = monotonic();
        let start = tokio::time::Instant::now();
        let head = "POST / HTTP/1.1\r\nhost: sts\r\n";
        assert_eq!(answer_to("").await, "");
        assert_eq!(answer_to(head).await, "");
        let answer = answer_to(&format!("{head}content-length: 9\r\n\r\nAction")).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        let limits = 3 * READ_LIMIT..4 * READ_LIMIT;
        let elapsed = start.elapsed();
        assert!(limits.contains(&elapsed), "closed after {elapsed:?}");
        assert!(
            real.elapsed() < READ_LIMIT,
            "the limit is not of the paused clock"
        );
    }
}
