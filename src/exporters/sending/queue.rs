use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::config::{BatchSizer, SendingQueue, Sizer};
use crate::pipeline::{Admission, Payload, Refusal};

/// A bounded queue in memory: room is found first and filled later.
#[derive(Debug)]
pub(super) struct Queue {
    config: SendingQueue,
    state: Mutex<State>,
    /// Something came, or the queue was closed.
    arrived: Notify,
    /// Something left.
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<(Payload, Instant)>,
    /// What the waiting amount to in the batch's unit.
    batchable: usize,
    /// Reserved, waiting and being sent, in the queue's unit.
    held: usize,
    closed: bool,
}

enum Next {
    Batch(Payload),
    Wait(Option<Instant>),
    Closed,
}

impl Queue {
    pub(super) fn new(config: SendingQueue) -> Self {
        Self { config, state: Mutex::default(), arrived: Notify::new(), left: Notify::new() }
    }

    pub(super) const fn capacity(&self) -> usize {
        self.config.queue_size
    }

    pub(super) fn held(&self) -> usize {
        self.state.lock().held
    }

    /// Items that nobody has begun to send.
    pub(super) fn waiting_items(&self) -> usize {
        self.state.lock().waiting.iter().map(|(payload, _)| payload.items()).sum()
    }

    fn size(&self, payload: &Payload) -> usize {
        match self.config.sizer {
            Sizer::Requests => payload.parts.len(),
            Sizer::Items => payload.items(),
            Sizer::Bytes => payload.len(),
        }
    }

    fn batch_size(&self, payload: &Payload) -> usize {
        match self.config.batch.as_ref().map(|batch| batch.sizer) {
            Some(BatchSizer::Bytes) => payload.len(),
            _ => payload.items(),
        }
    }

    /// Room for a payload.
    pub(super) async fn reserve(self: &Arc<Self>, payload: &Payload) -> Result<Box<dyn Admission>, Refusal> {
        let size = self.size(payload);
        if size > self.config.queue_size {
            let reason = format!("a request of size {size} can never fit into a queue of {}", self.config.queue_size);
            return Err(Refusal::Permanent { reason });
        }
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.closed {
                    return Err(Refusal::Retryable { reason: "shutting down".to_owned(), after: None });
                }
                if state.held + size <= self.config.queue_size {
                    state.held += size;
                    return Ok(Box::new(Room { queue: Arc::clone(self), size }));
                }
            }
            if !self.config.block_on_overflow {
                let reason = format!("sending queue is full ({} held)", self.config.queue_size);
                return Err(Refusal::Retryable { reason, after: None });
            }
            left.await;
        }
    }

    /// The next batch to send; `None` when the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Payload> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let next = self.take();
            match next {
                Next::Batch(batch) => {
                    // There may be more for the others.
                    self.arrived.notify_one();
                    return Some(batch);
                }
                Next::Closed => return None,
                Next::Wait(None) => arrived.await,
                Next::Wait(Some(until)) => {
                    tokio::select! {
                        () = arrived => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        }
    }

    fn take(&self) -> Next {
        let mut state = self.state.lock();
        let Some((_, since)) = state.waiting.front() else {
            return if state.closed { Next::Closed } else { Next::Wait(None) };
        };
        let Some(batch) = &self.config.batch else {
            let first = state.waiting.pop_front().map(|(payload, _)| payload);
            return first.map_or(Next::Wait(None), Next::Batch);
        };
        let due = *since + batch.flush_timeout.get();
        if !state.closed && state.batchable < batch.min_size && Instant::now() < due {
            return Next::Wait(Some(due));
        }
        let mut taken: Option<Payload> = None;
        let mut size = 0;
        while let Some((payload, _)) = state.waiting.front() {
            let more = self.batch_size(payload);
            let other_signal = taken.as_ref().is_some_and(|taken| taken.signal != payload.signal);
            let enough = taken.is_some() && (size >= batch.min_size.max(1) || (batch.max_size > 0 && size + more > batch.max_size));
            if other_signal || enough {
                break;
            }
            size += more;
            state.batchable = state.batchable.saturating_sub(more);
            if let Some((payload, _)) = state.waiting.pop_front() {
                match &mut taken {
                    Some(taken) => taken.parts.extend(payload.parts),
                    None => taken = Some(payload),
                }
            }
        }
        taken.map_or(Next::Wait(None), Next::Batch)
    }

    /// Gives back the room of what was sent or given up.
    pub(super) fn done(&self, size: usize) {
        self.state.lock().held -= size;
        self.left.notify_waiters();
    }

    /// The room a batch takes.
    pub(super) fn room_of(&self, batch: &Payload) -> usize {
        self.size(batch)
    }

    /// Takes nothing new; what waits may still leave.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_waiters();
        self.left.notify_waiters();
    }
}

struct Room {
    queue: Arc<Queue>,
    size: usize,
}

impl Admission for Room {
    fn commit(mut self: Box<Self>, payload: Payload) {
        let more = self.queue.batch_size(&payload);
        let room = self.queue.size(&payload);
        let mut state = self.queue.state.lock();
        // A processor may have changed the payload since room was found for it.
        state.held = state.held + room - std::mem::take(&mut self.size);
        state.batchable += more;
        state.waiting.push_back((payload, Instant::now()));
        drop(state);
        self.queue.arrived.notify_one();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.size > 0 {
            self.queue.done(self.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{exporters::sending::config::Batch, otlp::Signal, pipeline::Part};

    fn payload(items: usize) -> Payload {
        Payload::new(Signal::Traces, Part::new(Bytes::from_static(b"x"), items))
    }

    async fn put(queue: &Arc<Queue>, items: usize) -> Result<(), Refusal> {
        let payload = payload(items);
        queue.reserve(&payload).await?.commit(payload);
        Ok(())
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_something_was_sent() {
        let queue = Arc::new(Queue::new(SendingQueue { queue_size: 2, ..SendingQueue::default() }));
        put(&queue, 1).await.unwrap();
        let reserved = queue.reserve(&payload(1)).await.unwrap();
        assert!(matches!(put(&queue, 1).await, Err(Refusal::Retryable { .. })));
        drop(reserved);
        put(&queue, 1).await.unwrap();
        let batch = queue.next().await.unwrap();
        assert!(put(&queue, 1).await.is_err(), "what is being sent still takes room");
        queue.done(queue.room_of(&batch));
        put(&queue, 1).await.unwrap();
    }

    #[tokio::test]
    async fn batches_keep_their_parts_and_their_sizes() {
        let batch = Batch { min_size: 10, max_size: 12, flush_timeout: crate::config::Span::secs(3600), ..Batch::default() };
        let queue = Arc::new(Queue::new(SendingQueue { batch: Some(batch), ..SendingQueue::default() }));
        for items in [4, 4, 4, 30, 1] {
            put(&queue, items).await.unwrap();
        }
        let mut sizes = Vec::new();
        queue.close();
        while let Some(batch) = queue.next().await {
            sizes.push((batch.parts.len(), batch.items()));
        }
        assert_eq!(sizes, [(3, 12), (1, 30), (1, 1)]);
    }
}
