use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Span;

/// What a queue's size counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::exporters) enum Sizer {
    /// Requests as they were received.
    #[default]
    Requests,
    /// Spans, data points or log records.
    Items,
    /// Serialised bytes.
    Bytes,
}

/// Holds what the backend has not taken yet. A full queue refuses new data; nothing old is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::exporters) struct SendingQueue {
    /// Accepted as the Collector has it; there is always a queue, since nothing is acknowledged before it is in one.
    pub(in crate::exporters) enabled: bool,
    /// The most that is held, in units of `sizer`, what is being sent included. If neither is written, the queue has its
    /// part of a quarter of the memory limit, in bytes; with `sizer` alone it is 1000.
    #[schemars(range(min = 1))]
    pub(in crate::exporters) queue_size: Option<usize>,
    /// What `queue_size` counts: `requests` if that alone is written.
    pub(in crate::exporters) sizer: Option<Sizer>,
    /// Requests that are sent at one time.
    #[schemars(range(min = 1, max = 1000))]
    pub(in crate::exporters) num_consumers: usize,
    /// Let senders wait for room instead of refusing them.
    pub(in crate::exporters) block_on_overflow: bool,
    /// Send several requests as one. Off unless written.
    pub(in crate::exporters) batch: Option<Batch>,
}

impl Default for SendingQueue {
    fn default() -> Self {
        Self { enabled: true, queue_size: None, sizer: None, num_consumers: 10, block_on_overflow: false, batch: None }
    }
}

impl SendingQueue {
    /// Whether its size is its part of what all queues may hold, in bytes.
    pub(in crate::exporters) const fn shares_room(&self) -> bool {
        self.queue_size.is_none() && self.sizer.is_none()
    }

    /// What is accepted and has no effect.
    pub(in crate::exporters) fn warnings(&self) -> Vec<String> {
        let off = "`sending_queue.enabled: false` has no effect: there is always a queue".to_owned();
        if self.enabled { Vec::new() } else { vec![off] }
    }
}

/// Puts queued requests together until there is enough, or the oldest has waited long enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::exporters) struct Batch {
    /// The longest a request waits for others.
    pub(in crate::exporters) flush_timeout: Span,
    /// A batch of at least this size, in units of `sizer`, is sent at once.
    pub(in crate::exporters) min_size: usize,
    /// A batch gets no larger than this; 0 means no limit. A single request is never taken apart.
    pub(in crate::exporters) max_size: usize,
    /// What the sizes count.
    pub(in crate::exporters) sizer: BatchSizer,
}

/// What a batch's sizes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::exporters) enum BatchSizer {
    /// Spans, data points or log records.
    #[default]
    Items,
    /// Serialised bytes.
    Bytes,
}

impl Default for Batch {
    fn default() -> Self {
        Self { flush_timeout: Span::millis(200), min_size: 8192, max_size: 0, sizer: BatchSizer::Items }
    }
}

/// What happens when a backend says "not now" or does not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::exporters) struct RetryOnFailure {
    /// Try again at all.
    pub(in crate::exporters) enabled: bool,
    /// The wait after the first failure.
    pub(in crate::exporters) initial_interval: Span,
    /// How far a wait is spread at random: 0.5 means from half of it to half more.
    #[schemars(range(min = 0, max = 1))]
    pub(in crate::exporters) randomization_factor: f64,
    /// What each wait is multiplied with for the next one.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::exporters) multiplier: f64,
    /// The longest wait.
    pub(in crate::exporters) max_interval: Span,
    /// When to give a request up, counted from its first failure; 0 means never.
    pub(in crate::exporters) max_elapsed_time: Span,
}

impl Default for RetryOnFailure {
    fn default() -> Self {
        Self {
            enabled: true,
            initial_interval: Span::secs(5),
            randomization_factor: 0.5,
            multiplier: 1.5,
            max_interval: Span::secs(30),
            max_elapsed_time: Span::secs(300),
        }
    }
}
