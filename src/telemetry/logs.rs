use std::io::{self, IsTerminal};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{EnvFilter, Layer, Registry, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::settings::{Encoding, Level, Logs};
use crate::pipeline::TRACES;

/// Begins to log to the standard error output, and to hand own spans to the traces' provider, if there is one.
/// `RUST_LOG` overrides the level.
pub(super) fn start(settings: &Logs, traces: Option<&SdkTracerProvider>) -> Result<(), String> {
    let level = match settings.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    // Libraries speak of themselves only when something is wrong.
    let usual = || EnvFilter::try_new(format!("warn,fuseboard={level},{TRACES}=off")).map_err(|error| error.to_string());
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) => EnvFilter::try_new(&wanted).map_err(|error| format!("RUST_LOG `{wanted}`: {error}"))?,
        Err(_) => usual()?,
    };
    let lines = tracing_subscriber::fmt::layer::<Registry>().with_writer(io::stderr).with_target(false);
    let lines = match settings.encoding {
        Encoding::Console => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Encoding::Json => lines.json().flatten_event(true).boxed(),
    };
    // Nothing but own spans: what libraries trace of the way to the backend would be traced on its way to the backend.
    let only = Targets::new().with_target(TRACES, tracing::Level::TRACE);
    let spans = traces.map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("fuseboard")).with_filter(only).boxed());
    // A list, since an optional layer that is none would switch the others off.
    let layers: Vec<_> = std::iter::once(lines.with_filter(filter).boxed()).chain(spans).collect();
    let started = tracing_subscriber::registry().with(layers).try_init();
    started.map_err(|error| format!("can't begin to log: {error}"))
}
