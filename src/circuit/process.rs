//! Processes that send spans, and their places in circuits.

use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::{
    config::CircuitMetricsConfig,
    detect::{strikes::Strikes, watch::Watch},
    key::Caller,
    usages::Usages,
};

/// A process that sends spans: one instance of every circuit it calls through.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) caller: Arc<Caller>,
    /// What its caller usually calls.
    pub(super) habits: u32,
    /// While something there is worth a closer look.
    pub(super) watch: Option<Box<Watch>>,
    pub(super) instance: Arc<str>,
    /// Traces that were learned from.
    pub(super) learned: u16,
    /// How often it was asked, and the last times that this ended with an error.
    pub(super) roots: u32,
    pub(super) broke_off: Strikes,
    /// The newest end of its spans.
    pub(super) newest_end: u64,
    /// Since when it was never silent for longer than spans may be late.
    pub(super) heard_since: u64,
    /// When it was heard of last, by the clock.
    pub(super) last_seen: u64,
    /// Whether that was the first time: it may make room for others.
    pub(super) newcomer: bool,
    /// What it told of the resources it uses up.
    pub(super) usages: Usages,
    pub(super) seats: HashTable<Seat>,
    /// The seat used last: calls often go to one callee several times in a row.
    pub(super) last: Option<Seat>,
}

/// A process in a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// Of the target that leads to it: a circuit may have several addresses.
    pub(super) hash: Hashed,
    pub(super) circuit: u32,
    /// Among the circuit's members; `None` where those are too many.
    pub(super) member: Option<u32>,
}

/// Half of a hash: a table of these knows where each belongs without looking at what was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashed(u32);

impl Hashed {
    pub(super) const fn of(hash: u64) -> Self {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        Self(u32::from_le_bytes([a, b, c, d]))
    }

    /// Spread over 64 bits, as tables want it.
    pub(super) const fn spread(self) -> u64 {
        (self.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}

impl Process {
    /// It sent spans, the newest of which ended then; they may be so late.
    pub(super) fn hear(&mut self, newest_end: u64, allowed_lateness: u64) {
        if newest_end > self.newest_end.saturating_add(allowed_lateness) {
            self.heard_since = newest_end;
        }
        self.newest_end = self.newest_end.max(newest_end);
    }

    /// Up to when everything that it did is known.
    pub(super) fn watermark(&self, now: u64, config: &CircuitMetricsConfig) -> u64 {
        self.newest_end.saturating_sub(config.reorder).max(now.saturating_sub(config.allowed_lateness))
    }

    /// What goes wrong in it, and everything else once that is worth it.
    pub(super) fn watched(&mut self) -> &mut Watch {
        self.watch.get_or_insert_default()
    }

    /// Whether everything it does is noted.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_wide())
    }

    /// Notes everything it does from now on: something went wrong that ended then.
    pub(super) fn watch_closely(&mut self, end: u64, reorder: u64) -> &mut Watch {
        let newest_end = self.newest_end;
        let watch = self.watched();
        watch.widen(end, reorder, newest_end);
        watch
    }

    /// Notes that something it was asked ended with an error; gives the latest end of those it did so with, if it is one of
    /// two in five, or of three in ten.
    pub(super) fn breaks_off(&mut self, end: u64) -> Option<u64> {
        self.broke_off.strike(end, self.roots)
    }

    /// Circuits it has a place in, each once.
    pub(super) fn circuits(&self) -> impl Iterator<Item = u32> {
        let mut circuits: SmallVec<[u32; 8]> = self.seats.iter().map(|seat| seat.circuit).collect();
        circuits.sort_unstable();
        circuits.dedup();
        circuits.into_iter()
    }

    /// What tells it from all others.
    pub(super) fn texts(&self) -> [&[u8]; 4] {
        [&*self.caller.environment, &*self.caller.namespace, &*self.caller.service, &*self.instance].map(str::as_bytes)
    }

    /// What it weighs.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.texts().map(<[u8]>::len).iter().sum::<usize>()
            + size_of::<Caller>()
            + self.seats.capacity() * (size_of::<Seat>() + 1)
            + self.usage_bytes()
            + self.watch.as_ref().map_or(0, |watch| size_of::<Watch>() + watch.heap_bytes())
    }
}
