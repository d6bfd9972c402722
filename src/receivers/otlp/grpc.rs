use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::http::response_message;
use crate::{
    net::{Answer, Limits, drain, grpc},
    otlp::Signal,
    pipeline::{Intake, OverLimit, Refusal, Rejection},
};

/// Answers OTLP/gRPC.
pub(super) struct Service {
    pub(super) intake: Intake,
    pub(super) limits: Limits,
}

impl Service {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        if !grpc::is_grpc(request.headers()) {
            self.intake.misdirected("OTLP/HTTP came to the port of gRPC; it usually goes to 4318");
            drain(&mut request.into_body(), self.limits).await;
            return grpc::not_grpc();
        }
        match self.export(request).await {
            Ok(message) => grpc::answer(&message),
            Err(status) => {
                tracing::debug!(code = ?status.code(), reason = status.message(), "refused a gRPC request");
                grpc::refuse(status)
            }
        }
    }

    async fn export(&self, request: Request<Incoming>) -> Result<Vec<u8>, Status> {
        let signal = match request.uri().path() {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
            other => return Err(Status::unimplemented(format!("unknown method {other}"))),
        };
        let mut charge = self.intake.charge();
        let mut grow = |bytes| charge.grow(bytes).map_err(|over: OverLimit| over.to_string());
        let message = grpc::message(request, self.limits, &mut grow).await.inspect_err(|status| self.count(status))?;
        let partial = self.intake.take(signal, message, charge).await.map_err(|rejection| status(signal, rejection))?;
        if partial.rejected == 0 { Ok(Vec::new()) } else { Ok(response_message(signal, &partial)) }
    }

    fn count(&self, status: &Status) {
        match status.code() {
            Code::ResourceExhausted => self.intake.limit_reached("max_recv_msg_size_mib"),
            Code::Unavailable => self.intake.limit_reached("memory"),
            Code::DeadlineExceeded => self.intake.limit_reached("request_time"),
            Code::Cancelled => self.intake.broken_off(),
            _ => self.intake.malformed(),
        }
    }
}

fn status(signal: Signal, rejection: Rejection) -> Status {
    match rejection {
        Rejection::NoPipeline => Status::unimplemented(format!("no pipeline takes {signal} from this receiver")),
        Rejection::Malformed(reason) => Status::invalid_argument(reason),
        Rejection::Refused(Refusal::Permanent { reason }) => Status::invalid_argument(reason),
        Rejection::Refused(Refusal::Retryable { reason, after }) => grpc::unavailable(reason, after),
    }
}
