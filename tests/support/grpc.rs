//! gRPC by hand, so that wrong requests can be sent too.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

pub(crate) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP's status: 200 whatever gRPC says, unless it was no gRPC.
    pub(crate) http: u16,
    /// `grpc-status`, in the head or behind the body.
    pub(crate) code: Option<u16>,
    pub(crate) message: String,
    /// Whether it says when to come back.
    pub(crate) says_when: bool,
    /// The message, without its prefix.
    pub(crate) body: Vec<u8>,
}

/// A message behind its prefix.
pub(crate) fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[u8::from(compressed)][..], &length.to_be_bytes(), message].concat()
}

/// Sends a body with headers to a method, and waits for the answer.
pub(crate) fn post(to: SocketAddr, method: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
        let mut request = Request::post(format!("http://{to}{method}")).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let text = |name: &str| head.headers.get(name).or(trailers.get(name)).map(|value| value.to_str().unwrap().to_owned());
        Answer {
            http: head.status.as_u16(),
            code: text("grpc-status").map(|code| code.parse().unwrap()),
            message: text("grpc-message").unwrap_or_default(),
            says_when: text("grpc-status-details-bin").is_some(),
            body: body.to_bytes().get(5..).unwrap_or_default().to_vec(),
        }
    })
}

/// Sends spans.
pub(crate) fn export(to: SocketAddr, message: &[u8]) -> Answer {
    post(to, TRACES, &[], framed(false, message))
}
