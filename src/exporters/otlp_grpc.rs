//! `otlp_grpc`: OTLP over gRPC.

use std::collections::BTreeMap;

use http::{StatusCode, header::AUTHORIZATION};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use std::sync::Arc;

use super::{
    answer::partial_success,
    sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent},
};
use crate::{
    config::{Secret, Span, schema_of},
    net::{
        ClientTls, Encoding,
        channel::{Answered, Backend, GrpcClient},
    },
    otlp::Signal,
    pipeline::{Factory, Faults, Future, Instance, Parsed, Payload, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// `host:port` of the backend. A user name and password before it (`user:password@host:port`) are sent as a header.
    endpoint: String,
    /// TLS settings.
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
            tls: ClientTls::default(),
            headers: BTreeMap::new(),
            compression: Encoding::Gzip,
            timeout: Span::secs(5),
            sending_queue: SendingQueue::default(),
            retry_on_failure: RetryOnFailure::default(),
        }
    }
}

/// What is known of `otlp_grpc` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Exporters,
    name: "otlp_grpc",
    aliases: &["otlp"],
    about: "Sends OTLP over gRPC to a Collector, Jaeger, Tempo or any other backend.",
    roles: &[Role { section: Section::Exporters, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let mut faults = Faults::default();
    let (endpoint, authorization) = super::credentials(&config.endpoint);
    let backend = faults.note("endpoint", Backend::new(&endpoint, &config.tls));
    let headers = faults.note("headers", super::headers(&config.headers));
    let (Some(backend), Some(mut headers)) = (backend, headers) else { return Err(faults) };
    if let Some(authorization) = authorization {
        headers.entry(AUTHORIZATION).or_insert(authorization);
    }
    let sends_to = vec![endpoint.into_owned()];
    let warnings = config.sending_queue.warnings();
    let shares_queue_room = config.sending_queue.shares_room();
    let parsed = Parsed::new(config, move |config, setup| {
        let client = GrpcClient::new(backend, headers, config.compression, super::limit(config.timeout))?;
        let sending = Sending::new(setup, config.sending_queue, config.retry_on_failure, OverGrpc(client));
        Ok(Instance::Exporter(Arc::new(sending)))
    })?;
    Ok(Parsed { sends_to, warnings, shares_queue_room, ..parsed })
}

struct OverGrpc(GrpcClient);

impl Sender for OverGrpc {
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            match self.0.call(method(batch.signal), batch.joined()).await {
                Ok(Answered::Taken(answer)) => {
                    Ok(answer.and_then(|answer| partial_success(batch.signal, &answer)).unwrap_or_else(Sent::with_unread_answer))
                }
                Ok(Answered::Refused(status)) => Err(refused(&status)),
                Ok(Answered::NoStatus { http, reason }) => Err(without_status(http, &reason)),
                Err(reason) => Err(Failure::Retryable { reason, after: None }),
            }
        })
    }
}

const fn method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// Which codes may be tried again: <https://opentelemetry.io/docs/specs/otlp/#failures>.
fn refused(status: &Status) -> Failure {
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let reason = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => {
            Failure::Retryable { reason, after }
        }
        Code::ResourceExhausted if after.is_some() => Failure::Retryable { reason, after },
        _ => Failure::Permanent(reason),
    }
}

/// What no backend of gRPC answered. Only what says that it will stay so is final: who we are, where we send.
fn without_status(http: StatusCode, reason: &str) -> Failure {
    let reason = format!("HTTP {http}: {reason}");
    match http {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Failure::Permanent(reason),
        _ => Failure::Retryable { reason, after: None },
    }
}
