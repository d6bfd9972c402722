//! OTLP/JSON to protobuf and back, by the published message definitions.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;

use super::Signal;

/// What could not be turned from one encoding into the other, for people.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The JSON is broken or holds something of the wrong type.
    #[error("invalid OTLP/JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The protobuf is broken.
    #[error("invalid OTLP protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
}

/// The protobuf of a request in JSON. Nesting stops at 128 levels.
///
/// # Errors
/// The text is no OTLP/JSON request of this signal.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Vec<u8>, JsonError> {
    Ok(match signal {
        Signal::Traces => serde_json::from_slice::<ExportTraceServiceRequest>(json)?.encode_to_vec(),
        Signal::Metrics => serde_json::from_slice::<ExportMetricsServiceRequest>(json)?.encode_to_vec(),
        Signal::Logs => serde_json::from_slice::<ExportLogsServiceRequest>(json)?.encode_to_vec(),
    })
}

/// The JSON, on one line, of a request in protobuf.
///
/// # Errors
/// The bytes are no request of this signal, or hold text that is not UTF-8.
pub fn from_protobuf(signal: Signal, request: &[u8]) -> Result<Vec<u8>, JsonError> {
    Ok(match signal {
        Signal::Traces => serde_json::to_vec(&ExportTraceServiceRequest::decode(request)?)?,
        Signal::Metrics => serde_json::to_vec(&ExportMetricsServiceRequest::decode(request)?)?,
        Signal::Logs => serde_json::to_vec(&ExportLogsServiceRequest::decode(request)?)?,
    })
}
