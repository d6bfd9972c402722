//! Who answers at an address: the two halves of a call, brought together.
//!
//! A CLIENT span knows the address, the SERVER span that it is the parent of the callee's name. They come in different
//! requests, in any order, and often to different shards.

use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashMap;

use super::{detect::lane::Route, key::Caller, process::Hashed};

/// Halves that wait for their other half at most, twice over.
const WAITING_MAX: usize = 4_096;

/// One half of a call.
#[derive(Clone, Debug)]
pub enum Met {
    /// The caller's.
    #[expect(private_interfaces, reason = "handed from a shard to the table and back")]
    Call {
        /// Of trace and span.
        key: u64,
        /// The circuit, by its number in the shard.
        circuit: u32,
        /// What was called.
        address: Hashed,
        /// What for, where that matters.
        route: Route,
    },
    /// The callee's.
    Answer {
        /// Of trace and parent span.
        key: u64,
        /// Who answered.
        callee: Arc<Caller>,
    },
}

/// Two halves that belong together.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// The shard of the circuit.
    pub shard: usize,
    pub(super) circuit: u32,
    pub(super) address: Hashed,
    pub(super) route: Route,
    pub(super) callee: Arc<Caller>,
}

/// Halves of calls that wait for the other half. Bounded: when too many wait the oldest half of them is forgotten.
#[derive(Debug, Default)]
pub struct Meetings {
    young: HashMap<u64, Half, RandomState>,
    old: HashMap<u64, Half, RandomState>,
}

#[derive(Clone, Debug)]
enum Half {
    Call { shard: usize, circuit: u32, address: Hashed, route: Route },
    Answer(Arc<Caller>),
}

impl Meetings {
    /// Takes one half that a shard noted; gives both once the other is there.
    pub fn meet(&mut self, shard: usize, met: Met) -> Option<Introduction> {
        let (key, half) = match met {
            Met::Call { key, circuit, address, route } => (key, Half::Call { shard, circuit, address, route }),
            Met::Answer { key, callee } => (key, Half::Answer(callee)),
        };
        let other = self.young.get(&key).or_else(|| self.old.get(&key));
        let (call, callee) = match (half, other) {
            (call @ Half::Call { .. }, Some(Half::Answer(callee))) => (call, Arc::clone(callee)),
            (Half::Answer(callee), Some(call @ Half::Call { .. })) => (call.clone(), callee),
            (half, _) => {
                if self.young.len() >= WAITING_MAX {
                    self.old = std::mem::take(&mut self.young);
                }
                self.young.insert(key, half);
                return None;
            }
        };
        self.young.remove(&key);
        self.old.remove(&key);
        let Half::Call { shard, circuit, address, route } = call else { return None };
        Some(Introduction { shard, circuit, address, route, callee })
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> usize {
        self.young.allocation_size() + self.old.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(key: u64) -> Met {
        Met::Call { key, circuit: 7, address: Hashed::of(9), route: Route::default() }
    }

    fn answer(key: u64) -> Met {
        Met::Answer { key, callee: Arc::new(Caller { service: "payments".into(), ..Caller::default() }) }
    }

    #[test]
    fn halves_meet_in_either_order_and_once() {
        let mut meetings = Meetings::default();
        assert!(meetings.meet(1, call(5)).is_none());
        assert!(meetings.meet(0, answer(6)).is_none());
        for (half, shard) in [(answer(5), 1), (call(6), 2)] {
            let met = meetings.meet(2, half).unwrap();
            assert_eq!((met.shard, met.circuit, &*met.callee.service), (shard, 7, "payments"));
        }
        assert!(meetings.meet(0, answer(5)).is_none(), "a client that tries again silently has two answers");
    }

    #[test]
    fn what_never_meets_is_forgotten() {
        let mut meetings = Meetings::default();
        (0..100_000).for_each(|key| assert!(meetings.meet(0, call(key)).is_none()));
        assert!(meetings.young.len() + meetings.old.len() <= 2 * WAITING_MAX);
        assert!(meetings.meet(0, answer(99_999)).is_some() && meetings.meet(0, answer(1)).is_none());
    }
}
