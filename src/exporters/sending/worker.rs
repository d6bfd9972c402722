use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter, ObservableGauge},
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    config::{RetryOnFailure, SendingQueue},
    queue::Queue,
};
use crate::{
    otlp::Signal,
    pipeline::{Admit, Consumer, Exporter, Future, Lifecycle, Payload, Setup, TRACES},
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
    /// Why its answer could not be read, if that was so: it took the request all the same.
    pub(in crate::exporters) unread: Option<String>,
}

impl Sent {
    /// A request that was taken, by an answer that can't be read.
    pub(in crate::exporters) fn with_unread_answer(reason: String) -> Self {
        Self { unread: Some(reason), ..Self::default() }
    }
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
    /// Makes ready; an error is what keeps it from ever sending.
    fn start(&self) -> Future<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    /// Sends.
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>>;
}

/// Why sending ended without success.
enum Ended {
    /// The backend will never take it.
    Refused(String),
    /// It was tried for long enough.
    GivenUp(String),
    /// The exporter ends.
    Cut,
}

/// How long a request that is under way when its exporter ends may still take.
const GRACE: Duration = Duration::from_millis(500);

/// MiB of large requests that one exporter sends at one time, or a single one that is larger: they are joined, framed and
/// compressed for that, so each is there more than once meanwhile.
const LARGE_MIB: u32 = 64;

/// The shortest wait before another try: less would be no wait at all.
const WAIT_MIN: Duration = Duration::from_millis(10);

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
    /// Permits for MiB of large requests.
    large: Semaphore,
    /// Cuts off what is being sent and waited for.
    cut: CancellationToken,
}

struct Counts {
    of: [SignalCounts; 3],
    unread_answers: Counter<u64>,
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
        let unread_answers = meter.u64_counter("fuseboard_exporter_unread_answers").build();
        Self { of, unread_answers, attributes: [KeyValue::new("exporter", id.to_owned())] }
    }

    fn of(&self, signal: Signal) -> &SignalCounts {
        signal.of(&self.of)
    }
}

impl<S: Sender> Sending<S> {
    pub(in crate::exporters) fn new(setup: &Setup, queue: SendingQueue, retry: RetryOnFailure, sender: S) -> Self {
        let Setup { id, meter, .. } = setup;
        let num_consumers = queue.num_consumers;
        let queue = Arc::new(Queue::new(queue, Arc::clone(&setup.queue_room)));
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
        let (large, cut) = (Semaphore::new(LARGE_MIB as usize), CancellationToken::new());
        let shared = Arc::new(Shared { id: id.to_owned(), sender, queue, num_consumers, retry, counts, large, cut });
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
            self.shared.sender.start().await?;
            let mut consumers = self.consumers.lock();
            for _ in 0..self.shared.num_consumers {
                consumers.spawn(Arc::clone(&self.shared).consume());
            }
            Ok(())
        })
    }

    fn hand_over(&self, heir: Arc<dyn Exporter>, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            self.shared.queue.hand_over(&heir);
            self.shared.cut.cancel();
            self.end(within).await;
        })
    }

    fn inherit(&self, unsent: Vec<Payload>) {
        self.shared.queue.inherit(unsent);
    }
}

impl<S: Sender> Lifecycle for Sending<S> {
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            self.shared.queue.close();
            self.end(within).await;
            let lost = self.shared.queue.take_all();
            if !lost.is_empty() {
                lost.iter().for_each(|batch| self.shared.count_failed(batch));
                let items: usize = lost.iter().map(Payload::items).sum();
                tracing::error!(
                    exporter = self.shared.id,
                    items,
                    requests = lost.len(),
                    "not everything could be sent before the shutdown timeout; what is left is lost"
                );
            }
        })
    }
}

impl<S: Sender> Sending<S> {
    /// Lets the consumers end; those that have not by then are cut off, and put back what they have in hand.
    async fn end(&self, within: Duration) {
        let mut consumers = std::mem::take(&mut *self.consumers.lock());
        let cut = async {
            tokio::time::sleep(within.saturating_sub(GRACE)).await;
            self.shared.cut.cancel();
            tokio::time::sleep(2 * GRACE).await;
        };
        tokio::select! {
            () = ended(&mut consumers) => {}
            () = cut => {
                consumers.abort_all();
                ended(&mut consumers).await;
            }
        }
    }
}

async fn ended(consumers: &mut JoinSet<()>) {
    while let Some(ended) = consumers.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a consumer of the queue failed");
        }
    }
}

/// A batch that is being sent; put back if nobody says what became of it.
struct InHand<'a> {
    queue: &'a Queue,
    batch: Option<Payload>,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.queue.put_back(batch);
        }
    }
}

impl<S: Sender> Shared<S> {
    async fn consume(self: Arc<Self>) {
        while !self.cut.is_cancelled()
            && let Some(batch) = self.queue.next().await
        {
            let room = self.queue.room_of(&batch);
            let mut in_hand = InHand { queue: &self.queue, batch: Some(batch.clone()) };
            let left = self.deliver(&batch).await.err();
            self.queue.done(room - left.as_ref().map_or(0, |left| self.queue.room_of(left)));
            in_hand.batch = left;
        }
    }

    /// Sends a batch. One that is refused for good is taken apart: each request in it is sent alone once, so that
    /// one sender's bad span costs nobody else's. What was cut off is given back.
    async fn deliver(&self, batch: &Payload) -> Result<(), Payload> {
        let refused = match self.attempt(batch).await {
            Ok(sent) => {
                self.sent(batch, &sent);
                return Ok(());
            }
            Err(Ended::Cut) => return Err(batch.clone()),
            Err(Ended::GivenUp(reason)) => {
                self.dropped(batch, &reason);
                return Ok(());
            }
            Err(Ended::Refused(reason)) => reason,
        };
        if batch.parts.len() == 1 {
            self.dropped(batch, &refused);
            return Ok(());
        }
        tracing::debug!(exporter = self.id, reason = refused, requests = batch.parts.len(), "batch refused; sending its requests one by one");
        let rest = |number: usize| Payload { signal: batch.signal, parts: batch.parts.iter().skip(number).cloned().collect() };
        for (number, part) in batch.parts.iter().enumerate() {
            if self.cut.is_cancelled() {
                return Err(rest(number));
            }
            let alone = Payload::new(batch.signal, part.clone());
            match self.attempt(&alone).await {
                Ok(sent) => self.sent(&alone, &sent),
                Err(Ended::Refused(reason) | Ended::GivenUp(reason)) => self.dropped(&alone, &reason),
                Err(Ended::Cut) => return Err(rest(number)),
            }
        }
        Ok(())
    }

    /// Tries until the batch is taken, refused for good or given up, or the exporter ends.
    async fn attempt(&self, batch: &Payload) -> Result<Sent, Ended> {
        let mut interval = self.retry.initial_interval.get();
        let mut first_failure = None;
        loop {
            let (reason, after) = match self.send(batch).await? {
                Ok(sent) => return Ok(sent),
                Err(Failure::Permanent(reason)) => return Err(Ended::Refused(reason)),
                Err(Failure::Retryable { reason, after }) => (reason, after),
            };
            if !self.retry.enabled {
                return Err(Ended::GivenUp(format!("{reason} (retry_on_failure is off)")));
            }
            let wait = self.wait(interval, after);
            let given_up = self.retry.max_elapsed_time.get();
            let since: Instant = *first_failure.get_or_insert_with(Instant::now);
            if !given_up.is_zero() && since.elapsed() + wait > given_up {
                let tried = since.elapsed();
                return Err(Ended::GivenUp(format!("{reason} (given up after {tried:.1?}, retry_on_failure.max_elapsed_time)")));
            }
            tracing::warn!(exporter = self.id, reason, wait = %format!("{wait:.1?}"), items = batch.items(), "export failed; will try again");
            self.cut.run_until_cancelled(tokio::time::sleep(wait)).await.ok_or(Ended::Cut)?;
            interval = interval.mul_f64(self.retry.multiplier).min(self.retry.max_interval.get());
        }
    }

    /// Sends once. When the exporter ends, what is under way has a little time left.
    async fn send(&self, batch: &Payload) -> Result<Result<Sent, Failure>, Ended> {
        let ended = async {
            self.cut.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let span = tracing::trace_span!(target: TRACES, "export", exporter = self.id, signal = batch.signal.name(), items = batch.items());
        tokio::select! {
            answered = self.send_in_turn(batch).instrument(span) => Ok(answered),
            () = ended => Err(Ended::Cut),
        }
    }

    /// Sends once there is room for the copies that are made for it, and accounts for them meanwhile.
    async fn send_in_turn(&self, batch: &Payload) -> Result<Sent, Failure> {
        let bytes = batch.len();
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX).min(LARGE_MIB);
        // It is never closed.
        let _turn = if mib > 0 { self.large.acquire_many(mib).await.ok() } else { None };
        let _copies = batch.beside(bytes);
        self.sender.send(batch).await
    }

    /// How long to wait before the next try. The backend's own wish is a lower bound, never a reason to come back
    /// earlier; all are spread, so that they don't come back at once.
    fn wait(&self, interval: Duration, after: Option<Duration>) -> Duration {
        let factor = self.retry.randomization_factor;
        let spread = interval.mul_f64(1.0 + factor * (2.0 * fastrand::f64() - 1.0));
        let asked = after.map(|after| after.min(WAIT_MAX) + interval.mul_f64(factor * fastrand::f64()));
        spread.max(asked.unwrap_or_default()).max(WAIT_MIN)
    }

    fn sent(&self, batch: &Payload, sent: &Sent) {
        let counts = self.counts.of(batch.signal);
        let rejected = sent.rejected.min(batch.items());
        counts.sent.add((batch.items() - rejected) as u64, &self.counts.attributes);
        if rejected > 0 {
            counts.failed.add(rejected as u64, &self.counts.attributes);
        }
        if rejected > 0 || !sent.message.is_empty() {
            tracing::warn!(exporter = self.id, rejected, said = sent.message, "the backend took a request in part");
        }
        if let Some(reason) = &sent.unread {
            self.counts.unread_answers.add(1, &self.counts.attributes);
            tracing::warn!(exporter = self.id, items = batch.items(), reason, "the backend took a request, and its answer can't be read");
        }
    }

    fn count_failed(&self, batch: &Payload) {
        self.counts.of(batch.signal).failed.add(batch.items() as u64, &self.counts.attributes);
    }

    fn dropped(&self, batch: &Payload, reason: &str) {
        self.count_failed(batch);
        tracing::error!(exporter = self.id, signal = batch.signal.name(), items = batch.items(), reason, "dropped");
    }
}
