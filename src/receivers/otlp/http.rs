use std::{convert::Infallible, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse},
    trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse},
};
use prost::Message;
use serde_json::json;
use tonic::{Code, Status};
use tower::{Layer, Service as _};
use tower_http::cors::CorsLayer;

use crate::{
    net::{
        Answer, Encoding, Inflate, Limits, TooMuch, drain,
        grpc::{self, is_grpc},
        http::{MediaType, body_kind, status_body},
        read,
    },
    otlp::{
        Signal,
        json::{self as otlp_json, JsonError},
    },
    pipeline::{Intake, OverLimit, Partial, Refusal, Rejection},
};

/// JSON larger than this is translated away from the threads that serve.
const ASIDE_BYTES: usize = 256 << 10;
/// Compressed bodies larger than this are, too: they may become much larger.
const COMPRESSED_ASIDE_BYTES: usize = 4 << 10;

/// Answers OTLP/HTTP.
pub(super) struct Service {
    pub(super) intake: Intake,
    pub(super) limits: Limits,
    pub(super) paths: [(Signal, String); 3],
}

/// How requests are answered, to web pages as well where some may send.
pub(super) fn answer(
    service: Arc<Service>,
    cors: Option<CorsLayer>,
) -> impl Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Answer>> + Send>> + Clone + Send + Sync + 'static {
    move |request| {
        let service = Arc::clone(&service);
        match cors.as_ref().filter(|_| request.headers().contains_key(header::ORIGIN)) {
            Some(cors) => {
                let inner = tower::service_fn(move |request| {
                    let service = Arc::clone(&service);
                    async move { Ok::<_, Infallible>(service.answer(request).await) }
                });
                let mut answers = cors.layer(inner);
                Box::pin(async move {
                    let Ok(response) = answers.call(request).await;
                    response
                })
            }
            None => Box::pin(service.answer(request)),
        }
    }
}

/// What is answered instead of success.
struct Wrong {
    status: StatusCode,
    message: String,
    after: Option<Duration>,
}

impl Wrong {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), after: None }
    }
}

impl Service {
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        // Errors before the type of the body is known are told in JSON: whoever made them reads text.
        let media =
            request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(MediaType::named).unwrap_or(MediaType::Json);
        let (head, mut body) = request.into_parts();
        if is_grpc(&head.headers) {
            self.intake.misdirected("OTLP/gRPC came to the port of HTTP; it usually goes to 4317");
            drain(&mut body, self.limits).await;
            return grpc::refuse(Status::unimplemented("this port speaks OTLP/HTTP; OTLP/gRPC usually listens on 4317"));
        }
        match self.export(&head, &mut body).await {
            Ok((signal, partial)) => success(media, signal, &partial),
            Err(wrong) => {
                tracing::debug!(status = wrong.status.as_u16(), reason = wrong.message, "refused an HTTP request");
                // Closed on a sender that still sends, the connection would be reset before the answer is read.
                drain(&mut body, self.limits).await;
                failure(media, &wrong)
            }
        }
    }

    async fn export(&self, head: &Parts, body: &mut Incoming) -> Result<(Signal, Partial), Wrong> {
        let path = head.uri.path();
        let Some((signal, _)) = self.paths.iter().find(|(_, known)| known == path) else {
            let known: Vec<&str> = self.paths.iter().map(|(_, path)| path.as_str()).collect();
            return Err(Wrong::new(StatusCode::NOT_FOUND, format!("nothing here; OTLP is posted to {}", known.join(", "))));
        };
        if head.method != Method::POST {
            return Err(Wrong::new(StatusCode::METHOD_NOT_ALLOWED, "OTLP is sent with POST"));
        }
        let (media, encoding) = body_kind(&head.headers).map_err(|(status, reason)| {
            self.intake.malformed();
            Wrong::new(status, reason)
        })?;
        let mut charge = self.intake.charge();
        let mut grow = |bytes| charge.grow(bytes).map_err(|over: OverLimit| over.to_string());
        let body = read(body, self.limits, &mut grow).await.map_err(|why| self.too_much(why))?;
        let mut translate = || {
            let body = encoding.inflate(&body, self.limits, &mut grow).map_err(|why| self.broken(encoding, why))?;
            let length = body.len();
            let message = self.translated(*signal, media, body)?;
            grow(message.len().saturating_sub(length)).map_err(|reason| self.too_much(TooMuch::Memory(reason)))?;
            Ok(message)
        };
        let aside = match (encoding, media) {
            (Encoding::None, MediaType::Protobuf) => false,
            (Encoding::None, MediaType::Json) => body.len() > ASIDE_BYTES,
            _ => body.len() > COMPRESSED_ASIDE_BYTES,
        };
        let message = if aside { tokio::task::block_in_place(translate) } else { translate() }?;
        match self.intake.take(*signal, message, charge).await {
            Ok(partial) => Ok((*signal, partial)),
            Err(Rejection::NoPipeline) => Err(Wrong::new(StatusCode::NOT_FOUND, format!("no pipeline takes {signal} from this receiver"))),
            Err(Rejection::Malformed(reason) | Rejection::Refused(Refusal::Permanent { reason })) => Err(Wrong::new(StatusCode::BAD_REQUEST, reason)),
            Err(Rejection::Refused(Refusal::Retryable { reason, after })) => {
                Err(Wrong { status: StatusCode::SERVICE_UNAVAILABLE, message: reason, after })
            }
        }
    }

    fn translated(&self, signal: Signal, media: MediaType, body: Bytes) -> Result<Bytes, Wrong> {
        match media {
            MediaType::Protobuf => Ok(body),
            MediaType::Json if body.is_empty() => Ok(body),
            MediaType::Json => otlp_json::to_protobuf(signal, &body, self.limits.request_bytes).map(Bytes::from).map_err(|error| match error {
                JsonError::TooLarge(limit) => self.too_much(TooMuch::Request(limit)),
                error => {
                    self.intake.malformed();
                    Wrong::new(StatusCode::BAD_REQUEST, error.to_string())
                }
            }),
        }
    }

    fn too_much(&self, why: TooMuch) -> Wrong {
        match why {
            TooMuch::Request(limit) => {
                self.intake.limit_reached("max_request_body_size");
                Wrong::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the request is larger than {limit} bytes"))
            }
            TooMuch::Memory(reason) => {
                self.intake.limit_reached("memory");
                Wrong { status: StatusCode::SERVICE_UNAVAILABLE, message: reason, after: Some(Duration::from_secs(1)) }
            }
            TooMuch::Slow => {
                self.intake.limit_reached("request_time");
                Wrong::new(StatusCode::REQUEST_TIMEOUT, "the request comes too slowly")
            }
            TooMuch::BrokenOff(reason) => {
                self.intake.broken_off();
                Wrong::new(StatusCode::BAD_REQUEST, reason)
            }
        }
    }

    fn broken(&self, encoding: Encoding, why: Inflate) -> Wrong {
        match why {
            Inflate::TooMuch(why) => self.too_much(why),
            Inflate::Broken(error) => {
                self.intake.malformed();
                Wrong::new(StatusCode::BAD_REQUEST, format!("broken {} data: {error}", encoding.header().unwrap_or_default()))
            }
        }
    }
}

/// A serialised `Export…ServiceResponse` that tells of a partial success.
pub(super) fn response_message(signal: Signal, partial: &Partial) -> Vec<u8> {
    let rejected = i64::try_from(partial.rejected).unwrap_or(i64::MAX);
    let error_message = partial.message.clone();
    match signal {
        Signal::Traces => ExportTraceServiceResponse { partial_success: Some(ExportTracePartialSuccess { rejected_spans: rejected, error_message }) }
            .encode_to_vec(),
        Signal::Metrics => {
            ExportMetricsServiceResponse { partial_success: Some(ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message }) }
                .encode_to_vec()
        }
        Signal::Logs => {
            ExportLogsServiceResponse { partial_success: Some(ExportLogsPartialSuccess { rejected_log_records: rejected, error_message }) }
                .encode_to_vec()
        }
    }
}

fn success(media: MediaType, signal: Signal, partial: &Partial) -> Response<Answer> {
    let body: Bytes = match (media, partial.rejected) {
        (MediaType::Protobuf, 0) => Bytes::new(),
        (MediaType::Protobuf, _) => response_message(signal, partial).into(),
        (MediaType::Json, 0) => Bytes::from_static(b"{}"),
        (MediaType::Json, rejected) => {
            let key = match signal {
                Signal::Traces => "rejectedSpans",
                Signal::Metrics => "rejectedDataPoints",
                Signal::Logs => "rejectedLogRecords",
            };
            // 64-bit numbers are text in protobuf's JSON.
            json!({ "partialSuccess": { key: rejected.to_string(), "errorMessage": partial.message } }).to_string().into()
        }
    };
    response(StatusCode::OK, media, body)
}

fn failure(media: MediaType, wrong: &Wrong) -> Response<Answer> {
    let code = match wrong.status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        _ => Code::InvalidArgument,
    };
    let mut response = response(wrong.status, media, status_body(media, code, &wrong.message));
    let headers = response.headers_mut();
    match wrong.status {
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(Encoding::ACCEPTED));
        }
        _ => {}
    }
    if let Some(after) = wrong.after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

fn response(status: StatusCode, media: MediaType, body: Bytes) -> Response<Answer> {
    let mut response = Response::new(Answer::bytes(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.name()));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
