//! A circuit: its window, its totals, its instances, its incident.

use std::{ops::Range, sync::Arc};

use foldhash::quality::FixedState;
use slab::Slab;
use smallvec::SmallVec;

use super::{
    analysis::{anomaly::Signal, config::AnalysisConfig, pressure::Usage},
    analyst::{Analyst, States},
    bucket::{MetricsBucket, Outcome},
    config::CircuitMetricsConfig,
    detect::{
        inferred::{Inferred, InferredRule, Outcomes, Would},
        lane::{Lanes, Route},
        manner::Manner,
        suspect::Decision,
    },
    event::{CircuitEvent, IncidentId},
    finding::{Anomaly, Finding, Pattern, Phase, Reason, Status, Trend, What},
    key::{self, CircuitKey, Kind, Target},
    member::{Evidence, Member},
    paths::Paths,
    sent::{Sent, SentRarely},
    sketch::Code,
    state::{Change, Ids, Source, State},
    totals::{Histogram, Totals},
    usual::Usual,
    window::{Place, Rolling, Window, WindowTotal},
};

/// Calls a bucket below which a circuit's histograms are at rest: they weigh more than it takes to add to them there.
const RARE: u64 = 2;

/// One circuit: its instances, its window, and what it counted since it began.
#[derive(Debug)]
pub struct Circuit {
    key: Arc<CircuitKey>,
    /// Before it was seen first, in Unix nanoseconds: the start of its series.
    since: u64,
    /// When something was heard of it last, by the clock.
    pub(super) last_seen: u64,
    pub(super) members: Slab<Member>,
    /// Processes that call through it and are too many to be members.
    pub(super) strangers: u32,
    /// Moves on when totals begin anew, so that what was told of the old ones is not taken for the new.
    epoch: u32,
    /// Addresses of the callee, once its name is known.
    pub(super) addresses: Option<Box<Addresses>>,
    /// How long its calls usually take.
    usual: Usual,
    /// Whether it goes on under another name: what it counted is told once more, then it ends.
    pub(super) retired: bool,
    window: Rolling,
    totals: Totals,
    incident: Option<Box<Incident>>,
    exemplars: Option<Box<Exemplars>>,
    /// What most circuits never have.
    detected: Option<Box<Detected>>,
    /// What analyzers know of it, where there are any.
    analyst: Option<Box<Analyst>>,
    /// Whether anything happened to its breaker, or would have.
    is_eventful: bool,
    /// Whether it may make room for others: nothing is known of it yet but one bucket of calls.
    pub(super) newcomer: bool,
    /// What was handed out last.
    pub sent: Sent,
    /// Whether anything moved since then.
    pub changed: bool,
}

/// Addresses that a circuit's callee has; boxed, since most circuits have none.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pub(super) all: Vec<Address>,
    /// Whose they are by path, where it is not only this callee that answers there.
    pub(super) paths: Paths,
}

/// An address that a circuit's callee has.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) text: Box<str>,
    pub(super) port: Option<u16>,
    pub(super) kind: Kind,
    /// How often in a row another callee answered there.
    pub(super) doubts: u8,
    /// How often its callee was another one before.
    pub(super) moves: u8,
}

impl Address {
    pub(super) fn target(&self) -> Target<'_> {
        Target { named: false, text: self.text.as_bytes(), port: self.port }
    }

    fn is(&self, target: &Target<'_>) -> bool {
        self.target() == *target
    }

    /// As it is shown to people.
    pub(super) fn shown(&self) -> Box<str> {
        key::shown(&self.text, self.port).into()
    }
}

/// What calls and rejections told of a circuit's breaker.
#[derive(Debug, Default)]
struct Detected {
    /// By number of the breaker.
    manners: SmallVec<[Manner; 1]>,
    lanes: Lanes,
    inferred: Inferred,
    /// Not final yet: other instances may still tell of what was before.
    decided: Vec<Decided>,
    /// An incident that ended with its last instance, and that instance; told when buckets are settled.
    gone: Option<(IncidentId, Arc<str>)>,
}

/// A change that was decided in one instance.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) member: usize,
    /// The number of the breaker.
    pub(super) lane: u8,
    pub(super) instance: Arc<str>,
    pub(super) breaker: Option<Arc<str>>,
    pub(super) reason: Arc<str>,
    pub(super) ids: Ids,
}

#[derive(Clone, Copy, Debug)]
struct Incident {
    id: IncidentId,
    /// The first trip.
    since: u64,
}

/// Spans that stand for what was counted since they were handed out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exemplars {
    /// The slowest call that ended well.
    pub success: Option<Exemplar>,
    /// The slowest call that failed.
    pub failure: Option<Exemplar>,
    /// The span that tells of the last trip.
    pub trip: Option<Exemplar>,
}

/// A span that stands for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// When, in Unix nanoseconds.
    pub at: u64,
    /// Latency, in nanoseconds.
    pub nanos: u64,
    /// Which.
    pub ids: Ids,
}

/// What new settings make of a circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reshape<'a> {
    /// Windows have another shape.
    pub(super) windows: bool,
    /// Histograms have other bounds.
    pub(super) histograms: bool,
    /// Deltas are told from now on.
    pub(super) to_delta: bool,
    /// Analyzers look for something else, or at windows of another shape: what they looked for, the new settings, and when.
    pub(super) analysis: Option<(&'a AnalysisConfig, &'a CircuitMetricsConfig, u64)>,
}

/// A call, ready to be counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) outcome: Outcome,
    /// Of a failure: its `error.type`.
    pub(super) error: &'a str,
    pub(super) weight: u32,
}

impl Circuit {
    /// Seen first now; it is known that nobody had called `since` then.
    pub(super) fn new(key: Arc<CircuitKey>, since: u64, now: u64) -> Self {
        Self {
            key,
            since,
            last_seen: now,
            // Most circuits have few instances; further ones make room for four.
            members: Slab::with_capacity(1),
            strangers: 0,
            epoch: 0,
            addresses: None,
            usual: Usual::default(),
            retired: false,
            window: Rolling::default(),
            totals: Totals::default(),
            incident: None,
            exemplars: None,
            detected: None,
            analyst: None,
            is_eventful: false,
            newcomer: false,
            sent: Sent::default(),
            changed: true,
        }
    }

    /// What tells it from all others.
    pub const fn key(&self) -> &Arc<CircuitKey> {
        &self.key
    }

    /// Whether it goes on under another name; what it counted stays its own.
    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether a span's target is its callee, by the name or by an address.
    #[inline]
    pub(super) fn answers_to(&self, target: &Target<'_>) -> bool {
        self.key.is(target) || self.addresses.as_ref().is_some_and(|addresses| addresses.all.iter().any(|address| address.is(target)))
    }

    /// Its callee's addresses that lead to it, as they are shown; none where it is found by its name alone.
    pub fn addresses(&self) -> impl Iterator<Item = Box<str>> {
        self.addresses.iter().flat_map(|known| &known.all).map(Address::shown)
    }

    /// Goes on under another name. What was told of the old one stays with what is given back, and is to be ended; what
    /// analyzers found is told to be stopped there and to begin here. Nobody had been told of the new name `since` then.
    pub(super) fn rename(&mut self, key: Arc<CircuitKey>, since: u64, now: u64) -> (Option<Self>, Vec<Finding>) {
        self.analyst.iter_mut().for_each(|analyst| analyst.tell_ended());
        let mut findings = self.take_findings();
        let at = self.analyst.as_ref().map_or(now, |analyst| analyst.latest(now));
        findings.extend(self.holding(Phase::Stopped, at));
        let old = std::mem::replace(&mut self.key, key);
        findings.extend(self.holding(Phase::Begin, at));
        self.changed = true;
        if self.sent.at == 0 {
            return (None, findings);
        }
        let mut past = Self::new(old, self.since, now);
        (past.totals, past.sent) = (std::mem::take(&mut self.totals), std::mem::take(&mut self.sent));
        (past.retired, past.epoch) = (true, self.epoch);
        past.analyst = self.analyst.as_mut().map(|analyst| Box::new(Analyst::remembering(analyst.count_anew())));
        (self.since, self.epoch) = (since, self.epoch.wrapping_add(1));
        (Some(past), findings)
    }

    /// Before it was seen first, in Unix nanoseconds.
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// Whether there is more of it than calls in one bucket. Until then it has no series, and makes room for others: a
    /// sender may make up any number of names that it calls once.
    pub fn is_established(&self) -> bool {
        let is_telling = |member: &Member| member.has_evidence() || member.provisional().is_some_and(|state| state != State::Closed);
        let is_eventful = self.is_eventful || self.detected.is_some() || self.members.iter().any(|(_, member)| is_telling(member));
        is_eventful || self.window.called() >= 2 || self.sent.at > 0 || self.retired || self.key.overflow
    }

    /// Whether there is a counter or a histogram of it whose series has not begun.
    pub fn has_beginnings(&self) -> bool {
        let (totals, sent) = (&self.totals, &self.sent);
        let begins = |known: Option<u64>, count: u64| known.is_none() && count > 0;
        let count = |histogram: &Option<Box<Histogram>>| histogram.as_ref().map_or(0, |histogram| histogram.count);
        let [successes, failures] = sent.durations;
        sent.at == 0
            || !self.key.overflow && begins(sent.rejections(), totals.rejections)
            || totals.errors.len() > sent.errors.len()
            || totals.breaker.len() > sent.breaker.len()
            || begins(successes, totals.success_duration.count)
            || begins(failures, count(&totals.failure_duration))
            || begins(sent.incidents(), count(&totals.incident_duration))
            || self.anomaly_counts().into_iter().zip(sent.anomalies()).any(|((count, _), known)| begins(known, count.into()))
    }

    /// When a series that begins now was last known to be 0: when the circuit was told of last.
    const fn born(&self) -> u64 {
        if self.sent.at > 0 { self.sent.at } else { self.since }
    }

    /// Moves on when its totals begin anew.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Notes what was told of it in this epoch.
    pub fn told(&mut self, sent: Sent, epoch: u32) {
        let sent = if epoch == self.epoch {
            sent
        } else {
            // Its histograms have begun anew since.
            let mut sent = Sent { durations: self.sent.durations, ..sent };
            let incidents = self.sent.incidents();
            let histograms = self.sent.rarely.as_mut().and_then(|rarely| rarely.histograms.take());
            if histograms.is_some() || incidents.is_some() || sent.rarely.is_some() {
                let rarely = sent.rarely();
                (rarely.histograms, rarely.incidents) = (histograms, incidents);
            }
            sent
        };
        self.sent = sent;
        self.exemplars = None;
    }

    /// Notes that first points of 0 were told of it in this epoch.
    pub fn begun(&mut self, sent: Sent, epoch: u32) {
        if epoch == self.epoch {
            self.sent = sent;
        }
    }

    /// Its rolling window.
    pub fn window(&self) -> &Window {
        self.window.get()
    }

    /// Every bucket with a smaller number is closed.
    pub fn closed_to(&self) -> u64 {
        self.window.closed_to()
    }

    /// What it counted since it began.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Spans that stand for what was counted since it was [`told`](Self::told) of.
    pub fn exemplars(&self) -> Exemplars {
        self.exemplars.as_deref().copied().unwrap_or_default()
    }

    /// Puts what is rarely used at rest.
    pub fn rest(&mut self) {
        self.totals.success_duration.rest();
        if let Some(failures) = &mut self.totals.failure_duration {
            failures.rest();
        }
    }

    /// Takes the memory that calls are counted fastest in.
    fn wake(&mut self) {
        self.totals.success_duration.wake();
        self.totals.failure_duration.iter_mut().for_each(|failures| failures.wake());
    }

    /// Begins windows or histograms anew whose old ones do not fit new settings.
    pub(super) fn reconfigure(&mut self, change: Reshape<'_>) {
        let Reshape { windows, histograms, to_delta, analysis } = change;
        if let Some((old, config, now)) = analysis {
            let incident = self.incident().map(|(id, _)| id);
            if let Some(analyst) = &mut self.analyst {
                analyst.look_for(old, config, windows, now);
                analyst.stamp(incident);
            }
        }
        if windows {
            self.window = Rolling::default();
        }
        if histograms {
            (self.totals.success_duration, self.totals.failure_duration, self.totals.incident_duration) = Default::default();
            self.sent.durations = Default::default();
            self.sent.rarely.iter_mut().for_each(|rarely| (rarely.histograms, rarely.incidents) = (None, None));
            self.epoch = self.epoch.wrapping_add(1);
        } else if to_delta {
            // Of histograms that were told whole nobody kept what they held then: what was counted since is not told again
            // by them, though it is by the counters.
            let of = |histogram: &Option<Box<Histogram>>| histogram.as_deref().cloned().unwrap_or_default();
            let (failures, incidents) = (of(&self.totals.failure_duration), of(&self.totals.incident_duration));
            self.sent.rarely().histograms = Some(Box::new([self.totals.success_duration.clone(), failures, incidents]));
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.changed = true;
    }

    /// Instances by provisional state, in the order of [`State::ALL`]; `None` where no state is known.
    pub fn instances(&self) -> Option<[u32; State::ALL.len()]> {
        let mut counts = [0; State::ALL.len()];
        for (_, member) in &self.members {
            let known = member.provisional().and_then(|state| State::ALL.iter().position(|other| *other == state));
            if let Some(count) = known.and_then(|at| counts.get_mut(at)) {
                *count += 1;
            }
        }
        counts.iter().any(|count| *count > 0).then_some(counts)
    }

    /// Instances by what matters of their breakers' final state.
    fn states(&self) -> States {
        let of = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        self.members.iter().filter_map(|(_, member)| member.state()).fold(States { of, ..States::default() }, |all, state| match state {
            State::Open | State::ForcedOpen => States { open: all.open + 1, ..all },
            State::HalfOpen => States { half_open: all.half_open + 1, ..all },
            State::Closed | State::Disabled => all,
        })
    }

    /// Whether its breaker is open in some instance, by what is final.
    pub(super) fn is_open(&self) -> bool {
        self.members.iter().any(|(_, member)| matches!(member.state(), Some(State::Open | State::ForcedOpen)))
    }

    /// The incident that what a process sends now belongs to, where no change is under way that may have ended it.
    pub(super) fn sure_incident(&self, process: u32) -> Option<IncidentId> {
        let under_way = self.detected.as_ref().is_some_and(|detected| !detected.decided.is_empty());
        let is_open = |member: &Member| member.process == process && member.is_tripped();
        self.incident().map(|(id, _)| id).filter(|_| !under_way && self.members.iter().any(|(_, member)| is_open(member)))
    }

    /// Whether something is under way that has not been told to its end.
    pub(super) fn has_news(&self) -> bool {
        let decided = self.detected.as_ref().is_some_and(|detected| !detected.decided.is_empty() || detected.gone.is_some());
        decided || self.incident.is_some() || self.is_tripped()
    }

    /// Whether an instance is not closed, as far as is known.
    pub(super) fn is_restless(&self) -> bool {
        self.incident.is_some() || self.members.iter().any(|(_, member)| member.provisional().is_some_and(|state| state != State::Closed))
    }

    /// Goes back to what is final in instances that seem not to be closed for longer than `allowed` nanoseconds.
    pub(super) fn lapse(&mut self, now: u64, allowed: u64) {
        for (_, member) in &mut self.members {
            self.changed |= member.lapse(now, allowed);
        }
    }

    /// The incident that goes on, and when it began.
    pub fn incident(&self) -> Option<(IncidentId, u64)> {
        self.incident.as_deref().map(|incident| (incident.id, incident.since))
    }

    /// Counts a call. `true` if it came late.
    #[inline]
    pub(super) fn count(&mut self, call: &Call<'_>, ids: impl FnOnce() -> Ids, now: u64, config: &CircuitMetricsConfig) -> bool {
        let Call { start, end, outcome, error, weight } = *call;
        self.changed = true;
        self.last_seen = now;
        let nanos = end - start;
        let code = Code::of(nanos);
        let born = self.born();
        let kind = match outcome {
            Outcome::Success => {
                self.totals.successes += u64::from(weight);
                self.totals.success_duration.add(nanos, code, weight, &config.explicit_bounds, born);
                None
            }
            Outcome::Failure => {
                self.totals.failure_duration.get_or_insert_default().add(nanos, code, weight, &config.explicit_bounds, born);
                Some(self.totals.failure(error, weight, born))
            }
            Outcome::Rejected => {
                self.totals.reject(weight, born);
                None
            }
        };
        let window = self.window.get_mut();
        window.begin(|| now.saturating_sub(config.allowed_lateness) / config.bucket_size());
        let number = end / config.bucket_size();
        let (place, late) = match window.place(number, config.buckets()) {
            Place::Open(bucket) => (Some(bucket), false),
            Place::Late(bucket) => (Some(bucket), true),
            Place::Outside => (None, true),
        };
        if let Some(bucket) = place {
            match outcome {
                Outcome::Rejected => bucket.rejection(weight),
                _ => bucket.call(kind, nanos, code, weight),
            }
            if outcome != Outcome::Rejected {
                window.spend(number, (start, end), weight, config.bucket_size(), config.buckets());
                self.exemplify(outcome, Exemplar { at: end, nanos, ids: [0; 24] }, ids);
            }
        }
        late
    }

    /// Counts calls of which no more is known than that they were.
    pub(super) const fn take_over(&mut self, calls: u64, now: u64) {
        self.totals.successes += calls;
        (self.changed, self.last_seen) = (true, now);
    }

    /// Counts a call that was turned away before there was a span for it, which would have ended then.
    pub(super) fn count_rejection(&mut self, end: u64, now: u64, config: &CircuitMetricsConfig) {
        let call = Call { start: end, end, outcome: Outcome::Rejected, error: "", weight: 1 };
        self.count(&call, || [0; 24], now, config);
    }

    #[inline]
    fn exemplify(&mut self, outcome: Outcome, mut exemplar: Exemplar, ids: impl FnOnce() -> Ids) {
        let exemplars = self.exemplars.get_or_insert_default();
        let place = if outcome == Outcome::Success { &mut exemplars.success } else { &mut exemplars.failure };
        // Of equals the one that ended first, so that the order of arrival makes no difference.
        if place.is_none_or(|best| (exemplar.nanos, best.at) > (best.nanos, exemplar.at)) {
            exemplar.ids = ids();
            *place = Some(exemplar);
        }
    }

    /// Settles everything before this bucket: takes the evidence of all instances in the order in which the spans
    /// ended, and closes buckets.
    ///
    /// `heard`: buckets that, if they are empty, are so because nobody called; others because nobody was heard of.
    pub(super) fn settle(&mut self, to: u64, heard: &Range<u64>, config: &CircuitMetricsConfig, events: &mut Vec<CircuitEvent>) {
        let told = events.len();
        self.analyst.iter_mut().for_each(|analyst| analyst.heard = heard.clone());
        let due = self.due(to.saturating_mul(config.bucket_size()));
        for (member, evidence) in due {
            let number = evidence.observation.order / config.bucket_size();
            self.close_to(number.min(to), config, events);
            self.observe(member, &evidence, config, events);
        }
        self.settle_decided(to, config, events);
        self.tell_gone(to.saturating_mul(config.bucket_size()), events);
        if to > self.window.closed_to() || self.is_awake(to, || heard.clone(), config) {
            self.changed |= !self.window.is_empty();
            self.close_to(to, config, events);
            if self.window.get().total().requests() < RARE * config.buckets() {
                self.rest();
            } else {
                self.wake();
            }
            self.judge(config);
            self.analyst.iter_mut().for_each(|analyst| analyst.looked(config));
        }
        self.is_eventful |= events.len() > told;
    }

    /// Closes buckets, runs the breaker of our own over them where no other is known, and shows them to the analyst.
    fn close_to(&mut self, number: u64, config: &CircuitMetricsConfig, events: &mut Vec<CircuitEvent>) {
        let rule = config.detection.inferred.as_ref().filter(|_| !self.has_breaker());
        let mut analyst = self.take_analyst(config);
        let teaches = !self.is_restless();
        let mut inferred = self.detected.as_ref().filter(|_| rule.is_some()).map(|detected| detected.inferred).unwrap_or_default();
        let mut would: SmallVec<[(u64, Would); 1]> = SmallVec::new();
        self.window.close_to(number, config.buckets(), |number, bucket, total| {
            if let Some(rule) = rule {
                would.extend(run(&mut inferred, rule, number, bucket, total, config).map(|would| (number, would)));
            }
            if let Some(analyst) = &mut analyst {
                analyst.close(number, bucket, teaches, config);
            }
        });
        if let Some(mut analyst) = analyst {
            let window = self.window.get();
            analyst.closed_to(number, teaches, |number| window.busy(number), config);
            analyst.stamp(self.incident().map(|(id, _)| id));
            self.analyst = Some(analyst);
        }
        if self.detected.is_some() || !inferred.is_idle() {
            self.detected.get_or_insert_default().inferred = inferred;
        }
        for (number, would) in would {
            self.tell_inferred(number, would, config, events);
        }
    }

    /// The analyst, to look at buckets; a new one where there is something for one to look at.
    fn take_analyst(&mut self, config: &CircuitMetricsConfig) -> Option<Box<Analyst>> {
        if config.analysis == AnalysisConfig::default() || self.key.overflow || self.retired {
            return None;
        }
        self.analyst.take().or_else(|| (!self.window.is_empty()).then(|| Box::new(Analyst::new(config, self.window.get().first_open()))))
    }

    /// Whether there is an analyst, and its buckets have to be looked at.
    pub(super) const fn is_analyzed(&self) -> bool {
        self.analyst.is_some()
    }

    /// Whether the analyst may take it for a sign of illness that nobody called for some time before this bucket.
    pub(super) fn is_quiet(&self, to: u64, config: &CircuitMetricsConfig) -> bool {
        self.analyst.as_ref().is_some_and(|analyst| analyst.is_quiet(to, config))
    }

    /// Notes whether nobody may call because something else goes wrong before.
    pub(super) fn cut_off(&mut self, is_cut_off: bool) {
        self.analyst.iter_mut().for_each(|analyst| analyst.is_cut_off = is_cut_off);
    }

    /// Other calls are its own from now on.
    pub(super) fn learn_anew(&mut self, config: &AnalysisConfig, now: u64) {
        let incident = self.incident().map(|(id, _)| id);
        if let Some(analyst) = &mut self.analyst {
            analyst.learn_anew(config, now);
            analyst.stamp(incident);
        }
    }

    /// Whether the analyst has something to look at before this bucket though none closes.
    /// `heard` is asked only where it matters.
    pub(super) fn is_awake(&self, to: u64, heard: impl Fn() -> Range<u64>, config: &CircuitMetricsConfig) -> bool {
        let Some(analyst) = &self.analyst else { return false };
        analyst.may_wake(to, config) && analyst.sleeps_to(&heard(), config) <= to
    }

    /// What analyzers found since this was asked last.
    pub(super) fn take_findings(&mut self) -> Vec<Finding> {
        if self.analyst.as_ref().is_none_or(|analyst| !analyst.has_found()) {
            return Vec::new();
        }
        let born = self.born();
        let found = self.analyst.as_mut().map(|analyst| analyst.take_found(born)).unwrap_or_default();
        self.changed |= !found.is_empty();
        let mut all = self.take_findings_of_instances();
        let finding = |(at, what, incident)| Finding { at, circuit: Arc::clone(&self.key), instance: Arc::default(), incident, what };
        all.extend(found.into_iter().map(finding));
        all
    }

    fn take_findings_of_instances(&mut self) -> Vec<Finding> {
        let found = self.analyst.as_mut().map(|analyst| analyst.take_found_of_instances()).unwrap_or_default();
        self.changed |= !found.is_empty();
        let incident = self.incident().map(|(id, _)| id);
        let finding = |(at, instance, change)| Finding { at, circuit: Arc::clone(&self.key), instance, incident, what: What::Health(change) };
        found.into_iter().map(finding).collect()
    }

    /// Instances by health, in the order of [`Status::ALL`]; `None` where that is not judged. Those whose breaker does
    /// nothing unusual are healthy where the circuit is called, and unknown where it is not.
    pub fn instances_by_health(&self) -> Option<[usize; Status::ALL.len()]> {
        let (degraded, unhealthy) = self.analyst.as_ref()?.instances_ailing()?;
        let others = self.members.len().saturating_sub(degraded + unhealthy);
        let is_known = self.health().is_some_and(|(status, _)| status != Status::Unknown);
        let (unknown, healthy) = if is_known { (0, others) } else { (others, 0) };
        Some([unknown, healthy, degraded, unhealthy])
    }

    /// Nobody looks any more.
    pub(super) fn end_findings(&mut self, now: u64) -> Vec<Finding> {
        let incident = self.incident().map(|(id, _)| id);
        if let Some(analyst) = &mut self.analyst {
            analyst.stop(now);
            analyst.stamp(incident);
        }
        self.take_findings()
    }

    /// What holds, told again.
    fn holding(&self, phase: Phase, at: u64) -> Vec<Finding> {
        let incident = self.incident().map(|(id, _)| id);
        let holding = self.analyst.as_ref().map(|analyst| analyst.holding(phase)).unwrap_or_default();
        let of_circuit = holding.into_iter().map(|what| (Arc::default(), what));
        let of_instances = self.analyst.iter().flat_map(|analyst| analyst.instances_holding(phase));
        let of_instances = of_instances.map(|(instance, change)| (instance, What::Health(change)));
        let finding = |(instance, what)| Finding { at, circuit: Arc::clone(&self.key), instance, incident, what };
        of_circuit.chain(of_instances).map(finding).collect()
    }

    /// What is unusual now.
    pub fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.analyst.iter().flat_map(|analyst| analyst.anomalies())
    }

    /// What was unusual within the last hour and is over, each with its end; the newest ones, at most eight.
    pub fn past_anomalies(&self) -> impl Iterator<Item = &(Anomaly, u64)> {
        self.analyst.iter().flat_map(|analyst| analyst.past_anomalies())
    }

    /// Anomalies that began, in the order of [`Signal::ALL`], each with the time at which it was last known that there
    /// was none.
    pub fn anomaly_counts(&self) -> [(u32, u64); Signal::ALL.len()] {
        self.analyst.as_ref().map(|analyst| analyst.counts()).unwrap_or_default()
    }

    /// Patterns of trips that hold now.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.analyst.iter().flat_map(|analyst| analyst.patterns())
    }

    /// How many of its calls are under way at a time, against limit or baseline.
    pub fn usage(&self) -> Option<&Usage> {
        self.analyst.as_ref().and_then(|analyst| analyst.usage())
    }

    /// How it is, where that is judged, and why.
    pub fn health(&self) -> Option<(Status, impl Iterator<Item = Reason>)> {
        self.analyst.as_ref().and_then(|analyst| analyst.health())
    }

    /// What rises or falls now.
    pub fn trends(&self) -> impl Iterator<Item = Trend> {
        self.analyst.iter().flat_map(|analyst| analyst.trends())
    }

    /// Whether there is a breaker for sure.
    pub(super) fn has_breaker(&self) -> bool {
        self.detected.as_ref().is_some_and(|detected| detected.manners.iter().any(Manner::is_proven))
            || self.members.iter().any(|(_, member)| member.has_breaker())
    }

    fn tell_inferred(&mut self, number: u64, would: Would, config: &CircuitMetricsConfig, events: &mut Vec<CircuitEvent>) {
        let born = self.born();
        self.changed = true;
        let Some(counts) = self.totals.breaker(Source::Inferred, born) else { return };
        let change = match would {
            Would::Trip => {
                counts.trips += 1;
                Change::InferredTrip
            }
            Would::Recover => {
                counts.recoveries += 1;
                Change::InferredRecovery
            }
        };
        let at = (number + 1) * config.bucket_size();
        events.push(CircuitEvent {
            at,
            circuit: Arc::clone(&self.key),
            instance: Arc::default(),
            change,
            source: Source::Inferred,
            decided: at,
            breaker: None,
            reason: Arc::default(),
            ids: [0; 24],
            window: Some(Box::new(self.window.get_mut().snapshot(number, config))),
            incident: None,
            incident_duration: None,
            ends_incident: false,
        });
    }

    /// Learns from a call that went well how long they usually take.
    pub(super) fn see_usual(&mut self, nanos: u64) {
        self.usual.see(nanos);
    }

    /// Whether a call took much longer than is usual.
    #[inline]
    pub(super) fn is_slow(&self, nanos: u64) -> bool {
        self.usual.is_slow(nanos)
    }

    /// How its breakers behave, as far as was learned.
    pub(super) fn manner(&self, lane: u8) -> Manner {
        self.detected.as_ref().and_then(|detected| detected.manners.get(usize::from(lane))).copied().unwrap_or_default()
    }

    /// The breaker that guards a route.
    #[inline]
    pub(super) fn lane_of(&self, route: Route) -> u8 {
        self.detected.as_ref().map_or(0, |detected| detected.lanes.of_route(route))
    }

    /// Its breakers.
    pub(super) fn lanes(&self) -> Option<&Lanes> {
        self.detected.as_ref().map(|detected| &detected.lanes)
    }

    /// Its breakers, to tell them apart.
    pub(super) fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.detected.get_or_insert_default().lanes
    }

    /// Notes what was learned of its breakers.
    pub(super) fn set_manner(&mut self, lane: u8, manner: Manner) {
        if self.detected.is_some() || manner.is_proven() {
            let manners = &mut self.detected.get_or_insert_default().manners;
            while manners.len() <= usize::from(lane) {
                manners.push(Manner::default());
            }
            manners.get_mut(usize::from(lane)).into_iter().for_each(|known| *known = manner);
        }
    }

    /// Notes what was decided; it is told when everything before it is final.
    pub(super) fn decide(&mut self, decided: Decided) {
        self.detected.get_or_insert_default().decided.push(decided);
    }

    /// Tells what was decided in buckets before this one, in order of time.
    fn settle_decided(&mut self, to: u64, config: &CircuitMetricsConfig, events: &mut Vec<CircuitEvent>) {
        let Some(detected) = self.detected.as_mut().filter(|detected| !detected.decided.is_empty()) else { return };
        let all = std::mem::take(&mut detected.decided);
        let (mut due, later): (Vec<Decided>, Vec<Decided>) = all.into_iter().partition(|one| one.decision.at / config.bucket_size() < to);
        detected.decided = later;
        due.sort_by(|one, other| {
            (one.decision.at, one.decision.decided, &one.instance).cmp(&(other.decision.at, other.decision.decided, &other.instance))
        });
        for Decided { decision, member, lane, instance, breaker, reason, ids } in due {
            let Some(known) = self.members.get_mut(member).filter(|known| **known.instance() == *instance && !known.reports()) else { continue };
            decision.change.state_after().into_iter().for_each(|state| known.detect(lane, state));
            let number = decision.at / config.bucket_size();
            self.close_to(number.min(to), config, events);
            let Decision { change, source, at, decided } = decision;
            self.tell(Told { change, source, at, number, decided, ids, breaker, reason }, &instance, config, events);
        }
    }

    /// Evidence from before this time, in order.
    fn due(&mut self, before: u64) -> Vec<(usize, Evidence)> {
        let mut due = Vec::new();
        for (index, member) in &mut self.members {
            due.extend(member.take_due(before).map(|evidence| (index, evidence)));
        }
        let instance = |member: &usize| self.members.get(*member).map(Member::instance);
        due.sort_by(|(one, left), (other, right)| left.rank().cmp(&right.rank()).then_with(|| instance(one).cmp(&instance(other))));
        due
    }

    fn observe(&mut self, member: usize, evidence: &Evidence, config: &CircuitMetricsConfig, events: &mut Vec<CircuitEvent>) {
        let observation = &evidence.observation;
        let Some(instance) = self.members.get_mut(member) else { return };
        let changes = instance.observe(evidence);
        let name = Arc::clone(instance.instance());
        for change in changes {
            let (at, ids, decided) = (observation.at, observation.ids, observation.order);
            let number = decided / config.bucket_size();
            let told = Told { change, source: Source::Reported, at, number, decided, ids, breaker: None, reason: Arc::default() };
            self.tell(told, &name, config, events);
        }
    }

    /// Counts a final change and makes an event of it.
    fn tell(&mut self, told: Told, instance: &Arc<str>, config: &CircuitMetricsConfig, events: &mut Vec<CircuitEvent>) {
        let Told { change, source, at, number, decided, ids, breaker, reason } = told;
        self.changed = true;
        let window = (change == Change::Trip).then(|| Box::new(self.window.get_mut().snapshot(number, config)));
        self.count_change(change, source, number, ids, at, config);
        let was_open = self.incident.is_some();
        let (incident, incident_duration) = self.follow_incident(change, at, config);
        let is_open = self.incident.is_some();
        if let Some(analyst) = &mut self.analyst {
            // What a breaker says of the future happened when it said so.
            match (was_open, is_open) {
                (false, true) => analyst.incident_begins(at.min(decided)),
                (true, false) => analyst.incident_ends(at.min(decided)),
                (true, true) | (false, false) => {}
            }
            analyst.stamp(incident);
        }
        let (circuit, instance) = (Arc::clone(&self.key), Arc::clone(instance));
        let ends_incident = incident.is_some() && self.incident.is_none();
        events.push(CircuitEvent {
            at,
            circuit,
            instance,
            change,
            source,
            decided,
            breaker,
            reason,
            ids,
            window,
            incident,
            incident_duration,
            ends_incident,
        });
    }

    fn count_change(&mut self, change: Change, source: Source, number: u64, ids: Ids, at: u64, config: &CircuitMetricsConfig) {
        if change.state_after().is_none() {
            return;
        }
        let born = self.born();
        let Some(counts) = self.totals.breaker(source, born) else { return };
        let bucket = match self.window.get_mut().place(number, config.buckets()) {
            Place::Open(bucket) | Place::Late(bucket) => Some(bucket),
            Place::Outside => None,
        };
        let (total, in_bucket) = match change {
            Change::Trip => (&mut counts.trips, bucket.map(|bucket| &mut bucket.trips)),
            Change::RecoveryAttempt => (&mut counts.recovery_attempts, bucket.map(|bucket| &mut bucket.recovery_attempts)),
            Change::RecoveryAttemptFailed => (&mut counts.recovery_attempt_failures, bucket.map(|bucket| &mut bucket.recovery_attempt_failures)),
            Change::Recovery => (&mut counts.recoveries, bucket.map(|bucket| &mut bucket.recoveries)),
            Change::StateChange { .. } | Change::CallsStopped | Change::InstanceGone | Change::InferredTrip | Change::InferredRecovery => return,
        };
        *total += 1;
        if let Some(count) = in_bucket {
            *count = count.saturating_add(1);
        }
        if change == Change::Trip && ids != [0; 24] {
            self.exemplars.get_or_insert_default().trip = Some(Exemplar { at, nanos: 0, ids });
        }
    }

    /// The incident a change belongs to; with the change that ends it, its duration.
    fn follow_incident(&mut self, change: Change, at: u64, config: &CircuitMetricsConfig) -> (Option<IncidentId>, Option<u64>) {
        if change == Change::Trip && self.incident.is_none() {
            let id = IncidentId(std::hash::BuildHasher::hash_one(&FixedState::with_seed(0), (&*self.key, at)));
            self.incident = Some(Box::new(Incident { id, since: at }));
        }
        if change == Change::CallsStopped {
            return (None, None);
        }
        let Some(incident) = self.incident.as_deref().copied() else { return (None, None) };
        if self.members.iter().any(|(_, member)| member.is_tripped()) {
            return (Some(incident.id), None);
        }
        self.incident = None;
        // What an operator ended says nothing of how long a recovery takes.
        if change != Change::Recovery {
            return (Some(incident.id), None);
        }
        let nanos = at.saturating_sub(incident.since);
        let born = self.born();
        self.totals.incident_duration.get_or_insert_default().add(nanos, Code::of(nanos), 1, &config.explicit_bounds, born);
        (Some(incident.id), Some(nanos))
    }

    /// Judges how it is, once all that is known until then was told.
    fn judge(&mut self, config: &CircuitMetricsConfig) {
        let (closed_to, states, incident) = (self.window.closed_to(), self.states(), self.incident().map(|(id, _)| id));
        if let Some(analyst) = &mut self.analyst {
            // One without a name is any process that has none.
            let state_of = |(number, member): (usize, &Member)| Some((number, member.state()?)).filter(|_| !member.instance().is_empty());
            let is_restless = |state: &(usize, State)| !matches!(state.1, State::Closed | State::Disabled);
            let restless: SmallVec<[(usize, State); 4]> = self.members.iter().filter_map(state_of).filter(is_restless).collect();
            let instance_at = |number: usize| self.members.get(number).map(Member::instance);
            analyst.judge(closed_to, states, (&restless, instance_at), config);
            analyst.stamp(incident);
        }
    }

    /// Takes an instance out. Its part of an incident ends; an incident of it alone ends without a recovery. `false` if there was none.
    pub(super) fn remove(&mut self, number: usize) -> bool {
        let Some(member) = self.members.try_remove(number) else { return false };
        self.changed = true;
        self.analyst.iter_mut().for_each(|analyst| analyst.wake());
        if !self.members.iter().any(|(_, member)| member.is_tripped())
            && let Some(incident) = self.incident.take()
        {
            self.detected.get_or_insert_default().gone = Some((incident.id, Arc::clone(member.instance())));
        }
        true
    }

    /// Tells of an incident that ended because its last instance is gone.
    fn tell_gone(&mut self, at: u64, events: &mut Vec<CircuitEvent>) {
        let Some((incident, instance)) = self.detected.as_mut().and_then(|detected| detected.gone.take()) else { return };
        self.analyst.iter_mut().for_each(|analyst| analyst.incident_ends(at));
        events.push(CircuitEvent {
            at,
            circuit: Arc::clone(&self.key),
            instance,
            change: Change::InstanceGone,
            source: Source::Rejected,
            decided: at,
            breaker: None,
            reason: Arc::default(),
            ids: [0; 24],
            window: None,
            incident: Some(incident),
            incident_duration: None,
            ends_incident: true,
        });
    }

    /// Whether an instance is open or half-open.
    pub(super) fn is_tripped(&self) -> bool {
        self.members.iter().any(|(_, member)| member.is_tripped())
    }

    /// Whether there is nothing to settle.
    pub(super) fn is_settled(&self) -> bool {
        let decided = self.detected.as_ref().is_some_and(|detected| !detected.decided.is_empty() || detected.gone.is_some());
        !decided && self.window.is_empty() && self.members.iter().all(|(_, member)| !member.has_evidence())
    }

    /// Bytes that analyzers add to it.
    pub fn analysis_bytes(&self) -> usize {
        self.analyst.as_ref().map_or(0, |analyst| analyst.bytes())
    }

    /// Bytes it holds, itself included.
    pub fn bytes(&self) -> usize {
        let members: usize = self.members.iter().map(|(_, member)| member.heap_bytes()).sum();
        let texts = [&self.key.text, &self.key.address].map(|text| text.len());
        let address = |address: &Address| size_of::<Address>() + address.text.len();
        let addresses = self
            .addresses
            .as_ref()
            .map_or(0, |known| size_of::<Addresses>() + known.all.iter().map(address).sum::<usize>() + known.paths.heap_bytes());
        let histograms = self.sent.histograms().map_or(0, |sent| size_of_val(sent) + sent.iter().map(Histogram::heap_bytes).sum::<usize>());
        let rarely = self.sent.rarely.as_ref().map_or(0, |_| size_of::<SentRarely>());
        size_of::<Self>()
            + size_of::<CircuitKey>()
            + texts.iter().sum::<usize>()
            + addresses
            + members
            + self.members.capacity() * (size_of::<Member>() + size_of::<usize>())
            + self.window.heap_bytes()
            + self.totals.heap_bytes()
            + self.incident.as_ref().map_or(0, |_| size_of::<Incident>())
            + self.exemplars.as_ref().map_or(0, |_| size_of::<Exemplars>())
            + self
                .detected
                .as_ref()
                .map_or(0, |detected| size_of::<Detected>() + detected.decided.capacity() * size_of::<Decided>() + detected.lanes.heap_bytes())
            + self.analysis_bytes()
            + rarely
            + histograms
    }
}

/// Runs the breaker of our own over a bucket that closes, given the total of the window before it.
fn run(
    inferred: &mut Inferred,
    rule: &InferredRule,
    number: u64,
    bucket: &mut MetricsBucket,
    total: &WindowTotal,
    config: &CircuitMetricsConfig,
) -> Option<Would> {
    let slow_from = Code::of(rule.slow_call_duration);
    let slow = bucket.latencies().iter().rev().take_while(|(code, _)| *code >= slow_from.0).map(|(_, count)| u64::from(*count)).sum();
    let calls = u64::from(bucket.successes) + u64::from(bucket.failures);
    let bucket = Outcomes { calls, failures: bucket.failures.into(), slow };
    let slow_before = || total.latencies.iter().filter(|(code, _)| code.0 >= slow_from.0).map(|(_, count)| count).sum::<u64>();
    let window = Outcomes {
        calls: total.successes + total.failures + calls,
        failures: total.failures + bucket.failures,
        // Only a bucket that holds slow calls can make them too many.
        slow: if slow > 0 { slow_before() + slow } else { 0 },
    };
    inferred.take((number + 1) * config.bucket_size(), bucket, window, config.window_size(), rule)
}

/// A change that is final.
struct Told {
    change: Change,
    source: Source,
    at: u64,
    /// The bucket it counts in.
    number: u64,
    decided: u64,
    ids: Ids,
    breaker: Option<Arc<str>>,
    reason: Arc<str>,
}

/// The changes of one observation.
pub(super) type Changes = SmallVec<[Change; 2]>;
