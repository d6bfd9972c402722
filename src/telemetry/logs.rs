//! Own logs, on the standard error output: bounded, whoever reads them and whoever makes them.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    io::{self, IsTerminal},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
    trace::TracerProvider,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::{
    line::{Line, Sameness},
    output::Output,
    repeats::{Repeats, Turn},
    settings::{self, Encoding, Logs},
};
use crate::{
    clock::{Clock, Wall},
    pipeline::TRACES,
};

/// How often it is looked whether something that was left out is to be told.
const LOOK: Duration = Duration::from_secs(1);

/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Own logs while they are written.
pub(super) struct Log {
    encoding: Encoding,
    coloured: bool,
    output: Output,
    hashes: RandomState,
    repeats: Mutex<Counted>,
}

struct Counted {
    repeats: Repeats<Line>,
    /// Lines that were left out since others told the same.
    left_out: u64,
}

/// Begins to log, and to hand own spans to the traces' provider, if there is one. `RUST_LOG` overrides the level.
pub(super) fn start(settings: &Logs, traces: Option<&SdkTracerProvider>) -> Result<Arc<Log>, String> {
    let level = match settings.level {
        settings::Level::Debug => "debug",
        settings::Level::Info => "info",
        settings::Level::Warn => "warn",
        settings::Level::Error => "error",
    };
    // Libraries speak of themselves only when something is wrong.
    let usual = || EnvFilter::try_new(format!("warn,fuseboard={level},{TRACES}=off")).map_err(|error| error.to_string());
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) => EnvFilter::try_new(&wanted).map_err(|error| format!("RUST_LOG `{wanted}`: {error}"))?,
        Err(_) => usual()?,
    };
    let output = Output::start(io::stderr()).map_err(|error| format!("can't begin to log: {error}"))?;
    let log = Arc::new(Log {
        encoding: settings.encoding,
        coloured: io::stderr().is_terminal(),
        output,
        hashes: RandomState::new(),
        repeats: Mutex::new(Counted { repeats: Repeats::new(), left_out: 0 }),
    });
    // Nothing but own spans: what libraries trace of the way to the backend would be traced on its way to the backend.
    let only = Targets::new().with_target(TRACES, Level::TRACE);
    let spans = traces.map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("fuseboard")).with_filter(only).boxed());
    // A list, since an optional layer that is none would switch the others off.
    let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
        std::iter::once(Lines(Arc::clone(&log)).with_filter(filter).boxed()).chain(spans).collect();
    let started = tracing_subscriber::registry().with(layers).try_init();
    started.map_err(|error| format!("can't begin to log: {error}"))?;
    tell_of_panics(Arc::clone(&log));
    Ok(log)
}

/// Writes events as lines.
struct Lines(Arc<Log>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.take(event);
    }
}

impl Log {
    /// Writes an event, or counts it where the same was said a moment ago. Only what may come as often as strangers wish is
    /// counted: WARN and ERROR. INFO tells of starts, reloads and ends; DEBUG is asked for.
    fn take(&self, event: &Event<'_>) {
        if *event.metadata().level() > Level::WARN {
            return self.write(&Line::of(event));
        }
        let Some(Turn { key, left_out }) = self.turn(self.key(event)) else { return };
        // Made without the lock: what a value shows of itself may be anybody's code.
        let line = Line::of(event);
        self.repeats.lock().repeats.note(key, line.summary());
        self.write(&line.with_left_out(left_out));
    }

    fn turn(&self, key: u64) -> Option<Turn> {
        let mut counted = self.repeats.lock();
        let turn = counted.repeats.turn(key, Instant::now());
        counted.left_out += u64::from(turn.is_none());
        turn
    }

    fn key(&self, event: &Event<'_>) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        event.metadata().callsite().hash(&mut hasher);
        event.record(&mut Sameness(&mut hasher));
        hasher.finish()
    }

    fn write(&self, line: &Line) {
        self.output.offer(line.render(self.encoding, self.coloured, Wall.now()));
    }

    /// Tells of what was left out; of all of it at the end.
    fn tell_left_out(&self, now: Option<Instant>) {
        let due = self.repeats.lock().repeats.due(now);
        for (line, left_out) in due {
            self.write(&line.with_left_out(left_out));
        }
    }

    /// Tells every now and then of what was left out and dropped. Runs until it is dropped.
    pub(super) async fn look_after(self: Arc<Self>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut told = 0;
        loop {
            ticks.tick().await;
            self.tell_left_out(Some(Instant::now()));
            let dropped = self.output.dropped();
            if dropped > told && self.output.finish(Duration::ZERO) {
                tracing::warn!(lines = dropped - told, "log lines were dropped: nobody read the standard error output");
                told = dropped;
            }
        }
    }

    /// Writes the last lines, as far as somebody reads them.
    pub(super) fn finish(&self) {
        self.tell_left_out(None);
        self.output.finish(LAST_LINES);
    }

    /// Counts what is not in the log.
    pub(super) fn observe(self: &Arc<Self>, meter: &Meter) {
        let log = Arc::clone(self);
        let dropped = move |observer: &dyn AsyncInstrument<u64>| {
            observer.observe(log.output.dropped(), &[KeyValue::new("reason", "unread")]);
            observer.observe(log.repeats.lock().left_out, &[KeyValue::new("reason", "repeated")]);
        };
        meter.u64_observable_counter("fuseboard_log_lines_dropped").with_callback(dropped).build();
    }
}

/// Panics are told in the log, where they wait for nobody: the usual hook writes to the standard error output itself.
fn tell_of_panics(log: Arc<Log>) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(said, "panicked at {place}: this is a fault of Fuseboard");
        // The program ends with its first thread.
        if thread::current().name() == Some("main") {
            log.finish();
        }
    }));
}
