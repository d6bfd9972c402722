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

/// What a circuit's usual number of trips is taken from: a week; before an hour of it went by nothing is unusual. Fewer than
/// one a day count as one.
const USUAL_MEMORY: f64 = 7.0 * 86_400.0;
const USUAL_FROM: f64 = 3_600.0;
const USUAL_MIN: f64 = 1.0 / 86_400.0;

/// A burst that goes on for so long is the usual from then on.
const BURST_ACCEPTED: u64 = 1_800 * SECOND;

/// At most how likely chance alone shows a verdict.
const POSSIBLE: f64 = 0.01;
const CERTAIN: f64 = 0.002;

/// When a circuit trips, of which most never do. All times are Unix nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    config: PatternConfig,
    /// When it was looked at first.
    since: u64,
    /// From the first time on that it tripped, or was seen to recover.
    trips: Option<Box<Trips>>,
}

/// The trips of a circuit, and what they look like.
#[derive(Clone, Debug)]
struct Trips {
    sensitivity: Sensitivity,
    /// The newest incidents, by their first trips ascending.
    incidents: VecDeque<Incident>,
    flapping: Flapping,
    usual: Usual,
    /// Whether the look at the last trip found them regular.
    seen_before: bool,
    burst_since: u64,
    told: [Option<Pattern>; PatternKind::ALL.len()],
}

/// From the first trip until a breaker is closed again in every instance.
#[derive(Clone, Copy, Debug)]
struct Incident {
    began: u64,
    ended: Option<u64>,
}

impl Incident {
    /// When no trip belongs to it any more; `None` while it goes on.
    fn over(self) -> Option<u64> {
        let ended = self.ended?;
        Some(ended.saturating_add(ended.saturating_sub(self.began).min(SAME_INCIDENT)))
    }
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
    pub(super) const fn new(config: PatternConfig, since: u64) -> Self {
        Self { config, since, trips: None }
    }

    /// An incident began with a trip.
    pub(super) fn begin(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        self.trips().begin(at, found);
    }

    /// The incident that went on ended.
    pub(super) fn end(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        self.trips().end(at, found);
    }

    /// Time went by: what did not go on is over.
    pub(super) fn pass(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        self.trips.iter_mut().for_each(|trips| trips.pass(now, found));
    }

    /// When something will be over if nothing happens.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.trips.as_ref().and_then(|trips| trips.deadline())
    }

    /// What holds now.
    pub(super) fn open(&self) -> impl Iterator<Item = &Pattern> {
        self.trips.iter().flat_map(|trips| trips.told.iter().flatten())
    }

    /// Ends everything: nobody looks any more.
    pub(super) fn stop(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        let told = self.trips.iter_mut().flat_map(|trips| trips.told.iter_mut().filter_map(Option::take));
        found.extend(told.map(|pattern| (now, What::Pattern(Phase::Stopped, pattern))));
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.trips.as_ref().map_or(0, |trips| size_of::<Trips>() + trips.incidents.capacity() * size_of::<Incident>())
    }

    fn trips(&mut self) -> &mut Trips {
        let (config, since) = (self.config, self.since);
        self.trips.get_or_insert_with(|| Box::new(Trips::new(config, since)))
    }
}

impl Trips {
    fn new(config: PatternConfig, since: u64) -> Self {
        let usual = Usual { since, rate: 0.0, last: since };
        let (incidents, flapping) = (VecDeque::new(), Flapping::default());
        let (seen_before, burst_since, told) = (false, 0, [None; PatternKind::ALL.len()]);
        Self { sensitivity: config.sensitivity, incidents, flapping, usual, seen_before, burst_since, told }
    }

    fn begin(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        self.change(at, found);
        if let Some(last) = self.incidents.back_mut() {
            if last.over().is_none_or(|over| at < over) {
                last.ended = None;
                return;
            }
            // Dated back before one that was told: the order of both is unknown to all that follows.
            if last.began >= at {
                return;
            }
        }
        if self.incidents.len() >= TRIPS_MAX {
            self.incidents.pop_front();
        }
        self.incidents.push_back(Incident { began: at, ended: None });
        self.look_for_burst(at, found);
        self.look_for_regularity(at, found);
        self.look_for_alignment(at, found);
    }

    fn end(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        self.change(at, found);
        if let Some(Incident { ended: ended @ None, .. }) = self.incidents.back_mut() {
            *ended = Some(at);
        }
    }

    fn pass(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        if self.flapping.flaps() && self.flapping.pass(now) {
            self.tell(PatternKind::Flapping, None, now, found);
        }
        for kind in [PatternKind::Regular, PatternKind::Aligned, PatternKind::Burst] {
            if let Some(over) = self.over(kind).filter(|over| *over <= now) {
                self.tell(kind, None, over, found);
            }
        }
        // One that was missed is not expected any more.
        for Pattern { next, period, .. } in self.told.iter_mut().flatten() {
            if let (Some(next), Some(period)) = (next, period.map(nanos).filter(|period| *period > 0)) {
                *next += now.saturating_sub(*next).div_ceil(period) * period;
            }
        }
    }

    fn deadline(&self) -> Option<u64> {
        let over = PatternKind::ALL.into_iter().filter_map(|kind| self.over(kind)).min();
        let flaps = self.flapping.flaps().then(|| self.flapping.next_look());
        over.into_iter().chain(flaps).min()
    }

    /// When a pattern is over without another trip.
    fn over(&self, kind: PatternKind) -> Option<u64> {
        let pattern = self.told.get(kind as usize)?.as_ref()?;
        let last = self.incidents.back()?.began;
        match kind {
            PatternKind::Regular | PatternKind::Aligned => Some(last.saturating_add(nanos(pattern.period? * MISSED_MAX))),
            PatternKind::Burst => Some(last.saturating_add(BURST_WITHIN)),
            PatternKind::Flapping => None,
        }
    }

    fn change(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        if self.flapping.change(at) {
            let count = self.flapping.changes();
            let lately: Vec<u64> = self.began().filter(|began| began.saturating_add(BURST_WITHIN) > at).collect();
            let span = lately.first().zip(lately.last()).map(|(first, last)| (last - first) as f64 / 1e9);
            let period = span.filter(|_| lately.len() > 1).map(|span| span / (lately.len() - 1) as f64);
            let flaps = self.flapping.flaps().then(|| Pattern { count, period, ..pattern(PatternKind::Flapping) });
            self.tell(PatternKind::Flapping, flaps, at, found);
        }
    }

    fn began(&self) -> impl Iterator<Item = u64> {
        self.incidents.iter().map(|incident| incident.began)
    }

    fn look_for_regularity(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        let first = self.began().next().unwrap_or_default();
        let since_first: Vec<f64> = self.began().map(|began| (began - first) as f64 / 1e9).collect();
        // No sooner is a trip one of another incident: the breaker waits in open, and what comes soon after belongs to it.
        let dead_times = self.incidents.iter().filter_map(|incident| Some(incident.over()?.saturating_sub(incident.began)));
        let dead_time = dead_times.min().unwrap_or_default();
        let pattern = regularity(&since_first, dead_time as f64 / 1e9).and_then(|found| self.regular(at, &found));
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
            count: u32::try_from(self.incidents.len()).unwrap_or(u32::MAX),
            period: Some(period),
            jitter: Some(found.jitter * period),
            p_value: Some(if found.verdict == Verdict::Regular { CERTAIN } else { POSSIBLE }),
            next: found.certain_period().map(|period| at.saturating_add(nanos(period))),
            phase: None,
        })
    }

    fn look_for_alignment(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        let times: Vec<f64> = self.began().map(|began| began as f64 / 1e9).collect();
        let pattern = alignment(&times).map(|aligned| {
            let period = f64::from(aligned.period);
            let next = (at as f64 / 1e9 - aligned.phase + period / 2.0).div_euclid(period) * period + aligned.phase + period;
            Pattern {
                count: u32::try_from(times.len()).unwrap_or(u32::MAX),
                period: Some(period),
                p_value: Some(aligned.p_value),
                next: Some(nanos(next)),
                phase: Some(aligned.phase),
                ..pattern(PatternKind::Aligned)
            }
        });
        self.tell(PatternKind::Aligned, pattern, at, found);
    }

    /// Whether this trip is one of many in a short time, more than chance has there by what is usual.
    fn look_for_burst(&mut self, at: u64, found: &mut Vec<(u64, What)>) {
        let recent: Vec<u64> = self.began().filter(|began| began.saturating_add(BURST_WITHIN) > at).collect();
        let usual = self.usual.rate_at(at) * (BURST_WITHIN as f64 / 1e9);
        let chance = at_least(recent.len(), usual);
        let holds = self.told.get(PatternKind::Burst as usize).is_some_and(Option::is_some);
        if self.usual.is_known(at) && recent.len() >= BURST_TRIPS && chance < BURST_CHANCE {
            self.burst_since = if holds { self.burst_since } else { at };
            let span = recent.last().zip(recent.first()).map_or(0, |(last, first)| last - first) as f64 / 1e9;
            let count = u32::try_from(recent.len()).unwrap_or(u32::MAX);
            let period = Some(span / (recent.len() - 1) as f64);
            let burst = Pattern { count, period, p_value: Some(chance), ..pattern(PatternKind::Burst) };
            self.tell(PatternKind::Burst, Some(burst), at, found);
        }
        // Those of a burst are not what is usual, unless it goes on for long: then nothing else is.
        if self.told.get(PatternKind::Burst as usize).is_none_or(Option::is_none) {
            self.usual.learn(at);
        } else if at.saturating_sub(self.burst_since) >= BURST_ACCEPTED {
            self.tell(PatternKind::Burst, None, at, found);
            self.usual = Usual { since: self.burst_since, rate: recent.len() as f64 / (BURST_WITHIN as f64 / 1e9), last: at };
        }
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

/// One of this kind, of which nothing more is known.
const fn pattern(kind: PatternKind) -> Pattern {
    Pattern { kind, certainty: Certainty::Certain, count: 0, period: None, jitter: None, p_value: None, next: None, phase: None }
}

impl Usual {
    fn is_known(&self, at: u64) -> bool {
        at.saturating_sub(self.since) as f64 / 1e9 >= USUAL_FROM
    }

    /// Trips over seconds, of the time that is remembered.
    fn memory(&self, at: u64) -> f64 {
        (at.saturating_sub(self.since) as f64 / 1e9).clamp(1.0, USUAL_MEMORY)
    }

    fn kept(&self, at: u64) -> f64 {
        let passed = at.saturating_sub(self.last) as f64 / 1e9;
        self.rate * (1.0 - passed / self.memory(at)).max(0.0)
    }

    fn rate_at(&self, at: u64) -> f64 {
        self.kept(at).max(USUAL_MIN)
    }

    /// Of a past shorter than is remembered it is all trips over all of it.
    fn learn(&mut self, at: u64) {
        self.rate = self.kept(at) + 1.0 / self.memory(at);
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
        assert!((2_405.0..=4_203.0).contains(&begin) && (first.period.unwrap() - 600.0).abs() < 15.0, "{found:?}");
        let (end, Phase::End, last) = found[found.len() - 1] else { panic!("{found:?}") };
        assert_eq!(last.certainty, Certainty::Certain);
        assert!((end - (4_798.0 + MISSED_MAX * last.period.unwrap())).abs() < 1.0, "{end}");
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
        assert!((pattern.period.unwrap() - 300.0).abs() < 1.0, "{found:?}");
    }

    #[test]
    fn each_hour_is_aligned_and_random_trips_are_nothing() {
        let hourly: Vec<f64> = (0..9).map(|hour| f64::from(hour) * 3_600.0 + f64::from(hour % 3)).collect();
        let aligned = of(&found(&hourly, 20.0, 1e6), PatternKind::Aligned);
        let (_, Phase::Begin, pattern) = aligned[0] else { panic!("{aligned:?}") };
        assert_eq!((pattern.period, aligned.len()), (Some(3_600.0), 2), "{aligned:?}");
        let random = [10.0, 4_000.0, 4_900.0, 21_000.0, 22_500.0, 61_000.0, 90_000.0, 93_000.0];
        assert_eq!(found(&random, 20.0, 1e6), []);
    }

    #[test]
    fn many_trips_at_once_are_a_burst_only_where_few_are_usual() {
        let quiet_then_many = [100.0, 40_000.0, 40_100.0, 40_250.0, 40_300.0];
        let burst = of(&found(&quiet_then_many, 10.0, 1e5), PatternKind::Burst);
        let [(begin, Phase::Begin, pattern), (end, Phase::End, _)] = burst[..] else { panic!("{burst:?}") };
        assert_eq!((begin, end, pattern.count, pattern.period), (40_250.0, 40_300.0 + 600.0, 3, Some(125.0)));
        assert!(of(&found(&[100.0, 200.0, 300.0, 400.0], 10.0, 1e5), PatternKind::Burst).is_empty(), "nothing is usual yet");
    }

    #[test]
    fn steady_trips_are_no_burst_and_one_that_goes_on_is_the_usual_in_the_end() {
        for every in [60.0, 120.0, 199.0] {
            let trips: Vec<f64> = (0..200).map(|number| 100.0 + f64::from(number) * every + f64::from(number * number % 13)).collect();
            assert_eq!(of(&found(&trips, 10.0, 1e5), PatternKind::Burst), [], "{every}");
        }
        let rare = [100.0, 20_000.0, 40_000.0];
        let many: Vec<f64> = (0..600).map(|number| 60_000.0 + f64::from(number) * 100.0 + f64::from(number * number % 13)).collect();
        let burst = of(&found(&[&rare[..], &many].concat(), 10.0, 1e6), PatternKind::Burst);
        let [(begin, Phase::Begin, _), (end, Phase::End, _)] = burst[..] else { panic!("{burst:?}") };
        assert!((60_100.0..60_700.0).contains(&begin) && (61_900.0..62_700.0).contains(&end), "{begin} {end}");
    }

    #[test]
    fn a_trip_in_the_farthest_future_is_no_pattern() {
        let mut patterns = Patterns::new(PatternConfig::default(), START);
        let mut found = Vec::new();
        // The circuit hands over no later time than that of the span that says so; even so nothing overflows.
        patterns.begin(u64::MAX, &mut found);
        patterns.end(START, &mut found);
        patterns.pass(u64::MAX, &mut found);
        assert_eq!((patterns.deadline(), found), (None, vec![]));
    }

    #[test]
    fn what_opens_and_closes_all_the_time_flaps() {
        let trips: Vec<f64> = (0..10).map(|round| f64::from(round) * 47.0 + f64::from(round * round % 7)).collect();
        let flapping = of(&found(&trips, 20.0, 1e4), PatternKind::Flapping);
        let [(begin, Phase::Begin, pattern), (end, Phase::End, _)] = flapping[..] else { panic!("{flapping:?}") };
        assert!((6..=20).contains(&pattern.count) && pattern.period.is_some_and(|period| (30.0..=100.0).contains(&period)), "{pattern:?}");
        assert!((100.0..400.0).contains(&begin) && (500.0..1_200.0).contains(&end), "{begin} {end}");
    }

    #[test]
    fn chance_has_three_where_one_is_usual_one_time_in_twelve() {
        assert!((at_least(3, 1.0) - 0.080_301).abs() < 1e-6);
        assert!((at_least(3, 0.007) / 5.7e-8 - 1.0).abs() < 0.02);
        assert!((at_least(0, 5.0) - 1.0).abs() < 1e-9);
    }
}
