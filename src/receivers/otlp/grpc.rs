use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::Status;

use super::http::response_message;
use crate::{
    net::{
        Answer, Limits, drain,
        grpc::{self, Message, Unread},
    },
    otlp::Signal,
    pipeline::{Charge, Intake, Refusal, Rejection},
};

/// Answers OTLP/gRPC.
pub(super) struct Service {
    pub(super) intake: Intake,
    pub(super) limits: Limits,
}

impl Service {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Answer> {
        if !grpc::is_grpc(request.headers()) {
            self.intake.misdirected("OTLP/HTTP came to the port of gRPC; it usually goes to 4318");
            drain(&mut request.into_body(), self.limits).await;
            return grpc::not_grpc();
        }
        match self.export(request, peer).await {
            Ok(message) => grpc::answer(&message),
            Err(status) => {
                tracing::debug!(code = ?status.code(), reason = status.message(), "refused a gRPC request");
                grpc::refuse(status)
            }
        }
    }

    async fn export(&self, request: Request<Incoming>, peer: IpAddr) -> Result<Vec<u8>, Status> {
        let signal = match request.uri().path() {
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
            other => return Err(Status::unimplemented(format!("unknown method {other}"))),
        };
        let (message, charge) = self.read(request, peer).await.map_err(|why| self.unread(why))?;
        let partial = self.intake.take(signal, message, charge).await.map_err(|rejection| status(signal, rejection))?;
        if partial.rejected == 0 { Ok(Vec::new()) } else { Ok(response_message(signal, &partial)) }
    }

    /// The message of a request, and what it weighs.
    async fn read(&self, request: Request<Incoming>, peer: IpAddr) -> Result<(Bytes, Charge), Unread> {
        let mut arriving = self.intake.arriving(peer);
        let Message { codings, held } = grpc::message(request, self.limits, &mut arriving).await?;
        let mut charge = arriving.complete();
        let held = codings.inflate(held, self.limits, &mut charge).await?;
        Ok((held.bytes, charge))
    }

    /// Counts a request that could not be read, and says what to answer.
    fn unread(&self, why: Unread) -> Status {
        match why {
            Unread::TooMuch(why) => {
                self.intake.too_much(&why, "max_recv_msg_size_mib");
                grpc::status(&why)
            }
            Unread::Wrong(status) => {
                self.intake.malformed();
                status
            }
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
