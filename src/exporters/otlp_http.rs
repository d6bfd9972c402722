//! `otlp_http`: OTLP over HTTP, in protobuf or JSON.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent};
use crate::{
    config::{Secret, Span, schema_of},
    net::{
        ClientTls, Encoding,
        http::MediaType,
        web::{Answered, WebClient},
    },
    otlp::{Signal, json},
    pipeline::{Factory, Future, Instance, Parsed, Payload, Role, Section},
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
    /// Base URL; `/v1/traces`, `/v1/metrics` or `/v1/logs` is appended.
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
    /// The longest one attempt may take.
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

fn parse(value: Value) -> Result<Parsed, String> {
    let config: Config = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
    let urls = Urls::of(&config)?;
    let mut headers = super::headers(&config.headers)?;
    let media = if config.encoding == Format::Json { MediaType::Json } else { MediaType::Protobuf };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
    if let Some(encoding) = config.compression.header() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(Parsed {
        effective: serde_json::to_value(&config).map_err(|error| error.to_string())?,
        warnings: Vec::new(),
        listens_on: Vec::new(),
        sends_to: [&urls.traces, &urls.metrics, &urls.logs].into_iter().flatten().map(Uri::to_string).collect(),
        build: Box::new(move |setup| {
            let client = WebClient::new(config.timeout.get())?;
            let sender = OverHttp { client, urls, headers, encoding: config.encoding, compression: config.compression };
            let sending = Sending::new(&setup.id, &setup.meter, config.sending_queue, config.retry_on_failure, sender);
            Ok(Instance::Exporter(Arc::new(sending)))
        }),
    })
}

/// Where each signal goes.
struct Urls {
    traces: Option<Uri>,
    metrics: Option<Uri>,
    logs: Option<Uri>,
}

impl Urls {
    fn of(config: &Config) -> Result<Self, String> {
        let own = [&config.traces_endpoint, &config.metrics_endpoint, &config.logs_endpoint];
        if config.endpoint.is_empty() && own.iter().all(|endpoint| endpoint.is_none()) {
            return Err("`endpoint` is missing: write the backend's base URL, such as http://localhost:4318".to_owned());
        }
        let url = |whole: Option<&String>, signal: Signal| {
            let written = match whole {
                Some(whole) => whole.clone(),
                None if config.endpoint.is_empty() => return Ok(None),
                None => format!("{}/v1/{signal}", config.endpoint.trim_end_matches('/')),
            };
            let with_scheme = match written.split_once("://") {
                Some(("http" | "https", _)) => written,
                Some((other, _)) => return Err(format!("the scheme of an endpoint is http or https, not `{other}`")),
                None => format!("{}://{written}", if config.tls.insecure { "http" } else { "https" }),
            };
            with_scheme.parse::<Uri>().map(Some).map_err(|error| format!("`{with_scheme}` is no URL: {error}"))
        };
        Ok(Self {
            traces: url(config.traces_endpoint.as_ref(), Signal::Traces)?,
            metrics: url(config.metrics_endpoint.as_ref(), Signal::Metrics)?,
            logs: url(config.logs_endpoint.as_ref(), Signal::Logs)?,
        })
    }

    const fn of_signal(&self, signal: Signal) -> Option<&Uri> {
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
}

impl Sender for OverHttp {
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            let Some(url) = self.urls.of_signal(batch.signal) else {
                return Err(Failure::Permanent(format!("no endpoint for {}", batch.signal)));
            };
            let body = self.body(batch).map_err(Failure::Permanent)?;
            match self.client.post(url, self.headers.clone(), body).await {
                Ok(answered) if answered.status.is_success() => Ok(partial_success(batch.signal, &answered)),
                Ok(answered) => Err(failure(&answered)),
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

fn partial_success(signal: Signal, answered: &Answered) -> Sent {
    let json = answered.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(MediaType::named) == Some(MediaType::Json);
    if !json {
        return super::otlp_grpc::partial_success(signal, &answered.body);
    }
    let said: serde_json::Value = serde_json::from_slice(&answered.body).unwrap_or_default();
    let part = said.get("partialSuccess");
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"]
        .into_iter()
        .find_map(|name| part?.get(name))
        .and_then(|number| number.as_u64().or_else(|| number.as_str()?.parse().ok()));
    let message = part.and_then(|part| part.get("errorMessage")).and_then(serde_json::Value::as_str);
    Sent { rejected: rejected.and_then(|number| usize::try_from(number).ok()).unwrap_or_default(), message: message.unwrap_or_default().to_owned() }
}

/// Which statuses may be tried again: <https://opentelemetry.io/docs/specs/otlp/#failures-1>.
fn failure(answered: &Answered) -> Failure {
    let said: String = String::from_utf8_lossy(&answered.body).chars().filter(|c| !c.is_control()).take(200).collect();
    let reason = format!("HTTP {}: {said}", answered.status);
    match answered.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            let seconds = answered.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
            Failure::Retryable { reason, after: seconds.map(Duration::from_secs) }
        }
        _ => Failure::Permanent(reason),
    }
}
