use std::{convert::Infallible, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

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
        Account, Answer, Codings, Held, Inflate, Limits, TooMuch, Work, drain,
        grpc::{self, is_grpc},
        http::{MediaType, body_kind, status_body},
        in_turn, read,
    },
    otlp::{
        Signal,
        json::{self as otlp_json, JsonError},
    },
    pipeline::{Charge, Intake, Partial, Refusal, Rejection},
};

/// JSON larger than this is translated away from the threads that serve.
const ASIDE_BYTES: usize = 256 << 10;
/// JSON larger than this leaves others their turn.
const LARGE_BYTES: usize = 1 << 20;
/// Protobuf larger than its JSON is seldom, unless the JSON is smaller than this.
const JSON_SMALL: usize = 4 << 10;
/// How many bytes of protobuf a byte of JSON becomes at most, in a list of numbers.
const JSON_RATIO_MAX: usize = 4;

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
) -> impl Fn(Request<Incoming>, IpAddr) -> Pin<Box<dyn Future<Output = Response<Answer>> + Send>> + Clone + Send + Sync + 'static {
    move |request, peer| {
        let service = Arc::clone(&service);
        match cors.as_ref().filter(|_| request.headers().contains_key(header::ORIGIN)) {
            Some(cors) => {
                let inner = tower::service_fn(move |request| {
                    let service = Arc::clone(&service);
                    async move { Ok::<_, Infallible>(service.answer(request, peer).await) }
                });
                let mut answers = cors.layer(inner);
                Box::pin(async move {
                    let Ok(response) = answers.call(request).await;
                    response
                })
            }
            None => Box::pin(service.answer(request, peer)),
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
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Answer> {
        // Errors before the type of the body is known are told in JSON: whoever made them reads text.
        let media =
            request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(MediaType::named).unwrap_or(MediaType::Json);
        let (head, mut body) = request.into_parts();
        if is_grpc(&head.headers) {
            self.intake.misdirected("OTLP/gRPC came to the port of HTTP; it usually goes to 4317");
            drain(&mut body, self.limits).await;
            return grpc::refuse(Status::unimplemented("this port speaks OTLP/HTTP; OTLP/gRPC usually listens on 4317"));
        }
        match self.export(&head, &mut body, peer).await {
            Ok((signal, partial)) => success(media, signal, &partial),
            Err(wrong) => {
                tracing::debug!(status = wrong.status.as_u16(), reason = wrong.message, "refused an HTTP request");
                // Closed on a sender that still sends, the connection would be reset before the answer is read.
                if wrong.status != StatusCode::REQUEST_TIMEOUT {
                    drain(&mut body, self.limits).await;
                }
                failure(media, &wrong)
            }
        }
    }

    async fn export(&self, head: &Parts, body: &mut Incoming, peer: IpAddr) -> Result<(Signal, Partial), Wrong> {
        let path = head.uri.path();
        let Some((signal, _)) = self.paths.iter().find(|(_, known)| known == path) else {
            let known: Vec<&str> = self.paths.iter().map(|(_, path)| path.as_str()).collect();
            return Err(Wrong::new(StatusCode::NOT_FOUND, format!("nothing here; OTLP is posted to {}", known.join(", "))));
        };
        if head.method != Method::POST {
            return Err(Wrong::new(StatusCode::METHOD_NOT_ALLOWED, "OTLP is sent with POST"));
        }
        let (media, codings) = body_kind(&head.headers).map_err(|(status, reason)| {
            self.intake.malformed();
            Wrong::new(status, reason)
        })?;
        let mut arriving = self.intake.arriving(peer);
        let held = read(body, self.limits, |_| None, &mut arriving).await.map_err(|why| self.too_much(&why))?;
        let mut charge = arriving.complete();
        let held = codings.inflate(held, self.limits, &mut charge).await.map_err(|why| self.not_inflated(why))?;
        let message = match media {
            MediaType::Protobuf => held.bytes,
            MediaType::Json => self.translated(*signal, held, &mut charge).await?,
        };
        match self.intake.take(*signal, message, charge).await {
            Ok(partial) => Ok((*signal, partial)),
            Err(Rejection::NoPipeline) => Err(Wrong::new(StatusCode::NOT_FOUND, format!("no pipeline takes {signal} from this receiver"))),
            Err(Rejection::Malformed(reason) | Rejection::Refused(Refusal::Permanent { reason })) => Err(Wrong::new(StatusCode::BAD_REQUEST, reason)),
            Err(Rejection::Refused(Refusal::Retryable { reason, after })) => {
                Err(Wrong { status: StatusCode::SERVICE_UNAVAILABLE, message: reason, after })
            }
        }
    }

    /// The protobuf of a body in JSON. Both exist until the translation is done, and both are accounted for.
    async fn translated(&self, signal: Signal, json: Held, charge: &mut Charge) -> Result<Bytes, Wrong> {
        if json.bytes.is_empty() {
            return Ok(json.bytes);
        }
        let work = match json.bytes.len() {
            bytes if bytes > LARGE_BYTES => Work::Large,
            bytes if bytes > ASIDE_BYTES => Work::Medium,
            _ => Work::Small,
        };
        let message = in_turn(work, || self.to_protobuf(signal, &json.bytes, charge)).await?;
        drop(json);
        charge.set(message.capacity());
        Ok(message.into())
    }

    /// Protobuf is hardly ever larger than its JSON, so room for the most that it may become is only asked for where it is.
    fn to_protobuf(&self, signal: Signal, json: &[u8], charge: &mut Charge) -> Result<Vec<u8>, Wrong> {
        let most = self.limits.request_bytes;
        let usual = json.len().max(JSON_SMALL).min(most);
        let mut attempt = |limit: usize, bytes: usize| -> Result<_, Wrong> {
            // Its buffer grows by doubling, and both are there while one is copied into the other.
            charge.hold(bytes + bytes / 2).map_err(|why| self.too_much(&why))?;
            let translated = otlp_json::to_protobuf(signal, json, limit);
            charge.release(bytes + bytes / 2);
            Ok(translated)
        };
        let mut translated = attempt(usual, usual)?;
        if usual < most && matches!(translated, Err(JsonError::TooLarge(_))) {
            translated = attempt(most, most.min(json.len().max(JSON_SMALL).saturating_mul(JSON_RATIO_MAX)))?;
        }
        translated.map_err(|error| match error {
            JsonError::TooLarge(limit) => self.too_much(&TooMuch::Request(limit)),
            error => {
                self.intake.malformed();
                Wrong::new(StatusCode::BAD_REQUEST, error.to_string())
            }
        })
    }

    fn too_much(&self, why: &TooMuch) -> Wrong {
        self.intake.too_much(why, "max_request_body_size");
        let message = why.to_string();
        match why {
            TooMuch::Request(_) => Wrong::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            TooMuch::NoRoom { .. } => Wrong { status: StatusCode::SERVICE_UNAVAILABLE, message, after: Some(Duration::from_secs(1)) },
            TooMuch::Stalled | TooMuch::Slow => Wrong::new(StatusCode::REQUEST_TIMEOUT, message),
            TooMuch::BrokenOff(_) => Wrong::new(StatusCode::BAD_REQUEST, message),
        }
    }

    fn not_inflated(&self, why: Inflate) -> Wrong {
        match why {
            Inflate::TooMuch(why) => self.too_much(&why),
            Inflate::Broken(reason) => {
                self.intake.malformed();
                Wrong::new(StatusCode::BAD_REQUEST, reason)
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
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(Codings::ACCEPTED));
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
