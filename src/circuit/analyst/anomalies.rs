use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::circuit::{
    analysis::{
        anomaly::{Detector, Notice, Reading, Sample, Signal},
        chart::Step,
        config::{AnomalyConfig, Method},
        zscore::ZScore,
    },
    finding::{Anomaly, Phase, What},
};

/// What opens again within so many nanoseconds goes on.
const SAME: u64 = 60_000_000_000;

/// What has been for so many nanoseconds is the usual from then on.
const ACCEPTED: u64 = 1_800_000_000_000;

/// Anomalies that are remembered once they are over, and for how many nanoseconds.
const PAST_MAX: usize = 8;
const PAST: u64 = 3_600_000_000_000;

/// No score is told as more: further off is just as sure.
const SCORE_MAX: f64 = 1_000.0;

/// What is unusual in the calls of one circuit.
#[derive(Clone, Debug)]
pub(super) struct Anomalies {
    watch: Watch,
    /// Ascending by signal, at most one of each.
    spells: Vec<Spell>,
    /// Those that are over, each with its end, the oldest first.
    past: VecDeque<(Anomaly, u64)>,
}

#[derive(Clone, Debug)]
enum Watch {
    Evidence(Box<Detector>),
    ZScore(Box<Windows>),
}

/// The time that a signal is unusual.
#[derive(Clone, Copy, Debug)]
struct Spell {
    anomaly: Anomaly,
    /// When it was over, and when that was found.
    ended: Option<(u64, u64)>,
}

impl Anomalies {
    pub(super) fn new(config: &AnomalyConfig) -> Self {
        let least = config.min_duration_change as f64 / 1e9;
        let watch = match config.method {
            Method::Evidence => Watch::Evidence(Box::new(Detector::new(config.threshold(), least))),
            Method::ZScore => Watch::ZScore(Box::new(Windows { threshold: config.threshold(), least, ..Windows::default() })),
        };
        Self { watch, spells: Vec::new(), past: VecDeque::new() }
    }

    /// Takes in bucket `number`, which ended then, in Unix nanoseconds, where a window holds so many.
    pub(super) fn take(&mut self, (number, end): (u64, u64), sample: &Sample<'_>, buckets: u64, found: &mut Vec<(u64, What)>) {
        let notices = match &mut self.watch {
            Watch::Evidence(detector) => detector.take(sample),
            Watch::ZScore(windows) => windows.take(number, sample, buckets),
        };
        for Notice { signal, step, reading, since } in notices {
            follow(&mut self.spells, signal, step, reading, (end, since), found);
        }
        self.remember(found);
    }

    /// Keeps what is over by what was told of it.
    fn remember(&mut self, found: &[(u64, What)]) {
        for (at, what) in found {
            if let What::Anomaly(Phase::End | Phase::Stopped, anomaly) = what
                && !self.past.iter().any(|(known, _)| (known.signal, known.begin) == (anomaly.signal, anomaly.begin))
            {
                if self.past.len() >= PAST_MAX {
                    self.past.pop_front();
                }
                self.past.push_back((*anomaly, *at));
            }
        }
    }

    /// What was unusual lately, each with its end.
    pub(super) fn past(&self) -> impl Iterator<Item = &(Anomaly, u64)> {
        self.past.iter()
    }

    /// In how many empty buckets silence would be unusual, if it may ever be.
    pub(super) fn silence_in(&self) -> Option<u64> {
        match &self.watch {
            Watch::Evidence(detector) => detector.silence_in(),
            Watch::ZScore(_) => None,
        }
    }

    /// Tells of what ended, and did not begin again until now; that nobody calls is the usual after a while.
    pub(super) fn pass(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        if self.silence_since().is_some_and(|since| since.saturating_add(ACCEPTED) <= now)
            && let Some(at) = self.spells.iter().position(|spell| spell.anomaly.signal == Signal::RateDown)
        {
            found.push((now, What::Anomaly(Phase::End, self.spells.remove(at).anomaly)));
            match &mut self.watch {
                Watch::Evidence(detector) => detector.accept(Signal::RateDown),
                Watch::ZScore(windows) => windows.open.get_mut(Signal::RateDown as usize).into_iter().for_each(|open| *open = false),
            }
        }
        self.tell_ended(now, found);
        while self.past.front().is_some_and(|(_, end)| end.saturating_add(PAST) < now) {
            self.past.pop_front();
        }
    }

    /// Tells of what was over for long enough by then.
    pub(super) fn tell_ended(&mut self, by: u64, found: &mut Vec<(u64, What)>) {
        let is_over = |spell: &mut Spell| spell.ended.is_some_and(|(_, closed)| closed.saturating_add(SAME) <= by);
        let over = self.spells.extract_if(.., is_over).filter_map(|spell| Some((spell.ended?.0, What::Anomaly(Phase::End, spell.anomaly))));
        found.extend(over);
        self.remember(found);
    }

    /// Since when fewer call than usual, if they do.
    fn silence_since(&self) -> Option<u64> {
        self.going_on().find(|anomaly| anomaly.signal == Signal::RateDown).map(|anomaly| anomaly.begin)
    }

    /// When there will be something to tell that needs no bucket.
    pub(super) fn deadline(&self) -> Option<u64> {
        let ends = self.spells.iter().filter_map(|spell| spell.ended).map(|(_, closed)| closed).min().map(|closed| closed.saturating_add(SAME));
        let accepted = self.silence_since().map(|since| since.saturating_add(ACCEPTED));
        ends.into_iter().chain(accepted).min()
    }

    /// Nobody looks any more at what is unusual, but for this signal.
    pub(super) fn stop(&mut self, but: Option<Signal>, now: u64, found: &mut Vec<(u64, What)>) {
        for Spell { anomaly, ended } in self.spells.extract_if(.., |spell| Some(spell.anomaly.signal) != but) {
            let signal = anomaly.signal;
            match ended {
                Some((ended, _)) => found.push((ended, What::Anomaly(Phase::End, anomaly))),
                None => found.push((now, What::Anomaly(Phase::Stopped, anomaly))),
            }
            match &mut self.watch {
                Watch::Evidence(detector) => detector.close(signal),
                Watch::ZScore(windows) => windows.open.get_mut(signal as usize).into_iter().for_each(|open| *open = false),
            }
        }
        self.remember(found);
    }

    /// What is unusual now.
    pub(super) fn open(&self) -> impl Iterator<Item = &Anomaly> {
        self.spells.iter().map(|spell| &spell.anomaly)
    }

    /// The same without what is over, and might begin again soon.
    pub(super) fn going_on(&self) -> impl Iterator<Item = &Anomaly> {
        self.spells.iter().filter(|spell| spell.ended.is_none()).map(|spell| &spell.anomaly)
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let past = self.past.capacity() * size_of::<(Anomaly, u64)>() + self.spells.capacity() * size_of::<Spell>();
        match &self.watch {
            Watch::Evidence(detector) => past + size_of::<Detector>() + detector.heap_bytes(),
            Watch::ZScore(windows) => past + size_of::<Windows>() + windows.all.iter().map(ZScore::heap_bytes).sum::<usize>(),
        }
    }
}

fn follow(spells: &mut Vec<Spell>, signal: Signal, step: Step, reading: Option<Reading>, (end, since): (u64, f64), found: &mut Vec<(u64, What)>) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of evidence")]
    let from = end.saturating_sub((since * 1e9) as u64);
    let reading = reading.map(|reading| Reading { score: reading.score.min(SCORE_MAX), ..reading });
    let place = spells.binary_search_by_key(&signal, |spell| spell.anomaly.signal);
    match (step, place.ok().and_then(|at| spells.get_mut(at))) {
        (Step::Quiet, _) | (Step::GoesOn | Step::Closed, None) => {}
        (Step::Opened, Some(spell)) if spell.ended.is_none_or(|(_, closed)| end.saturating_sub(closed) < SAME) => spell.ended = None,
        (Step::Opened, before) => {
            if let Some(Spell { anomaly, ended: Some((ended, _)) }) = &before {
                found.push((*ended, What::Anomaly(Phase::End, *anomaly)));
            }
            let Reading { score, expected, seen } = reading.unwrap_or(Reading { score: 0.0, expected: 0.0, seen: 0.0 });
            let anomaly = Anomaly { signal, begin: from, score, expected, seen, peak: end };
            found.push((end, What::Anomaly(Phase::Begin, anomaly)));
            let spell = Spell { anomaly, ended: None };
            match before {
                Some(before) => *before = spell,
                None => spells.insert(place.unwrap_or_else(|at| at), spell),
            }
        }
        (Step::GoesOn, Some(Spell { anomaly, .. })) => {
            if let Some(Reading { score, seen, .. }) = reading.filter(|reading| reading.score > anomaly.score) {
                (anomaly.score, anomaly.seen, anomaly.peak) = (score, seen, end);
            }
        }
        // As soon as it began to be over.
        (Step::Closed, Some(spell)) => spell.ended = Some((from.max(spell.anomaly.peak), end)),
    }
}

/// The values of a window, by what is held against it.
#[derive(Clone, Debug, Default)]
struct Windows {
    threshold: f64,
    /// The least change of latency that is told, in seconds.
    least: f64,
    /// Mean latency, 95th percentile, share of failures and of refused calls, calls a second.
    all: [ZScore; 5],
    open: [bool; Signal::ALL.len()],
}

impl Windows {
    fn take(&mut self, number: u64, sample: &Sample<'_>, buckets: u64) -> SmallVec<[Notice; 2]> {
        let (calls, requests) = (f64::from(sample.calls), f64::from(sample.calls) + f64::from(sample.rejections));
        let share = |hits: u32, all: f64| (all > 0.0).then(|| f64::from(hits) / all);
        let values = [
            (calls > 0.0).then(|| sample.duration_sum / calls),
            sample.percentile(95.0),
            share(sample.failures, calls),
            share(sample.rejections, requests),
            Some(requests / sample.seconds),
        ];
        let mut standings = [None; 5];
        for ((window, value), standing) in self.all.iter_mut().zip(values).zip(&mut standings) {
            *standing = value.and_then(|value| Some((window.take(number, value, buckets)?, value)));
        }
        let [duration, tail, errors, rejections, rate] = standings;
        let mut notices = SmallVec::new();
        for ((signal, standing), open) in Signal::ALL.into_iter().zip([duration, tail, errors, rejections, rate, rate]).zip(&mut self.open) {
            let Some((standing, seen)) = standing else { continue };
            let score = if signal == Signal::RateDown { -standing.score } else { standing.score };
            let is_small = matches!(signal, Signal::LatencyBody | Signal::LatencyTail) && seen - standing.mean < self.least;
            let is_open = score > self.threshold && !is_small;
            let step = match (std::mem::replace(open, is_open), is_open) {
                (false, false) => continue,
                (false, true) => Step::Opened,
                (true, true) => Step::GoesOn,
                (true, false) => Step::Closed,
            };
            let reading = (step != Step::Closed).then_some(Reading { score: score.max(0.0), expected: standing.mean, seen });
            // The bucket itself.
            notices.push(Notice { signal, step, reading, since: if step == Step::Opened { sample.seconds } else { 0.0 } });
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn sample(calls: u32, failures: u32) -> Sample<'static> {
        Sample { calls, failures, seconds: 1.0, teaches: true, ..Sample::default() }
    }

    /// Begin and end of what is found in these seconds, each of so many calls and failures.
    fn found(config: &AnomalyConfig, seconds: impl Iterator<Item = (u32, u32)>) -> Vec<(u64, Phase, Signal)> {
        let (mut anomalies, mut found, mut now) = (Anomalies::new(config), Vec::new(), 0);
        for (calls, failures) in seconds {
            now += SECOND;
            anomalies.take((now / SECOND, now), &sample(calls, failures), 60, &mut found);
            anomalies.pass(now, &mut found);
        }
        anomalies.stop(None, now, &mut found);
        assert!(anomalies.past().count() <= PAST_MAX);
        assert!(anomalies.past().all(|(anomaly, end)| anomaly.begin <= anomaly.peak && anomaly.peak <= *end));
        assert!(anomalies.open().next().is_none() && anomalies.deadline().is_none());
        found
            .into_iter()
            .map(|(at, what)| match what {
                What::Anomaly(phase, anomaly) => (at / SECOND, phase, anomaly.signal),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_anomaly_has_a_beginning_and_an_end_and_what_comes_back_goes_on() {
        let second = |at: u64| (50, if (1_000..1_030).contains(&at) || (1_060..1_070).contains(&at) { 20 } else { 0 });
        let found = found(&AnomalyConfig::default(), (0..1_400).map(second));
        let [(begin, Phase::Begin, Signal::Errors), (end, Phase::End, Signal::Errors)] = found[..] else { panic!("{found:?}") };
        assert!((1_001..1_005).contains(&begin) && (1_070..1_090).contains(&end), "{begin} to {end}");
    }

    #[test]
    fn what_nobody_looks_at_any_more_is_told_to_be_stopped() {
        let found = found(&AnomalyConfig::default(), (0..1_010).map(|at: u64| (50, if at >= 1_000 { 20 } else { 0 })));
        assert!(matches!(found[..], [(_, Phase::Begin, Signal::Errors), (1_010, Phase::Stopped, Signal::Errors)]), "{found:?}");
    }

    #[test]
    fn a_z_score_is_what_an_operator_computes() {
        let config = AnomalyConfig::new(3.0, Method::ZScore).unwrap();
        // 48 to 52 calls a second, then 80 for five seconds.
        let calls = |at: u32| if (100..105).contains(&at) { 80 } else { 48 + at % 5 };
        let found = found(&config, (0..300).map(|at| (calls(at), 0)));
        let [(101, Phase::Begin, Signal::RateUp), (end, Phase::End, Signal::RateUp)] = found[..] else { panic!("{found:?}") };
        assert!((103..=106).contains(&end), "what is unusual is in the window soon: {end}");
    }

    #[test]
    fn a_z_score_of_latency_needs_a_millisecond_too() {
        let config = AnomalyConfig::new(3.0, Method::ZScore).unwrap();
        let told = |slower: f64| {
            let (mut anomalies, mut found) = (Anomalies::new(&config), Vec::new());
            for number in 1..=100_u64 {
                // A tenth of a millisecond a call, more or less.
                let mean = 0.0001 * (1.0 + (number % 3) as f64 / 10.0) + if number > 90 { slower } else { 0.0 };
                let sample = Sample { duration_sum: 50.0 * mean, ..sample(50, 0) };
                anomalies.take((number, number * SECOND), &sample, 60, &mut found);
            }
            found.iter().any(|(_, what)| matches!(what, What::Anomaly(Phase::Begin, Anomaly { signal: Signal::LatencyBody, .. })))
        };
        assert!(!told(0.0005) && told(0.002));
    }
}
