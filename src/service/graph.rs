use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use opentelemetry::metrics::Meter;
use serde_yaml::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    counted::Counted,
    plan::{PipelinePlan, Plan},
};
use crate::{
    circuit::analysis::config::AnalysisConfig,
    clock::Clock,
    net::Listeners,
    otlp::Signal,
    pipeline::{Build, Consumer, Exporter, FanOut, Instance, Ledger, Made, Outlets, QueueRoom, Section, Setup},
};

type Key = (Section, String);

/// What every component shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) queue_room: Arc<QueueRoom>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) meter: Meter,
    /// Whether own metrics go anywhere.
    pub(super) has_own_metrics: bool,
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
    /// What is written and used, analyzers included.
    written: BTreeSet<Key>,
    pipelines: Vec<PipelinePlan>,
    shutdown_timeout: Duration,
    /// Exporters that a reload took out and that still send what they have.
    leaving: JoinSet<()>,
}

impl Graph {
    /// Starts a plan, from the sinks backwards.
    ///
    /// # Errors
    /// For people: what keeps it from starting; everything that had started is stopped again.
    pub(super) async fn start(shared: Shared, plan: Plan) -> Result<Self, String> {
        let mut graph = Self {
            shared,
            running: BTreeMap::new(),
            written: BTreeSet::new(),
            pipelines: Vec::new(),
            shutdown_timeout: Duration::ZERO,
            leaving: JoinSet::new(),
        };
        graph.change_to(plan).await?;
        Ok(graph)
    }

    /// Goes over to another plan while telemetry keeps flowing: what is written the same runs on, what can take its
    /// changes in place does, and the rest is replaced. An exporter that is replaced hands its queue to the new one.
    ///
    /// # Errors
    /// For people: what keeps the new plan from starting; the old one runs on as if nothing had been asked.
    pub(super) async fn change_to(&mut self, plan: Plan) -> Result<(), String> {
        let Plan { components, pipelines, analyses, settings, .. } = plan;
        let memory_limit = components.values().filter_map(|planned| planned.parsed.memory_limit).min();
        let queues = components.values().filter(|planned| planned.parsed.shares_queue_room).count();
        let mut fresh = BTreeMap::new();
        let mut changed = Vec::new();
        let wanted: BTreeSet<Key> = components.keys().cloned().collect();
        for (key, planned) in components {
            // Whoever owns the windows looks for what analyzers ask for.
            let Made::Component(build) = planned.parsed.made else { continue };
            match self.running.get(&key) {
                Some(running) if running.value == planned.value => {}
                // Changed in place below, when nothing can go wrong any more.
                Some(_) if planned.factory.in_place => changed.push((key, planned.value)),
                _ => {
                    let instance = self.build(&key, build)?;
                    let running = Running { instance, value: planned.value, listens_on: planned.parsed.listens_on, outlets: Outlets::default() };
                    fresh.insert(key, running);
                }
            }
        }
        look_for(&fresh, &analyses);
        let heads = self.heads(&pipelines, &fresh);
        if let Err(reason) = start_all(&fresh, &heads).await {
            // What waits at the heads would be waited for.
            drop(heads);
            stop_all(&order(&pipelines, &fresh), fresh, settings.shutdown_timeout.get()).await;
            self.close_unused_sockets();
            return Err(reason);
        }
        for (key, value) in changed {
            let Some(running) = self.running.get_mut(&key) else { continue };
            match running.instance.lifecycle().reconfigure(&value) {
                Ok(()) => running.value = value,
                Err(reason) => tracing::error!(component = key.1, reason, "kept its old settings"),
            }
        }
        look_for(&self.running, &analyses);
        self.shared.ledger.set_limit(memory_limit.unwrap_or(usize::MAX));
        self.shared.queue_room.divide(memory_limit, queues);
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
        tell_removed(&old_pipelines, &self.pipelines, &self.written, &wanted);
        self.written = wanted;
        let within = std::mem::replace(&mut self.shutdown_timeout, settings.shutdown_timeout.get());
        let order = order(&old_pipelines, &replaced);
        let exporters = stop_sources(&order, replaced, within).await;
        while self.leaving.try_join_next().is_some() {}
        for (key, old) in exporters {
            match self.running.get(&key).map(|running| &running.instance) {
                Some(Instance::Exporter(new)) => {
                    let new = Arc::clone(new);
                    self.leaving.spawn(async move { old.hand_over(new, within).await });
                }
                // It sends what it has while everything else goes on.
                _ => drop(self.leaving.spawn(async move { old.shutdown(within).await })),
            }
        }
        self.close_unused_sockets();
        Ok(())
    }

    fn close_unused_sockets(&self) {
        let used = self.running.values().flat_map(|running| running.listens_on.iter().map(String::as_str));
        self.shared.listeners.keep_only(used);
    }

    fn build(&self, key: &Key, build: Build) -> Result<Instance, String> {
        let Shared { clock, ledger, queue_room, listeners, meter, .. } = self.shared.clone();
        let setup = Setup { id: key.1.clone(), clock, ledger, queue_room, listeners, meter };
        build(&setup).map_err(|reason| format!("{}::{}: {reason}", key.0.name(), key.1))
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
            for key in pipeline.processors.iter().rev() {
                head = match of(key) {
                    Some(Instance::Processor(processor)) => processor.attach(pipeline.signal, head),
                    Some(Instance::Connector(connector)) => connector.attach(pipeline.signal, head),
                    _ => head,
                };
                // Where nobody reads own metrics the way is shorter without.
                if self.shared.has_own_metrics {
                    head = Counted::around(head, &self.shared.meter, &key.1, pipeline.signal);
                }
            }
            for receiver in &pipeline.receivers {
                heads.entry((receiver.clone(), pipeline.signal)).or_default().push(Arc::clone(&head));
            }
        }
        heads.into_iter().map(|(key, consumers)| (key, FanOut::of(consumers))).collect()
    }

    /// Stops everything, from the sources forward, within the time to shut down.
    pub(super) async fn stop(mut self) {
        let order = order(&self.pipelines, &self.running);
        let left = async { while self.leaving.join_next().await.is_some() {} };
        let (_, left) = tokio::join!(stop_all(&order, self.running, self.shutdown_timeout), timeout(self.shutdown_timeout, left));
        if left.is_err() {
            tracing::warn!("exporters that a reload took out were not done sending");
        }
    }
}

/// Says what a reload took out: a file that was cut off behind a whole line is often valid, and means much less.
fn tell_removed(before: &[PipelinePlan], now: &[PipelinePlan], written_before: &BTreeSet<Key>, written: &BTreeSet<Key>) {
    for gone in before.iter().filter(|old| now.iter().all(|new| new.id != old.id)) {
        tracing::warn!("the reload removed the pipeline `{}`: nothing goes that way any more", gone.id);
    }
    for (section, id) in written_before.difference(written) {
        tracing::warn!("the reload removed `{id}` under `{}`: no pipeline lists it any more", section.name());
    }
}

/// Tells the owners of windows what to look for.
fn look_for(components: &BTreeMap<Key, Running>, analyses: &BTreeMap<String, AnalysisConfig>) {
    for ((_, id), running) in components {
        if let Instance::Connector(connector) = &running.instance {
            connector.look_for(analyses.get(id).cloned().unwrap_or_default());
        }
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

/// Stops components within the time to shut down: in this order what receives and works on telemetry, which gets half
/// of the time, so that there is some left to send what it took; then all exporters at one time.
async fn stop_all(order: &[Key], components: BTreeMap<Key, Running>, within: Duration) {
    let deadline = Instant::now() + within;
    let mut sending = JoinSet::new();
    for (_, exporter) in stop_sources(order, components, within).await {
        sending.spawn(async move { exporter.shutdown(deadline.saturating_duration_since(Instant::now())).await });
    }
    while sending.join_next().await.is_some() {}
}

/// Stops everything but the exporters, and gives those.
async fn stop_sources(order: &[Key], mut components: BTreeMap<Key, Running>, within: Duration) -> Vec<(Key, Arc<dyn Exporter>)> {
    let deadline = Instant::now() + within;
    let mut exporters = Vec::new();
    for key in order {
        let Some(running) = components.remove(key) else { continue };
        if let Instance::Exporter(exporter) = running.instance {
            exporters.push((key.clone(), exporter));
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        running.instance.lifecycle().shutdown(left / 2).await;
        // Nothing flows from here any more; what waits behind may notice that its senders are gone.
        for signal in Signal::ALL {
            running.outlets.of(signal).lead_to(None);
        }
    }
    exporters
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
