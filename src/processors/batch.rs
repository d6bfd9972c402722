//! `batch`: puts requests together before they go on.
//!
//! Accepted for the sake of existing configurations; `sending_queue.batch` of an exporter does the same behind the
//! acknowledgement. Here a request's answer waits until its batch is in every exporter's queue, so that nothing is
//! acknowledged that could still be refused.

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
    pipeline::{Admission, Admit, Consumer, Discard, Factory, Future, Instance, Lifecycle, Parsed, Payload, Processor, Refusal, Role, Section},
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

fn parse(value: Value) -> Result<Parsed, String> {
    let config: Config = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
    if config.send_batch_max_size > 0 && config.send_batch_max_size < config.send_batch_size {
        return Err("`send_batch_max_size` must not be smaller than `send_batch_size`".to_owned());
    }
    Ok(Parsed {
        effective: serde_json::to_value(&config).map_err(|error| error.to_string())?,
        warnings: Vec::new(),
        listens_on: Vec::new(),
        sends_to: Vec::new(),
        build: Box::new(move |_| Ok(Instance::Processor(Arc::new(Batch { config, batchers: Mutex::default() })))),
    })
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
    answer: oneshot::Sender<Result<(), Refusal>>,
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
            answered.await.map_err(|_dropped| gone())??;
            // The batch has been handed on with this request in it: nothing is left to commit.
            Ok(Box::new(Discard) as Box<dyn Admission>)
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
        let mut batch = first.payload;
        let mut answers = vec![first.answer];
        let mut items = batch.items();
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
            batch.parts.extend(more.payload.parts);
            answers.push(more.answer);
        }
        let result = match next.admit(&batch).await {
            Ok(admission) => {
                admission.commit(batch);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        for answer in answers {
            // A sender that went away wants no answer.
            drop(answer.send(result.clone()));
        }
    }
}
