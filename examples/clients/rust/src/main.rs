//! A service that calls a local HTTP server through reqwest, with failsafe round the call that fails at times.
//!
//! Where its spans go is set by `OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_PROTOCOL`
//! alone.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, Uri},
};
use failsafe::{
    Config, StateMachine,
    backoff::{self, Constant},
    failure_policy::{self, ConsecutiveFailures},
    futures::CircuitBreaker,
};
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use reqwest::{Client, Response};
use tokio::{net::TcpListener, time::sleep};

/// Nothing listens on the discard port.
const UNREACHABLE: &str = "http://127.0.0.1:9";
const PATIENT: Duration = Duration::from_secs(1);
const HASTY: Duration = Duration::from_millis(50);

static PAYMENTS_DOWN: AtomicBool = AtomicBool::new(false);

type Breaker = StateMachine<ConsecutiveFailures<Constant>, ()>;
/// Refused by the breaker, or sent and failed.
type Failure = failsafe::Error<reqwest::Error>;

/// The server that is called.
async fn answer(uri: Uri) -> StatusCode {
    if uri.path() == "/slow" {
        sleep(Duration::from_millis(100)).await;
    }
    match uri.path() {
        "/payments" if PAYMENTS_DOWN.load(Ordering::Relaxed) => StatusCode::SERVICE_UNAVAILABLE,
        "/items" | "/slow" | "/payments" => StatusCode::OK,
        "/broken" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::NOT_FOUND,
    }
}

/// The service that calls it.
struct Service {
    http: Client,
    tracer: SdkTracer,
    payments: Breaker,
    shop: String,
}

impl Service {
    /// Sends a request, and tells of it in a CLIENT span.
    async fn get(&self, parent: &Context, url: &str, timeout: Duration) -> Result<Response, reqwest::Error> {
        let request = self.http.get(url).timeout(timeout).build()?;
        let url = request.url();
        let attributes = [
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("url.full", url.to_string()),
            KeyValue::new("server.address", url.host_str().unwrap_or_default().to_owned()),
            KeyValue::new("server.port", i64::from(url.port_or_known_default().unwrap_or_default())),
        ];
        let builder = self.tracer.span_builder("GET").with_kind(SpanKind::Client).with_attributes(attributes);
        let mut span = builder.start_with_context(&self.tracer, parent);
        let answered = self.http.execute(request).await;
        match &answered {
            Ok(response) => {
                let status = response.status();
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
                if status.is_client_error() || status.is_server_error() {
                    span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
                    span.set_status(Status::error(""));
                }
            }
            Err(error) => {
                span.set_attribute(KeyValue::new("error.type", kind(error)));
                span.set_status(Status::error(error.to_string()));
            }
        }
        span.end();
        answered
    }

    /// What the breaker counts: an answer of 400 and above is a failure.
    async fn charge(&self, parent: &Context, order: u32) -> Result<(), reqwest::Error> {
        let url = format!("{}/payments?order={order}", self.shop);
        self.get(parent, &url, PATIENT).await?.error_for_status().map(drop)
    }

    async fn checkout(&self, order: u32) -> Result<(), Failure> {
        let span = self.tracer.start_with_context("checkout", &Context::new());
        let context = Context::new().with_span(span);
        // A call that is refused is never polled, and so makes no CLIENT span.
        let charged = self.payments.call(self.charge(&context, order)).await;
        if let Err(error) = &charged {
            context.span().record_error(error); // the breaker's refusal too
            context.span().set_status(Status::error(error.to_string()));
        }
        context.span().end();
        charged
    }

    async fn call(&self, i: u32) -> Result<(), Failure> {
        if i % 2 == 1 {
            return self.checkout(i).await;
        }
        let (url, timeout) = match i % 80 {
            0 | 40 => (format!("{}/missing", self.shop), PATIENT),
            10 | 50 => (format!("{}/broken", self.shop), PATIENT),
            20 => (format!("{}/slow", self.shop), HASTY), // times out
            60 => (format!("{}/slow", self.shop), PATIENT),
            30 => (format!("{UNREACHABLE}/stock"), PATIENT),
            _ => (format!("{}/items?page={}", self.shop, i % 10), PATIENT),
        };
        self.get(&Context::new(), &url, timeout).await.map(drop).map_err(failsafe::Error::Inner)
    }
}

/// `error.type` of a call without an answer, and the name of an outcome.
fn kind(error: &reqwest::Error) -> String {
    match error.status() {
        Some(status) => status.as_str().to_owned(),
        None if error.is_timeout() => "timeout".to_owned(),
        None if error.is_connect() => "connect".to_owned(),
        None => "_OTHER".to_owned(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Without anything that says otherwise: where the environment says, batched, in the name of OTEL_SERVICE_NAME.
    let exporter = SpanExporter::builder().build()?;
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let shop = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });

    let policy = failure_policy::consecutive_failures(5, backoff::constant(Duration::from_millis(200)));
    let service = Service {
        http: Client::builder().no_proxy().build()?,
        tracer: provider.tracer("shop-client"),
        payments: Config::new().failure_policy(policy).build(),
        shop,
    };

    let calls: u32 = env::var("CALLS").map_or(Ok(2000), |calls| calls.parse())?;
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for i in 0..calls {
        PAYMENTS_DOWN.store(i % 200 >= 150, Ordering::Relaxed);
        let outcome = match service.call(i).await {
            Ok(()) => "returned".to_owned(),
            Err(failsafe::Error::Rejected) => "refused".to_owned(),
            Err(failsafe::Error::Inner(error)) => kind(&error),
        };
        *outcomes.entry(outcome).or_default() += 1;
        sleep(Duration::from_millis(5)).await;
    }

    provider.shutdown()?; // sends what is still queued
    println!("{outcomes:?}");
    Ok(())
}
