use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::config::{Batch, BatchSizer, SendingQueue, Sizer};
use crate::pipeline::{Admission, Exporter, Payload, QueueRoom, Refusal};

/// The size of a queue of which only the unit is written, as the Collector has it.
const QUEUE_SIZE: usize = 1000;

/// A bounded queue in memory: room is found first and filled later.
pub(super) struct Queue {
    bound: Bound,
    block_on_overflow: bool,
    batch: Option<Batch>,
    state: Mutex<State>,
    /// Something came, or the queue was closed.
    arrived: Notify,
    /// Something left.
    left: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Payload, Instant)>,
    /// What the waiting amount to in the batch's unit.
    batchable: usize,
    /// Reserved, waiting and being sent, in the queue's unit.
    held: usize,
    /// Payloads that room was found for and that have not come yet.
    reserved: usize,
    closed: bool,
    /// Who takes its place.
    heir: Option<Arc<dyn Exporter>>,
}

/// The most that a queue holds.
enum Bound {
    /// So much, in this unit.
    Written(usize, Sizer),
    /// Its part of the room, in bytes; one request always fits into an empty queue, since nobody knows how large it may be.
    Shared(Arc<QueueRoom>),
}

enum Tried {
    Room(Box<dyn Admission>),
    Heir(Arc<dyn Exporter>),
    Closed,
    Full,
}

enum Next {
    Batch(Payload),
    Wait(Option<Instant>),
    Closed,
}

impl Queue {
    pub(super) fn new(config: SendingQueue, room: Arc<QueueRoom>) -> Self {
        let bound = if config.shares_room() {
            Bound::Shared(room)
        } else {
            Bound::Written(config.queue_size.unwrap_or(QUEUE_SIZE), config.sizer.unwrap_or_default())
        };
        let SendingQueue { block_on_overflow, batch, .. } = config;
        Self { bound, block_on_overflow, batch, state: Mutex::default(), arrived: Notify::new(), left: Notify::new() }
    }

    pub(super) fn capacity(&self) -> usize {
        match &self.bound {
            Bound::Written(size, _) => *size,
            Bound::Shared(room) => room.of_each(),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.state.lock().held
    }

    /// Takes everything out that waits; who has room reserved, or sends, still holds that.
    pub(super) fn take_all(&self) -> Vec<Payload> {
        let mut state = self.state.lock();
        let all: Vec<Payload> = std::mem::take(&mut state.waiting).into_iter().map(|(payload, _)| payload).collect();
        state.held -= all.iter().map(|payload| self.size(payload)).sum::<usize>();
        state.batchable = 0;
        drop(state);
        self.left.notify_waiters();
        all
    }

    /// Puts in what another queue held, room or not.
    pub(super) fn inherit(&self, unsent: Vec<Payload>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        for payload in unsent {
            state.held += self.size(&payload);
            state.batchable += self.batch_size(&payload);
            state.waiting.push_back((payload, now));
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// Puts a batch back whose sending was cut off, before all others, or where everything else went.
    pub(super) fn put_back(&self, batch: Payload) {
        let mut state = self.state.lock();
        if let Some(heir) = state.heir.clone() {
            state.held -= self.size(&batch);
            drop(state);
            return heir.inherit(vec![batch]);
        }
        state.batchable += self.batch_size(&batch);
        state.waiting.push_front((batch, Instant::now()));
    }

    /// Takes nothing new. What waits, and what still comes into room that was found, goes to the heir.
    pub(super) fn hand_over(&self, heir: &Arc<dyn Exporter>) {
        let mut state = self.state.lock();
        state.closed = true;
        state.heir = Some(Arc::clone(heir));
        drop(state);
        heir.inherit(self.take_all());
        self.arrived.notify_waiters();
        self.left.notify_waiters();
    }

    fn size(&self, payload: &Payload) -> usize {
        match self.bound {
            Bound::Written(_, Sizer::Requests) => payload.parts.len(),
            Bound::Written(_, Sizer::Items) => payload.items(),
            Bound::Written(_, Sizer::Bytes) | Bound::Shared(_) => payload.len(),
        }
    }

    fn batch_size(&self, payload: &Payload) -> usize {
        match self.batch.as_ref().map(|batch| batch.sizer) {
            Some(BatchSizer::Bytes) => payload.len(),
            _ => payload.items(),
        }
    }

    /// Room for a payload.
    pub(super) async fn reserve(self: &Arc<Self>, payload: &Payload) -> Result<Box<dyn Admission>, Refusal> {
        let size = self.size(payload);
        if let Bound::Written(most, _) = self.bound
            && size > most
        {
            let reason = format!("a request of size {size} can never fit into a queue of {most}");
            return Err(Refusal::Permanent { reason });
        }
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            match self.try_reserve(size) {
                Tried::Room(room) => return Ok(room),
                Tried::Heir(heir) => return heir.admit(payload).await,
                Tried::Closed => return Err(Refusal::Retryable { reason: "shutting down".to_owned(), after: None }),
                Tried::Full => {}
            }
            if !self.block_on_overflow {
                let reason = format!("sending queue is full ({} held)", self.capacity());
                return Err(Refusal::Retryable { reason, after: None });
            }
            left.await;
        }
    }

    fn try_reserve(self: &Arc<Self>, size: usize) -> Tried {
        let mut state = self.state.lock();
        if let Some(heir) = &state.heir {
            return Tried::Heir(Arc::clone(heir));
        }
        if state.closed {
            return Tried::Closed;
        }
        let takes_any = matches!(self.bound, Bound::Shared(_)) && state.held == 0;
        if state.held + size > self.capacity() && !takes_any {
            return Tried::Full;
        }
        state.held += size;
        state.reserved += 1;
        Tried::Room(Box::new(Room { queue: Arc::clone(self), size: Some(size) }))
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
            // Room that was found is still filled after the queue is closed.
            let awaited = state.reserved > 0 && state.heir.is_none();
            return if state.closed && !awaited { Next::Closed } else { Next::Wait(None) };
        };
        let Some(batch) = &self.batch else {
            let first = state.waiting.pop_front().map(|(payload, _)| payload);
            state.batchable = state.batchable.saturating_sub(first.as_ref().map_or(0, |first| self.batch_size(first)));
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
        let mut state = self.state.lock();
        state.held -= size;
        let closed = state.closed;
        drop(state);
        self.left.notify_waiters();
        if closed {
            // Consumers may be waiting for the last room to be filled or given back.
            self.arrived.notify_waiters();
        }
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
    /// `None` once it was filled.
    size: Option<usize>,
}

impl Admission for Room {
    fn commit(mut self: Box<Self>, payload: Payload) {
        let more = self.queue.batch_size(&payload);
        let room = self.queue.size(&payload);
        let mut state = self.queue.state.lock();
        // A processor may have changed the payload since room was found for it.
        state.held = state.held + room - self.size.take().unwrap_or_default();
        state.reserved -= 1;
        if let Some(heir) = state.heir.clone() {
            state.held -= room;
            drop(state);
            return heir.inherit(vec![payload]);
        }
        state.batchable += more;
        state.waiting.push_back((payload, Instant::now()));
        drop(state);
        self.queue.arrived.notify_one();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(size) = self.size {
            self.queue.state.lock().reserved -= 1;
            self.queue.done(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{otlp::Signal, pipeline::Part};

    fn queue(config: SendingQueue) -> Arc<Queue> {
        Arc::new(Queue::new(config, Arc::default()))
    }

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
        let queue = queue(SendingQueue { queue_size: Some(2), ..SendingQueue::default() });
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
    async fn queues_without_a_size_share_a_quarter_of_the_memory_limit() {
        let room = Arc::new(QueueRoom::default());
        room.divide(Some(4 * 2 * 10), 2);
        let queue = Arc::new(Queue::new(SendingQueue::default(), Arc::clone(&room)));
        assert_eq!(queue.capacity(), 10);
        for _ in 0..10 {
            put(&queue, 5000).await.unwrap();
        }
        assert!(matches!(put(&queue, 1).await, Err(Refusal::Retryable { .. })), "a byte each, and there are ten");
        // As a reload does it.
        room.divide(Some(4 * 11), 1);
        put(&queue, 1).await.unwrap();
        put(&queue, 1).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_request_larger_than_the_shared_room_is_taken_alone() {
        let room = Arc::new(QueueRoom::default());
        room.divide(Some(0), 1);
        let queue = Arc::new(Queue::new(SendingQueue::default(), room));
        put(&queue, 1).await.unwrap();
        assert!(matches!(put(&queue, 1).await, Err(Refusal::Retryable { .. })));
        let sent = queue.next().await.unwrap();
        queue.done(queue.room_of(&sent));
        put(&queue, 1).await.unwrap();
    }

    #[tokio::test]
    async fn room_that_was_found_is_filled_after_the_queue_is_closed() {
        let queue = queue(SendingQueue::default());
        let reserved = queue.reserve(&payload(1)).await.unwrap();
        queue.close();
        let next = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.next().await.map(|batch| batch.items()) }
        });
        tokio::task::yield_now().await;
        reserved.commit(payload(1));
        assert_eq!(next.await.unwrap(), Some(1));
        queue.done(1);
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn what_is_taken_out_can_be_taken_over() {
        let of = |queue_size| queue(SendingQueue { queue_size: Some(queue_size), ..SendingQueue::default() });
        let (old, new) = (of(1000), of(1));
        put(&old, 1).await.unwrap();
        put(&old, 2).await.unwrap();
        let cut = old.next().await.unwrap();
        old.put_back(cut);
        new.inherit(old.take_all());
        assert_eq!((old.held(), new.held()), (0, 2));
        assert_eq!(new.next().await.unwrap().items(), 1, "in the order in which they came");
    }

    #[tokio::test]
    async fn batches_keep_their_parts_and_their_sizes() {
        let batch = Batch { min_size: 10, max_size: 12, flush_timeout: crate::config::Span::secs(3600), ..Batch::default() };
        let queue = queue(SendingQueue { batch: Some(batch), ..SendingQueue::default() });
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
