//! Circuits that open soon after others, more often than chance has it.
//!
//! Of a circuit's incidents in a day so many begin within ten seconds of one of another's. If the two had nothing to do with
//! each other that number would be distributed binomially, with the share of the day that lies within ten seconds of one of
//! the other's. As many pairs are looked at, the level is divided by their number (Bonferroni). Incidents of many circuits
//! at a time are one outage, and are taken out first: they would make a pair of any two.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{event::IncidentId, key::CircuitKey};

const SECOND: u64 = 1_000_000_000;

/// How long incidents are remembered.
const MEMORY: u64 = 86_400 * SECOND;

/// A past that is shorter counts as this.
const KNOWN_MIN: u64 = 3_600 * SECOND;

/// What begins so soon after another one may follow from it.
const SOON: u64 = 10 * SECOND;

/// Incidents of one circuit that are closer together are one.
const SAME: u64 = 120 * SECOND;

/// A shared outage: so many circuits, and this share of those that are known, within this time.
const SHARED_MIN: usize = 3;
const SHARED: f64 = 0.2;
const SHARED_WITHIN: u64 = 20 * SECOND;

/// Incidents that must have followed.
const FOLLOWED_MIN: usize = 3;

/// How likely chance may make any pair, all of them together.
const CHANCE: f64 = 0.01;

/// Circuits whose incidents are remembered, and incidents of each; the oldest are forgotten first.
const CIRCUITS_MAX: usize = 1_000;
const INCIDENTS_MAX: usize = 64;

/// The incidents of the last day.
#[derive(Debug, Default)]
pub struct Cascades {
    incidents: BTreeMap<Arc<CircuitKey>, VecDeque<Incident>>,
    told: BTreeMap<(Arc<CircuitKey>, Arc<CircuitKey>), Cascade>,
    /// When the last shared outage was told.
    shared: Option<u64>,
    /// When the first incident of all began.
    since: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Incident {
    id: IncidentId,
    at: u64,
    /// Whether it was one of many at a time.
    is_shared: bool,
}

/// What incidents of several circuits have to do with each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Together {
    /// One opens soon after another, from now on; or no longer.
    Cascade {
        /// Whether it begins; else it ends.
        begins: bool,
        /// Which.
        cascade: Cascade,
    },
    /// Many opened at a time.
    Outage {
        /// When the first of them did, in Unix nanoseconds.
        at: u64,
        /// How many, and how many are known.
        circuits: usize,
        /// Of so many.
        of: usize,
    },
}

/// A circuit that opens soon after another.
#[derive(Clone, Debug, PartialEq)]
pub struct Cascade {
    /// When that was found, in Unix nanoseconds.
    pub at: u64,
    /// Which opens first.
    pub first: Arc<CircuitKey>,
    /// Which follows.
    pub then: Arc<CircuitKey>,
    /// How many of its incidents in a day followed.
    pub followed: usize,
    /// Of how many.
    pub of: usize,
    /// At most how likely chance alone shows as much.
    pub p_value: f64,
}

impl Together {
    /// When it was found, or began, in Unix nanoseconds.
    pub const fn at(&self) -> u64 {
        match self {
            Self::Cascade { cascade, .. } => cascade.at,
            Self::Outage { at, .. } => *at,
        }
    }

    /// `circuit_breaker.pattern`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cascade { .. } => "cascade",
            Self::Outage { .. } => "outage",
        }
    }

    /// The phase of its event.
    pub const fn phase(&self) -> &'static str {
        match self {
            Self::Cascade { begins: false, .. } => "end",
            Self::Cascade { begins: true, .. } | Self::Outage { .. } => "begin",
        }
    }
}

impl Cascades {
    /// A circuit tripped in an incident, of as many circuits as are known; only the first trip of an incident counts. Times
    /// are to ascend; one that lies before what is known of its circuit is left out.
    pub fn take(&mut self, circuit: &Arc<CircuitKey>, (id, at): (IncidentId, u64), circuits: usize) -> Vec<Together> {
        self.forget(at);
        self.since.get_or_insert(at);
        let mine = self.incidents.entry(Arc::clone(circuit)).or_default();
        if mine.back().is_some_and(|last| last.id == id || last.at.saturating_add(SAME) > at) {
            return Vec::new();
        }
        if mine.len() >= INCIDENTS_MAX {
            mine.pop_front();
        }
        mine.push_back(Incident { id, at, is_shared: false });
        self.make_room();
        let mut found: Vec<Together> = self.shared_outage(at, circuits).into_iter().collect();
        if found.is_empty() && !self.incidents.get(circuit).and_then(VecDeque::back).is_some_and(|last| last.is_shared) {
            found.extend(self.followed(circuit, at));
        }
        found
    }

    /// Time went by: what was found in incidents that are forgotten holds no longer.
    pub fn pass(&mut self, now: u64) -> Vec<Together> {
        self.forget(now);
        let over: Vec<_> = self.told.iter().filter(|(_, told)| told.at.saturating_add(MEMORY) <= now).map(|(pair, _)| pair.clone()).collect();
        let end = |pair| self.told.remove(&pair).map(|cascade| Together::Cascade { begins: false, cascade: Cascade { at: now, ..cascade } });
        over.into_iter().filter_map(end).collect()
    }

    /// Cascades that hold.
    pub fn told(&self) -> impl Iterator<Item = &Cascade> {
        self.told.values()
    }

    fn forget(&mut self, now: u64) {
        self.incidents.retain(|_, incidents| {
            while incidents.front().is_some_and(|first| first.at.saturating_add(MEMORY) < now) {
                incidents.pop_front();
            }
            !incidents.is_empty()
        });
    }

    fn make_room(&mut self) {
        if self.incidents.len() > CIRCUITS_MAX
            && let Some(quiet) =
                self.incidents.iter().min_by_key(|(_, incidents)| incidents.back().map(|last| last.at)).map(|(key, _)| Arc::clone(key))
        {
            self.incidents.remove(&quiet);
        }
    }

    /// Marks the incidents that began about now as shared, if they are of so many circuits.
    fn shared_outage(&mut self, at: u64, circuits: usize) -> Option<Together> {
        let recent = |incident: &&mut Incident| incident.at.saturating_add(SHARED_WITHIN) > at && incident.at <= at;
        let mut now: Vec<&mut Incident> = self.incidents.values_mut().filter_map(VecDeque::back_mut).filter(recent).collect();
        if now.len() < SHARED_MIN || (now.len() as f64) < SHARED * circuits as f64 {
            return None;
        }
        let first = now.iter().map(|incident| incident.at).min().unwrap_or(at);
        now.iter_mut().for_each(|incident| incident.is_shared = true);
        let (count, is_new) = (now.len(), self.shared.is_none_or(|last| last.saturating_add(SHARED_WITHIN) < at));
        self.shared = Some(at);
        is_new.then_some(Together::Outage { at: first, circuits: count, of: circuits.max(count) })
    }

    /// What this circuit followed too often.
    fn followed(&mut self, then: &Arc<CircuitKey>, at: u64) -> Vec<Together> {
        let own = |incidents: &VecDeque<Incident>| {
            incidents.iter().filter(|incident| !incident.is_shared).map(|incident| incident.at).collect::<Vec<u64>>()
        };
        let mine = self.incidents.get(then).map(own).unwrap_or_default();
        let others = self.incidents.len().saturating_sub(1);
        let pairs = (self.incidents.len() * others).max(1) as f64;
        // Of a shorter past, the share of that.
        let known = at.saturating_sub(self.since.unwrap_or(at)).clamp(KNOWN_MIN, MEMORY);
        let mut found = Vec::new();
        for (first, theirs) in self.incidents.iter().filter(|(first, _)| *first != then) {
            let theirs = own(theirs);
            // Those that begin before an incident of mine, and soon.
            let follows = |mine: &&u64| theirs.iter().any(|their| their < *mine && their.saturating_add(SOON) >= **mine);
            let followed = mine.iter().filter(follows).count();
            let pair = (Arc::clone(first), Arc::clone(then));
            let share = covered(&theirs, at) as f64 / known as f64;
            let p_value = (at_least(followed, mine.len(), share) * pairs).min(1.0);
            let holds = followed >= FOLLOWED_MIN && p_value < CHANCE;
            let cascade = Cascade { at, first: Arc::clone(first), then: Arc::clone(then), followed, of: mine.len(), p_value };
            match (self.told.get_mut(&pair), holds) {
                (Some(told), true) => *told = cascade,
                (None, true) => {
                    self.told.insert(pair, cascade.clone());
                    found.push(Together::Cascade { begins: true, cascade });
                }
                (Some(_), false) => {
                    self.told.remove(&pair);
                    found.push(Together::Cascade { begins: false, cascade });
                }
                (None, false) => {}
            }
        }
        found
    }
}

/// How much time lies within so long of one of these, which ascend.
fn covered(times: &[u64], now: u64) -> u64 {
    let next = times.iter().skip(1).copied().chain([now.max(times.last().copied().unwrap_or_default()).saturating_add(SOON)]);
    times.iter().zip(next).map(|(at, next)| next.saturating_sub(*at).min(SOON)).sum()
}

/// How likely chance has so many or more of all, where each has this share: the upper tail of the binomial distribution.
fn at_least(count: usize, all: usize, share: f64) -> f64 {
    if count == 0 {
        return 1.0;
    }
    if share <= 0.0 {
        return 0.0;
    }
    let share = share.min(1.0 - 1e-12);
    // From the term for `count` on, each from the one before; logarithms keep the first one from vanishing.
    let choose: f64 = (0..count).map(|at| ((all - at) as f64 / (at + 1) as f64).ln()).sum();
    let mut term = (choose + count as f64 * share.ln() + (all - count) as f64 * (1.0 - share).ln()).exp();
    let mut sum = 0.0;
    for number in count..=all {
        sum += term;
        term *= (all - number) as f64 / (number + 1) as f64 * share / (1.0 - share);
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::circuit::{key::Caller, testing::START};

    fn circuit(name: &str) -> Arc<CircuitKey> {
        let caller = Arc::new(Caller { service: "shop".into(), ..Caller::default() });
        Arc::new(CircuitKey { caller, text: name.into(), ..CircuitKey::default() })
    }

    /// Incidents after so many seconds, in order of time, of twenty circuits.
    fn found(mut incidents: Vec<(u64, String)>) -> Vec<Together> {
        incidents.sort();
        let mut cascades = Cascades::default();
        incidents.iter().flat_map(|(at, name)| cascades.take(&circuit(name), (IncidentId(*at), START + at * SECOND), 20)).collect()
    }

    #[test]
    fn what_follows_again_and_again_is_a_cascade_and_ends_when_it_no_longer_does() {
        let mut incidents = Vec::new();
        for hour in 0..8 {
            incidents.push((hour * 3_600, "stock".to_owned()));
            // It follows after some seconds, most of the time.
            if hour % 4 != 3 {
                incidents.push((hour * 3_600 + 4, "orders".to_owned()));
            }
            incidents.push((hour * 3_600 + 1_800, "mail".to_owned()));
        }
        let found = found(incidents);
        let [Together::Cascade { begins: true, cascade }] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&*cascade.first.text, &*cascade.then.text, cascade.followed), ("stock", "orders", 3));
        assert!(cascade.p_value < 1e-6, "{cascade:?}");
        let mut cascades = Cascades::default();
        for hour in 0..4 {
            for late in [0, 200] {
                // Another instance trips in the same incident: it counts once.
                cascades.take(&circuit("stock"), (IncidentId(hour), START + (hour * 3_600 + late) * SECOND), 20);
            }
            cascades.take(&circuit("orders"), (IncidentId(hour), START + (hour * 3_600 + 203) * SECOND), 20);
            cascades.take(&circuit("mail"), (IncidentId(hour), START + (hour * 3_600 + 1_000) * SECOND), 20);
            cascades.take(&circuit("search"), (IncidentId(hour), START + (hour * 3_600 + 1_003) * SECOND), 20);
        }
        let told: Vec<&str> = cascades.told().map(|told| &*told.then.text).collect();
        assert_eq!(told, ["search"], "orders open three minutes after the incident of stock began");
        assert_eq!(cascades.pass(START + 12 * 3_600 * SECOND), []);
        let over = cascades.pass(START + 30 * 3_600 * SECOND);
        assert!(matches!(over[..], [Together::Cascade { begins: false, .. }]) && cascades.told().count() == 0, "{over:?}");
    }

    #[test]
    fn what_opens_at_one_time_is_an_outage_and_no_cascade() {
        let names = ["a", "b", "c", "d", "e"];
        let outages = (0..6).flat_map(|hour| names.iter().zip(0..).map(move |(name, late)| (hour * 3_600 + late, (*name).to_owned()))).collect();
        let found = found(outages);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found.iter().all(|one| matches!(one, Together::Outage { circuits: 4, of: 20, .. })), "{found:?}");
    }

    #[test]
    fn chance_and_flapping_are_nothing() {
        let mut random = 7_u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % 86_400
        };
        let mut incidents: Vec<(u64, String)> = (0..20).flat_map(|name| (0..10).map(move |_| name)).map(|name| (next(), name.to_string())).collect();
        // Two that flap.
        incidents.extend((0..200).flat_map(|at| [(at * 30, "x".to_owned()), (at * 30 + 7, "y".to_owned())]));
        let found = found(incidents);
        let pairs: Vec<&Together> = found.iter().filter(|one| matches!(one, Together::Cascade { begins: true, .. })).collect();
        // The two do follow each other, every two minutes.
        assert!(pairs.iter().all(|one| matches!(one, Together::Cascade { cascade, .. } if ["x", "y"].contains(&&*cascade.then.text) && ["x", "y"].contains(&&*cascade.first.text))), "{pairs:?}");
    }

    #[test]
    fn tails_are_those_of_the_binomial_distribution() {
        // 1 - 0.9^5, and 10 * 0.1^3 * 0.9^2 + 5 * 0.1^4 * 0.9 + 0.1^5.
        assert!((at_least(1, 5, 0.1) - 0.409_51).abs() < 1e-9);
        assert!((at_least(3, 5, 0.1) - 0.008_56).abs() < 1e-9);
        assert!((at_least(64, 64, 1e-4) / 1e-256 - 1.0).abs() < 1e-6 && (at_least(0, 0, 0.5) - 1.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn hostile_times_and_many_circuits_are_bounded(seen in prop::collection::vec((any::<u64>(), 0_u16..2_000), 1..300)) {
            let mut cascades = Cascades::default();
            for (at, name) in seen {
                for together in cascades.take(&circuit(&name.to_string()), (IncidentId(at), at), 5) {
                    if let Together::Cascade { cascade, .. } = together {
                        prop_assert!(cascade.p_value.is_finite() && cascade.followed <= cascade.of);
                    }
                }
                prop_assert!(cascades.incidents.len() <= CIRCUITS_MAX);
            }
            cascades.pass(u64::MAX);
        }
    }
}
