//! How many circuits there may be, and which make room for others.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::sightings::Sightings;

/// Circuits that there may be beyond the most until newcomers are gone for them: that takes half a second at most.
const OWED_MAX: usize = 256;

/// A name that came so often is called again and again, also within one second: one request brings what a process called in
/// several.
const OFTEN: u8 = 4;

/// Room for circuits, shared by all collectors.
///
/// Where there is none left, a name that is called again and again takes the room of a *newcomer*: a circuit with calls in
/// one bucket only. Names that are made up, and called once, so never keep others out.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    most: AtomicUsize,
    /// Circuits that are newcomers.
    newcomers: AtomicUsize,
    /// Newcomers that have to go for those that took their room.
    owed: AtomicUsize,
    sightings: Sightings,
}

impl Room {
    /// Room for so many circuits.
    pub fn new(most: usize) -> Self {
        let [taken, newcomers, owed] = [0; 3].map(AtomicUsize::new);
        Self { taken, most: AtomicUsize::new(most), newcomers, owed, sightings: Sightings::default() }
    }

    /// Circuits that there are.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Room for so many from now on; circuits that are there stay.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Takes room for one circuit; `false` if there is none.
    pub(super) fn take(&self) -> bool {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let room = taken < self.most.load(Ordering::Relaxed);
        if !room {
            self.give();
        }
        room
    }

    /// Takes the room of a newcomer, which goes soon, for a name that found none, by its hash; `false` unless the name is
    /// called again and again.
    pub(super) fn take_of_newcomer(&self, name: u64, now: u64) -> bool {
        let owed = self.owed.load(Ordering::Relaxed);
        let can_go = owed < OWED_MAX && owed < self.newcomers.load(Ordering::Relaxed);
        if !can_go || !self.sightings.again(name, OFTEN, now) {
            return false;
        }
        self.owed.fetch_add(1, Ordering::Relaxed);
        self.take_anyway();
        true
    }

    /// Notes that a process found no room, by the hash of its name; whether it is heard of again and again. One request may
    /// ask for it several times.
    pub(super) fn is_heard_again(&self, name: u64, now: u64) -> bool {
        self.sightings.again(name, u8::MAX, now)
    }

    /// Whether newcomers have to go.
    #[inline]
    pub(super) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed) > 0
    }

    /// Whether there is room again: then no newcomer has to go.
    pub(super) fn is_within(&self) -> bool {
        self.taken.load(Ordering::Relaxed) <= self.most.load(Ordering::Relaxed)
    }

    /// One newcomer goes for another circuit; `false` if none has to any more.
    pub(super) fn settle_one(&self) -> bool {
        self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| owed.checked_sub(1)).is_ok()
    }

    /// There is a newcomer more.
    pub(super) fn newcomer(&self) {
        self.newcomers.fetch_add(1, Ordering::Relaxed);
    }

    /// One is a newcomer no longer, or gone.
    pub(super) fn no_newcomer(&self) {
        self.newcomers.fetch_sub(1, Ordering::Relaxed);
    }

    /// For what has to be, even where there is no room.
    pub(super) fn take_anyway(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back the room of one.
    pub(super) fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.sightings.heap_bytes()
    }
}
