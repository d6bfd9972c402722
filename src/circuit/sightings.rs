//! Which names that found no room are called again and again: a table of fixed size, however many there are.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Pairs of places. Each takes 16 bytes, so that all take 1 MiB, from the first name that found no room on.
const PAIRS: usize = 1 << 16;

/// Times are noted in sixteenths of a second. Nanoseconds.
const TICK: u64 = 62_500_000;

/// A name is remembered for a minute at most.
const REMEMBERED: u32 = 960;

/// Nobody takes a name's place for six seconds: SDKs wait five between two requests. So a name that is called again finds its
/// place while others come in any number.
const HELD: u32 = 96;

/// A name that comes half a second later is called again.
const LATER: u32 = 8;

/// Where so many times of one name are told apart at most.
const TIMES_MAX: u8 = 15;

/// Names that found no room, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Sightings(OnceLock<Box<[[AtomicU64; 2]]>>);

/// A name in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sighting {
    /// A part of its hash, 28 bits.
    tag: u32,
    /// How often it came, up to [`TIMES_MAX`]; 0 where the place is free.
    times: u8,
    /// When it came first.
    tick: u32,
}

impl Sighting {
    fn pack(self) -> u64 {
        u64::from(self.tag) << 36 | u64::from(self.times & 0xf) << 32 | u64::from(self.tick)
    }

    #[expect(clippy::cast_possible_truncation, reason = "each is a part of the 64 bits")]
    const fn unpack(packed: u64) -> Self {
        Self { tag: (packed >> 36) as u32, times: (packed >> 32 & 0xf) as u8, tick: packed as u32 }
    }
}

impl Sightings {
    /// Notes that a name found no room, by its hash; whether it is called again and again: it came before, not long ago, or
    /// `often` by now. Then it is forgotten here.
    #[expect(clippy::cast_possible_truncation, reason = "the low bits choose the place, the high ones tell names apart there")]
    pub(super) fn again(&self, name: u64, often: u8, now: u64) -> bool {
        let pairs = self.0.get_or_init(|| (0..PAIRS).map(|_| Default::default()).collect());
        let Some(pair) = pairs.get(name as usize % PAIRS) else { return false };
        let (tag, tick) = ((name >> 36) as u32, (now / TICK) as u32);
        let mut free: Option<(u32, &AtomicU64)> = None;
        for place in pair {
            let known = Sighting::unpack(place.load(Ordering::Relaxed));
            let age = if known.times == 0 { u32::MAX } else { tick.wrapping_sub(known.tick) };
            if known.times > 0 && known.tag == tag && age <= REMEMBERED {
                let times = (known.times + 1).min(TIMES_MAX);
                let again = age >= LATER || times >= often;
                let noted = if again { Sighting::default() } else { Sighting { times, ..known } };
                place.store(noted.pack(), Ordering::Relaxed);
                return again;
            }
            if age >= HELD && free.is_none_or(|(oldest, _)| age > oldest) {
                free = Some((age, place));
            }
        }
        if let Some((_, place)) = free {
            place.store(Sighting { tag, times: 1, tick }.pack(), Ordering::Relaxed);
        }
        false
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.get().map_or(0, |pairs| size_of_val(&**pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// The hash of a name that is called each second.
    const GOOD: u64 = 0x1234_5678_9abc_def0;

    /// Hashes of made-up names.
    fn made_up(number: u64) -> u64 {
        number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    #[test]
    fn a_name_is_called_again_when_it_comes_later_or_often() {
        let names = Sightings::default();
        let again = |second: u64| names.again(GOOD, 4, second * SECOND);
        assert_eq!([10, 10, 11].map(again), [false, false, true]);
        assert_eq!([20; 4].map(again), [false, false, false, true]);
        assert_eq!([30, 100, 162, 163].map(again), [false, false, false, true], "a minute is too long");
        assert!((0..100).all(|_| !names.again(GOOD, u8::MAX, 200 * SECOND)), "however often");
        assert_eq!(names.heap_bytes(), PAIRS * 16);
    }

    #[test]
    fn a_name_that_is_called_each_second_is_known_within_a_minute_however_many_are_made_up() {
        for a_second in [1_000, 20_000, 100_000] {
            let (names, mut number, mut taken_for_others) = (Sightings::default(), 0, 0);
            let known = (100..160_u64).find(|second| {
                let mut is_known = false;
                for at in 0..a_second {
                    let now = second * SECOND + at * SECOND / a_second;
                    number += 1;
                    taken_for_others += u64::from(names.again(made_up(number), 4, now));
                    is_known |= at == a_second / 2 && names.again(GOOD, 4, now);
                }
                is_known
            });
            assert!(known.is_some_and(|second| second < 160), "{a_second}");
            assert_eq!(taken_for_others, 0, "{a_second}: made-up names");
        }
    }
}
