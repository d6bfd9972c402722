//! HTTP towards a backend.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::{
    door::{Limits, read},
    with_causes,
};

/// As the specification asks of exporters: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent>.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Fuseboard/", env!("CARGO_PKG_VERSION")));

/// The most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Sends requests to backends and keeps connections for the next ones.
#[derive(Clone, Debug)]
pub struct WebClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// What a backend answered.
#[derive(Debug)]
pub struct Answered {
    /// HTTP's status.
    pub status: StatusCode,
    /// The head.
    pub headers: HeaderMap,
    /// The body, at most 4 MiB; empty if it was larger or broke off.
    pub body: Bytes,
}

impl WebClient {
    /// A client that trusts the system's certificates.
    ///
    /// # Errors
    /// For people: those can't be read.
    pub fn new(timeout: Duration) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout));
        let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| format!("the system's certificates: {error}"))?;
        let connector = tls.https_or_http().enable_all_versions().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).timer(TokioTimer::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, timeout })
    }

    /// Posts a body. Redirects are not followed: they could carry credentials elsewhere.
    ///
    /// # Errors
    /// For people: why there is no answer.
    pub async fn post(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answered, String> {
        let mut request = Request::post(uri.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        let until = Instant::now().checked_add(self.timeout);
        let answered = within(until, self.client.request(request)).await;
        let answered = answered.ok_or_else(|| format!("no answer within {:?}", self.timeout))?;
        let (head, mut body) = answered.map_err(|error| with_causes(&error))?.into_parts();
        // Whatever it says beyond the limits, the status stands: to send again what was taken would double it.
        let mut free = |_| Ok(());
        let body = within(until, read(&mut body, Limits { request_bytes: ANSWER_BYTES_MAX }, &mut free)).await;
        Ok(Answered { status: head.status, headers: head.headers, body: body.and_then(Result::ok).unwrap_or_default() })
    }
}

/// Waits until then at the most; for as long as it takes if there is no such time.
async fn within<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => timeout_at(until, future).await.ok(),
        None => Some(future.await),
    }
}
