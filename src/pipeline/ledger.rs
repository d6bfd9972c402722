use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Knows, to the byte, what is in flight, queued and held by windows.
///
/// Telemetry is charged from the moment its bytes are read until its last exporter is done with it, so what the
/// process holds is known exactly and needs no guess from the resident set.
#[derive(Debug)]
pub struct Ledger {
    used: AtomicUsize,
    limit: AtomicUsize,
    refusals: AtomicU64,
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
        Self { used: AtomicUsize::new(0), limit: AtomicUsize::new(usize::MAX), refusals: AtomicU64::new(0) }
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
}
