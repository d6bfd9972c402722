//! gRPC towards a backend, messages as bytes.
//!
//! tonic makes and keeps the connection. Requests are framed and answers read here, since tonic's client makes statuses
//! of its own of an answer that it can't read, which then look like the backend's.

use std::{future::poll_fn, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use tonic::{
    Code, Status,
    body::Body,
    codegen::Service,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{answer, compression::Encoding, connector::Connector, proxies::Protocol, tls::ClientTls, with_causes};

/// The most bytes of an answer that are read to find its status, which stands at its end.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Messages larger than this are compressed away from the threads that serve.
const ASIDE_BYTES: usize = 256 << 10;
/// How answers may be compressed: a server answers in the encoding of the request, whatever was asked for.
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip,zstd,identity");

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Where a backend is, checked.
#[derive(Clone, Debug)]
pub struct Backend {
    endpoint: Endpoint,
    plain: bool,
}

impl Backend {
    /// From `host:port`, or a URL whose scheme says whether it is plain.
    ///
    /// # Errors
    /// For people: it is none.
    pub fn new(endpoint: &str, tls: &ClientTls) -> Result<Self, String> {
        let (plain, rest) = match endpoint.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some((other, _)) => return Err(format!("the scheme of an endpoint is http or https, not `{other}`")),
            None => (tls.insecure, endpoint),
        };
        if rest.is_empty() {
            return Err("is missing: write the backend's host:port".to_owned());
        }
        let uri: Uri = format!("{}://{rest}", if plain { "http" } else { "https" })
            .parse()
            .map_err(|error| format!("`{endpoint}` is no endpoint: {error}; write host:port"))?;
        if uri.port_u16().is_none() {
            return Err(format!("`{endpoint}` names no port; OTLP/gRPC usually listens on 4317"));
        }
        if uri.host().is_none_or(str::is_empty) || !matches!(uri.path(), "" | "/") {
            return Err(format!("`{endpoint}` must be host:port; gRPC has no paths"));
        }
        Ok(Self { endpoint: Endpoint::from(uri), plain })
    }
}

/// A connection to one backend, made on first use and again whenever it broke.
#[derive(Clone, Debug)]
pub struct GrpcClient {
    channel: Channel,
    headers: HeaderMap,
    compression: Encoding,
    timeout: Duration,
}

/// What a backend answered.
#[derive(Debug)]
pub enum Answered {
    /// `grpc-status: 0`: it took the message. What it says of it, or why that can't be read.
    Taken(Result<Bytes, String>),
    /// Any other `grpc-status`.
    Refused(Status),
    /// No `grpc-status`: the answer broke off, or something before the backend gave it.
    NoStatus {
        /// HTTP's status.
        http: StatusCode,
        /// For people.
        reason: String,
    },
}

impl GrpcClient {
    /// A client for a backend.
    ///
    /// # Errors
    /// For people: the system's certificates can't be read, or a proxy that the environment names can't be used.
    pub fn new(backend: Backend, headers: HeaderMap, compression: Encoding, timeout: Duration) -> Result<Self, String> {
        let Backend { endpoint, plain } = backend;
        let connector = Connector::new(Protocol::Grpc, [endpoint.uri()], timeout)?;
        let mut to = endpoint
            .connect_timeout(timeout)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        if !plain {
            to = to.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(|error| format!("TLS: {error}"))?;
        }
        Ok(Self { channel: to.connect_with_connector_lazy(connector), headers, compression, timeout })
    }

    /// Calls a unary method with a message.
    ///
    /// # Errors
    /// For people: why there is no answer.
    pub async fn call(&self, method: &'static str, message: Bytes) -> Result<Answered, String> {
        let request = self.request(method, message)?;
        let answered = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        answered.unwrap_or_else(|_elapsed| Err(format!("no answer within {:?}", self.timeout)))
    }

    fn request(&self, method: &'static str, message: Bytes) -> Result<Request<Body>, String> {
        let large = message.len() > ASIDE_BYTES && self.compression != Encoding::None;
        let compress = || self.compression.deflate(message);
        let message = if large { tokio::task::block_in_place(compress) } else { compress() };
        let message = message.map_err(|error| format!("compression failed: {error}"))?;
        let length = u32::try_from(message.len()).map_err(|_too_long| "a message of more than 4 GiB can't be sent".to_owned())?;
        let mut framed = BytesMut::with_capacity(5 + message.len());
        framed.put_u8(u8::from(self.compression != Encoding::None));
        framed.put_u32(length);
        framed.put(message);
        let mut request = Request::post(method).body(Body::new(Full::new(framed.freeze()))).map_err(|error| error.to_string())?;
        let mut headers = self.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(GRPC_ENCODING, HeaderValue::from_static(self.compression.header().unwrap_or("identity")));
        headers.insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
        // The backend gives up when we do.
        if let Ok(timeout) = HeaderValue::try_from(format!("{}m", self.timeout.as_millis().min(99_999_999))) {
            headers.insert(GRPC_TIMEOUT, timeout);
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answered, String> {
        let mut channel = self.channel.clone();
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|error| with_causes(&error))?;
        let (head, mut body) = channel.call(request).await.map_err(|error| with_causes(&error))?.into_parts();
        // A status stands in the head where no message follows, else behind the message.
        let early = status(&head.headers);
        if let Some(refusal) = early.clone().filter(|status| status.code() != Code::Ok) {
            return Ok(Answered::Refused(refusal));
        }
        let read = answer::read(&mut body, ANSWER_BYTES_MAX).await;
        Ok(match early.or_else(|| status(&read.trailers)) {
            Some(status) if status.code() == Code::Ok => {
                Answered::Taken(read.bytes.and_then(|body| unframed(&body, head.headers.get(GRPC_ENCODING))))
            }
            Some(refusal) => Answered::Refused(refusal),
            None => Answered::NoStatus { http: head.status, reason: without_status(&read.bytes) },
        })
    }
}

/// Reads the status of a call. Where its number can't be read there is none; where its text or details can't be, it has none.
fn status(headers: &HeaderMap) -> Option<Status> {
    let written = headers.get(GRPC_STATUS)?;
    let number: i32 = written.to_str().ok()?.trim().parse().ok()?;
    // tonic knows how the text is written. The details it would panic at, if they are no base64.
    let text = [(GRPC_STATUS, Some(written)), (GRPC_MESSAGE, headers.get(GRPC_MESSAGE))];
    let text: HeaderMap = text.into_iter().filter_map(|(name, value)| Some((name, value?.clone()))).collect();
    let text = Status::from_header_map(&text).map(|status| status.message().to_owned()).unwrap_or_default();
    let details = headers.get(GRPC_STATUS_DETAILS).and_then(|details| {
        let encoded = details.to_str().ok()?.trim_end_matches('=');
        BASE64_STANDARD_NO_PAD.decode(encoded).ok()
    });
    Some(Status::with_details(Code::from_i32(number), text, details.unwrap_or_default().into()))
}

/// The one message of a body, behind its prefix of five bytes.
fn unframed(body: &Bytes, encoding: Option<&HeaderValue>) -> Result<Bytes, String> {
    let Some(([flag, length @ ..], message)) = body.split_first_chunk::<5>() else {
        return Err(if body.is_empty() { "it holds no message".to_owned() } else { "it ends within a prefix".to_owned() });
    };
    if usize::try_from(u32::from_be_bytes(*length)).ok() != Some(message.len()) {
        return Err("its message is not as long as its prefix says".to_owned());
    }
    match flag {
        0 => Ok(body.slice(5..)),
        1 => answer::inflated(&body.slice(5..), encoding.and_then(|encoding| encoding.to_str().ok()).unwrap_or("?")),
        other => Err(format!("its prefix begins with {other}, which means nothing")),
    }
}

/// What an answer without a status says.
fn without_status(body: &Result<Bytes, String>) -> String {
    match body {
        Err(unread) => format!("the answer has no grpc-status; {unread}"),
        Ok(body) => {
            let said: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(200).collect();
            format!("the answer has no grpc-status: {said}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(written: &[(&'static str, &'static str)]) -> HeaderMap {
        written.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_status_is_read_as_far_as_it_can_be() {
        let whole = status(&headers(&[("grpc-status", "8"), ("grpc-message", "later%2C please"), ("grpc-status-details-bin", "CAgSAmhp")])).unwrap();
        assert_eq!((whole.code(), whole.message(), whole.details()), (Code::ResourceExhausted, "later, please", &b"\x08\x08\x12\x02hi"[..]));
        let padded = status(&headers(&[("grpc-status", "8"), ("grpc-status-details-bin", "CAg=")])).unwrap();
        assert_eq!(padded.details(), b"\x08\x08");
        let broken = status(&headers(&[("grpc-status", "3"), ("grpc-message", "%ff"), ("grpc-status-details-bin", "!")])).unwrap();
        assert_eq!((broken.code(), broken.details()), (Code::InvalidArgument, &b""[..]));
        assert_eq!(status(&headers(&[("grpc-status", "99")])).unwrap().code(), Code::Unknown);
        assert!(status(&headers(&[("grpc-status", "fine")])).is_none());
        assert!(status(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_message_is_as_long_as_its_prefix_says() {
        let gzip = HeaderValue::from_static("gzip");
        assert_eq!(unframed(&Bytes::from_static(b"\0\0\0\0\x02hi"), None).unwrap(), "hi");
        let small = Encoding::Gzip.deflate(Bytes::from_static(b"hi")).unwrap();
        let framed = [&[1, 0, 0, 0, u8::try_from(small.len()).unwrap()][..], &small].concat();
        assert_eq!(unframed(&framed.into(), Some(&gzip)).unwrap(), "hi");
        for junk in [&b""[..], b"\0\0", b"\0\0\0\0\x03hi", b"\0\0\0\0\x01hi", b"\x07\0\0\0\x02hi", b"\x01\0\0\0\x02hi"] {
            assert!(unframed(&Bytes::from_static(junk), Some(&gzip)).is_err(), "{junk:?}");
        }
        assert!(unframed(&Bytes::from_static(b"\x01\0\0\0\x02hi"), None).is_err(), "compressed, and nothing says how");
    }
}
