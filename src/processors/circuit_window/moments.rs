//! When what is told of circuits is dated.

use parking_lot::Mutex;

/// Backends that count in milliseconds refuse two points of one series in the same one. Nanoseconds.
const APART: u64 = 1_000_000;

/// No first point of 0 is dated longer ago than this: where nothing was told for long, backends refuse what is that old.
/// Nanoseconds.
const OLDEST: u64 = 60_000_000_000;

/// The times of all that is told in one round, whosever it is: a resource is never told of at an earlier time than before,
/// in whatever order the requests of the round arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Of first points of 0, which are told before anything else of the round: later than all that was told before.
    pub(super) begins: u64,
    /// Of everything else: later than that.
    pub(super) now: u64,
}

/// Gives each round a moment later than all before.
#[derive(Debug, Default)]
pub(super) struct Moments(Mutex<u64>);

impl Moments {
    /// The moment of a round that begins now, by a clock that may have been set back.
    pub(super) fn next(&self, now: u64) -> Moment {
        let mut last = self.0.lock();
        let now = now.max(last.saturating_add(2 * APART));
        // Before the first round nothing was told; circuits are younger than that.
        let told = if *last == 0 { now.saturating_sub(2 * APART) } else { (*last).max(now.saturating_sub(OLDEST)) };
        *last = now;
        Moment { begins: told + APART, now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_moment_is_later_than_all_before_by_a_millisecond_at_least() {
        let moments = Moments::default();
        let mut last: Option<Moment> = None;
        // The clock stands still, goes on, jumps, and is set back.
        for second in [100, 100, 101, 102, 4_000, 3_000, 3_001, 4_001] {
            let next = moments.next(second * SECOND);
            assert!(next.now >= next.begins + APART && next.begins + OLDEST + SECOND > next.now, "{next:?}");
            assert!(last.is_none_or(|last| next.begins >= last.now + APART), "{last:?}, {next:?}");
            last = Some(next);
        }
        assert_eq!(last.map(|last| last.now), Some(4_001 * SECOND));
    }
}
