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
    buffer::{Account, Held},
    compression::{Codings, Inflate},
    door::{Answer, Limits, TooMuch, read},
};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
/// A compression flag and a length stand before each message.
const PREFIX: usize = 5;
/// Longer messages would pass the client's header limit and arrive as a bare HTTP/2 error.
const MESSAGE_CHARS_MAX: usize = 1024;

/// The one message of a request, as it came.
#[derive(Debug)]
pub struct Message {
    /// How it is compressed.
    pub codings: Codings,
    /// The message.
    pub held: Held,
}

/// Why there is no message.
#[derive(Debug)]
pub enum Unread {
    /// It is more than is allowed, or comes too slowly.
    TooMuch(TooMuch),
    /// It is wrong: what to answer.
    Wrong(Status),
}

impl From<TooMuch> for Unread {
    fn from(why: TooMuch) -> Self {
        Self::TooMuch(why)
    }
}

impl From<Status> for Unread {
    fn from(status: Status) -> Self {
        Self::Wrong(status)
    }
}

impl From<Inflate> for Unread {
    fn from(why: Inflate) -> Self {
        match why {
            Inflate::TooMuch(why) => Self::TooMuch(why),
            Inflate::Broken(reason) => Self::Wrong(Status::invalid_argument(reason)),
        }
    }
}

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
/// See [`Unread`].
pub async fn message(request: Request<Incoming>, limits: Limits, account: &mut dyn Account) -> Result<Message, Unread> {
    let (head, mut body) = request.into_parts();
    let framed = Limits { request_bytes: limits.request_bytes.saturating_add(PREFIX) };
    let Held { bytes, weight } = read(&mut body, framed, announced, account).await.map_err(|why| match why {
        TooMuch::Request(_) => TooMuch::Request(limits.request_bytes),
        why => why,
    })?;
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return Err(Status::invalid_argument("the request holds no gRPC message").into());
    };
    let [compressed, a, b, c, d] = *prefix;
    let declared = u32::from_be_bytes([a, b, c, d]) as usize;
    if declared > limits.request_bytes {
        return Err(TooMuch::Request(limits.request_bytes).into());
    }
    if declared != rest.len() {
        return Err(Status::invalid_argument(format!("a gRPC message of {declared} bytes was announced; {} came", rest.len())).into());
    }
    let codings = match compressed {
        0 => Codings::default(),
        1 => codings(&head.headers)?,
        _ => return Err(Status::invalid_argument("the gRPC compression flag is neither 0 nor 1").into()),
    };
    Ok(Message { codings, held: Held { bytes: bytes.slice(PREFIX..), weight } })
}

/// How long a request will be, by the first bytes of it.
fn announced(first: &[u8]) -> Option<usize> {
    let [_, a, b, c, d] = *first.first_chunk::<PREFIX>()?;
    Some(PREFIX.saturating_add(u32::from_be_bytes([a, b, c, d]) as usize))
}

fn codings(headers: &HeaderMap) -> Result<Codings, Status> {
    let codings = Codings::of(headers, &ENCODING).map_err(Status::unimplemented)?;
    if codings.is_identity() {
        return Err(Status::unimplemented(format!("a compressed message without grpc-encoding; known: {}", Codings::ACCEPTED)));
    }
    Ok(codings)
}

/// What to answer to what is too much.
pub fn status(why: &TooMuch) -> Status {
    let reason = why.to_string();
    match why {
        // Without RetryInfo, so that clients take it as final: it will be too large the next time as well.
        TooMuch::Request(_) => Status::resource_exhausted(reason),
        TooMuch::NoRoom { .. } => unavailable(reason, Some(Duration::from_secs(1))),
        TooMuch::Stalled | TooMuch::Slow => Status::deadline_exceeded(reason),
        TooMuch::BrokenOff(_) => Status::cancelled(reason),
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
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static(Codings::ACCEPTED));
    response
}

fn cut(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}
