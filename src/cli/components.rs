use serde_json::Value as Json;

use super::Failed;
use crate::{
    pipeline::{Factory, Section},
    service::FACTORIES,
};

/// Prints components with their keys, defaults and one line each.
pub(super) fn print(names: &[String]) -> Result<(), Failed> {
    let mut out = String::new();
    for section in Section::ALL {
        let chosen: Vec<&&Factory> = FACTORIES
            .iter()
            .filter(|factory| factory.section == section && (names.is_empty() || names.iter().any(|name| name == factory.name)))
            .collect();
        if chosen.is_empty() {
            continue;
        }
        line(&mut out, 0, &format!("{}:", section.name()));
        for factory in chosen {
            describe(&mut out, factory);
        }
    }
    if out.is_empty() {
        let known: Vec<&str> = FACTORIES.iter().map(|factory| factory.name).collect();
        return Err(format!("no component of that name; known: {}", known.join(", ")).into());
    }
    super::print(&out)
}

fn describe(out: &mut String, factory: &Factory) {
    let aliases = if factory.aliases.is_empty() { String::new() } else { format!(" (also {})", factory.aliases.join(", ")) };
    let signals: Vec<String> = factory
        .roles
        .iter()
        .map(|role| {
            let signals: Vec<&str> = role.signals.iter().map(|signal| signal.name()).collect();
            format!("{} of {}", role.section.name(), signals.join(", "))
        })
        .collect();
    line(out, 1, &format!("{}:{aliases}  # {} In {}.", factory.name, factory.about, signals.join("; ")));
    let schema = (factory.schema)();
    keys(out, &schema, &schema, 2);
}

/// The keys of a section, one a line, with default and meaning.
fn keys(out: &mut String, root: &Json, schema: &Json, depth: usize) {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
    for (key, property) in properties {
        let inner = section_of(root, property);
        let about = property.get("description").or_else(|| inner?.get("description")).and_then(Json::as_str).unwrap_or_default().replace('\n', " ");
        match inner {
            Some(inner) => {
                let off = if property.get("default") == Some(&Json::Null) { " Off unless written." } else { "" };
                let off = if about.contains("unless written") { "" } else { off };
                line(out, depth, &format!("{key}:  # {about}{off}"));
                keys(out, root, inner, depth + 1);
            }
            None => line(out, depth, &format!("{key}: {}  # {about}", property.get("default").map(Json::to_string).unwrap_or_default())),
        }
    }
}

/// The section a key holds, if it holds one: directly, or by reference.
fn section_of<'a>(root: &'a Json, property: &'a Json) -> Option<&'a Json> {
    let choices = property.get("anyOf").and_then(Json::as_array).into_iter().flatten();
    std::iter::once(property).chain(choices).find_map(|choice| {
        let target = match choice.get("$ref").and_then(Json::as_str) {
            Some(reference) => root.pointer(reference.strip_prefix('#')?)?,
            None => choice,
        };
        target.get("properties").is_some().then_some(target)
    })
}

fn line(out: &mut String, depth: usize, text: &str) {
    out.push_str(&"  ".repeat(depth));
    out.push_str(text);
    out.push('\n');
}
