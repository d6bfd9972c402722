//! `${env:NAME:-default}` and `${file:PATH}` in scalars.
//!
//! What comes out stays a scalar (YAML inside a variable builds no structure) and is expanded once, so a variable
//! can't bring in another one. A scalar that is nothing but one expression takes the type its text would have in
//! YAML (`${env:PORT}` can be a number). `$$` is a plain `$`.

use std::{env, fs, io::Read};

use serde_yaml::Value;

use super::problem::{Path, Problem};

/// The most that `${file:…}` reads, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Expands every scalar of a document in place; what can't be expanded is left and reported.
pub(super) fn expand(value: &mut Value, path: &Path, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) if text.contains('$') => match expand_scalar(text) {
            Ok(expanded) => *value = expanded,
            Err(message) => problems.push(Problem::error(path, message)),
        },
        Value::Sequence(items) => {
            for (position, item) in items.iter_mut().enumerate() {
                expand(item, &path.index(position), problems);
            }
        }
        Value::Mapping(map) => {
            for (key, item) in map.iter_mut() {
                expand(item, &path.key(key.as_str().unwrap_or("?")), problems);
            }
        }
        _ => {}
    }
}

fn expand_scalar(text: &str) -> Result<Value, String> {
    if let Some(expression) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
        && !expression.contains('}')
    {
        let resolved = resolve(expression)?;
        return Ok(match serde_yaml::from_str::<Value>(&resolved) {
            Ok(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar,
            _ => Value::String(resolved),
        });
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (expression, after) = after.split_once('}').ok_or("`${` without its `}`")?;
            out.push_str(&resolve(expression)?);
            after
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(Value::String(out))
}

fn resolve(expression: &str) -> Result<String, String> {
    if let Some(path) = expression.strip_prefix("file:") {
        return read_file(path);
    }
    let name = expression.strip_prefix("env:").unwrap_or(expression);
    let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(format!("`${{{expression}}}` names no variable: write ${{env:NAME}}, ${{env:NAME:-default}} or ${{file:PATH}}"));
    }
    match env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => default
            .map(str::to_owned)
            .ok_or_else(|| format!("environment variable {name} is not set: set it, or give a default as ${{env:{name}:-value}}")),
    }
}

fn read_file(path: &str) -> Result<String, String> {
    // A pipe or a device would hold the start up for ever: only regular files are read.
    let about = fs::metadata(path).map_err(|error| format!("can't read the file {path}: {error}"))?;
    if !about.is_file() {
        return Err(format!("{path} is not a regular file"));
    }
    if about.len() > FILE_BYTES_MAX {
        return Err(format!("{path} has {} bytes; ${{file:}} reads at most {FILE_BYTES_MAX}", about.len()));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| format!("can't read the file {path}: {error}"))?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| format!("can't read the file {path}: {error}"))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_stands_in_and_takes_its_type() {
        assert_eq!(expand_scalar("${env:FUSEBOARD_UNSET_1:-4317}"), Ok(Value::from(4317)));
        assert_eq!(expand_scalar("${env:FUSEBOARD_UNSET_1:-h}:4317"), Ok(Value::from("h:4317")));
        assert_eq!(expand_scalar("$$5 and $5"), Ok(Value::from("$5 and $5")));
    }

    #[test]
    fn yaml_in_a_variable_stays_a_scalar() {
        assert_eq!(expand_scalar("${env:FUSEBOARD_UNSET_1:-[a, b]}"), Ok(Value::from("[a, b]")));
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert!(expand_scalar("${env:FUSEBOARD_UNSET_1}").unwrap_err().contains("FUSEBOARD_UNSET_1"));
        assert!(expand_scalar("${file:/nowhere/at/all}").unwrap_err().contains("/nowhere/at/all"));
        assert!(expand_scalar("${file:/dev/zero}").unwrap_err().contains("regular file"));
    }
}
