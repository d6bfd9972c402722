//! Which of a span's attributes are read: found by key, with one look into a table.

/// A place for one attribute of the span that is being read.
pub(super) type Slot = u8;

pub(super) const SLOTS_MAX: usize = 64;

/// Keys that are found at most: several may have one slot.
const KEYS_MAX: usize = 128;

/// The table has at most 2 to this power places.
const BITS_MAX: u32 = 14;

/// Multipliers that are tried for each size of the table.
const TRIES: u64 = 64;

/// Keys of attributes, by a hash that no two of them share. At most [`KEYS_MAX`].
#[derive(Clone, Debug)]
pub(super) struct Keys {
    table: Vec<Place>,
    multiplier: u64,
    shift: u32,
    /// Each with its slot.
    texts: Vec<(Box<[u8]>, Slot)>,
}

/// A place of the table.
#[derive(Clone, Copy, Debug)]
struct Place {
    ends: Ends,
    /// Behind the first eight bytes, and before the last eight, where it has more than sixteen.
    middle: (u64, u64),
    slot: Slot,
    /// Which of the keys it is.
    number: u8,
}

/// Where no key is.
const NOWHERE: Place = Place { ends: Ends { length: usize::MAX, first: 0, last: 0 }, middle: (0, 0), slot: 0, number: 0 };

/// What tells most keys apart: length, first and last eight bytes. Of a shorter key both are all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    length: usize,
    first: u64,
    last: u64,
}

impl Ends {
    #[inline]
    fn of(key: &[u8]) -> Self {
        let (first, last) = match (key.first_chunk(), key.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => {
                let all = key.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
                (all, all)
            }
        };
        Self { length: key.len(), first, last }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "what is left is at most BITS_MAX bits")]
    const fn hash(self, multiplier: u64, shift: u32) -> usize {
        let mixed = self.first ^ self.last.rotate_left(23) ^ self.length as u64;
        (mixed.wrapping_mul(multiplier) >> shift) as usize
    }
}

#[inline]
fn middle(key: &[u8]) -> (u64, u64) {
    let eight = |at: usize| key.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk));
    (eight(8), eight(key.len().saturating_sub(16)))
}

/// Puts each key at a place of its own; `false` if that can't be so.
fn fits(table: &mut Vec<Place>, keys: &[(Box<[u8]>, Slot)], bits: u32, multiplier: u64) -> bool {
    table.clear();
    table.resize(1 << bits, NOWHERE);
    for (number, (key, slot)) in (0..).zip(keys) {
        let ends = Ends::of(key);
        let Some(place) = table.get_mut(ends.hash(multiplier, shift_of(bits))) else { return false };
        // Keys whose ends are alike have one place: the others are searched for.
        if place.ends == NOWHERE.ends {
            *place = Place { ends, middle: middle(key), slot: *slot, number };
        } else if place.ends != ends {
            return false;
        }
    }
    true
}

/// What leaves so many bits, but at least one: no number is shifted by all of its bits.
const fn shift_of(bits: u32) -> u32 {
    if bits == 0 { u64::BITS - 1 } else { u64::BITS - bits }
}

impl Keys {
    /// Finds nothing.
    pub(super) const fn empty() -> Self {
        Self { table: Vec::new(), multiplier: 0, shift: shift_of(0), texts: Vec::new() }
    }

    /// Keys with their slots; each once.
    pub(super) fn new<'k>(keys: impl IntoIterator<Item = (&'k str, Slot)>) -> Self {
        let texts: Vec<(Box<[u8]>, Slot)> = keys.into_iter().take(KEYS_MAX).map(|(key, slot)| (key.as_bytes().into(), slot)).collect();
        // Odd numbers that have nothing to do with each other: the fractional part of the golden ratio, multiplied.
        let multipliers = || (1..=TRIES).map(|number| 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * number + 1));
        let sizes = texts.len().next_power_of_two().trailing_zeros() + 1..=BITS_MAX;
        let mut table = Vec::new();
        let found = sizes
            .flat_map(|bits| multipliers().map(move |multiplier| (bits, multiplier)))
            .find(|(bits, multiplier)| fits(&mut table, &texts, *bits, *multiplier));
        // Two of equal length that are mixed to the same number by their ends never find places of their own: then every
        // key is searched for.
        let (bits, multiplier) = found.unwrap_or_default();
        if bits == 0 {
            table.clear();
        }
        table.shrink_to_fit();
        Self { table, multiplier, shift: shift_of(bits), texts }
    }

    /// The key of a slot; of several that share it the first.
    pub(super) fn key(&self, slot: Slot) -> &[u8] {
        self.texts.iter().find(|(_, of)| *of == slot).map(|(text, _)| &**text).unwrap_or_default()
    }

    /// The slot of a key, if anybody reads it.
    #[inline]
    pub(super) fn slot(&self, key: &[u8]) -> Option<Slot> {
        let ends = Ends::of(key);
        let Some(place) = self.table.get(ends.hash(self.multiplier, self.shift)) else { return self.search(key) };
        if place.ends != ends {
            return None;
        }
        // The ends cover 16 bytes, the middle 16 more.
        if ends.length <= 16 || ends.length <= 32 && middle(key) == place.middle {
            return Some(place.slot);
        }
        match self.texts.get(usize::from(place.number)) {
            Some((text, slot)) if **text == *key => Some(*slot),
            _ => self.search(key),
        }
    }

    #[cold]
    fn search(&self, key: &[u8]) -> Option<Slot> {
        self.texts.iter().find(|(text, _)| **text == *key).map(|(_, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// The slot of a key is its place in this list.
    fn in_order(keys: &[String]) -> Keys {
        Keys::new(keys.iter().map(String::as_str).zip(0..))
    }

    #[test]
    fn several_keys_may_have_one_slot() {
        let table = Keys::new([("db.name", 3), ("db.instance", 3), ("messaging.destination.name.of.some.kind", 1), ("db.user", 0)]);
        let slots = ["db.name", "db.instance", "messaging.destination.name.of.some.kind", "db.user", "db"].map(|key| table.slot(key.as_bytes()));
        assert_eq!(slots, [Some(3), Some(3), Some(1), Some(0), None]);
    }

    proptest! {
        #[test]
        fn every_key_is_found_and_no_other(keys in vec("[ab]{0,3}[a-c.]{0,40}[xy]{0,3}", 0..=SLOTS_MAX), others in vec("[ab]{0,3}[a-c.]{0,40}[xy]{0,3}", 0..64)) {
            let mut keys = keys;
            keys.retain(|key| !key.is_empty());
            keys.sort();
            keys.dedup();
            let table = in_order(&keys);
            for key in keys.iter().chain(&others) {
                let expected = keys.iter().position(|known| known == key);
                prop_assert_eq!(table.slot(key.as_bytes()).map(usize::from), expected, "{}", key);
            }
        }

        /// Whatever two ends are, there are others that are mixed to the same number.
        #[test]
        fn keys_that_no_multiplier_tells_apart_are_found(first in "[a-p]{8}", last in "[a-p]{8}", flip in 1_u8..8, at in 0..5_usize) {
            // A bit of the last eight bytes comes to stand at another place of the first eight: turned by 23 bits, so
            // three bytes on, less one bit.
            let (mut other_first, mut other_last) = (first.clone().into_bytes(), last.clone().into_bytes());
            other_last[at] ^= flip << 1;
            other_first[at + 3] ^= flip;
            let [one, other] = [[first.as_bytes(), last.as_bytes()].concat(), [other_first, other_last].concat()].map(|key| String::from_utf8(key).unwrap());
            prop_assert!(one != other);
            let keys = [one, other, "http.route".to_owned()];
            let table = in_order(&keys);
            prop_assert!(table.table.is_empty());
            for (slot, key) in keys.iter().enumerate() {
                prop_assert_eq!(table.slot(key.as_bytes()).map(usize::from), Some(slot));
            }
            prop_assert_eq!(table.slot(b"http.method"), None);
        }

        #[test]
        fn keys_that_differ_only_within_are_told_apart(length in 0..40_usize, lots in 1..=SLOTS_MAX) {
            let keys: Vec<String> = (0..lots).map(|number| format!("the.same{}{number:02}the.same", "-".repeat(length))).collect();
            let table = in_order(&keys);
            for (slot, key) in keys.iter().enumerate() {
                prop_assert_eq!(table.slot(key.as_bytes()).map(usize::from), Some(slot));
            }
            prop_assert_eq!(table.slot(format!("the.same{}xxthe.same", "-".repeat(length)).as_bytes()), None);
        }
    }
}
