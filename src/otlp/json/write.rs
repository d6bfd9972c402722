//! Protobuf to JSON, without a tree.
//!
//! JSON wants a field in one place and protobuf may have it in many, so every message is gone over once to find which
//! fields it has, and once more for every array or nested message that stands in several places.

use base64::{Engine as _, engine::general_purpose};
use serde::Serialize;
use smallvec::SmallVec;

use super::schema::{Field, Kind, Message, Number, Shown, Text};
use crate::otlp::wire::{Malformed, Reader, Tag};

/// How deep an `AnyValue` may stand in others.
const NESTING_MAX: u32 = 100;

const OTHER_TYPE: Malformed = Malformed("a known field has another type");

/// The JSON of a message. Unknown fields are left out, and what is no UTF-8 in text is replaced.
pub(super) fn from_protobuf(request: &'static Message, protobuf: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(protobuf.len().saturating_mul(2));
    object(&mut out, request, &[protobuf], NESTING_MAX)?;
    Ok(out)
}

/// A field's value on the wire. Packed numbers are [`Raw::Bytes`].
#[derive(Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// What a message has of one field.
#[derive(Clone, Copy, Default)]
struct Found<'a> {
    /// The last that stands there.
    last: Option<Raw<'a>>,
    /// In how many places it stands.
    times: usize,
    /// How many of these, from the first, came before another member of the `oneof` and count no more.
    void: usize,
}

/// Of every field of a message, in the order of the schema.
type Gathered<'a> = SmallVec<[Found<'a>; 16]>;

/// Writes a message, which stands on the wire in these pieces: to read them one after the other is to read what they
/// make together.
fn object(out: &mut Vec<u8>, message: &'static Message, pieces: &[&[u8]], depth: u32) -> Result<(), Malformed> {
    let depth = if message.nests { depth.checked_sub(1).ok_or(Malformed("values nest too deep"))? } else { depth };
    let (gathered, chosen) = gather(message, pieces)?;
    out.push(b'{');
    for (field, found) in message.fields.iter().zip(&gathered) {
        let shown = match field.shown {
            Shown::Always => true,
            Shown::Set => found.last.is_some(),
            Shown::Filled => found.last.is_some_and(is_filled),
            Shown::Chosen => chosen == Some(field.number),
        };
        if shown {
            begin_item(out, b'{');
            out.push(b'"');
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b"\":");
            value(out, field, found, pieces, depth)?;
        }
    }
    out.push(b'}');
    Ok(())
}

/// Finds which fields a message has, and the member of its `oneof` that stands last.
fn gather<'a>(message: &'static Message, pieces: &[&'a [u8]]) -> Result<(Gathered<'a>, Option<u32>), Malformed> {
    let mut gathered: Gathered<'a> = SmallVec::from_elem(Found::default(), message.fields.len());
    let mut chosen = None;
    for piece in pieces.iter().copied() {
        let mut reader = Reader::new(piece);
        while let Some(tag) = reader.tag()? {
            let known = message.fields.iter().zip(gathered.iter_mut()).find(|(field, _)| field.number == tag.field());
            let Some((field, found)) = known else {
                reader.skip(tag, 0)?;
                continue;
            };
            found.last = Some(raw(&mut reader, tag, field)?);
            if matches!(field.shown, Shown::Chosen) && chosen.replace(field.number) != Some(field.number) {
                found.void = found.times;
            }
            found.times += 1;
        }
    }
    Ok((gathered, chosen))
}

/// Shows what a message has of one field, in order.
fn each<'a>(field: &Field, pieces: &[&'a [u8]], visit: &mut dyn FnMut(Raw<'a>) -> Result<(), Malformed>) -> Result<(), Malformed> {
    for piece in pieces.iter().copied() {
        let mut reader = Reader::new(piece);
        while let Some(tag) = reader.tag()? {
            if tag.field() == field.number {
                visit(raw(&mut reader, tag, field)?)?;
            } else {
                reader.skip(tag, 0)?;
            }
        }
    }
    Ok(())
}

/// Reads a known field.
fn raw<'a>(reader: &mut Reader<'a>, tag: Tag, field: &Field) -> Result<Raw<'a>, Malformed> {
    match field.kind {
        Kind::Number(number) if tag == number.layout().tag(field.number) => bits(reader, number).map(Raw::Number),
        // Only of repeated numbers may any number come in one piece.
        Kind::Number(_) if !field.repeated => Err(OTHER_TYPE),
        _ if tag == Tag::bytes(field.number) => reader.bytes().map(Raw::Bytes),
        _ => Err(OTHER_TYPE),
    }
}

/// Reads a number. Of those with 32 bits the low half of a varint counts, as in every protobuf library.
fn bits(reader: &mut Reader<'_>, number: Number) -> Result<u64, Malformed> {
    match number {
        Number::Bool | Number::Int64 | Number::Uint64 => reader.varint(),
        Number::Int32 | Number::Enum(_) | Number::Uint32 | Number::Sint32 => reader.varint().map(|bits| u64::from(low(bits))),
        Number::Fixed32 => reader.fixed32().map(u64::from),
        Number::Fixed64 | Number::Sfixed64 | Number::Double => reader.fixed64(),
    }
}

fn is_filled(value: Raw<'_>) -> bool {
    match value {
        Raw::Number(bits) => bits != 0,
        Raw::Bytes(bytes) => !bytes.is_empty(),
    }
}

fn value(out: &mut Vec<u8>, field: &Field, found: &Found<'_>, pieces: &[&[u8]], depth: u32) -> Result<(), Malformed> {
    match (field.kind, found.last) {
        (kind, _) if field.repeated => {
            out.push(b'[');
            each(field, pieces, &mut |value| elements(out, kind, value, depth))?;
            out.push(b']');
            Ok(())
        }
        (Kind::Message(message), _) if found.times - found.void != 1 => object(out, message, &parts(field, pieces, found.void)?, depth),
        (kind, Some(value)) => single(out, kind, value, depth),
        (Kind::Number(_), None) => single(out, field.kind, Raw::Number(0), depth),
        (Kind::Text(_) | Kind::Message(_), None) => single(out, field.kind, Raw::Bytes(&[]), depth),
    }
}

/// The pieces of a nested message that stands in several places, but for those that count no more.
fn parts<'a>(field: &Field, pieces: &[&'a [u8]], void: usize) -> Result<Vec<&'a [u8]>, Malformed> {
    let mut parts = Vec::new();
    let mut times = 0;
    each(field, pieces, &mut |value| {
        times += 1;
        match value {
            Raw::Bytes(part) if times > void && !part.is_empty() => parts.push(part),
            Raw::Bytes(_) | Raw::Number(_) => {}
        }
        Ok(())
    })?;
    Ok(parts)
}

/// Writes one element of an array, or all that were packed.
fn elements(out: &mut Vec<u8>, kind: Kind, value: Raw<'_>, depth: u32) -> Result<(), Malformed> {
    if let (Kind::Number(number), Raw::Bytes(packed)) = (kind, value) {
        let mut reader = Reader::new(packed);
        while !reader.rest().is_empty() {
            let bits = bits(&mut reader, number)?;
            begin_item(out, b'[');
            put_number(out, number, bits);
        }
        return Ok(());
    }
    begin_item(out, b'[');
    single(out, kind, value, depth)
}

fn single(out: &mut Vec<u8>, kind: Kind, value: Raw<'_>, depth: u32) -> Result<(), Malformed> {
    match (kind, value) {
        (Kind::Number(number), Raw::Number(bits)) => put_number(out, number, bits),
        (Kind::Text(text), Raw::Bytes(bytes)) => put_text(out, text, bytes),
        (Kind::Message(message), Raw::Bytes(piece)) => object(out, message, &[piece], depth)?,
        (Kind::Number(_), Raw::Bytes(_)) | (Kind::Text(_) | Kind::Message(_), Raw::Number(_)) => return Err(OTHER_TYPE),
    }
    Ok(())
}

/// A comma, unless the object or array has just been opened.
fn begin_item(out: &mut Vec<u8>, opening: u8) {
    if out.last() != Some(&opening) {
        out.push(b',');
    }
}

fn put_number(out: &mut Vec<u8>, number: Number, bits: u64) {
    match number {
        Number::Bool => put(out, &(bits != 0)),
        Number::Int32 | Number::Enum(_) => put(out, &low(bits).cast_signed()),
        Number::Sint32 => put(out, &((low(bits) >> 1).cast_signed() ^ -(low(bits) & 1).cast_signed())),
        Number::Uint32 | Number::Fixed32 => put(out, &low(bits)),
        // JavaScript would round them.
        Number::Int64 | Number::Sfixed64 => put_quoted(out, &bits.cast_signed()),
        Number::Uint64 | Number::Fixed64 => put_quoted(out, &bits),
        Number::Double => put_double(out, f64::from_bits(bits)),
    }
}

fn put_double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        put(out, &value);
    } else if value.is_nan() {
        put(out, "NaN");
    } else if value.is_sign_negative() {
        put(out, "-Infinity");
    } else {
        put(out, "Infinity");
    }
}

fn put_text(out: &mut Vec<u8>, text: Text, bytes: &[u8]) {
    match text {
        Text::String => put(out, &*String::from_utf8_lossy(bytes)),
        Text::Bytes => put(out, &general_purpose::STANDARD.encode(bytes)),
        Text::Hex => {
            out.push(b'"');
            for byte in bytes {
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
            out.push(b'"');
        }
    }
}

/// Appends a value as JSON writes it.
fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "text and finite numbers can be written, and memory takes them");
}

fn put_quoted<T: Serialize + ?Sized>(out: &mut Vec<u8>, number: &T) {
    out.push(b'"');
    put(out, number);
    out.push(b'"');
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
const fn low(bits: u64) -> u32 {
    bits as u32
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, KeyValueList, any_value::Value},
        logs::v1::LogRecord,
    };
    use prost::Message as _;

    use super::*;
    use crate::otlp::{
        Signal,
        json::{JsonError, from_protobuf},
        wire::{field, put_varint},
    };

    fn varint(number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, number);
        out
    }

    /// The JSON of a message that stands where spans, metrics and log records do.
    fn item(signal: Signal, message: &[u8]) -> Result<String, Malformed> {
        let request = field(1, 2, &field(2, 2, &field(2, 2, message)));
        let json = match from_protobuf(signal, &request) {
            Ok(json) => String::from_utf8(json).unwrap(),
            Err(JsonError::Protobuf(error)) => return Err(error),
            Err(error @ JsonError::TooLarge(_)) => panic!("{error}"),
            Err(error @ (JsonError::Json(_) | JsonError::Jaeger(_))) => panic!("{error}"),
        };
        let (group, scope, items) = match signal {
            Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
            Signal::Metrics => ("resourceMetrics", "scopeMetrics", "metrics"),
            Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
        };
        let around = format!(r#"{{"{group}":[{{"{scope}":[{{"{items}":["#);
        Ok(json.strip_prefix(&around).unwrap().strip_suffix("]}]}]}").unwrap().to_owned())
    }

    fn body(any_value: &[u8]) -> String {
        let record = item(Signal::Logs, &field(5, 2, any_value)).unwrap();
        record.strip_prefix(r#"{"body":"#).unwrap().strip_suffix('}').unwrap().to_owned()
    }

    #[test]
    fn a_request_is_one_line() {
        let list = KeyValueList {
            values: vec![
                KeyValue { value: Some(AnyValue::default()), ..KeyValue::default() },
                KeyValue { key: "n".to_owned(), value: Some(AnyValue { value: Some(Value::IntValue(-5)) }), key_strindex: 3 },
            ],
        };
        let record = LogRecord {
            time_unix_nano: u64::MAX,
            severity_number: 9,
            severity_text: "a\"b\\\n\u{1}é".to_owned(),
            body: Some(AnyValue { value: Some(Value::KvlistValue(list)) }),
            flags: u32::MAX,
            trace_id: vec![0x0a, 0xff],
            event_name: "e".to_owned(),
            ..LogRecord::default()
        };
        let expected = concat!(
            r#"{"timeUnixNano":"18446744073709551615","severityNumber":9,"severityText":"a\"b\\\n\u0001é","#,
            r#""body":{"kvlistValue":{"values":[{"key":"","value":{}},{"key":"n","value":{"intValue":"-5"},"keyStrindex":3}]}},"#,
            r#""flags":4294967295,"traceId":"0aff","eventName":"e"}"#
        );
        assert_eq!(item(Signal::Logs, &record.encode_to_vec()).unwrap(), expected);
        assert_eq!(item(Signal::Logs, &[]).unwrap(), "{}");
        // Readers of files tell the signal by this key.
        assert_eq!(from_protobuf(Signal::Traces, &[]).unwrap(), br#"{"resourceSpans":[]}"#);
    }

    #[test]
    fn every_kind_of_value_keeps_what_it_is() {
        let double = |value: f64| field(4, 1, &value.to_le_bytes());
        for (any_value, json) in [
            (Vec::new(), "{}"),
            (field(1, 2, b""), r#"{"stringValue":""}"#),
            (field(1, 2, b"\xffa\xc3"), "{\"stringValue\":\"\u{fffd}a\u{fffd}\"}"),
            (field(2, 0, &[0]), r#"{"boolValue":false}"#),
            (field(2, 0, &[2]), r#"{"boolValue":true}"#),
            (field(3, 0, &[0]), r#"{"intValue":"0"}"#),
            (field(3, 0, &varint(u64::MAX)), r#"{"intValue":"-1"}"#),
            (double(0.0), r#"{"doubleValue":0.0}"#),
            (double(-2.5), r#"{"doubleValue":-2.5}"#),
            (double(0.1), r#"{"doubleValue":0.1}"#),
            (double(f64::NAN), r#"{"doubleValue":"NaN"}"#),
            (double(f64::INFINITY), r#"{"doubleValue":"Infinity"}"#),
            (double(f64::NEG_INFINITY), r#"{"doubleValue":"-Infinity"}"#),
            (field(5, 2, b""), r#"{"arrayValue":{"values":[]}}"#),
            (field(6, 2, b""), r#"{"kvlistValue":{"values":[]}}"#),
            (field(7, 2, b""), r#"{"bytesValue":""}"#),
            (field(7, 2, b"\xfb\xff"), r#"{"bytesValue":"+/8="}"#),
            (field(8, 0, &[0]), r#"{"stringValueStrindex":0}"#),
            (field(90, 2, b"unknown"), "{}"),
        ] {
            assert_eq!(body(&any_value), json, "{any_value:?}");
        }
    }

    #[test]
    fn of_a_oneof_the_last_counts() {
        let text = field(1, 2, b"a");
        let number = field(3, 0, &[5]);
        let array = field(5, 2, &field(1, 2, &[]));
        let other_array = field(5, 2, &field(1, 2, &field(2, 0, &[1])));
        for (any_value, json) in [
            ([&text[..], &number].concat(), r#"{"intValue":"5"}"#),
            ([&number[..], &text].concat(), r#"{"stringValue":"a"}"#),
            ([&array[..], &other_array].concat(), r#"{"arrayValue":{"values":[{},{"boolValue":true}]}}"#),
            ([&array[..], &text, &other_array].concat(), r#"{"arrayValue":{"values":[{"boolValue":true}]}}"#),
            ([&array[..], &text, &array, &other_array].concat(), r#"{"arrayValue":{"values":[{},{"boolValue":true}]}}"#),
        ] {
            assert_eq!(body(&any_value), json, "{any_value:?}");
        }
    }

    #[test]
    fn what_stands_in_pieces_is_put_together() {
        let scope_spans = [
            field(2, 2, &field(5, 2, b"a")),
            field(1, 2, &field(1, 2, b"n")),
            field(3, 2, b"first"),
            field(99, 0, &[1]),
            field(2, 2, &[field(5, 2, b"b"), field(6, 0, &[2]), field(6, 0, &[3])].concat()),
            field(1, 2, &[field(2, 2, b"v"), field(3, 2, &field(1, 2, b"k"))].concat()),
            field(3, 2, b"last"),
            field(1, 2, &field(3, 2, &field(1, 2, b"l"))),
        ];
        let json = from_protobuf(Signal::Traces, &field(1, 2, &field(2, 2, &scope_spans.concat()))).unwrap();
        let expected = concat!(
            r#"{"resourceSpans":[{"scopeSpans":[{"scope":{"name":"n","version":"v","attributes":[{"key":"k"},{"key":"l"}]},"#,
            r#""spans":[{"name":"a"},{"name":"b","kind":3}],"schemaUrl":"last"}]}]}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn numbers_of_metrics_keep_what_they_are() {
        let fixed = |number: u64| number.to_le_bytes();
        let point = [
            field(6, 1, &fixed(1)),
            field(4, 1, &fixed(u64::MAX)),
            field(5, 1, &fixed(0)),
            field(6, 2, &[fixed(2), fixed(3)].concat()),
            field(7, 2, &0.5_f64.to_le_bytes()),
            field(7, 1, &f64::INFINITY.to_le_bytes()),
            field(10, 0, &varint(0x1_0000_0001)),
        ];
        let expected = concat!(
            r#"{"histogram":{"dataPoints":[{"count":"18446744073709551615","sum":0.0,"bucketCounts":["1","2","3"],"#,
            r#""explicitBounds":[0.5,"Infinity"],"flags":1}]}}"#
        );
        assert_eq!(item(Signal::Metrics, &field(9, 2, &field(1, 2, &point.concat()))).unwrap(), expected);

        let buckets = [field(2, 2, &[1, 0xac, 0x02]), field(2, 0, &[0]), field(1, 0, &varint(u64::from(u32::MAX)))];
        let point = [field(6, 0, &[5]), field(8, 2, &buckets.concat()), field(9, 2, &[])];
        let expected = concat!(
            r#"{"exponentialHistogram":{"dataPoints":[{"scale":-3,"#,
            r#""positive":{"offset":-2147483648,"bucketCounts":["1","300","0"]},"negative":{}}]}}"#
        );
        assert_eq!(item(Signal::Metrics, &field(10, 2, &field(1, 2, &point.concat()))).unwrap(), expected);

        let points = [field(1, 2, &field(6, 1, &fixed(u64::MAX))), field(1, 2, &field(4, 1, &fixed(0)))];
        let expected = r#"{"gauge":{"dataPoints":[{"asInt":"-1"},{"asDouble":0.0}]}}"#;
        assert_eq!(item(Signal::Metrics, &field(5, 2, &points.concat())).unwrap(), expected);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let other = "a known field has another type";
        for (span, why) in [
            (field(7, 0, &[1]), other),
            (field(6, 2, &[1]), other),
            (field(5, 0, &[1]), other),
            (field(9, 1, &[0; 8]), other),
            (field(1, 3, &[]), other),
            (field(15, 2, &field(3, 2, &[])), other),
            (field(9, 2, &[0x0a, 9]), "a field is longer than what is left"),
            (vec![0x1f], other),
            (vec![0xff; 11], "number broken off or longer than 64 bits"),
            (field(99, 4, &[]), "end of a group that did not begin"),
        ] {
            assert_eq!(item(Signal::Traces, &span), Err(Malformed(why)), "{span:x?}");
        }
        let packed = field(9, 2, &field(1, 2, &field(6, 2, &[0; 9])));
        assert_eq!(item(Signal::Metrics, &packed), Err(Malformed("a field is longer than what is left")));
        assert!(from_protobuf(Signal::Logs, b"\x0a").unwrap_err().to_string().starts_with("malformed protobuf: "));
    }

    #[test]
    fn values_nest_so_deep_and_no_deeper() {
        let nested = |levels: u32| (1..levels).fold(Vec::new(), |inner, _| field(5, 2, &field(1, 2, &inner)));
        assert!(item(Signal::Logs, &field(5, 2, &nested(NESTING_MAX))).is_ok());
        assert_eq!(item(Signal::Logs, &field(5, 2, &nested(NESTING_MAX + 1))), Err(Malformed("values nest too deep")));
        let beside = [nested(NESTING_MAX), nested(NESTING_MAX)].map(|value| field(6, 2, &field(2, 2, &value))).concat();
        assert!(item(Signal::Logs, &beside).is_ok());
    }
}
