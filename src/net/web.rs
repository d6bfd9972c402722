//! HTTP towards a backend.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::{Instant, timeout_at};

use super::{
    answer::{self, KEPT_BYTES_MAX},
    connector::Connector,
    proxies::Protocol,
    with_causes,
};

/// As the specification asks of exporters: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent>.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("Fuseboard/", env!("CARGO_PKG_VERSION")));

/// Sends requests to backends and keeps connections for the next ones.
#[derive(Clone)]
pub struct WebClient {
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    connector: Connector,
    timeout: Duration,
}

/// What a backend answered.
#[derive(Debug)]
pub struct Answered {
    /// HTTP's status.
    pub status: StatusCode,
    /// The head.
    pub headers: HeaderMap,
    /// The body, decompressed, or why it can't be read: what is longer than 4 MiB is not, for one.
    pub body: Result<Bytes, String>,
}

impl WebClient {
    /// A client for these URLs that trusts the system's certificates.
    ///
    /// # Errors
    /// For people: those can't be read, or a proxy that the environment names can't be used.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a Uri>, timeout: Duration) -> Result<Self, String> {
        let connector = Connector::new(Protocol::Http, urls, timeout)?;
        let tls = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| format!("the system's certificates: {error}"))?;
        let protected = tls.https_or_http().enable_all_versions().wrap_connector(connector.clone());
        let client = Client::builder(TokioExecutor::new()).timer(TokioTimer::new()).pool_timer(TokioTimer::new()).build(protected);
        Ok(Self { client, connector, timeout })
    }

    /// Posts a body. Redirects are not followed: they could carry credentials elsewhere.
    ///
    /// # Errors
    /// For people: why there is no answer.
    pub async fn post(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> Result<Answered, String> {
        let mut request = Request::post(uri.clone()).body(Full::new(body)).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        if let Some(credentials) = self.connector.credentials(uri) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials);
        }
        let until = Instant::now().checked_add(self.timeout);
        let answered = within(until, self.client.request(request)).await;
        let answered = answered.ok_or_else(|| format!("no answer within {:?}", self.timeout))?;
        let (head, mut body) = answered.map_err(|error| with_causes(&error))?.into_parts();
        // Whatever the body is, the status stands: to send again what was taken would double it.
        let body = match within(until, answer::read(&mut body, KEPT_BYTES_MAX)).await {
            Some(read) => read.bytes.and_then(|bytes| inflated(&head.headers, bytes)),
            None => Err(format!("it did not come to its end within {:?}", self.timeout)),
        };
        Ok(Answered { status: head.status, headers: head.headers, body })
    }
}

/// A body without its compression; no backend was asked for one, and some compress all the same.
fn inflated(headers: &HeaderMap, body: Bytes) -> Result<Bytes, String> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !body.is_empty() => answer::inflated(&body, encoding.to_str().unwrap_or("?")),
        _ => Ok(body),
    }
}

/// Waits until then at the most; for as long as it takes if there is no such time.
async fn within<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => timeout_at(until, future).await.ok(),
        None => Some(future.await),
    }
}
