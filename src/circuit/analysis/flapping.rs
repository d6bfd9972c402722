//! Whether a breaker opens and closes in turn, too often.
//!
//! Source: Nagios Core manual, "Detection and handling of state flapping": changes of state among the last twenty looks,
//! the newer ones weighing more; begins and ends at different shares. The shares are the defaults of Icinga 2.

/// Looks that are remembered.
const LOOKS: u64 = 20;

/// A look takes so many nanoseconds.
pub const LOOK: u64 = 30_000_000_000;

/// Weighted changes, in per cent, above which it flaps, and below which no longer.
const BEGINS: f64 = 30.0;
const ENDS: f64 = 25.0;

/// A breaker's changes of state in the last ten minutes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flapping {
    /// The look that is under way.
    look: u64,
    /// Whether the state changed in a look; the lowest bit is the one under way.
    changes: u32,
    flaps: bool,
}

impl Flapping {
    /// Notes that the state changed then, in Unix nanoseconds; `true` if it begins or ends to flap with that.
    pub fn change(&mut self, at: u64) -> bool {
        self.move_to(at / LOOK);
        self.changes |= 1;
        self.judge()
    }

    /// Time went by; `true` if it no longer flaps.
    pub fn pass(&mut self, now: u64) -> bool {
        self.move_to(now / LOOK);
        self.judge()
    }

    /// Whether it flaps.
    pub const fn flaps(&self) -> bool {
        self.flaps
    }

    /// How often its state changed in the last ten minutes, at most once a look.
    pub const fn changes(&self) -> u32 {
        self.changes.count_ones()
    }

    /// When a look ends after which it may flap no longer, in Unix nanoseconds.
    pub const fn next_look(&self) -> u64 {
        self.look.saturating_add(1).saturating_mul(LOOK)
    }

    fn move_to(&mut self, look: u64) {
        let passed = look.saturating_sub(self.look);
        self.look = self.look.max(look);
        let kept = if passed < LOOKS { self.changes << passed } else { 0 };
        self.changes = kept & ((1 << LOOKS) - 1);
    }

    fn judge(&mut self) -> bool {
        // From 0.8 for the oldest to 1.18 for the newest.
        let weight = |age: u64| 0.8 + 0.02 * (LOOKS - 1 - age) as f64;
        let changed: f64 = (0..LOOKS).filter(|age| self.changes >> age & 1 == 1).map(weight).sum();
        let share = 100.0 / LOOKS as f64 * changed;
        let flaps = if self.flaps { share > ENDS } else { share > BEGINS };
        std::mem::replace(&mut self.flaps, flaps) != flaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quick_cycles_flap_and_quiet_ends_it() {
        let mut breaker = Flapping::default();
        let at = |look: u64| 1_000 * LOOK + look * LOOK + 1;
        let told: Vec<u64> = (0..8).filter(|look| breaker.change(at(*look))).collect();
        // Six changes, one a look: 5 * (6 * 1.18 - 0.02 * 15) = 33.9; five are 28.5.
        assert_eq!((told, breaker.flaps()), (vec![5], true));
        // Those of looks 0 to 7 weigh less as they age, and leave: at the 14th look after, 5 * 6.04 is the last above it.
        let ended = (8..60).find(|look| breaker.pass(at(*look))).unwrap();
        assert!((20..=24).contains(&ended), "{ended}");
        assert!(!breaker.flaps());
    }

    #[test]
    fn an_hour_without_a_change_forgets_all_of_them() {
        let mut breaker = Flapping::default();
        (0..5).for_each(|look| assert!(!breaker.change(look * LOOK)));
        assert!(!breaker.change(200 * LOOK));
        assert_eq!(breaker.changes, 1);
        // A clock that jumps back changes nothing but the look under way.
        assert!(!breaker.change(0));
        assert_eq!(breaker.changes, 1);
    }
}
