use std::collections::VecDeque;

use crate::circuit::{
    analysis::{
        clock_alignment::alignment,
        config::{PatternConfig, Sensitivity},
        flapping::Flapping,
        regularity::{Regularity, TRIPS_MAX, Verdict, regularity},
    },
    finding::{Certainty, Pattern, PatternKind, Phase, What},
};

const SECOND: u64 = 1_000_000_000;

/// A trip belongs to the incident before it for as long as that lasted after its end, and for so long at most.
const SAME_INCIDENT: u64 = 10 * SECOND;

/// A pattern is over when so many periods went by without a trip.
const MISSED_MAX: f64 = 3.5;

/// A burst: so many trips in ten minutes, if chance has them there less often than this.
const BURST_TRIPS: usize = 3;
const BURST_WITHIN: u64 = 600 * SECOND;
const BURST_CHANCE: f64 = 1e-4;

/// What a circuit's usual number of trips is taken from: a week; before an hour of it went by nothing is unusual. Less than
/// one a day is told as one.
const USUAL_MEMORY: f64 = 7.0 * 86_400.0;
const USUAL_FROM: u64 = 3_600 * SECOND;
const USUAL_MIN: f64 = 1.0 / 86_400.0;

/// At most how likely chance alone shows a verdict.
const POSSIBLE: f64 = 0.01;
const CERTAIN: f64 = 0.002;

/// When a circuit trips. All times are Unix nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    sensitivity: Sensitivity,
    /// The first trips of incidents, the newest ones, ascending.
    trips: VecDeque<u64>,
    /// The last incident: its beginning, and its end.
    incident: Option<(u64, Option<u64>)>,
    /// The shortest incident: no sooner does a breaker trip again.
    shortest: Option<u64>,
    flapping: Flapping,
    usual: Usual,
    /// Whether the look at the last trip found them regular.
    seen_before: bool,
    told: [Option<Pattern>; PatternKind::ALL.len()],
}

/// How often a circuit usually trips.
#[derive(Clone, Copy, Debug)]
struct Usual {
    since: u64,
    /// Trips a second, as of the last one.
    rate: f64,
    last: u64,
}

impl Patterns {
    /// Of a circuit that is looked at since then.
    pub(super) fn new(config: PatternConfig, since: u64) -> Self {
        let usual = Usual { since, rate: 0.0, last: since };
        let (trips, flapping) = (VecDeque::new(), Flapping::default());
        Self {
            sensitivity: config.sensitivity,
            trips,
            incident: None,
            shortest: None,
            flapping,
            usual,
            seen_before: false,
            told: [None; PatternKind::ALL.len()],
        }
    }

    /// An incident began with a trip.
    pub(super) fn begin(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        self.change(at, found);
        if let Some((began, ended)) = self.incident {
            let open = ended.map_or(0, |ended| ended.saturating_sub(began).min(SAME_INCIDENT));
            if ended.is_none_or(|ended| at < ended.saturating_add(open)) {
                self.incident = Some((began, None));
                return;
            }
        }
        // Dated back before one that was told: the order of both is unknown to all that follows.
        if self.trips.back().is_some_and(|last| *last >= at) {
            return;
        }
        self.incident = Some((at, None));
        self.look_for_burst(at, found);
        if self.trips.len() >= TRIPS_MAX {
            self.trips.pop_front();
        }
        self.trips.push_back(at);
        self.look_for_regularity(at, found);
        self.look_for_alignment(at, found);
    }

    /// The incident that went on ended.
    pub(super) fn end(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        self.change(at, found);
        if let Some((began, ended @ None)) = &mut self.incident {
            *ended = Some(at);
            let length = at.saturating_sub(*began);
            self.shortest = Some(self.shortest.map_or(length, |shortest| shortest.min(length)));
        }
    }

    /// Time went by: what did not go on is over.
    pub(super) fn pass(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        if self.flapping.flaps() && self.flapping.pass(now) {
            self.tell(PatternKind::Flapping, None, now, found);
        }
        for kind in [PatternKind::Regular, PatternKind::Aligned, PatternKind::Burst] {
            if let Some(over) = self.over(kind).filter(|over| *over <= now) {
                self.tell(kind, None, over, found);
            }
        }
    }

    /// When something will be over if nothing happens.
    pub(super) fn deadline(&self) -> Option<u64> {
        let over = PatternKind::ALL.into_iter().filter_map(|kind| self.over(kind)).min();
        let flaps = self.flapping.flaps().then(|| self.flapping.next_look());
        over.into_iter().chain(flaps).min()
    }

    /// What holds now.
    pub(super) fn open(&self) -> impl Iterator<Item = &Pattern> {
        self.told.iter().flatten()
    }

    /// Ends everything: nobody looks any more.
    pub(super) fn stop(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        PatternKind::ALL.into_iter().for_each(|kind| self.tell(kind, None, now, found));
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.trips.capacity() * size_of::<u64>()
    }

    /// When a pattern is over without another trip.
    fn over(&self, kind: PatternKind) -> Option<u64> {
        let pattern = self.told.get(kind as usize)?.as_ref()?;
        let last = *self.trips.back()?;
        match kind {
            PatternKind::Regular | PatternKind::Aligned => Some(last.saturating_add(nanos(pattern.period * MISSED_MAX))),
            PatternKind::Burst => Some(last.saturating_add(BURST_WITHIN)),
            PatternKind::Flapping => None,
        }
    }

    fn change(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        if self.flapping.change(at) {
            let flaps = self.flapping.flaps().then(|| {
                let (count, period) = self.lately(at, BURST_WITHIN);
                Pattern {
                    kind: PatternKind::Flapping,
                    certainty: Certainty::Certain,
                    count,
                    period,
                    jitter: None,
                    p_value: None,
                    next: None,
                    phase: None,
                }
            });
            self.tell(PatternKind::Flapping, flaps, at, found);
        }
    }

    fn look_for_regularity(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        let first = self.trips.front().copied().unwrap_or_default();
        let since_first: Vec<f64> = self.trips.iter().map(|trip| (trip - first) as f64 / 1e9).collect();
        let dead_time = self.shortest.unwrap_or_default() as f64 / 1e9;
        let pattern = regularity(&since_first, dead_time).and_then(|found| self.regular(at, &found));
        self.seen_before = pattern.is_some();
        self.tell(PatternKind::Regular, pattern, at, found);
    }

    fn regular(&self, at: u64, found: &Regularity) -> Option<Pattern> {
        // Certain is what the look before found, too: a new trip has verified it.
        let certainty = match found.verdict {
            Verdict::Irregular => return None,
            Verdict::Regular if self.seen_before => Certainty::Certain,
            Verdict::Possible | Verdict::Regular => Certainty::Possible,
        };
        let period = found.certain_period().unwrap_or(found.mean);
        Some(Pattern {
            kind: PatternKind::Regular,
            certainty,
            count: u32::try_from(self.trips.len()).unwrap_or(u32::MAX),
            period,
            jitter: Some(found.jitter * period),
            p_value: Some(if found.verdict == Verdict::Regular { CERTAIN } else { POSSIBLE }),
            next: found.certain_period().map(|period| at.saturating_add(nanos(period))),
            phase: None,
        })
    }

    fn look_for_alignment(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        let times: Vec<f64> = self.trips.iter().map(|trip| *trip as f64 / 1e9).collect();
        let pattern = alignment(&times).map(|aligned| {
            let period = f64::from(aligned.period);
            let next = (at as f64 / 1e9 - aligned.phase + period / 2.0).div_euclid(period) * period + aligned.phase + period;
            Pattern {
                kind: PatternKind::Aligned,
                // By chance less often than that, over all clocks together.
                certainty: Certainty::Certain,
                count: u32::try_from(times.len()).unwrap_or(u32::MAX),
                period,
                jitter: None,
                p_value: Some(aligned.p_value),
                next: Some(nanos(next)),
                phase: Some(aligned.phase),
            }
        });
        self.tell(PatternKind::Aligned, pattern, at, found);
    }

    /// Whether this trip is one of many in a short time, more than chance has there by what is usual.
    fn look_for_burst(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        let recent = 1 + self.trips.iter().filter(|trip| trip.saturating_add(BURST_WITHIN) > at).count();
        let usual = self.usual.rate_at(at) * (BURST_WITHIN as f64 / 1e9);
        let known = at.saturating_sub(self.usual.since) >= USUAL_FROM;
        let chance = at_least(recent, usual);
        if known && recent >= BURST_TRIPS && chance < BURST_CHANCE {
            let (_, period) = self.lately(at, BURST_WITHIN);
            let count = u32::try_from(recent).unwrap_or(u32::MAX);
            let pattern = Pattern {
                kind: PatternKind::Burst,
                certainty: Certainty::Certain,
                count,
                period,
                jitter: None,
                p_value: Some(chance),
                next: None,
                phase: None,
            };
            self.tell(PatternKind::Burst, Some(pattern), at, found);
        }
        // Those of a burst are not what is usual.
        if self.told.get(PatternKind::Burst as usize).is_none_or(Option::is_none) {
            self.usual.learn(at);
        }
    }

    /// Incidents that began lately, and the mean number of seconds between them.
    fn lately(&self, at: u64, within: u64) -> (u32, f64) {
        let recent: Vec<u64> = self.trips.iter().copied().filter(|trip| trip.saturating_add(within) > at).collect();
        let span = recent.last().zip(recent.first()).map_or(0, |(last, first)| last - first) as f64 / 1e9;
        (u32::try_from(recent.len()).unwrap_or(u32::MAX), span / (recent.len().saturating_sub(1).max(1)) as f64)
    }

    fn tell(&mut self, kind: PatternKind, now: Option<Pattern>, at: u64, found: &mut Vec<(u64, What)>) {
        let now = now.filter(|pattern| pattern.certainty == Certainty::Certain || self.sensitivity == Sensitivity::Normal);
        let Some(told) = self.told.get_mut(kind as usize) else { return };
        let news = match (&*told, &now) {
            (None, Some(pattern)) => Some(What::Pattern(Phase::Begin, *pattern)),
            (Some(before), Some(pattern)) if before.certainty != pattern.certainty => Some(What::Pattern(Phase::Change, *pattern)),
            (Some(before), None) => Some(What::Pattern(Phase::End, *before)),
            (Some(_), Some(_)) | (None, None) => None,
        };
        found.extend(news.map(|what| (at, what)));
        *told = now;
    }
}

impl Usual {
    fn rate_at(&self, at: u64) -> f64 {
        let passed = at.saturating_sub(self.last) as f64 / 1e9;
        (self.rate * (-passed / USUAL_MEMORY).exp()).max(USUAL_MIN)
    }

    /// Each trip weighs one over the memory; of a shorter past, one over that.
    fn learn(&mut self, at: u64) {
        let passed = at.saturating_sub(self.last) as f64 / 1e9;
        let known = at.saturating_sub(self.since) as f64 / 1e9;
        let memory = known.clamp(86_400.0, USUAL_MEMORY);
        self.rate = self.rate * (-passed / memory).exp() + 1.0 / memory;
        self.last = self.last.max(at);
    }
}

/// How likely chance has so many or more, where it has this many in the mean: the upper tail of Poisson's distribution.
fn at_least(count: usize, mean: f64) -> f64 {
    let mut term = (-mean).exp();
    let mut below = 0.0;
    for number in 0..count {
        below += term;
        term *= mean / (number + 1) as f64;
    }
    // Where the sum of the others leaves nothing, the next term is about all of it.
    (1.0 - below).max(term).clamp(0.0, 1.0)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).clamp(0.0, u64::MAX as f64 / 2.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000 * SECOND;

    /// Trips after so many seconds, each open for some; then quiet until this second. Gives second, phase and pattern.
    fn found(trips: &[f64], open: f64, until: f64) -> Vec<(f64, Phase, Pattern)> {
        let (mut patterns, mut found) = (Patterns::new(PatternConfig::default(), START), Vec::new());
        for trip in trips {
            let at = START + nanos(*trip);
            patterns.pass(at, &mut found);
            patterns.begin(at, &mut found);
            patterns.end(at + nanos(open), &mut found);
        }
        while let Some(deadline) = patterns.deadline().filter(|deadline| *deadline < START + nanos(until)) {
            patterns.pass(deadline, &mut found);
        }
        let seconds = |at: u64| (at - START) as f64 / 1e9;
        found
            .into_iter()
            .map(|(at, what)| if let What::Pattern(phase, pattern) = what { (seconds(at), phase, pattern) } else { panic!("{what:?}") })
            .collect()
    }

    fn of(found: &[(f64, Phase, Pattern)], kind: PatternKind) -> Vec<(f64, Phase, Pattern)> {
        found.iter().copied().filter(|(.., pattern)| pattern.kind == kind).collect()
    }

    #[test]
    fn regular_trips_are_possible_then_certain_and_gone_when_they_stop() {
        let trips: Vec<f64> = [0.0, 604.0, 1_190.0, 1_800.0, 2_405.0, 2_996.0, 3_600.0, 4_203.0, 4_798.0].to_vec();
        let found = of(&found(&trips, 20.0, 20_000.0), PatternKind::Regular);
        assert!(found.len() >= 2, "{found:?}");
        let (begin, Phase::Begin, first) = found[0] else { panic!("{found:?}") };
        assert!((2_405.0..=4_203.0).contains(&begin) && (first.period - 600.0).abs() < 15.0, "{found:?}");
        let (end, Phase::End, last) = found[found.len() - 1] else { panic!("{found:?}") };
        assert_eq!(last.certainty, Certainty::Certain);
        assert!((end - (4_798.0 + MISSED_MAX * last.period)).abs() < 1.0, "{end}");
        let next = last.next.map(|next| (next - START) as f64 / 1e9).unwrap();
        assert!((next - 5_398.0).abs() < 15.0, "{next}");
    }

    #[test]
    fn trips_of_one_incident_count_once() {
        // Recovered for four seconds, then open again: the same incident.
        let mut trips: Vec<f64> = Vec::new();
        (0..9).for_each(|round| trips.extend([f64::from(round) * 300.0, f64::from(round) * 300.0 + 9.0]));
        let found = of(&found(&trips, 5.0, 4_000.0), PatternKind::Regular);
        let (.., pattern) = found[0];
        assert!((pattern.period - 300.0).abs() < 1.0, "{found:?}");
    }

    #[test]
    fn each_hour_is_aligned_and_random_trips_are_nothing() {
        let hourly: Vec<f64> = (0..9).map(|hour| f64::from(hour) * 3_600.0 + f64::from(hour % 3)).collect();
        let aligned = of(&found(&hourly, 20.0, 1e6), PatternKind::Aligned);
        let (_, Phase::Begin, pattern) = aligned[0] else { panic!("{aligned:?}") };
        assert_eq!((pattern.period, aligned.len()), (3_600.0, 2), "{aligned:?}");
        let random = [10.0, 4_000.0, 4_900.0, 21_000.0, 22_500.0, 61_000.0, 90_000.0, 93_000.0];
        assert_eq!(found(&random, 20.0, 1e6), []);
    }

    #[test]
    fn many_trips_at_once_are_a_burst_only_where_few_are_usual() {
        let quiet_then_many = [100.0, 40_000.0, 40_100.0, 40_250.0, 40_300.0];
        let burst = of(&found(&quiet_then_many, 10.0, 1e5), PatternKind::Burst);
        let [(begin, Phase::Begin, pattern), (end, Phase::End, _)] = burst[..] else { panic!("{burst:?}") };
        assert_eq!((begin, end, pattern.count), (40_250.0, 40_300.0 + 600.0, 3));
        assert!(of(&found(&[100.0, 200.0, 300.0, 400.0], 10.0, 1e5), PatternKind::Burst).is_empty(), "nothing is usual yet");
    }

    #[test]
    fn what_opens_and_closes_all_the_time_flaps() {
        let trips: Vec<f64> = (0..10).map(|round| f64::from(round) * 47.0 + f64::from(round * round % 7)).collect();
        let flapping = of(&found(&trips, 20.0, 1e4), PatternKind::Flapping);
        let [(begin, Phase::Begin, _), (end, Phase::End, _)] = flapping[..] else { panic!("{flapping:?}") };
        assert!((100.0..400.0).contains(&begin) && (500.0..1_200.0).contains(&end), "{begin} {end}");
    }

    #[test]
    fn chance_has_three_where_one_is_usual_one_time_in_twelve() {
        assert!((at_least(3, 1.0) - 0.080_301).abs() < 1e-6);
        assert!((at_least(3, 0.007) / 5.7e-8 - 1.0).abs() < 0.02);
        assert_eq!(at_least(0, 5.0), 1.0);
    }
}
