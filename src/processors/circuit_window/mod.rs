//! `circuit_window`: works out circuits from the spans that pass, and is a receiver of what it derives.

mod agreement;
mod attributes;
mod config;
mod counts;
mod detection;
mod engine;
mod enrich;
mod findings;
mod gauge;
mod incidents;
mod last_told;
mod logs;
mod metrics;
mod moments;
mod processes;
mod replay;
mod seen;
mod services;
mod ticker;
mod together;
mod usages;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_yaml::Value;
use smallvec::SmallVec;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::replay::{Ahead, Decided, Replay, Replayed, Replayings};
use self::{config::Config, engine::Engine, ticker::Ticker};
use crate::{
    circuit::{analysis::config::AnalysisConfig, detect::rule::Rule, inspect::Inspection},
    config::schema_of,
    otlp::Signal,
    pipeline::{
        Admission, Admit, Connector, Consumer, Factory, Faults, Future, Instance, Lifecycle, Outlets, Parsed, Part, Payload, Processor, Receiver,
        Refusal, Role, Section,
    },
};

/// What is known of `circuit_window` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Processors,
    name: "circuit_window",
    aliases: &[],
    about: "Works out circuits from spans: rolling windows, breaker events. A receiver of what it derives in other pipelines.",
    roles: &[
        Role { section: Section::Processors, signals: &[Signal::Traces, Signal::Metrics] },
        Role { section: Section::Receivers, signals: &[Signal::Traces, Signal::Metrics, Signal::Logs] },
    ],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

/// The rules by which a `circuit_window` recognises breakers, in the order in which they count, from what a user wrote
/// for it.
///
/// # Errors
/// For people: what is wrong with it.
pub fn rules(value: Value) -> Result<Vec<Rule>, String> {
    let config: Config = Parsed::read(value).map_err(|faults| faults.to_string())?;
    Ok(config.detection.rules())
}

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let checked = config.check()?;
    Parsed::new(config, move |_, setup| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let engine = Arc::new(Engine::new(checked, setup, cores.next_power_of_two().min(64)));
        Ok(Instance::Connector(Arc::new(CircuitWindow { id: setup.id.clone(), engine, stop: CancellationToken::new(), ticking: Mutex::default() })))
    })
}

struct CircuitWindow {
    id: String,
    engine: Arc<Engine>,
    stop: CancellationToken,
    /// What ticks, and its task.
    ticking: Mutex<(Option<Arc<Ticker>>, JoinSet<()>)>,
}

impl Connector for CircuitWindow {
    fn look_for(&self, analysis: AnalysisConfig) {
        self.engine.look_for(analysis);
    }
}

impl Processor for CircuitWindow {
    fn attach(&self, signal: Signal, next: Arc<dyn Consumer>) -> Arc<dyn Consumer> {
        let engine = Arc::clone(&self.engine);
        if signal == Signal::Metrics { Arc::new(Beside { engine, next }) } else { Arc::new(Entrance { engine, next }) }
    }
}

impl Receiver for CircuitWindow {
    fn start(&self, outlets: Outlets) -> Future<'_, Result<(), String>> {
        Box::pin(async move {
            let ticker = Arc::new(Ticker::new(self.id.clone(), Arc::clone(&self.engine), outlets));
            let mut ticking = self.ticking.lock();
            ticking.1.spawn(Arc::clone(&ticker).run(self.stop.clone()));
            ticking.0 = Some(ticker);
            Ok(())
        })
    }
}

impl Lifecycle for CircuitWindow {
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            self.stop.cancel();
            let (ticker, mut ticking) = std::mem::take(&mut *self.ticking.lock());
            let finished = async { while ticking.join_next().await.is_some() {} };
            if tokio::time::timeout(within, finished).await.is_err() {
                ticker.into_iter().for_each(|ticker| ticker.give_up());
            }
        })
    }

    fn reconfigure(&self, value: &Value) -> Result<(), String> {
        let checked = Parsed::read::<Config>(value.clone()).and_then(|config| config.check());
        checked.map(|checked| self.engine.reconfigure(checked)).map_err(|faults| faults.to_string())
    }
}

/// Stands before the rest of a traces pipeline.
struct Entrance {
    engine: Arc<Engine>,
    next: Arc<dyn Consumer>,
}

impl Consumer for Entrance {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            let mut inspected: SmallVec<[Inspected; 1]> = SmallVec::with_capacity(payload.parts.len());
            for part in &payload.parts {
                let inspection = self.engine.inspect(part).map_err(|error| Refusal::Permanent { reason: error.to_string() })?;
                let enriched = self.engine.enriched(part, &inspection);
                inspected.push(Inspected { request: part.bytes.clone(), inspection, enriched });
            }
            let admitted = passed_on(payload, &inspected);
            let next = self.next.admit(admitted.as_ref().unwrap_or(payload)).await?;
            Ok(Box::new(Admitted { engine: Arc::clone(&self.engine), inspected, next }) as Box<dyn Admission>)
        })
    }
}

/// Stands in a metrics pipeline: looks at what processes tell of themselves, and passes everything on as it is.
struct Beside {
    engine: Arc<Engine>,
    next: Arc<dyn Consumer>,
}

impl Consumer for Beside {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            let next = self.next.admit(payload).await?;
            Ok(Box::new(Passing { engine: Arc::clone(&self.engine), next }) as Box<dyn Admission>)
        })
    }
}

struct Passing {
    engine: Arc<Engine>,
    next: Box<dyn Admission>,
}

impl Admission for Passing {
    fn commit(self: Box<Self>, payload: Payload) {
        let requests: SmallVec<[Bytes; 1]> = payload.parts.iter().map(|part| part.bytes.clone()).collect();
        self.next.commit(payload);
        requests.iter().for_each(|request| self.engine.use_up(request));
    }
}

/// A request that was read.
struct Inspected {
    request: Bytes,
    inspection: Inspection,
    /// What goes on in its place, if something was added to its spans.
    enriched: Option<Part>,
}

/// A payload with enriched parts in the place of those that were read; `None` if there are none.
fn passed_on(payload: &Payload, inspected: &[Inspected]) -> Option<Payload> {
    if inspected.iter().all(|one| one.enriched.is_none()) {
        return None;
    }
    let enriched = |part: &Part| inspected.iter().find(|one| is_same(&one.request, part)).and_then(|one| one.enriched.clone());
    let parts = payload.parts.iter().map(|part| enriched(part).unwrap_or_else(|| part.clone())).collect();
    Some(Payload { signal: payload.signal, parts })
}

struct Admitted {
    engine: Arc<Engine>,
    inspected: SmallVec<[Inspected; 1]>,
    next: Box<dyn Admission>,
}

impl Admission for Admitted {
    fn commit(self: Box<Self>, payload: Payload) {
        let all = self.inspected.len() == payload.parts.len();
        // Of a batch, what found no room elsewhere is not committed and does not count.
        let is_part = |one: &&Inspected| all || payload.parts.iter().any(|part| is_same(&one.request, part));
        let committed: SmallVec<[&Inspected; 1]> = self.inspected.iter().filter(is_part).collect();
        let passed_on = passed_on(&payload, &self.inspected);
        self.next.commit(passed_on.unwrap_or(payload));
        for one in committed {
            self.engine.apply(&one.request, &one.inspection);
        }
    }
}

/// Whether a part is this very request.
fn is_same(request: &Bytes, part: &Part) -> bool {
    part.bytes.as_ptr() == request.as_ptr()
}
