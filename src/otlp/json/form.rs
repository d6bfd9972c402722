//! What a document in JSON is, by the keys at its top.

use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use super::{JsonError, without_bom};
use crate::otlp::Signal;

/// What a document in JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A request of OTLP, or a trace as Tempo and Grafana write it: for [`to_protobuf`](super::to_protobuf).
    Otlp(Signal),
    /// Traces as Jaeger's interface gives them: for [`from_jaeger`](super::from_jaeger).
    Jaeger,
}

/// Tells what a document is.
///
/// # Errors
/// It is no object in JSON, or one of a form that is not known.
pub fn form_of(json: &[u8]) -> Result<Form, JsonError> {
    let json = without_bom(json);
    // How exporters write it; saves a pass.
    if json.starts_with(br#"{"resourceSpans":"#) {
        return Ok(Form::Otlp(Signal::Traces));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let form = deserializer.deserialize_map(Top).and_then(|form| deserializer.end().map(|()| form));
    match form.map_err(|error| JsonError::Json(error.to_string()))? {
        Ok(form) => Ok(form),
        Err(Unknown(first)) => {
            let found = first.map_or_else(|| "it is empty".to_owned(), |first| format!("it begins with {first:?}"));
            let known = "`resourceSpans`, `resourceMetrics`, `resourceLogs`, `batches` (Tempo) or `data` (Jaeger)";
            Err(JsonError::Json(format!("expected the key {known}, but {found}")))
        }
    }
}

/// An object none of whose keys is known, and the first of them.
struct Unknown(Option<String>);

struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Result<Form, Unknown>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (mut form, mut first) = (None, None);
        while let Some(key) = members.next_key::<String>()? {
            members.next_value::<IgnoredAny>()?;
            form = form.or_else(|| named(&key));
            first.get_or_insert(key);
        }
        Ok(form.ok_or(Unknown(first)))
    }
}

fn named(key: &str) -> Option<Form> {
    match key {
        "resourceSpans" | "resource_spans" | "batches" | "trace" => Some(Form::Otlp(Signal::Traces)),
        "resourceMetrics" | "resource_metrics" => Some(Form::Otlp(Signal::Metrics)),
        "resourceLogs" | "resource_logs" => Some(Form::Otlp(Signal::Logs)),
        // Jaeger's answer, and one trace of it.
        "data" | "traceID" => Some(Form::Jaeger),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_known_by_their_keys() {
        for (json, form) in [
            (r#"{"resourceSpans":[]}"#, Form::Otlp(Signal::Traces)),
            ("\u{feff}{ \"resource_metrics\": [] }", Form::Otlp(Signal::Metrics)),
            (r#"{"a":{"data":1},"resourceLogs":[]}"#, Form::Otlp(Signal::Logs)),
            (r#"{"batches":[]}"#, Form::Otlp(Signal::Traces)),
            (r#"{"trace":{"resourceSpans":[]},"metrics":{}}"#, Form::Otlp(Signal::Traces)),
            (r#"{"data":[],"total":0,"errors":null}"#, Form::Jaeger),
            (r#"{"traceID":"1","spans":[],"processes":{}}"#, Form::Jaeger),
        ] {
            assert_eq!(form_of(json.as_bytes()).unwrap(), form, "{json}");
        }
        for (json, why) in [
            ("{}", "but it is empty"),
            (r#"{"a":1,"b":2}"#, r#"but it begins with "a""#),
            ("7", "invalid type"),
            (r#"{"data":[]}{}"#, "trailing characters"),
            (r#"{"data":["#, "EOF"),
        ] {
            let told = form_of(json.as_bytes()).unwrap_err().to_string();
            assert!(told.starts_with("invalid OTLP/JSON: ") && told.contains(why), "{json}: {told}");
        }
    }
}
