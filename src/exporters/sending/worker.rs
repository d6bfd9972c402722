use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter, ObservableGauge},
};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::Instant};

use super::{
    config::{RetryOnFailure, SendingQueue},
    queue::Queue,
};
use crate::{
    otlp::Signal,
    pipeline::{Admit, Consumer, Exporter, Future, Lifecycle, Payload},
};

/// The longest wait a backend can ask for.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// What a backend made of a request it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::exporters) struct Sent {
    /// Items the backend refused within it; sending them again is of no use.
    pub(in crate::exporters) rejected: usize,
    /// What it said of them, or warns of.
    pub(in crate::exporters) message: String,
}

/// Why a backend did not take a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::exporters) enum Failure {
    /// It never will.
    Permanent(String),
    /// It may, later.
    Retryable {
        /// For the log.
        reason: String,
        /// How long the backend asks to wait.
        after: Option<Duration>,
    },
}

/// Sends one batch to one backend, once.
pub(in crate::exporters) trait Sender: Send + Sync + 'static {
    /// Sends.
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>>;
}

/// An exporter: a sender behind a queue.
pub(in crate::exporters) struct Sending<S> {
    shared: Arc<Shared<S>>,
    consumers: Mutex<JoinSet<()>>,
    /// Kept alive: they report the queue.
    _gauges: [ObservableGauge<u64>; 2],
}

struct Shared<S> {
    id: String,
    sender: S,
    queue: Arc<Queue>,
    num_consumers: usize,
    retry: RetryOnFailure,
    counts: Counts,
}

struct Counts {
    of: [SignalCounts; 3],
    attributes: [KeyValue; 1],
}

struct SignalCounts {
    sent: Counter<u64>,
    failed: Counter<u64>,
    enqueue_failed: Counter<u64>,
}

impl Counts {
    fn new(meter: &Meter, id: &str) -> Self {
        let of = Signal::ALL.map(|signal| {
            let counter = |what: &str| meter.u64_counter(format!("otelcol_exporter_{what}_{}", signal.items())).build();
            SignalCounts { sent: counter("sent"), failed: counter("send_failed"), enqueue_failed: counter("enqueue_failed") }
        });
        Self { of, attributes: [KeyValue::new("exporter", id.to_owned())] }
    }

    fn of(&self, signal: Signal) -> &SignalCounts {
        let [traces, metrics, logs] = &self.of;
        match signal {
            Signal::Traces => traces,
            Signal::Metrics => metrics,
            Signal::Logs => logs,
        }
    }
}

impl<S: Sender> Sending<S> {
    pub(in crate::exporters) fn new(id: &str, meter: &Meter, queue: SendingQueue, retry: RetryOnFailure, sender: S) -> Self {
        let num_consumers = queue.num_consumers;
        let queue = Arc::new(Queue::new(queue));
        let gauge = |what: &str, read: fn(&Queue) -> usize| {
            let (queue, attributes) = (Arc::downgrade(&queue), [KeyValue::new("exporter", id.to_owned())]);
            let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
                if let Some(queue) = queue.upgrade() {
                    observer.observe(read(&queue) as u64, &attributes);
                }
            };
            meter.u64_observable_gauge(format!("otelcol_exporter_queue_{what}")).with_callback(observe).build()
        };
        let gauges = [gauge("size", Queue::held), gauge("capacity", Queue::capacity)];
        let counts = Counts::new(meter, id);
        let shared = Arc::new(Shared { id: id.to_owned(), sender, queue, num_consumers, retry, counts });
        Self { shared, consumers: Mutex::default(), _gauges: gauges }
    }
}

impl<S: Sender> Consumer for Sending<S> {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            let admitted = self.shared.queue.reserve(payload).await;
            if admitted.is_err() {
                let counts = &self.shared.counts;
                counts.of(payload.signal).enqueue_failed.add(payload.items() as u64, &counts.attributes);
            }
            admitted
        })
    }
}

impl<S: Sender> Exporter for Sending<S> {
    fn start(&self) -> Future<'_, Result<(), String>> {
        Box::pin(async {
            let mut consumers = self.consumers.lock();
            for _ in 0..self.shared.num_consumers {
                consumers.spawn(Arc::clone(&self.shared).consume());
            }
            Ok(())
        })
    }
}

impl<S: Sender> Lifecycle for Sending<S> {
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            self.shared.queue.close();
            let mut consumers = std::mem::take(&mut *self.consumers.lock());
            let drained = async { while consumers.join_next().await.is_some() {} };
            if tokio::time::timeout(within, drained).await.is_err() {
                let (held, waiting) = (self.shared.queue.held(), self.shared.queue.waiting_items());
                tracing::error!(
                    exporter = self.shared.id,
                    held,
                    waiting_items = waiting,
                    "not everything could be sent before the shutdown timeout; what is left is lost"
                );
            }
        })
    }
}

impl<S: Sender> Shared<S> {
    async fn consume(self: Arc<Self>) {
        while let Some(batch) = self.queue.next().await {
            let room = self.queue.room_of(&batch);
            self.deliver(&batch).await;
            self.queue.done(room);
        }
    }

    /// Sends a batch. One that is refused for good is taken apart: each request in it is sent alone once, so that
    /// one sender's bad span costs nobody else's.
    async fn deliver(&self, batch: &Payload) {
        match self.attempt(batch).await {
            Ok(sent) => self.sent(batch, &sent),
            Err(reason) if batch.parts.len() > 1 => {
                tracing::debug!(exporter = self.id, reason, requests = batch.parts.len(), "batch refused; sending its requests one by one");
                for part in &batch.parts {
                    let alone = Payload::new(batch.signal, part.clone());
                    match self.attempt(&alone).await {
                        Ok(sent) => self.sent(&alone, &sent),
                        Err(reason) => self.dropped(&alone, &reason),
                    }
                }
            }
            Err(reason) => self.dropped(batch, &reason),
        }
    }

    /// Tries until the batch is taken, refused for good or given up; the error says which.
    async fn attempt(&self, batch: &Payload) -> Result<Sent, String> {
        let mut interval = self.retry.initial_interval.get();
        let mut first_failure = None;
        loop {
            let (reason, after) = match self.sender.send(batch).await {
                Ok(sent) => return Ok(sent),
                Err(Failure::Permanent(reason)) => return Err(reason),
                Err(Failure::Retryable { reason, after }) => (reason, after),
            };
            if !self.retry.enabled {
                return Err(format!("{reason} (retry_on_failure is off)"));
            }
            let spread = 1.0 + self.retry.randomization_factor * (2.0 * fastrand::f64() - 1.0);
            // The backend's own wish is a lower bound, never a reason to come back earlier.
            let wait = interval.mul_f64(spread).max(after.unwrap_or_default().min(WAIT_MAX));
            let given_up = self.retry.max_elapsed_time.get();
            let since: Instant = *first_failure.get_or_insert_with(Instant::now);
            if !given_up.is_zero() && since.elapsed() + wait > given_up {
                return Err(format!("{reason} (given up after {:?}, retry_on_failure.max_elapsed_time)", since.elapsed()));
            }
            tracing::warn!(exporter = self.id, reason, wait = ?wait, items = batch.items(), "export failed; will try again");
            tokio::time::sleep(wait).await;
            interval = interval.mul_f64(self.retry.multiplier).min(self.retry.max_interval.get());
        }
    }

    fn sent(&self, batch: &Payload, sent: &Sent) {
        let counts = self.counts.of(batch.signal);
        let rejected = sent.rejected.min(batch.items());
        counts.sent.add((batch.items() - rejected) as u64, &self.counts.attributes);
        if rejected > 0 {
            counts.failed.add(rejected as u64, &self.counts.attributes);
        }
        if rejected > 0 || !sent.message.is_empty() {
            tracing::warn!(exporter = self.id, rejected, message = sent.message, "the backend took a request in part");
        }
    }

    fn dropped(&self, batch: &Payload, reason: &str) {
        self.counts.of(batch.signal).failed.add(batch.items() as u64, &self.counts.attributes);
        tracing::error!(exporter = self.id, signal = batch.signal.name(), items = batch.items(), reason, "dropped");
    }
}
