use std::{
    collections::{BTreeMap, HashMap},
    hash::BuildHasher,
    sync::Arc,
};

use foldhash::quality::FixedState;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link, SpanKind},
    },
};

use super::{
    attributes::{resource, scope, text},
    findings,
    logs::Told,
};
use crate::circuit::{
    event::{CircuitEvent, IncidentId},
    finding::{Finding, What},
    key::{Caller, CircuitKey},
    state::{Change, Ids, Source, State},
};

/// Incidents that are followed at one time: the oldest is forgotten first, and has no span.
const INCIDENTS_MAX: usize = 2_000;
/// Transitions and findings that are kept of one; later ones are counted as dropped.
const EVENTS_MAX: usize = 64;
/// Spans that one is linked to.
const LINKS_MAX: usize = 16;

/// How long a marker is, in nanoseconds: long enough to be seen.
const MARKER: u64 = 1_000_000;

/// Incidents as spans: one from the first trip to the last recovery, and a marker at the trip, which shows at once.
///
/// Ids are derived from the incident: the same input gives the same spans.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    going_on: HashMap<IncidentId, Incident>,
}

#[derive(Debug)]
struct Incident {
    circuit: Arc<CircuitKey>,
    name: String,
    source: Source,
    since: u64,
    last: u64,
    events: Vec<Event>,
    dropped_events: u32,
    links: Vec<Link>,
    dropped_links: u32,
}

impl Incidents {
    /// Forgets all of them: nobody wants their spans.
    pub(super) fn clear(&mut self) {
        self.going_on.clear();
    }

    /// Follows what is told; gives the spans it makes complete.
    pub(super) fn follow(&mut self, told: &Told) -> Vec<(Arc<CircuitKey>, Span)> {
        match told {
            Told::Event(event) => self.follow_event(event),
            Told::Finding(finding) => {
                self.note_finding(finding);
                Vec::new()
            }
            Told::Service(_) | Told::Together(_) => Vec::new(),
        }
    }

    /// What analyzers found while an incident went on.
    fn note_finding(&mut self, finding: &Finding) {
        // How an instance is follows from what its breaker does, which is told anyway.
        let is_of_instance = !finding.instance.is_empty() && matches!(finding.what, What::Health(_));
        if let Some(incident) = finding.incident.filter(|_| !is_of_instance).and_then(|id| self.going_on.get_mut(&id)) {
            let attributes = findings::attributes(&finding.what);
            incident.keep(Event { time_unix_nano: finding.at, name: finding.event_name().to_owned(), attributes, ..Event::default() });
        }
    }

    fn follow_event(&mut self, event: &CircuitEvent) -> Vec<(Arc<CircuitKey>, Span)> {
        let Some(id) = event.incident else { return Vec::new() };
        let mut complete = Vec::new();
        if event.change == Change::Trip && !self.going_on.contains_key(&id) {
            if self.going_on.len() >= INCIDENTS_MAX {
                let oldest = self.going_on.iter().min_by_key(|(_, incident)| incident.since).map(|(id, _)| *id);
                oldest.into_iter().for_each(|oldest| drop(self.going_on.remove(&oldest)));
            }
            let incident = Incident::new(event);
            complete.push((Arc::clone(&event.circuit), incident.marker(id)));
            self.going_on.insert(id, incident);
        }
        let Some(incident) = self.going_on.get_mut(&id) else { return complete };
        incident.note(event);
        if event.ends_incident
            && let Some(incident) = self.going_on.remove(&id)
        {
            let end = if event.change == Change::InstanceGone { "instance_gone" } else { "recovered" };
            complete.push((Arc::clone(&incident.circuit), incident.span(id, end)));
        }
        complete
    }
}

impl Incident {
    fn new(trip: &CircuitEvent) -> Self {
        Self {
            circuit: Arc::clone(&trip.circuit),
            name: trip.breaker_name(),
            source: trip.source,
            since: trip.at,
            last: trip.at,
            events: Vec::new(),
            dropped_events: 0,
            links: Vec::new(),
            dropped_links: 0,
        }
    }

    fn note(&mut self, event: &CircuitEvent) {
        self.last = self.last.max(event.at);
        let mut attributes = vec![text("circuit_breaker.source", event.source.name())];
        attributes.extend(event.change.state_after().map(|state| text("circuit_breaker.state", state.name())));
        if !event.instance.is_empty() {
            attributes.push(text("circuit_breaker.instance", &*event.instance));
        }
        self.keep(Event { time_unix_nano: event.at, name: event.change.event_name().to_owned(), attributes, ..Event::default() });
        if event.change == Change::Trip && event.ids != Ids::default() {
            // A text of a library stands on a call that was refused after the breaker had opened, unless it says that this
            // very call opened it; what a breaker reports stands on that one, too.
            let refused_later = event.source == Source::Rejected && event.at < event.decided;
            self.link(event.ids, if refused_later { "rejected" } else { "cause" });
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX { self.events.push(event) } else { self.dropped_events += 1 }
    }

    fn link(&mut self, ids: Ids, kind: &str) {
        if self.links.len() >= LINKS_MAX {
            self.dropped_links += 1;
            return;
        }
        let (trace_id, span_id) = ids.split_at(16);
        let attributes = vec![text("circuit_breaker.link", kind)];
        self.links.push(Link { trace_id: trace_id.to_vec(), span_id: span_id.to_vec(), attributes, ..Link::default() });
    }

    fn base(&self, id: IncidentId) -> Span {
        let mut attributes = vec![
            text("circuit_breaker.name", &*self.name),
            text("circuit_breaker.source", self.source.name()),
            text("circuit_breaker.incident.id", id.to_string()),
        ];
        attributes.extend(self.circuit.callee().map(|callee| text("service.peer.name", callee.into_owned())));
        let trace_id = [derived(2, id), derived(3, id)].concat();
        Span { trace_id, kind: SpanKind::Internal.into(), attributes, start_time_unix_nano: self.since, ..Span::default() }
    }

    /// What shows at the trip.
    fn marker(&self, id: IncidentId) -> Span {
        let mut span = self.base(id);
        span.attributes.push(text("circuit_breaker.state", State::Open.name()));
        Span {
            span_id: derived(5, id).to_vec(),
            parent_span_id: derived(4, id).to_vec(),
            name: format!("circuit trip {}", self.name),
            end_time_unix_nano: self.since + MARKER,
            ..span
        }
    }

    /// All of it.
    fn span(self, id: IncidentId, end: &str) -> Span {
        let mut span = self.base(id);
        span.attributes.push(text("circuit_breaker.incident.end", end));
        Span {
            span_id: derived(4, id).to_vec(),
            name: format!("circuit open {}", self.name),
            end_time_unix_nano: self.last.max(self.since),
            events: self.events,
            dropped_events_count: self.dropped_events,
            links: self.links,
            dropped_links_count: self.dropped_links,
            status: Some(Status { code: 2, message: format!("the circuit was open; {end}") }),
            ..span
        }
    }
}

/// Eight bytes that belong to an incident, never all zero.
fn derived(seed: u64, id: IncidentId) -> [u8; 8] {
    FixedState::with_seed(seed).hash_one(id.0).max(1).to_be_bytes()
}

/// Spans as one request.
pub(super) fn request(spans: &[(Arc<CircuitKey>, Span)]) -> ExportTraceServiceRequest {
    let mut callers: BTreeMap<&Caller, Vec<Span>> = BTreeMap::new();
    for (circuit, span) in spans {
        callers.entry(&circuit.caller).or_default().push(span.clone());
    }
    let resource_spans = callers.into_iter().map(|(caller, spans)| ResourceSpans {
        resource: Some(resource(caller)),
        scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

#[cfg(test)]
mod tests {
    use super::{super::engine::News, *};
    use crate::circuit::{
        analysis::anomaly::Signal,
        finding::{Anomaly, Phase},
    };

    fn event(change: Change, at: u64, incident_duration: Option<u64>) -> Told {
        let caller = Arc::new(Caller { service: "shop".into(), ..Caller::default() });
        Told::Event(CircuitEvent {
            at,
            circuit: Arc::new(CircuitKey { caller, text: "pay".into(), ..CircuitKey::default() }),
            instance: "a".into(),
            change,
            source: Source::Rejected,
            decided: at,
            breaker: None,
            reason: Arc::default(),
            ids: [7; 24],
            window: None,
            incident: Some(IncidentId(42)),
            incident_duration,
            ends_incident: incident_duration.is_some() || change == Change::InstanceGone,
        })
    }

    #[test]
    fn an_incident_is_a_span_with_a_marker_as_its_child() {
        let mut incidents = Incidents::default();
        let marker = incidents.follow(&event(Change::Trip, 10, None));
        let [(_, marker)] = &marker[..] else { panic!("{marker:?}") };
        assert_eq!((marker.name.as_str(), marker.start_time_unix_nano), ("circuit trip pay", 10));
        assert!(incidents.follow(&event(Change::RecoveryAttempt, 20, None)).is_empty());
        let whole = incidents.follow(&event(Change::Recovery, 30, Some(20)));
        let [(_, span)] = &whole[..] else { panic!("{whole:?}") };
        assert_eq!((span.name.as_str(), span.start_time_unix_nano, span.end_time_unix_nano), ("circuit open pay", 10, 30));
        assert_eq!((span.events.len(), span.links.len()), (3, 1));
        assert_eq!((&marker.trace_id, &marker.parent_span_id), (&span.trace_id, &span.span_id));
        assert!(span.trace_id.len() == 16 && span.span_id.len() == 8 && marker.span_id != span.span_id);
        assert!(incidents.going_on.is_empty());
        assert_eq!(request(&whole).resource_spans.len(), 1);
    }

    #[test]
    fn what_was_found_at_the_trip_and_at_the_end_stands_on_the_span() {
        let Told::Event(trip) = event(Change::Trip, 10, None) else { panic!() };
        let Told::Event(recovery) = event(Change::Recovery, 30, Some(20)) else { panic!() };
        let anomaly = Anomaly { signal: Signal::Errors, begin: 10, score: 4.0, expected: 0.01, seen: 0.5, peak: 10 };
        let found = |at: u64, phase: Phase| Finding {
            at,
            circuit: Arc::clone(&trip.circuit),
            instance: Arc::default(),
            incident: trip.incident,
            what: What::Anomaly(phase, anomaly),
        };
        let findings = vec![found(10, Phase::Begin), found(30, Phase::End)];
        let all = News { events: vec![trip.clone(), recovery], findings, ..News::default() }.in_order();
        let mut incidents = Incidents::default();
        let spans: Vec<Span> = all.iter().flat_map(|told| incidents.follow(told)).map(|(_, span)| span).collect();
        let names: Vec<&str> = spans[1].events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["circuit_breaker.trip", "circuit_breaker.anomaly", "circuit_breaker.anomaly", "circuit_breaker.recovery"]);
        assert!(spans[1].events[1].attributes.contains(&text("circuit_breaker.anomaly.phase", "begin")));
    }

    #[test]
    fn an_incident_ends_with_its_last_instance() {
        let mut incidents = Incidents::default();
        incidents.follow(&event(Change::Trip, 10, None));
        (0..1_000).for_each(|_| drop(incidents.follow(&event(Change::RecoveryAttemptFailed, 20, None))));
        let ended = incidents.follow(&event(Change::InstanceGone, 30, None));
        let (_, span) = &ended[0];
        assert_eq!((span.events.len(), span.dropped_events_count as usize), (EVENTS_MAX, 1_002 - EVENTS_MAX));
        assert!(span.attributes.contains(&text("circuit_breaker.incident.end", "instance_gone")));
    }
}
