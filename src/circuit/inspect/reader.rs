use smallvec::SmallVec;

use super::{
    super::{
        bucket::Outcome,
        detect::rule::{Match, Said},
        key::{Kind, TEXT_BYTES_MAX, authority, callee, host_in, is_address, is_end_of_authority, kept, rpc_service, spelled},
        state::State,
    },
    failure::{FailureRule, GRPC_STATUSES, grpc_status},
    keys::{Rules, Shape},
    record::{
        BESIDE, ErrorText, Inspection, ObservationRecord, ResourceRecord, RootRecord, RpcRecord, Says, SpanRecord, TargetRecord, Text, ToldRecord,
        UnnamedRecord, UnreadRecord,
    },
    slots::{SLOTS_MAX, Slot},
    transition::{Transition, says_something},
};
use crate::otlp::{
    Malformed, Value,
    trace::{Event, Span, Visitor, walk},
};

/// Reads a request once. Costs no allocation per span. Spans that end beyond the `horizon` are from the future: they
/// are counted as such and otherwise left out.
///
/// # Errors
/// The bytes are no `ExportTraceServiceRequest`.
pub fn inspect(request: &[u8], spans: usize, rules: &Rules, horizon: u64) -> Result<Inspection, Malformed> {
    let inspection = Inspection { spans: Vec::with_capacity(spans), ..Inspection::default() };
    let mut reader = Reader {
        request,
        rules,
        horizon,
        inspection,
        resource: Resource::default(),
        values: [&[]; SLOTS_MAX],
        present: 0,
        says: Says::default(),
        events: Vec::new(),
        exceptions: Vec::new(),
        last_told: Vec::new(),
        last_url: None,
        last_name: None,
        last_rpc: SmallVec::new(),
        last_error: None,
    };
    walk(request, &mut reader)?;
    Ok(reader.inspection)
}

/// A status of HTTP or gRPC, in digits.
fn is_number(kind: &[u8]) -> bool {
    kind.iter().all(u8::is_ascii_digit)
}

/// Different words that are remembered within a request.
const TOLD_MAX: usize = 8;

/// What an exception says.
fn said_by<'a>(exception: &Event<'a>) -> Said<'a> {
    let mut said = Said::default();
    exception.attributes(|key, value| {
        let into = match key {
            b"exception.type" => &mut said.kind,
            b"exception.message" => &mut said.message,
            b"exception.stacktrace" => &mut said.stack_trace,
            _ => return,
        };
        if let Value::Text(text) = Value::read(value) {
            *into = text;
        }
    });
    said
}

/// What was said once, as it was serialised, and what that means.
struct KnownTold<'a> {
    exceptions: SmallVec<[&'a [u8]; 2]>,
    kind: &'a [u8],
    message: &'a [u8],
    found: Option<Match<'a>>,
}

/// A call of an RPC service at an address: resource, host, port, and the value that names the service.
type Rpc<'a> = (u32, &'a [u8], Option<u16>, &'a [u8]);

/// Exceptions that are looked at in one span: each attempt of a retry may have its own.
const EXCEPTIONS_MAX: usize = 16;

/// Transitions that are looked at in one span.
const EVENTS_MAX: usize = 64;

struct Reader<'a> {
    request: &'a [u8],
    rules: &'a Rules,
    horizon: u64,
    inspection: Inspection,
    resource: Resource<'a>,
    /// Attributes of the present span by slot, as serialised `AnyValue`; those not `present` are of an earlier one.
    values: [&'a [u8]; SLOTS_MAX],
    present: u64,
    /// What the present span says of a breaker itself.
    says: Says,
    /// Events of the present span that tell of transitions.
    events: Vec<Event<'a>>,
    /// Exceptions of the present span.
    exceptions: Vec<Event<'a>>,
    /// What was said last, and what that means.
    last_told: Vec<KnownTold<'a>>,
    /// How the URL began that was read last, and what it calls: a service often calls one callee several times.
    last_url: Option<(&'a [u8], Found<'a>)>,
    /// The name or host that was read last, for the same reason.
    last_name: Option<LastName<'a>>,
    /// Hosts and the RPC services that were called there last: resource, host, port, service as it was serialised.
    last_rpc: SmallVec<[Rpc<'a>; RPC_MAX]>,
    /// What went wrong last, and whether that is ignored.
    last_error: Option<LastError<'a>>,
}

/// RPC services that are remembered within a request.
const RPC_MAX: usize = 8;

/// What went wrong, as it was serialised.
struct LastError<'a> {
    rule: &'a FailureRule,
    kind: &'a [u8],
    message: &'a [u8],
    exception: &'a [u8],
    is_ignored: bool,
}

/// Whether a span's times can be: one whose start was never set would have lasted for half a century.
#[inline]
const fn is_timed(span: &Span<'_>) -> bool {
    span.start != 0 && span.start <= span.end
}

/// A name or host as it was read, serialised, and what it calls.
struct LastName<'a> {
    slot: Slot,
    value: &'a [u8],
    /// Of a host: its port; empty if there is none.
    port: &'a [u8],
    /// The database or queue that it is within; empty if there is none.
    system: &'a [u8],
    found: Found<'a>,
}

/// Scheme and authority of a URL; `None` where it has no scheme.
fn origin(url: &[u8]) -> Option<&[u8]> {
    let authority = url.iter().position(|byte| *byte == b':').filter(|at| url.get(at + 1..at + 3) == Some(b"//"))? + 3;
    let end = url.get(authority..)?.iter().position(|byte| is_end_of_authority(*byte)).map_or(url.len(), |end| authority + end);
    url.get(..end)
}

/// Whether a URL has this scheme and authority.
#[inline]
fn continues(url: &[u8], origin: &[u8]) -> bool {
    url.strip_prefix(origin).is_some_and(|rest| rest.first().is_none_or(|byte| is_end_of_authority(*byte)))
}

/// Attributes of the present resource.
#[derive(Default)]
struct Resource<'a> {
    environment: &'a [u8],
    namespace: &'a [u8],
    service: &'a [u8],
    instance: &'a [u8],
    pod: &'a [u8],
    host: &'a [u8],
    process: Option<i64>,
    /// Whether it is among the records already.
    recorded: bool,
}

impl<'a> Visitor<'a> for Reader<'a> {
    fn resource(&mut self) {
        self.resource = Resource::default();
    }

    fn resource_attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
        let resource = &mut self.resource;
        let into = match key {
            b"service.name" => &mut resource.service,
            b"service.namespace" => &mut resource.namespace,
            b"service.instance.id" => &mut resource.instance,
            b"deployment.environment.name" => &mut resource.environment,
            // Its name before semantic conventions 1.27.
            b"deployment.environment" if resource.environment.is_empty() => &mut resource.environment,
            b"k8s.pod.name" => &mut resource.pod,
            b"host.name" => &mut resource.host,
            b"process.pid" => return resource.process = Value::read(value).number(),
            _ => return,
        };
        if let Value::Text(text) = Value::read(value) {
            *into = text;
        }
    }

    #[inline]
    fn attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
        if let Some(slot) = self.rules.slot(key)
            && let Some(place) = self.values.get_mut(usize::from(slot))
        {
            *place = value;
            self.present |= 1 << slot;
        }
    }

    #[inline]
    fn event(&mut self, event: Event<'a>) {
        if event.name == b"exception" {
            // Of too many, the last tells what it came to.
            self.exceptions.truncate(EXCEPTIONS_MAX - 1);
            self.exceptions.push(event);
        }
        if self.events.len() < EVENTS_MAX && self.is_transition(event.name) {
            self.events.push(event);
        }
    }

    #[inline]
    fn span(&mut self, span: &Span<'a>) {
        if span.end > self.horizon {
            self.inspection.future += 1;
            self.events.clear();
        } else {
            let resource = self.resource_index();
            if let Some(record) = self.inspection.resources.last_mut() {
                record.newest_end = record.newest_end.max(span.end);
            }
            self.says = if self.present & self.rules.breakers == 0 { Says::default() } else { self.said_of_breaker() };
            let told = if self.rules.detects && self.may_tell(span) { self.told(span) } else { None };
            match self.target(span) {
                Some(target) => {
                    // Where the callee answered, a text in a message is what it answered.
                    let told = told.filter(|told| told.typed || !self.is_answered(span));
                    self.call(span, resource, target, told);
                    told.into_iter().for_each(|told| self.note_told(span, resource, told, Some(target.record)));
                }
                None => {
                    self.inspection.without_circuit += 1;
                    if self.present & self.rules.states != 0 {
                        self.note_unnamed(span, resource);
                    }
                    told.into_iter().for_each(|told| self.note_told(span, resource, told, None));
                    if self.rules.detects && (matches!(span.kind, 2 | 5) || span.parent_span_id.is_empty()) {
                        self.root(span, resource);
                    }
                }
            }
            if !self.events.is_empty() {
                self.transitions(span, resource, told.is_some_and(|told| told.meaning.turns_away()));
            }
        }
        self.present = 0;
        self.exceptions.clear();
    }
}

/// The target of a span.
#[derive(Clone, Copy)]
struct Found<'a> {
    /// As the span tells it.
    text: &'a [u8],
    record: TargetRecord,
    /// Whether the port depends on a scheme that stands elsewhere.
    by_scheme: bool,
}

impl<'a> Reader<'a> {
    #[inline]
    fn value(&self, slot: Slot) -> Option<Value<'a>> {
        (self.present >> slot & 1 == 1).then(|| self.values.get(usize::from(slot)).map(|value| Value::read(value))).flatten()
    }

    /// The serialised value of a slot; empty if it is not there.
    #[inline]
    fn raw(&self, slot: Slot) -> &'a [u8] {
        if self.present >> slot & 1 == 1 { self.values.get(usize::from(slot)).copied().unwrap_or_default() } else { &[] }
    }

    #[inline]
    fn named(&self, slot: Slot) -> Option<&'a [u8]> {
        match self.value(slot)? {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The first of these slots, in order of rank, that holds a text.
    #[inline]
    fn first_of(&self, slots: u64) -> Option<(Slot, &'a [u8])> {
        let mut left = self.present & slots;
        while left != 0 {
            let slot = Slot::try_from(left.trailing_zeros()).unwrap_or(Slot::MAX);
            if let Some(text) = self.named(slot) {
                return Some((slot, text));
            }
            left &= left - 1;
        }
        None
    }

    /// What the present span says of a breaker. What a Fuseboard on the way said is not read again.
    fn said_of_breaker(&mut self) -> Says {
        let has = |slots: u64| self.present & slots != 0;
        let Rules { names, states, outcomes, fixed, .. } = self.rules;
        let says = Says { name: has(*names), state: has(*states), outcome: has(*outcomes), own: has(1 << fixed.own) };
        if says.own {
            self.present &= !(names | states | outcomes);
        }
        says
    }

    /// The circuit a span belongs to.
    #[inline]
    fn target(&mut self, span: &Span<'a>) -> Option<Found<'a>> {
        if self.present & self.rules.names != 0
            && let Some((_, text)) = self.first_of(self.rules.names)
        {
            return Some(self.breaker(text));
        }
        let is_call = u32::try_from(span.kind).ok().and_then(|kind| self.rules.span_kinds.checked_shr(kind)).is_some_and(|kinds| kinds & 1 == 1);
        if !is_call {
            return None;
        }
        if let Some(last) = &self.last_name
            && self.is_again(last)
        {
            return Some(last.found);
        }
        self.new_target()
    }

    /// Whether the first attribute that may name the callee is the one that was read last.
    #[inline]
    fn is_again(&self, last: &LastName<'a>) -> bool {
        let first = (self.present & self.rules.targets).trailing_zeros();
        u32::from(last.slot) == first
            && self.raw(last.slot) == last.value
            && self.raw_system() == last.system
            && match self.rules.shapes.get(usize::from(last.slot)) {
                Some(Shape::Host(port)) => self.raw(*port) == last.port,
                _ => true,
            }
    }

    /// A callee that may be another than the last span's.
    fn new_target(&mut self) -> Option<Found<'a>> {
        let system = self.system();
        let mut left = self.rules.targets;
        loop {
            let (slot, text) = self.first_of(left)?;
            let shape = self.rules.shapes.get(usize::from(slot)).copied().unwrap_or(Shape::Name);
            if shape == Shape::Url
                && let Some((_, found)) = self.last_url.filter(|(start, _)| continues(text, start))
            {
                let record = TargetRecord { kind: kind_of(system, Kind::Address), ..found.record };
                return Some(Found { record, ..found });
            }
            if let Some(found) = self.read(shape, text, system) {
                match shape {
                    Shape::Url => self.last_url = origin(text).map(|start| (start, found)).or(self.last_url),
                    _ => self.remember(slot, shape, found),
                }
                return Some(found);
            }
            left &= !(1 << slot);
        }
    }

    fn remember(&mut self, slot: Slot, shape: Shape, found: Found<'a>) {
        // What the port is depends on the scheme, which may be another the next time.
        if found.by_scheme {
            return;
        }
        let port = if let Shape::Host(port) = shape { self.raw(port) } else { &[] };
        self.last_name = Some(LastName { slot, value: self.raw(slot), port, system: self.raw_system(), found });
    }

    /// The database or queue that is called, if it is one: its kind, and which system it is.
    #[inline]
    fn system(&self) -> Option<(Kind, &'a [u8])> {
        if self.present & self.rules.systems == 0 {
            return None;
        }
        let fixed = &self.rules.fixed;
        let topic = self.named(fixed.messaging_system).map(|system| (Kind::Topic, system));
        topic.or_else(|| self.named(fixed.db_system).or_else(|| self.named(fixed.old_db_system)).map(|system| (Kind::Database, system)))
    }

    /// What tells that, serialised; empty if nothing does.
    #[inline]
    fn raw_system(&self) -> &'a [u8] {
        let found = self.present & self.rules.systems;
        if found == 0 { &[] } else { self.values.get(found.trailing_zeros() as usize).copied().unwrap_or_default() }
    }

    /// The callee in an attribute; `None` if there is none in it.
    fn read(&mut self, shape: Shape, text: &'a [u8], system: Option<(Kind, &'a [u8])>) -> Option<Found<'a>> {
        let (name, own) = match shape {
            Shape::Host(_) | Shape::Url => return self.read_host(shape, text, system),
            Shape::Within(kind) => return Some(self.within_system(kind, text, system)),
            Shape::RpcMethod => (rpc_service(text)?, Kind::Rpc),
            Shape::RpcService => (text, Kind::Rpc),
            Shape::Name => (text, Kind::Service),
        };
        let record = TargetRecord { named: false, text: self.text(name), port: None, kind: kind_of(system, own), own_at: 0 };
        Some(Found { text: name, record, by_scheme: false })
    }

    fn read_host(&mut self, shape: Shape, text: &'a [u8], system: Option<(Kind, &'a [u8])>) -> Option<Found<'a>> {
        let (scheme, host, port) = match shape {
            Shape::Host(slot) => {
                let (scheme, host, port) = host_in(text);
                let said = self.value(slot).and_then(Value::number).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
                (scheme, host, said.or(port))
            }
            _ => authority(text),
        };
        if host.is_empty() {
            return None;
        }
        let respelled = spelled(host);
        let one = respelled.as_deref().unwrap_or(host);
        let (port, by_scheme) = self.port(one, port, scheme);
        let text = match &respelled {
            Some(spelled) => self.mended_beside(spelled),
            None => self.text(host),
        };
        let record = TargetRecord { named: false, text, port, kind: kind_of(system, Kind::Address), own_at: 0 };
        Some(Found { text: host, record, by_scheme })
    }

    /// The part of a host's port that belongs to its name, and whether that depends on the scheme.
    fn port(&self, host: &[u8], port: Option<u16>, scheme: Option<&[u8]>) -> (Option<u16>, bool) {
        let by_scheme = match port {
            Some(port) => matches!(port, 80 | 443),
            None => is_address(host),
        };
        if !by_scheme {
            return (port, false);
        }
        let fixed = &self.rules.fixed;
        let scheme = scheme.or_else(|| self.named(fixed.scheme)).or_else(|| self.named(fixed.old_scheme));
        (callee(host, port, scheme).port, true)
    }

    /// A database or topic by its own name, behind that of its system: `kafka:orders`.
    fn within_system(&mut self, own: Kind, text: &'a [u8], system: Option<(Kind, &'a [u8])>) -> Found<'a> {
        let (kind, system) = system.unwrap_or((own, own.name().as_bytes()));
        let mut whole: SmallVec<[u8; 128]> = SmallVec::from_slice(system);
        whole.push(b':');
        let own_at = u8::try_from(whole.len()).unwrap_or_default();
        whole.extend_from_slice(text);
        let record = TargetRecord { named: false, text: self.mended_beside(&whole), port: None, kind, own_at };
        Found { text, record, by_scheme: false }
    }

    fn breaker(&mut self, name: &'a [u8]) -> Found<'a> {
        Found { text: name, record: TargetRecord { named: true, text: self.text(name), ..TargetRecord::default() }, by_scheme: false }
    }

    /// Notes where a text is. One that is too long is cut, one that is no UTF-8 mended beside the request.
    #[inline]
    fn text(&mut self, text: &[u8]) -> Text {
        if text.is_ascii() && text.len() <= TEXT_BYTES_MAX {
            return self.within(text);
        }
        self.mended(text)
    }

    #[inline]
    fn within(&self, text: &[u8]) -> Text {
        let at = u32::try_from((text.as_ptr() as usize).wrapping_sub(self.request.as_ptr() as usize));
        at.ok().filter(|at| at & BESIDE == 0).map_or_else(Text::default, |at| Text { at, len: u16::try_from(text.len()).unwrap_or_default() })
    }

    #[cold]
    fn mended(&mut self, text: &[u8]) -> Text {
        let cut = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
        match std::str::from_utf8(cut) {
            Ok(_) => self.within(cut),
            // Cut within a character.
            Err(error) if error.error_len().is_none() && cut.len() < text.len() => self.within(cut.get(..error.valid_up_to()).unwrap_or_default()),
            Err(_) => self.mended_beside(cut),
        }
    }

    /// Keeps a text that does not stand in the request as it is.
    fn mended_beside(&mut self, text: &[u8]) -> Text {
        let mended = kept(text);
        self.beside(mended.as_bytes().get(..TEXT_BYTES_MAX.min(mended.len())).unwrap_or_default())
    }

    fn beside(&mut self, text: &[u8]) -> Text {
        let at = u32::try_from(self.inspection.beside.len()).ok().filter(|at| at & BESIDE == 0);
        self.inspection.beside.extend_from_slice(text);
        at.map_or_else(Text::default, |at| Text { at: at | BESIDE, len: u16::try_from(text.len()).unwrap_or_default() })
    }

    /// Index of the present resource among the records.
    #[inline]
    fn resource_index(&mut self) -> u32 {
        if !self.resource.recorded {
            self.record_resource();
        }
        u32::try_from(self.inspection.resources.len()).unwrap_or(u32::MAX) - 1
    }

    fn record_resource(&mut self) {
        let Resource { environment, namespace, service, instance, pod, host, process, .. } = std::mem::take(&mut self.resource);
        self.resource.recorded = true;
        let instance = match (instance, pod, host, process) {
            ([_, ..], ..) => self.text(instance),
            (_, [_, ..], ..) => self.text(pod),
            (_, _, [_, ..], Some(process)) => {
                let host = kept(host);
                self.beside(format!("{host}:{process}").as_bytes())
            }
            _ => self.text(host),
        };
        let (environment, namespace, service) = (self.text(environment), self.text(namespace), self.text(service));
        let record = ResourceRecord { environment, namespace, service, instance, newest_end: 0 };
        self.inspection.resources.push(record);
    }

    fn ids(&self, span: &Span<'_>) -> (u32, u32) {
        (self.within(span.trace_id).at, self.within(span.span_id).at)
    }

    /// Keeps what a call tells.
    #[inline]
    fn call(&mut self, span: &Span<'a>, resource: u32, target: Found<'a>, told: Option<Match<'a>>) {
        if !is_timed(span) {
            self.inspection.invalid_time += 1;
            return;
        }
        if self.present & self.rules.rpc_services != 0 && target.record.kind == Kind::Address {
            self.note_rpc(resource, target);
        }
        let (outcome, error) = match told {
            // Turned away on this side: nothing was sent.
            Some(Match { meaning, .. }) if meaning.turns_away() => (Outcome::Rejected, ErrorText::Unknown),
            _ => self.outcome(span, target.record.text),
        };
        let weight = if span.trace_state.is_empty() || !self.rules.extrapolate { 1 } else { weight(span.trace_state, span.span_id) };
        let ids = self.ids(span);
        if self.present & self.rules.states != 0
            && let Some(state) = self.told_state(resource)
        {
            // Instrumentations note the state before they ask the breaker.
            let (target, route, order, at) = (target.record, self.route(), span.end, span.start);
            let observation = ObservationRecord { resource, target, route, order, at, state, step: 0, changes: false, ids };
            self.inspection.observations.push(observation);
        }
        let (target, start, end, route) = (target.record, span.start, span.end, self.route());
        let (alone, says) = (span.parent_span_id.is_empty(), self.says);
        let answered = outcome == Outcome::Failure && self.is_answered(span);
        self.inspection.spans.push(SpanRecord { resource, target, start, end, outcome, error, route, alone, answered, says, weight, ids });
    }

    /// Notes which RPC service is called at an address, once in a request as a rule: spans of calls for which there was no
    /// connection tell nothing else.
    #[inline]
    fn note_rpc(&mut self, resource: u32, target: Found<'a>) {
        let slot = (self.present & self.rules.rpc_services).trailing_zeros();
        let value = self.values.get(slot as usize).copied().unwrap_or_default();
        let this = (resource, target.text, target.record.port, value);
        if !self.last_rpc.contains(&this) {
            self.new_rpc(this, target.record);
        }
    }

    #[cold]
    fn new_rpc(&mut self, this: Rpc<'a>, target: TargetRecord) {
        if self.last_rpc.len() >= RPC_MAX {
            self.last_rpc.remove(0);
        }
        self.last_rpc.push(this);
        let Some((slot, text)) = self.first_of(self.rules.rpc_services) else { return };
        let is_method = self.rules.shapes.get(usize::from(slot)) == Some(&Shape::RpcMethod);
        let service = if is_method { rpc_service(text) } else { Some(text) };
        if let Some(service) = service {
            let record = RpcRecord { resource: this.0, target, route: self.route(), service: self.text(service) };
            self.inspection.rpc_services.push(record);
        }
    }

    /// Where what the span asks for is, as it was serialised.
    #[inline]
    fn route(&self) -> Text {
        let found = self.present & self.rules.routes;
        if found == 0 || !self.rules.detects {
            return Text::default();
        }
        let value = self.values.get(found.trailing_zeros() as usize).copied().unwrap_or_default();
        self.within(value)
    }

    /// Whether a span may hold a text of a breaker's library: only those with an error that is put in words do.
    #[inline]
    fn may_tell(&self, span: &Span<'_>) -> bool {
        if !self.exceptions.is_empty() || self.present & self.rules.flagged != 0 {
            return true;
        }
        // Statuses of HTTP are no words.
        span.status == 2 && (!span.status_message.is_empty() || self.named(self.rules.fixed.error_type).is_some_and(|kind| !is_number(kind)))
    }

    /// What a span says of a breaker. What goes wrong goes wrong in the same words, again and again: those are searched once.
    #[inline(never)]
    fn told(&mut self, span: &Span<'a>) -> Option<Match<'a>> {
        if self.present & self.rules.flagged != 0 {
            return self.search(span);
        }
        let (kind, message) = (self.raw(self.rules.fixed.error_type), span.status_message);
        let same = |known: &&KnownTold<'_>| {
            known.message == message
                && known.kind == kind
                && known.exceptions.len() == self.exceptions.len()
                && known.exceptions.iter().zip(&self.exceptions).all(|(known, exception)| *known == exception.without_time())
        };
        if let Some(known) = self.last_told.iter().find(same) {
            return known.found;
        }
        let found = self.search(span);
        if self.last_told.len() >= TOLD_MAX {
            self.last_told.remove(0);
        }
        let exceptions = self.exceptions.iter().map(Event::without_time).collect();
        self.last_told.push(KnownTold { exceptions, kind, message, found });
        found
    }

    fn search(&self, span: &Span<'a>) -> Option<Match<'a>> {
        let matcher = self.rules.matcher.as_ref()?;
        let mut said: SmallVec<[Said<'a>; 3]> = self.exceptions.iter().map(said_by).collect();
        said.push(Said { kind: self.named(self.rules.fixed.error_type).unwrap_or_default(), message: span.status_message, stack_trace: &[] });
        matcher.find(&said, |key| {
            let slot = self.rules.flags.iter().find(|(known, _)| **known == *key).map(|(_, slot)| *slot);
            slot.and_then(|slot| self.named(slot)).unwrap_or_default()
        })
    }

    fn note_told(&mut self, span: &Span<'a>, resource: u32, told: Match<'a>, target: Option<TargetRecord>) {
        if !is_timed(span) {
            return;
        }
        let (name, ids) = (self.text(told.name), self.ids(span));
        let Match { meaning, rule, typed, answer, .. } = told;
        let said_at = self.exceptions.last().map(|exception| exception.time).filter(|at| (span.start..=span.end).contains(at));
        let (at, start, end) = (said_at.unwrap_or(span.start), span.start, span.end);
        self.inspection.told.push(ToldRecord {
            resource,
            meaning,
            rule,
            typed,
            answer,
            name,
            target,
            route: self.route(),
            says: self.says,
            at,
            start,
            end,
            ids,
        });
    }

    #[inline]
    fn root(&mut self, span: &Span<'a>, resource: u32) {
        if !is_timed(span) {
            self.inspection.invalid_time += 1;
            return;
        }
        let aborted = span.status == 2 || self.http().is_some_and(|status| status >= 400) || self.grpc().is_some_and(|status| status > 0);
        let (operation, ids) = (self.text(span.name), self.ids(span));
        if self.inspection.roots.capacity() == 0 {
            // About one span in so many is one.
            self.inspection.roots.reserve(self.inspection.spans.capacity() / 4);
        }
        let parent = if span.kind != 2 || span.parent_span_id.is_empty() { 0 } else { self.within(span.parent_span_id).at };
        self.inspection.roots.push(RootRecord { resource, operation, start: span.start, end: span.end, aborted, ids, parent });
    }

    #[inline]
    fn outcome(&mut self, span: &Span<'a>, target: Text) -> (Outcome, ErrorText) {
        let rules = self.rules;
        let rule = if rules.overrides.is_empty() { &rules.failure } else { rules.failure_of(self.inspection.text(self.request, target)) };
        let outcome = match self.told_outcome() {
            Some(told) => told,
            None if self.failed(span, rule) && !self.is_ignored(span, rule) => Outcome::Failure,
            None => Outcome::Success,
        };
        if outcome != Outcome::Failure {
            return (outcome, ErrorText::Unknown);
        }
        if let Some(text) = self.named(rules.fixed.error_type) {
            return (outcome, ErrorText::Type(self.text(text)));
        }
        let status = self.grpc().map(ErrorText::Grpc).or_else(|| self.http().map(ErrorText::Http));
        let error = match (status, self.exceptions.last().map(said_by)) {
            (Some(status), _) => status,
            (None, Some(Said { kind: kind @ [_, ..], .. })) => ErrorText::Type(self.text(kind)),
            (None, _) => ErrorText::Unknown,
        };
        (outcome, error)
    }

    /// Whether what went wrong is none of the callee's failures. The same goes wrong again and again: it is looked at once.
    fn is_ignored(&mut self, span: &Span<'a>, rule: &'a FailureRule) -> bool {
        let kind = self.named(self.rules.fixed.error_type).filter(|kind| !is_number(kind)).unwrap_or_default();
        let (message, exception) = (span.status_message, self.exceptions.last().map(Event::without_time).unwrap_or_default());
        // What is ignored by default is of clients of databases and caches: a status of HTTP or gRPC is an answer of a service.
        let is_answered = rule.ignores_by_default && (self.grpc().is_some() || self.http().is_some());
        if rule.ignore.is_empty() || is_answered || kind.is_empty() && message.is_empty() && exception.is_empty() {
            return false;
        }
        if let Some(last) = &self.last_error
            && std::ptr::eq(last.rule, rule)
            && (last.kind, last.message, last.exception) == (kind, message, exception)
        {
            return last.is_ignored;
        }
        let said = self.exceptions.last().map(said_by).unwrap_or_default();
        let is_ignored = rule.ignores(kind, message) || rule.ignores(said.kind, said.message);
        self.last_error = Some(LastError { rule, kind, message, exception, is_ignored });
        is_ignored
    }

    /// What the breaker's instrumentation says itself.
    #[inline]
    fn told_outcome(&self) -> Option<Outcome> {
        let mut left = self.present & self.rules.outcomes;
        while left != 0 {
            let slot = Slot::try_from(left.trailing_zeros()).unwrap_or(Slot::MAX);
            match self.value(slot) {
                Some(Value::Bool(true)) => return Some(Outcome::Rejected),
                Some(Value::Text(text)) => {
                    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
                    if is(&["rejected", "short_circuited", "not_permitted", "true"]) {
                        return Some(Outcome::Rejected);
                    }
                    if is(&["failure", "failed", "error"]) {
                        return Some(Outcome::Failure);
                    }
                    // What a breaker leaves out of account did not fail, as far as the breaker goes.
                    if is(&["success", "ok", "cancelled", "ignored"]) {
                        return Some(Outcome::Success);
                    }
                }
                _ => {}
            }
            left &= left - 1;
        }
        None
    }

    #[inline]
    fn failed(&self, span: &Span<'_>, rule: &FailureRule) -> bool {
        if let Some(status) = self.grpc() {
            return rule.grpc(status);
        }
        match self.http() {
            Some(status) => rule.http(status),
            // Only where there was no answer does the span's own status speak for it.
            None => rule.span_status && (span.status == 2 || self.named(self.rules.fixed.error_type).is_some()),
        }
    }

    /// Whether the callee of a CLIENT span answered: there is a status of HTTP, or one of gRPC that no client makes itself.
    fn is_answered(&self, span: &Span<'_>) -> bool {
        // OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and UNAVAILABLE are made by clients, too.
        let by_callee = |status: u8| !matches!(status, 0 | 1 | 2 | 4 | 8 | 14);
        span.kind == 3 && (self.http().is_some() || self.grpc().is_some_and(by_callee))
    }

    /// Whether an event may tell of a transition, by its name in any case.
    fn is_transition(&self, name: &[u8]) -> bool {
        let is = |name: &[u8]| self.rules.transition_events.iter().any(|pattern| pattern.matches(name));
        is(name) || name.iter().any(u8::is_ascii_uppercase) && is(&name.to_ascii_lowercase())
    }

    #[inline]
    fn http(&self) -> Option<u16> {
        let fixed = &self.rules.fixed;
        let status = self.value(fixed.http_status).or_else(|| self.value(fixed.old_http_status))?;
        status.number().and_then(|status| u16::try_from(status).ok()).filter(|status| *status > 0)
    }

    #[inline]
    fn grpc(&self) -> Option<u8> {
        let mut left = self.present & self.rules.rpc;
        while left != 0 {
            let slot = Slot::try_from(left.trailing_zeros()).unwrap_or(Slot::MAX);
            if let Some(status) = self.value(slot).and_then(grpc_of) {
                return Some(status);
            }
            left &= left - 1;
        }
        None
    }

    /// Keeps the transitions that events of a span tell of.
    #[cold]
    fn transitions(&mut self, span: &Span<'a>, resource: u32, refused: bool) {
        let mut step = 0;
        for event in std::mem::take(&mut self.events) {
            self.transition(span, resource, event, refused, &mut step);
        }
    }

    fn transition(&mut self, span: &Span<'a>, resource: u32, event: Event<'a>, refused: bool, step: &mut u8) {
        let Transition { from, to, changes, by_name, name, unread } = Transition::read(event, self.rules);
        // An event that is sent with each refusal tells of the refusal, and of no change.
        if by_name && to == Some(State::Open) && refused {
            return;
        }
        let Some(to) = to else {
            if let Some((key, value)) = unread {
                let key = self.text(key);
                self.note_unread(resource, key, value);
            }
            return;
        };
        let (order, at) = (span.end, event.time);
        if order == 0 || at == 0 {
            self.inspection.invalid_time += 1;
            return;
        }
        let target = match name {
            Some(name) => Some(self.breaker(name)),
            None => self.target(span),
        };
        // Without the state before, it may be said again and again: as a state that a call found.
        let (first, changes) = if from.is_some() { (step.saturating_add(1), false) } else { (0, changes) };
        let (operation, ids) = (self.text(span.name), self.ids(span));
        let told = UnnamedRecord { resource, operation, order, at, from, to, step: first, changes, ids };
        if from.is_some() {
            *step = step.saturating_add(2);
        }
        let Some(target) = target else { return self.inspection.unnamed.push(told) };
        for (state, step) in told.states() {
            let observation = ObservationRecord { resource, target: target.record, route: self.route(), order, at, state, step, changes, ids };
            self.inspection.observations.push(observation);
        }
    }

    /// The state that the span's attributes tell: of several the first that can be read counts.
    #[inline(never)]
    fn told_state(&mut self, resource: u32) -> Option<State> {
        let rules = self.rules;
        let (mut left, mut unread) = (self.present & rules.states, None);
        while left != 0 {
            let slot = Slot::try_from(left.trailing_zeros()).unwrap_or(Slot::MAX);
            if let Some(state) = self.named(slot).and_then(State::named) {
                return Some(state);
            }
            if says_something(self.raw(slot)) {
                unread = unread.or(Some(slot));
            }
            left &= left - 1;
        }
        if let Some(slot) = unread {
            let key = self.beside(rules.key(slot));
            self.note_unread(resource, key, Value::read(self.raw(slot)));
        }
        None
    }

    /// Counts a state that can't be read.
    #[cold]
    fn note_unread(&mut self, resource: u32, key: Text, value: Value<'a>) {
        self.inspection.unread += 1;
        if self.inspection.unread_of.last().is_some_and(|last| last.resource == resource) {
            return;
        }
        let value = match value {
            Value::Text(text) => self.text(text),
            Value::Int(number) => self.beside(number.to_string().as_bytes()),
            Value::Double(number) => self.beside(number.to_string().as_bytes()),
            Value::Bool(bit) => self.beside(bit.to_string().as_bytes()),
            Value::Other => Text::default(),
        };
        self.inspection.unread_of.push(UnreadRecord { resource, key, value });
    }

    /// Keeps the state that a span tells which neither names a breaker nor calls anything.
    #[cold]
    fn note_unnamed(&mut self, span: &Span<'a>, resource: u32) {
        if span.end == 0 || span.end < span.start {
            return;
        }
        if let Some(to) = self.told_state(resource) {
            let (operation, ids) = (self.text(span.name), self.ids(span));
            let told = UnnamedRecord { resource, operation, order: span.end, at: span.start, from: None, to, step: 0, changes: false, ids };
            self.inspection.unnamed.push(told);
        }
    }
}

/// A status of gRPC by name or number; both may be text.
fn grpc_of(value: Value<'_>) -> Option<u8> {
    let named = if let Value::Text(name) = value { grpc_status(name) } else { None };
    let number = || value.number().and_then(|status| u8::try_from(status).ok()).filter(|status| usize::from(*status) < GRPC_STATUSES.len());
    named.or_else(number)
}

/// What is called, given the database or queue that it is, and what else it would be.
#[inline]
fn kind_of(system: Option<(Kind, &[u8])>, own: Kind) -> Kind {
    system.map_or(own, |(kind, _)| kind)
}

/// The most spans one may stand for: who samples fewer than one in a million sees nothing anyway.
const WEIGHT_MAX: u32 = 1 << 20;

/// How many spans one stands for, by the rejection threshold in its `tracestate` (`ot=th:…`): the inverse of the
/// probability (2^56 - threshold) / 2^56. A fraction is rounded up or down by the span's id, so that the mean is
/// right and every reader rounds alike.
/// Source: OpenTelemetry, "`TraceState`: Probability Sampling".
#[cold]
fn weight(trace_state: &[u8], span_id: &[u8]) -> u32 {
    let Some(threshold) = threshold(trace_state) else { return 1 };
    let exact = (1_u64 << 56) as f64 / ((1_u64 << 56) - threshold).max(1) as f64;
    if exact >= f64::from(WEIGHT_MAX) {
        return WEIGHT_MAX;
    }
    let (whole, fraction) = (exact.floor(), exact.fract());
    let mixed = span_id.iter().fold(0_u64, |mixed, byte| (mixed ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    let up = (mixed >> 11) as f64 / (1_u64 << 53) as f64 <= fraction && fraction > 0.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 2^20")]
    let whole = whole as u32;
    whole + u32::from(up)
}

fn threshold(trace_state: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(trace_state).ok()?;
    let vendor = text.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    let digits = vendor.split(';').find_map(|field| field.strip_prefix("th:"))?;
    if digits.is_empty() || digits.len() > 14 {
        return None;
    }
    let number = u64::from_str_radix(digits, 16).ok()?;
    Some(number << (4 * (14 - digits.len())))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::KeyValue,
        trace::v1::{Span, span::Event},
    };

    use super::*;
    use crate::circuit::testing::{START, call, failed, int, request, text, transition};

    fn read(span: Span) -> (Vec<u8>, Inspection) {
        let request = request("shop", "a", vec![span]);
        let inspection = inspect(&request, 1, &Rules::default(), u64::MAX).unwrap();
        (request, inspection)
    }

    fn target(attributes: Vec<KeyValue>) -> Option<(bool, String, Option<u16>)> {
        let (request, inspection) = read(call(1, START, START + 5, attributes));
        let target = inspection.spans.first()?.target;
        Some((target.named, String::from_utf8_lossy(inspection.text(&request, target.text)).into_owned(), target.port))
    }

    #[test]
    fn the_callee_is_found_in_old_and_new_attributes() {
        let callee = |name: &str, port| Some((false, name.to_owned(), port));
        assert_eq!(target(vec![text("http.url", "http://127.0.0.1:15001/pay")]), callee("127.0.0.1", Some(15001)));
        assert_eq!(
            target(vec![text("url.full", "https://api.example.com/x"), text("server.address", "api.example.com"), int("server.port", 443)]),
            callee("api.example.com", None)
        );
        assert_eq!(target(vec![int("server.port", 8080), text("server.address", "inventory")]), callee("inventory", Some(8080)));
        assert_eq!(
            target(vec![text("server.address", "10.0.0.7"), int("server.port", 80), text("url.scheme", "http")]),
            callee("10.0.0.7", Some(80))
        );
        assert_eq!(target(vec![text("peer.service", "billing"), text("server.address", "10.0.0.7")]), callee("billing", None));
        assert_eq!(target(vec![text("service.peer.name", ""), text("db.system", "redis")]), callee("redis", None));
        assert_eq!(target(vec![text("circuit_breaker.name", "pay"), text("server.address", "x")]), Some((true, "pay".to_owned(), None)));
        assert_eq!(target(vec![text("http.method", "GET")]), None);
    }

    #[test]
    fn older_attributes_name_callees_as_newer_ones_do() {
        let callee = |name: &str, port| Some((false, name.to_owned(), port));
        for (attributes, expected) in [
            (vec![text("peer.hostname", "pay"), text("peer.port", "8080")], callee("pay", Some(8080))),
            (vec![text("peer.address", "10.0.0.7:8080")], callee("10.0.0.7", Some(8080))),
            (vec![text("peer.ipv4", "10.0.0.7"), int("peer.port", 8080)], callee("10.0.0.7", Some(8080))),
            (vec![text("out.host", "pay"), int("out.port", 8080)], callee("pay", Some(8080))),
            (vec![text("net.sock.peer.addr", "10.0.0.7"), int("net.sock.peer.port", 50051)], callee("10.0.0.7", Some(50051))),
            (vec![text("http.host", "Pay:8080")], callee("pay", Some(8080))),
            (vec![text("rpc.service", "shop.Pay"), text("rpc.method", "Charge")], callee("shop.Pay", None)),
            (vec![text("rpc.method", "/shop.Pay/Charge")], callee("shop.Pay", None)),
            (vec![text("rpc.method", "Charge")], None),
        ] {
            assert_eq!(target(attributes.clone()), expected, "{attributes:?}");
        }
    }

    #[test]
    fn databases_and_topics_are_called_what_they_are() {
        let read = |attributes: Vec<KeyValue>| {
            let (request, inspection) = read(call(1, START, START + 5, attributes));
            let target = inspection.spans.first().unwrap().target;
            let name = String::from_utf8(inspection.text(&request, target.text).to_vec()).unwrap();
            (target.kind, name.get(usize::from(target.own_at)..).unwrap().to_owned(), name, target.port)
        };
        let names = |kind: Kind, own: &str, name: &str, port: Option<u16>| (kind, own.to_owned(), name.to_owned(), port);
        use Kind::{Address, Database, Service, Topic};
        for (attributes, expected) in [
            (vec![text("messaging.system", "kafka"), text("messaging.destination", "orders")], names(Topic, "orders", "kafka:orders", None)),
            (vec![text("messaging.system", "kafka"), text("messaging.destination.name", "orders")], names(Topic, "orders", "kafka:orders", None)),
            (vec![text("message_bus.destination", "orders")], names(Topic, "orders", "topic:orders", None)),
            (vec![text("db.system", "postgresql"), text("db.name", "shop")], names(Database, "shop", "postgresql:shop", None)),
            (vec![text("db.type", "sql"), text("db.instance", "shop")], names(Database, "shop", "sql:shop", None)),
            (vec![text("db.system.name", "sqlite"), text("db.namespace", "/data/x.db")], names(Database, "/data/x.db", "sqlite:/data/x.db", None)),
            (vec![text("db.system", "sqlite")], names(Database, "sqlite", "sqlite", None)),
            // Two servers of one system are two.
            (
                vec![text("db.system", "redis"), text("db.namespace", "0"), text("network.peer.address", "10.0.0.7"), int("network.peer.port", 6379)],
                names(Database, "10.0.0.7", "10.0.0.7", Some(6379)),
            ),
            (vec![text("db.system", "redis"), text("server.address", "cache")], names(Database, "cache", "cache", None)),
            (vec![text("peer.service", "billing"), text("db.name", "shop")], names(Service, "billing", "billing", None)),
            (vec![text("server.address", "pay")], names(Address, "pay", "pay", None)),
        ] {
            assert_eq!(read(attributes.clone()), expected, "{attributes:?}");
        }
    }

    #[test]
    fn what_stands_beside_a_host_is_no_other_span_s() {
        let spans = [vec![text("db.system", "redis")], vec![], vec![text("db.system", "redis")]];
        let spans = (1..).zip(spans).map(|(id, more)| call(id, START, START + 5, [vec![text("server.address", "x")], more].concat()));
        let inspection = inspect(&request("shop", "a", spans.collect()), 3, &Rules::default(), u64::MAX).unwrap();
        let kinds: Vec<Kind> = inspection.spans.iter().map(|span| span.target.kind).collect();
        assert_eq!(kinds, [Kind::Database, Kind::Address, Kind::Database]);
    }

    #[test]
    fn a_host_is_one_callee_however_it_is_written() {
        let callee = |name: &str, port| Some((false, name.to_owned(), port));
        for (address, port) in [("2001:db8::1", 8080), ("[2001:DB8::1]", 8080), ("[2001:db8:0::1]:8080", 8080)] {
            assert_eq!(target(vec![text("server.address", address), int("server.port", port)]), callee("2001:db8::1", Some(8080)), "{address}");
        }
        for (address, port) in [("API.example.com.", "8443"), ("api.example.com:8443", "8443"), ("https://api.example.com:8443", "0")] {
            assert_eq!(target(vec![text("server.address", address), text("server.port", port)]), callee("api.example.com", Some(8443)), "{address}");
        }
        assert_eq!(target(vec![text("url.full", "https://API.Example.com:8443/x")]), callee("api.example.com", Some(8443)));
        assert_eq!(target(vec![text("server.address", "::ffff:10.0.0.7"), int("server.port", 80)]), callee("10.0.0.7", Some(80)));
        for url in ["http://10.0.0.7/", "http://10.0.0.7:80/"] {
            assert_eq!(target(vec![text("url.full", url)]), callee("10.0.0.7", Some(80)), "{url}");
        }
        assert_eq!(target(vec![text("server.address", "10.0.0.7"), text("url.scheme", "https")]), callee("10.0.0.7", Some(443)));
        assert_eq!(target(vec![text("server.address", "/var/run/pay.sock")]), callee("/var/run/pay.sock", None));
    }

    #[test]
    fn a_service_called_at_an_address_is_noted_once() {
        let with = |id: u64, attributes: Vec<KeyValue>| call(id, START, START + 5, attributes);
        let at = |host: &str| vec![text("server.address", host), int("server.port", 50051)];
        let spans = vec![
            with(1, [at("pay"), vec![text("rpc.method", "shop.Pay/Charge")]].concat()),
            with(2, [at("pay"), vec![text("rpc.method", "shop.Pay/Charge")]].concat()),
            with(3, [at("stock"), vec![text("rpc.service", "shop.Stock"), text("rpc.method", "Get")]].concat()),
            with(4, [at("pay"), vec![text("rpc.method", "shop.Pay/Charge")]].concat()),
            with(5, vec![text("rpc.method", "shop.Pay/Charge")]),
            with(6, at("pay")),
        ];
        let request = request("shop", "a", spans);
        let inspection = inspect(&request, 6, &Rules::default(), u64::MAX).unwrap();
        let text_of = |text| String::from_utf8_lossy(inspection.text(&request, text)).into_owned();
        let noted: Vec<(String, String)> =
            inspection.rpc_services.iter().map(|record| (text_of(record.target.text), text_of(record.service))).collect();
        let expected = [("pay", "shop.Pay"), ("stock", "shop.Stock")].map(|(host, service)| (host.to_owned(), service.to_owned()));
        assert_eq!(noted, expected);
    }

    #[test]
    fn only_calls_belong_to_an_edge() {
        let of_kind = |kind: i32, attributes| {
            let mut span = call(1, START, START + 5, attributes);
            span.kind = kind;
            read(span).1
        };
        for kind in [0, 1, 2, 5, -1, 9] {
            let inspection = of_kind(kind, vec![text("server.address", "x")]);
            assert_eq!((inspection.spans.len(), inspection.without_circuit), (0, 1), "kind {kind}");
        }
        assert_eq!(of_kind(4, vec![text("messaging.destination.name", "orders")]).spans.len(), 1);
        assert_eq!(of_kind(1, vec![text("resilience4j.circuit_breaker.name", "pay")]).spans.len(), 1);
    }

    #[test]
    fn a_parent_id_of_zeros_is_none() {
        for (parent, is_first) in [(vec![], true), (vec![0; 8], true), (vec![7; 8], false)] {
            let mut span = call(1, START, START + 5, vec![text("server.address", "x")]);
            span.parent_span_id = parent.clone();
            assert_eq!(read(span).1.spans[0].alone, is_first, "{parent:?}");
            for kind in [1, 2] {
                let mut span = call(1, START, START + 5, vec![]);
                (span.kind, span.parent_span_id) = (kind, parent.clone());
                let (_, inspection) = read(span);
                assert_eq!(inspection.roots.len(), usize::from(is_first || kind == 2), "{kind} {parent:?}");
                assert!(inspection.roots.iter().all(|root| (root.parent == 0) == is_first), "{kind} {parent:?}");
            }
        }
    }

    #[test]
    fn failures_are_those_a_breaker_counts() {
        use Outcome::{Failure, Rejected, Success};
        let outcome = |error: bool, attributes: Vec<KeyValue>| {
            let span = call(1, START, START + 5, [vec![text("server.address", "x")], attributes].concat());
            let (_, inspection) = read(if error { failed(span) } else { span });
            inspection.spans[0].outcome
        };
        assert_eq!(outcome(true, vec![int("http.response.status_code", 404)]), Success, "Go marks a 404 as an error, breakers don't");
        assert_eq!(outcome(false, vec![int("http.status_code", 503)]), Failure);
        assert_eq!(outcome(false, vec![text("http.status_code", "429")]), Failure);
        assert_eq!(outcome(true, vec![]), Failure);
        assert_eq!(outcome(false, vec![text("error.type", "timeout")]), Failure);
        assert_eq!(outcome(true, vec![int("rpc.grpc.status_code", 5)]), Success);
        assert_eq!(outcome(false, vec![text("rpc.response.status_code", "UNAVAILABLE")]), Failure);
        assert_eq!(outcome(true, vec![text("http.status_code", "200"), text("grpc.status_code", "14")]), Failure, "Envoy");
        assert_eq!(outcome(true, vec![text("http.status_code", "200"), text("grpc.status_code", "5")]), Success);
        assert_eq!(outcome(false, vec![text("rpc.response.status_code", "Unavailable")]), Failure);
        assert_eq!(outcome(false, vec![text("rpc.connect_rpc.error_code", "deadline_exceeded")]), Failure);
        assert_eq!(outcome(true, vec![text("circuit_breaker.outcome", "rejected")]), Rejected);
        assert_eq!(outcome(false, vec![text("circuit_breaker.outcome", "FAILURE")]), Failure);
    }

    /// A call that ended with an exception.
    fn thrown(id: u64, kind: &str, message: &str, attributes: Vec<KeyValue>) -> Span {
        let mut span = failed(call(id, START, START + 5, [vec![text("server.address", "x")], attributes].concat()));
        let attributes = vec![text("exception.type", kind), text("exception.message", message)];
        let exception = Event { name: "exception".to_owned(), attributes, ..Default::default() };
        span.events.push(exception);
        span
    }

    #[test]
    fn a_failure_is_of_its_exception_s_type_where_nothing_else_says_why() {
        let error = |span: Span| {
            let (request, inspection) = read(span);
            match inspection.spans[0].error {
                ErrorText::Type(kind) => String::from_utf8(inspection.text(&request, kind).to_vec()).unwrap(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(error(thrown(1, "requests.exceptions.ReadTimeout", "read timed out", vec![])), "requests.exceptions.ReadTimeout");
        assert_eq!(error(thrown(1, "HTTPError", "503", vec![int("http.status_code", 503)])), "Http(503)");
        assert_eq!(error(thrown(1, "TimeoutError", "", vec![text("error.type", "timeout")])), "timeout");
        assert_eq!(error(thrown(1, "", "no", vec![])), "Unknown");
    }

    #[test]
    fn errors_that_are_said_to_be_none_are_none() {
        let outcomes = |rules: &Rules| {
            let mut missed = failed(call(4, START, START + 5, vec![text("server.address", "cache")]));
            missed.status.as_mut().unwrap().message = "redis: nil".to_owned();
            let spans = vec![
                thrown(1, "redis.RedisError", "redis: nil", vec![]),
                thrown(2, "redis.RedisError", "redis: connection refused", vec![]),
                thrown(3, "com.shop.NoSuchCartException", "no cart", vec![int("http.status_code", 500)]),
                missed,
                // A service that answers so has failed.
                thrown(6, "RecordNotFound", "redis: nil", vec![int("http.status_code", 500)]),
                failed(call(5, START, START + 5, vec![text("server.address", "x")])),
            ];
            let inspection = inspect(&request("shop", "a", spans), 5, rules, u64::MAX).unwrap();
            inspection.spans.iter().map(|span| span.outcome).collect::<Vec<_>>()
        };
        use Outcome::{Failure, Success};
        assert_eq!(outcomes(&Rules::default()), [Success, Failure, Failure, Success, Failure, Failure]);
        let mut rules = Rules::default();
        (rules.failure.ignore, rules.failure.ignores_by_default) = (vec![crate::circuit::pattern::Pattern::new("NoSuchCartException")], false);
        assert_eq!(outcomes(&rules), [Failure, Failure, Success, Failure, Failure, Failure], "a list of one's own replaces the default one");
    }

    #[test]
    fn transitions_are_read_from_events() {
        let mut span = call(1, START, START + 50, vec![text("circuit_breaker.name", "pay")]);
        span.events = vec![transition(START + 7, "CLOSED", "open"), transition(START + 9, "open", "half-open")];
        let (_, inspection) = read(span);
        let seen: Vec<_> = inspection.observations.iter().map(|seen| (seen.at - START, seen.state, seen.step, seen.order - START)).collect();
        use State::{Closed, HalfOpen, Open};
        assert_eq!(seen, [(7, Closed, 1, 50), (7, Open, 2, 50), (9, Open, 3, 50), (9, HalfOpen, 4, 50)]);
    }

    #[test]
    fn transitions_are_told_by_names_of_events_and_without_the_breaker_s() {
        use State::{Closed, HalfOpen, Open};
        let event = |name: &str, attributes| Event { time_unix_nano: START + 7, name: name.to_owned(), attributes, ..Event::default() };
        let of = |kind: i32, event: Event| {
            let mut span = call(1, START, START + 50, vec![]);
            (span.kind, span.name, span.events) = (kind, "GET /".to_owned(), vec![event]);
            read(span)
        };
        let (request, named) = of(2, event("circuit_breaker.opened", vec![text("circuit_breaker.name", "pay")]));
        let [seen] = &named.observations[..] else { panic!("{named:?}") };
        assert_eq!((seen.state, seen.changes, seen.target.named, named.text(&request, seen.target.text)), (Open, true, true, &b"pay"[..]));
        let (_, found) = of(2, event("circuit_breaker.info", vec![text("circuit_breaker.name", "pay"), text("state", "OPEN")]));
        assert_eq!(found.observations.iter().map(|seen| (seen.state, seen.changes)).collect::<Vec<_>>(), [(Open, false)]);
        let (_, named) = of(2, event("circuit.state_change", vec![text("circuit", "pay"), text("from", "StateOpen"), text("to", "StateHalfOpen")]));
        assert_eq!(named.observations.iter().map(|seen| (seen.state, seen.step)).collect::<Vec<_>>(), [(Open, 1), (HalfOpen, 2)]);
        let (request, unnamed) = of(2, transition(START + 7, "HALF_OPEN", "CLOSED"));
        let [seen] = &unnamed.unnamed[..] else { panic!("{unnamed:?}") };
        assert_eq!((seen.from, seen.to, unnamed.text(&request, seen.operation)), (Some(HalfOpen), Closed, &b"GET /"[..]));
        assert_eq!((unnamed.unread, unnamed.observations.len()), (0, 0));
        // What a call became is no transition.
        for name in ["circuit_breaker.rejected", "circuit_breaker.success", "circuit_breaker.check"] {
            let (_, inspection) = of(2, event(name, vec![]));
            assert_eq!((inspection.unread, inspection.unnamed.len()), (0, 0), "{name}");
        }
    }

    #[test]
    fn states_that_can_t_be_read_are_counted() {
        let unread = |span: Span| {
            let (request, inspection) = read(span);
            let shown = |text| String::from_utf8_lossy(inspection.text(&request, text)).into_owned();
            assert!(inspection.observations.is_empty() && inspection.unnamed.is_empty());
            (inspection.unread, inspection.unread_of.first().map(|unread| (shown(unread.key), shown(unread.value))))
        };
        let with = |state: KeyValue| call(1, START, START + 5, vec![text("circuit_breaker.name", "pay"), state]);
        let pair = |key: &str, value: &str| Some((key.to_owned(), value.to_owned()));
        assert_eq!(unread(with(int("circuit_breaker.state", 1))), (1, pair("circuit_breaker.state", "1")));
        assert_eq!(unread(with(text("circuit_breaker.state", "ajar"))), (1, pair("circuit_breaker.state", "ajar")));
        assert_eq!(unread(with(text("circuit_breaker.state", ""))), (0, None));
        let told_by = |name: &str, attributes| {
            let mut span = call(1, START, START + 5, vec![]);
            span.kind = 2;
            span.events = vec![Event { time_unix_nano: START + 1, name: name.to_owned(), attributes, ..Event::default() }];
            span
        };
        assert_eq!(unread(told_by("circuit_breaker.state_change", vec![int("to", 2)])), (1, pair("to", "2")));
        assert_eq!(unread(told_by("circuit_breaker.state_change", vec![])), (1, pair("circuit_breaker.state_change", "")));
    }

    #[test]
    fn a_sampled_span_stands_for_others() {
        for (trace_state, expected) in [
            ("ot=th:8", 2),
            ("vendor=x,ot=rv:0123456789abcd;th:c", 4),
            ("ot=th:0", 1),
            ("", 1),
            ("ot=th:zz", 1),
            ("ot=th:ffffffffffffff", WEIGHT_MAX),
        ] {
            let mut span = call(1, START, START + 5, vec![text("server.address", "x")]);
            span.trace_state = trace_state.to_owned();
            assert_eq!(read(span).1.spans[0].weight, expected, "{trace_state}");
        }
        // One in three: the mean is right although every weight is whole.
        let third = (0..3_000).map(|id: u64| weight(b"ot=th:aaaaaaaaaaaaab", &id.wrapping_mul(0x1234_5678_9abc_def1).to_be_bytes())).sum::<u32>();
        assert!((third as f64 / 9_000.0 - 1.0).abs() < 0.01, "{third}");
    }

    #[test]
    fn what_makes_no_sense_is_counted_and_left_out() {
        let read = |start: u64, end: u64| {
            let request = request("shop", "a", vec![call(1, start, end, vec![text("server.address", "x")])]);
            let inspection = inspect(&request, 1, &Rules::default(), START).unwrap();
            (
                inspection.spans.len(),
                inspection.invalid_time,
                inspection.future,
                inspection.resources.first().map_or(0, |resource| resource.newest_end),
            )
        };
        assert_eq!(read(START - 1, START), (1, 0, 0, START));
        assert_eq!(read(START, START - 1), (0, 1, 0, START - 1));
        assert_eq!(read(0, 0), (0, 1, 0, 0));
        assert_eq!(read(0, START), (0, 1, 0, START), "a start that was never set");
        assert_eq!(read(START, START * 5), (0, 0, 1, 0), "the future moves no watermark");
    }

    #[test]
    fn long_and_broken_texts_are_mended() {
        let long = "é".repeat(500);
        let (_, cut, _) = target(vec![text("server.address", &long)]).unwrap();
        assert_eq!(cut, "é".repeat(128));
        // The builder only writes valid text: break it on the wire.
        let mut request = request("shop", "a", vec![call(1, START, START + 5, vec![text("server.address", "caXfe")])]);
        let at = request.windows(5).position(|five| five == b"caXfe").unwrap();
        request[at + 2] = 0xff;
        let inspection = inspect(&request, 1, &Rules::default(), u64::MAX).unwrap();
        assert_eq!(inspection.text(&request, inspection.spans[0].target.text), "ca\u{fffd}fe".as_bytes());
    }
}
