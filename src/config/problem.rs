//! What is wrong with a configuration, where, and what would be right.

use std::fmt;

use serde_yaml::Value;

/// Where a value stands in the document: the keys from the root down, list positions as numbers.
///
/// Written with `::` between keys, as the Collector writes it, since component ids hold dots and slashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Path(String);

impl Path {
    /// The path of a key directly under the root.
    pub fn root(key: &str) -> Self {
        Self(key.to_owned())
    }

    /// This path, one key deeper.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        if self.0.is_empty() { Self(key.to_owned()) } else { Self(format!("{}::{key}", self.0)) }
    }

    /// This path, at a list position (counted from 0).
    #[must_use]
    pub fn index(&self, position: usize) -> Self {
        self.key(&position.to_string())
    }

    /// This path, at a key of a mapping, which need not be text.
    pub(super) fn entry(&self, key: &Value) -> Self {
        match key {
            Value::String(text) => self.key(text),
            Value::Bool(flag) => self.key(&flag.to_string()),
            Value::Number(number) => self.key(&number.to_string()),
            _ => self.key("?"),
        }
    }

    /// Whether this is the whole document.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How long it is, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The component that a key belongs to, or the part of `service`: the first two keys.
    pub(super) fn component(&self) -> &str {
        let end = self.0.match_indices("::").nth(1).map_or(self.0.len(), |(at, _)| at);
        self.0.get(..end).unwrap_or_default()
    }

    /// The path one key up; `None` at the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        Some(Self(self.0.rsplit_once("::").map_or(String::new(), |(up, _)| up.to_owned())))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the source.
    pub(super) source: usize,
    /// The line in it, from 1, where it has lines.
    pub(super) line: Option<usize>,
}

/// Whether a problem keeps Fuseboard from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration can't be run.
    Error,
    /// It runs, but hardly as meant.
    Warning,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// The key it is about.
    pub path: Path,
    /// What is wrong and what would be right, lower case, without a full stop.
    pub message: String,
    /// Where it was found, if that is not where its key stands in the merged document.
    pub(super) at: Option<Place>,
}

impl Problem {
    /// A problem that keeps the configuration from running.
    pub fn error(path: &Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.clone(), message: message.into(), at: None }
    }

    /// A problem worth saying that stops nothing.
    pub fn warning(path: &Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, path: path.clone(), message: message.into(), at: None }
    }
}

/// The longest name that is compared, in bytes: the work grows with its length, and no name that there is has more.
const NAME_BYTES_MAX: usize = 128;

/// The candidate nearest to what was written, if any is near enough to be what was meant.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > NAME_BYTES_MAX {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        assert_eq!(nearest("endpont", ["endpoint", "timeout"]), Some("endpoint"));
        assert_eq!(nearest("colour", ["endpoint", "timeout"]), None);
    }

    #[test]
    fn paths_read_like_the_collectors() {
        let path = Path::root("service").key("pipelines").key("traces").key("receivers").index(0);
        assert_eq!(path.to_string(), "service::pipelines::traces::receivers::0");
        assert_eq!(path.parent().and_then(|up| up.parent()), Some(Path::root("service").key("pipelines").key("traces")));
        assert_eq!((path.component(), Path::root("service").component()), ("service::pipelines", "service"));
    }
}
