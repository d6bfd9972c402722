//! Files, merged in order, to one document whose values know where they came from.

use std::{collections::HashMap, fs, path::PathBuf};

use serde_yaml::{Mapping, Value};

use super::{
    expand::expand,
    locate::lines,
    problem::{Path, Problem, Severity},
};

/// The most that one configuration file may hold, in bytes. A person's YAML is far below; a bomb is refused unread.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Where a part of the configuration comes from; later ones override earlier ones.
#[derive(Clone, Debug)]
pub enum Source {
    /// A YAML file.
    File(PathBuf),
    /// Text that is compiled in, with the name to show for it.
    Text(&'static str, &'static str),
    /// `key.path=value` from the command line.
    Set(String),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(name, _) => (*name).to_owned(),
            Self::Set(assignment) => format!("--set {assignment}"),
        }
    }

    fn read(&self) -> Result<Value, String> {
        match self {
            Self::File(path) => {
                let about = fs::metadata(path).map_err(|error| format!("can't read it: {error}"))?;
                if !about.is_file() {
                    return Err("not a regular file".to_owned());
                }
                if about.len() > CONFIG_BYTES_MAX {
                    return Err(format!("{} bytes; a configuration has at most {CONFIG_BYTES_MAX}", about.len()));
                }
                let text = fs::read_to_string(path).map_err(|error| format!("can't read it: {error}"))?;
                parse(&text)
            }
            Self::Text(_, text) => parse(text),
            Self::Set(assignment) => assigned(assignment),
        }
    }

    fn lines(&self) -> HashMap<Path, usize> {
        match self {
            Self::File(path) => fs::read_to_string(path).map(|text| lines(&text)).unwrap_or_default(),
            Self::Text(_, text) => lines(text),
            Self::Set(_) => HashMap::new(),
        }
    }
}

fn parse(text: &str) -> Result<Value, String> {
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    value.apply_merge().map_err(|error| error.to_string())?;
    match value {
        Value::Null => Ok(Value::Mapping(Mapping::new())),
        Value::Mapping(_) => Ok(value),
        _ => Err("the top level must be a mapping with receivers, exporters and service".to_owned()),
    }
}

/// `a.b.c=value` as the mapping it stands for.
fn assigned(assignment: &str) -> Result<Value, String> {
    let (keys, value) = assignment.split_once('=').ok_or("write it as key.path=value")?;
    let value: Value = serde_yaml::from_str(value).map_err(|error| error.to_string())?;
    Ok(keys.rsplit('.').fold(value, |inner, key| {
        let mut map = Mapping::new();
        map.insert(Value::from(key), inner);
        Value::Mapping(map)
    }))
}

/// The merged configuration, with the place every key came from.
#[derive(Debug, Default)]
pub struct Document {
    /// The values; always a mapping.
    pub value: Value,
    places: HashMap<Path, (usize, Option<usize>)>,
    sources: Vec<String>,
}

impl Document {
    /// A problem as a line for people: `file:line: key: what is wrong`.
    pub fn describe(&self, problem: &Problem) -> String {
        let word = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = self.place(&problem.path);
        let key = problem.path.to_string();
        let key = if key.is_empty() { key } else { format!("{key}: ") };
        format!("{place}: {word}: {key}{}", problem.message)
    }

    /// `file:line` of a key, or of the nearest key above it that has a place.
    fn place(&self, path: &Path) -> String {
        let mut at = Some(path.clone());
        while let Some(here) = at {
            if let Some((source, line)) = self.places.get(&here) {
                let name = self.sources.get(*source).map_or("configuration", String::as_str);
                return line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
            }
            at = here.parent();
        }
        self.sources.first().cloned().unwrap_or_else(|| "configuration".to_owned())
    }

    fn note(&mut self, source: usize, value: &Value, lines: &HashMap<Path, usize>, path: &Path) {
        let children: Vec<(Path, &Value)> = match value {
            Value::Mapping(map) => map.iter().map(|(key, item)| (path.key(key.as_str().unwrap_or("?")), item)).collect(),
            Value::Sequence(items) => items.iter().enumerate().map(|(position, item)| (path.index(position), item)).collect(),
            _ => Vec::new(),
        };
        for (path, item) in children {
            if lines.is_empty() || lines.contains_key(&path) {
                self.places.insert(path.clone(), (source, lines.get(&path).copied()));
            }
            self.note(source, item, lines, &path);
        }
    }
}

/// Reads, expands and merges: mappings merge key by key, everything else is replaced by what comes later.
///
/// All problems of all sources are returned together; the document then holds what could be read.
pub fn load(sources: &[Source]) -> (Document, Vec<Problem>) {
    let mut document = Document { value: Value::Mapping(Mapping::new()), ..Document::default() };
    let mut problems = Vec::new();
    for (position, source) in sources.iter().enumerate() {
        document.sources.push(source.name());
        match source.read() {
            Ok(mut value) => {
                expand(&mut value, &Path::default(), &mut problems);
                document.note(position, &value, &source.lines(), &Path::default());
                merge(&mut document.value, value);
            }
            Err(message) => {
                let name = Path::root(&source.name());
                document.places.insert(name.clone(), (position, None));
                problems.push(Problem::error(&name, message));
            }
        }
    }
    (document, problems)
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        // A bare `key:` keeps what stands below: it says nothing.
        (Value::Mapping(_), Value::Null) => {}
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_override_and_keep_their_place() {
        let (document, problems) =
            load(&[Source::Text("one.yaml", "a:\n  b: 1\n  c: 2\n"), Source::Text("two.yaml", "\na: { c: 3 }\n"), Source::Set("a.d=4".to_owned())]);
        assert_eq!(problems, []);
        assert_eq!(document.value, serde_yaml::from_str::<Value>("a: {b: 1, c: 3, d: 4}").unwrap());
        let at = |key: &str| document.describe(&Problem::error(&Path::root("a").key(key), "x"));
        assert_eq!(at("b"), "one.yaml:2: error: a::b: x");
        assert_eq!(at("c"), "two.yaml:2: error: a::c: x");
        assert_eq!(at("d"), "--set a.d=4: error: a::d: x");
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let above = level - 1;
            bomb.push_str(&format!(
                "a{level}: &a{level} [*a{above},*a{above},*a{above},*a{above},*a{above},*a{above},*a{above},*a{above},*a{above}]\n"
            ));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
