//! One event of `tracing` as one line, whatever strangers wrote into its values.

use std::{
    fmt::{self, Debug, Write},
    hash::Hasher,
};

use serde_json::Value as Json;
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use super::settings::Encoding;
use crate::foreign::{cut, escaped, escaped_json, is_hidden, without_secrets};

/// The most characters of a value: others may have written it.
const VALUE_CHARS_MAX: usize = 256;

/// The most characters of a message: it is our own, and may list names that would be right.
const MESSAGE_CHARS_MAX: usize = 1024;

/// The most bytes of a text that are looked at.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Fields that say which component speaks, or of whom: what is said of two services or files is not the same.
const COMPONENTS: [&str; 6] = ["receiver", "processor", "exporter", "component", "service", "file"];

/// A line before it is written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    level: Level,
    message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Clone, Debug)]
enum Value {
    /// A number or a truth value.
    Scalar(Json),
    /// Text as it was given.
    Text(String),
    /// Text that a value made of itself.
    Shown(String),
}

impl Line {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut line = Self { level: *event.metadata().level(), message: String::new(), fields: Vec::new() };
        event.record(&mut line);
        line
    }

    /// What tells of this line later, without the values of the moment.
    pub(super) fn summary(&self) -> Self {
        let component = self.fields.iter().filter(|(name, _)| COMPONENTS.contains(name)).cloned().collect();
        Self { level: self.level, message: self.message.clone(), fields: component }
    }

    /// This line, with how many of its kind were left out before it.
    pub(super) fn with_left_out(mut self, left_out: u64) -> Self {
        if left_out > 0 {
            self.fields.push(("left_out", Value::Scalar(left_out.into())));
        }
        self
    }

    /// The line as it is written, line feed included.
    pub(super) fn render(&self, encoding: Encoding, coloured: bool, now_ns: u64) -> String {
        match encoding {
            Encoding::Json => self.json(&time(now_ns)),
            Encoding::Console => self.console(&time(now_ns), coloured),
        }
    }

    fn json(&self, time: &str) -> String {
        let mut json = format!("{{\"timestamp\":\"{time}\",\"level\":\"{}\",\"message\":{}", self.level, Json::from(self.message.as_str()));
        for (name, value) in &self.fields {
            let value = match value {
                Value::Scalar(scalar) => scalar.clone(),
                Value::Text(text) | Value::Shown(text) => Json::from(text.as_str()),
            };
            json.push_str(&format!(",\"{name}\":{value}"));
        }
        json.push('}');
        let mut json = escaped_json(&json).into_owned();
        json.push('\n');
        json
    }

    fn console(&self, time: &str, coloured: bool) -> String {
        let colour = match self.level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            _ => 34,
        };
        let paint = |text: &str, code: u8| if coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() };
        let level = paint(&format!("{:>5}", self.level), colour);
        let mut line = format!("{} {level} {}", paint(time, 2), escaped(&self.message));
        for (name, value) in &self.fields {
            let value = match value {
                Value::Scalar(scalar) => scalar.to_string(),
                Value::Shown(text) if is_plain(text) => text.clone(),
                Value::Text(text) | Value::Shown(text) => quoted(text),
            };
            line.push_str(&format!(" {}={value}", paint(name, 3)));
        }
        line.push('\n');
        line
    }

    fn text(&mut self, field: &Field, text: &str, value: fn(String) -> Value) {
        let text = without_secrets(text);
        match name(field) {
            "message" => self.message = cut(&text, MESSAGE_CHARS_MAX).into_owned(),
            name => self.fields.push((name, value(cut(&text, VALUE_CHARS_MAX).into_owned()))),
        }
    }

    fn scalar(&mut self, field: &Field, value: Json) {
        self.fields.push((name(field), Value::Scalar(value)));
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, start(value), Value::Text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = short(value);
        self.text(field, &text, Value::Shown);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.scalar(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.scalar(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.scalar(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.scalar(field, value.into());
    }
}

/// Takes in what makes two lines the same: the message and who speaks, and none of the other values.
pub(super) struct Sameness<'a, H>(pub(super) &'a mut H);

impl<H: Hasher> Visit for Sameness<'_, H> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" || COMPONENTS.contains(&field.name()) {
            self.0.write(short(value).as_bytes());
            self.0.write_u8(0xff);
        }
    }
}

fn name(field: &Field) -> &'static str {
    field.name().trim_start_matches("r#")
}

fn time(now_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(now_ns)).map_or_else(|_out_of_range| now_ns.to_string(), |time| format!("{time:.6}"))
}

/// Whether a value can stand in a line without quotes, and nobody takes a part of it for something else.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| is_hidden(c) || c.is_whitespace() || matches!(c, '"' | '\\' | '='))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if is_hidden(c) || matches!(c, '"' | '\\') { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('"');
    out
}

/// The first bytes of a text.
fn start(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text)
}

/// What a value shows of itself, its first bytes.
fn short(value: &dyn Debug) -> String {
    let mut text = Short::default();
    // An error is a value's own; what it had shown until then stands.
    let _ = write!(text, "{value:?}");
    text.0
}

/// The first bytes of a text that is being written.
#[derive(Default)]
struct Short(String);

impl Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = TEXT_BYTES_MAX.saturating_sub(self.0.len());
        self.0.push_str(more.get(..more.floor_char_boundary(room)).unwrap_or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: Vec<(&'static str, Value)>) -> Line {
        Line { level: Level::WARN, message: message.to_owned(), fields }
    }

    #[test]
    fn a_line_stays_one_line_whatever_is_in_it() {
        let evil = "x\n2026-12-01T00:00:00Z ERROR forged \u{1b}[31m\u{202e}\u{85}".to_owned();
        let line = line("said \n this", vec![("service", Value::Shown(evil.clone())), ("said", Value::Text(evil.clone()))]);
        let console = line.render(Encoding::Console, false, 1_764_547_200_000_000_000);
        assert!(console.starts_with("2025-12-01T00:00:00.000000Z  WARN said \\n this service=\"x\\n2026"), "{console}");
        let json = line.render(Encoding::Json, false, 0);
        for text in [&console, &json] {
            let text = text.strip_suffix('\n').unwrap();
            assert!(!text.contains(is_hidden), "{text}");
        }
        let read: Json = serde_json::from_str(&json).unwrap();
        assert_eq!((read["service"].as_str(), read["level"].as_str()), (Some(evil.as_str()), Some("WARN")));
    }

    #[test]
    fn values_stand_apart_from_each_other() {
        let fields = vec![
            ("endpoint", Value::Shown("[::1]:4317".to_owned())),
            ("forged", Value::Shown("a b=\"c\"".to_owned())),
            ("empty", Value::Shown(String::new())),
            ("times", Value::Scalar(3.into())),
        ];
        let console = line("m", fields).with_left_out(2).render(Encoding::Console, false, 0);
        assert!(console.ends_with(" WARN m endpoint=[::1]:4317 forged=\"a b=\\\"c\\\"\" empty=\"\" times=3 left_out=2\n"), "{console}");
    }

    #[test]
    fn what_a_value_shows_is_taken_to_a_limit() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert!(short(&format_args!("x{long}")).len() <= TEXT_BYTES_MAX);
        assert_eq!(short(&"a"), "\"a\"");
    }
}
