use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use smallvec::SmallVec;

use super::{
    super::state::Ids,
    lane::{Lane, Route},
    rule::Meaning,
    suspect::{NO_OPERATION, Through},
};

/// A unit is looked at so long after it ended: in some runtimes calls end after the span they belong to. Nanoseconds.
pub(in crate::circuit) const HOLD: u64 = 500_000_000;
/// What was looked at is kept for units that end later. Nanoseconds.
const KEEP: u64 = 5_000_000_000;
/// How long a process is watched after the last thing that is worth it. Nanoseconds.
const CALM: u64 = 60_000_000_000;
/// Marks that are kept of one process: when there are more, only every second trace is looked at from then on.
const MARKS_MAX: usize = 2_048;
/// Marks for which there is room while that is not enough.
const MARKS_ROOM: usize = 3 * MARKS_MAX;
/// What went wrong that is remembered while that is all that is noted.
const TROUBLE_MAX: usize = 16;
/// How long. Nanoseconds.
const TROUBLE_KEEP: u64 = 30_000_000_000;

/// What one process does, while something there is worth a closer look: at first only what goes wrong, which may explain
/// a trip later, and once that is [wide](Self::is_wide), everything.
#[derive(Debug)]
pub(in crate::circuit) struct Watch {
    marks: Vec<Mark>,
    /// Calls among the marks, by number, in order of their ends: as of the last [`take_due`](Self::take_due).
    calls: Vec<u32>,
    /// One trace in so many is looked at.
    every: u64,
    /// Everything that ended so long before [`HOLD`] was looked at.
    settled_to: u64,
    /// The end of the last rejection or failure.
    worth: u64,
    /// Since when everything is noted.
    wide: Option<Wide>,
    /// Units that began before this may not be known whole.
    whole_from: u64,
    /// The breaker that seemed open last: its name and circuit as they were told, the circuit, and the place in it.
    seemed: Option<Seemed>,
    /// Circuits that are not closed in it.
    pub(in crate::circuit) restless: SmallVec<[u32; 4]>,
    /// Traces are sampled so that most are not seen.
    pub(in crate::circuit) sampled: bool,
}

/// Since when everything that a process does is noted. What went well before may have come before that, or after:
/// nothing must depend on it.
#[derive(Clone, Copy, Debug)]
struct Wide {
    /// The end of what was worth it: where two things had to go wrong, of the later one.
    at: u64,
    /// Spans come out of order by up to this.
    reorder: u64,
    /// The newest end that had come before.
    newest_end: u64,
}

impl Wide {
    /// What ends later came later.
    fn known_from(self) -> u64 {
        self.at.saturating_add(self.reorder).max(self.newest_end)
    }
}

/// What a text told of a breaker, and which circuit's it was taken for.
#[derive(Debug)]
struct Seemed {
    name: Option<Arc<str>>,
    told: Option<u32>,
    /// The circuit, and the process's place in it.
    place: (u32, u32),
}

/// One span, as far as it matters here.
#[derive(Clone, Debug)]
pub(in crate::circuit) struct Mark {
    pub(in crate::circuit) start: u64,
    pub(in crate::circuit) end: u64,
    /// A part of the trace id.
    pub(in crate::circuit) trace: u64,
    pub(in crate::circuit) what: What,
}

#[derive(Clone, Debug)]
pub(in crate::circuit) enum What {
    /// A call that was let through.
    Call {
        lane: Lane,
        route: Route,
        bad: bool,
        /// Its callee answered.
        answered: bool,
        /// It is of a circuit that is not closed: there is no call like it.
        telling: bool,
        /// It is the first of its trace: no operation makes it.
        alone: bool,
    },
    /// The span at the top of what the process did in a trace.
    Root { operation: Option<u32>, aborted: bool },
    /// A text of a library.
    Told(Arc<Told>),
}

/// A text of a library on a span.
#[derive(Debug)]
pub(in crate::circuit) struct Told {
    pub(in crate::circuit) meaning: Meaning,
    pub(in crate::circuit) rule: u16,
    /// Whether it is no quotation of what a callee answered.
    pub(in crate::circuit) typed: bool,
    /// Whether it looks like what a client makes of an answer.
    pub(in crate::circuit) answer: bool,
    /// The breaker's own name.
    pub(in crate::circuit) name: Option<Arc<str>>,
    /// The circuit, where the span itself is a call.
    pub(in crate::circuit) circuit: Option<u32>,
    /// When it was said.
    pub(in crate::circuit) at: u64,
    /// The span.
    pub(in crate::circuit) start: u64,
    pub(in crate::circuit) end: u64,
    pub(in crate::circuit) ids: Ids,
    /// It was looked at: roots of one process may stand within each other.
    pub(in crate::circuit) taken: AtomicBool,
}

impl Told {
    /// Whether it was looked at.
    pub(in crate::circuit) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    /// It is looked at now.
    pub(in crate::circuit) fn take(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    fn moved(&self, circuit: u32) -> Self {
        let Self { meaning, rule, typed, answer, at, start, end, ids, .. } = *self;
        Self {
            meaning,
            rule,
            typed,
            answer,
            name: self.name.clone(),
            circuit: Some(circuit),
            at,
            start,
            end,
            ids,
            taken: AtomicBool::new(self.is_taken()),
        }
    }
}

/// A call, as far as it matters before its unit is complete.
#[derive(Clone, Copy, Debug)]
pub(in crate::circuit) struct Called {
    pub(in crate::circuit) circuit: u32,
    pub(in crate::circuit) bad: bool,
    pub(in crate::circuit) answered: bool,
    pub(in crate::circuit) start: u64,
    pub(in crate::circuit) end: u64,
}

/// What a process did in one trace under one root.
#[derive(Debug, Default)]
pub(in crate::circuit) struct Unit {
    /// In order of their starts.
    pub(in crate::circuit) calls: SmallVec<[(Lane, Through); 4]>,
    /// By name, of each the one that ended first: the deepest.
    pub(in crate::circuit) told: SmallVec<[Arc<Told>; 1]>,
}

impl Unit {
    /// Whether a breaker that has this name, or none that is known, turned a call away in it.
    pub(in crate::circuit) fn is_turned_away_by(&self, name: Option<&Arc<str>>) -> bool {
        let is = |told: &Arc<Told>| told.meaning.is_refusal() && (told.name.is_none() || told.name.as_ref() == name);
        self.told.iter().any(is)
    }

    /// Adds a text: of several of one name the first, unless only the later one tells of a breaker.
    fn tell(&mut self, told: &Arc<Told>) {
        match self.told.iter_mut().find(|other| other.name == told.name) {
            None => self.told.push(Arc::clone(told)),
            Some(other) if other.meaning == Meaning::NoBreaker && told.meaning != Meaning::NoBreaker => *other = Arc::clone(told),
            Some(_) => {}
        }
    }

    /// What was called, each once.
    pub(in crate::circuit) fn called(&self) -> SmallVec<[Lane; 4]> {
        let mut called = SmallVec::new();
        for (lane, _) in &self.calls {
            if !called.contains(lane) {
                called.push(*lane);
            }
        }
        called
    }
}

impl Mark {
    /// Whether it is looked at when one trace in so many is: calls through a breaker that is not closed always are.
    const fn is_of_every(&self, every: u64) -> bool {
        self.trace.is_multiple_of(every) || matches!(self.what, What::Call { telling: true, .. })
    }

    /// Whether it tells of something that went wrong.
    const fn is_trouble(&self) -> bool {
        matches!(self.what, What::Call { bad: true, .. } | What::Root { aborted: true, .. } | What::Told(_))
    }

    /// Whether it tells anything where everything is known from then on: what went well before may have been missed.
    const fn tells(&self, known_from: u64) -> bool {
        self.end > known_from || self.is_trouble()
    }

    /// When it is looked at. A text waits for the root that it belongs to, which may end much later, unless the span is a
    /// call itself.
    fn due(&self) -> u64 {
        match &self.what {
            What::Told(told) if told.circuit.is_none() => self.end.saturating_add(KEEP),
            _ => self.end.saturating_add(HOLD),
        }
    }

    /// What decides the order in which marks are taken: never the order of arrival.
    pub(in crate::circuit) const fn rank(&self) -> (u64, u64, u64, u8, bool, Route) {
        let (kind, bad, route) = match self.what {
            What::Call { bad, route, .. } => (0, bad, route),
            What::Told(_) => (1, false, Route::UNKNOWN),
            What::Root { aborted, .. } => (2, aborted, Route::UNKNOWN),
        };
        (self.end, self.start, self.trace, kind, bad, route)
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            marks: Vec::new(),
            calls: Vec::new(),
            every: 1,
            settled_to: 0,
            worth: 0,
            wide: None,
            whole_from: 0,
            seemed: None,
            restless: SmallVec::new(),
            sampled: false,
        }
    }
}

impl Watch {
    /// Whether everything is noted, and not only what goes wrong.
    pub(in crate::circuit) const fn is_wide(&self) -> bool {
        self.wide.is_some()
    }

    /// Notes everything from now on, for something that ended then; what had come before ended at `newest_end` at the
    /// latest. Where it was wide already, that may turn out to have been worth it earlier.
    pub(in crate::circuit) fn widen(&mut self, at: u64, reorder: u64, newest_end: u64) {
        let wide = self.wide.get_or_insert(Wide { at, reorder, newest_end });
        wide.at = wide.at.min(at);
    }

    /// Everything that ended later is known.
    fn known_from(&self) -> u64 {
        self.wide.map_or(u64::MAX, Wide::known_from)
    }

    /// Whether all calls of a unit are known, given its start and end.
    pub(in crate::circuit) fn knows(&self, (start, end): (u64, u64), trace: u64) -> bool {
        start > self.known_from().max(self.whole_from) && end - start < KEEP && self.looks_at(trace) && !self.sampled
    }

    /// Whether anything of a trace was noted.
    pub(in crate::circuit) fn has_trace(&self, trace: u64) -> bool {
        self.marks.iter().any(|mark| mark.trace == trace)
    }

    /// What was called in a trace.
    pub(in crate::circuit) fn calls_in(&self, trace: u64) -> SmallVec<[Called; 4]> {
        let of = |mark: &Mark| match mark.what {
            What::Call { lane, bad, answered, .. } if mark.trace == trace => {
                Some(Called { circuit: lane.circuit, bad, answered, start: mark.start, end: mark.end })
            }
            _ => None,
        };
        self.marks.iter().filter_map(of).collect()
    }

    /// Trace and start of all that was noted.
    pub(in crate::circuit) fn noted(&self) -> impl Iterator<Item = (u64, u64)> {
        self.marks.iter().map(|mark| (mark.trace, mark.start))
    }

    /// How much is noted.
    pub(in crate::circuit) const fn len(&self) -> usize {
        self.marks.len()
    }

    /// A text tells that a breaker is open, which was taken for the one that a circuit has in this place.
    pub(in crate::circuit) fn seems_open(&mut self, told: &Told, place: (u32, u32)) {
        self.seemed = Some(Seemed { name: told.name.clone(), told: told.circuit, place });
    }

    /// What a text like this one was taken for last.
    pub(in crate::circuit) fn seemed_open(&self, told: &Told) -> Option<(u32, u32)> {
        self.seemed.as_ref().filter(|seemed| seemed.told == told.circuit && seemed.name == told.name).map(|seemed| seemed.place)
    }

    /// A breaker's name, if it is the one that was told last.
    pub(in crate::circuit) fn name_again(&self, name: &[u8]) -> Option<Arc<str>> {
        self.seemed.as_ref()?.name.as_ref().filter(|known| known.as_bytes() == name).cloned()
    }

    /// Whether a circuit is not closed in it, as of the last look.
    pub(in crate::circuit) fn is_restless(&self, circuit: u32) -> bool {
        self.restless.contains(&circuit)
    }

    /// Whether a trace is among those that are looked at.
    pub(in crate::circuit) const fn looks_at(&self, trace: u64) -> bool {
        trace.is_multiple_of(self.every)
    }

    /// Something happened then that is worth a closer look.
    pub(in crate::circuit) fn worth(&mut self, at: u64) {
        self.worth = self.worth.max(at);
    }

    /// Notes a span; `false` if there is no room for it. Of what goes wrong now and then only the latest is kept.
    pub(in crate::circuit) fn note(&mut self, mark: Mark) -> bool {
        if matches!(&mark.what, What::Told(_)) {
            self.worth(mark.end);
        }
        if !mark.is_of_every(self.every) {
            return true;
        }
        if !self.is_wide() {
            self.note_trouble(mark);
            return true;
        }
        if self.marks.len() >= MARKS_MAX && self.every < 1 << 20 {
            self.every *= 2;
            let every = self.every;
            self.marks.retain(|mark| mark.is_of_every(every));
        }
        let room = self.marks.len() < MARKS_ROOM;
        if room {
            self.marks.push(mark);
        }
        room
    }

    /// Keeps the latest things that went wrong.
    fn note_trouble(&mut self, mark: Mark) {
        self.worth(mark.end);
        if self.marks.len() < TROUBLE_MAX {
            self.marks.push(mark);
        } else if let Some(oldest) = self.marks.iter_mut().min_by_key(|mark| mark.end).filter(|oldest| oldest.end < mark.end) {
            *oldest = mark;
        }
    }

    /// What is due at this watermark, in order of ends. What comes later than that moves nothing any more; nor does what
    /// went well at a time of which not everything is known.
    pub(in crate::circuit) fn take_due(&mut self, watermark: u64) -> Vec<Mark> {
        if !self.is_wide() {
            return Vec::new();
        }
        let known_from = self.known_from();
        let due = |mark: &&Mark| (self.settled_to.saturating_add(1)..=watermark).contains(&mark.due()) && mark.tells(known_from);
        let mut due: Vec<Mark> = self.marks.iter().filter(due).cloned().collect();
        due.sort_by_key(Mark::rank);
        self.settled_to = self.settled_to.max(watermark);
        self.marks.sort_by_key(|mark| mark.trace);
        self.calls.clear();
        let calls = (0..).zip(&self.marks).filter(|(_, mark)| matches!(mark.what, What::Call { .. }));
        self.calls.extend(calls.map(|(number, _)| number));
        let marks = &self.marks;
        self.calls.sort_unstable_by_key(|number| marks.get(*number as usize).map(|mark| mark.end));
        due
    }

    fn of_trace(&self, trace: u64) -> impl Iterator<Item = &Mark> {
        let from = self.marks.partition_point(|mark| mark.trace < trace);
        self.marks.get(from..).unwrap_or_default().iter().take_while(move |mark| mark.trace == trace)
    }

    /// What happened within a root, once [`take_due`](Self::take_due) has put the marks in order.
    pub(in crate::circuit) fn unit(&self, root: &Mark) -> Unit {
        let within = |mark: &&Mark| mark.start >= root.start && mark.end <= root.end.saturating_add(HOLD);
        let mut unit = Unit::default();
        let mut inside: SmallVec<[&Mark; 8]> = self.of_trace(root.trace).filter(within).collect();
        inside.sort_by_key(|mark| mark.rank());
        for mark in inside {
            match &mark.what {
                What::Call { lane, route, bad, answered, .. } => {
                    let call = Through { start: mark.start, end: mark.end, bad: *bad, answered: *answered, operation: NO_OPERATION, route: *route };
                    unit.calls.push((*lane, call));
                }
                What::Told(told) if told.is_taken() => {}
                What::Told(told) => unit.tell(told),
                What::Root { .. } => {}
            }
        }
        unit.calls.sort_by_key(|(_, call)| call.start);
        // The same rejection with and without a name is the one with a name.
        if unit.told.len() > 1 {
            let is_named = |told: &Arc<Told>| told.name.is_some() && told.meaning != Meaning::NoBreaker;
            if unit.told.iter().any(is_named) {
                unit.told.retain(|told| told.name.is_some());
            }
        }
        unit
    }

    /// The root of this process that holds a span, and its operation; `None` if none does.
    pub(in crate::circuit) fn root_of(&self, inner: &Mark) -> Option<(&Mark, Option<u32>)> {
        self.of_trace(inner.trace).find_map(|mark| match mark.what {
            What::Root { operation, .. } if mark.start <= inner.start && inner.end <= mark.end.saturating_add(HOLD) => Some((mark, operation)),
            _ => None,
        })
    }

    /// Calls for these routes go through another breaker of the circuit.
    pub(in crate::circuit) fn split(&mut self, from: Lane, to: Lane, routes: &[Route]) {
        for mark in &mut self.marks {
            match &mut mark.what {
                What::Call { lane, route, .. } if *lane == from && routes.contains(route) => *lane = to,
                _ => {}
            }
        }
    }

    /// Looks at nothing whole that began before this time.
    pub(in crate::circuit) fn whole_from(&mut self, newest_end: u64) {
        self.whole_from = self.whole_from.max(newest_end);
    }

    /// Forgets a circuit that ended.
    pub(in crate::circuit) fn forget(&mut self, gone: u32) {
        self.seemed = None;
        self.marks.retain(|mark| match &mark.what {
            What::Call { lane, .. } => lane.circuit != gone,
            What::Told(told) => told.circuit != Some(gone),
            What::Root { .. } => true,
        });
    }

    /// One circuit became part of another.
    pub(in crate::circuit) fn replace(&mut self, old: u32, new: u32) {
        self.seemed = None;
        for mark in &mut self.marks {
            match &mut mark.what {
                What::Call { lane, .. } if lane.circuit == old => *lane = Lane::of(new),
                What::Told(told) if told.circuit == Some(old) => *told = Arc::new(told.moved(new)),
                _ => {}
            }
        }
    }

    /// When the last of the calls began that were under way then, as far as is known at the time when something that
    /// ended then is looked at: later ends may not have come yet.
    pub(in crate::circuit) fn in_flight(&self, wanted: Lane, start: u64, end: u64) -> Option<u64> {
        let known_from = self.known_from();
        let mark = |number: &u32| self.marks.get(*number as usize);
        let from = self.calls.partition_point(|number| mark(number).is_some_and(|mark| mark.end <= start));
        let later = self.calls.get(from..).unwrap_or_default().iter().filter_map(mark);
        let ended = later.take_while(|mark| mark.end <= end.saturating_add(HOLD));
        let is = |mark: &&Mark| mark.start < start && mark.tells(known_from) && matches!(mark.what, What::Call { lane, .. } if lane == wanted);
        ended.filter(is).map(|mark| mark.start).max()
    }

    /// Forgets what is old; `false` when there is nothing left to watch for.
    pub(in crate::circuit) fn goes_on(&mut self, watermark: u64) -> bool {
        self.calls.clear();
        let keep = if self.is_wide() { KEEP } else { TROUBLE_KEEP };
        self.marks.retain(|mark| mark.end.saturating_add(keep) > watermark);
        if !self.is_wide() {
            return !self.marks.is_empty();
        }
        if self.marks.is_empty() {
            (self.marks, self.calls) = (Vec::new(), Vec::new());
        }
        self.worth.saturating_add(CALM) > watermark
    }

    /// Bytes on the heap.
    pub(in crate::circuit) fn heap_bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>() + self.calls.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLI;

    fn call(end: u64, bad: bool) -> Mark {
        let what = What::Call { lane: Lane::of(0), route: Route::default(), bad, answered: false, telling: false, alone: false };
        Mark { start: end - MILLI, end, trace: end, what }
    }

    fn ends(due: &[Mark]) -> Vec<u64> {
        due.iter().map(|mark| mark.end / MILLI).collect()
    }

    #[test]
    fn what_went_well_before_everything_was_noted_tells_nothing() {
        // Two failures, after which everything is noted; some of what went well came before that, and was not.
        let well: Vec<Mark> = [9_200, 9_900, 10_300, 11_000, 11_400].map(|at| call(at * MILLI, false)).into();
        for before in 0..=3 {
            let mut watch = Watch::default();
            watch.note(call(10_000 * MILLI, true));
            watch.note(call(10_200 * MILLI, true));
            watch.widen(10_200 * MILLI, SECOND, 10_400 * MILLI);
            well.iter().skip(before).cloned().for_each(|mark| _ = watch.note(mark));
            assert_eq!(ends(&watch.take_due(20 * SECOND)), [10_000, 10_200, 11_400]);
        }
    }

    #[test]
    fn it_does_not_matter_which_of_what_went_wrong_came_first() {
        // The third thing that went wrong came before the second, or after.
        for order in [[10_000, 10_900, 11_300], [10_000, 11_300, 10_900]] {
            let mut watch = Watch::default();
            let mut before: Option<u64> = None;
            for end in order.map(|end| end * MILLI) {
                watch.note(call(end, true));
                if let Some(before) = before {
                    watch.widen(end.max(before), SECOND, 11_500 * MILLI);
                }
                before = Some(before.map_or(end, |before| before.min(end)));
            }
            watch.note(call(11_800 * MILLI, false));
            watch.note(call(12_000 * MILLI, false));
            assert!(watch.knows((11_950 * MILLI, 12_000 * MILLI), call(12_000 * MILLI, false).trace));
            assert_eq!(ends(&watch.take_due(20 * SECOND)), [10_000, 10_900, 11_300, 12_000]);
        }
    }

    #[test]
    fn of_what_goes_wrong_now_and_then_the_latest_is_kept_for_a_while() {
        let mut watch = Watch::default();
        (1..=50).rev().for_each(|second| _ = watch.note(call(second * SECOND, true)));
        assert_eq!(watch.marks.len(), TROUBLE_MAX);
        assert!(watch.take_due(100 * SECOND).is_empty());
        assert!(watch.goes_on(70 * SECOND));
        assert_eq!(watch.marks.iter().map(|mark| mark.end / SECOND).min(), Some(41));
        assert!(!watch.goes_on(81 * SECOND));
    }
}
