use super::{super::state::State, keys::Rules};
use crate::otlp::{Value, trace::Event};

/// What a span event tells of a breaker that changed its state.
#[derive(Debug, Default)]
pub(super) struct Transition<'a> {
    /// The state before.
    pub(super) from: Option<State>,
    /// The state after.
    pub(super) to: Option<State>,
    /// Whether that is told as a change, and not only as the state that holds.
    pub(super) changes: bool,
    /// Whether only the event's own name tells the state after.
    pub(super) by_name: bool,
    /// The breaker's own name.
    pub(super) name: Option<&'a [u8]>,
    /// What should tell the state after and can't be read, and what it holds: an attribute, or the event itself.
    pub(super) unread: Option<(&'a [u8], Value<'a>)>,
}

/// Attributes of an event that hold the breaker's name, after those that may hold it in a span: an event tells of nothing
/// else.
const NAMES: [&[u8]; 7] = [b"name", b"breaker", b"breaker.name", b"breaker_name", b"circuit", b"circuit.name", b"circuit_name"];

/// Parts of the names of events that tell of a call, and of no transition.
const OF_CALLS: [&[u8]; 14] = [
    b"reject",
    b"success",
    b"fail",
    b"allow",
    b"permit",
    b"fallback",
    b"timeout",
    b"call",
    b"execut",
    b"check",
    b"probe",
    b"short",
    b"ignore",
    b"error",
];

impl<'a> Transition<'a> {
    /// Reads an event. Of several attributes the one that stands first in the rules counts; where none tells the state
    /// after, the event's name does.
    pub(super) fn read(event: Event<'a>, rules: &Rules) -> Self {
        let (mut from, mut to, mut name) = (First::default(), First::default(), First::default());
        let mut unread = None;
        event.attributes(|key, value| {
            let rank = |keys: &[Box<[u8]>]| keys.iter().position(|known| **known == *key);
            if let Some(rank) = rank(&rules.transition_to) {
                match state(value) {
                    Some(state) => to.take(rank, (state, !is_what_holds(key))),
                    None if says_something(value) => _ = unread.get_or_insert((key, Value::read(value))),
                    None => {}
                }
            }
            if let (Some(rank), Some(state)) = (rank(&rules.transition_from), state(value)) {
                from.take(rank, state);
            }
            let among_names = || NAMES.iter().position(|known| *known == key).map(|rank| rules.name_keys.len() + rank);
            if let Some(rank) = rank(&rules.name_keys).or_else(among_names)
                && let Value::Text(text @ [_, ..]) = Value::read(value)
            {
                name.take(rank, text);
            }
        });
        let to = to.get();
        let by_name = to.is_none();
        let to = to.or_else(|| Some((State::named(event.name)?, true)));
        let unread = match to {
            Some(_) => None,
            None => unread.or_else(|| (!is_of_a_call(event.name)).then_some((event.name, Value::Other))),
        };
        let (to, changes) = to.map_or((None, false), |(to, changes)| (Some(to), changes));
        Self { from: from.get(), to, changes, by_name, name: name.get(), unread }
    }
}

/// Whether a serialised value is there to be read, and no empty text.
pub(super) fn says_something(value: &[u8]) -> bool {
    Value::read(value) != Value::Text(&[])
}

fn state(value: &[u8]) -> Option<State> {
    match Value::read(value) {
        Value::Text(text) => State::named(text),
        _ => None,
    }
}

/// Whether an attribute holds a state as it is, by its name: `state`, and not `new_state`.
fn is_what_holds(key: &[u8]) -> bool {
    key == b"state" || key.ends_with(b".state")
}

/// Whether an event tells what became of a call, by its name.
fn is_of_a_call(name: &[u8]) -> bool {
    OF_CALLS.iter().any(|part| name.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part)))
}

/// Of several values the one of least rank.
#[derive(Debug)]
struct First<T>(Option<(usize, T)>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> First<T> {
    fn take(&mut self, rank: usize, value: T) {
        if self.0.as_ref().is_none_or(|(other, _)| rank < *other) {
            self.0 = Some((rank, value));
        }
    }

    fn get(self) -> Option<T> {
        self.0.map(|(_, value)| value)
    }
}
