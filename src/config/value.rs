//! Values with a unit or a secret in them.

use std::{fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// What a duration looks like, for editors: they can't look into `${…}`.
const SPAN_PATTERN: &str = r"^(0|([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+|.*\$\{.*)$";

/// What a size looks like, for editors.
const SIZE_PATTERN: &str = r"^([0-9]+ ?(B|KB|MB|GB|KiB|MiB|GiB)?|.*\$\{.*)$";

/// A span of time as written in YAML: a number with a unit (`200ms`, `10s`, `1m30s`, `1.5h`), or `0`.
///
/// Units: `ns`, `us`, `ms`, `s`, `m`, `h`, `d`. Whole nanoseconds; at most `u64::MAX` of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// As the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// In nanoseconds, at most `u64::MAX`.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "0" {
            return Some(Self(Duration::ZERO));
        }
        let mut rest = text;
        let mut total = 0.0_f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at_checked(digits)?;
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, next) = tail.split_at_checked(unit_end)?;
            let nanos = match unit {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "d" => 86_400e9,
                _ => return None,
            };
            total += number.parse::<f64>().ok()? * nanos;
            rest = next;
        }
        (!text.is_empty() && total < 1.8e19).then(|| Self(Duration::from_secs_f64(total / 1e9)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let units =
            [(86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
        for (size, unit) in units {
            if nanos > 0 && nanos.is_multiple_of(size) {
                return write!(f, "{}{unit}", nanos / size);
            }
        }
        if nanos == 0 { f.write_str("0s") } else { write!(f, "{nanos}ns") }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = match &value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no duration: write a number with a unit, such as 200ms, 10s or 5m")))
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // `format: duration` would mean the notation of ISO 8601 (`PT10S`). A whole number can only be 0.
        json_schema!({ "type": ["string", "integer"], "pattern": SPAN_PATTERN, "minimum": 0, "maximum": 0, "x-unit": "duration" })
    }
}

/// A number of bytes as written in YAML: a whole number, or one with a unit (`64MiB`, `500KB`).
///
/// Units: `B`, `KB`, `MB`, `GB` (powers of 1000), `KiB`, `MiB`, `GiB` (powers of 1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(usize);

impl Size {
    /// So many mebibytes.
    pub const fn mib(mib: usize) -> Self {
        Self(mib << 20)
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (number, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))?;
        let unit = match unit.trim() {
            "" | "B" => 1,
            "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.parse::<usize>().ok()?.checked_mul(unit).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (size, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 > 0 && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is no size: write a whole number of bytes, or one with a unit, such as 64MiB")))
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": SIZE_PATTERN, "minimum": 0, "x-unit": "size" })
    }
}

/// A value that must not be shown: a token, a password, a header that carries one.
///
/// `Debug` and serialisation write `[redacted]`; its schema says `writeOnly`, so that no problem shows it either.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, nanos) in [("200ms", 200_000_000), ("1m30s", 90_000_000_000), ("1.5s", 1_500_000_000), ("0", 0), ("2d", 172_800_000_000_000)] {
            assert_eq!(Span::parse(text).map(Span::nanos), Some(nanos), "{text}");
        }
        for text in ["", "10", "s", "10 s", "-1s", "1.2.3s", "10parsecs"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_they_would_be_read() {
        for text in ["200ms", "90s", "5m", "1h", "0s", "1500us"] {
            let span = Span::parse(text).unwrap();
            assert_eq!(Span::parse(&span.to_string()), Some(span));
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("10", 10), ("64MiB", 64 << 20), ("5 KB", 5000), ("1GiB", 1 << 30), ("7B", 7)] {
            assert_eq!(Size::parse(text).map(Size::bytes), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "1TB", "99999999999999999999"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn editors_are_told_of_units_and_secrets() {
        let (span, size) = (schemars::schema_for!(Span).to_value(), schemars::schema_for!(Size).to_value());
        assert_eq!((span["x-unit"].as_str(), size["x-unit"].as_str()), (Some("duration"), Some("size")));
        assert_eq!((span.get("format"), size.get("format")), (None, None));
        assert_eq!(span["pattern"].as_str(), Some(SPAN_PATTERN));
        assert_eq!(schemars::schema_for!(Option<Secret>).to_value()["writeOnly"].as_bool(), Some(true));
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret("hunter2".to_owned());
        assert!(!format!("{secret:?}{}", serde_json::to_string(&secret).unwrap()).contains("hunter2"));
    }
}
