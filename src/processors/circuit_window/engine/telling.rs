//! What there is to tell of circuits: who is due, in which order it is sent, and what was told.

use std::{collections::HashSet, ops::RangeInclusive, sync::Arc};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use super::{
    super::{
        metrics::{Page, Settings, is_whole_due},
        moments::Moment,
    },
    Engine, Place,
};
use crate::circuit::{circuit::Circuit, key::CircuitKey, sent::Sent};

/// Circuits whose metrics go into one request: below 1 MiB, even with names of full length, all error types and 16
/// percentiles.
const CIRCUITS_A_REQUEST: usize = 16;

/// Circuits that are looked at under one lock of their shard for what there is to tell. What is due of them is worked out
/// under further ones, [`CIRCUITS_A_REQUEST`] at a time.
const CIRCUITS_A_LOOK: usize = 1_024;

/// The circuits that are told of in one round: each once in so many seconds, by the remainder of its number.
#[derive(Clone, Copy, Debug)]
pub(in crate::processors::circuit_window) struct Turns {
    interval: u64,
    first: u64,
    count: u64,
}

impl Turns {
    /// Those of these seconds, where each circuit is told of once in `interval` of them.
    pub(in crate::processors::circuit_window) fn of(seconds: &RangeInclusive<u64>, interval: u64) -> Self {
        let interval = interval.max(1);
        let count = (seconds.end() + 1).saturating_sub(*seconds.start()).min(interval);
        Self { interval, first: seconds.start() % interval, count }
    }

    /// Everyone's.
    pub(in crate::processors::circuit_window) const fn all() -> Self {
        Self { interval: 1, first: 0, count: 1 }
    }

    /// Whether it is this number's turn.
    pub(in crate::processors::circuit_window) const fn is(self, number: u64) -> bool {
        (number % self.interval + self.interval - self.first) % self.interval < self.count
    }
}

/// One round of telling: what there is to tell, each for a request of bounded size.
pub(in crate::processors::circuit_window) struct Telling {
    pub(in crate::processors::circuit_window) moment: Moment,
    turns: Turns,
    /// First points of 0: to be sent before all else.
    pub(in crate::processors::circuit_window) beginnings: Vec<Due>,
    /// Everything else, in any order.
    pub(in crate::processors::circuit_window) rest: Vec<Due>,
    /// Which shard is looked at, and from which number on.
    place: usize,
    from: usize,
    /// What there is to tell of that shard: circuits, those of which some series begin, and those of which all do.
    told: Vec<Numbered>,
    begun: Vec<Numbered>,
    new: Vec<Numbered>,
    /// Names in it whose series have not ended yet: no other circuit of that name begins.
    ending: HashSet<Arc<CircuitKey>>,
}

/// A circuit, by its number; which is another circuit's when this one is gone.
type Numbered = (usize, Arc<CircuitKey>);

/// Metrics for one request, and what they tell, to be noted once they are on their way.
pub(in crate::processors::circuit_window) struct Report {
    pub(in crate::processors::circuit_window) request: ExportMetricsServiceRequest,
    pub(in crate::processors::circuit_window) points: usize,
    place: Place,
    begins: bool,
    told: Vec<Reported>,
    ended: Vec<Circuit>,
}

/// Circuits that there is something to tell of.
pub(in crate::processors::circuit_window) struct Due {
    moment: Moment,
    place: Place,
    /// Whether first points of 0 are told, and nothing else.
    begins: bool,
    circuits: Vec<Numbered>,
    ended: Vec<Circuit>,
}

/// What a report tells of one circuit.
struct Reported {
    number: usize,
    key: Arc<CircuitKey>,
    epoch: u32,
    sent: Sent,
}

impl Telling {
    /// What there is to tell of a shard is known: splits it into what requests hold.
    fn take_shard(&mut self, place: Place, mut ended: Vec<Circuit>, delta: bool) {
        let (moment, mut ending) = (self.moment, std::mem::take(&mut self.ending));
        let mut begun = std::mem::take(&mut self.begun);
        let mut waiting = HashSet::new();
        for (number, key) in std::mem::take(&mut self.new) {
            // Two of one name would be told of in the same series.
            if ending.insert(Arc::clone(&key)) {
                begun.push((number, key));
            } else {
                waiting.insert(number);
            }
        }
        let mut told = std::mem::take(&mut self.told);
        told.retain(|(number, _)| !waiting.contains(number));
        let due = |begins: bool| move |some: &[Numbered]| Due { moment, place, begins, circuits: some.to_vec(), ended: Vec::new() };
        if !delta {
            self.beginnings.extend(begun.chunks(CIRCUITS_A_REQUEST).map(due(true)));
        }
        self.rest.extend(told.chunks(CIRCUITS_A_REQUEST).map(due(false)));
        while !ended.is_empty() {
            let rest = ended.split_off(ended.len().min(CIRCUITS_A_REQUEST));
            self.rest.push(Due { moment, place, begins: false, circuits: Vec::new(), ended: std::mem::replace(&mut ended, rest) });
        }
        (self.place, self.from) = (self.place + 1, 0);
    }
}

impl Engine {
    /// Begins a round of telling, later than all before.
    pub(in crate::processors::circuit_window) fn begin_telling(&self, turns: Turns) -> Telling {
        Telling {
            moment: self.moments.next(self.clock.now()),
            turns,
            beginnings: Vec::new(),
            rest: Vec::new(),
            place: 0,
            from: 0,
            told: Vec::new(),
            begun: Vec::new(),
            new: Vec::new(),
            ending: HashSet::new(),
        }
    }

    /// Looks at some circuits for what there is to tell of them, under one lock; `false` when none are left.
    pub(in crate::processors::circuit_window) fn look_at_some(&self, telling: &mut Telling) -> bool {
        let Some(place) = self.places().nth(telling.place) else { return false };
        let moment = telling.moment;
        let (delta, mut shard) = (self.checked.load().circuit.delta, self.shard(place).lock());
        if telling.from == 0 {
            shard.tells_at(moment.now);
            telling.ending = shard.ended().iter().filter(|circuit| circuit.sent.at > 0).map(|circuit| Arc::clone(circuit.key())).collect();
        }
        let numbers = telling.from..telling.from + CIRCUITS_A_LOOK;
        telling.from = numbers.end;
        if let Some(circuits) = shard.circuits_in(numbers) {
            for (number, circuit) in circuits {
                if circuit.is_retired() && circuit.sent.at > 0 {
                    telling.ending.insert(Arc::clone(circuit.key()));
                }
                let is_due = circuit.changed || is_whole_due(circuit, moment.now);
                if !is_due || !telling.turns.is(number as u64) || !circuit.is_established() {
                    continue;
                }
                let numbered = || (number, Arc::clone(circuit.key()));
                match circuit.sent.at {
                    // One that came since the round began waits.
                    0 if circuit.since() > moment.begins => continue,
                    0 => telling.new.push(numbered()),
                    _ if !delta && circuit.has_beginnings() => telling.begun.push(numbered()),
                    _ => {}
                }
                telling.told.push(numbered());
            }
            return true;
        }
        let ended = shard.take_ended();
        drop(shard);
        telling.take_shard(place, ended, delta);
        true
    }

    /// Tells what is due; the report is to be [settled](Self::settle).
    pub(in crate::processors::circuit_window) fn report(&self, due: Due) -> Report {
        let Due { moment, place, begins, circuits, ended } = due;
        let checked = self.checked.load();
        let settings = Settings::of(&checked);
        let mut page = Page::new(&settings, moment);
        ended.iter().for_each(|circuit| page.end(circuit));
        let mut told = Vec::with_capacity(circuits.len());
        let mut shard = self.shard(place).lock();
        for (number, key) in circuits {
            // It may have another name by now, or its number may be another circuit's.
            let Some(circuit) = shard.circuit_mut(number).filter(|circuit| Arc::ptr_eq(circuit.key(), &key)) else { continue };
            if !begins && !page.tells_of(circuit) {
                continue;
            }
            let sent = if begins { page.begin(circuit) } else { page.circuit(circuit) };
            told.push(Reported { number, key, epoch: circuit.epoch(), sent });
            if !begins {
                circuit.changed = false;
            }
        }
        drop(shard);
        let (request, points) = page.finish();
        Report { request, points, place, begins, told, ended }
    }

    /// Notes that a report is on its way, or that it was refused and is to be told again; gives the circuits whose end
    /// was told.
    pub(in crate::processors::circuit_window) fn settle(&self, report: Report, taken: bool) -> Vec<Circuit> {
        let Report { place, begins, told, ended, .. } = report;
        let mut shard = self.shard(place).lock();
        for Reported { number, key, epoch, sent } in told {
            // Its number may be another circuit's by now.
            let Some(circuit) = shard.circuit_mut(number).filter(|circuit| Arc::ptr_eq(circuit.key(), &key)) else { continue };
            if begins && taken {
                circuit.begun(sent, epoch);
            } else if taken {
                circuit.told(sent, epoch);
                // Of what has not begun there is more to tell.
                circuit.changed |= circuit.has_beginnings();
            } else {
                circuit.changed = true;
            }
        }
        if taken {
            shard.forget(&ended);
            return ended;
        }
        shard.put_back(ended);
        Vec::new()
    }
}
