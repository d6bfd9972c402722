use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

/// Parts that can be asked at one time.
const PARTS: usize = 16;

/// The most requests that each of two generations of a part remembers: about a million in all, in 19 MiB each.
const REQUESTS_MAX: usize = (1 << 20) / PARTS;

/// Requests that were counted lately: one that is sent again counts once. Remembers each between one and two
/// lifetimes, by a hash with a seed of its own, so that nobody can make two requests look alike.
#[derive(Debug)]
pub(super) struct Seen {
    hasher: RandomState,
    /// In nanoseconds.
    lifetime: AtomicU64,
    parts: [Mutex<Part>; PARTS],
    /// Generations that had to make room before their time.
    early: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    now: HashTable<u64>,
    before: HashTable<u64>,
    since: u64,
}

impl Seen {
    pub(super) fn new(lifetime: u64) -> Self {
        Self { hasher: RandomState::default(), lifetime: AtomicU64::new(lifetime), parts: Default::default(), early: AtomicU64::new(0) }
    }

    pub(super) fn set_lifetime(&self, lifetime: u64) {
        self.lifetime.store(lifetime, Ordering::Relaxed);
    }

    /// Remembers a request; `false` if it was there already.
    pub(super) fn insert(&self, request: &[u8], now: u64) -> bool {
        let hash = self.hasher.hash_one(request);
        // The table itself uses the low bits and the topmost seven.
        let at = usize::try_from(hash >> 40).unwrap_or_default() % PARTS;
        let Some(part) = self.parts.get(at) else { return true };
        let mut part = part.lock();
        let lifetime = self.lifetime.load(Ordering::Relaxed);
        let old = now >= part.since.saturating_add(lifetime);
        let full = part.now.len() >= REQUESTS_MAX;
        if old || full {
            self.early.fetch_add(u64::from(full && !old), Ordering::Relaxed);
            let forgotten = now >= part.since.saturating_add(lifetime.saturating_mul(2));
            part.before = if forgotten { HashTable::new() } else { std::mem::take(&mut part.now) };
            part.now = HashTable::new();
            part.since = now;
        }
        let is = |other: &u64| *other == hash;
        if part.now.find(hash, is).is_some() || part.before.find(hash, is).is_some() {
            return false;
        }
        part.now.insert_unique(hash, hash, |hash| *hash);
        true
    }

    /// Bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        let of = |part: &Mutex<Part>| {
            let part = part.lock();
            part.now.allocation_size() + part.before.allocation_size()
        };
        size_of::<Self>() + self.parts.iter().map(of).sum::<usize>()
    }

    /// How often requests were forgotten before their time since this was asked last.
    pub(super) fn take_early(&self) -> u64 {
        self.early.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_remembered_for_a_lifetime() {
        let seen = Seen::new(100);
        assert!(seen.insert(b"request", 1_000));
        assert!(!seen.insert(b"request", 1_050));
        assert!(!seen.insert(b"request", 1_100));
        assert!(seen.insert(b"request", 1_310));
        assert!(seen.insert(b"request", 9_000), "a pause forgets, too");
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let seen = Seen::new(u64::MAX);
        (0..3_u32 << 20).for_each(|number| assert!(seen.insert(&number.to_be_bytes(), 1)));
        assert!(seen.take_early() >= PARTS as u64, "what is forgotten early is told");
        assert!(seen.bytes() < 48 << 20, "{}", seen.bytes());
    }
}
