//! `batch`: puts requests together before they go on.
//!
//! Accepted for the sake of existing configurations; `sending_queue.batch` of an exporter does the same behind the
//! acknowledgement. Here a request's answer waits until its batch has room in every exporter's queue, so that nothing
//! is acknowledged that could still be refused.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    config::{Span, schema_of},
    otlp::Signal,
    pipeline::{Admission, Admit, Consumer, Factory, Faults, Future, Instance, Lifecycle, Parsed, Payload, Processor, Refusal, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The longest a request waits for others.
    timeout: Span,
    /// A batch of at least so many spans, data points or log records goes on at once.
    send_batch_size: usize,
    /// A batch gets no larger than this; 0 means no limit. A single request is never taken apart.
    send_batch_max_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { timeout: Span::millis(200), send_batch_size: 8192, send_batch_max_size: 0 }
    }
}

/// What is known of `batch` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Processors,
    name: "batch",
    aliases: &[],
    about: "Puts requests together; their answers wait until the batch is queued. Better: `sending_queue.batch` of an exporter.",
    roles: &[Role { section: Section::Processors, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let mut faults = Faults::default();
    if config.send_batch_max_size > 0 && config.send_batch_max_size < config.send_batch_size {
        faults.note::<()>("send_batch_max_size", Err("must not be smaller than `send_batch_size`".to_owned()));
    }
    faults.unless_any(())?;
    Parsed::new(config, |config, _| Ok(Instance::Processor(Arc::new(Batch { config, batchers: Mutex::default() }))))
}

/// Requests that may wait for a batcher at one time; more wait at their sender.
const WAITING_MAX: usize = 1024;

struct Batch {
    config: Config,
    batchers: Mutex<JoinSet<()>>,
}

/// A request that waits, and whom to tell.
struct Waiting {
    payload: Payload,
    answer: oneshot::Sender<Result<Box<dyn Admission>, Refusal>>,
}

/// Room for a whole batch, and what of it was committed. It is handed on when each of its requests was committed or
/// given up, so that a request which finds no room elsewhere goes nowhere.
struct Joint(Mutex<Whole>);

struct Whole {
    admission: Option<Box<dyn Admission>>,
    committed: Option<Payload>,
}

/// The part of one request in a [`Joint`].
struct Share(Arc<Joint>);

impl Joint {
    /// Shares for so many requests.
    fn shares(admission: Box<dyn Admission>, requests: usize) -> Vec<Share> {
        let joint = Arc::new(Self(Mutex::new(Whole { admission: Some(admission), committed: None })));
        (0..requests).map(|_| Share(Arc::clone(&joint))).collect()
    }
}

impl Admission for Share {
    fn commit(self: Box<Self>, payload: Payload) {
        match &mut self.0.0.lock().committed {
            Some(batch) => batch.parts.extend(payload.parts),
            none => *none = Some(payload),
        }
    }
}

impl Drop for Joint {
    fn drop(&mut self) {
        let Whole { admission, committed } = self.0.get_mut();
        if let (Some(admission), Some(batch)) = (admission.take(), committed.take()) {
            admission.commit(batch);
        }
    }
}

impl Processor for Batch {
    fn attach(&self, _: Signal, next: Arc<dyn Consumer>) -> Arc<dyn Consumer> {
        let (waiting, requests) = mpsc::channel(WAITING_MAX);
        self.batchers.lock().spawn(run(self.config.clone(), requests, next));
        Arc::new(Entrance { waiting })
    }
}

impl Lifecycle for Batch {
    /// The batchers end when the last consumer that leads to them is gone, after a last batch.
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            let mut batchers = std::mem::take(&mut *self.batchers.lock());
            let finished = async { while batchers.join_next().await.is_some() {} };
            if timeout(within, finished).await.is_err() {
                tracing::warn!("a batch was still waiting at the end of the time to shut down; its senders get no answer");
            }
        })
    }
}

struct Entrance {
    waiting: mpsc::Sender<Waiting>,
}

impl Consumer for Entrance {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            let gone = || Refusal::Retryable { reason: "shutting down".to_owned(), after: None };
            let (answer, answered) = oneshot::channel();
            self.waiting.send(Waiting { payload: payload.clone(), answer }).await.map_err(|_closed| gone())?;
            answered.await.map_err(|_dropped| gone())?
        })
    }
}

async fn run(config: Config, mut requests: mpsc::Receiver<Waiting>, next: Arc<dyn Consumer>) {
    let mut held: Option<Waiting> = None;
    loop {
        let first = match held.take() {
            Some(first) => first,
            None => match requests.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let due = Instant::now() + config.timeout.get();
        let mut items = first.payload.items();
        let mut waiting = vec![first];
        while items < config.send_batch_size {
            let more = tokio::select! {
                more = requests.recv() => more,
                () = sleep_until(due) => break,
            };
            let Some(more) = more else { break };
            if config.send_batch_max_size > 0 && items + more.payload.items() > config.send_batch_max_size {
                held = Some(more);
                break;
            }
            items += more.payload.items();
            waiting.push(more);
        }
        answer(waiting, next.as_ref()).await;
    }
}

/// Finds room for all of them together. What is too much together is tried one by one.
async fn answer(waiting: Vec<Waiting>, next: &dyn Consumer) {
    let signal = waiting.first().map_or(Signal::Traces, |first| first.payload.signal);
    let batch = Payload { signal, parts: waiting.iter().flat_map(|one| one.payload.parts.iter().cloned()).collect() };
    let refusal = match next.admit(&batch).await {
        Ok(admission) => {
            let shares = Joint::shares(admission, waiting.len());
            for (one, share) in waiting.into_iter().zip(shares) {
                tell(one, Ok(Box::new(share)));
            }
            return;
        }
        Err(refusal) => refusal,
    };
    let too_much_together = waiting.len() > 1 && matches!(refusal, Refusal::Permanent { .. });
    for one in waiting {
        let answer = if too_much_together { next.admit(&one.payload).await } else { Err(refusal.clone()) };
        tell(one, answer);
    }
}

fn tell(waiting: Waiting, answer: Result<Box<dyn Admission>, Refusal>) {
    // A sender that went away wants no answer; its room is given back.
    drop(waiting.answer.send(answer));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pipeline::{FanOut, Part};

    /// Takes batches of at most so many items, and keeps their sizes.
    struct Backend {
        most: usize,
        taken: Arc<Mutex<Vec<usize>>>,
    }

    struct Place(Arc<Mutex<Vec<usize>>>);

    impl Consumer for Backend {
        fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
            Box::pin(async move {
                if payload.items() > self.most {
                    return Err(Refusal::Permanent { reason: "too much".to_owned() });
                }
                Ok(Box::new(Place(Arc::clone(&self.taken))) as Box<dyn Admission>)
            })
        }
    }

    impl Admission for Place {
        fn commit(self: Box<Self>, payload: Payload) {
            self.0.lock().push(payload.items());
        }
    }

    fn backend(most: usize) -> (Arc<dyn Consumer>, Arc<Mutex<Vec<usize>>>) {
        let taken = Arc::new(Mutex::default());
        (Arc::new(Backend { most, taken: Arc::clone(&taken) }), taken)
    }

    /// The processor, which must live on, and its entrance.
    fn batch(next: Arc<dyn Consumer>, size: usize) -> (Batch, Arc<dyn Consumer>) {
        let config = Config { timeout: Span::secs(3600), send_batch_size: size, send_batch_max_size: 0 };
        let batch = Batch { config, batchers: Mutex::default() };
        let entrance = batch.attach(Signal::Traces, next);
        (batch, entrance)
    }

    fn request(items: usize) -> Payload {
        Payload::new(Signal::Traces, Part::new(Bytes::from_static(b"x"), items))
    }

    async fn send(to: &dyn Consumer, items: usize) -> bool {
        let payload = request(items);
        match to.admit(&payload).await {
            Ok(admission) => {
                admission.commit(payload);
                true
            }
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn requests_go_on_together() {
        let (next, taken) = backend(100);
        let (_processor, batch) = batch(next, 6);
        let sent = tokio::join!(send(&*batch, 1), send(&*batch, 2), send(&*batch, 3));
        assert_eq!((sent, &*taken.lock()), ((true, true, true), &vec![6]));
    }

    #[tokio::test]
    async fn a_batch_that_is_too_much_goes_on_in_parts() {
        let (next, taken) = backend(3);
        let (_processor, batch) = batch(next, 9);
        let sent = tokio::join!(send(&*batch, 2), send(&*batch, 3), send(&*batch, 4));
        let mut taken = taken.lock().clone();
        taken.sort_unstable();
        assert_eq!((sent, taken), ((true, true, false), vec![2, 3]));
    }

    #[tokio::test]
    async fn what_finds_no_room_elsewhere_goes_nowhere() {
        let ((next, taken), (small, _)) = (backend(100), backend(2));
        let (_processor, batch) = batch(next, 6);
        let both = FanOut::of(vec![batch, small]);
        let sent = tokio::join!(send(&*both, 1), send(&*both, 2), send(&*both, 3));
        assert_eq!((sent, &*taken.lock()), ((true, true, false), &vec![3]));
    }
}
