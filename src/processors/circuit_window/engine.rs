mod telling;

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::quality::FixedState;
use opentelemetry_proto::tonic::collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest};
use parking_lot::Mutex;
use prost::Message;
use smallvec::SmallVec;

pub(super) use self::telling::{Due, Report, Turns};
use super::{
    config::Checked,
    counts::Counts,
    last_told::LastTold,
    logs::{self, Told},
    metrics::WHOLE_AFTER,
    moments::{Moment, Moments},
    processes,
    seen::Seen,
    services, usages,
};
use crate::{
    circuit::{
        analysis::config::AnalysisConfig,
        answers::Answers,
        cascade::{Cascades, Together},
        circuit::Circuit,
        collector::CircuitBreakerMetricsCollector,
        config::CircuitMetricsConfig,
        enrich::Enrichment,
        event::CircuitEvent,
        finding::{Finding, Status},
        inspect::{Inspection, ResourceRecord, inspect},
        meeting::{Introduction, Meetings},
        room::Room,
        round::Round,
        service::{ServiceChange, Services, Tallies, Whose},
        state::Change,
        usages::OfProcess,
    },
    clock::Clock,
    otlp::Malformed,
    pipeline::{Charge, Ledger, OverLimit, Part, Setup},
};

/// Requests are remembered for a window and this much longer, in nanoseconds.
const REMEMBERED: u64 = 60_000_000_000;

/// Callees, or processes, in one request: below 1 MiB, even with names of full length.
const GAUGES_A_REQUEST: usize = 256;

/// What an entry of what holds of processes weighs, about.
const HELD: usize = size_of::<(OfProcess, f64)>();

/// What is told beside circuits, each with a value; none where its series ends.
pub(super) enum Beside {
    /// How callees are, and all together.
    Services(Vec<(Whose, Option<Status>)>),
    /// What holds of processes.
    Processes(Vec<(OfProcess, Option<f64>)>),
}

/// Windows of all circuits, split by caller, and what goes in and out of them.
pub(super) struct Engine {
    clock: Arc<dyn Clock>,
    checked: ArcSwap<Checked>,
    shards: Vec<Mutex<CircuitBreakerMetricsCollector>>,
    /// All that found no room.
    overflow: Mutex<CircuitBreakerMetricsCollector>,
    /// Circuits that are not closed in all of their instances, as of the last look.
    restless: AtomicUsize,
    services: Mutex<Services>,
    services_told: Mutex<LastTold<Whose, Status>>,
    processes_told: Mutex<LastTold<OfProcess, f64>>,
    /// What holds of processes, as of the last look.
    holding: Mutex<BTreeMap<OfProcess, f64>>,
    cascades: Mutex<Cascades>,
    /// Circuits, as of the last look.
    circuits: AtomicUsize,
    /// When circuits are told of.
    moments: Moments,
    room: Arc<Room>,
    /// Who answers at the addresses that are called.
    meetings: Mutex<Meetings>,
    /// What callees answered, where callers say nothing of having asked.
    answers: Arc<Answers>,
    seen: Seen,
    ledger: Arc<Ledger>,
    charge: Mutex<Charge>,
    counts: Counts,
}

/// What was decided and found since it was asked last, each in order of time.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) events: Vec<CircuitEvent>,
    pub(super) findings: Vec<Finding>,
    pub(super) services: Vec<ServiceChange>,
    pub(super) together: Vec<Together>,
}

impl News {
    /// All of it in order of time. Of one moment first what breakers did, then what was found in that; at the end what
    /// ended an incident, so that findings still belong to it.
    pub(super) fn in_order(self) -> Vec<Told> {
        let findings = self.findings.into_iter().map(Told::Finding).chain(self.services.into_iter().map(Told::Service));
        let findings = findings.chain(self.together.into_iter().map(Told::Together));
        let mut all: Vec<Told> = self.events.into_iter().map(Told::Event).chain(findings).collect();
        let rank = |told: &Told| match told {
            Told::Event(event) => u8::from(event.ends_incident) * 2,
            Told::Finding(_) | Told::Service(_) | Told::Together(_) => 1,
        };
        all.sort_by_key(|told| (told.at(), rank(told)));
        all
    }
}

/// Which collector.
#[derive(Clone, Copy)]
enum Place {
    Shard(usize),
    Overflow,
}

/// One time round all shards, in which buckets close, some of them at a time.
#[derive(Default)]
pub(super) struct Closing {
    now: u64,
    /// The shard at hand, and how far it is.
    shard: usize,
    round: Round,
    news: News,
    tallies: Tallies,
    holding: BTreeMap<OfProcess, f64>,
    circuits: usize,
    instances: usize,
    restless: usize,
    bytes: usize,
    lag: u64,
    /// What circuits had counted that made room for others.
    evicted_calls: u64,
}

impl Engine {
    /// With so many shards: one for each thread that may be busy at a time.
    pub(super) fn new(checked: Checked, setup: &Setup, shards: usize) -> Self {
        let (config, selection) = (Arc::new(checked.circuit.clone()), Arc::new(checked.selection.clone()));
        let room = Arc::new(Room::new(config.max_circuits));
        let answers: Arc<Answers> = Arc::default();
        let collector = |room: &Arc<Room>| {
            let mut collector = CircuitBreakerMetricsCollector::new(Arc::clone(&config), Arc::clone(&selection), Arc::clone(room));
            collector.share(&answers);
            Mutex::new(collector)
        };
        Self {
            clock: Arc::clone(&setup.clock),
            shards: (0..shards).map(|_| collector(&room)).collect(),
            overflow: collector(&Arc::new(Room::new(0))),
            restless: AtomicUsize::new(0),
            services: Mutex::default(),
            services_told: Mutex::default(),
            processes_told: Mutex::default(),
            holding: Mutex::default(),
            cascades: Mutex::default(),
            circuits: AtomicUsize::new(0),
            moments: Moments::default(),
            room,
            answers: Arc::clone(&answers),
            meetings: Mutex::default(),
            seen: Seen::new(config.window_size() + REMEMBERED),
            ledger: Arc::clone(&setup.ledger),
            charge: Mutex::new(setup.ledger.open()),
            counts: Counts::new(&setup.meter, &setup.id),
            checked: ArcSwap::from_pointee(checked),
        }
    }

    /// Goes over to other settings: windows begin anew where their shape changed, counters go on. What is looked for in
    /// them stays.
    pub(super) fn reconfigure(&self, mut checked: Checked) {
        checked.circuit.analysis = self.checked.load().circuit.analysis.clone();
        self.change_to(checked);
    }

    /// Looks for this from now on.
    pub(super) fn look_for(&self, analysis: AnalysisConfig) {
        let checked = self.checked.load();
        if checked.circuit.analysis != analysis {
            let mut changed = Checked::clone(&checked);
            changed.circuit.analysis = analysis;
            self.change_to(changed);
        }
    }

    fn change_to(&self, checked: Checked) {
        let (config, selection) = (Arc::new(checked.circuit.clone()), Arc::new(checked.selection.clone()));
        let now = self.clock.now();
        for shard in self.shards.iter().chain([&self.overflow]) {
            shard.lock().reconfigure(&config, &selection, now);
        }
        self.room.set_most(config.max_circuits);
        self.seen.set_lifetime(config.window_size() + REMEMBERED);
        self.checked.store(Arc::new(checked));
    }

    /// Reads a request; changes nothing.
    pub(super) fn inspect(&self, part: &Part) -> Result<Inspection, Malformed> {
        let horizon = self.clock.now().saturating_add(self.checked.load().circuit.max_clock_skew);
        self.inspect_until(part, horizon)
    }

    /// Reads a request, in which spans that end beyond the horizon are from the future; changes nothing.
    pub(super) fn inspect_until(&self, part: &Part, horizon: u64) -> Result<Inspection, Malformed> {
        inspect(&part.bytes, part.items, &self.checked.load().rules, horizon)
    }

    /// Counts a request, and says how many of its spans were late. Can't fail.
    pub(super) fn apply(&self, request: &Bytes, inspection: &Inspection) -> u64 {
        let now = self.clock.now();
        if !self.seen.insert(request, now) {
            self.counts.repeated();
            return 0;
        }
        let mut late = 0;
        self.counts.inspected(inspection);
        let shard_of: SmallVec<[usize; 4]> = inspection.resources.iter().map(|resource| self.shard_of(request, inspection, resource)).collect();
        for (index, shard) in self.shards.iter().enumerate().filter(|(index, _)| shard_of.contains(index)) {
            let mine = |resource: u32| shard_of.get(resource as usize) == Some(&index);
            let mut shard = shard.lock();
            let mut applied = shard.apply(request, inspection, mine, now);
            let introductions: SmallVec<[Introduction; 4]> = {
                let met = shard.take_met();
                let mut meetings = (met.len() > 0).then(|| self.meetings.lock());
                met.filter_map(|met| meetings.as_mut()?.meet(index, met)).collect()
            };
            drop(shard);
            for introduction in introductions {
                self.shard(Place::Shard(introduction.shard)).lock().introduce(&introduction, now);
            }
            if !applied.overflow.is_empty() {
                applied.late += self.overflow.lock().apply_overflow(request, inspection, &applied.overflow, now);
            }
            for caller in &applied.nameless {
                tracing::warn!(
                    service = %caller.service,
                    "its processes can't be told apart and count as one instance: set service.instance.id, for instance by OTEL_RESOURCE_ATTRIBUTES"
                );
            }
            for unread in &applied.unread {
                tracing::warn!(
                    service = %unread.caller.service,
                    told = %unread.key,
                    value = %unread.value,
                    "a breaker's state can't be read and is left out (fuseboard_states_unread counts them): write it as a word, such as open, \
                     half_open or closed, or leave the attribute or event out under breaker"
                );
            }
            self.counts.applied(&applied);
            late += applied.late;
        }
        late
    }

    /// Looks at what processes tell of themselves in a request of metrics, if anybody asks for it. One that is none says
    /// nothing: it is on its way as it is.
    pub(super) fn use_up(&self, request: &Bytes) {
        let checked = self.checked.load();
        if checked.circuit.analysis.resource.is_none() {
            return;
        }
        let now = self.clock.now();
        for metrics in usages::told_in(request) {
            let samples = usages::samples(&metrics);
            if samples.is_empty() {
                continue;
            }
            let request = usages::as_spans(metrics.resource).encode_to_vec();
            let Ok(inspection) = inspect(&request, 1, &checked.rules, u64::MAX) else { continue };
            if let Some(record) = inspection.resources.first() {
                let shard = self.shard_of(&request, &inspection, record);
                self.shard(Place::Shard(shard)).lock().use_up(&request, &inspection, record, &samples, now);
            }
        }
    }

    /// What to add to spans of this request, in order of their places.
    pub(super) fn enrichments(&self, request: &[u8], inspection: &Inspection) -> Vec<Enrichment> {
        let shard_of: SmallVec<[usize; 4]> = inspection.resources.iter().map(|resource| self.shard_of(request, inspection, resource)).collect();
        let mut found = Vec::new();
        for (index, shard) in self.shards.iter().enumerate().filter(|(index, _)| shard_of.contains(index)) {
            let mine = |resource: u32| shard_of.get(resource as usize) == Some(&index);
            found.extend(shard.lock().enrich(request, inspection, mine));
        }
        found.sort_by_key(|one| one.span_id_at);
        found
    }

    /// Circuits that are not closed in all of their instances, as of the last look.
    pub(super) const fn restless(&self) -> &AtomicUsize {
        &self.restless
    }

    /// Whether spans are enriched.
    pub(super) fn enriches(&self) -> bool {
        self.checked.load().enrich_spans
    }

    fn shard_of(&self, request: &[u8], inspection: &Inspection, resource: &ResourceRecord) -> usize {
        let caller = [resource.environment, resource.namespace, resource.service].map(|text| inspection.text(request, text));
        let hash = FixedState::with_seed(0).hash_one(caller);
        usize::try_from(hash % self.shards.len() as u64).unwrap_or_default()
    }

    /// Closes buckets up to the watermarks; gives what breakers did and what analyzers found. Lets requests in between.
    pub(super) fn advance(&self) -> News {
        let mut closing = self.begin_closing();
        while self.close_some(&mut closing) {}
        self.closed(closing)
    }

    /// Begins to close buckets up to the watermarks.
    pub(super) fn begin_closing(&self) -> Closing {
        let bytes = self.seen.bytes() + self.meetings.lock().bytes() + self.answers.bytes() + self.room.heap_bytes();
        Closing { now: self.clock.now(), bytes, ..Closing::default() }
    }

    /// Closes some, under one lock; `false` when there are none left.
    pub(super) fn close_some(&self, closing: &mut Closing) -> bool {
        let Some(shard) = self.shards.iter().chain([&self.overflow]).nth(closing.shard) else { return false };
        let mut shard = shard.lock();
        if shard.advance_some(&mut closing.round, closing.now, &mut closing.news.events) {
            return true;
        }
        let round = std::mem::take(&mut closing.round);
        closing.circuits += round.circuits;
        closing.restless += round.restless;
        closing.bytes += round.bytes;
        closing.lag = closing.lag.max(round.lag);
        closing.instances += shard.instances();
        closing.news.findings.extend(shard.take_findings());
        closing.tallies.join(shard.tallies());
        closing.holding.extend(shard.take_holding());
        let gone = shard.take_gone();
        drop(shard);
        self.counts.gone(&gone);
        closing.evicted_calls += gone.evicted_calls;
        closing.shard += 1;
        true
    }

    /// All are closed; gives what breakers did and what analyzers found.
    pub(super) fn closed(&self, closing: Closing) -> News {
        let Closing { now, mut news, tallies, holding, circuits, instances, restless, mut bytes, lag, evicted_calls, .. } = closing;
        // Where health is not judged there are none, and what was told of them ends.
        news.services = self.services.lock().take(&tallies, now);
        bytes += holding.len() * HELD + self.services_told.lock().bytes() + self.processes_told.lock().bytes();
        *self.holding.lock() = holding;
        self.charge.lock().set(bytes);
        self.restless.store(restless, Ordering::Relaxed);
        self.circuits.store(circuits, Ordering::Relaxed);
        self.counts.held(circuits as u64, instances as u64, bytes as u64, lag as f64 / 1e9);
        self.counts.forgotten_early(self.seen.take_early());
        if evicted_calls > 0 {
            self.overflow.lock().take_over(evicted_calls, now);
        }
        self.sorted(news, now)
    }

    /// Closes everything.
    pub(super) fn finish(&self) -> News {
        let now = self.clock.now();
        let mut news = News::default();
        for shard in self.shards.iter().chain([&self.overflow]) {
            let mut shard = shard.lock();
            shard.finish(now, &mut news.events);
            news.findings.extend(shard.take_findings());
        }
        news.services = self.services.lock().take(&Tallies::default(), now);
        self.sorted(news, now)
    }

    fn sorted(&self, News { mut events, mut findings, services, .. }: News, now: u64) -> News {
        let what = |finding: &Finding| (finding.event_name(), finding.what.phase().name());
        findings.sort_by(|left, right| {
            left.at
                .cmp(&right.at)
                .then_with(|| left.circuit.cmp(&right.circuit))
                .then_with(|| left.instance.cmp(&right.instance))
                .then_with(|| what(left).cmp(&what(right)))
        });
        findings.iter().for_each(|finding| self.counts.finding(finding));
        events.sort_by(|left, right| {
            left.at.cmp(&right.at).then_with(|| left.circuit.cmp(&right.circuit)).then_with(|| left.instance.cmp(&right.instance))
        });
        let told = events.iter().filter(|event| event.change != Change::InstanceGone);
        told.for_each(|event| self.counts.event(event));
        let together = self.together(&events, now);
        News { events, findings, services, together }
    }

    /// What incidents of several circuits have to do with each other.
    fn together(&self, events: &[CircuitEvent], now: u64) -> Vec<Together> {
        if self.checked.load().circuit.analysis.pattern.is_none() {
            return Vec::new();
        }
        let circuits = self.circuits.load(Ordering::Relaxed);
        let mut cascades = self.cascades.lock();
        let mut together = cascades.pass(now);
        let trips = events.iter().filter(|event| event.change == Change::Trip).filter_map(|event| Some((event, event.incident?)));
        together.extend(trips.flat_map(|(event, incident)| cascades.take(&event.circuit, (incident, event.at.min(event.decided)), circuits)));
        together
    }

    /// What there is to tell beside circuits, each for a request of bounded size.
    pub(super) fn beside_due(&self, moment: Moment) -> Vec<Beside> {
        let (now, checked) = (moment.now, self.checked.load());
        let is_told = |metric: &str| !checked.disabled_metrics.iter().any(|disabled| disabled == metric);
        let mut services = self.services_told.lock().due(&self.services.lock().holding(), now, WHOLE_AFTER);
        services.retain(|(whose, _)| is_told(services::metric(whose).0));
        let mut processes = self.processes_told.lock().due(&self.holding.lock(), now, WHOLE_AFTER);
        processes.retain(|(of, _)| is_told(processes::metric(of)));
        let services = services.chunks(GAUGES_A_REQUEST).map(|some| Beside::Services(some.to_vec()));
        let processes = processes.chunks(GAUGES_A_REQUEST).map(|some| Beside::Processes(some.to_vec()));
        services.chain(processes).collect()
    }

    /// It as metrics, and how many points.
    pub(super) fn beside(due: &Beside, Moment { now, .. }: Moment) -> (ExportMetricsServiceRequest, usize) {
        match due {
            Beside::Services(all) => services::metrics(all.iter().map(|(whose, status)| (whose, *status)), now),
            Beside::Processes(all) => processes::metrics(all.iter().map(|(of, value)| (of, *value)), now),
        }
    }

    /// This was told.
    pub(super) fn beside_told(&self, told: &Beside, Moment { now, .. }: Moment) {
        match told {
            Beside::Services(all) => self.services_told.lock().told(all, now),
            Beside::Processes(all) => self.processes_told.lock().told(all, now),
        }
    }

    /// Where nobody wants metrics: lets go of the circuits that ended, and gives them.
    pub(super) fn take_ended(&self) -> Vec<Circuit> {
        let of = |place: Place| {
            let mut shard = self.shard(place).lock();
            let ended = shard.take_ended();
            shard.forget(&ended);
            ended
        };
        self.places().flat_map(of).collect()
    }

    /// Shows every circuit, in no particular order.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Circuit)) {
        for shard in self.shards.iter().chain([&self.overflow]) {
            shard.lock().circuits().for_each(|(_, circuit)| visit(circuit));
        }
    }

    fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..self.shards.len()).map(Place::Shard).chain([Place::Overflow])
    }

    fn shard(&self, place: Place) -> &Mutex<CircuitBreakerMetricsCollector> {
        match place {
            Place::Shard(index) => self.shards.get(index).unwrap_or(&self.overflow),
            Place::Overflow => &self.overflow,
        }
    }

    /// Derived data on its way into a pipeline, accounted for as all that is held.
    ///
    /// # Errors
    /// There is no memory for it now.
    pub(super) fn charged(&self, bytes: Vec<u8>, items: usize) -> Result<Part, OverLimit> {
        let charge = self.room_for(bytes.capacity())?;
        Ok(Part::charged(bytes.into(), items, charge))
    }

    /// Room for so many bytes that are about to be held.
    ///
    /// # Errors
    /// There is no memory for them now.
    pub(super) fn room_for(&self, bytes: usize) -> Result<Charge, OverLimit> {
        let mut charge = self.ledger.open();
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// What is told as one request of log records.
    pub(super) fn logs(&self, all: &[Told]) -> ExportLogsServiceRequest {
        logs::request(all, self.clock.now())
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn settings(&self) -> CircuitMetricsConfig {
        self.checked.load().circuit.clone()
    }

    pub(super) fn emit_interval(&self) -> u64 {
        self.checked.load().emit_interval
    }
}
