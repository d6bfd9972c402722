//! Where the program sends to: takes OTLP over gRPC and HTTP on one port, keeps it, and answers as it is told.

use std::{
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Condvar, Mutex},
    task::{Context, Poll},
    time::Instant,
};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::{Metric, metric::Data, number_data_point},
    trace::v1::Span,
};
use prost::Message;

/// How the sink answers a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Not now (HTTP 503, gRPC UNAVAILABLE).
    Busy,
    /// Never with a span of this name in it (HTTP 400, gRPC `INVALID_ARGUMENT`).
    Refuses(&'static str),
    /// Reads the request and closes the connection without an answer.
    Silent,
    /// Takes the request and says this.
    Says(Reply),
}

/// An answer as it is to be given, right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// HTTP's status.
    pub(crate) status: u16,
    pub(crate) headers: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static [u8],
    pub(crate) trailers: &'static [(&'static str, &'static str)],
}

#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) traces: Vec<ExportTraceServiceRequest>,
    pub(crate) metrics: Vec<ExportMetricsServiceRequest>,
    pub(crate) logs: Vec<ExportLogsServiceRequest>,
    /// Requests of spans as they came, byte for byte.
    pub(crate) raw: Vec<Vec<u8>>,
    /// Everything that came, taken or not.
    pub(crate) requests: usize,
    mood: Mood,
}

impl Taken {
    pub(crate) fn spans(&self) -> impl Iterator<Item = &Span> {
        let groups = self.traces.iter().flat_map(|request| &request.resource_spans);
        groups.flat_map(|group| &group.scope_spans).flat_map(|scope| &scope.spans)
    }

    pub(crate) fn metrics(&self) -> impl Iterator<Item = &Metric> {
        let groups = self.metrics.iter().flat_map(|request| &request.resource_metrics);
        groups.flat_map(|group| &group.scope_metrics).flat_map(|scope| &scope.metrics)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &LogRecord> {
        let groups = self.logs.iter().flat_map(|request| &request.resource_logs);
        groups.flat_map(|group| &group.scope_logs).flat_map(|scope| &scope.log_records)
    }

    /// The sum of the newest values of a counter over all its series.
    pub(crate) fn counted(&self, metric: &str) -> f64 {
        let mut series: Vec<(&[KeyValue], u64, f64)> = Vec::new();
        for one in self.metrics().filter(|one| one.name == metric) {
            let Some(Data::Sum(sum)) = &one.data else { continue };
            for point in &sum.data_points {
                let value = match point.value {
                    Some(number_data_point::Value::AsDouble(number)) => number,
                    Some(number_data_point::Value::AsInt(number)) => number as f64,
                    None => continue,
                };
                match series.iter_mut().find(|(attributes, ..)| *attributes == point.attributes) {
                    Some(known) if known.1 <= point.time_unix_nano => (known.1, known.2) = (point.time_unix_nano, value),
                    Some(_) => {}
                    None => series.push((&point.attributes, point.time_unix_nano, value)),
                }
            }
        }
        series.iter().map(|(.., value)| value).sum()
    }

    /// The newest value of a sum or gauge among the points whose attributes have these values.
    pub(crate) fn value(&self, metric: &str, attributes: &[(&str, &str)]) -> Option<f64> {
        let points = self.metrics().filter(|one| one.name == metric).filter_map(|one| match one.data.as_ref()? {
            Data::Sum(sum) => Some(&sum.data_points),
            Data::Gauge(gauge) => Some(&gauge.data_points),
            _ => None,
        });
        let fitting = points.flatten().filter(|point| attributes.iter().all(|(key, wanted)| text(&point.attributes, key).as_deref() == Some(wanted)));
        fitting.max_by_key(|point| point.time_unix_nano).and_then(|point| match point.value? {
            number_data_point::Value::AsDouble(number) => Some(number),
            number_data_point::Value::AsInt(number) => Some(number as f64),
        })
    }
}

/// The text of an attribute.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Takes what the program sends.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    taken: Arc<(Mutex<Taken>, Condvar)>,
    runtime: Arc<tokio::runtime::Runtime>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let sink = Self { address: listener.local_addr().unwrap(), taken: Arc::default(), runtime: Arc::new(runtime) };
        let taken = Arc::clone(&sink.taken);
        sink.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = Arc::clone(&taken);
                let answer = service_fn(move |request| answer(Arc::clone(&taken), request));
                tokio::spawn(async move { drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await) });
            }
        });
        sink
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.taken.0.lock().unwrap().mood = mood;
    }

    /// Waits until what came makes sense of; gives what `find` found.
    pub(crate) fn wait<T>(&self, what: &str, mut find: impl FnMut(&Taken) -> Option<T>) -> T {
        let deadline = Instant::now() + super::PATIENCE;
        let mut taken = self.taken.0.lock().unwrap();
        loop {
            if let Some(found) = find(&taken) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let so_far = (taken.requests, taken.spans().count(), taken.metrics().count(), taken.records().count());
            assert!(!left.is_zero(), "{what}; requests, spans, metrics, records that came: {so_far:?}");
            taken = self.taken.1.wait_timeout(taken, left).unwrap().0;
        }
    }

    /// Waits for a metric to have a value.
    pub(crate) fn wait_for_value(&self, metric: &str, attributes: &[(&str, &str)], value: f64) {
        let mut last = None;
        self.wait(&format!("{metric} {attributes:?} is not {value}"), |taken| {
            last = taken.value(metric, attributes);
            last.filter(|found| (*found - value).abs() < 1e-9)
        });
    }

    /// Looks at what has come.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Taken) -> T) -> T {
        look(&self.taken.0.lock().unwrap())
    }
}

/// A body of given frames.
struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

async fn answer(taken: Arc<(Mutex<Taken>, Condvar)>, request: Request<Incoming>) -> Result<Response<Frames>, &'static str> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let grpc = header("content-type").starts_with("application/grpc");
    let message = if grpc {
        let compressed = body.first() == Some(&1);
        inflated(if compressed { header("grpc-encoding") } else { "" }, body.get(5..).unwrap_or_default())
    } else {
        inflated(header("content-encoding"), &body)
    };
    let json = header("content-type").starts_with("application/json");
    let mood = take(&taken, head.uri.path(), json, &message);
    taken.1.notify_all();
    match mood {
        Mood::Silent => Err("no answer"),
        Mood::Says(reply) => Ok(said(reply)),
        _ if grpc => Ok(grpc_answer(mood)),
        _ => Ok(http_answer(mood)),
    }
}

fn inflated(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match encoding {
        "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap()),
        "zstd" => out = zstd::decode_all(body).unwrap(),
        _ => out = body.to_vec(),
    }
    out
}

fn take(taken: &(Mutex<Taken>, Condvar), path: &str, json: bool, message: &[u8]) -> Mood {
    let mut taken = taken.0.lock().unwrap();
    taken.requests += 1;
    let mood = taken.mood;
    if matches!(mood, Mood::Busy | Mood::Silent) {
        return mood;
    }
    if path.contains("trace") {
        taken.raw.push(message.to_vec());
        // Hostile spans travel on as they came, and not every reader can make sense of them.
        let Some(request): Option<ExportTraceServiceRequest> = read(json, message) else { return Mood::Well };
        let spans = request.resource_spans.iter().flat_map(|group| &group.scope_spans).flat_map(|scope| &scope.spans);
        if let Mood::Refuses(name) = mood
            && spans.into_iter().any(|span| span.name == name)
        {
            return mood;
        }
        taken.traces.push(request);
    } else if path.contains("metrics") {
        taken.metrics.extend(read(json, message));
    } else {
        taken.logs.extend(read(json, message));
    }
    if let Mood::Says(_) = mood { mood } else { Mood::Well }
}

fn read<T: Message + Default + serde::de::DeserializeOwned>(json: bool, message: &[u8]) -> Option<T> {
    if json { Some(serde_json::from_slice(message).unwrap()) } else { T::decode(message).ok() }
}

fn said(reply: Reply) -> Response<Frames> {
    let headers = |written: &[(&'static str, &'static str)]| -> HeaderMap {
        let typed = |&(name, value): &(&'static str, &'static str)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        written.iter().map(typed).collect()
    };
    let data = (!reply.body.is_empty()).then(|| Frame::data(Bytes::from_static(reply.body)));
    let trailers = (!reply.trailers.is_empty()).then(|| Frame::trailers(headers(reply.trailers)));
    let frames: Vec<Frame<Bytes>> = data.into_iter().chain(trailers).collect();
    let mut response = Response::new(Frames(frames.into_iter()));
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap();
    *response.headers_mut() = headers(reply.headers);
    response
}

fn http_answer(mood: Mood) -> Response<Frames> {
    let status = match mood {
        Mood::Well | Mood::Says(_) => 200,
        Mood::Busy | Mood::Silent => 503,
        Mood::Refuses(_) => 400,
    };
    let mut response = Response::new(Frames(Vec::new().into_iter()));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

fn grpc_answer(mood: Mood) -> Response<Frames> {
    let status = match mood {
        Mood::Well | Mood::Says(_) => "0",
        Mood::Busy | Mood::Silent => "14",
        Mood::Refuses(_) => "3",
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let mut empty = BytesMut::new();
    empty.put_bytes(0, 5);
    let data = (mood == Mood::Well).then(|| Frame::data(Bytes::from(empty)));
    let frames: Vec<Frame<Bytes>> = data.into_iter().chain([Frame::trailers(trailers)]).collect();
    let mut response = Response::new(Frames(frames.into_iter()));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
