use serde_json::{Map, Value as Json, json};

use super::{registry, settings::Settings};
use crate::{config::schema_of, pipeline::Section};

/// JSON Schema of the whole configuration, for editors.
pub fn schema() -> Json {
    let mut definitions = Map::new();
    let mut properties = Map::new();
    for section in Section::ALL {
        let mut patterns = Map::new();
        for factory in registry::of(section) {
            let name = format!("{}.{}", section.name(), factory.name);
            let mut schema = (factory.schema)();
            if let Some(schema) = schema.as_object_mut() {
                schema.insert("description".to_owned(), factory.about.into());
            }
            embed(&mut schema, &name);
            definitions.insert(name.clone(), schema);
            let names: Vec<&str> = std::iter::once(factory.name).chain(factory.aliases.iter().copied()).collect();
            // A bare `otlp:` means the component with its defaults.
            let reference = json!({ "anyOf": [{ "$ref": format!("#/$defs/{name}") }, { "type": "null" }] });
            patterns.insert(format!("^({})(/.+)?$", names.join("|")), reference);
        }
        let section_schema = json!({ "type": ["object", "null"], "patternProperties": patterns, "additionalProperties": false });
        properties.insert(section.name().to_owned(), section_schema);
    }
    let mut service = schema_of::<Settings>();
    embed(&mut service, "service");
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
