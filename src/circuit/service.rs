//! How callees are, over the circuits that call them, and how all is together.

use std::{collections::BTreeMap, sync::Arc};

use foldhash::quality::RandomState;
use hashbrown::{Equivalent, HashMap};

use super::{circuit::Circuit, finding::Status, key::is_address};

/// From this share of the calls on a status counts as it is; from the smaller one on, one step milder.
const MOST: f64 = 0.5;
const SOME: f64 = 0.1;

/// A status holds until its share is so much of what made it: calls move between circuits, and no alarm must begin anew for
/// that.
const HOLDS: f64 = 0.8;

/// What gets better must not have been as bad for so many nanoseconds.
const APART: u64 = 10_000_000_000;

/// A callee, and where it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Callee {
    /// `deployment.environment.name` of the callers; empty if not said.
    pub environment: Box<str>,
    /// Its name, as in `service.peer.name`.
    pub name: Box<str>,
}

/// A callee, to be looked up.
#[derive(Hash)]
struct Called<'a> {
    environment: &'a str,
    name: &'a str,
}

impl Equivalent<Arc<Callee>> for Called<'_> {
    fn equivalent(&self, callee: &Arc<Callee>) -> bool {
        (self.environment, self.name) == (&*callee.environment, &*callee.name)
    }
}

/// Whose health it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// That of all circuits together.
    Overall,
    /// A callee's.
    Callee(Arc<Callee>),
}

/// Circuits that lead to callees, in the shards of one `circuit_window`.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    callees: HashMap<Arc<Callee>, Tally, RandomState>,
    all: Tally,
}

impl Tallies {
    /// Counts a circuit; for its callee, too, if that is known.
    pub(super) fn add(&mut self, circuit: &Circuit, status: Status) {
        self.all.add(circuit, status);
        let key = circuit.key();
        // A bare address is nobody's name, and a database or a topic is no service.
        let is_named = key.kind.is_service() && (!key.address.is_empty() || key.port.is_none() && !is_address(key.text.as_bytes()));
        let Some(callee) = key.callee().filter(|_| is_named) else { return };
        let called = Called { environment: &key.caller.environment, name: &callee };
        if let Some(tally) = self.callees.get_mut(&called) {
            return tally.add(circuit, status);
        }
        let callee = Callee { environment: key.caller.environment.clone(), name: callee.into() };
        self.callees.entry(Arc::new(callee)).or_default().add(circuit, status);
    }

    /// Counts anew. Of callees that were counted the names are kept, since they will come again.
    pub(super) fn begin(&mut self) {
        self.callees.retain(|_, tally| tally.circuits > 0);
        self.callees.values_mut().chain([&mut self.all]).for_each(|tally| *tally = Tally::default());
    }

    /// Bytes it holds, itself left out.
    pub(super) fn bytes(&self) -> usize {
        let texts: usize = self.callees.keys().map(|callee| callee.environment.len() + callee.name.len()).sum();
        let counts = 2 * size_of::<usize>();
        self.callees.allocation_size() + self.callees.len() * (size_of::<Callee>() + counts) + texts
    }

    /// Adds what another shard counted.
    pub fn join(&mut self, other: &Self) {
        let counted = other.callees.iter().filter(|(_, tally)| tally.circuits > 0);
        counted.for_each(|(callee, tally)| self.callees.entry(Arc::clone(callee)).or_default().join(tally));
        self.all.join(&other.all);
    }

    /// Whether any circuit is counted for it.
    fn knows(&self, whose: &Whose) -> bool {
        match whose {
            Whose::Overall => self.all.circuits > 0,
            Whose::Callee(callee) => self.callees.get(callee).is_some_and(|tally| tally.circuits > 0),
        }
    }
}

/// Calls of the last windows by the status of the circuits they went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the order of [`Status::ALL`]; a circuit without calls weighs as one call.
    calls: [u64; Status::ALL.len()],
    /// Circuits whose breaker is open in some instance, and all of them.
    open: u32,
    circuits: u32,
}

/// The health of a callee, or of all together, changed.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceChange {
    /// When, in Unix nanoseconds.
    pub at: u64,
    /// Whose.
    pub whose: Whose,
    /// What it was.
    pub before: Status,
    /// What it is.
    pub after: Status,
    /// Why.
    pub tally: Tally,
}

impl Tally {
    /// Counts a circuit.
    pub(super) fn add(&mut self, circuit: &Circuit, status: Status) {
        let calls = circuit.window().total().requests().max(1);
        self.calls.get_mut(status as usize).into_iter().for_each(|all| *all = all.saturating_add(calls));
        self.open += u32::from(circuit.is_open());
        self.circuits += 1;
    }

    /// Adds what another shard counted.
    pub fn join(&mut self, other: &Self) {
        self.calls.iter_mut().zip(other.calls).for_each(|(all, more)| *all = all.saturating_add(more));
        (self.open, self.circuits) = (self.open + other.open, self.circuits + other.circuits);
    }

    /// How those are that these circuits lead to. What is unknown never outvotes what is known. One open breaker is worth
    /// a warning of its callee, but not of all together.
    pub fn status(&self, whose: &Whose) -> Status {
        self.status_from(whose, 1.0)
    }

    /// The same for those that were told to be so: it stays while the shares are not clearly smaller than what made it.
    fn status_after(&self, whose: &Whose, told: Status) -> Status {
        let now = self.status(whose);
        if now < told && now != Status::Unknown { self.status_from(whose, HOLDS).min(told) } else { now }
    }

    /// With shares of so much of those that make a status.
    fn status_from(&self, whose: &Whose, part: f64) -> Status {
        let [_, healthy, degraded, unhealthy] = self.calls;
        let known = healthy + degraded + unhealthy;
        if known == 0 {
            return Status::Unknown;
        }
        let share = |calls: u64| calls as f64 / known as f64;
        let (most, some) = (part * MOST, part * SOME);
        if share(unhealthy) >= most {
            Status::Unhealthy
        } else if share(unhealthy) >= some || share(degraded + unhealthy) >= most || self.open > 0 && *whose != Whose::Overall {
            Status::Degraded
        } else {
            Status::Healthy
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [unknown, healthy, degraded, unhealthy] = self.calls;
        let known = (healthy + degraded + unhealthy).max(1);
        let percent = |calls: u64| 100.0 * calls as f64 / known as f64;
        write!(f, "{:.0} % of the calls through unhealthy circuits, {:.0} % through degraded ones", percent(unhealthy), percent(degraded))?;
        if self.open > 0 {
            write!(f, "; open in {} of {} circuits", self.open, self.circuits)?;
        }
        if unknown > 0 { f.write_str("; circuits of which nothing is known are left out") } else { Ok(()) }
    }
}

/// How a callee is told to be.
#[derive(Clone, Copy, Debug)]
struct Known {
    status: Status,
    /// When it was last as bad as that.
    held: u64,
}

/// Whether anybody has to hear of a change: not of one between healthy and unknown.
fn is_news(before: Status, after: Status) -> bool {
    before != after && before.max(after) >= Status::Degraded
}

/// The callees that are known, and all together, and how each is.
#[derive(Debug, Default)]
pub struct Services {
    all: BTreeMap<Whose, Known>,
}

impl Services {
    /// Takes in what is counted now; gives what changed. Callees that no circuit leads to any more are forgotten.
    ///
    /// Each gets worse at once, and better when it was not as bad for ten seconds: circuits took their time already.
    pub fn take(&mut self, tallies: &Tallies, now: u64) -> Vec<ServiceChange> {
        let mut changes = Vec::new();
        self.all.retain(|whose, known| {
            let stays = tallies.knows(whose);
            if !stays && is_news(known.status, Status::Unknown) {
                let (whose, before) = (whose.clone(), known.status);
                changes.push(ServiceChange { at: now, whose, before, after: Status::Unknown, tally: Tally::default() });
            }
            stays
        });
        if tallies.knows(&Whose::Overall) {
            changes.extend(self.judge(Whose::Overall, &tallies.all, now));
        }
        for (callee, tally) in &tallies.callees {
            changes.extend(self.judge(Whose::Callee(Arc::clone(callee)), tally, now));
        }
        changes.sort_by(|one, other| one.whose.cmp(&other.whose));
        changes
    }

    fn judge(&mut self, whose: Whose, tally: &Tally, now: u64) -> Option<ServiceChange> {
        let known = self.all.entry(whose.clone()).or_insert(Known { status: Status::Unknown, held: now });
        let target = tally.status_after(&whose, known.status);
        if target >= known.status {
            known.held = now;
        }
        let news = is_news(known.status, target);
        // Circuits take their time to get better; it only must not waver.
        if target == known.status || target < known.status && news && now < known.held.saturating_add(APART) {
            return None;
        }
        let before = known.status;
        *known = Known { status: target, held: now };
        news.then_some(ServiceChange { at: now, whose, before, after: target, tally: *tally })
    }

    /// How all are that are known.
    pub fn holding(&self) -> BTreeMap<Whose, Status> {
        self.all.iter().map(|(whose, known)| (whose.clone(), known.status)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(healthy: u64, degraded: u64, unhealthy: u64, open: u32) -> Tally {
        Tally { calls: [7, healthy, degraded, unhealthy], open, circuits: 4 }
    }

    #[test]
    fn a_callee_is_as_most_of_its_calls_are() {
        for (counted, status) in [
            (tally(100, 0, 0, 0), Status::Healthy),
            (tally(100, 20, 0, 0), Status::Healthy),
            (tally(40, 60, 0, 0), Status::Degraded),
            (tally(80, 0, 20, 0), Status::Degraded),
            (tally(99, 0, 1, 0), Status::Healthy),
            (tally(99, 0, 1, 1), Status::Degraded),
            (tally(40, 0, 60, 0), Status::Unhealthy),
            (tally(0, 0, 0, 0), Status::Unknown),
        ] {
            let callee = Whose::Callee(Arc::new(Callee { environment: "".into(), name: "payments".into() }));
            assert_eq!(counted.status(&callee), status, "{counted:?}");
        }
    }

    #[test]
    fn what_is_not_counted_any_more_is_not_known_though_its_name_is_kept() {
        let callee = |name: &str| Arc::new(Callee { environment: "".into(), name: name.into() });
        let of = |names: &[&str]| names.iter().map(|name| (callee(name), tally(9, 0, 0, 0))).collect();
        let mut shard = Tallies { callees: of(&["pay", "stock"]), all: tally(9, 0, 0, 0) };
        shard.begin();
        assert!((shard.callees.len(), shard.all) == (2, Tally::default()) && shard.bytes() > 0);
        shard.callees.insert(callee("pay"), tally(5, 0, 0, 0));
        let mut all = Tallies { callees: of(&["pay"]), ..Tallies::default() };
        all.join(&shard);
        assert_eq!((all.callees.get(&callee("pay")), all.callees.len()), (Some(&Tally { calls: [14, 14, 0, 0], open: 0, circuits: 8 }), 1));
        shard.begin();
        assert_eq!(shard.callees.len(), 1);
    }

    #[test]
    fn changes_are_told_apart_and_what_is_called_no_more_is_unknown() {
        let callee = Arc::new(Callee { environment: "".into(), name: "payments".into() });
        let mut services = Services::default();
        let mut take = |counted: Option<Tally>, second: u64| {
            let tallies = Tallies { callees: counted.map(|counted| (callee.clone(), counted)).into_iter().collect(), all: Tally::default() };
            services.take(&tallies, second * 1_000_000_000).into_iter().map(|change| (change.before, change.after)).collect::<Vec<_>>()
        };
        use Status::{Healthy, Unhealthy, Unknown};
        assert_eq!(take(Some(tally(9, 0, 0, 0)), 1), [], "that is no news");
        assert_eq!(take(Some(tally(0, 0, 9, 1)), 20), [(Healthy, Unhealthy)]);
        // Its share wavers around a half.
        for second in 21..120 {
            assert_eq!(take(Some(if second % 2 == 0 { tally(51, 0, 49, 1) } else { tally(49, 0, 51, 1) }), second), []);
        }
        assert_eq!(take(Some(tally(0, 9, 0, 0)), 128), [], "bad nine seconds ago");
        assert_eq!(take(Some(tally(0, 9, 0, 0)), 129), [(Unhealthy, Status::Degraded)]);
        assert_eq!(take(Some(tally(0, 0, 9, 0)), 130), [(Status::Degraded, Unhealthy)]);
        assert_eq!(take(None, 190), [(Unhealthy, Unknown)]);
        assert_eq!(take(None, 191), []);
        assert_eq!(
            tally(0, 0, 9, 1).to_string(),
            "100 % of the calls through unhealthy circuits, 0 % through degraded ones; open in 1 of 4 circuits; circuits of which nothing is known are left out"
        );
    }

    #[test]
    fn calls_that_move_between_circuits_begin_no_alarm_anew() {
        let callee = Arc::new(Callee { environment: "".into(), name: "payments".into() });
        let mut services = Services::default();
        let mut changes = Vec::new();
        for second in 1..600 {
            // The share of the unhealthy circuit goes up and down slowly, around what makes its callee unhealthy.
            let unhealthy = match second {
                0..60 => 0,
                _ if second / 30 % 2 == 0 => 54,
                _ => 44,
            };
            let counted = tally(100 - unhealthy, 0, unhealthy, 0);
            let tallies = Tallies { callees: [(callee.clone(), counted)].into_iter().collect(), all: Tally::default() };
            changes.extend(services.take(&tallies, second * 1_000_000_000).into_iter().map(|change| (second, change.after)));
        }
        assert_eq!(changes, [(60, Status::Unhealthy)]);
    }

    #[test]
    fn all_together_are_as_most_calls_are_and_one_open_breaker_is_no_matter() {
        let callee = Arc::new(Callee { environment: "".into(), name: "payments".into() });
        let mut services = Services::default();
        let mut holding = |counted: Tally, all: Tally, second: u64| {
            let tallies = Tallies { callees: [(callee.clone(), counted)].into_iter().collect(), all };
            services.take(&tallies, second * 1_000_000_000);
            services.holding().into_values().collect::<Vec<_>>()
        };
        use Status::{Degraded, Healthy, Unhealthy};
        assert_eq!(holding(tally(99, 0, 1, 1), tally(999, 0, 1, 1), 1), [Healthy, Degraded]);
        assert_eq!(holding(tally(0, 0, 9, 4), tally(80, 0, 20, 4), 20), [Degraded, Unhealthy]);
        services.take(&Tallies::default(), 70_000_000_000);
        assert_eq!(services.holding().len(), 0);
    }

    proptest! {
        #[test]
        fn more_unhealthy_calls_make_no_callee_better(healthy in 0..1_000_u64, degraded in 0..1_000_u64, unhealthy in 0..1_000_u64, more in 0..1_000_u64) {
            prop_assume!(healthy + degraded + unhealthy > 0);
            let of = |unhealthy: u64| tally(healthy, degraded, unhealthy, 0).status(&Whose::Overall);
            prop_assert!(of(unhealthy + more) >= of(unhealthy));
        }
    }
}
