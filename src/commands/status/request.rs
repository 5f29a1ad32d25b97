//! One GET to the daemon's API, with limits: what answers there need not be a daemon.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::expose::status::{Document, SCHEMA};
use crate::model::{HttpUrl, format_duration};
use crate::net::{DialError, dial};

const PATH: &str = "/api/v1/status";

/// The longest document that is read, in bytes: some hundred thousand endpoints.
const LONGEST: usize = 256 * 1024 * 1024;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(in crate::commands) enum Fault {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It was not done in time.
    #[error("no whole answer within {}", format_duration(*limit))]
    Timeout {
        /// The limit of the whole question.
        limit: Duration,
    },
    /// What answers does not speak HTTP, or hung up.
    #[error("what answers there hung up or speaks no HTTP: {0}")]
    Http(hyper::Error),
    /// The answer was cut, or too long.
    #[error("the answer cannot be read to its end: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Another status than 200.
    #[error("answered with status {got} instead of 200")]
    Status {
        /// The status.
        got: StatusCode,
    },
    /// The answer is no document of ours.
    #[error("what answers there is no purgewatch, or another release of it: {0}")]
    Document(serde_json::Error),
    /// The document has another layout.
    #[error("its document has schema {got}, and this program reads {SCHEMA}")]
    Schema {
        /// Its `schema`.
        got: u32,
    },
}

impl Fault {
    /// What to do next.
    pub(super) const fn advice(&self) -> &'static str {
        match self {
            Self::Dial(_) | Self::Timeout { .. } => {
                "is it running? systemctl status purgewatch; does it listen elsewhere? name it \
                 with --url, or its configuration with -c"
            }
            Self::Status { got: StatusCode::SERVICE_UNAVAILABLE } => {
                "it is busy or ending: try again, and see journalctl -u purgewatch"
            }
            _ => "is that the daemon's address? name it with --url, or its configuration with -c",
        }
    }
}

/// What the daemon at `url` knows.
///
/// # Errors
/// [`Fault`].
pub(in crate::commands) async fn document(
    url: &HttpUrl,
    limit: Duration,
) -> Result<Document, Fault> {
    let exchanged = timeout(limit, exchange(url, limit)).await;
    let (status, body) = exchanged.map_err(|_| Fault::Timeout { limit })??;
    if status != StatusCode::OK {
        return Err(Fault::Status { got: status });
    }
    let document: Document = serde_json::from_slice(&body).map_err(Fault::Document)?;
    match document.schema {
        SCHEMA => Ok(document),
        got => Err(Fault::Schema { got }),
    }
}

async fn exchange(url: &HttpUrl, limit: Duration) -> Result<(StatusCode, Bytes), Fault> {
    let stream = dial(url.address(), limit).await?.stream;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Fault::Http)?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(PATH);
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(url.authority()) {
        headers.insert(HOST, host);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let agent = concat!("purgewatch/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    let mut answer = pin!(async {
        let (head, body) = sender.send_request(request).await.map_err(Fault::Http)?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(Fault::Body)?;
        Ok((head.status, body.to_bytes()))
    });
    let mut connection = pin!(connection);
    let mut ended = false;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            // An error of it goes to the answer, too.
            _ = &mut connection, if !ended => ended = true,
        }
    }
}
