//! The messages of OTLP: which fields they have, what JSON calls them and how they travel.
//!
//! Source: <https://github.com/open-telemetry/opentelemetry-proto>, 1.10.0. A newer field is unknown here, and so is
//! left out in both directions, until it gets its line.

use crate::otlp::{Signal, wire::Tag};

/// A message.
pub(super) struct Message {
    /// Its fields, in the order JSON shows them.
    pub(super) fields: &'static [Field],
    /// Whether it may stand within itself, any number of times.
    pub(super) nests: bool,
}

impl Message {
    /// The list for whose sake it is there, if there is one.
    pub(super) fn essential(&self) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.essential)
    }
}

/// A field of a message.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Its number on the wire; less than 32.
    pub(super) number: u32,
    /// Its name in JSON.
    pub(super) name: &'static str,
    /// What others or older writers call it; empty if nothing.
    pub(super) also: &'static str,
    /// Whether its message is there for its sake: one that holds unknown keys and not this is something else.
    pub(super) essential: bool,
    /// What it holds.
    pub(super) kind: Kind,
    /// Whether it holds any number of these.
    pub(super) repeated: bool,
    /// When it is written.
    pub(super) shown: Shown,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A number or truth value. If repeated, all of them travel in one piece.
    Number(Number),
    /// Text or bytes.
    Text(Text),
    /// Another message.
    Message(&'static Message),
}

/// The numbers of protobuf that OTLP uses.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Bool,
    Int32,
    /// One of several names. OTLP/JSON writes the number; protobuf's own JSON, which
    /// Tempo writes, the name.
    Enum(&'static Names),
    Uint32,
    Sint32,
    Int64,
    Uint64,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
}

/// The names of an enumeration, each at the place of its number.
pub(super) struct Names(&'static [&'static str]);

impl Names {
    /// The number of a name.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|known| *known == name)
    }
}

/// How bytes are written in JSON.
#[derive(Clone, Copy)]
pub(super) enum Text {
    /// As they are: they are text.
    String,
    /// In base64.
    Bytes,
    /// In hexadecimal digits: ids of traces and spans.
    Hex,
}

/// When a field is written.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// When it holds anything but zero or nothing.
    Filled,
    /// When it was set, if only to zero.
    Set,
    /// When it was set, and no other member of the message's `oneof` was set after it. No message has two of them.
    Chosen,
    /// Always, in JSON: there are readers that miss it otherwise.
    Always,
}

/// How a number is laid out on the wire.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    Varint,
    Fixed32,
    Fixed64,
}

impl Number {
    /// How it travels.
    pub(super) const fn layout(self) -> Layout {
        match self {
            Self::Bool | Self::Int32 | Self::Enum(_) | Self::Uint32 | Self::Sint32 | Self::Int64 | Self::Uint64 => Layout::Varint,
            Self::Fixed32 => Layout::Fixed32,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => Layout::Fixed64,
        }
    }
}

impl Layout {
    /// The tag of a single number in this field.
    pub(super) const fn tag(self, field: u32) -> Tag {
        match self {
            Self::Varint => Tag::varint(field),
            Self::Fixed32 => Tag::fixed32(field),
            Self::Fixed64 => Tag::fixed64(field),
        }
    }

    /// What is written before a single number in this field.
    pub(super) const fn key(self, field: u32) -> u32 {
        let layout = match self {
            Self::Varint => 0,
            Self::Fixed64 => 1,
            Self::Fixed32 => 5,
        };
        field << 3 | layout
    }
}

/// What is written before text, a message or packed numbers in this field.
pub(super) const fn bytes_key(field: u32) -> u32 {
    field << 3 | 2
}

/// The message that carries a signal.
pub(super) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    }
}

const BOOL: Kind = Kind::Number(Number::Bool);
const INT32: Kind = Kind::Number(Number::Int32);
const UINT32: Kind = Kind::Number(Number::Uint32);
const SINT32: Kind = Kind::Number(Number::Sint32);
const INT64: Kind = Kind::Number(Number::Int64);
const UINT64: Kind = Kind::Number(Number::Uint64);
const FIXED32: Kind = Kind::Number(Number::Fixed32);
const FIXED64: Kind = Kind::Number(Number::Fixed64);
const SFIXED64: Kind = Kind::Number(Number::Sfixed64);
const DOUBLE: Kind = Kind::Number(Number::Double);
const STRING: Kind = Kind::Text(Text::String);
const BYTES: Kind = Kind::Text(Text::Bytes);
const HEX: Kind = Kind::Text(Text::Hex);

/// A field that holds one value.
const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    // A message that is there says something even if it is empty.
    let shown = if matches!(kind, Kind::Message(_)) { Shown::Set } else { Shown::Filled };
    Field { number, name, also: "", essential: false, kind, repeated: false, shown }
}

/// A field that holds any number of values.
const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, also: "", essential: false, kind, repeated: true, shown: Shown::Set }
}

/// An `optional` field, where zero is something else than nothing.
const fn optional(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, also: "", essential: false, kind, repeated: false, shown: Shown::Set }
}

/// A member of the message's `oneof`.
const fn either(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, also: "", essential: false, kind, repeated: false, shown: Shown::Chosen }
}

/// A field without which the reader of the Rust SDK's messages refuses the whole request, or ours cannot tell its
/// signal.
const fn needed(field: Field) -> Field {
    Field { shown: Shown::Always, ..field }
}

/// The list for whose sake a message is there.
const fn essential(field: Field) -> Field {
    Field { essential: true, ..field }
}

/// A field that others or older writers call something else.
const fn also(also: &'static str, field: Field) -> Field {
    Field { also, ..field }
}

/// Tempo and Grafana write a trace as `batches`.
static TRACES: Message =
    Message { fields: &[essential(needed(also("batches", many(1, "resourceSpans", Kind::Message(&RESOURCE_SPANS)))))], nests: false };

static METRICS: Message = Message { fields: &[essential(needed(many(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS))))], nests: false };

static LOGS: Message = Message { fields: &[essential(needed(many(1, "resourceLogs", Kind::Message(&RESOURCE_LOGS))))], nests: false };

const SPAN_KINDS: Kind = Kind::Number(Number::Enum(&Names(&[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
])));

const STATUS_CODES: Kind = Kind::Number(Number::Enum(&Names(&["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"])));

const TEMPORALITIES: Kind = Kind::Number(Number::Enum(&Names(&[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
])));

const SEVERITIES: Kind = Kind::Number(Number::Enum(&Names(&[
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
])));

// opentelemetry/proto/common/v1/common.proto and opentelemetry/proto/resource/v1/resource.proto

static RESOURCE: Message = Message {
    fields: &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "droppedAttributesCount", UINT32),
        many(3, "entityRefs", Kind::Message(&ENTITY_REF)),
    ],
    nests: false,
};

static ENTITY_REF: Message = Message {
    fields: &[
        needed(one(1, "schemaUrl", STRING)),
        needed(one(2, "type", STRING)),
        needed(many(3, "idKeys", STRING)),
        needed(many(4, "descriptionKeys", STRING)),
    ],
    nests: false,
};

static SCOPE: Message = Message {
    fields: &[
        one(1, "name", STRING),
        one(2, "version", STRING),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "droppedAttributesCount", UINT32),
    ],
    nests: false,
};

static KEY_VALUE: Message =
    Message { fields: &[needed(one(1, "key", STRING)), one(2, "value", Kind::Message(&ANY_VALUE)), one(3, "keyStrindex", INT32)], nests: false };

static ANY_VALUE: Message = Message {
    fields: &[
        either(1, "stringValue", STRING),
        either(2, "boolValue", BOOL),
        either(3, "intValue", INT64),
        either(4, "doubleValue", DOUBLE),
        either(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
        either(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
        either(7, "bytesValue", BYTES),
        either(8, "stringValueStrindex", INT32),
    ],
    nests: true,
};

static ARRAY_VALUE: Message = Message { fields: &[needed(many(1, "values", Kind::Message(&ANY_VALUE)))], nests: false };

static KEY_VALUE_LIST: Message = Message { fields: &[needed(many(1, "values", Kind::Message(&KEY_VALUE)))], nests: false };

// opentelemetry/proto/trace/v1/trace.proto

static RESOURCE_SPANS: Message = Message {
    fields: &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        // Called otherwise before OTLP 0.16, and by Grafana to this day.
        essential(also("instrumentationLibrarySpans", many(2, "scopeSpans", Kind::Message(&SCOPE_SPANS)))),
        one(3, "schemaUrl", STRING),
    ],
    nests: false,
};

static SCOPE_SPANS: Message = Message {
    fields: &[
        also("instrumentationLibrary", one(1, "scope", Kind::Message(&SCOPE))),
        essential(many(2, "spans", Kind::Message(&SPAN))),
        one(3, "schemaUrl", STRING),
    ],
    nests: false,
};

static SPAN: Message = Message {
    fields: &[
        one(1, "traceId", HEX),
        one(2, "spanId", HEX),
        one(3, "traceState", STRING),
        one(4, "parentSpanId", HEX),
        one(16, "flags", FIXED32),
        one(5, "name", STRING),
        one(6, "kind", SPAN_KINDS),
        one(7, "startTimeUnixNano", FIXED64),
        one(8, "endTimeUnixNano", FIXED64),
        many(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(10, "droppedAttributesCount", UINT32),
        many(11, "events", Kind::Message(&EVENT)),
        one(12, "droppedEventsCount", UINT32),
        many(13, "links", Kind::Message(&LINK)),
        one(14, "droppedLinksCount", UINT32),
        one(15, "status", Kind::Message(&STATUS)),
    ],
    nests: false,
};

static EVENT: Message = Message {
    fields: &[
        one(1, "timeUnixNano", FIXED64),
        one(2, "name", STRING),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "droppedAttributesCount", UINT32),
    ],
    nests: false,
};

static LINK: Message = Message {
    fields: &[
        one(1, "traceId", HEX),
        one(2, "spanId", HEX),
        one(3, "traceState", STRING),
        many(4, "attributes", Kind::Message(&KEY_VALUE)),
        one(5, "droppedAttributesCount", UINT32),
        one(6, "flags", FIXED32),
    ],
    nests: false,
};

static STATUS: Message = Message { fields: &[one(2, "message", STRING), one(3, "code", STATUS_CODES)], nests: false };

// opentelemetry/proto/logs/v1/logs.proto

static RESOURCE_LOGS: Message = Message {
    fields: &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        essential(also("instrumentationLibraryLogs", many(2, "scopeLogs", Kind::Message(&SCOPE_LOGS)))),
        one(3, "schemaUrl", STRING),
    ],
    nests: false,
};

static SCOPE_LOGS: Message = Message {
    fields: &[
        also("instrumentationLibrary", one(1, "scope", Kind::Message(&SCOPE))),
        // Called `logs` before OTLP 0.15.
        essential(also("logs", many(2, "logRecords", Kind::Message(&LOG_RECORD)))),
        one(3, "schemaUrl", STRING),
    ],
    nests: false,
};

static LOG_RECORD: Message = Message {
    fields: &[
        one(1, "timeUnixNano", FIXED64),
        one(11, "observedTimeUnixNano", FIXED64),
        one(2, "severityNumber", SEVERITIES),
        one(3, "severityText", STRING),
        one(5, "body", Kind::Message(&ANY_VALUE)),
        many(6, "attributes", Kind::Message(&KEY_VALUE)),
        one(7, "droppedAttributesCount", UINT32),
        one(8, "flags", FIXED32),
        one(9, "traceId", HEX),
        one(10, "spanId", HEX),
        one(12, "eventName", STRING),
    ],
    nests: false,
};

// opentelemetry/proto/metrics/v1/metrics.proto

static RESOURCE_METRICS: Message = Message {
    fields: &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        essential(also("instrumentationLibraryMetrics", many(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)))),
        one(3, "schemaUrl", STRING),
    ],
    nests: false,
};

static SCOPE_METRICS: Message = Message {
    fields: &[
        also("instrumentationLibrary", one(1, "scope", Kind::Message(&SCOPE))),
        essential(many(2, "metrics", Kind::Message(&METRIC))),
        one(3, "schemaUrl", STRING),
    ],
    nests: false,
};

static METRIC: Message = Message {
    fields: &[
        one(1, "name", STRING),
        one(2, "description", STRING),
        one(3, "unit", STRING),
        either(5, "gauge", Kind::Message(&GAUGE)),
        either(7, "sum", Kind::Message(&SUM)),
        either(9, "histogram", Kind::Message(&HISTOGRAM)),
        either(10, "exponentialHistogram", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        either(11, "summary", Kind::Message(&SUMMARY)),
        many(12, "metadata", Kind::Message(&KEY_VALUE)),
    ],
    nests: false,
};

static GAUGE: Message = Message { fields: &[many(1, "dataPoints", Kind::Message(&NUMBER_DATA_POINT))], nests: false };

static SUM: Message = Message {
    fields: &[many(1, "dataPoints", Kind::Message(&NUMBER_DATA_POINT)), one(2, "aggregationTemporality", TEMPORALITIES), one(3, "isMonotonic", BOOL)],
    nests: false,
};

static HISTOGRAM: Message =
    Message { fields: &[many(1, "dataPoints", Kind::Message(&HISTOGRAM_DATA_POINT)), one(2, "aggregationTemporality", TEMPORALITIES)], nests: false };

static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[many(1, "dataPoints", Kind::Message(&EXPONENTIAL_HISTOGRAM_DATA_POINT)), one(2, "aggregationTemporality", TEMPORALITIES)],
    nests: false,
};

static SUMMARY: Message = Message { fields: &[many(1, "dataPoints", Kind::Message(&SUMMARY_DATA_POINT))], nests: false };

static NUMBER_DATA_POINT: Message = Message {
    fields: &[
        many(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", FIXED64),
        one(3, "timeUnixNano", FIXED64),
        either(4, "asDouble", DOUBLE),
        either(6, "asInt", SFIXED64),
        many(5, "exemplars", Kind::Message(&EXEMPLAR)),
        one(8, "flags", UINT32),
    ],
    nests: false,
};

static HISTOGRAM_DATA_POINT: Message = Message {
    fields: &[
        many(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", FIXED64),
        one(3, "timeUnixNano", FIXED64),
        one(4, "count", FIXED64),
        optional(5, "sum", DOUBLE),
        many(6, "bucketCounts", FIXED64),
        many(7, "explicitBounds", DOUBLE),
        many(8, "exemplars", Kind::Message(&EXEMPLAR)),
        one(10, "flags", UINT32),
        optional(11, "min", DOUBLE),
        optional(12, "max", DOUBLE),
    ],
    nests: false,
};

static EXPONENTIAL_HISTOGRAM_DATA_POINT: Message = Message {
    fields: &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", FIXED64),
        one(3, "timeUnixNano", FIXED64),
        one(4, "count", FIXED64),
        optional(5, "sum", DOUBLE),
        one(6, "scale", SINT32),
        one(7, "zeroCount", FIXED64),
        one(8, "positive", Kind::Message(&BUCKETS)),
        one(9, "negative", Kind::Message(&BUCKETS)),
        one(10, "flags", UINT32),
        many(11, "exemplars", Kind::Message(&EXEMPLAR)),
        optional(12, "min", DOUBLE),
        optional(13, "max", DOUBLE),
        one(14, "zeroThreshold", DOUBLE),
    ],
    nests: false,
};

static BUCKETS: Message = Message { fields: &[one(1, "offset", SINT32), many(2, "bucketCounts", UINT64)], nests: false };

static SUMMARY_DATA_POINT: Message = Message {
    fields: &[
        many(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", FIXED64),
        one(3, "timeUnixNano", FIXED64),
        one(4, "count", FIXED64),
        one(5, "sum", DOUBLE),
        many(6, "quantileValues", Kind::Message(&VALUE_AT_QUANTILE)),
        one(8, "flags", UINT32),
    ],
    nests: false,
};

static VALUE_AT_QUANTILE: Message = Message { fields: &[one(1, "quantile", DOUBLE), one(2, "value", DOUBLE)], nests: false };

static EXEMPLAR: Message = Message {
    fields: &[
        many(7, "filteredAttributes", Kind::Message(&KEY_VALUE)),
        one(2, "timeUnixNano", FIXED64),
        either(3, "asDouble", DOUBLE),
        either(6, "asInt", SFIXED64),
        one(4, "spanId", HEX),
        one(5, "traceId", HEX),
    ],
    nests: false,
};

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;

    fn all(message: &'static Message, found: &mut Vec<&'static Message>) {
        if found.iter().any(|known| ptr::eq(*known, message)) {
            return;
        }
        found.push(message);
        for field in message.fields {
            if let Kind::Message(inner) = field.kind {
                all(inner, found);
            }
        }
    }

    #[test]
    fn fields_are_told_apart() {
        let mut messages = Vec::new();
        Signal::ALL.into_iter().for_each(|signal| all(request(signal), &mut messages));
        assert_eq!(messages.len(), 34);
        for message in messages {
            let mut numbers: Vec<u32> = message.fields.iter().map(|field| field.number).collect();
            let mut names: Vec<&str> = message.fields.iter().map(|field| field.name).collect();
            numbers.sort_unstable();
            names.sort_unstable();
            assert!(numbers.iter().all(|number| (1..32).contains(number)), "{names:?}");
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        }
    }
}
