//! JSON to protobuf, in one pass and without a tree.
//!
//! A nested message is written where it belongs, and its length is put before it once it is known. So nothing is held
//! but what has been written, of which a number takes no more than ten bytes and everything else no more than its JSON.

use std::fmt::{self, Display};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    JsonError,
    schema::{Field, Kind, Layout, Message, Number, Shown, Text, bytes_key},
};
use crate::otlp::wire::put_varint;

/// How many characters of a text an error shows.
const FOUND_CHARS_MAX: usize = 40;
/// How many keys and indices of a path an error shows.
const STEPS_MAX: usize = 40;

/// The protobuf of a message in JSON, or what is wrong with it and where.
pub(super) fn to_protobuf(request: &'static Message, json: &[u8], limit: usize) -> Result<Vec<u8>, JsonError> {
    let mut reading = Reading { out: Vec::with_capacity(json.len() / 2), limit, trail: Vec::new() };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let slot = reading.slot(0, Kind::Message(request), Place::Request);
    let read = slot.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match read {
        Ok(()) => {
            // It may wait in a queue for long.
            reading.out.shrink_to_fit();
            Ok(reading.out)
        }
        Err(_) if reading.out.len() > limit => Err(JsonError::TooLarge(limit)),
        Err(error) => Err(JsonError::Json(reading.located(&error))),
    }
}

/// What has been written, and the way to an error if there was one.
struct Reading {
    out: Vec<u8>,
    /// The most bytes it may become. Only lists of numbers take more room than their text.
    limit: usize,
    /// From the error outwards: every message adds its step while the error passes through it.
    trail: Vec<Step>,
}

enum Step {
    Key(&'static str),
    Element(usize),
}

impl Reading {
    fn slot(&mut self, number: u32, kind: Kind, place: Place) -> Slot<'_> {
        Slot { number, kind, place, reading: self }
    }

    /// Begins a field whose length is not known yet. What is returned must be told to [`Self::end`].
    fn begin(&mut self, field: u32) -> usize {
        put_varint(&mut self.out, u64::from(bytes_key(field)));
        self.out.len()
    }

    /// Puts its length before all that was written since [`Self::begin`].
    fn end(&mut self, start: usize) {
        let content = self.out.len() - start;
        put_varint(&mut self.out, content as u64);
        let prefix = self.out.len() - start - content;
        if let Some(field) = self.out.get_mut(start..) {
            field.rotate_right(prefix);
        }
    }

    /// The error and the path to it.
    fn located(&self, error: &serde_json::Error) -> String {
        let mut path = String::new();
        for step in self.trail.iter().rev().take(STEPS_MAX) {
            match step {
                Step::Element(index) => path.push_str(&format!("[{index}]")),
                Step::Key(name) if path.is_empty() => path.push_str(name),
                Step::Key(name) => path.extend([".", *name]),
            }
        }
        if self.trail.len() > STEPS_MAX {
            path.push('…');
        }
        if path.is_empty() { error.to_string() } else { format!("{path}: {error}") }
    }
}

/// A place in the protobuf that waits for a value.
struct Slot<'r> {
    number: u32,
    kind: Kind,
    place: Place,
    reading: &'r mut Reading,
}

#[derive(Clone, Copy)]
enum Place {
    /// The whole.
    Request,
    /// A field with one value; `keep` says whether zero must be written, too.
    One { keep: bool },
    /// A field with an array of values.
    Many,
    /// One of the values in such an array.
    Element,
}

impl Slot<'_> {
    /// What may stand here, if it is not an array.
    const fn takes(&self) -> Option<Kind> {
        match self.place {
            Place::Many => None,
            Place::Request | Place::One { .. } | Place::Element => Some(self.kind),
        }
    }

    const fn expected(&self) -> &'static str {
        match (self.place, self.kind) {
            (Place::Many, _) => "an array",
            (_, Kind::Message(_)) => "an object",
            (_, Kind::Number(Number::Bool)) => "true or false",
            (_, Kind::Number(Number::Enum(_))) => "a number or its name",
            (_, Kind::Number(_)) => "a number",
            (_, Kind::Text(Text::String)) => "a string",
            (_, Kind::Text(Text::Bytes)) => "a string in base64",
            (_, Kind::Text(Text::Hex)) => "a string of hexadecimal digits",
        }
    }

    fn wrong<E: Error>(&self, found: &dyn Display) -> E {
        unfit(self.expected(), found)
    }

    /// Whether a value of zero or nothing goes without saying.
    const fn omits_default(&self) -> bool {
        matches!(self.place, Place::One { keep: false })
    }

    /// Writes a number as [`bits_of`] gives it.
    fn number<E>(self, number: Number, bits: u64) -> Result<(), E> {
        if bits == 0 && self.omits_default() {
            return Ok(());
        }
        let layout = number.layout();
        let out = &mut self.reading.out;
        // Numbers in an array have one key before all of them.
        if !matches!(self.place, Place::Element) {
            put_varint(out, u64::from(layout.key(self.number)));
        }
        match layout {
            Layout::Varint => put_varint(out, bits),
            Layout::Fixed64 => out.extend_from_slice(&bits.to_le_bytes()),
            #[expect(clippy::cast_possible_truncation, reason = "of a number of 32 bits")]
            Layout::Fixed32 => out.extend_from_slice(&(bits as u32).to_le_bytes()),
        }
        Ok(())
    }

    fn integer<E: Error>(self, value: i128, found: &dyn Display) -> Result<(), E> {
        match self.takes() {
            Some(Kind::Number(Number::Double)) => self.number(Number::Double, (value as f64).to_bits()),
            Some(Kind::Number(number)) => match bits_of(number, value) {
                Some(bits) => self.number(number, bits),
                None => Err(unfit(range(number), found)),
            },
            Some(Kind::Text(_) | Kind::Message(_)) | None => Err(self.wrong(found)),
        }
    }

    /// A whole number in quotes.
    fn digits<E: Error>(self, text: &str) -> Result<(), E> {
        match text.parse::<i128>() {
            Ok(value) => self.integer(value, &Found(text)),
            Err(_) => Err(self.wrong(&Found(text))),
        }
    }

    fn text<E: Error>(self, kind: Text, text: &str) -> Result<(), E> {
        if text.is_empty() && self.omits_default() {
            return Ok(());
        }
        let start = self.reading.begin(self.number);
        let out = &mut self.reading.out;
        let decoded = match kind {
            Text::String => {
                put_varint(out, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
                return Ok(());
            }
            Text::Bytes => put_base64(out, text),
            Text::Hex => put_id(out, text),
        };
        if !decoded {
            return Err(self.wrong(&Found(text)));
        }
        self.reading.end(start);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        match self.place {
            Place::One { .. } | Place::Many => Ok(()),
            Place::Request | Place::Element => Err(self.wrong(&"null")),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.takes() {
            Some(Kind::Number(Number::Bool)) => self.number(Number::Bool, u64::from(value)),
            _ => Err(self.wrong(&value)),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value), &value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value), &value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match (self.takes(), whole(value)) {
            (Some(Kind::Number(Number::Double)), _) => self.number(Number::Double, value.to_bits()),
            (Some(Kind::Number(_)), Some(whole)) => self.integer(whole, &Float(value)),
            (Some(Kind::Number(number)), None) => Err(unfit(range(number), &Float(value))),
            _ => Err(self.wrong(&Float(value))),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let found = Found(text);
        match self.takes() {
            Some(Kind::Text(kind)) => self.text(kind, text),
            Some(Kind::Number(Number::Double)) => match double(text) {
                Some(value) => self.number(Number::Double, value.to_bits()),
                None => Err(self.wrong(&found)),
            },
            Some(Kind::Number(number @ Number::Enum(names))) => match names.number(text) {
                Some(value) => self.number(number, value as u64),
                None => self.digits(text),
            },
            Some(Kind::Number(number)) if !matches!(number, Number::Bool) => self.digits(text),
            _ => Err(self.wrong(&found)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if !matches!(self.place, Place::Many) {
            return Err(self.wrong(&"an array"));
        }
        let Self { number, kind, reading, .. } = self;
        let packed = matches!(kind, Kind::Number(_));
        let before = reading.out.len();
        let start = if packed { reading.begin(number) } else { before };
        let mut count = 0;
        loop {
            match elements.next_element_seed(reading.slot(number, kind, Place::Element)) {
                Ok(Some(())) if reading.out.len() > reading.limit => return Err(A::Error::custom("too large")),
                Ok(Some(())) => count += 1,
                Ok(None) => break,
                Err(error) => {
                    reading.trail.push(Step::Element(count));
                    return Err(error);
                }
            }
        }
        if packed && count == 0 {
            reading.out.truncate(before);
        } else if packed {
            reading.end(start);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        let Some(Kind::Message(message)) = self.takes() else { return Err(self.wrong(&"an object")) };
        if matches!(self.place, Place::Request) {
            return fields(message, members, self.reading, true);
        }
        let start = self.reading.begin(self.number);
        fields(message, members, self.reading, false)?;
        self.reading.end(start);
        Ok(())
    }
}

/// Writes the fields of a message, in the order of their keys; of the `whole` request or of a part of it.
fn fields<'de, A: MapAccess<'de>>(message: &'static Message, mut members: A, reading: &mut Reading, whole: bool) -> Result<(), A::Error> {
    let mut seen = 0_u32;
    let mut foreign: Option<String> = None;
    while let Some(named) = members.next_key_seed(Key { message, whole })? {
        let field = match named {
            Named::Field(field) => field,
            Named::Envelope(field) => {
                seen |= 1 << field.number;
                if let Err(error) = members.next_value_seed(reading.slot(0, Kind::Message(message), Place::Request)) {
                    reading.trail.push(Step::Key(ENVELOPE));
                    return Err(error);
                }
                continue;
            }
            Named::Unknown(name) => {
                foreign = foreign.or(name);
                members.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        let bit = 1 << field.number;
        let place = if field.repeated {
            Place::Many
        } else {
            // Of a key that stands twice the last value counts, and so must be written even if it is zero.
            Place::One { keep: seen & bit != 0 || !matches!(field.shown, Shown::Filled | Shown::Always) }
        };
        seen |= bit;
        if let Err(error) = members.next_value_seed(reading.slot(field.number, field.kind, place)) {
            reading.trail.push(Step::Key(field.name));
            return Err(error);
        }
    }
    // Unknown keys are left out, since a newer OTLP may have more of them. But where there is nothing else, it is none.
    if let Some(name) = foreign
        && let Some(list) = message.essential()
        && seen & (1 << list.number) == 0
    {
        return Err(A::Error::custom(format_args!("expected the key `{}`, found only others, such as {}", list.name, Found(&name))));
    }
    Ok(())
}

/// What a key of a message names.
enum Named {
    Field(&'static Field),
    /// A request within the request, in place of this field.
    Envelope(&'static Field),
    /// Nothing that is known; the name where it may have to be told.
    Unknown(Option<String>),
}

/// Tempo's newer interface puts a trace into an object of this name.
const ENVELOPE: &str = "trace";

/// Finds the field of a message that a key names: in lowerCamelCase or as protobuf writes it, in `snake_case`.
struct Key {
    message: &'static Message,
    /// Whether it stands at the top.
    whole: bool,
}

impl Key {
    #[cold]
    fn unusual(&self, name: &str) -> Named {
        let fields = self.message.fields;
        if let Some(field) = fields.iter().find(|field| is_snake_case_of(field.name, name) || (!field.also.is_empty() && is_called(field.also, name)))
        {
            return Named::Field(field);
        }
        match self.message.essential() {
            // Of requests only those of traces are called something else, too.
            Some(list) if self.whole && name == ENVELOPE && !list.also.is_empty() => Named::Envelope(list),
            Some(_) => Named::Unknown(Some(name.chars().take(FOUND_CHARS_MAX + 1).collect())),
            None => Named::Unknown(None),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Named, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Named, E> {
        let known = self.message.fields.iter().find(|field| field.name == name);
        Ok(known.map_or_else(|| self.unusual(name), Named::Field))
    }
}

/// Whether a field of this name in lowerCamelCase is meant.
fn is_called(name: &str, found: &str) -> bool {
    name == found || is_snake_case_of(name, found)
}

/// Whether `found` is `name`, which is in lowerCamelCase, as protobuf's own files write it.
fn is_snake_case_of(name: &str, found: &str) -> bool {
    let mut found = found.bytes();
    let all = name.bytes().all(|byte| {
        let begins_word = byte.is_ascii_uppercase();
        (!begins_word || found.next() == Some(b'_')) && found.next() == Some(byte.to_ascii_lowercase())
    });
    all && found.next().is_none()
}

/// Text of a sender within an error: quoted, and no longer than a glance.
struct Found<'a>(&'a str);

impl Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(FOUND_CHARS_MAX).collect();
        write!(f, "{shown:?}{}", if shown.len() < self.0.len() { "…" } else { "" })
    }
}

/// A number within an error, with an exponent where it would be long without.
struct Float(f64);

impl Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cold]
fn unfit<E: Error>(expected: &str, found: &dyn Display) -> E {
    E::custom(format_args!("expected {expected}, found {found}"))
}

const fn range(number: Number) -> &'static str {
    match number {
        Number::Bool => "true or false",
        Number::Int32 | Number::Enum(_) | Number::Sint32 => "a 32-bit integer",
        Number::Uint32 | Number::Fixed32 => "an unsigned 32-bit integer",
        Number::Int64 | Number::Sfixed64 => "a 64-bit integer",
        Number::Uint64 | Number::Fixed64 => "an unsigned 64-bit integer",
        Number::Double => "a number",
    }
}

/// A whole number as it travels, if it is in range.
fn bits_of(number: Number, value: i128) -> Option<u64> {
    match number {
        Number::Int32 | Number::Enum(_) => i32::try_from(value).ok().map(|value| i64::from(value).cast_unsigned()),
        Number::Sint32 => i32::try_from(value).ok().map(|value| u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())),
        Number::Uint32 | Number::Fixed32 => u32::try_from(value).ok().map(u64::from),
        Number::Int64 | Number::Sfixed64 => i64::try_from(value).ok().map(i64::cast_unsigned),
        Number::Uint64 | Number::Fixed64 => u64::try_from(value).ok(),
        Number::Bool | Number::Double => None,
    }
}

/// A number that JSON wrote with a fraction, an exponent or as minus zero, if it is whole after all.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
}

/// A number in quotes, or one that JSON has no number for.
fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        // Rust knows more names for them, and OTLP/JSON does not.
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => text.parse::<f64>().ok().filter(|value| value.is_finite()),
        _ => None,
    }
}

/// With or without padding, as protobuf's readers of JSON take it.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
static STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
static URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Appends the bytes of a text in base64 of either alphabet, or says that it is none.
pub(super) fn put_base64(out: &mut Vec<u8>, text: &str) -> bool {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode_vec(text, out).is_ok()
}

/// Appends the bytes of an id, or says that it is none: in hexadecimal digits, as OTLP/JSON has it, or in base64, as
/// protobuf's own JSON and so Tempo's downloads have it. The two can't be taken for each other: ids in base64 end with
/// `=`, or have a number of digits that no id has in hexadecimal.
fn put_id(out: &mut Vec<u8>, text: &str) -> bool {
    let start = out.len();
    if put_hex(out, text) {
        return true;
    }
    out.truncate(start);
    put_base64(out, text) && matches!(out.len() - start, 8 | 16)
}

/// Appends the bytes of hexadecimal digits, or says that they are none.
pub(super) fn put_hex(out: &mut Vec<u8>, text: &str) -> bool {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    for [high, low] in pairs {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return false };
        out.push(high << 4 | low);
    }
    rest.is_empty()
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
        common::v1::{AnyValue, ArrayValue, KeyValueList, any_value::Value},
        logs::v1::LogRecord,
        metrics::v1::{
            ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint,
            metric::Data,
            number_data_point::Value::{AsDouble, AsInt},
        },
    };
    use prost::Message as _;

    use crate::otlp::{Signal, json::to_protobuf};

    fn protobuf(signal: Signal, json: &str) -> Result<Vec<u8>, String> {
        to_protobuf(signal, json.as_bytes(), usize::MAX).map_err(|error| error.to_string())
    }

    /// A request with a log record of these members.
    fn log(members: &str) -> String {
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{{members}}}]}}]}}]}}"#)
    }

    fn record(members: &str) -> Result<LogRecord, String> {
        let request = ExportLogsServiceRequest::decode(&*protobuf(Signal::Logs, &log(members))?).unwrap();
        Ok(request.resource_logs[0].scope_logs[0].log_records[0].clone())
    }

    fn value(any_value: &str) -> Option<Value> {
        record(&format!(r#""body":{any_value}"#)).unwrap().body.unwrap().value
    }

    /// The data of a metric.
    fn metric(data: &str) -> Data {
        let json = format!(r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{{data}}}]}}]}}]}}"#);
        let request = ExportMetricsServiceRequest::decode(&*protobuf(Signal::Metrics, &json).unwrap()).unwrap();
        request.resource_metrics[0].scope_metrics[0].metrics[0].data.clone().unwrap()
    }

    #[test]
    fn numbers_are_numbers_or_text() {
        let expected = LogRecord { time_unix_nano: 1_544_712_660_300_000_000, severity_number: 9, flags: 257, ..LogRecord::default() };
        for members in [
            r#""timeUnixNano":1544712660300000000,"severityNumber":9,"flags":257"#,
            r#""timeUnixNano":"1544712660300000000","severityNumber":"9","flags":"257""#,
            r#""timeUnixNano":15447126603e8,"severityNumber":9.0,"flags":2.57e2,"droppedAttributesCount":-0"#,
        ] {
            assert_eq!(record(members).unwrap(), expected, "{members}");
        }
        for (text, number) in [("-9223372036854775808", i64::MIN), ("9223372036854775807", i64::MAX), ("-1", -1), ("0", 0)] {
            assert_eq!(value(&format!(r#"{{"intValue":"{text}"}}"#)), Some(Value::IntValue(number)));
            assert_eq!(value(&format!(r#"{{"intValue":{text}}}"#)), Some(Value::IntValue(number)));
        }
        assert_eq!(record(r#""timeUnixNano":18446744073709551615"#).unwrap().time_unix_nano, u64::MAX);
        assert_eq!(record(r#""severityNumber":-7"#).unwrap().severity_number, -7);
    }

    #[test]
    fn doubles_may_be_none_of_json() {
        for (json, number) in
            [("2.5", 2.5), ("-3", -3.0), (r#""2.5e-3""#, 0.0025), ("18446744073709551615", 18_446_744_073_709_551_616.0), ("0", 0.0)]
        {
            assert_eq!(value(&format!(r#"{{"doubleValue":{json}}}"#)), Some(Value::DoubleValue(number)), "{json}");
        }
        assert_eq!(value(r#"{"doubleValue":"Infinity"}"#), Some(Value::DoubleValue(f64::INFINITY)));
        assert_eq!(value(r#"{"doubleValue":"-Infinity"}"#), Some(Value::DoubleValue(f64::NEG_INFINITY)));
        assert!(matches!(value(r#"{"doubleValue":"NaN"}"#), Some(Value::DoubleValue(number)) if number.is_nan()));
        assert!(matches!(value(r#"{"doubleValue":-0.0}"#), Some(Value::DoubleValue(number)) if number.is_sign_negative()));
    }

    #[test]
    fn every_kind_of_value_keeps_what_it_is() {
        assert_eq!(value("{}"), None);
        assert_eq!(value(r#"{"stringValue":null,"unheardOf":1}"#), None);
        assert_eq!(value(r#"{"stringValue":""}"#), Some(Value::StringValue(String::new())));
        assert_eq!(value(r#"{"stringValue":"a\n\u00e9\ud834\udd1e"}"#), Some(Value::StringValue("a\né𝄞".to_owned())));
        assert_eq!(value(r#"{"boolValue":false}"#), Some(Value::BoolValue(false)));
        assert_eq!(value(r#"{"intValue":0}"#), Some(Value::IntValue(0)));
        assert_eq!(value(r#"{"arrayValue":{}}"#), Some(Value::ArrayValue(ArrayValue::default())));
        assert_eq!(value(r#"{"kvlistValue":{"values":[]}}"#), Some(Value::KvlistValue(KeyValueList::default())));
        assert_eq!(value(r#"{"arrayValue":{"values":[{}]}}"#), Some(Value::ArrayValue(ArrayValue { values: vec![AnyValue::default()] })));
        assert_eq!(value(r#"{"bytesValue":""}"#), Some(Value::BytesValue(Vec::new())));
        for base64 in ["+/8=", "-_8=", "+/8", "-_8"] {
            assert_eq!(value(&format!(r#"{{"bytesValue":"{base64}"}}"#)), Some(Value::BytesValue(vec![0xfb, 0xff])));
        }
        let long = "x".repeat(70_000);
        assert_eq!(value(&format!(r#"{{"stringValue":"{long}"}}"#)), Some(Value::StringValue(long)));
    }

    #[test]
    fn ids_are_hexadecimal() {
        let ids = record(r#""traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174""#).unwrap();
        assert_eq!(ids.trace_id, [0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c]);
        assert_eq!(ids.span_id, [0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74]);
        assert_eq!(record(r#""traceId":"""#).unwrap(), LogRecord::default());
    }

    #[test]
    fn what_says_nothing_is_not_written() {
        let nothing = protobuf(Signal::Logs, &log("")).unwrap();
        for members in [
            r#""timeUnixNano":"0","severityNumber":0,"severityText":"","flags":0,"traceId":"","attributes":[]"#,
            r#""timeUnixNano":null,"severityText":null,"traceId":null,"attributes":null,"body":null"#,
            r#""TimeUnixNano":5,"time_unixNano":5,"unheardOf":[{"severityNumber":5},[],"\"",1e5,true,null]"#,
        ] {
            assert_eq!(protobuf(Signal::Logs, &log(members)).unwrap(), nothing, "{members}");
        }
        assert_eq!(protobuf(Signal::Traces, "{}").unwrap(), b"");
        assert_eq!(protobuf(Signal::Traces, r#" {"resourceSpans" : null , "resourceLogs":3 } "#).unwrap(), b"");
    }

    #[test]
    fn keys_may_be_written_as_protobuf_does() {
        let found = record(r#""time_unix_nano":5,"severity_number":"SEVERITY_NUMBER_WARN","body":{"string_value":"a"},"trace_id":"ab""#).unwrap();
        let body = Some(AnyValue { value: Some(Value::StringValue("a".to_owned())) });
        assert_eq!(found, LogRecord { time_unix_nano: 5, severity_number: 13, body, trace_id: vec![0xab], ..LogRecord::default() });
        let snake = r#"{"resource_spans":[{"scope_spans":[{"spans":[{"span_id":"0102030405060708"}]}]}]}"#;
        let camel = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"0102030405060708"}]}]}]}"#;
        assert_eq!(protobuf(Signal::Traces, snake), protobuf(Signal::Traces, camel));
        assert!(protobuf(Signal::Traces, snake).unwrap().len() > 10);
    }

    #[test]
    fn what_tempo_and_grafana_write_is_read() {
        let span =
            r#"{"traceId":"AQIDBAUGBwgJCgsMDQ4PEA==","spanId":"AQIDBAUGBwg=","kind":"SPAN_KIND_CLIENT","status":{"code":"STATUS_CODE_ERROR"}}"#;
        let plain = r#"{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","kind":3,"status":{"code":2}}"#;
        let expected = protobuf(Signal::Traces, &format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"scope":{{"name":"a"}},"spans":[{plain}]}}]}}]}}"#));
        for (request, spans, scope) in [
            ("batches", "scopeSpans", "scope"),
            ("batches", "instrumentationLibrarySpans", "instrumentationLibrary"),
            ("resourceSpans", "instrumentation_library_spans", "instrumentation_library"),
        ] {
            let trace = format!(r#"{{"{request}":[{{"{spans}":[{{"{scope}":{{"name":"a"}},"spans":[{span}]}}]}}]}}"#);
            assert_eq!(protobuf(Signal::Traces, &trace), expected, "{trace}");
            assert_eq!(protobuf(Signal::Traces, &format!("\u{feff}{trace}")), expected, "{trace}");
            assert_eq!(protobuf(Signal::Traces, &format!(r#"{{"trace":{trace},"metrics":{{}}}}"#)), expected, "{trace}");
        }
        for (id, bytes) in [("AQIDBAUGBwg", 8), ("AQIDBAUGBwgJCgsMDQ4PEA", 16), ("____________________-A==", 16)] {
            assert_eq!(record(&format!(r#""traceId":"{id}""#)).unwrap().trace_id.len(), bytes, "{id}");
        }
    }

    #[test]
    fn what_is_json_and_no_otlp_is_told() {
        for (json, at, key, found) in [
            (r#"{"hello":"world"}"#, "", "resourceSpans", "hello"),
            (r#"{"resourceLogs":[{}]}"#, "", "resourceSpans", "resourceLogs"),
            (r#"{"ResourceSpans":[],"b":1}"#, "", "resourceSpans", "ResourceSpans"),
            (r#"{"resourceSpans":[{},{"resource":{},"spans":[]}]}"#, "resourceSpans[1]: ", "scopeSpans", "spans"),
            (r#"{"resourceSpans":[{"scopeSpans":[{"items":[]}]}]}"#, "resourceSpans[0].scopeSpans[0]: ", "spans", "items"),
            (r#"{"trace":{"x":1}}"#, "trace: ", "resourceSpans", "x"),
        ] {
            let told = protobuf(Signal::Traces, json).unwrap_err();
            let expected = format!("invalid OTLP/JSON: {at}expected the key `{key}`, found only others, such as {found:?} at line 1");
            assert!(told.starts_with(&expected), "{json}\n{told}\n{expected}");
        }
        // What is empty says nothing wrong, and what is newer is left out.
        for json in
            ["{}", r#"{"resourceSpans":[{}]}"#, r#"{"resourceSpans":[{"resource":{}}],"b":1}"#, r#"{"resourceSpans":[{"scopeSpans":[{}],"b":1}]}"#]
        {
            assert!(protobuf(Signal::Traces, json).is_ok(), "{json}");
        }
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_value_counts() {
        let found = record(r#""severityNumber":5,"severityText":"a","severityNumber":0,"severityText":"","flags":1,"flags":2"#).unwrap();
        assert_eq!(found, LogRecord { flags: 2, ..LogRecord::default() });
        let found = record(r#""attributes":[{"key":"a"}],"attributes":[{"key":"b"}]"#).unwrap();
        assert_eq!(found.attributes.iter().map(|attribute| &*attribute.key).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(value(r#"{"stringValue":"a","intValue":0}"#), Some(Value::IntValue(0)));
    }

    #[test]
    fn numbers_of_metrics_keep_what_they_are() {
        let Data::Gauge(gauge) = metric(r#""gauge":{"dataPoints":[{"asInt":"0"},{"asDouble":0},{"asInt":-5}]}"#) else { panic!() };
        let values: Vec<_> = gauge.data_points.iter().map(|NumberDataPoint { value, .. }| *value).collect();
        assert_eq!(values, [Some(AsInt(0)), Some(AsDouble(0.0)), Some(AsInt(-5))]);

        let Data::Histogram(histogram) = metric(
            r#""histogram":{"dataPoints":[{"count":"3","sum":0,"max":7,"bucketCounts":["1",2,"0"],"explicitBounds":[1,"2.5"]},{"bucketCounts":[]}]}"#,
        ) else {
            panic!()
        };
        let expected = HistogramDataPoint {
            count: 3,
            sum: Some(0.0),
            max: Some(7.0),
            bucket_counts: vec![1, 2, 0],
            explicit_bounds: vec![1.0, 2.5],
            ..HistogramDataPoint::default()
        };
        assert_eq!(histogram.data_points, [expected, HistogramDataPoint::default()]);

        let Data::ExponentialHistogram(exponential) = metric(
            r#""exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":-2147483648,"bucketCounts":[0,"300"]},"negative":{}}]}"#,
        ) else {
            panic!()
        };
        let ExponentialHistogramDataPoint { scale, positive, negative, .. } = &exponential.data_points[0];
        let positive = positive.as_ref().unwrap();
        assert_eq!((*scale, positive.offset, &*positive.bucket_counts, negative.is_some()), (-3, i32::MIN, &[0, 300][..], true));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (members, reason) in [
            (r#""severityNumber":"x""#, r#"severityNumber: expected a number or its name, found "x""#),
            (r#""severityNumber":true"#, "severityNumber: expected a number or its name, found true"),
            (r#""severityNumber":3000000000"#, "severityNumber: expected a 32-bit integer, found 3000000000"),
            (r#""severityNumber":1.5"#, "severityNumber: expected a 32-bit integer, found 1.5"),
            (r#""flags":"-1""#, r#"flags: expected an unsigned 32-bit integer, found "-1""#),
            (r#""timeUnixNano":1e300"#, "timeUnixNano: expected an unsigned 64-bit integer, found 1e300"),
            (r#""timeUnixNano":"""#, r#"timeUnixNano: expected a number, found """#),
            (r#""timeUnixNano":[]"#, "timeUnixNano: expected a number, found an array"),
            (r#""traceId":"abc""#, r#"traceId: expected a string of hexadecimal digits, found "abc""#),
            (r#""spanId":"0x12""#, r#"spanId: expected a string of hexadecimal digits, found "0x12""#),
            (r#""spanId":7"#, "spanId: expected a string of hexadecimal digits, found 7"),
            (r#""severityText":{}"#, "severityText: expected a string, found an object"),
            (r#""attributes":{}"#, "attributes: expected an array, found an object"),
            (r#""attributes":"no""#, r#"attributes: expected an array, found "no""#),
            (r#""attributes":[{},null]"#, "attributes[1]: expected an object, found null"),
            (r#""body":"text""#, r#"body: expected an object, found "text""#),
            (r#""body":[]"#, "body: expected an object, found an array"),
            (r#""body":{"boolValue":1}"#, "body.boolValue: expected true or false, found 1"),
            (r#""body":{"boolValue":"1"}"#, r#"body.boolValue: expected true or false, found "1""#),
            (r#""body":{"bytesValue":"*"}"#, r#"body.bytesValue: expected a string in base64, found "*""#),
            (r#""body":{"doubleValue":"inf"}"#, r#"body.doubleValue: expected a number, found "inf""#),
            (
                r#""attributes":[{"key":"a"},{"value":{"arrayValue":{"values":[{},{},{"kvlistValue":{"values":{}}}]}}}]"#,
                "attributes[1].value.arrayValue.values[2].kvlistValue.values: expected an array, found an object",
            ),
        ] {
            let told = record(members).unwrap_err();
            let expected = format!("invalid OTLP/JSON: resourceLogs[0].scopeLogs[0].logRecords[0].{reason} at line 1 column ");
            assert!(told.starts_with(&expected), "{members}\n{told}\n{expected}");
        }
        let told = record(&format!(r#""severityNumber":"{}""#, "é\n".repeat(1000).replace('\n', "\\n"))).unwrap_err();
        assert!(told.contains("found \"é\\né") && told.contains("\"… at line 1"), "{told}");
        let told = protobuf(Signal::Traces, r#"{"resourceSpans":[{},{"scopeSpans":[{"spans":[{},{"kind":"SERVER"}]}]}]}"#).unwrap_err();
        let expected = r#"invalid OTLP/JSON: resourceSpans[1].scopeSpans[0].spans[1].kind: expected a number or its name, found "SERVER" at "#;
        assert!(told.starts_with(expected), "{told}");
    }

    #[test]
    fn what_is_no_json_is_told() {
        for (json, reason) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{} x", "trailing characters at line 1 column 4"),
            ("null", "expected an object, found null at line 1 column "),
            ("7", "expected an object, found 7 at line 1 column "),
            ("[]", "expected an object, found an array at line 1 column "),
            (r#"{"resourceLogs":[{"scopeLogs":[{]}]}"#, "resourceLogs[0].scopeLogs[0]: key must be a string at line 1 column "),
            (r#"{"resourceLogs":[{}"#, "resourceLogs[1]: EOF while parsing a list at line 1 column "),
            (&*log(r#""severityText":"\ud834""#), "resourceLogs[0].scopeLogs[0].logRecords[0].severityText: "),
        ] {
            let told = protobuf(Signal::Logs, json).unwrap_err();
            assert!(told.starts_with(&format!("invalid OTLP/JSON: {reason}")), "{json}\n{told}");
        }
        let no_text: Vec<u8> = log(r#""severityText":"?""#).bytes().map(|byte| if byte == b'?' { 0xff } else { byte }).collect();
        assert!(to_protobuf(Signal::Logs, &no_text, usize::MAX).is_err());
    }

    #[test]
    fn nesting_ends_with_the_reader_of_json() {
        let nested = |levels| format!(r#""body":{}{{}}{}"#, r#"{"arrayValue":{"values":["#.repeat(levels), "]}}".repeat(levels));
        assert!(record(&nested(35)).is_ok());
        let told = record(&nested(1000)).unwrap_err();
        assert!(told.contains("…: recursion limit exceeded") && told.len() < 1000, "{told}");
    }
}
