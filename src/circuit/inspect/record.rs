use super::super::{bucket::Outcome, detect::rule::Meaning, key::Kind, state::State};
use crate::otlp::Value;

/// A text of a request, as a place in it, so that it can be read again when the request is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// From the beginning of the request; with the top bit set, of what was put together beside it.
    pub(super) at: u32,
    /// In bytes, at most [`TEXT_BYTES_MAX`](super::super::key::TEXT_BYTES_MAX).
    pub(super) len: u16,
}

pub(super) const BESIDE: u32 = 1 << 31;

impl Text {
    /// Whether it is as long as another.
    pub(in crate::circuit) const fn has_length_of(self, other: Self) -> bool {
        self.len == other.len
    }

    /// Whether it is empty.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// What a span calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetRecord {
    /// Whether the text is a breaker's own name.
    pub named: bool,
    /// The breaker's name, or the callee.
    pub text: Text,
    /// The callee's port, where it belongs to the name.
    pub port: Option<u16>,
    /// What kind of thing it is.
    pub kind: Kind,
    /// Where in the text the own name of a database or topic begins; 0 if it stands alone.
    pub own_at: u8,
}

/// A call to an address that tells its RPC service, too.
#[derive(Clone, Copy, Debug)]
pub(in crate::circuit) struct RpcRecord {
    /// Index of its resource.
    pub(in crate::circuit) resource: u32,
    /// What it calls.
    pub(in crate::circuit) target: TargetRecord,
    pub(in crate::circuit) route: Text,
    /// The service, as a span without an address would call it.
    pub(in crate::circuit) service: Text,
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorText {
    /// As `error.type` says.
    Type(Text),
    /// By its HTTP status.
    Http(u16),
    /// By its gRPC status.
    Grpc(u8),
    /// Nobody says.
    Unknown,
}

/// What is kept of a span that belongs to a circuit.
#[derive(Clone, Copy, Debug)]
pub struct SpanRecord {
    /// Index of its resource.
    pub resource: u32,
    /// What it calls.
    pub target: TargetRecord,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// Unix time in nanoseconds; never before `start`.
    pub end: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Of a failure: why.
    pub error: ErrorText,
    /// Where what it asks for is: a serialised URL, or the name of a method.
    pub(in crate::circuit) route: Text,
    /// Whether it is the first of its trace.
    pub alone: bool,
    /// Whether its callee answered: there is a status of HTTP.
    pub(in crate::circuit) answered: bool,
    /// What it says of a breaker itself.
    pub(in crate::circuit) says: Says,
    /// How many spans it stands for, by the sampling its `tracestate` tells of.
    pub weight: u32,
    /// Where its trace id (16 bytes) and its span id (8 bytes) are.
    pub(in crate::circuit) ids: (u32, u32),
}

/// What a span says of a breaker itself: that must not be said a second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::circuit) struct Says {
    pub(in crate::circuit) name: bool,
    pub(in crate::circuit) state: bool,
    pub(in crate::circuit) outcome: bool,
    /// A Fuseboard on the way has said all that.
    pub(in crate::circuit) own: bool,
}

/// A state of a breaker that a span or one of its events reports.
#[derive(Clone, Copy, Debug)]
pub struct ObservationRecord {
    /// Index of its resource.
    pub resource: u32,
    /// The circuit.
    pub target: TargetRecord,
    pub(in crate::circuit) route: Text,
    /// End of the span.
    pub order: u64,
    /// When the state was seen.
    pub at: u64,
    /// Which.
    pub state: State,
    /// 0 for a state that some call found, or that is told without the one before; else its place among the transitions
    /// that the span's events tell of.
    pub step: u8,
    /// Whether it is told as a change.
    pub changes: bool,
    pub(super) ids: (u32, u32),
}

/// States of a breaker that are told without a name, on a span that calls nothing.
#[derive(Clone, Copy, Debug)]
pub struct UnnamedRecord {
    /// Index of its resource.
    pub resource: u32,
    /// The name of the span.
    pub operation: Text,
    /// End of the span.
    pub order: u64,
    /// When it was told.
    pub at: u64,
    /// The state before, if that is told.
    pub from: Option<State>,
    /// The state.
    pub to: State,
    /// As of [`ObservationRecord::step`], of the first of them.
    pub step: u8,
    /// Whether the state is told as a change.
    pub changes: bool,
    pub(super) ids: (u32, u32),
}

/// What should tell a breaker's state and can't be read.
#[derive(Clone, Copy, Debug)]
pub struct UnreadRecord {
    /// Index of its resource.
    pub resource: u32,
    /// The attribute, or the name of the event.
    pub key: Text,
    /// What it holds; empty of an event.
    pub value: Text,
}

/// The span at the top of what a process did in a trace.
#[derive(Clone, Copy, Debug)]
pub struct RootRecord {
    /// Index of its resource.
    pub resource: u32,
    /// Its name.
    pub operation: Text,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// Unix time in nanoseconds; never before `start`.
    pub end: u64,
    /// Whether it ended with an error, so that calls may be missing that would have come later.
    pub aborted: bool,
    pub(in crate::circuit) ids: (u32, u32),
    /// Where the id of the span is that it was called by; 0 if there is none.
    pub(in crate::circuit) parent: u32,
}

/// A text of a library that tells what a breaker did.
#[derive(Clone, Copy, Debug)]
pub struct ToldRecord {
    /// Index of its resource.
    pub resource: u32,
    /// What it means.
    pub meaning: Meaning,
    /// Index of the rule that found it.
    pub rule: u16,
    /// Whether it is no quotation: the type of the error tells of a breaker, too.
    pub(in crate::circuit) typed: bool,
    /// Whether the text looks like what a client makes of an answer.
    pub(in crate::circuit) answer: bool,
    /// The breaker's own name; empty if it is not told.
    pub name: Text,
    /// What the span calls, if it is a call itself.
    pub target: Option<TargetRecord>,
    pub(in crate::circuit) route: Text,
    /// What it says of a breaker itself.
    pub(in crate::circuit) says: Says,
    /// When it was said, as far as is known: else the start of the span. Unix time in nanoseconds.
    pub at: u64,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// Unix time in nanoseconds; never before `start`.
    pub end: u64,
    pub(in crate::circuit) ids: (u32, u32),
}

/// What is kept of a resource: who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceRecord {
    /// `deployment.environment.name`.
    pub environment: Text,
    /// `service.namespace`.
    pub namespace: Text,
    /// `service.name`.
    pub service: Text,
    /// What tells its processes apart; empty if nothing does.
    pub instance: Text,
    /// The newest end of its spans that are not from the future.
    pub newest_end: u64,
}

/// Tops that are looked at for the one of a span.
const ROOTS_NEAR: usize = 64;

/// What a request tells of circuits. Nothing has been counted yet.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// Spans that belong to a circuit, in the order of the request.
    pub spans: Vec<SpanRecord>,
    /// States that were reported, in the order of the request.
    pub observations: Vec<ObservationRecord>,
    /// States that were reported without a name, in the order of the request.
    pub unnamed: Vec<UnnamedRecord>,
    /// States that were reported and can't be read.
    pub unread: u64,
    /// One of them for each resource, in the order of the request.
    pub unread_of: Vec<UnreadRecord>,
    /// Tops of what processes did, in the order of the request.
    pub roots: Vec<RootRecord>,
    /// Texts of breakers' libraries, in the order of the request.
    pub told: Vec<ToldRecord>,
    /// RPC services that are called at addresses, in the order of the request; few of those that stand there again.
    pub(in crate::circuit) rpc_services: Vec<RpcRecord>,
    /// Resources, in the order of the request.
    pub resources: Vec<ResourceRecord>,
    /// Spans that belong to no circuit.
    pub without_circuit: u64,
    /// Spans from the future.
    pub future: u64,
    /// Spans of a circuit, and tops of what processes did, that start or end at 0, or end before they start: they are in no window.
    pub invalid_time: u64,
    pub(super) beside: Vec<u8>,
}

impl Inspection {
    /// The bytes of a text; `request` must be what was inspected.
    pub fn text<'a>(&'a self, request: &'a [u8], text: Text) -> &'a [u8] {
        let at = (text.at & !BESIDE) as usize;
        let whole = if text.at & BESIDE == 0 { request } else { &self.beside };
        whole.get(at..at + usize::from(text.len)).unwrap_or_default()
    }

    /// The top of what a process did that a span belongs to, if it is that span itself or the only one that holds it and
    /// stands soon after it.
    pub(in crate::circuit) fn root_near(&self, told: &ToldRecord, request: &[u8]) -> Option<&RootRecord> {
        let from = self.roots.partition_point(|root| root.ids < told.ids);
        let trace = trace_at(request, told.ids);
        let holds = |root: &RootRecord| root.start <= told.start && told.end <= root.end;
        let is = |root: &&RootRecord| root.resource == told.resource && holds(root) && trace_at(request, root.ids) == trace;
        let mut near = self.roots.iter().skip(from).take(ROOTS_NEAR).filter(is);
        near.next().filter(|_| near.next().is_none())
    }
}

/// Trace and span id, one behind the other.
pub(crate) fn ids_at(request: &[u8], (trace, span): (u32, u32)) -> [u8; 24] {
    let mut ids = [0; 24];
    let (trace_id, span_id) = ids.split_at_mut(16);
    for (into, at) in [(trace_id, trace as usize), (span_id, span as usize)] {
        if let Some(id) = request.get(at..at + into.len()) {
            into.copy_from_slice(id);
        }
    }
    ids
}

impl SpanRecord {
    /// Trace and span id, one behind the other.
    pub fn ids(&self, request: &[u8]) -> [u8; 24] {
        ids_at(request, self.ids)
    }
}

impl ObservationRecord {
    /// Trace and span id, one behind the other.
    pub fn ids(&self, request: &[u8]) -> [u8; 24] {
        ids_at(request, self.ids)
    }
}

impl UnnamedRecord {
    /// Trace and span id, one behind the other.
    pub fn ids(&self, request: &[u8]) -> [u8; 24] {
        ids_at(request, self.ids)
    }

    /// The states, each with its step.
    pub fn states(&self) -> impl Iterator<Item = (State, u8)> + use<> {
        let before = self.from.map(|from| (from, self.step));
        let step = self.step.saturating_add(u8::from(before.is_some()));
        before.into_iter().chain([(self.to, step)])
    }

    /// Whether it may be the first that is told of a breaker, and goes on from no other state than closed.
    pub const fn begins(&self) -> bool {
        matches!((self.from, self.to), (None | Some(State::Closed), State::Open | State::ForcedOpen))
    }
}

/// What a span asks for, as text.
pub(crate) fn route_at(request: &[u8], route: Text) -> &[u8] {
    let at = route.at as usize;
    match request.get(at..at + usize::from(route.len)).map(Value::read) {
        Some(Value::Text(text)) => text,
        _ => &[],
    }
}

/// A span's id.
pub(crate) fn span_at(request: &[u8], at: u32) -> u64 {
    let at = at as usize;
    request.get(at..at + 8).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The part of a trace id that tells traces of one process apart.
pub(crate) fn trace_at(request: &[u8], ids: (u32, u32)) -> u64 {
    let at = ids.0 as usize;
    request.get(at + 8..at + 16).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
