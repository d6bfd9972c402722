//! Which connections of a listener are open, and which one goes when another one comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// When a connection was last busy.
#[derive(Debug)]
pub(super) struct Activity {
    since: Instant,
    requests: AtomicUsize,
    completed: AtomicUsize,
    last: AtomicU64,
    flooded: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            requests: AtomicUsize::new(0),
            completed: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            flooded: AtomicBool::new(false),
        }
    }

    /// Since the last request was answered, or since the connection began; zero while one is under way.
    pub(super) fn idle_for(&self) -> Duration {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    /// Since the connection began.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Notes that the connection ends for the control frames that it sent.
    pub(super) fn flood(&self) {
        self.flooded.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Requests that were answered.
    pub(super) fn completed(&self) -> usize {
        self.completed.load(Ordering::Relaxed)
    }
}

/// Counts a request in for as long as it lives; one that its sender breaks off is none that was answered.
pub(super) struct Busy(Arc<Activity>);

impl Busy {
    pub(super) fn with(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }

    /// It was answered.
    pub(super) fn answered(self) {
        self.0.completed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one listener, at most so many at one time.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    open: Mutex<Slab<(Arc<Activity>, CancellationToken)>>,
    left: Notify,
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Arc<Connections>,
    key: usize,
    pub(super) activity: Arc<Activity>,
    /// The place is given to another connection: this one ends at once.
    pub(super) evicted: CancellationToken,
}

impl Connections {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default(), left: Notify::new() })
    }

    /// Waits for a place. Where all are taken, the connection that was idle longest goes; while all are busy, this waits
    /// until one is no longer. The second value tells whether one had to go.
    pub(super) async fn take(self: &Arc<Self>) -> (Slot, bool) {
        loop {
            let left = self.left.notified();
            if let Some(taken) = self.try_take() {
                return taken;
            }
            // A connection that stops to be busy tells nobody.
            drop(tokio::time::timeout(LOOK_AGAIN, left).await);
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<(Slot, bool)> {
        let mut open = self.open.lock();
        let is_full = open.len() >= self.most;
        if is_full {
            let idlest = open.iter().map(|(key, (activity, _))| (activity.idle_for(), key)).max();
            let (_, key) = idlest.filter(|(idle, _)| *idle >= IDLE_MIN)?;
            let (_, evicted) = open.try_remove(key)?;
            evicted.cancel();
        }
        let (activity, evicted) = (Arc::new(Activity::new()), CancellationToken::new());
        let key = open.insert((Arc::clone(&activity), evicted.clone()));
        Some((Slot { connections: Arc::clone(self), key, activity, evicted }, is_full))
    }
}

/// A connection that is idle for less may not have sent its last answer yet.
const IDLE_MIN: Duration = Duration::from_millis(200);

/// How often a full listener looks for a connection that is idle.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock();
        // One that was evicted has no place any more: its key may be another's.
        if open.get(self.key).is_some_and(|(activity, _)| Arc::ptr_eq(activity, &self.activity)) {
            open.remove(self.key);
        }
        drop(open);
        self.connections.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_one_that_was_idle_longest_goes_and_a_busy_one_never_does() {
        let connections = Connections::new(2);
        let (busy, _) = connections.take().await;
        let request = Busy::with(&busy.activity);
        let (idle, evicting) = connections.take().await;
        assert!(!evicting);
        let (newcomer, evicting) = connections.take().await;
        assert!(evicting && idle.evicted.is_cancelled() && !busy.evicted.is_cancelled());
        // What was evicted takes nobody's place with it.
        drop(idle);
        assert_eq!(connections.open.lock().len(), 2);
        let other = Busy::with(&newcomer.activity);
        assert!(connections.try_take().is_none(), "all are busy");
        drop(request);
        let waited = connections.take().await;
        assert!(waited.1 && busy.evicted.is_cancelled() && !newcomer.evicted.is_cancelled());
        drop(other);
    }

    #[tokio::test]
    async fn a_place_that_is_given_back_is_taken_again() {
        let connections = Connections::new(1);
        let (first, _) = connections.take().await;
        drop(first);
        assert!(!connections.take().await.1);
    }
}
