use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use opentelemetry::metrics::Meter;
use serde_yaml::Value;
use tokio::time::Instant;

use super::plan::{PipelinePlan, Plan, Planned};
use crate::{
    clock::Clock,
    net::Listeners,
    otlp::Signal,
    pipeline::{Consumer, FanOut, Instance, Ledger, Outlets, Section, Setup},
};

type Key = (Section, String);

/// What every component shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) meter: Meter,
}

/// A component that runs.
struct Running {
    instance: Instance,
    /// What the user wrote for it: one that is written the same after a reload is kept.
    value: Value,
    listens_on: Vec<String>,
    /// Where a receiver or connector hands on what it has.
    outlets: Outlets,
}

/// Components that run, connected as the pipelines say.
pub(super) struct Graph {
    shared: Shared,
    running: BTreeMap<Key, Running>,
    pipelines: Vec<PipelinePlan>,
    shutdown_timeout: Duration,
}

impl Graph {
    /// Starts a plan, from the sinks backwards.
    ///
    /// # Errors
    /// For people: what keeps it from starting; everything that had started is stopped again.
    pub(super) async fn start(shared: Shared, plan: Plan) -> Result<Self, String> {
        let mut graph = Self { shared, running: BTreeMap::new(), pipelines: Vec::new(), shutdown_timeout: Duration::ZERO };
        graph.change_to(plan).await?;
        Ok(graph)
    }

    /// Goes over to another plan while telemetry keeps flowing: what is written the same runs on, what can take its
    /// changes in place does, and the rest is replaced.
    ///
    /// # Errors
    /// For people: what keeps the new plan from starting; the old one runs on as if nothing had been asked.
    pub(super) async fn change_to(&mut self, plan: Plan) -> Result<(), String> {
        let Plan { components, pipelines, settings, .. } = plan;
        let mut fresh = BTreeMap::new();
        let mut changed = Vec::new();
        let wanted: BTreeSet<Key> = components.keys().cloned().collect();
        for (key, planned) in components {
            match self.running.get(&key) {
                Some(running) if running.value == planned.value => {}
                // Changed in place below, when nothing can go wrong any more.
                Some(_) if planned.factory.in_place => changed.push((key, planned.value)),
                _ => {
                    let built = self.build(&key, planned)?;
                    fresh.insert(key, built);
                }
            }
        }
        let heads = self.heads(&pipelines, &fresh);
        if let Err(reason) = start_all(&fresh, &heads).await {
            stop_all(&order(&pipelines, &fresh), &fresh, self.shutdown_timeout).await;
            return Err(reason);
        }
        for (key, value) in changed {
            if let Some(Err(reason)) = self.running.get(&key).and_then(|running| running.instance.lifecycle().reconfigure(&value)) {
                tracing::error!(component = key.1, reason, "kept its old settings");
            } else if let Some(running) = self.running.get_mut(&key) {
                running.value = value;
            }
        }
        let mut replaced = BTreeMap::new();
        for (key, built) in fresh {
            if let Some(old) = self.running.insert(key.clone(), built) {
                replaced.insert(key, old);
            }
        }
        let gone: Vec<Key> = self.running.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
        replaced.extend(gone.into_iter().filter_map(|key| self.running.remove_entry(&key)));
        for (key, running) in &self.running {
            connect(key, &running.outlets, &heads);
        }
        drop(heads);
        let old_pipelines = std::mem::replace(&mut self.pipelines, pipelines);
        let within = std::mem::replace(&mut self.shutdown_timeout, settings.shutdown_timeout.get());
        stop_all(&order(&old_pipelines, &replaced), &replaced, within).await;
        let kept = self.running.values().flat_map(|running| running.listens_on.iter().map(String::as_str));
        self.shared.listeners.keep_only(kept);
        Ok(())
    }

    fn build(&self, key: &Key, planned: Planned) -> Result<Running, String> {
        let Shared { clock, ledger, listeners, meter } = self.shared.clone();
        let setup = Setup { id: key.1.clone(), clock, ledger, listeners, meter };
        let instance = (planned.parsed.build)(&setup).map_err(|reason| format!("{}::{}: {reason}", key.0.name(), key.1))?;
        Ok(Running { instance, value: planned.value, listens_on: planned.parsed.listens_on, outlets: Outlets::default() })
    }

    /// The first consumer of each pipeline, by what it receives from and signal.
    fn heads(&self, pipelines: &[PipelinePlan], fresh: &BTreeMap<Key, Running>) -> Heads {
        let mut heads: BTreeMap<(Key, Signal), Vec<Arc<dyn Consumer>>> = BTreeMap::new();
        let of = |key: &Key| fresh.get(key).or_else(|| self.running.get(key)).map(|running| running.instance.clone());
        for pipeline in pipelines {
            let sinks = pipeline.exporters.iter().filter_map(of).filter_map(|instance| match instance {
                Instance::Exporter(exporter) => Some(exporter as Arc<dyn Consumer>),
                _ => None,
            });
            let mut head = FanOut::of(sinks.collect());
            for instance in pipeline.processors.iter().rev().filter_map(of) {
                head = match instance {
                    Instance::Processor(processor) => processor.attach(pipeline.signal, head),
                    Instance::Connector(connector) => connector.attach(pipeline.signal, head),
                    _ => head,
                };
            }
            for receiver in &pipeline.receivers {
                heads.entry((receiver.clone(), pipeline.signal)).or_default().push(Arc::clone(&head));
            }
        }
        heads.into_iter().map(|(key, consumers)| (key, FanOut::of(consumers))).collect()
    }

    /// Stops everything, from the sources forward, within the time to shut down.
    pub(super) async fn stop(self) {
        stop_all(&order(&self.pipelines, &self.running), &self.running, self.shutdown_timeout).await;
    }
}

type Heads = BTreeMap<(Key, Signal), Arc<dyn Consumer>>;

fn connect(key: &Key, outlets: &Outlets, heads: &Heads) {
    for signal in Signal::ALL {
        outlets.of(signal).lead_to(heads.get(&(key.clone(), signal)).map(Arc::clone));
    }
}

/// Starts sinks first, then what derives, then what receives.
async fn start_all(components: &BTreeMap<Key, Running>, heads: &Heads) -> Result<(), String> {
    let of = |key: &Key, reason: String| format!("{}::{}: {reason}", key.0.name(), key.1);
    for (key, running) in components {
        if let Instance::Exporter(exporter) = &running.instance {
            exporter.start().await.map_err(|reason| of(key, reason))?;
        }
    }
    for (key, running) in components {
        if let Instance::Connector(connector) = &running.instance {
            connect(key, &running.outlets, heads);
            connector.start(running.outlets.clone()).await.map_err(|reason| of(key, reason))?;
        }
    }
    for (key, running) in components {
        if let Instance::Receiver(receiver) = &running.instance {
            connect(key, &running.outlets, heads);
            receiver.start(running.outlets.clone()).await.map_err(|reason| of(key, reason))?;
        }
    }
    Ok(())
}

/// Stops components in this order within the time to shut down. What receives gets half of it, so that there is
/// time left to send what it took.
async fn stop_all(order: &[Key], components: &BTreeMap<Key, Running>, within: Duration) {
    let deadline = Instant::now() + within;
    for key in order {
        let Some(running) = components.get(key) else { continue };
        let left = deadline.saturating_duration_since(Instant::now());
        let share = if matches!(running.instance, Instance::Exporter(_)) { left } else { left / 2 };
        running.instance.lifecycle().shutdown(share).await;
        // Nothing flows from here any more; what waits behind may notice that its senders are gone.
        for signal in Signal::ALL {
            running.outlets.of(signal).lead_to(None);
        }
    }
}

/// Components from the sources forward: each before all that it hands telemetry to.
fn order(pipelines: &[PipelinePlan], components: &BTreeMap<Key, Running>) -> Vec<Key> {
    let mut next: BTreeMap<Key, BTreeSet<Key>> = BTreeMap::new();
    for pipeline in pipelines {
        let way: Vec<&Key> = pipeline.processors.iter().chain(&pipeline.exporters).collect();
        for (position, from) in pipeline.processors.iter().enumerate() {
            next.entry(from.clone()).or_default().extend(way.iter().skip(position + 1).map(|key| (*key).clone()));
        }
        for receiver in &pipeline.receivers {
            next.entry(receiver.clone()).or_default().extend(way.iter().map(|key| (*key).clone()));
        }
    }
    let mut finished = Vec::new();
    let mut seen = BTreeSet::new();
    for key in components.keys() {
        visit(key, &next, &mut seen, &mut finished);
    }
    finished.reverse();
    finished
}

/// Depth first; what comes after a component is finished before it.
fn visit(key: &Key, next: &BTreeMap<Key, BTreeSet<Key>>, seen: &mut BTreeSet<Key>, finished: &mut Vec<Key>) {
    if !seen.insert(key.clone()) {
        return;
    }
    for after in next.get(key).into_iter().flatten() {
        visit(after, next, seen, finished);
    }
    finished.push(key.clone());
}
