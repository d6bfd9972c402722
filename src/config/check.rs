//! Holds a value against the JSON Schema of a component's `Config` and reports all that is wrong at once.
//!
//! `serde` stops at its first error; a person wants them all. The subset of JSON Schema understood here is what
//! `schemars` writes for our own structs: types, properties, items, `enum`, `const`, `anyOf`, `oneOf`, `$ref`, bounds;
//! and of our own `x-unit`, for text with a unit in it, `x-instead`, for keys that others know and what is right here, and
//! `writeOnly`, for what must not be shown.

use std::cell::Cell;

use serde_json::Value as Json;
use serde_yaml::Value;

use super::{
    expand::scalar,
    mark::{Mark, Marks},
    origin::Origins,
    problem::{Path, Problem, nearest},
    value::{Size, Span},
};

/// Checks a value and says whether it can be used.
///
/// Turns a bare `key:` into an empty section where a section may stand, and gives what is marked as untyped the type
/// that is wanted. What is marked as failed can't be used, and nothing is said of it.
pub(super) fn check(value: &mut Value, schema: &Json, path: &Path, marks: &Marks, origins: &Origins, problems: &mut Vec<Problem>) -> bool {
    let before = problems.len();
    let checker = Checker { root: schema, marks, origins, failed: Cell::new(false) };
    checker.value(value, schema, path, problems);
    problems.len() == before && !checker.failed.get()
}

struct Checker<'a> {
    root: &'a Json,
    marks: &'a Marks,
    origins: &'a Origins,
    /// Whether something was met that is marked as failed.
    failed: Cell<bool>,
}

impl<'a> Checker<'a> {
    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let Some(name) = schema.get("$ref").and_then(Json::as_str) else { return schema };
        name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).map_or(schema, |found| self.resolve(found))
    }

    fn value(&self, value: &mut Value, schema: &'a Json, path: &Path, problems: &mut Vec<Problem>) {
        let mark = self.marks.get(path).copied();
        if mark == Some(Mark::Failed) {
            return self.failed.set(true);
        }
        let schema = self.resolve(schema);
        if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
            return self.choice(value, choices, path, problems);
        }
        if mark == Some(Mark::Untyped) {
            settle(value, schema);
        }
        if value.is_null() && has_type(schema, "object") {
            *value = Value::Mapping(serde_yaml::Mapping::new());
        }
        if let Some(allowed) = schema.get("enum").and_then(Json::as_array) {
            return self.one_of(value, allowed, path, problems);
        }
        if let Some(only) = schema.get("const") {
            return self.one_of(value, std::slice::from_ref(only), path, problems);
        }
        let Some(kind) = kind(value) else { return problems.push(Problem::error(path, "YAML tags have no meaning here")) };
        if schema.get("type").is_some() && !has_type(schema, kind) && !(kind == "integer" && has_type(schema, "number")) {
            return problems.push(Problem::error(path, self.wrong_type(value, schema, path)));
        }
        let written = match unit(schema) {
            _ if value.is_null() => Ok(()),
            Some("duration") => serde_yaml::from_value::<Span>(value.clone()).map(drop),
            Some("size") => serde_yaml::from_value::<Size>(value.clone()).map(drop),
            _ => Ok(()),
        };
        if let Err(error) = written {
            let origin = self.origins.of(path).map(|origin| format!("{}; found what `{origin}` gave", expected(schema)));
            return problems.push(Problem::error(path, origin.unwrap_or_else(|| error.to_string())));
        }
        self.bounds(value, schema, path, problems);
        match value {
            Value::Mapping(map) => self.mapping(map, schema, path, problems),
            Value::Sequence(items) => {
                if let Some(schema) = schema.get("items") {
                    for (position, item) in items.iter_mut().enumerate() {
                        self.value(item, schema, &path.index(position), problems);
                    }
                }
            }
            _ => {}
        }
    }

    /// The choice that fits; if none does, what is wrong with the one that fits best.
    fn choice(&self, value: &mut Value, choices: &'a [Json], path: &Path, problems: &mut Vec<Problem>) {
        let sections = choices.iter().any(|choice| has_type(self.resolve(choice), "object"));
        if value.is_null() && !sections && choices.iter().any(|choice| has_type(choice, "null")) {
            return;
        }
        let constants: Vec<Json> = choices.iter().filter_map(|choice| choice.get("const").cloned()).collect();
        if constants.len() == choices.len() {
            return self.one_of(value, &constants, path, problems);
        }
        // Text that could be a number is one only where text can't stand.
        let text = value.is_string()
            && self.marks.get(path) == Some(&Mark::Untyped)
            && choices.iter().any(|choice| has_type(self.resolve(choice), "string"));
        let mut best: Option<Vec<Problem>> = None;
        for choice in choices.iter().filter(|&choice| !has_type(choice, "null") && (!text || has_type(self.resolve(choice), "string"))) {
            let (mut tried, mut found) = (value.clone(), Vec::new());
            self.value(&mut tried, choice, path, &mut found);
            if found.is_empty() {
                *value = tried;
                return;
            }
            // A wrong type is reported at the path itself; problems further in mean that the kind was right.
            let deeper = found.iter().all(|problem| problem.path != *path);
            if best.is_none() || deeper {
                best = Some(found);
            }
        }
        problems.extend(best.unwrap_or_default());
    }

    fn mapping(&self, map: &mut serde_yaml::Mapping, schema: &'a Json, path: &Path, problems: &mut Vec<Problem>) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let additional = schema.get("additionalProperties");
        for (key, item) in map.iter_mut() {
            let Some(key) = key.as_str().map(str::to_owned).or_else(|| key.as_i64().map(|number| number.to_string())) else {
                problems.push(Problem::error(path, format!("a key must be text; found {}", plain(key))));
                continue;
            };
            let at = path.key(&key);
            match (properties.and_then(|known| known.get(&key)), additional) {
                (Some(schema), _) => self.value(item, schema, &at, problems),
                (None, Some(Json::Bool(false))) => {
                    let known: Vec<&str> = properties.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                    problems.push(Problem::error(&at, unknown(&key, &known, schema.get("x-instead"))));
                }
                (None, Some(schema @ Json::Object(_))) => self.value(item, schema, &at, problems),
                (None, _) => {}
            }
        }
        for required in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if !map.contains_key(required) {
                problems.push(Problem::error(path, format!("`{required}` is missing")));
            }
        }
    }

    fn one_of(&self, value: &Value, allowed: &[Json], path: &Path, problems: &mut Vec<Problem>) {
        let written = serde_json::to_value(value).unwrap_or_default();
        if allowed.contains(&written) {
            return;
        }
        let names: Vec<&str> = allowed.iter().filter_map(Json::as_str).collect();
        let hint = value.as_str().and_then(|text| nearest(text, names.iter().copied())).map(|near| format!(" (did you mean `{near}`?)"));
        let found = self.shown(value, path);
        problems.push(Problem::error(path, format!("must be one of {}; found {found}{}", names.join(", "), hint.unwrap_or_default())));
    }

    fn bounds(&self, value: &Value, schema: &Json, path: &Path, problems: &mut Vec<Problem>) {
        let Some(number) = value.as_f64() else { return };
        let found = || self.origins.of(path).map_or_else(|| number.to_string(), |origin| format!("what `{origin}` gave"));
        if !number.is_finite() {
            return problems.push(Problem::error(path, format!("must be a finite number; found {}", found())));
        }
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let low = bound("minimum").filter(|low| number < *low).map(|low| format!("must be at least {low}"));
        let high = bound("maximum").filter(|high| number > *high).map(|high| format!("must be at most {high}"));
        if let Some(message) = low.or(high) {
            problems.push(Problem::error(path, format!("{message}; found {}", found())));
        }
    }

    fn wrong_type(&self, value: &Value, schema: &Json, path: &Path) -> String {
        let wanted = expected(schema);
        // Quotes make text of a number, and `1e3` and `0x10` stay what they are.
        let unquoted = has_type(schema, "string") && unit(schema).is_none() && matches!(value, Value::Bool(_) | Value::Number(_));
        let quotes = if unquoted { ": put it in quotes" } else { "" };
        if is_secret(schema) && matches!(value, Value::String(_) | Value::Bool(_) | Value::Number(_)) {
            return format!("{wanted}{quotes}");
        }
        format!("{wanted}{quotes}; found {}", self.shown(value, path))
    }

    /// What was found, for people; of what came from elsewhere, where it came from.
    fn shown(&self, value: &Value, path: &Path) -> String {
        self.origins.of(path).map_or_else(|| plain(value), |origin| format!("what `{origin}` gave"))
    }
}

/// `instead` is what is right for keys that are known elsewhere.
fn unknown(key: &str, known: &[&str], instead: Option<&Json>) -> String {
    if let Some(instead) = instead.and_then(|instead| instead.get(key)).and_then(Json::as_str) {
        return format!("unknown key; {instead}");
    }
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None if known.is_empty() => "unknown key; nothing can be set here".to_owned(),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Gives a scalar that nobody said the type of the one that is wanted, if it can have it.
fn settle(value: &mut Value, schema: &Json) {
    let text = has_type(schema, "string");
    match value {
        Value::String(written) if !text && ["integer", "number", "boolean"].iter().any(|name| has_type(schema, name)) => {
            if let Some(scalar) = scalar(written) {
                *value = scalar;
            }
        }
        Value::Number(number) if text && !has_type(schema, "number") && (number.is_f64() || !has_type(schema, "integer")) => {
            *value = Value::String(number.to_string());
        }
        Value::Bool(flag) if text && !has_type(schema, "boolean") => *value = Value::String(flag.to_string()),
        Value::Null if text && !has_type(schema, "null") => *value = Value::String(String::new()),
        _ => {}
    }
}

/// The unit that text has to have, if any.
fn unit(schema: &Json) -> Option<&str> {
    schema.get("x-unit").and_then(Json::as_str)
}

/// Whether what stands there, or one key or item below, must not be shown.
fn is_secret(schema: &Json) -> bool {
    let hides = |schema: &Json| schema.get("writeOnly") == Some(&Json::Bool(true));
    hides(schema) || ["additionalProperties", "items"].into_iter().filter_map(|below| schema.get(below)).any(hides)
}

fn has_type(schema: &Json, name: &str) -> bool {
    match schema.get("type") {
        Some(Json::String(one)) => one == name,
        Some(Json::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    }
}

fn kind(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Sequence(_) => "array",
        Value::Mapping(_) => "object",
        Value::Tagged(_) => return None,
    })
}

fn expected(schema: &Json) -> String {
    match unit(schema) {
        Some("duration") => return "must be a duration such as 200ms, 10s or 5m".to_owned(),
        Some("size") => return "must be a number of bytes such as 1048576 or 64MiB".to_owned(),
        _ => {}
    }
    let names: Vec<&str> = match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    let words: Vec<&str> = names
        .into_iter()
        .map(|name| match name {
            "object" => "a section with keys",
            "array" => "a list",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            _ => "text",
        })
        .collect();
    format!("must be {}", words.join(" or "))
}

/// A value as it is written, for people.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) | Value::Tagged(_) => "a section with keys".to_owned(),
        Value::String(text) => format!("`{}`", text.chars().take(60).collect::<String>()),
        Value::Bool(_) | Value::Number(_) => serde_yaml::to_string(value).map(|text| format!("`{}`", text.trim())).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Secret;

    #[derive(schemars::JsonSchema, serde::Serialize, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        endpoint: String,
        timeout: Span,
        pause: Option<Span>,
        limit: Size,
        inner: Option<Inner>,
        mode: Mode,
        #[schemars(range(min = 1, max = 10))]
        count: u32,
        ratio: f64,
        tls: bool,
        list: Vec<u32>,
        headers: BTreeMap<String, Secret>,
    }

    #[derive(Default, schemars::JsonSchema, serde::Serialize, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Inner {
        level: u32,
    }

    #[derive(Default, schemars::JsonSchema, serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        #[default]
        Fast,
        Safe,
    }

    impl Default for Sample {
        fn default() -> Self {
            Self {
                endpoint: String::new(),
                timeout: Span::secs(5),
                pause: None,
                limit: Size::mib(1),
                inner: None,
                mode: Mode::Fast,
                count: 1,
                ratio: 0.5,
                tls: false,
                list: Vec::new(),
                headers: BTreeMap::new(),
            }
        }
    }

    /// Checks a text of which everything at the given keys is marked: what it became, what is wrong, and whether it can be used.
    fn checked(yaml: &str, mark: Mark, keys: &[&str]) -> (Value, Vec<String>, bool) {
        let schema = schemars::schema_for!(Sample).to_value();
        let path = Path::root("x");
        let marks: Marks = keys.iter().map(|key| (key.split('.').fold(path.clone(), |at, key| at.key(key)), mark)).collect();
        let mut value: Value = serde_yaml::from_str(yaml).unwrap();
        let mut problems = Vec::new();
        let usable = check(&mut value, &schema, &path, &marks, &Origins::default(), &mut problems);
        (value, problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect(), usable)
    }

    fn told(yaml: &str) -> Vec<String> {
        checked(yaml, Mark::Untyped, &[]).1
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        assert_eq!(
            told("{endpont: a, timeout: [1], inner: {level: high}, mode: sfae, count: 11}"),
            [
                "x::endpont: unknown key; did you mean `endpoint`?",
                "x::timeout: must be a duration such as 200ms, 10s or 5m; found a list",
                "x::inner::level: must be a whole number; found `high`",
                "x::mode: must be one of fast, safe; found `sfae` (did you mean `safe`?)",
                "x::count: must be at most 10; found 11",
            ]
        );
    }

    #[test]
    fn units_are_checked() {
        assert_eq!(told("{timeout: 0, pause: null, limit: 10}"), [] as [&str; 0]);
        assert_eq!(
            told("{timeout: 5, limit: 1 parsec}"),
            [
                "x::timeout: `5` is no duration: write a number with a unit, such as 200ms, 10s or 5m",
                "x::limit: `1 parsec` is no size: write a whole number of bytes, or one with a unit, such as 64MiB",
            ]
        );
    }

    #[test]
    fn a_bare_key_is_a_section_with_its_defaults() {
        let (value, problems, usable) = checked("inner:\n", Mark::Untyped, &[]);
        assert_eq!((problems, usable), (Vec::new(), true));
        let sample: Sample = serde_yaml::from_value(value).unwrap();
        assert!(sample.inner.is_some());
    }

    #[test]
    fn what_has_no_type_takes_the_one_that_is_wanted() {
        let keys = ["endpoint", "timeout", "limit", "inner.level", "count", "ratio", "tls", "list.0", "headers.authorization"];
        let text = "{endpoint: '1', timeout: '0', limit: '10', inner: {level: '3'}, count: '4', ratio: '1', tls: 'true', list: ['5'], \
                    headers: {authorization: '4815162342'}}";
        let (value, problems, usable) = checked(text, Mark::Untyped, &keys);
        assert_eq!((problems, usable), (Vec::new(), true));
        let sample: Sample = serde_yaml::from_value(value).unwrap();
        assert_eq!((sample.endpoint.as_str(), sample.count, sample.list, sample.tls), ("1", 4, vec![5], true));
        assert_eq!((sample.timeout, sample.limit.bytes(), sample.inner.map(|inner| inner.level)), (Span::default(), 10, Some(3)));
        assert_eq!(sample.headers.get("authorization").map(Secret::expose), Some("4815162342"));
        let (value, problems, _) = checked(
            "{endpoint: 15, headers: {a: true, b: 1.5, c: null}, timeout: 0}",
            Mark::Untyped,
            &["endpoint", "headers.a", "headers.b", "headers.c", "timeout"],
        );
        assert_eq!(problems, [] as [&str; 0]);
        assert_eq!(value, serde_yaml::from_str::<Value>("{endpoint: '15', headers: {a: 'true', b: '1.5', c: ''}, timeout: 0}").unwrap());
        assert_eq!(checked("{count: 'many'}", Mark::Untyped, &["count"]).1, ["x::count: must be a whole number; found `many`"]);
    }

    #[test]
    fn what_a_file_says_keeps_its_type() {
        assert_eq!(
            told("{endpoint: 15, count: '4'}"),
            ["x::endpoint: must be text: put it in quotes; found `15`", "x::count: must be a whole number; found `4`"]
        );
    }

    #[test]
    fn text_stays_text_where_it_may_be_either() {
        let schema = serde_json::json!({ "anyOf": [{ "type": "integer" }, { "type": "string" }] });
        let marks = Marks::from([(Path::root("x"), Mark::Untyped)]);
        let mut value = Value::from("5");
        assert!(check(&mut value, &schema, &Path::root("x"), &marks, &Origins::default(), &mut Vec::new()));
        assert_eq!(value, Value::from("5"));
    }

    #[test]
    fn what_failed_is_not_told_again() {
        for (text, key) in [("{count: null}", "count"), ("{inner: {level: null}}", "inner.level"), ("{list: [null]}", "list.0")] {
            let (_, problems, usable) = checked(text, Mark::Failed, &[key]);
            assert_eq!((problems, usable), (Vec::new(), false), "{text}");
        }
    }

    #[test]
    fn what_came_from_elsewhere_is_shown_as_where_it_came_from() {
        let (path, mut origins) = (Path::root("x"), Origins::default());
        for key in ["timeout", "limit", "mode", "count", "ratio", "tls", "list", "inner"] {
            origins.note(&path.key(key), "${env:TOKEN}", Vec::new());
        }
        let secret = "'7hunter2'";
        let yaml = ["timeout", "limit", "mode", "ratio", "tls", "list", "inner"].map(|key| format!("{key}: {secret}")).join(", ");
        let mut value = serde_yaml::from_str(&format!("{{{yaml}, count: 4815}}")).unwrap();
        let mut problems = Vec::new();
        check(&mut value, &schemars::schema_for!(Sample).to_value(), &path, &Marks::new(), &origins, &mut problems);
        assert_eq!(problems.len(), 8, "{problems:?}");
        for Problem { message, .. } in problems {
            assert!(message.contains("found what `${env:TOKEN}` gave") && !message.contains("hunter2") && !message.contains("4815"), "{message}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(told("{headers: {authorization: 4815162342}}"), ["x::headers::authorization: must be text: put it in quotes"]);
        assert_eq!(told("{headers: {authorization: [4815162342]}}"), ["x::headers::authorization: must be text; found a list"]);
        assert_eq!(told("{headers: 'Bearer hunter2'}"), ["x::headers: must be a section with keys"]);
    }
}
