use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;

use super::sending::Sent;
use crate::otlp::Signal;

/// What the answer says of a request that was taken. One that can't be read says nothing; the request was taken.
pub(super) fn partial_success(signal: Signal, answer: &[u8]) -> Sent {
    let (rejected, message) = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_spans, part.error_message)),
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_data_points, part.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_log_records, part.error_message)),
    }
    .unwrap_or_default();
    Sent { rejected: usize::try_from(rejected).unwrap_or_default(), message }
}
