use serde_json::{Map, Value as Json, json};

use super::{registry, settings::Settings};
use crate::{config::schema_of, pipeline::Section};

/// JSON Schema of the whole configuration, for editors.
pub fn schema() -> Json {
    let mut definitions = Map::new();
    let mut properties = Map::new();
    for section in Section::ALL {
        let (mut known, mut patterns) = (Map::new(), Map::new());
        for factory in registry::of(section) {
            let name = format!("{}.{}", section.name(), factory.name);
            let mut schema = (factory.schema)();
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("description".to_owned(), factory.about.into());
            }
            embed(&mut schema, &name);
            loosen(&mut schema);
            definitions.insert(name.clone(), schema);
            let names: Vec<&str> = std::iter::once(factory.name).chain(factory.aliases.iter().copied()).collect();
            // A bare `otlp:` means the component with its defaults.
            let reference = json!({ "anyOf": [{ "$ref": format!("#/$defs/{name}") }, { "type": "null" }] });
            // By name too, so that editors have something to complete.
            known.extend(names.iter().map(|name| ((*name).to_owned(), reference.clone())));
            patterns.insert(format!("^({})/.+$", names.join("|")), reference);
        }
        let section_schema = json!({ "type": ["object", "null"], "properties": known, "patternProperties": patterns, "additionalProperties": false });
        properties.insert(section.name().to_owned(), section_schema);
    }
    let mut service = schema_of::<Settings>();
    embed(&mut service, "service");
    loosen(&mut service);
    if let Some(pipelines) = service.pointer_mut("/properties/pipelines").and_then(Json::as_object_mut) {
        pipelines.insert("propertyNames".to_owned(), json!({ "pattern": "^(traces|metrics|logs)(/.+)?$" }));
    }
    definitions.insert("service".to_owned(), service);
    properties.insert("service".to_owned(), json!({ "$ref": "#/$defs/service" }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Fuseboard configuration",
        "type": "object",
        "properties": properties,
        "required": ["service"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// Accepts what reading accepts before a value gets its type: `${…}` in place of numbers, truth values and choices, and
/// nothing in place of a section with its defaults.
fn loosen(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            map.values_mut().for_each(loosen);
            for property in map.get_mut("properties").and_then(Json::as_object_mut).into_iter().flat_map(Map::values_mut) {
                // One that may be left out has `null` beside its type.
                let kind = property.get("type").map(|kind| kind.get(0).unwrap_or(kind)).and_then(Json::as_str).unwrap_or_default();
                let choice = property.get("oneOf").is_some() || property.get("enum").is_some();
                let other = if property.get("$ref").is_some() || kind == "object" {
                    json!({ "type": ["null", "string"], "pattern": "\\$\\{" })
                } else if choice || matches!(kind, "integer" | "number" | "boolean") {
                    json!({ "type": "string", "pattern": "\\$\\{" })
                } else {
                    continue;
                };
                let said: Map<String, Json> =
                    ["description", "default"].into_iter().filter_map(|key| Some((key.to_owned(), property.get(key)?.clone()))).collect();
                let mut loose = json!({ "anyOf": [property.clone(), other] });
                if let Some(loose) = loose.as_object_mut() {
                    loose.extend(said);
                }
                *property = loose;
            }
        }
        Json::Array(items) => items.iter_mut().for_each(loosen),
        _ => {}
    }
}

/// Makes a schema one of many in a document: its references lead to where it will stand.
fn embed(schema: &mut Json, name: &str) {
    match schema {
        Json::Object(map) => {
            map.remove("$schema");
            for (key, value) in map.iter_mut() {
                match value {
                    Json::String(to) if key == "$ref" => *to = to.replacen("#/", &format!("#/$defs/{name}/"), 1),
                    _ => embed(value, name),
                }
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| embed(item, name)),
        _ => {}
    }
}
