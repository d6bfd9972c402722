//! What is said again and again is written once, with a count.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long what is said again is only counted.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// The most messages that are told apart; further ones count as one.
const MESSAGES_MAX: usize = 1000;

/// What stands for all messages that are not told apart.
const OTHERS: u64 = 0;

/// What was said lately, by a number that stands for message and component. `T` is what tells of it later.
pub(super) struct Repeats<T> {
    said: HashMap<u64, Said<T>>,
}

struct Said<T> {
    since: Instant,
    left_out: u64,
    /// Not known yet where its first line is still being made.
    about: Option<T>,
}

/// A message that may be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Under what number it is known.
    pub(super) key: u64,
    /// How often it was left out since it was written last.
    pub(super) left_out: u64,
}

impl<T: Clone> Repeats<T> {
    pub(super) fn new() -> Self {
        Self { said: HashMap::new() }
    }

    /// Whether a message may be written now; if not, it is counted.
    pub(super) fn turn(&mut self, key: u64, now: Instant) -> Option<Turn> {
        let key = if self.said.contains_key(&key) || self.has_room(now) { key } else { OTHERS };
        let Some(said) = self.said.get_mut(&key) else {
            self.said.insert(key, Said { since: now, left_out: 0, about: None });
            return Some(Turn { key, left_out: 0 });
        };
        if now.saturating_duration_since(said.since) < EVERY {
            said.left_out += 1;
            return None;
        }
        said.since = now;
        Some(Turn { key, left_out: std::mem::take(&mut said.left_out) })
    }

    /// Notes what tells of a message that is written.
    pub(super) fn note(&mut self, key: u64, about: T) {
        if let Some(said) = self.said.get_mut(&key) {
            said.about = Some(about);
        }
    }

    /// Messages that were left out and whose time is over, with how often; all that were left out where `now` is `None`.
    pub(super) fn due(&mut self, now: Option<Instant>) -> Vec<(T, u64)> {
        let mut due = Vec::new();
        self.said.retain(|_, said| {
            let is_over = now.is_none_or(|now| now.saturating_duration_since(said.since) >= EVERY);
            if !is_over {
                return true;
            }
            if said.left_out == 0 {
                return false;
            }
            if let Some(about) = &said.about {
                due.push((about.clone(), std::mem::take(&mut said.left_out)));
                // That counts as writing it.
                said.since = now.unwrap_or(said.since);
            }
            true
        });
        due
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.said.len() < MESSAGES_MAX {
            return true;
        }
        self.said.retain(|_, said| said.left_out > 0 || now.saturating_duration_since(said.since) < EVERY);
        self.said.len() < MESSAGES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_counted_until_its_time_is_over() {
        let (mut repeats, start) = (Repeats::new(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(repeats.turn(7, at(0)), Some(Turn { key: 7, left_out: 0 }));
        repeats.note(7, "seven");
        assert_eq!(repeats.turn(8, at(0)), Some(Turn { key: 8, left_out: 0 }));
        assert_eq!([repeats.turn(7, at(1)), repeats.turn(7, at(9))], [None, None]);
        assert_eq!(repeats.turn(7, at(10)), Some(Turn { key: 7, left_out: 2 }));
        assert_eq!(repeats.turn(7, at(11)), None);
        assert!(repeats.due(Some(at(12))).is_empty());
        assert_eq!(repeats.due(Some(at(20))), [("seven", 1)]);
        assert_eq!(repeats.turn(7, at(21)), None);
        assert_eq!(repeats.due(None), [("seven", 1)]);
    }

    #[test]
    fn messages_without_end_take_no_memory_without_end() {
        let (mut repeats, now) = (Repeats::<()>::new(), Instant::now());
        let written = (1..100_000).filter(|key| repeats.turn(*key, now).is_some()).count();
        assert_eq!(written, MESSAGES_MAX + 1);
        assert_eq!(repeats.said.len(), MESSAGES_MAX + 1);
        // When their time is over there is room again.
        assert!(repeats.turn(200_000, now + EVERY).is_some());
        assert!(repeats.said.len() < 10);
    }
}
