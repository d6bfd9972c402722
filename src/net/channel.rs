//! gRPC towards a backend, messages as bytes.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{compression::Encoding, tls::ClientTls, with_causes};

/// The most bytes of an answer that are read; answers of OTLP are a few hundred.
const ANSWER_BYTES_MAX: usize = 4 << 20;

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

impl GrpcClient {
    /// A client for a backend.
    ///
    /// # Errors
    /// For people: the system's certificates can't be read.
    pub fn new(backend: Backend, headers: HeaderMap, compression: Encoding, timeout: Duration) -> Result<Self, String> {
        let Backend { endpoint, plain } = backend;
        let mut to = endpoint
            .connect_timeout(timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        if !plain {
            to = to.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(|error| format!("TLS: {error}"))?;
        }
        Ok(Self { channel: to.connect_lazy(), headers, compression, timeout })
    }

    /// Calls a unary method with a message.
    ///
    /// # Errors
    /// The status the backend answered; where there is no answer, [`Code::Unavailable`] or
    /// [`Code::DeadlineExceeded`] and why.
    pub async fn call(&self, method: &'static str, message: Bytes) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX).max_encoding_message_size(usize::MAX);
        if let Some(compression) = compression(self.compression) {
            grpc = grpc.send_compressed(compression);
        }
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        // The backend gives up when we do.
        let timeout = HeaderValue::try_from(format!("{}m", self.timeout.as_millis().min(99_999_999)));
        if let Ok(timeout) = timeout {
            request.metadata_mut().as_mut().insert(HeaderName::from_static("grpc-timeout"), timeout);
        }
        let answered = async {
            grpc.ready().await.map_err(|error| Status::unavailable(with_causes(&error)))?;
            grpc.unary(request, PathAndQuery::from_static(method), BytesCodec).await
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answered)) => Ok(answered.into_inner()),
            Ok(Err(status)) => made_of(status),
            Err(_elapsed) => Err(Status::deadline_exceeded(format!("no answer within {:?}", self.timeout))),
        }
    }
}

/// What an error of tonic's comes to.
fn made_of(status: Status) -> Result<Bytes, Status> {
    match std::error::Error::source(&status) {
        // Only a status that was made on this side has a cause: the connection broke before there was an answer.
        Some(cause) => Err(Status::unavailable(with_causes(cause))),
        // The backend took the request and said more than anybody reads; to send it again would double it.
        None if status.code() == Code::OutOfRange && status.message().contains("message length too large") => Ok(Bytes::new()),
        None => Err(status),
    }
}

const fn compression(encoding: Encoding) -> Option<CompressionEncoding> {
    match encoding {
        Encoding::None => None,
        Encoding::Gzip => Some(CompressionEncoding::Gzip),
        Encoding::Zstd => Some(CompressionEncoding::Zstd),
    }
}

/// Hands bytes through.
#[derive(Clone, Copy, Debug, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(message.len());
        out.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
