use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message;
use tokio::{
    sync::Notify,
    task::{JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    engine::{Due, Engine, News, Report, Turns},
    incidents::{self, Incidents},
    logs::Told,
    moments::Moment,
    replay::seconds_since,
};
use crate::{
    circuit::{key::CircuitKey, state::Change},
    otlp::Signal,
    pipeline::{Outlet, Outlets, OverLimit, Part, Payload},
};

/// How often buckets are closed, and what breakers did is looked for: it is known that much later at most.
const EACH: Duration = Duration::from_millis(500);

/// Events that wait at most, while nobody takes them.
const EVENTS_MAX: usize = 10_000;

/// Requests of metrics that are on their way at one time.
const AT_ONCE: usize = 16;

/// How long to wait before the last things are told once more.
const AGAIN: Duration = Duration::from_millis(100);

/// Events in one request: well below 1 MiB, even with names of full length.
const EVENTS_A_REQUEST: usize = 256;

/// Spans of incidents in one request, for the same reason: each has many events.
const INCIDENTS_A_REQUEST: usize = 8;

/// Closes buckets twice a second, and tells what there is to tell; whoever is slow to take it does not hold up the
/// buckets.
pub(super) struct Ticker {
    id: String,
    engine: Arc<Engine>,
    outlets: Outlets,
    /// Told to nobody yet.
    waiting: Mutex<Vec<Told>>,
    incidents: Mutex<Incidents>,
    /// Spans of incidents that were told to nobody yet.
    waiting_spans: Mutex<Vec<(Arc<CircuitKey>, Span)>>,
    /// Buckets are closed: what is told then holds all that came before.
    closed: Notify,
}

/// Leaves others their time between the parts of long work: on few cores, parts one behind the other would hold up requests
/// for as long as all of them take.
struct Pace(Instant);

impl Pace {
    /// A pause between two parts.
    const PAUSE: Duration = Duration::from_millis(1);
    /// Work that takes longer, with its pauses, goes on without them: it has to be done before the next begins.
    const LONG: Duration = Duration::from_millis(250);

    fn new() -> Self {
        Self(Instant::now())
    }

    async fn pause(&mut self) {
        if self.0.elapsed() < Self::LONG { sleep(Self::PAUSE).await } else { yield_now().await }
    }
}

impl Ticker {
    pub(super) fn new(id: String, engine: Arc<Engine>, outlets: Outlets) -> Self {
        Self { id, engine, outlets, waiting: Mutex::default(), incidents: Mutex::default(), waiting_spans: Mutex::default(), closed: Notify::new() }
    }

    /// Runs until it is stopped, then closes and tells everything.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(self.close_until(&stop), self.tell_until(&stop));
        self.keep(self.engine.finish());
        // Again and again, until the time to shut down is over.
        while !(self.tell().await & self.report(Turns::all()).await) {
            sleep(AGAIN).await;
        }
    }

    /// Counts and logs what was told to nobody in time.
    pub(super) fn give_up(&self) {
        let events = self.waiting.lock().len() + self.waiting_spans.lock().len();
        self.engine.counts().events_dropped(events as u64);
        tracing::error!(processor = self.id, events, "the last metrics and events found no room before the shutdown timeout; they are lost");
    }

    async fn close_until(&self, stop: &CancellationToken) {
        let mut ticks = interval(EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let mut pace = Pace::new();
            let mut closing = self.engine.begin_closing();
            // Others go on in between: each part is of a bounded number of circuits, processes and marks.
            while self.engine.close_some(&mut closing) {
                pace.pause().await;
            }
            let news = self.engine.closed(closing);
            self.keep(news);
            self.closed.notify_one();
        }
    }

    /// Stops between two seconds only: what was begun to be told is told to the end.
    async fn tell_until(self: &Arc<Self>, stop: &CancellationToken) {
        let began = Instant::now();
        let mut told = None;
        while stop.run_until_cancelled(self.closed.notified()).await.is_some() {
            self.tell().await;
            let interval = (self.engine.emit_interval() / 1_000_000_000).max(1);
            let now = began.elapsed().as_secs() + 1;
            // One share of the circuits a second, and all shares of seconds that went by in telling.
            self.report(Turns::of(&seconds_since(told.unwrap_or(now - 1), now, interval), interval)).await;
            told = Some(now);
        }
    }

    /// Keeps events until they are told, and the spans of incidents that they complete.
    fn keep(&self, news: News) {
        let mut dropped = 0;
        let all = news.in_order();
        if self.outlets.traces.is_connected() {
            let mut incidents = self.incidents.lock();
            let spans = all.iter().flat_map(|told| incidents.follow(told)).collect();
            dropped += keep_some(&mut self.waiting_spans.lock(), spans);
        } else {
            self.incidents.lock().clear();
        }
        if self.outlets.logs.is_connected() {
            let is_told = |told: &Told| !matches!(told, Told::Event(event) if event.change == Change::InstanceGone);
            dropped += keep_some(&mut self.waiting.lock(), all.into_iter().filter(is_told).collect());
        }
        if dropped > 0 {
            self.engine.counts().events_dropped(dropped as u64);
            tracing::error!(processor = self.id, dropped, "events dropped: nobody takes those that wait");
        }
    }

    /// Sends metrics of the circuits that are due, first points of 0 before anything else. `false` if some were refused.
    async fn report(self: &Arc<Self>, turns: Turns) -> bool {
        if !self.outlets.metrics.is_connected() {
            drop(self.engine.take_ended());
            return true;
        }
        let mut telling = self.engine.begin_telling(turns);
        let mut pace = Pace::new();
        while self.engine.look_at_some(&mut telling) {
            pace.pause().await;
        }
        let mut refused = self.send_all(telling.beginnings).await;
        refused.extend(self.send_all(telling.rest).await);
        if turns.is(0) {
            refused.extend(self.report_beside(telling.moment).await);
        }
        if let Some(reason) = refused.first() {
            tracing::warn!(processor = self.id, reason, requests = refused.len(), "metrics found no room; they will be told again");
        }
        refused.is_empty()
    }

    /// Sends several requests at one time, since behind a `batch` processor each would wait for the next: they may arrive in
    /// any order. Gives why some were refused.
    async fn send_all(self: &Arc<Self>, all: Vec<Due>) -> Vec<String> {
        let mut under_way = JoinSet::new();
        let mut refused: Vec<String> = Vec::new();
        let mut pace = Pace::new();
        for due in all {
            if under_way.len() >= AT_ONCE {
                refused.extend(under_way.join_next().await.and_then(Result::ok).flatten());
            }
            let report = self.engine.report(due);
            let bytes = report.request.encode_to_vec();
            let ticker = Arc::clone(self);
            under_way.spawn(async move { ticker.send(report, bytes).await });
            pace.pause().await;
        }
        while let Some(sent) = under_way.join_next().await {
            refused.extend(sent.ok().flatten());
        }
        refused
    }

    /// Sends what there is to tell beside circuits; gives why that was refused, if it was.
    async fn report_beside(&self, moment: Moment) -> Vec<String> {
        let mut refused = Vec::new();
        for due in self.engine.beside_due(moment) {
            let (request, points) = Engine::beside(&due, moment);
            let sent = match self.engine.charged(request.encode_to_vec(), points) {
                Ok(part) => self.outlets.metrics.consume(Payload::new(Signal::Metrics, part)).await.map_err(|refusal| refusal.to_string()),
                Err(over) => Err(over.to_string()),
            };
            match sent {
                Ok(()) => self.engine.beside_told(&due, moment),
                Err(reason) => refused.push(reason),
            }
        }
        refused
    }

    /// Sends one request; gives why it was refused, if it was.
    async fn send(&self, report: Report, bytes: Vec<u8>) -> Option<String> {
        let refused = match self.engine.charged(bytes, report.points) {
            _ if report.points == 0 => None,
            Ok(part) => self.outlets.metrics.consume(Payload::new(Signal::Metrics, part)).await.err().map(|refusal| refusal.to_string()),
            Err(over) => Some(over.to_string()),
        };
        drop(self.engine.settle(report, refused.is_none()));
        refused
    }

    /// Sends the events that wait, in order, and the spans of incidents. `false` if some still wait.
    async fn tell(&self) -> bool {
        let logs = |all: &[Told]| self.engine.charged(self.engine.logs(all).encode_to_vec(), all.len());
        let spans = |spans: &[(Arc<CircuitKey>, Span)]| self.engine.charged(incidents::request(spans).encode_to_vec(), spans.len());
        self.tell_all(&self.waiting, EVENTS_A_REQUEST, Signal::Logs, &self.outlets.logs, logs).await
            & self.tell_all(&self.waiting_spans, INCIDENTS_A_REQUEST, Signal::Traces, &self.outlets.traces, spans).await
    }

    async fn tell_all<T: Clone>(
        &self,
        waiting: &Mutex<Vec<T>>,
        at_once: usize,
        signal: Signal,
        outlet: &Outlet,
        request: impl Fn(&[T]) -> Result<Part, OverLimit>,
    ) -> bool {
        loop {
            let next: Vec<T> = waiting.lock().iter().take(at_once).cloned().collect();
            if next.is_empty() {
                return true;
            }
            let told = match request(&next) {
                Ok(part) => outlet.consume(Payload::new(signal, part)).await.map_err(|refusal| refusal.to_string()),
                Err(over) => Err(over.to_string()),
            };
            let mut waiting = waiting.lock();
            if let Err(reason) = told {
                tracing::warn!(processor = self.id, reason, waiting = waiting.len(), "events found no room; they will be told again");
                return false;
            }
            // New ones come behind those that were told.
            waiting.drain(..next.len());
        }
    }
}

/// Keeps as many as there is room for; gives how many were dropped.
fn keep_some<T>(waiting: &mut Vec<T>, new: Vec<T>) -> usize {
    let room = EVENTS_MAX.saturating_sub(waiting.len());
    let dropped = new.len().saturating_sub(room);
    waiting.extend(new.into_iter().take(room));
    dropped
}
