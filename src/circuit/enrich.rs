//! What spans that pass are told of their circuits: the collector's part that only looks.

use super::{
    bucket::Outcome,
    collector::CircuitBreakerMetricsCollector,
    detect::{lane::Route, rule::Meaning},
    event::IncidentId,
    inspect::{Inspection, Says, SpanRecord, ToldRecord, route_at},
    key::Target,
    member::Member,
    state::{Source, State},
};

/// What there is to add to a span: best effort, from states that are not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrichment {
    /// Where in the request the span's id is.
    pub span_id_at: u32,
    /// The breaker's name, else the callee; `None` where the span says so itself.
    pub name: Option<String>,
    /// The state of the breaker in the instance that sent the span; `None` where the span says so itself.
    pub state: Option<State>,
    /// How that was found out; `None` where the span says something itself.
    pub source: Option<Source>,
    /// How the call ended; `None` where the span says so itself.
    pub outcome: Option<Outcome>,
    /// The incident that goes on.
    pub incident: Option<IncidentId>,
}

impl CircuitBreakerMetricsCollector {
    /// What to add to spans of circuits that are not closed in the instance that sent them, and to calls that were
    /// refused, of the resources that are `mine`. Changes nothing.
    pub fn enrich(&self, request: &[u8], inspection: &Inspection, mine: impl Fn(u32) -> bool) -> Vec<Enrichment> {
        let mut found = Vec::new();
        let mut current: Option<(u32, Option<u32>)> = None;
        let mut process_of = |resource: u32| match current {
            Some((known, process)) if known == resource => process,
            _ => {
                let record = inspection.resources.get(resource as usize).copied().unwrap_or_default();
                let process = self.find_process(request, inspection, &record);
                current = Some((resource, process));
                process
            }
        };
        for span in inspection.spans.iter().filter(|span| mine(span.resource)) {
            let process = process_of(span.resource);
            found.extend(process.and_then(|process| self.enrich_call(process, span, request, inspection)));
        }
        for told in inspection.told.iter().filter(|told| mine(told.resource)) {
            let process = process_of(told.resource);
            found.extend(process.and_then(|process| self.enrich_refused(process, told, request, inspection)));
        }
        found.sort_by_key(|one| one.span_id_at);
        found.dedup_by_key(|one| one.span_id_at);
        found
    }

    fn enrich_call(&self, process: u32, span: &SpanRecord, request: &[u8], inspection: &Inspection) -> Option<Enrichment> {
        let target = Target { named: span.target.named, text: inspection.text(request, span.target.text), port: span.target.port };
        let seat = self.known_place(process, &target, || Route::of(route_at(request, span.route)))?;
        let circuit = self.circuits.get(seat.circuit as usize)?;
        let member = circuit.members.get(seat.member? as usize)?;
        let state = member.provisional().unwrap_or(State::Closed);
        if state == State::Closed && span.outcome != Outcome::Rejected || span.says.own {
            return None;
        }
        // An open breaker lets nothing through: what was sent went past it, or it is open no more and that is not known yet.
        if matches!(state, State::Open | State::ForcedOpen) && span.outcome != Outcome::Rejected && !member.reports() {
            return None;
        }
        // And only one that is not closed refuses.
        let state = if state == State::Closed { State::Open } else { state };
        Some(Enrichment {
            span_id_at: span.ids.1,
            name: (!span.says.name).then(|| circuit.key().name()),
            state: (!span.says.state).then_some(state),
            // What stands beside it is then the application's word, and must be taken for that further on.
            source: (span.says == Says::default()).then(|| source(member)),
            outcome: (!span.says.outcome).then_some(span.outcome),
            incident: circuit.sure_incident(process),
        })
    }

    fn enrich_refused(&self, index: u32, told: &ToldRecord, request: &[u8], inspection: &Inspection) -> Option<Enrichment> {
        if !told.meaning.turns_away() || told.says.own {
            return None;
        }
        let name = inspection.text(request, told.name);
        let circuit = self.named_circuit(index, name).or_else(|| self.refused_by(index, &[])).and_then(|number| self.circuits.get(number as usize));
        let name = if name.is_empty() { circuit.map(|circuit| circuit.key().name()) } else { Some(String::from_utf8_lossy(name).into_owned()) };
        let state = match told.meaning {
            Meaning::Full => Some(State::HalfOpen),
            Meaning::ForcedOpen => Some(State::ForcedOpen),
            Meaning::Limit => None,
            _ => Some(State::Open),
        };
        Some(Enrichment {
            span_id_at: told.ids.1,
            name: name.filter(|_| !told.says.name),
            state: state.filter(|_| !told.says.state),
            source: (told.says == Says::default()).then_some(Source::Rejected),
            outcome: (!told.says.outcome).then_some(Outcome::Rejected),
            incident: circuit.and_then(|circuit| circuit.sure_incident(index)),
        })
    }
}

/// How a member's state was found out.
fn source(member: &Member) -> Source {
    if member.reports() { Source::Reported } else { member.suspected_source().unwrap_or(Source::Rejected) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::circuit::{
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        room::Room,
        testing::{SECOND, START, call, request, text, transition},
    };

    #[test]
    fn spans_of_a_circuit_that_is_not_closed_are_enriched_and_no_others() {
        let config = CircuitMetricsConfig::default();
        let room = Arc::new(Room::new(config.max_circuits));
        let mut collector = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
        let to = |callee: &str, id: u64, end: u64| call(id, end - 1, end, vec![text("server.address", callee)]);
        let mut tripped = to("pay", 1, START);
        tripped.events = vec![transition(START - 1, "closed", "open")];
        let first = request("shop", "a", vec![tripped]);
        let seen = inspect(&first, 0, &Rules::default(), u64::MAX).unwrap();
        assert_eq!(collector.enrich(&first, &seen, |_| true), [], "nothing is known yet");
        collector.apply(&first, &seen, |_| true, START);
        collector.advance(START + 30 * SECOND, &mut Vec::new());
        let next = request("shop", "a", vec![to("pay", 2, START + SECOND), to("stock", 3, START + SECOND)]);
        let seen = inspect(&next, 0, &Rules::default(), u64::MAX).unwrap();
        let found = collector.enrich(&next, &seen, |_| true);
        let [only] = &found[..] else { panic!("{found:?}") };
        let id = &next[only.span_id_at as usize..][..8];
        assert_eq!((id, only.name.as_deref(), only.state), (&2_u64.to_be_bytes()[..], Some("pay"), Some(State::Open)));
        assert_eq!((only.source, only.outcome), (Some(Source::Reported), Some(Outcome::Success)));
        assert!(only.incident.is_some());
        let other = request("shop", "b", vec![to("pay", 2, START + SECOND)]);
        let seen = inspect(&other, 0, &Rules::default(), u64::MAX).unwrap();
        assert_eq!(collector.enrich(&other, &seen, |_| true), [], "another instance is closed");
    }
}
