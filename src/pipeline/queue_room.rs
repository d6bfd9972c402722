use std::sync::atomic::{AtomicUsize, Ordering};

/// What the queues of exporters may hold, in bytes, where their sizes are not written: a quarter of the memory limit, in
/// equal parts.
#[derive(Debug)]
pub struct QueueRoom {
    of_each: AtomicUsize,
}

impl QueueRoom {
    /// What the queues may hold together where there is no memory limit.
    const WITHOUT_LIMIT: usize = 128 << 20;

    /// Divides it anew, among so many queues.
    pub fn divide(&self, memory_limit: Option<usize>, queues: usize) {
        self.of_each.store(memory_limit.map_or(Self::WITHOUT_LIMIT, |limit| limit / 4) / queues.max(1), Ordering::Relaxed);
    }

    /// What each queue may hold.
    pub fn of_each(&self) -> usize {
        self.of_each.load(Ordering::Relaxed)
    }
}

impl Default for QueueRoom {
    fn default() -> Self {
        Self { of_each: AtomicUsize::new(Self::WITHOUT_LIMIT) }
    }
}
