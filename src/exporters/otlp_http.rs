//! `otlp_http`: OTLP over HTTP, in protobuf or JSON.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent};
use crate::{
    clock::Clock,
    config::{Secret, Span, schema_of},
    net::{
        ClientTls, Encoding,
        http::MediaType,
        web::{Answered, WebClient},
    },
    otlp::{Signal, json},
    pipeline::{Factory, Faults, Future, Instance, Parsed, Payload, Role, Section},
};

/// How requests are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Binary.
    #[default]
    Proto,
    /// Text.
    Json,
}

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Base URL; `/v1/traces`, `/v1/metrics` or `/v1/logs` is appended. User name and password are sent as a header.
    endpoint: String,
    /// Whole URL for traces, in place of `endpoint`.
    traces_endpoint: Option<String>,
    /// Whole URL for metrics, in place of `endpoint`.
    metrics_endpoint: Option<String>,
    /// Whole URL for logs, in place of `endpoint`.
    logs_endpoint: Option<String>,
    /// `proto` or `json`.
    encoding: Format,
    /// TLS settings; an endpoint without a scheme takes `http://` where `insecure` is set, else `https://`.
    tls: ClientTls,
    /// Sent with every request.
    headers: BTreeMap<String, Secret>,
    /// `gzip`, `zstd` or `none`.
    compression: Encoding,
    /// The longest one attempt may take; 0 means no limit.
    timeout: Span,
    /// Queue.
    sending_queue: SendingQueue,
    /// Retry.
    retry_on_failure: RetryOnFailure,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            traces_endpoint: None,
            metrics_endpoint: None,
            logs_endpoint: None,
            encoding: Format::Proto,
            tls: ClientTls::default(),
            headers: BTreeMap::new(),
            compression: Encoding::Gzip,
            timeout: Span::secs(30),
            sending_queue: SendingQueue::default(),
            retry_on_failure: RetryOnFailure::default(),
        }
    }
}

/// What is known of `otlp_http` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Exporters,
    name: "otlp_http",
    aliases: &["otlphttp"],
    about: "Sends OTLP over HTTP, in protobuf or JSON, to Prometheus, Mimir, Loki or any other backend.",
    roles: &[Role { section: Section::Exporters, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let mut faults = Faults::default();
    let urls = Urls::of(&config, &mut faults);
    let headers = faults.note("headers", super::headers(&config.headers));
    let (Some(urls), Some(mut headers)) = (urls, headers) else { return Err(faults) };
    let media = if config.encoding == Format::Json { MediaType::Json } else { MediaType::Protobuf };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
    if let Some(encoding) = config.compression.header() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    let sends_to = urls.all().map(Uri::to_string).collect();
    let warnings = config.sending_queue.warnings();
    let shares_queue_room = config.sending_queue.shares_room();
    let parsed = Parsed::new(config, move |config, setup| {
        let client = WebClient::new(urls.all(), super::limit(config.timeout))?;
        let clock = Arc::clone(&setup.clock);
        let sender = OverHttp { client, urls, headers, encoding: config.encoding, compression: config.compression, clock };
        let sending = Sending::new(setup, config.sending_queue, config.retry_on_failure, sender);
        Ok(Instance::Exporter(Arc::new(sending)))
    })?;
    Ok(Parsed { sends_to, warnings, shares_queue_room, ..parsed })
}

impl Config {
    /// An endpoint as a URL with scheme and host, and what it holds beside that.
    fn target(&self, written: &str) -> Result<Target, String> {
        let (written, authorization) = super::credentials(written);
        let with_scheme = match written.split_once("://") {
            Some(("http" | "https", _)) => written.to_string(),
            Some((other, _)) => return Err(format!("the scheme of an endpoint is http or https, not `{other}`")),
            None => format!("{}://{written}", if self.tls.insecure { "http" } else { "https" }),
        };
        let url: Uri = with_scheme.parse().map_err(|error| format!("`{with_scheme}` is no URL: {error}"))?;
        if url.host().is_none_or(str::is_empty) {
            return Err(format!("`{with_scheme}` names no host"));
        }
        Ok(Target { url, authorization })
    }
}

/// Where telemetry goes.
#[derive(Clone)]
struct Target {
    url: Uri,
    /// From the user name and password that were written in the URL.
    authorization: Option<HeaderValue>,
}

impl Target {
    /// This place with a path behind it.
    fn below(&self, path: &str) -> Option<Self> {
        let url = format!("{}/{path}", self.url.to_string().trim_end_matches('/')).parse().ok()?;
        Some(Self { url, authorization: self.authorization.clone() })
    }
}

/// Where each signal goes.
struct Urls {
    traces: Option<Target>,
    metrics: Option<Target>,
    logs: Option<Target>,
}

impl Urls {
    fn of(config: &Config, faults: &mut Faults) -> Option<Self> {
        let own = [&config.traces_endpoint, &config.metrics_endpoint, &config.logs_endpoint];
        if config.endpoint.is_empty() && own.iter().all(|endpoint| endpoint.is_none()) {
            return faults.note("endpoint", Err("is missing: write the backend's base URL, such as http://localhost:4318".to_owned()));
        }
        let base = match config.endpoint.as_str() {
            "" => Ok(None),
            base => config.target(base.trim_end_matches('/')).map(Some),
        };
        let base = faults.note("endpoint", base).flatten();
        let mut url = |key: &str, whole: &Option<String>, signal: Signal| match whole {
            Some(whole) => faults.note(key, config.target(whole)),
            None => base.as_ref().and_then(|base| base.below(&format!("v1/{signal}"))),
        };
        let traces = url("traces_endpoint", &config.traces_endpoint, Signal::Traces);
        let metrics = url("metrics_endpoint", &config.metrics_endpoint, Signal::Metrics);
        let logs = url("logs_endpoint", &config.logs_endpoint, Signal::Logs);
        faults.0.is_empty().then_some(Self { traces, metrics, logs })
    }

    fn all(&self) -> impl Iterator<Item = &Uri> {
        [&self.traces, &self.metrics, &self.logs].into_iter().flatten().map(|target| &target.url)
    }

    const fn of_signal(&self, signal: Signal) -> Option<&Target> {
        match signal {
            Signal::Traces => self.traces.as_ref(),
            Signal::Metrics => self.metrics.as_ref(),
            Signal::Logs => self.logs.as_ref(),
        }
    }
}

struct OverHttp {
    client: WebClient,
    urls: Urls,
    headers: HeaderMap,
    encoding: Format,
    compression: Encoding,
    clock: Arc<dyn Clock>,
}

/// Requests larger than this are written and compressed away from the threads that serve.
const ASIDE_BYTES: usize = 256 << 10;

impl Sender for OverHttp {
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            let Some(target) = self.urls.of_signal(batch.signal) else {
                return Err(Failure::Permanent(format!("no endpoint for {}", batch.signal)));
            };
            let write = || self.body(batch);
            let body = if batch.len() > ASIDE_BYTES { tokio::task::block_in_place(write) } else { write() };
            let body = body.map_err(Failure::Permanent)?;
            let mut headers = self.headers.clone();
            if let Some(authorization) = &target.authorization {
                headers.entry(header::AUTHORIZATION).or_insert_with(|| authorization.clone());
            }
            match self.client.post(&target.url, headers, body).await {
                Ok(answered) if answered.status.is_success() => Ok(partial_success(batch.signal, &answered).unwrap_or_else(Sent::with_unread_answer)),
                Ok(answered) => Err(failure(&answered, self.clock.now())),
                Err(reason) => Err(Failure::Retryable { reason, after: None }),
            }
        })
    }
}

impl OverHttp {
    fn body(&self, batch: &Payload) -> Result<Bytes, String> {
        let joined = batch.joined();
        let body = match self.encoding {
            Format::Proto => joined,
            Format::Json => json::from_protobuf(batch.signal, &joined).map_err(|error| error.to_string())?.into(),
        };
        self.compression.deflate(body).map_err(|error| format!("compression failed: {error}"))
    }
}

/// What the answer to a request that was taken says of it, or why that can't be read.
fn partial_success(signal: Signal, answered: &Answered) -> Result<Sent, String> {
    let body = answered.body.as_ref().map_err(Clone::clone)?;
    let written = answered.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    match (written, written.and_then(MediaType::named)) {
        _ if body.is_empty() => Ok(Sent::default()),
        (_, Some(MediaType::Json)) => partial_success_in_json(body),
        (None, _) | (_, Some(MediaType::Protobuf)) => super::answer::partial_success(signal, body),
        (Some(other), None) => Err(format!("its Content-Type is `{other}`, which is no answer of OTLP")),
    }
}

fn partial_success_in_json(body: &[u8]) -> Result<Sent, String> {
    let said: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| format!("it is no answer of OTLP in JSON: {error}"))?;
    let part = said.get("partialSuccess");
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"]
        .into_iter()
        .find_map(|name| part?.get(name))
        .and_then(|number| number.as_u64().or_else(|| number.as_str()?.parse().ok()));
    let message = part.and_then(|part| part.get("errorMessage")).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    Ok(Sent { rejected: rejected.and_then(|number| usize::try_from(number).ok()).unwrap_or_default(), message, unread: None })
}

/// Which statuses may be tried again: <https://opentelemetry.io/docs/specs/otlp/#failures-1>.
fn failure(answered: &Answered, now: u64) -> Failure {
    let body = answered.body.as_deref().unwrap_or_default();
    let said: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect();
    let reason = format!("HTTP {}: {said}", answered.status);
    match answered.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            let after = answered.headers.get(header::RETRY_AFTER).and_then(|after| retry_after(after.to_str().ok()?.trim(), now));
            Failure::Retryable { reason, after }
        }
        _ => Failure::Permanent(reason),
    }
}

/// `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(text: &str, now: u64) -> Option<Duration> {
    let until = |date: SystemTime| date.duration_since(UNIX_EPOCH + Duration::from_nanos(now)).ok();
    text.parse().ok().map(Duration::from_secs).or_else(|| until(httpdate::parse_http_date(text).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_say_when_to_come_back_in_two_ways() {
        let now = 784_111_777_000_000_000;
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:07 GMT", now), Some(Duration::from_secs(30)));
        for nothing in ["Sun, 06 Nov 1994 08:49:07 GMT", "-1", "soon", ""] {
            assert_eq!(retry_after(nothing, now), None, "{nothing}");
        }
    }
}
