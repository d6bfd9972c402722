use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// The most requests remembered in each of two generations: 8 MiB each.
const REQUESTS_MAX: usize = 1 << 20;

/// Requests that were counted lately: one that is sent again counts once. Remembers each between one and two
/// lifetimes, by a hash with a seed of its own, so that nobody can make two requests look alike.
#[derive(Debug)]
pub(super) struct Seen {
    hasher: RandomState,
    /// In nanoseconds.
    lifetime: u64,
    now: HashTable<u64>,
    before: HashTable<u64>,
    since: u64,
}

impl Seen {
    pub(super) fn new(lifetime: u64) -> Self {
        Self { hasher: RandomState::default(), lifetime, now: HashTable::new(), before: HashTable::new(), since: 0 }
    }

    pub(super) const fn set_lifetime(&mut self, lifetime: u64) {
        self.lifetime = lifetime;
    }

    /// The hash of a request.
    pub(super) fn hash(&self, request: &[u8]) -> u64 {
        self.hasher.hash_one(request)
    }

    /// Remembers a request; `false` if it was there already.
    pub(super) fn insert(&mut self, hash: u64, now: u64) -> bool {
        if now >= self.since.saturating_add(self.lifetime) || self.now.len() >= REQUESTS_MAX {
            self.before = std::mem::take(&mut self.now);
            self.since = now;
        }
        let is = |other: &u64| *other == hash;
        if self.now.find(hash, is).is_some() || self.before.find(hash, is).is_some() {
            return false;
        }
        self.now.insert_unique(hash, hash, |hash| *hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_remembered_for_a_lifetime() {
        let mut seen = Seen::new(100);
        let hash = seen.hash(b"request");
        assert!(seen.insert(hash, 1_000));
        assert!(!seen.insert(hash, 1_050));
        assert!(!seen.insert(hash, 1_100));
        assert!(seen.insert(seen.hash(b"other"), 1_150));
        seen.insert(seen.hash(b"third"), 1_210);
        assert!(seen.insert(hash, 1_310));
    }
}
