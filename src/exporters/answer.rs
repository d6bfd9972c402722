use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;

use super::sending::Sent;
use crate::otlp::Signal;

/// What the answer to a request that was taken says of it.
///
/// # Errors
/// For people: why it can't be read. The request was taken all the same.
pub(super) fn partial_success(signal: Signal, answer: &[u8]) -> Result<Sent, String> {
    let read = match signal {
        Signal::Traces => {
            ExportTraceServiceResponse::decode(answer).map(|answer| answer.partial_success.map(|part| (part.rejected_spans, part.error_message)))
        }
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer)
            .map(|answer| answer.partial_success.map(|part| (part.rejected_data_points, part.error_message))),
        Signal::Logs => {
            ExportLogsServiceResponse::decode(answer).map(|answer| answer.partial_success.map(|part| (part.rejected_log_records, part.error_message)))
        }
    };
    let (rejected, message) = read.map_err(|error| format!("it is no answer of OTLP: {error}"))?.unwrap_or_default();
    Ok(Sent { rejected: usize::try_from(rejected).unwrap_or_default(), message, unread: None })
}
