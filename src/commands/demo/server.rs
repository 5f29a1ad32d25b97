//! The demo's own origin, and a client to look at it through the cache.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The most that is read of an answer.
const LIMIT: usize = 4 * 1_024 * 1_024;

/// A recommendations service whose answer may be cached for an hour.
#[derive(Debug)]
pub(super) struct Origin {
    address: SocketAddr,
    version: Arc<AtomicU32>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub(super) async fn open() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let version = Arc::new(AtomicU32::new(1));
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, version.clone()));
        Ok(Self { address, version, _tasks: tasks })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Deploys the next version.
    pub(super) fn deploy(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, version: Arc<AtomicU32>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let version = version.clone();
                open.spawn(async move {
                    let answer = service_fn(async |_| {
                        Ok::<_, Infallible>(recommendations(version.load(Ordering::Relaxed)))
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    // The peer may close at any time.
                    let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

fn recommendations(version: u32) -> Response<Full<Bytes>> {
    let products = match version {
        1 => "\"the old lamp (discontinued)\"",
        _ => "\"the new lamp\"",
    };
    let body = format!("{{\"version\":{version},\"recommended\":[{products}]}}\n");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    headers.insert("cache-control", http::HeaderValue::from_static("max-age=3600"));
    response
}

/// Fetches a path: the headers and the body. `None` when there was no answer within five seconds.
pub(super) async fn get(
    address: SocketAddr,
    host: &str,
    path: &str,
) -> Option<(http::HeaderMap, String)> {
    let fetched = timeout(Duration::from_secs(5), async {
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut send, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new()).ok()?;
        let response = send.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LIMIT).collect().await.ok()?.to_bytes();
        Some((head.headers, String::from_utf8_lossy(&body).into_owned()))
    });
    fetched.await.ok().flatten()
}
