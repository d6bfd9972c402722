use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::net::{Account, TooMuch};

/// Knows what is in flight, queued and held by windows.
///
/// Telemetry is charged from the moment its bytes are read until its last exporter is done with it, with the memory
/// that holding it takes: the size of buffers and not the length of what is in them. So what the process holds is known
/// and needs no guess from the resident set.
#[derive(Debug)]
pub struct Ledger {
    used: AtomicUsize,
    limit: AtomicUsize,
    refusals: AtomicU64,
    unfinished: Mutex<Unfinished>,
}

/// Requests of which more is to come may hold one part in so many of the limit …
const UNFINISHED_PARTS: usize = 2;
/// … and those of one peer one part in so many.
const UNFINISHED_PARTS_OF_PEER: usize = 4;
/// Requests up to this size may take the last of either, so that they pass beside large ones …
const SMALL_BYTES: usize = 64 << 10;
/// … which leave them so much, but no more than one part in eight.
const LEFT_TO_SMALL: usize = 2 << 20;

/// What requests hold of which more is to come.
#[derive(Debug, Default)]
struct Unfinished {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

impl Unfinished {
    /// Adds to what a peer's unfinished requests hold, one of which holds so much with it.
    fn add(&mut self, peer: IpAddr, bytes: usize, with_it: usize, limit: usize) -> Result<(), TooMuch> {
        let may_be = |parts: usize| {
            let share = limit / parts;
            if with_it <= SMALL_BYTES { share } else { share - LEFT_TO_SMALL.min(share / 8) }
        };
        let of_peer = self.by_peer.get(&peer).copied().unwrap_or_default().saturating_add(bytes);
        let all = self.all.saturating_add(bytes);
        let passed = [
            ("unfinished_requests_of_peer", of_peer, may_be(UNFINISHED_PARTS_OF_PEER), "of this peer "),
            ("unfinished_requests", all, may_be(UNFINISHED_PARTS), ""),
        ];
        if let Some((limit, _, most, whose)) = passed.into_iter().find(|(_, held, most, _)| held > most) {
            return Err(TooMuch::NoRoom { limit, reason: format!("unfinished requests {whose}may hold {most} bytes; this one would pass that") });
        }
        self.by_peer.insert(peer, of_peer);
        self.all = all;
        Ok(())
    }

    fn take_back(&mut self, peer: IpAddr, bytes: usize) {
        self.all -= bytes;
        if let Some(held) = self.by_peer.get_mut(&peer) {
            *held -= bytes;
            if *held == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }
}

/// The limit of the ledger would be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory limit reached: {used} of {limit} bytes are in flight, queued or held by windows")]
pub struct OverLimit {
    /// Bytes accounted for now.
    pub used: usize,
    /// The limit.
    pub limit: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(usize::MAX), refusals: AtomicU64::new(0), unfinished: Mutex::default() }
    }
}

impl Ledger {
    /// Bytes accounted for now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The most that may be accounted for; `usize::MAX` where nobody set a limit.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the limit, in bytes.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How often something was refused because of the limit.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// A charge of nothing, to grow.
    pub fn open(self: &Arc<Self>) -> Charge {
        Charge { ledger: Arc::clone(self), bytes: 0 }
    }

    /// A charge of nothing for a request that begins to come from a peer.
    pub fn arriving(self: &Arc<Self>, peer: IpAddr) -> Arriving {
        Arriving { charge: self.open(), share: Share { ledger: Arc::clone(self), peer, bytes: 0 } }
    }
}

/// Bytes that are accounted for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    ledger: Arc<Ledger>,
    bytes: usize,
}

impl Charge {
    /// Accounts for so many more bytes.
    ///
    /// # Errors
    /// The limit would be passed; nothing was added.
    pub fn grow(&mut self, bytes: usize) -> Result<(), OverLimit> {
        let limit = self.ledger.limit();
        let before = self.ledger.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > limit {
            self.ledger.used.fetch_sub(bytes, Ordering::Relaxed);
            self.ledger.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(OverLimit { used: before, limit });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Accounts for exactly so many bytes from now on, limit or not: for what is held already.
    pub fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.ledger.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.ledger.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Bytes that are accounted for.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A charge for so many bytes more that are held because of this one, limit or not.
    #[must_use]
    pub fn beside(&self, bytes: usize) -> Self {
        let mut beside = self.ledger.open();
        beside.set(bytes);
        beside
    }
}

impl Account for Charge {
    fn hold(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.grow(bytes).map_err(|over| TooMuch::NoRoom { limit: "memory", reason: over.to_string() })
    }

    fn release(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

/// The charge of a request of which more is to come. All of those together may hold a part of the limit only, and those
/// of one peer less: who sends a part of a request and then nothing keeps nobody out.
#[derive(Debug)]
pub struct Arriving {
    charge: Charge,
    share: Share,
}

impl Arriving {
    /// The charge of a request that has come whole.
    pub fn complete(self) -> Charge {
        self.charge
    }
}

impl Account for Arriving {
    fn hold(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.charge.hold(bytes)?;
        self.share.grow(bytes).inspect_err(|_| self.charge.release(bytes))
    }

    fn release(&mut self, bytes: usize) {
        self.charge.release(bytes);
        self.share.shrink(bytes);
    }
}

/// What an unfinished request takes of its peer's part, as long as it is unfinished.
#[derive(Debug)]
struct Share {
    ledger: Arc<Ledger>,
    peer: IpAddr,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), TooMuch> {
        let limit = self.ledger.limit();
        if limit == usize::MAX {
            return Ok(());
        }
        let with_it = self.bytes.saturating_add(bytes);
        self.ledger.unfinished.lock().add(self.peer, bytes, with_it, limit)?;
        self.bytes = with_it;
        Ok(())
    }

    fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.ledger.unfinished.lock().take_back(self.peer, bytes);
            self.bytes -= bytes;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let ledger = Arc::new(Ledger::default());
        ledger.set_limit(100);
        let mut first = ledger.open();
        first.grow(60).unwrap();
        let mut second = ledger.open();
        assert_eq!(second.grow(41), Err(OverLimit { used: 60, limit: 100 }));
        second.grow(40).unwrap();
        drop(first);
        second.set(7);
        assert_eq!((ledger.used(), ledger.refusals()), (7, 1));
        drop(second);
        assert_eq!(ledger.used(), 0);
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn limit_of(refused: Result<(), TooMuch>) -> &'static str {
        match refused {
            Err(TooMuch::NoRoom { limit, .. }) => limit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unfinished_requests_of_one_peer_hold_a_quarter_and_all_of_them_half() {
        let ledger = Arc::new(Ledger::default());
        ledger.set_limit(64 << 20);
        let large = 14 << 20;
        let mut first = ledger.arriving(peer(1));
        first.hold(large).unwrap();
        let mut more = ledger.arriving(peer(1));
        assert_eq!(limit_of(more.hold(1 << 20)), "unfinished_requests_of_peer");
        more.hold(SMALL_BYTES).unwrap();
        let mut second = ledger.arriving(peer(2));
        second.hold(large).unwrap();
        let mut third = ledger.arriving(peer(3));
        assert_eq!(limit_of(third.hold(4 << 20)), "unfinished_requests");
        third.hold(SMALL_BYTES).unwrap();
        // A request that has come whole makes room for others, and still weighs the same.
        let whole = first.complete();
        assert_eq!(whole.bytes(), large);
        third.hold(4 << 20).unwrap();
        let mut again = ledger.arriving(peer(1));
        again.hold(1 << 20).unwrap();
        drop((more, second, third, again));
        assert_eq!((ledger.used(), ledger.unfinished.lock().all), (large, 0));
        assert!(ledger.unfinished.lock().by_peer.is_empty());
    }

    #[test]
    fn without_a_limit_unfinished_requests_have_none() {
        let ledger = Arc::new(Ledger::default());
        let mut one = ledger.arriving(peer(1));
        one.hold(1 << 40).unwrap();
        // A reload sets one meanwhile.
        ledger.set_limit(1 << 20);
        one.release(1 << 40);
        assert_eq!(limit_of(one.hold(1 << 20)), "unfinished_requests_of_peer");
        drop(one);
        assert_eq!(ledger.used(), 0);
    }
}
