//! What callees answered, where callers say nothing of having asked.
//!
//! Some clients send no CLIENT span for a call that timed out (the Java agent with the JDK's client does not): all that
//! shows it is the callee's SERVER span in the same trace. Without it such a call looks as if it was not made.

use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

/// Answers that are remembered at most, twice over.
const ANSWERS_MAX: usize = 8_192;

/// They are remembered for so long after somebody wanted to know of one. Nanoseconds.
const WANTED: u64 = 60_000_000_000;

/// Shared by all shards: a caller and its callee are often of different ones. Bounded: when there are too many the older
/// half is forgotten.
#[derive(Debug, Default)]
pub struct Answers {
    wanted_until: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    young: HashMap<(u64, u64), Span, RandomState>,
    old: HashMap<(u64, u64), Span, RandomState>,
    hasher: RandomState,
}

/// From when to when a callee was busy with a request. Unix nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Answers {
    /// Somebody looks closer from now on.
    pub(super) fn want(&self, now: u64) {
        self.wanted_until.fetch_max(now.saturating_add(WANTED), Ordering::Relaxed);
    }

    /// Whether anybody does.
    pub(super) fn are_wanted(&self, now: u64) -> bool {
        now < self.wanted_until.load(Ordering::Relaxed)
    }

    /// A service answered in a trace.
    pub(super) fn note(&self, trace: u64, service: &str, span: Span) {
        let mut kept = self.kept.lock();
        if kept.young.len() >= ANSWERS_MAX {
            kept.old = std::mem::take(&mut kept.young);
        }
        let key = (trace, kept.hash(service));
        kept.young.insert(key, span);
    }

    /// What a service answered in a trace.
    pub(super) fn of(&self, trace: u64, service: &str) -> Option<Span> {
        let kept = self.kept.lock();
        let key = (trace, kept.hash(service));
        kept.young.get(&key).or_else(|| kept.old.get(&key)).copied()
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        let kept = self.kept.lock();
        kept.young.allocation_size() + kept.old.allocation_size()
    }
}

impl Kept {
    fn hash(&self, service: &str) -> u64 {
        std::hash::BuildHasher::hash_one(&self.hasher, service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_by_trace_and_service_and_forgotten() {
        let answers = Answers::default();
        assert!(!answers.are_wanted(5));
        answers.want(5);
        assert!(answers.are_wanted(6) && !answers.are_wanted(6 + WANTED));
        answers.note(1, "payments", Span { start: 2, end: 3 });
        assert_eq!(answers.of(1, "payments"), Some(Span { start: 2, end: 3 }));
        assert_eq!((answers.of(1, "inventory"), answers.of(2, "payments")), (None, None));
        (0..50_000).for_each(|trace| answers.note(trace + 10, "payments", Span { start: 2, end: 3 }));
        assert_eq!(answers.of(1, "payments"), None);
        assert!(answers.kept.lock().young.len() <= ANSWERS_MAX);
    }
}
