//! Unary gRPC on the server's side: one message in, one out, the message as bytes.
//!
//! This small place stands for tonic's codec because tonic answers an oversized message as retryable, reserves a
//! declared length before a byte arrives, and costs half of a span's way (see `ARCHITECTURE.md`).
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{
    compression::{Encoding, Inflate},
    door::{Answer, Grow, Limits, TooMuch, read},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// A compression flag and a length stand before each message.
const PREFIX: usize = 5;
/// Longer messages would pass the client's header limit and arrive as a bare HTTP/2 error.
const MESSAGE_CHARS_MAX: usize = 1024;
/// Compressed requests larger than this are decompressed away from the threads that serve.
const INFLATE_ASIDE: usize = 4 << 10;

/// Whether a request speaks gRPC with messages in protobuf.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    matches!(kind, "application/grpc" | "application/grpc+proto")
}

/// The answer to what is no gRPC: a plain HTTP error, since who asked knows no gRPC status.
pub fn not_grpc() -> Response<Answer> {
    let mut response = Response::new(Answer::bytes("this port speaks gRPC (application/grpc); OTLP/HTTP usually listens on 4318\n"));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Reads the one message of a request.
///
/// # Errors
/// The status to answer.
pub async fn message(request: Request<Incoming>, limits: Limits, grow: Grow<'_>) -> Result<Bytes, Status> {
    let (head, mut body) = request.into_parts();
    let framed = Limits { request_bytes: limits.request_bytes.saturating_add(PREFIX) };
    let framed = read(&mut body, framed, grow).await.map_err(|why| status(why, limits))?;
    let Some((prefix, rest)) = framed.split_first_chunk::<PREFIX>() else {
        return Err(Status::invalid_argument("the request holds no gRPC message"));
    };
    let [compressed, a, b, c, d] = *prefix;
    let declared = u32::from_be_bytes([a, b, c, d]) as usize;
    if declared > limits.request_bytes {
        return Err(status(TooMuch::Request(limits.request_bytes), limits));
    }
    if declared != rest.len() {
        return Err(Status::invalid_argument(format!("a gRPC message of {declared} bytes was announced; {} came", rest.len())));
    }
    let message = framed.slice(PREFIX..);
    match compressed {
        0 => Ok(message),
        1 => inflate(&head.headers, &message, limits, grow),
        _ => Err(Status::invalid_argument("the gRPC compression flag is neither 0 nor 1")),
    }
}

fn inflate(headers: &HeaderMap, message: &Bytes, limits: Limits, grow: Grow<'_>) -> Result<Bytes, Status> {
    let name = headers.get(ENCODING).and_then(|name| name.to_str().ok()).unwrap_or_default();
    let Some(encoding) = Encoding::named(name).filter(|encoding| *encoding != Encoding::None) else {
        return Err(Status::unimplemented(format!("grpc-encoding `{name}` is not supported; known: {}", Encoding::ACCEPTED)));
    };
    let inflated = if message.len() > INFLATE_ASIDE {
        tokio::task::block_in_place(|| encoding.inflate(message, limits, grow))
    } else {
        encoding.inflate(message, limits, grow)
    };
    inflated.map_err(|why| match why {
        Inflate::TooMuch(why) => status(why, limits),
        Inflate::Broken(error) => Status::invalid_argument(format!("broken {name} data: {error}")),
    })
}

fn status(why: TooMuch, limits: Limits) -> Status {
    match why {
        // Without RetryInfo, so that clients take it as final: it will be too large the next time as well.
        TooMuch::Request(_) => Status::resource_exhausted(format!("the request is larger than {} bytes", limits.request_bytes)),
        TooMuch::Memory(reason) => unavailable(reason, Some(Duration::from_secs(1))),
        TooMuch::Slow => Status::deadline_exceeded("the request comes too slowly"),
        TooMuch::BrokenOff(reason) => Status::cancelled(reason),
    }
}

/// "Not now, but later": the retryable answer of OTLP.
pub fn unavailable(reason: impl Into<String>, after: Option<Duration>) -> Status {
    let reason = cut(&reason.into());
    match after {
        Some(after) => Status::with_error_details(Code::Unavailable, reason, ErrorDetails::with_retry_info(Some(after))),
        None => Status::unavailable(reason),
    }
}

/// A successful answer.
pub fn answer(message: &[u8]) -> Response<Answer> {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    // Answers are a few hundred bytes at most.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(Answer::with_trailers(framed.freeze(), trailers));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// An answer that says what went wrong.
pub fn refuse(status: Status) -> Response<Answer> {
    let status = if status.message().len() > MESSAGE_CHARS_MAX {
        Status::with_details(status.code(), cut(status.message()), Bytes::copy_from_slice(status.details()))
    } else {
        status
    };
    let mut response = status.into_http::<Answer>();
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(Encoding::ACCEPTED));
    response
}

fn cut(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}
