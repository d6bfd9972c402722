//! What `prost` takes in each message of OTLP: which fields there are, and how each is laid out.
//!
//! Source: <https://github.com/open-telemetry/opentelemetry-proto>, 1.10.0, as `opentelemetry-proto` 0.33.1 has it. A newer
//! field is unknown here, as it is there. That both agree about every field is tested in `check`.

use Rule::{Bytes, Fixed32, Fixed64, Fixed64s, Item, KeyValue, Message, Text, Varint, Varints};

use super::{Signal, wire::Tag};

/// What stands behind a tag.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// A field that has no name here: it is passed over.
    Unknown,
    /// A known field, laid out as it must not be.
    OtherLayout,
    /// A number or truth value of one to ten bytes.
    Varint,
    /// Eight bytes.
    Fixed64,
    /// Four bytes.
    Fixed32,
    /// Such numbers one behind the other; in a table, also one by itself.
    Varints,
    /// Eight bytes each, one behind the other; in a table, also one by itself.
    Fixed64s,
    /// Bytes that may be anything.
    Bytes,
    /// UTF-8.
    Text,
    /// The trace id of a span.
    TraceId,
    /// The span id of a span.
    SpanId,
    /// A `KeyValue`, which has a shape as well; most are so simple that it is not looked up.
    KeyValue,
    /// A message.
    Message(&'static Shape),
    /// A data point or log record.
    Item(&'static Shape),
    /// A span.
    Span,
}

/// Tags that have a place in a table: of field numbers up to 16.
const TAGS: usize = 17 << 3;

/// What a message may hold, by tag.
pub(super) struct Shape([Rule; TAGS]);

impl Shape {
    const fn of(fields: &[(u32, Rule)]) -> Self {
        let mut rules = [Rule::Unknown; TAGS];
        let mut left = fields;
        while let [(field, rule), rest @ ..] = left {
            put_layouts(&mut rules, *field, *rule);
            left = rest;
        }
        Self(rules)
    }

    /// What stands behind this tag.
    #[inline]
    pub(super) fn rule(&self, tag: Tag) -> Rule {
        self.0.get(tag.key() as usize).copied().unwrap_or(Rule::Unknown)
    }
}

/// Fills in what each of the eight layouts of a known field means.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
const fn put_layouts(rules: &mut [Rule; TAGS], field: u32, rule: Rule) {
    let first = (field << 3) as usize;
    let mut layout = 0;
    while layout < 8 {
        rules[first + layout] = Rule::OtherLayout;
        layout += 1;
    }
    let tag = match rule {
        Varint => Tag::varint(field),
        Fixed64 => Tag::fixed64(field),
        Fixed32 => Tag::fixed32(field),
        Varints => {
            rules[Tag::varint(field).key() as usize] = Varint;
            Tag::bytes(field)
        }
        Fixed64s => {
            rules[Tag::fixed64(field).key() as usize] = Fixed64;
            Tag::bytes(field)
        }
        _ => Tag::bytes(field),
    };
    rules[tag.key() as usize] = rule;
}

/// The message that carries a signal.
pub(super) fn request(signal: Signal) -> &'static Shape {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    }
}

static TRACES: Shape = Shape::of(&[(1, Message(&RESOURCE_SPANS))]);
static METRICS: Shape = Shape::of(&[(1, Message(&RESOURCE_METRICS))]);
static LOGS: Shape = Shape::of(&[(1, Message(&RESOURCE_LOGS))]);

// opentelemetry/proto/common/v1/common.proto and opentelemetry/proto/resource/v1/resource.proto

static RESOURCE: Shape = Shape::of(&[(1, KeyValue), (2, Varint), (3, Message(&ENTITY_REF))]);
static ENTITY_REF: Shape = Shape::of(&[(1, Text), (2, Text), (3, Text), (4, Text)]);
static SCOPE: Shape = Shape::of(&[(1, Text), (2, Text), (3, KeyValue), (4, Varint)]);

/// Of an attribute.
pub(super) static KEY_VALUE: Shape = Shape::of(&[(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)]);
static ANY_VALUE: Shape = Shape::of(&[
    (1, Text),
    (2, Varint),
    (3, Varint),
    (4, Fixed64),
    (5, Message(&ARRAY_VALUE)),
    (6, Message(&KEY_VALUE_LIST)),
    (7, Bytes),
    (8, Varint),
]);
static ARRAY_VALUE: Shape = Shape::of(&[(1, Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Shape = Shape::of(&[(1, KeyValue)]);

// opentelemetry/proto/trace/v1/trace.proto

static RESOURCE_SPANS: Shape = Shape::of(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_SPANS)), (3, Text)]);
static SCOPE_SPANS: Shape = Shape::of(&[(1, Message(&SCOPE)), (2, Rule::Span), (3, Text)]);

/// Of a span.
pub(super) static SPAN: Shape = Shape::of(&[
    (1, Rule::TraceId),
    (2, Rule::SpanId),
    (3, Text),
    (4, Bytes),
    (5, Text),
    (6, Varint),
    (7, Fixed64),
    (8, Fixed64),
    (9, KeyValue),
    (10, Varint),
    (11, Message(&EVENT)),
    (12, Varint),
    (13, Message(&LINK)),
    (14, Varint),
    (15, Message(&STATUS)),
    (16, Fixed32),
]);
static EVENT: Shape = Shape::of(&[(1, Fixed64), (2, Text), (3, KeyValue), (4, Varint)]);
static LINK: Shape = Shape::of(&[(1, Bytes), (2, Bytes), (3, Text), (4, KeyValue), (5, Varint), (6, Fixed32)]);
static STATUS: Shape = Shape::of(&[(2, Text), (3, Varint)]);

// opentelemetry/proto/logs/v1/logs.proto

static RESOURCE_LOGS: Shape = Shape::of(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_LOGS)), (3, Text)]);
static SCOPE_LOGS: Shape = Shape::of(&[(1, Message(&SCOPE)), (2, Item(&LOG_RECORD)), (3, Text)]);
static LOG_RECORD: Shape = Shape::of(&[
    (1, Fixed64),
    (2, Varint),
    (3, Text),
    (5, Message(&ANY_VALUE)),
    (6, KeyValue),
    (7, Varint),
    (8, Fixed32),
    (9, Bytes),
    (10, Bytes),
    (11, Fixed64),
    (12, Text),
]);

// opentelemetry/proto/metrics/v1/metrics.proto

static RESOURCE_METRICS: Shape = Shape::of(&[(1, Message(&RESOURCE)), (2, Message(&SCOPE_METRICS)), (3, Text)]);
static SCOPE_METRICS: Shape = Shape::of(&[(1, Message(&SCOPE)), (2, Message(&METRIC)), (3, Text)]);
static METRIC: Shape = Shape::of(&[
    (1, Text),
    (2, Text),
    (3, Text),
    (5, Message(&GAUGE)),
    (7, Message(&SUM)),
    (9, Message(&HISTOGRAM)),
    (10, Message(&EXPONENTIAL_HISTOGRAM)),
    (11, Message(&SUMMARY)),
    (12, KeyValue),
]);
static GAUGE: Shape = Shape::of(&[(1, Item(&NUMBER_DATA_POINT))]);
static SUM: Shape = Shape::of(&[(1, Item(&NUMBER_DATA_POINT)), (2, Varint), (3, Varint)]);
static HISTOGRAM: Shape = Shape::of(&[(1, Item(&HISTOGRAM_DATA_POINT)), (2, Varint)]);
static EXPONENTIAL_HISTOGRAM: Shape = Shape::of(&[(1, Item(&EXPONENTIAL_HISTOGRAM_DATA_POINT)), (2, Varint)]);
static SUMMARY: Shape = Shape::of(&[(1, Item(&SUMMARY_DATA_POINT))]);
static NUMBER_DATA_POINT: Shape =
    Shape::of(&[(2, Fixed64), (3, Fixed64), (4, Fixed64), (5, Message(&EXEMPLAR)), (6, Fixed64), (7, KeyValue), (8, Varint)]);
static HISTOGRAM_DATA_POINT: Shape = Shape::of(&[
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Fixed64s),
    (7, Fixed64s),
    (8, Message(&EXEMPLAR)),
    (9, KeyValue),
    (10, Varint),
    (11, Fixed64),
    (12, Fixed64),
]);
static EXPONENTIAL_HISTOGRAM_DATA_POINT: Shape = Shape::of(&[
    (1, KeyValue),
    (2, Fixed64),
    (3, Fixed64),
    (4, Fixed64),
    (5, Fixed64),
    (6, Varint),
    (7, Fixed64),
    (8, Message(&BUCKETS)),
    (9, Message(&BUCKETS)),
    (10, Varint),
    (11, Message(&EXEMPLAR)),
    (12, Fixed64),
    (13, Fixed64),
    (14, Fixed64),
]);
static BUCKETS: Shape = Shape::of(&[(1, Varint), (2, Varints)]);
static SUMMARY_DATA_POINT: Shape =
    Shape::of(&[(2, Fixed64), (3, Fixed64), (4, Fixed64), (5, Fixed64), (6, Message(&VALUE_AT_QUANTILE)), (7, KeyValue), (8, Varint)]);
static VALUE_AT_QUANTILE: Shape = Shape::of(&[(1, Fixed64), (2, Fixed64)]);
static EXEMPLAR: Shape = Shape::of(&[(2, Fixed64), (3, Fixed64), (4, Bytes), (5, Bytes), (6, Fixed64), (7, KeyValue)]);

#[cfg(test)]
pub(super) mod testing {
    use std::ptr;

    use super::{ANY_VALUE, KEY_VALUE, Rule, SPAN, Shape};
    use crate::otlp::wire::{Reader, put_bytes, put_varint};

    impl Rule {
        /// The shape of the message that stands there, if it is one.
        pub(in crate::otlp) fn inner(self) -> Option<&'static Shape> {
            match self {
                Self::Message(shape) | Self::Item(shape) => Some(shape),
                Self::KeyValue => Some(&KEY_VALUE),
                Self::Span => Some(&SPAN),
                _ => None,
            }
        }
    }

    /// The same message, and all in it, with fields in descending order, as the Collector writes them; fields of one number
    /// stay in order. Of a value only the last field counts, so that these stay as well.
    pub(in crate::otlp) fn descending(shape: &Shape, message: &[u8]) -> Vec<u8> {
        let mut fields = Vec::new();
        let mut reader = Reader::new(message);
        while let Some(tag) = reader.tag().unwrap() {
            let mut field = Vec::new();
            let before = reader.rest();
            match shape.rule(tag).inner() {
                Some(inner) => put_bytes(&mut field, tag, &descending(inner, reader.bytes().unwrap())),
                None => {
                    reader.skip(tag, 0).unwrap();
                    put_varint(&mut field, tag.key().into());
                    field.extend_from_slice(&before[..before.len() - reader.rest().len()]);
                }
            }
            fields.push((tag.field(), field));
        }
        if !ptr::eq(shape, &ANY_VALUE) {
            fields.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        }
        fields.into_iter().flat_map(|(_, field)| field).collect()
    }
}
