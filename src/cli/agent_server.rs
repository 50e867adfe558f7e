//! The HTTP server of the agent: metrics, and the probes of its health. It runs on a thread of its own, which sleeps until
//! a client connects.

use std::{
    convert::Infallible,
    future::ready,
    io,
    net::{SocketAddr, TcpListener as BlockingListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::agent_metrics::AgentMetrics;
use crate::error::Error;
use crate::text::OsError;

/// The time for a request and its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The number of connections at the same time. Others wait.
const MAX_CONNECTIONS: usize = 16;
/// The pause after a connection could not be accepted, such as because too many files are open.
const PAUSE: Duration = Duration::from_secs(1);

/// The version of the text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const LINE_TYPE: &str = "text/plain; charset=utf-8";

/// Listens on `address`, and answers requests on another thread.
///
/// # Errors
/// Returns an error if the address is in use, not one of this node, or not permitted.
pub(super) fn serve(address: SocketAddr, metrics: Arc<AgentMetrics>) -> Result<(), Error> {
    let cannot = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                Some("another program, or another agent, is listening there; choose another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                Some("this node does not have that address; use one of its own, 0.0.0.0 or [::]")
            }
            io::ErrorKind::PermissionDenied => Some("choose a port above 1023"),
            _ => None,
        };
        Error::unexpected(format!("cannot serve metrics on {address}: {}", OsError(&error)))
            .with_hint_if(hint.map(ToOwned::to_owned))
    };
    let listener = BlockingListener::bind(address).map_err(cannot)?;
    listener.set_nonblocking(true).map_err(cannot)?;
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(cannot)?;
    let listener = {
        let _context = runtime.enter();
        TcpListener::from_std(listener).map_err(cannot)?
    };
    let work = move || run(&runtime, &listener, &metrics);
    thread::Builder::new().name("metrics".to_owned()).spawn(work).map(|_| ()).map_err(cannot)
}

fn run(runtime: &Runtime, listener: &TcpListener, metrics: &Arc<AgentMetrics>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    runtime.block_on(async {
        loop {
            let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            let metrics = Arc::clone(metrics);
            tokio::spawn(async move {
                let answer =
                    |request: Request<Incoming>| ready(Ok::<_, Infallible>(answer(&request, &metrics)));
                // Each connection ends after one answer, so that clients cannot occupy all of them.
                let connection = http1::Builder::new()
                    .keep_alive(false)
                    .header_read_timeout(None)
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                let _ = timeout(TIMEOUT, connection).await;
                drop(place);
            });
        }
    });
}

fn answer(request: &Request<Incoming>, metrics: &AgentMetrics) -> Response<String> {
    let probe = |(is_good, line): (bool, String)| {
        let status = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        response(status, LINE_TYPE, format!("{line}\n"))
    };
    let path = request.uri().path();
    if !["/metrics", "/healthz", "/readyz", "/currentz"].contains(&path) {
        return response(
            StatusCode::NOT_FOUND,
            LINE_TYPE,
            "Not found: see /metrics, /healthz, /readyz and /currentz\n".to_owned(),
        );
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal =
            response(StatusCode::METHOD_NOT_ALLOWED, LINE_TYPE, "Only GET and HEAD are allowed\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/healthz" => probe(metrics.is_healthy(Instant::now())),
        "/readyz" => probe(metrics.is_ready(Instant::now())),
        "/currentz" => probe(metrics.is_current(Instant::now())),
        _ => match metrics.text() {
            Ok(text) => response(StatusCode::OK, METRICS_TYPE, text),
            Err(error) => {
                response(StatusCode::INTERNAL_SERVER_ERROR, LINE_TYPE, format!("{}\n", error.message))
            }
        },
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
