//! What the spans of a request tell of circuits: read once, before anything is counted.

mod failure;
mod keys;
mod reader;
mod record;
mod slots;
mod transition;

pub use failure::{FailureOverride, FailureRule, GRPC_STATUSES, IGNORED};
pub use keys::{BadRules, Rules, RulesText};
pub use reader::inspect;
pub use record::{
    ErrorText, Inspection, ObservationRecord, ResourceRecord, RootRecord, SpanRecord, TargetRecord, Text, ToldRecord, UnnamedRecord, UnreadRecord,
};
pub(in crate::circuit) use record::{Says, ids_at, route_at, span_at, trace_at};
