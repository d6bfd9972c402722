use crate::circuit::{
    analysis::{
        anomaly::{Sample, Signal},
        config::HealthConfig,
    },
    finding::{HealthChange, REASONS_MAX, Reason, Status, Trend, What},
};

const SECOND: u64 = 1_000_000_000;

/// Seconds of a circuit until its health is known, and without a call after which it is known no longer.
const KNOWN: u64 = 60 * SECOND;

/// No two changes are told within so many nanoseconds.
const APART: u64 = 10 * SECOND;

/// Looks in a row that must find a circuit degraded: one slow second is none of it.
const DEGRADED_LOOKS: u8 = 2;

/// Seconds over which shares of failures and refused calls are taken.
const SHARES: f64 = 10.0;

/// Calls, of that time, that a share must be taken of.
const CALLS_MIN: f64 = 5.0;

/// The same for shares of which nothing says that they are unusual: so many calls, of the same time or of a minute.
const HIGH_CALLS_MIN: f64 = 20.0;
const LONG: f64 = 60.0;

/// How a circuit is. All times are Unix nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Health {
    config: HealthConfig,
    /// When it was looked at first.
    since: u64,
    status: Status,
    reasons: [Option<Reason>; REASONS_MAX],
    /// When it changed last.
    changed: u64,
    /// When it was last as bad as it is told to be.
    held: u64,
    /// Looks in a row that found it worse.
    looks: u8,
    /// When a change may be told that was held back.
    due: Option<u64>,
    last_call: u64,
    taken_at: u64,
    shares: Shares,
    /// Over a minute.
    long: Shares,
}

/// Of the last seconds, the older ones weighing less.
#[derive(Clone, Copy, Debug, Default)]
struct Shares {
    calls: f64,
    failures: f64,
    rejections: f64,
}

/// What else is known of a circuit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    pub(super) states: States,
    /// What is unusual, a bit for each signal.
    pub(super) unusual: u8,
    pub(super) flaps: bool,
    /// Of their limit the share of calls that are under way, where that is much.
    pub(super) full: Option<f64>,
    /// The trend that reaches its limit first.
    pub(super) to_limit: Option<Trend>,
    /// Whether nobody calls, where it is unusual that few do.
    pub(super) is_silent: bool,
}

/// Instances of a circuit by the state of their breaker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::circuit) struct States {
    pub(in crate::circuit) open: u32,
    pub(in crate::circuit) half_open: u32,
    pub(in crate::circuit) of: u32,
}

impl Health {
    /// Of a circuit that is looked at since then.
    pub(super) fn new(config: HealthConfig, since: u64) -> Self {
        let (status, reasons) = (Status::Unknown, [None; REASONS_MAX]);
        Self {
            config,
            since,
            status,
            reasons,
            changed: 0,
            held: since,
            looks: 0,
            due: None,
            last_call: 0,
            taken_at: 0,
            shares: Shares::default(),
            long: Shares::default(),
        }
    }

    /// Of an instance that nothing was wrong with.
    pub(super) fn well(config: HealthConfig, now: u64) -> Self {
        Self { status: Status::Healthy, last_call: now, ..Self::new(config, 0) }
    }

    /// It is there.
    pub(super) const fn hear(&mut self, now: u64) {
        self.last_call = now;
    }

    /// Whether nothing is wrong, and nothing seems to be.
    pub(super) fn is_well(&self) -> bool {
        self.status < Status::Degraded && self.looks == 0
    }

    /// When a change may be told that was held back.
    pub(super) const fn due(&self) -> Option<u64> {
        self.due
    }

    /// What it is now.
    pub(super) const fn status(&self) -> Status {
        self.status
    }

    /// Why.
    pub(super) fn reasons(&self) -> impl Iterator<Item = Reason> {
        self.reasons.into_iter().flatten()
    }

    /// What it is, told under another name: from unknown to that, or back.
    pub(super) const fn told_again(&self, begins: bool) -> HealthChange {
        if begins {
            HealthChange { before: Status::Unknown, after: self.status, reasons: self.reasons }
        } else {
            HealthChange { before: self.status, after: Status::Unknown, reasons: [None; REASONS_MAX] }
        }
    }

    /// Whether nobody called for some time.
    pub(super) const fn is_silent(&self, now: u64) -> bool {
        now >= self.last_call.saturating_add(APART)
    }

    /// Takes in a bucket that ended then.
    pub(super) fn take(&mut self, end: u64, sample: &Sample<'_>) {
        // Also over seconds that nobody was heard of.
        let passed = (end.saturating_sub(self.taken_at) as f64 / 1e9).max(sample.seconds);
        self.taken_at = end;
        self.shares.take(sample, (-passed / SHARES).exp());
        self.long.take(sample, (-passed / LONG).exp());
        if sample.calls > 0 || sample.rejections > 0 {
            self.last_call = end;
        }
    }

    /// Judges by what is known now.
    pub(super) fn judge(&mut self, now: u64, facts: &Facts, found: &mut Vec<(u64, What)>) {
        let (target, reasons) = self.target(now, facts);
        self.due = None;
        if target == self.status {
            (self.held, self.looks, self.reasons) = (now, 0, reasons);
            return;
        }
        self.looks = if target > self.status { self.looks.saturating_add(1) } else { 0 };
        let (next, due) = self.step_to(target, now);
        // What gets worse is told at once.
        let apart = if self.changed == 0 || next > self.status { 0 } else { self.changed.saturating_add(APART) };
        // Whether it is called often enough to be known is no news.
        let is_news = next >= Status::Degraded || self.status >= Status::Degraded;
        let due = if is_news { due.max(apart) } else { now };
        if due > now {
            self.due = Some(due);
            return;
        }
        let reasons = if next > target { recovering(reasons) } else { reasons };
        if is_news {
            found.push((now, What::Health(HealthChange { before: self.status, after: next, reasons })));
            self.changed = now;
        }
        (self.status, self.reasons, self.held, self.looks) = (next, reasons, now, 0);
        if next != target {
            self.due = Some(self.step_to(target, now).1.max(now + 1));
        }
    }

    /// The next step on the way to a status, and when it may be taken.
    fn step_to(&self, target: Status, now: u64) -> (Status, u64) {
        let worse = target > self.status;
        match self.status {
            _ if worse && target == Status::Degraded => (target, if self.looks >= DEGRADED_LOOKS { now } else { now + 1 }),
            _ if worse => (target, now),
            // One step at a time, each after a while without a cause.
            Status::Unhealthy => (Status::Degraded, self.held.saturating_add(self.config.unhealthy_for)),
            Status::Degraded => (Status::Healthy, self.held.saturating_add(self.config.degraded_for)),
            Status::Healthy | Status::Unknown => (target, now),
        }
    }

    /// When it will change if nothing happens.
    pub(super) const fn deadline(&self) -> Option<u64> {
        if self.due.is_some() {
            return self.due;
        }
        // A cause that goes on is not gone by itself.
        match self.status {
            Status::Healthy => Some(self.last_call.saturating_add(KNOWN)),
            _ => None,
        }
    }

    /// Nobody looks any more.
    pub(super) fn end(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        if self.status >= Status::Degraded {
            let change = HealthChange { before: self.status, after: Status::Unknown, reasons: [None; REASONS_MAX] };
            found.push((now, What::Health(change)));
            self.status = Status::Unknown;
        }
    }

    /// How it is by the rules alone, and why.
    fn target(&self, now: u64, facts: &Facts) -> (Status, [Option<Reason>; REASONS_MAX]) {
        let mut unhealthy = Reasons::default();
        let mut degraded = Reasons::default();
        let rules = &self.config;
        let States { open, half_open, of } = facts.states;
        if open > 0 {
            let share = f64::from(open) / f64::from(of.max(1));
            let reasons = if share >= rules.unhealthy_open_instances { &mut unhealthy } else { &mut degraded };
            reasons.add(Reason::Open { open, of });
        }
        if half_open > 0 && rules.degraded_half_open {
            degraded.add(Reason::HalfOpen { half_open, of });
        }
        if facts.is_silent && rules.unhealthy_silence {
            unhealthy.add(Reason::Silent);
        }
        for (signal, of, limit) in [
            (Signal::Errors, Shares::of_failures as fn(Shares, f64) -> Option<f64>, rules.unhealthy_error_ratio),
            (Signal::Rejections, Shares::of_rejections, rules.unhealthy_rejection_ratio),
        ] {
            let is_unusual = facts.unusual >> signal as u8 & 1 == 1;
            let share = [self.shares, self.long].into_iter().filter_map(|shares| of(shares, HIGH_CALLS_MIN)).reduce(f64::max);
            if let Some(share) = share.filter(|share| *share >= limit && !is_unusual) {
                unhealthy.add(Reason::High { signal, share });
            }
        }
        for signal in Signal::ALL {
            let is_unusual = facts.unusual >> signal as u8 & 1 == 1;
            let (share, limit) = match signal {
                Signal::Errors => (self.shares.of_failures(CALLS_MIN), rules.unhealthy_error_ratio),
                Signal::Rejections => (self.shares.of_rejections(CALLS_MIN), rules.unhealthy_rejection_ratio),
                _ => (None, 1.0),
            };
            if is_unusual && share.is_some_and(|share| share >= limit) {
                unhealthy.add(Reason::Unusual { signal, share });
            } else if is_unusual && rules.degrades(signal) {
                degraded.add(Reason::Unusual { signal, share });
            }
        }
        let is_called = now < self.last_call.saturating_add(KNOWN);
        if facts.flaps && is_called && rules.degraded_flapping {
            degraded.add(Reason::Flapping);
        }
        if let Some(usage) = facts.full.filter(|_| rules.degraded_concurrency) {
            degraded.add(Reason::Full { usage });
        }
        if let Some((signal, seconds)) = facts.to_limit.and_then(|trend| Some((trend.signal, trend.course.to_limit?)))
            && seconds < rules.degraded_time_to_limit as f64 / 1e9
        {
            degraded.add(Reason::Limit { signal, seconds });
        }
        let is_known = now >= self.since.saturating_add(KNOWN) && is_called;
        let status = if unhealthy.is_any() {
            Status::Unhealthy
        } else if degraded.is_any() {
            Status::Degraded
        } else if is_known {
            Status::Healthy
        } else {
            Status::Unknown
        };
        degraded.0.into_iter().flatten().for_each(|reason| unhealthy.add(reason));
        (status, unhealthy.0)
    }
}

/// What is still wrong, behind that it was worse.
fn recovering(reasons: [Option<Reason>; REASONS_MAX]) -> [Option<Reason>; REASONS_MAX] {
    let mut all = Reasons::default();
    all.add(Reason::Recovering);
    reasons.into_iter().flatten().for_each(|reason| all.add(reason));
    all.0
}

impl Shares {
    /// Takes in a bucket; what was before weighs so much less.
    fn take(&mut self, sample: &Sample<'_>, kept: f64) {
        let Self { calls, failures, rejections } = self;
        *calls = *calls * kept + f64::from(sample.calls);
        *failures = *failures * kept + f64::from(sample.failures);
        *rejections = *rejections * kept + f64::from(sample.rejections);
    }

    /// Of the calls that were sent, where there were so many.
    fn of_failures(self, least: f64) -> Option<f64> {
        (self.calls >= least).then(|| self.failures / self.calls)
    }

    /// Of all calls, where there were so many.
    fn of_rejections(self, least: f64) -> Option<f64> {
        let all = self.calls + self.rejections;
        (all >= least).then(|| self.rejections / all)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Reasons([Option<Reason>; REASONS_MAX]);

impl Reasons {
    fn is_any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    /// What finds no room is not told.
    fn add(&mut self, reason: Reason) {
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000 * SECOND;

    /// Seconds of 20 calls, of which so many fail, and what else is known; gives second, before, after and the first reason.
    fn found(seconds: impl Iterator<Item = (u32, Facts)>) -> Vec<(u64, Status, Status, Option<Reason>)> {
        let (mut health, mut found) = (Health::new(HealthConfig::default(), START), Vec::new());
        for (second, (failures, facts)) in (1..).zip(seconds) {
            let now = START + second * SECOND;
            health.take(now, &Sample { calls: 20, failures, seconds: 1.0, ..Sample::default() });
            health.judge(now, &facts, &mut found);
        }
        found
            .into_iter()
            .map(|(at, what)| match what {
                What::Health(HealthChange { before, after, reasons }) => ((at - START) / SECOND, before, after, reasons[0]),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn unusual(signal: Signal) -> Facts {
        Facts { unusual: 1 << signal as u8, ..Facts::default() }
    }

    #[test]
    fn a_circuit_gets_worse_at_once_and_better_step_by_step() {
        let open = Facts { states: States { open: 2, half_open: 0, of: 3 }, ..Facts::default() };
        let told = found((1..300).map(|second| (0, if (100..120).contains(&second) { open } else { Facts::default() })));
        let reason = Some(Reason::Open { open: 2, of: 3 });
        let expected = [
            (100, Status::Healthy, Status::Unhealthy, reason),
            // A minute after it was open last, and half a minute later.
            (179, Status::Unhealthy, Status::Degraded, Some(Reason::Recovering)),
            (209, Status::Degraded, Status::Healthy, None),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn one_slow_second_is_nothing_two_are_and_half_of_the_calls_failing_is_more() {
        let slow = unusual(Signal::LatencyTail);
        assert_eq!(found((1..200).map(|second| (0, if second == 100 { slow } else { Facts::default() }))), []);
        let told = found((1..200).map(|second| (0, if second >= 100 { slow } else { Facts::default() })));
        assert_eq!(told[0], (101, Status::Healthy, Status::Degraded, Some(Reason::Unusual { signal: Signal::LatencyTail, share: None })));
        let told = found((1..200).map(|second| if second >= 100 { (15, unusual(Signal::Errors)) } else { (0, Facts::default()) }));
        let worst = told.iter().map(|(_, _, after, _)| *after).max();
        assert_eq!((told.len(), worst), (2, Some(Status::Unhealthy)), "{told:?}");
    }

    #[test]
    fn what_always_fails_is_unhealthy_though_it_is_usual() {
        let told = found((1..200).map(|_| (12, Facts::default())));
        let reason = told[0].3;
        assert!(matches!(reason, Some(Reason::High { signal: Signal::Errors, share }) if (share - 0.6).abs() < 1e-9), "{told:?}");
        assert_eq!((told.len(), told[0].2), (1, Status::Unhealthy), "{told:?}");
        assert_eq!(found((1..200).map(|_| (8, Facts::default()))), [], "40 % is nothing of its own");
    }

    #[test]
    fn most_calls_of_some_seconds_failing_is_unhealthy_whatever_is_usual() {
        let told = found((1..300).map(|second| (if (100..120).contains(&second) { 20 } else { 0 }, Facts::default())));
        assert!(matches!(told[0], (105..=108, Status::Healthy, Status::Unhealthy, Some(Reason::High { signal: Signal::Errors, .. }))), "{told:?}");
        // 30 %, more or less.
        assert_eq!(found((1..300).map(|second| (if second % 7 == 0 { 12 } else { 5 }, Facts::default()))), []);
    }

    #[test]
    fn nobody_calling_is_unknown_where_that_is_usual() {
        let (mut health, mut found) = (Health::new(HealthConfig::default(), START), Vec::new());
        for second in 1..100 {
            health.take(START + second * SECOND, &Sample { calls: 1, seconds: 1.0, ..Sample::default() });
            health.judge(START + second * SECOND, &Facts::default(), &mut found);
        }
        assert_eq!((health.status(), health.deadline()), (Status::Healthy, Some(START + 159 * SECOND)));
        health.judge(START + 159 * SECOND, &Facts::default(), &mut found);
        assert_eq!((health.status(), health.deadline(), health.reasons().count()), (Status::Unknown, None, 0));
        assert_eq!(found, [], "that is no news");
        health.judge(START + 170 * SECOND, &Facts { is_silent: true, ..Facts::default() }, &mut found);
        assert_eq!(health.status(), Status::Unhealthy);
        health.end(START + 171 * SECOND, &mut found);
        assert_eq!((health.status(), found.len()), (Status::Unknown, 2));
    }

    #[test]
    fn what_gets_worse_is_told_at_once_and_what_was_held_back_when_it_may_be() {
        let (mut health, mut found) = (Health::new(HealthConfig::default(), START), Vec::new());
        let at = |second: u64| START + second * SECOND;
        let open = Facts { states: States { open: 1, half_open: 0, of: 1 }, ..Facts::default() };
        let half_open = Facts { states: States { open: 0, half_open: 1, of: 1 }, ..Facts::default() };
        health.judge(at(1), &half_open, &mut found);
        assert_eq!((health.status(), health.deadline()), (Status::Unknown, Some(at(1) + 1)), "one look");
        health.judge(at(2), &half_open, &mut found);
        health.judge(at(3), &open, &mut found);
        assert_eq!((health.status(), health.deadline()), (Status::Unhealthy, None), "worse at once; an open breaker closes with a call");
        health.judge(at(12), &open, &mut found);
        // It is gone, and nobody calls: step by step to what is unknown.
        let mut steps = Vec::new();
        health.judge(at(20), &Facts::default(), &mut found);
        while let Some(deadline) = health.deadline() {
            health.judge(deadline, &Facts::default(), &mut found);
            steps.push(((deadline - START) / SECOND, health.status()));
        }
        assert_eq!(steps, [(72, Status::Degraded), (102, Status::Healthy), (102, Status::Unknown)]);
        assert_eq!(found.len(), 4);
    }
}
