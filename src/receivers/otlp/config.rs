use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cors::Cors;
use crate::{
    config::{Size, Span},
    net::{ConnectionLimits, Limits},
    otlp::Signal,
    pipeline::Faults,
};

/// What the user may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// What to listen for; one that is not written is off.
    pub(super) protocols: Protocols,
}

/// The protocols that can be listened for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Protocols {
    /// OTLP/gRPC.
    pub(super) grpc: Option<Grpc>,
    /// OTLP/HTTP.
    pub(super) http: Option<Http>,
}

/// OTLP/gRPC.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Grpc {
    /// `host:port` to listen on.
    endpoint: String,
    /// The largest request, as sent and once more when decompressed. The Collector's default is 4; the
    /// specification advises 64.
    #[schemars(range(min = 1, max = 2048))]
    max_recv_msg_size_mib: usize,
    /// Requests at one time on one connection.
    #[schemars(range(min = 1))]
    max_concurrent_streams: u32,
    /// Connections at one time. When another one comes, the one that was idle longest is closed.
    #[schemars(range(min = 1))]
    max_connections: usize,
    /// Keepalive.
    keepalive: Keepalive,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            endpoint: "127.0.0.1:4317".to_owned(),
            max_recv_msg_size_mib: 64,
            max_concurrent_streams: 200,
            max_connections: 4096,
            keepalive: Keepalive::default(),
        }
    }
}

/// Finds dead connections and ends old ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Keepalive {
    /// What the server does.
    server_parameters: ServerParameters,
}

/// What the server does to keep its connections alive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ServerParameters {
    /// Close a connection without a request for so long; 0 means never.
    max_connection_idle: Span,
    /// Ask a connection this old to go, so that clients spread over new replicas; 0 means never.
    max_connection_age: Span,
    /// Ping after so long a silence; 0 means never. The Collector waits 2h, too long to notice a dead client.
    time: Span,
    /// Close when the ping is not answered within this.
    timeout: Span,
}

impl Default for ServerParameters {
    fn default() -> Self {
        Self { max_connection_idle: Span::secs(3600), max_connection_age: Span::secs(0), time: Span::secs(60), timeout: Span::secs(20) }
    }
}

/// OTLP/HTTP.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    /// `host:port` to listen on.
    endpoint: String,
    /// The largest request, as sent and once more when decompressed. The Collector's default is 20 MiB; the
    /// specification advises 64.
    max_request_body_size: Size,
    /// Where traces are posted to.
    traces_url_path: String,
    /// Where metrics are posted to.
    metrics_url_path: String,
    /// Where logs are posted to.
    logs_url_path: String,
    /// Connections at one time. When another one comes, the one that was idle longest is closed.
    #[schemars(range(min = 1))]
    max_connections: usize,
    /// The longest a request's head may take to come, and a connection stay without a request.
    read_header_timeout: Span,
    /// Which web pages may send.
    pub(super) cors: Cors,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            endpoint: "127.0.0.1:4318".to_owned(),
            max_request_body_size: Size::mib(64),
            traces_url_path: "/v1/traces".to_owned(),
            metrics_url_path: "/v1/metrics".to_owned(),
            logs_url_path: "/v1/logs".to_owned(),
            max_connections: 4096,
            read_header_timeout: Span::secs(25),
            cors: Cors::default(),
        }
    }
}

/// From accept to the first bytes of a request.
const FIRST_BYTES: Span = Span::secs(10);

impl Config {
    /// What no schema can say.
    pub(super) fn check(&self) -> Result<(), Faults> {
        let mut faults = Faults::default();
        if self.protocols.grpc.is_none() && self.protocols.http.is_none() {
            faults.note::<()>("protocols", Err("names none: write `grpc:` or `http:` under it".to_owned()));
        }
        for (protocol, endpoint) in self.endpoints().filter(|(_, endpoint)| !is_host_and_port(endpoint)) {
            let wrong = format!("`{endpoint}` is not host:port, such as 127.0.0.1:4317 or [::1]:4317");
            faults.note::<()>(&format!("protocols.{protocol}.endpoint"), Err(wrong));
        }
        if let Some(http) = &self.protocols.http {
            http.cors.check("protocols.http.cors", &mut faults);
        }
        faults.unless_any(())
    }

    /// The most connections at one time, over all protocols.
    pub(super) fn max_connections(&self) -> usize {
        let grpc = self.protocols.grpc.as_ref().map_or(0, |grpc| grpc.max_connections);
        let http = self.protocols.http.as_ref().map_or(0, |http| http.max_connections);
        grpc.saturating_add(http)
    }

    /// Protocol and endpoint of each.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let grpc = self.protocols.grpc.as_ref().map(|grpc| ("grpc", grpc.endpoint.as_str()));
        let http = self.protocols.http.as_ref().map(|http| ("http", http.endpoint.as_str()));
        grpc.into_iter().chain(http)
    }
}

fn is_host_and_port(endpoint: &str) -> bool {
    let host_is_one = |host: &str| match host.strip_prefix('[') {
        Some(address) => address.ends_with(']'),
        None => !host.contains(['/', ':', ' ']),
    };
    endpoint.rsplit_once(':').is_some_and(|(host, port)| port.parse::<u16>().is_ok() && host_is_one(host))
}

/// A time as a user wrote it: 0 means never.
const fn unless_zero(written: Span) -> Option<Duration> {
    if written.get().is_zero() { None } else { Some(written.get()) }
}

impl Grpc {
    pub(super) const fn limits(&self) -> Limits {
        Limits { request_bytes: self.max_recv_msg_size_mib << 20 }
    }

    pub(super) const fn connections(&self) -> ConnectionLimits {
        let keepalive = &self.keepalive.server_parameters;
        ConnectionLimits {
            connections: self.max_connections,
            first_bytes: FIRST_BYTES.get(),
            header: FIRST_BYTES.get(),
            idle: unless_zero(keepalive.max_connection_idle),
            age: keepalive.max_connection_age.get(),
            ping: unless_zero(keepalive.time),
            ping_timeout: keepalive.timeout.get(),
            streams: self.max_concurrent_streams,
        }
    }
}

impl Http {
    pub(super) const fn limits(&self) -> Limits {
        Limits { request_bytes: self.max_request_body_size.bytes() }
    }

    pub(super) fn paths(&self) -> [(Signal, String); 3] {
        [(Signal::Traces, self.traces_url_path.clone()), (Signal::Metrics, self.metrics_url_path.clone()), (Signal::Logs, self.logs_url_path.clone())]
    }

    pub(super) const fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            connections: self.max_connections,
            first_bytes: FIRST_BYTES.get(),
            header: self.read_header_timeout.get(),
            idle: unless_zero(Span::secs(3600)),
            age: Span::secs(0).get(),
            ping: unless_zero(Span::secs(60)),
            ping_timeout: Span::secs(20).get(),
            streams: 200,
        }
    }
}
