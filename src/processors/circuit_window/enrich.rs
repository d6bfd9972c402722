use std::sync::atomic::Ordering;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use prost::Message;

use super::{attributes::text, engine::Engine};
use crate::{
    circuit::{enrich::Enrichment, inspect::Inspection},
    otlp::{
        edit,
        wire::{Tag, put_bytes},
    },
    pipeline::Part,
};

/// The field of a span that lists its attributes.
const ATTRIBUTES: Tag = Tag::bytes(9);

impl Engine {
    /// The request with what is known of their circuits on spans of those that are not closed; `None` if there is nothing
    /// to add, or no memory for it now.
    pub(super) fn enriched(&self, part: &Part, inspection: &Inspection) -> Option<Part> {
        let tells = !inspection.told.is_empty() || !inspection.observations.is_empty();
        if !self.enriches() || !tells && self.restless().load(Ordering::Relaxed) == 0 {
            return None;
        }
        let found = self.enrichments(&part.bytes, inspection);
        if found.is_empty() {
            return None;
        }
        let fields: Vec<(u32, Vec<u8>)> = found.iter().map(|one| (one.span_id_at, fields(one))).collect();
        let added: usize = fields.iter().map(|(_, fields)| fields.len()).sum();
        // The request, its spans of one resource and those of one scope are written at one time.
        let mut charge = self.room_for(3 * (part.bytes.len() + added)).ok()?;
        let bytes = edit::with_appended(&part.bytes, &fields).ok()?;
        charge.set(bytes.capacity());
        Some(Part::charged(bytes.into(), part.items, charge))
    }
}

/// Attributes as they stand in a span.
fn fields(one: &Enrichment) -> Vec<u8> {
    let attributes: [Option<KeyValue>; 5] = [
        one.name.as_deref().map(|name| text("circuit_breaker.name", name)),
        one.state.map(|state| text("circuit_breaker.state", state.name())),
        one.source.map(|source| text("circuit_breaker.source", source.name())),
        one.outcome.map(|outcome| text("circuit_breaker.outcome", outcome.name())),
        one.incident.map(|incident| text("circuit_breaker.incident.id", incident.to_string())),
    ];
    let mut fields = Vec::with_capacity(256);
    attributes.iter().flatten().for_each(|attribute| put_bytes(&mut fields, ATTRIBUTES, &attribute.encode_to_vec()));
    fields
}
