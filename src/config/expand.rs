//! `${env:NAME:-default}` and `${file:PATH}` in scalars.
//!
//! What comes out is text: YAML inside a variable builds no structure, and is not expanded again. A default and a path
//! are written in the configuration, so expressions stand in them too. `$$` is a plain `$`. Text that is nothing but
//! one expression is marked as untyped: where a number is wanted, it is read as one. What came from a variable or a file is
//! noted: it is shown to nobody.

use std::env::{self, VarError};

use serde_yaml::Value;

use super::{
    mark::{Mark, Marks},
    origin::{Brought, Origins},
    problem::{Path, Problem},
    read,
};

/// The most that `${file:…}` reads, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The most that all variables and files together bring into one configuration, in bytes.
const EXPANDED_BYTES_MAX: usize = 4 << 20;

/// How deep expressions may stand in the defaults of others.
const NESTED_MAX: usize = 8;

/// The longest text that is read as a number or as true or false.
const SCALAR_BYTES_MAX: usize = 64;

/// Expands every scalar of a document in place. What can't be expanded is reported, marked and left empty.
pub(super) fn expand(value: &mut Value, marks: &mut Marks, origins: &mut Origins, problems: &mut Vec<Problem>) {
    Expander { marks, origins: &mut *origins, problems, scope: Scope::new(variable) }.value(value, &Path::default());
    origins.sort();
}

/// The number or truth value that a text is in YAML, if it is one.
pub(super) fn scalar(text: &str) -> Option<Value> {
    if text.len() > SCALAR_BYTES_MAX || text.contains(['\n', '\r']) {
        return None;
    }
    match serde_yaml::from_str(text) {
        Ok(scalar @ (Value::Bool(_) | Value::Number(_))) => Some(scalar),
        _ => None,
    }
}

fn variable(name: &str) -> Result<String, VarError> {
    env::var(name)
}

struct Expander<'a> {
    marks: &'a mut Marks,
    origins: &'a mut Origins,
    problems: &'a mut Vec<Problem>,
    scope: Scope,
}

impl Expander<'_> {
    fn value(&mut self, value: &mut Value, path: &Path) {
        match value {
            Value::String(text) if text.contains('$') => {
                let expanded = self.scope.text(text, 0);
                let brought = std::mem::take(&mut self.scope.brought);
                if !brought.is_empty() {
                    self.origins.note(path, text, brought);
                }
                match expanded {
                    Ok(expanded) => {
                        if is_one_expression(text) {
                            self.marks.insert(path.clone(), Mark::Untyped);
                        }
                        *text = expanded;
                    }
                    Err(message) => {
                        self.problems.push(Problem::error(path, message));
                        self.marks.insert(path.clone(), Mark::Failed);
                        *value = Value::Null;
                    }
                }
            }
            Value::Sequence(items) => {
                for (position, item) in items.iter_mut().enumerate() {
                    self.value(item, &path.index(position));
                }
            }
            Value::Mapping(map) => {
                for (key, item) in map.iter_mut() {
                    self.value(item, &path.entry(key));
                }
            }
            _ => {}
        }
    }
}

/// What expressions are expanded with.
struct Scope {
    /// Bytes that may still be brought in.
    left: usize,
    variable: fn(&str) -> Result<String, VarError>,
    /// What variables and files brought into the text at hand; defaults are written in the configuration.
    brought: Vec<Brought>,
}

impl Scope {
    const fn new(variable: fn(&str) -> Result<String, VarError>) -> Self {
        Self { left: EXPANDED_BYTES_MAX, variable, brought: Vec::new() }
    }

    /// A text with its expressions replaced; it stands in so many other expressions.
    fn text(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > NESTED_MAX {
            return Err(format!("more than {NESTED_MAX} `${{…}}` stand in each other"));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            rest = if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                after
            } else if let Some(after) = after.strip_prefix('{') {
                let (expression, after) = closed(after).ok_or("`${` without its `}`; a plain `$` is written `$$`")?;
                out.push_str(&self.resolve(expression, depth)?);
                after
            } else {
                out.push('$');
                after
            };
        }
        out.push_str(rest);
        Ok(out)
    }

    fn resolve(&mut self, expression: &str, depth: usize) -> Result<String, String> {
        if let Some(written) = expression.strip_prefix("file:") {
            let path = self.text(written, depth + 1)?;
            let content = self.file(&path).map_err(|reason| format!("${{file:{path}}}: {reason}"))?;
            self.brought.push(Brought::new(&content, format!("${{file:{written}}}")));
            return Ok(content);
        }
        let name = expression.strip_prefix("env:").unwrap_or(expression);
        let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            // What stands there may be part of a password, so it is not repeated.
            return Err("this `${…}` names no variable: write ${env:NAME}, ${env:NAME:-default} or ${file:PATH}, and `$$` for a plain `$`".to_owned());
        }
        let value = match (self.variable)(name) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => return Err(format!("environment variable {name} is not valid UTF-8")),
        };
        // A default stands in for an empty variable too, as in a shell; without one, empty is what was asked for.
        if let Some(value) = value.filter(|value| !value.is_empty() || default.is_none()) {
            self.count(value.len())?;
            self.brought.push(Brought::new(&value, format!("${{env:{name}}}")));
            return Ok(value);
        }
        match default {
            Some(default) => self.text(default, depth + 1),
            None => Err(format!("environment variable {name} is not set: set it, or give a default as ${{env:{name}:-value}}")),
        }
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        let text = read::text(std::path::Path::new(path), FILE_BYTES_MAX.min(self.left))?;
        self.count(text.len())?;
        Ok(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| format!("variables and files bring in more than {EXPANDED_BYTES_MAX} bytes"))?;
        Ok(())
    }
}

/// Whether a text is one expression and nothing else.
fn is_one_expression(text: &str) -> bool {
    text.strip_prefix("${").and_then(closed).is_some_and(|(_, after)| after.is_empty())
}

/// Splits what follows `${` at the `}` that belongs to it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut open = 0_usize;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            // `$$` is a plain `$`, whatever follows it.
            '$' if chars.next_if(|(_, next)| *next == '$').is_none() => open += usize::from(chars.next_if(|(_, next)| *next == '{').is_some()),
            '}' if open == 0 => return Some((text.get(..at)?, text.get(at + 1..)?)),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An environment for tests: setting real variables isn't sound with threads.
    fn sample(name: &str) -> Result<String, VarError> {
        match name {
            "TOKEN" => Ok("4815162342".to_owned()),
            "EMPTY" => Ok(String::new()),
            "LIST" => Ok("[a, b]".to_owned()),
            "AGAIN" => Ok("${TOKEN}".to_owned()),
            "LARGE" => Ok("x".repeat(3 << 20)),
            _ => Err(VarError::NotPresent),
        }
    }

    fn text(text: &str) -> Result<String, String> {
        Scope::new(sample).text(text, 0)
    }

    fn expanded(yaml: &str) -> (Value, Marks, Vec<Problem>) {
        let mut value: Value = serde_yaml::from_str(yaml).unwrap();
        let (mut marks, mut origins, mut problems) = (Marks::new(), Origins::default(), Vec::new());
        let scope = Scope::new(sample);
        Expander { marks: &mut marks, origins: &mut origins, problems: &mut problems, scope }.value(&mut value, &Path::default());
        (value, marks, problems)
    }

    fn given(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    #[test]
    fn variables_and_defaults_stand_in() {
        assert_eq!(text("${env:TOKEN}"), given("4815162342"));
        assert_eq!(text("Bearer ${TOKEN}"), given("Bearer 4815162342"));
        assert_eq!(text("${env:UNSET:-h}:4317"), given("h:4317"));
        assert_eq!(text("$$5 and $5"), given("$5 and $5"));
        assert_eq!(text("$${env:TOKEN}"), given("${env:TOKEN}"));
    }

    #[test]
    fn defaults_are_expanded_too() {
        assert_eq!(text("${env:UNSET:-${env:TOKEN}}"), given("4815162342"));
        assert_eq!(text("${env:UNSET:-${env:UNSET_TOO:-a}${TOKEN}}!"), given("a4815162342!"));
        assert_eq!(text("${env:UNSET:-$$5}"), given("$5"));
        assert!(text("${env:UNSET:-${env:UNSET_TOO}}").unwrap_err().contains("UNSET_TOO"));
        let nested = format!("{}x{}", "${A:-".repeat(5000), "}".repeat(5000));
        assert!(text(&nested).unwrap_err().contains("stand in each other"));
    }

    #[test]
    fn an_empty_variable_is_set_but_takes_a_default() {
        assert_eq!(text("${env:EMPTY}"), given(""));
        assert_eq!(text("${env:EMPTY:-a}"), given("a"));
        assert_eq!(text("${env:UNSET:-}"), given(""));
    }

    #[test]
    fn what_a_variable_holds_stays_text() {
        assert_eq!(text("${env:AGAIN}"), given("${TOKEN}"));
        let (value, marks, problems) = expanded("{a: '${env:LIST}', b: '${env:TOKEN}', c: 'x${env:TOKEN}', d: 5}");
        assert_eq!(problems, []);
        assert_eq!(value, serde_yaml::from_str::<Value>("{a: '[a, b]', b: '4815162342', c: x4815162342, d: 5}").unwrap());
        assert_eq!(marks, Marks::from([(Path::root("a"), Mark::Untyped), (Path::root("b"), Mark::Untyped)]));
    }

    #[test]
    fn what_is_not_there_is_named_and_marked() {
        let (value, marks, problems) = expanded("{a: ['${env:UNSET}']}");
        let at = Path::root("a").index(0);
        assert_eq!(value, serde_yaml::from_str::<Value>("{a: [null]}").unwrap());
        assert_eq!(marks, Marks::from([(at.clone(), Mark::Failed)]));
        assert_eq!(problems.iter().map(|problem| problem.path.clone()).collect::<Vec<_>>(), [at]);
        assert!(text("${env:UNSET}").unwrap_err().contains("UNSET is not set"));
        assert!(text("${env:TOKEN").unwrap_err().contains("without its `}`"));
        assert!(!text("pass${hunter 2}").unwrap_err().contains("hunter"));
    }

    #[test]
    fn files_are_regular_and_small() {
        assert!(text("${file:/nowhere/at/all}").unwrap_err().contains("/nowhere/at/all"));
        assert!(text("${file:${env:UNSET:-/dev/zero}}").unwrap_err().contains("regular file"));
        assert!(text(concat!("${file:", env!("CARGO_MANIFEST_DIR"), "/rustfmt.toml}")).unwrap().contains("max_width"));
    }

    #[test]
    fn what_is_brought_in_has_a_limit() {
        assert!(text("${env:LARGE}").is_ok());
        assert!(text("${env:LARGE}${env:LARGE}").unwrap_err().contains("4194304 bytes"));
    }

    #[test]
    fn only_short_lines_are_read_as_scalars() {
        assert_eq!(scalar("4317"), Some(Value::from(4317)));
        assert_eq!(scalar("true"), Some(Value::from(true)));
        for text in ["[1]", "{a: 1}", "a", "", "null", "1\n", "1".repeat(65).as_str()] {
            assert_eq!(scalar(text), None, "{text}");
        }
    }
}
