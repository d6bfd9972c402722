//! How many circuits there may be.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for circuits, shared by all collectors.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    most: AtomicUsize,
}

impl Room {
    /// Room for so many circuits.
    pub const fn new(most: usize) -> Self {
        Self { taken: AtomicUsize::new(0), most: AtomicUsize::new(most) }
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

    /// For what has to be, even where there is no room.
    pub(super) fn take_anyway(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back the room of one.
    pub(super) fn give(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
