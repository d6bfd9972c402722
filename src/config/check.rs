//! Holds a value against the JSON Schema of a component's `Config` and reports all that is wrong at once.
//!
//! `serde` stops at its first error; a person wants them all. The subset of JSON Schema understood here is what
//! `schemars` writes for our own structs: types, properties, items, `enum`, `const`, `anyOf`, `oneOf`, `$ref`, bounds.

use serde_json::Value as Json;
use serde_yaml::Value;

use super::{
    problem::{Path, Problem, nearest},
    value::{Size, Span},
};

/// Checks a value; also turns a bare `key:` into an empty section where a section may stand, so that
/// `grpc:` means "grpc with its defaults", as it does for the Collector.
pub fn check(value: &mut Value, schema: &Json, path: &Path, problems: &mut Vec<Problem>) {
    Checker { root: schema }.value(value, schema, path, problems);
}

struct Checker<'a> {
    root: &'a Json,
}

impl<'a> Checker<'a> {
    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let Some(name) = schema.get("$ref").and_then(Json::as_str) else { return schema };
        name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).map_or(schema, |found| self.resolve(found))
    }

    fn value(&self, value: &mut Value, schema: &'a Json, path: &Path, problems: &mut Vec<Problem>) {
        let schema = self.resolve(schema);
        if let Some(choices) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
            return self.choice(value, choices, path, problems);
        }
        if value.is_null() && has_type(schema, "object") {
            *value = Value::Mapping(serde_yaml::Mapping::new());
        }
        if let Some(allowed) = schema.get("enum").and_then(Json::as_array) {
            return one_of(value, allowed, path, problems);
        }
        if let Some(only) = schema.get("const") {
            return one_of(value, std::slice::from_ref(only), path, problems);
        }
        let Some(kind) = kind(value) else { return problems.push(Problem::error(path, "YAML tags have no meaning here")) };
        if schema.get("type").is_some() && !has_type(schema, kind) && !(kind == "integer" && has_type(schema, "number")) {
            return problems.push(Problem::error(path, format!("{}; found {}", expected(schema), shown(value))));
        }
        let written = match schema.get("format").and_then(Json::as_str) {
            Some("duration") => serde_yaml::from_value::<Span>(value.clone()).map(drop),
            Some("size") => serde_yaml::from_value::<Size>(value.clone()).map(drop),
            _ => Ok(()),
        };
        if let Err(error) = written {
            return problems.push(Problem::error(path, error.to_string()));
        }
        bounds(value, schema, path, problems);
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
            return one_of(value, &constants, path, problems);
        }
        let mut best: Option<Vec<Problem>> = None;
        for choice in choices.iter().filter(|choice| !has_type(choice, "null")) {
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
                problems.push(Problem::error(path, format!("a key must be text; found {}", shown(key))));
                continue;
            };
            let at = path.key(&key);
            match (properties.and_then(|known| known.get(&key)), additional) {
                (Some(schema), _) => self.value(item, schema, &at, problems),
                (None, Some(Json::Bool(false))) => {
                    let known: Vec<&str> = properties.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                    problems.push(Problem::error(&at, unknown(&key, &known)));
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
}

fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key; did you mean `{near}`?"),
        None if known.is_empty() => "unknown key; nothing can be set here".to_owned(),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

fn one_of(value: &Value, allowed: &[Json], path: &Path, problems: &mut Vec<Problem>) {
    let written = serde_json::to_value(value).unwrap_or_default();
    if allowed.contains(&written) {
        return;
    }
    let names: Vec<&str> = allowed.iter().filter_map(Json::as_str).collect();
    let hint = value.as_str().and_then(|text| nearest(text, names.iter().copied())).map(|near| format!(" (did you mean `{near}`?)"));
    problems.push(Problem::error(path, format!("must be one of {}; found {}{}", names.join(", "), shown(value), hint.unwrap_or_default())));
}

fn bounds(value: &Value, schema: &Json, path: &Path, problems: &mut Vec<Problem>) {
    let Some(number) = value.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
    let low = bound("minimum").filter(|low| number < *low).map(|low| format!("must be at least {low}"));
    let high = bound("maximum").filter(|high| number > *high).map(|high| format!("must be at most {high}"));
    if let Some(message) = low.or(high) {
        problems.push(Problem::error(path, format!("{message}; found {number}")));
    }
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
    if schema.get("format").and_then(Json::as_str) == Some("duration") {
        return "must be a duration such as 200ms, 10s or 5m".to_owned();
    }
    if schema.get("format").and_then(Json::as_str) == Some("size") {
        return "must be a number of bytes such as 1048576 or 64MiB".to_owned();
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

fn shown(value: &Value) -> String {
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
    use super::*;
    #[derive(schemars::JsonSchema, serde::Serialize, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        endpoint: String,
        timeout: Span,
        inner: Option<Inner>,
        mode: Mode,
        #[schemars(range(min = 1, max = 10))]
        count: u32,
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
            Self { endpoint: String::new(), timeout: Span::secs(5), inner: None, mode: Mode::Fast, count: 1 }
        }
    }

    fn problems(yaml: &str) -> Vec<String> {
        let schema = schemars::schema_for!(Sample).to_value();
        let mut value: Value = serde_yaml::from_str(yaml).unwrap();
        let mut problems = Vec::new();
        check(&mut value, &schema, &Path::root("x"), &mut problems);
        problems.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        assert_eq!(
            problems("{endpont: a, timeout: [1], inner: {level: high}, mode: sfae, count: 11}"),
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
    fn a_bare_key_is_a_section_with_its_defaults() {
        let schema = schemars::schema_for!(Sample).to_value();
        let mut value: Value = serde_yaml::from_str("inner:\n").unwrap();
        let mut problems = Vec::new();
        check(&mut value, &schema, &Path::root("x"), &mut problems);
        assert_eq!(problems, []);
        let sample: Sample = serde_yaml::from_value(value).unwrap();
        assert!(sample.inner.is_some());
    }
}
