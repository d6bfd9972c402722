//! gRPC that hands bytes through, with tonic and nothing else: the bare proxy, the sink, the client.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use fuseboard::otlp::trace::{Span, Visitor, walk};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{NamedService, UnaryService},
    transport::{Channel, Server, server::TcpIncoming},
};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const MESSAGE_MAX: usize = 64 << 20;

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct AsBytes;

impl Codec for AsBytes {
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

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Does something with the bytes of a request, then answers that all is well.
#[derive(Clone)]
enum Handler {
    Forward(Channel),
    Count(Arc<AtomicU64>),
    CountSpans(Arc<AtomicU64>),
}

impl UnaryService<Bytes> for Handler {
    type Response = Bytes;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let body = request.into_inner();
        match self.clone() {
            Self::Forward(channel) => Box::pin(async move {
                send(channel, body).await;
                Ok(Response::new(Bytes::new()))
            }),
            Self::Count(sunk) => {
                sunk.fetch_add(body.len() as u64, Ordering::Relaxed);
                Box::pin(async { Ok(Response::new(Bytes::new())) })
            }
            Self::CountSpans(sunk) => {
                let mut spans = Spans(0);
                walk(&body, &mut spans).unwrap();
                sunk.fetch_add(spans.0, Ordering::Relaxed);
                Box::pin(async { Ok(Response::new(Bytes::new())) })
            }
        }
    }
}

/// Counts spans.
struct Spans(u64);

impl<'a> Visitor<'a> for Spans {
    fn span(&mut self, _: &Span<'a>) {
        self.0 += 1;
    }
}

/// One gRPC service, by its name; what it takes and answers may be compressed.
#[derive(Clone)]
struct Service<const METRICS: bool>(Handler, Option<CompressionEncoding>);

impl NamedService for Service<false> {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl NamedService for Service<true> {
    const NAME: &'static str = "opentelemetry.proto.collector.metrics.v1.MetricsService";
}

impl<const METRICS: bool> tonic::codegen::Service<http::Request<Body>> for Service<METRICS> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self(handler, compression) = self.clone();
        let mut server = tonic::server::Grpc::new(AsBytes).max_decoding_message_size(MESSAGE_MAX);
        if let Some(compression) = compression {
            server = server.accept_compressed(compression).send_compressed(compression);
        }
        Box::pin(async move { Ok(server.unary(handler, request).await) })
    }
}

/// Listens on some port, says which, and hands every request on before it answers.
pub(crate) async fn proxy(upstream: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let channel = connect(upstream).await;
    serve(listener, Service::<false>(Handler::Forward(channel), None), None).await;
}

/// Counts the bytes of the spans that come.
pub(crate) async fn sink(listener: TcpListener, sunk: Arc<AtomicU64>) {
    let metrics = Service::<true>(Handler::Count(Arc::default()), None);
    serve(listener, Service::<false>(Handler::Count(sunk), None), Some(metrics)).await;
}

/// Counts the spans that come, compressed.
pub(crate) async fn sink_of_spans(listener: TcpListener, sunk: Arc<AtomicU64>, compression: CompressionEncoding) {
    serve(listener, Service::<false>(Handler::CountSpans(sunk), Some(compression)), None).await;
}

async fn serve(listener: TcpListener, traces: Service<false>, metrics: Option<Service<true>>) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder().add_service(traces).add_optional_service(metrics).serve_with_incoming(incoming).await.unwrap();
}

/// A connection.
pub(crate) async fn connect(endpoint: &str) -> Channel {
    Channel::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap()
}

/// Sends a request, again while there is no room for it.
pub(crate) async fn send(channel: Channel, body: Bytes) {
    send_with(Grpc::new(channel), body).await;
}

/// The same, compressed.
pub(crate) async fn send_compressed(channel: Channel, body: Bytes, compression: CompressionEncoding) {
    send_with(Grpc::new(channel).send_compressed(compression).accept_compressed(compression), body).await;
}

async fn send_with(mut client: Grpc<Channel>, body: Bytes) {
    loop {
        client.ready().await.unwrap();
        let answer: Result<Response<Bytes>, Status> = client.unary(Request::new(body.clone()), EXPORT.parse().unwrap(), AsBytes).await;
        match answer {
            Ok(_) => return,
            Err(status) if status.code() == tonic::Code::Unavailable => tokio::task::yield_now().await,
            Err(status) => panic!("{status}"),
        }
    }
}
