//! `circuit_window`: works out circuits from the spans that pass, and is a receiver of what it derives.

mod attributes;
mod config;
mod counts;
mod detection;
mod engine;
mod logs;
mod metrics;
mod replay;
mod seen;
mod ticker;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_yaml::Value;
use smallvec::SmallVec;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::replay::{Decided, Replay, Replayed};
use self::{config::Config, engine::Engine, ticker::Ticker};
use crate::{
    circuit::{detect::rule::Rule, inspect::Inspection},
    config::schema_of,
    otlp::Signal,
    pipeline::{
        Admission, Admit, Connector, Consumer, Factory, Faults, Future, Instance, Lifecycle, Outlets, Parsed, Payload, Processor, Receiver, Refusal,
        Role, Section,
    },
};

/// What is known of `circuit_window` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Processors,
    name: "circuit_window",
    aliases: &[],
    about: "Works out circuits from spans: rolling windows, breaker events. A receiver of what it derives in other pipelines.",
    roles: &[
        Role { section: Section::Processors, signals: &[Signal::Traces] },
        Role { section: Section::Receivers, signals: &[Signal::Metrics, Signal::Logs] },
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

impl Connector for CircuitWindow {}

impl Processor for CircuitWindow {
    fn attach(&self, _: Signal, next: Arc<dyn Consumer>) -> Arc<dyn Consumer> {
        Arc::new(Entrance { engine: Arc::clone(&self.engine), next })
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
            let mut inspected = SmallVec::with_capacity(payload.parts.len());
            for part in &payload.parts {
                let inspection = self.engine.inspect(part).map_err(|error| Refusal::Permanent { reason: error.to_string() })?;
                inspected.push((part.bytes.clone(), inspection));
            }
            let next = self.next.admit(payload).await?;
            Ok(Box::new(Admitted { engine: Arc::clone(&self.engine), inspected, next }) as Box<dyn Admission>)
        })
    }
}

struct Admitted {
    engine: Arc<Engine>,
    inspected: SmallVec<[(Bytes, Inspection); 1]>,
    next: Box<dyn Admission>,
}

impl Admission for Admitted {
    fn commit(self: Box<Self>, payload: Payload) {
        let inspected = self.inspected.iter().filter(|(request, _)| self.inspected.len() == payload.parts.len() || is_part(request, &payload));
        // Of a batch, what found no room elsewhere is not committed and does not count.
        let committed: SmallVec<[&(Bytes, Inspection); 1]> = inspected.collect();
        self.next.commit(payload);
        for (request, inspection) in committed {
            self.engine.apply(request, inspection);
        }
    }
}

/// Whether a payload has this very request among its parts.
fn is_part(request: &Bytes, payload: &Payload) -> bool {
    payload.parts.iter().any(|part| part.bytes.as_ptr() == request.as_ptr())
}
