/// Probes up to which numbers are learned.
const PROBES_MAX: usize = 12;

/// How the breakers of a circuit behave: what all of its instances have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::circuit) struct Manner {
    /// How often so many probes were seen to fail before it opened again, from one on.
    failed_after: [u16; PROBES_MAX],
    /// So many successes in a row were not enough to close it.
    not_closed_by: u8,
    /// Whether there is a breaker for sure.
    proven: bool,
    /// How long the last silence was that ended well and may not have been a breaker's. Nanoseconds.
    waited: u64,
}

impl Manner {
    /// So many probes failed, and nothing followed.
    pub(super) fn failed_after(&mut self, probes: usize) {
        if let Some(seen) = probes.checked_sub(1).and_then(|at| self.failed_after.get_mut(at)) {
            *seen = seen.saturating_add(1);
        }
    }

    /// So many successes were followed by a failure that opened it again.
    pub(super) fn not_closed_by(&mut self, successes: usize) {
        self.not_closed_by = self.not_closed_by.max(u8::try_from(successes.min(PROBES_MAX)).unwrap_or_default());
    }

    /// How many probes it lets through before it decides, once that was seen twice.
    pub(super) fn permits(&self) -> Option<usize> {
        let all: u32 = self.failed_after.iter().map(|count| u32::from(*count)).sum();
        let most = self.failed_after.iter().zip(1..).max_by_key(|(count, probes)| (**count, usize::MAX - probes)).map(|(_, probes)| probes);
        most.filter(|_| all >= 2)
    }

    /// Whether one bad probe opens it again.
    pub(super) fn one_strike(&self) -> bool {
        self.permits() == Some(1)
    }

    /// How many successes close it, as far as is known: nearly all libraries are content with one.
    pub(super) fn successes(&self) -> usize {
        usize::from(self.not_closed_by) + 1
    }

    /// There is a breaker for sure.
    pub(super) fn prove(&mut self) {
        self.proven = true;
    }

    /// Whether there is one for sure.
    pub(in crate::circuit) const fn is_proven(&self) -> bool {
        self.proven
    }

    /// Silence of this length ended well. `true` if the one before was as long, to a tenth and half a second: then
    /// something waits, as a breaker does.
    pub(super) fn waited(&mut self, nanos: u64) -> bool {
        let before = std::mem::replace(&mut self.waited, nanos);
        let alike = before > 0 && before.abs_diff(nanos) <= before / 10 + 500_000_000;
        self.proven |= alike;
        alike
    }
}
