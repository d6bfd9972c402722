//! Files, merged in order, to one document whose values know where they came from.

use std::{collections::HashMap, path::PathBuf};

use serde_json::Value as Json;
use serde_yaml::{Mapping, Value};

use super::{
    check::check,
    expand::{expand, scalar},
    locate::{Fault, lines},
    mark::{Mark, Marks},
    origin::Origins,
    problem::{Path, Place, Problem, Severity},
    read,
};
use crate::foreign::without_secrets;

/// The most that one configuration file may hold, in bytes. A person's YAML is far below; a bomb is refused unread.
const CONFIG_BYTES_MAX: usize = 1 << 20;

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
    /// What problems call it; never the value of a `--set`, which may be a secret.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(name, _) => (*name).to_owned(),
            Self::Set(assignment) => format!("--set {}", assignment.split(['=', ':', ' ']).next().unwrap_or_default()),
        }
    }

    fn read(&self) -> Result<Parsed, Fault> {
        match self {
            Self::File(path) => section(&read::text(path, CONFIG_BYTES_MAX)?),
            Self::Text(_, text) => section(text),
            Self::Set(assignment) => assigned(assignment),
        }
    }
}

/// What one source holds, and the line of each key in it.
struct Parsed {
    value: Value,
    lines: HashMap<Path, usize>,
}

/// The section that a whole file is.
fn section(text: &str) -> Result<Parsed, Fault> {
    let mut parsed = parse(text)?;
    if parsed.value.is_null() {
        parsed.value = Value::Mapping(Mapping::new());
    }
    if !parsed.value.is_mapping() {
        return Err(Fault::whole("the top level must be a section with keys such as receivers, exporters and service"));
    }
    Ok(parsed)
}

/// `a.b.c=value` as the section it stands for.
fn assigned(assignment: &str) -> Result<Parsed, Fault> {
    let (keys, text) = assignment.split_once('=').unwrap_or_default();
    if keys.split('.').any(str::is_empty) {
        return Err(Fault::whole("write it as --set key.path=value"));
    }
    // The lines of one argument help nobody.
    let value = parse(text).map_err(|fault| Fault::whole(fault.message))?.value;
    // Where text is wanted, a number is wanted as it was written.
    let value = if scalar(text).is_some() { Value::from(text.trim()) } else { value };
    let value = keys.rsplit('.').fold(value, |inner, key| {
        let mut map = Mapping::new();
        map.insert(Value::from(key), inner);
        Value::Mapping(map)
    });
    Ok(Parsed { value, lines: HashMap::new() })
}

fn parse(text: &str) -> Result<Parsed, Fault> {
    let lines = lines(text)?;
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| unread(&error))?;
    bring_in(&mut value, &Path::default(), &lines)?;
    Ok(Parsed { value, lines })
}

fn unread(error: &serde_yaml::Error) -> Fault {
    let message = error.to_string();
    let message = message.split_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    // The message about a number beyond 64 bits shows it, and it may be a secret that lacks its quotes.
    let message = if message.contains("as u128,") || message.contains("as i128,") {
        "a number has at most 64 bits; what is meant as text needs quotes".to_owned()
    } else {
        format!("this is no valid YAML: {message}")
    };
    Fault { line: error.location().map(|location| location.line()), path: Path::default(), message }
}

/// Brings what `<<` names into the section around it, from the innermost out; keys that stand there themselves win.
///
/// `Value::apply_merge` would leave the `<<` of a section that is itself brought in by `<<`.
fn bring_in(value: &mut Value, path: &Path, lines: &HashMap<Path, usize>) -> Result<(), Fault> {
    match value {
        Value::Sequence(items) => {
            for (position, item) in items.iter_mut().enumerate() {
                bring_in(item, &path.index(position), lines)?;
            }
        }
        Value::Mapping(map) => {
            for (key, item) in map.iter_mut() {
                bring_in(item, &path.entry(key), lines)?;
            }
            let brought = match map.shift_remove("<<") {
                None => return Ok(()),
                Some(Value::Sequence(several)) => several,
                Some(one) => vec![one],
            };
            for one in brought {
                let Value::Mapping(section) = one else {
                    let path = path.key("<<");
                    return Err(Fault {
                        line: lines.get(&path).copied(),
                        path,
                        message: "must be a section with keys, or a list of them".to_owned(),
                    });
                };
                for (key, item) in section {
                    map.entry(key).or_insert(item);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// The merged configuration, with the place every key came from.
#[derive(Debug, Default)]
pub struct Document {
    /// The values; always a mapping.
    pub value: Value,
    places: HashMap<Path, Place>,
    marks: Marks,
    origins: Origins,
    sources: Vec<String>,
    unread: bool,
}

impl Document {
    /// Whether every source could be read. If not, what is here is part of what was meant, and nothing more can be
    /// said of it: what seems to be missing may stand in the part that wasn't read.
    pub fn is_complete(&self) -> bool {
        !self.unread
    }

    /// Holds a value that was taken from this document against a JSON Schema; says whether it can be used.
    ///
    /// All that is wrong with it is added to the problems. On the way a bare `key:` becomes an empty section where a
    /// section may stand, so that `grpc:` means "grpc with its defaults" as it does for the Collector, and what came
    /// from `${…}` or `--set` becomes the text, number or truth value that is wanted there.
    pub fn check(&self, value: &mut Value, schema: &Json, path: &Path, problems: &mut Vec<Problem>) -> bool {
        check(value, schema, path, &self.marks, &self.origins, problems)
    }

    /// A problem as a line for people: `file:line: error: key: what is wrong`. It shows no password of a URL, and
    /// expressions in place of what `${…}` brought in.
    pub fn describe(&self, problem: &Problem) -> String {
        let word = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let place = self.place(problem);
        let key = problem.path.to_string();
        let key = if key.is_empty() { key } else { format!("{key}: ") };
        format!("{place}: {word}: {key}{}", without_secrets(&self.origins.hidden(&problem.message, &problem.path)))
    }

    /// In what order problems are told: as they stand in the sources.
    pub fn order(&self, problem: &Problem) -> (usize, Option<usize>) {
        let Place { source, line } = self.place_of(problem);
        (source, line)
    }

    /// Where a problem was found, else where its key stands, else where the nearest key above it does.
    fn place_of(&self, problem: &Problem) -> Place {
        let above = || std::iter::successors(Some(problem.path.clone()), Path::parent).find_map(|path| self.places.get(&path).copied());
        problem.at.or_else(above).unwrap_or(Place { source: 0, line: None })
    }

    /// `file:line` of a problem.
    fn place(&self, problem: &Problem) -> String {
        let place = self.place_of(problem);
        let name = self.sources.get(place.source).map_or("configuration", String::as_str);
        place.line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
    }
}

/// Reads, merges and expands: mappings merge key by key, everything else is replaced by what comes later.
///
/// All problems of all sources are returned together. If one could not be read, [`Document::is_complete`] says so.
pub fn load(sources: &[Source]) -> (Document, Vec<Problem>) {
    let mut document = Document { value: Value::Mapping(Mapping::new()), ..Document::default() };
    let mut problems = Vec::new();
    for (source, from) in sources.iter().enumerate() {
        document.sources.push(from.name());
        match from.read() {
            Ok(Parsed { value, lines }) => {
                let untyped = matches!(from, Source::Set(_));
                let mut layer = Layer { source, untyped, lines: &lines, places: &mut document.places, marks: &mut document.marks };
                layer.over(&mut document.value, value, &Path::default(), None);
            }
            Err(Fault { line, path, message }) => {
                document.unread = true;
                problems.push(Problem { at: Some(Place { source, line }), ..Problem::error(&path, message) });
            }
        }
    }
    // Only what is left in the end is expanded: a variable that is not set is no problem where a later source overrides it.
    if document.is_complete() {
        expand(&mut document.value, &mut document.marks, &mut document.origins, &mut problems);
    }
    (document, problems)
}

/// One source on its way into the document.
struct Layer<'a> {
    source: usize,
    /// Whether its scalars take the type that is wanted.
    untyped: bool,
    lines: &'a HashMap<Path, usize>,
    places: &'a mut HashMap<Path, Place>,
    marks: &'a mut Marks,
}

impl Layer<'_> {
    /// Lays a value of this source, and the line it stands on, over what earlier ones said.
    fn over(&mut self, base: &mut Value, over: Value, path: &Path, line: Option<usize>) {
        match (base, over) {
            (Value::Mapping(base), Value::Mapping(over)) => {
                self.note(path, line);
                let inherited = self.inherited(path, line);
                for (key, value) in over {
                    let at = path.entry(&key);
                    let line = self.lines.get(&at).copied().or(inherited);
                    match base.get_mut(&key) {
                        Some(slot) => self.over(slot, value, &at, line),
                        None => {
                            self.note_all(&value, &at, line);
                            base.insert(key, value);
                        }
                    }
                }
            }
            // A bare `key:` keeps what stands below: it says nothing.
            (Value::Mapping(_), Value::Null) => {}
            (base, over) => {
                self.forget_all(base, path);
                self.note_all(&over, path, line);
                *base = over;
            }
        }
    }

    /// The line of what has none of its own in a section or list: it came in by `<<` or by an alias.
    fn inherited(&self, path: &Path, line: Option<usize>) -> Option<usize> {
        self.lines.get(&path.key("<<")).copied().or(line)
    }

    fn note(&mut self, path: &Path, line: Option<usize>) {
        if !path.is_root() {
            self.places.insert(path.clone(), Place { source: self.source, line });
        }
    }

    fn note_all(&mut self, value: &Value, path: &Path, line: Option<usize>) {
        self.note(path, line);
        if self.untyped && !matches!(value, Value::Mapping(_) | Value::Sequence(_)) {
            self.marks.insert(path.clone(), Mark::Untyped);
        }
        let inherited = self.inherited(path, line);
        for (at, item) in below(value, path) {
            let line = self.lines.get(&at).copied().or(inherited);
            self.note_all(item, &at, line);
        }
    }

    fn forget_all(&mut self, value: &Value, path: &Path) {
        self.places.remove(path);
        self.marks.remove(path);
        for (at, item) in below(value, path) {
            self.forget_all(item, &at);
        }
    }
}

/// The values in a section or list, with their paths.
fn below<'a>(value: &'a Value, path: &Path) -> Vec<(Path, &'a Value)> {
    match value {
        Value::Mapping(map) => map.iter().map(|(key, item)| (path.entry(key), item)).collect(),
        Value::Sequence(items) => items.iter().enumerate().map(|(position, item)| (path.index(position), item)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    /// The problems of sources, as they are told.
    fn told(sources: &[Source]) -> Vec<String> {
        let (document, problems) = load(sources);
        problems.iter().map(|problem| document.describe(problem)).collect()
    }

    /// Where a problem with a key would be reported.
    fn place(document: &Document, path: &Path) -> String {
        document.place(&Problem::error(path, "x"))
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let path = std::env::temp_dir().join(format!("fuseboard-bom-{}.yaml", std::process::id()));
        std::fs::write(&path, "\u{feff}a: 1\n").unwrap();
        let (document, problems) = load(&[Source::File(path.clone())]);
        assert_eq!(problems, []);
        assert_eq!(document.value, yaml("a: 1"));
        assert_eq!(place(&document, &Path::root("a")), format!("{}:1", path.display()));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn later_sources_override_and_keep_their_place() {
        let (document, problems) =
            load(&[Source::Text("one.yaml", "a:\n  b: 1\n  c: 2\n"), Source::Text("two.yaml", "\na: { c: 3 }\n"), Source::Set("a.d=4".to_owned())]);
        assert_eq!(problems, []);
        assert_eq!(document.value, yaml("a: {b: 1, c: 3, d: '4'}"));
        let at = |key: &str| document.describe(&Problem::error(&Path::root("a").key(key), "x"));
        assert_eq!(at("b"), "one.yaml:2: error: a::b: x");
        assert_eq!(at("c"), "two.yaml:2: error: a::c: x");
        assert_eq!(at("d"), "--set a.d: error: a::d: x");
    }

    #[test]
    fn what_is_overridden_loses_its_place() {
        let one = Source::Text("one.yaml", "a:\n  b:\n    c: 1\n    d: [1, 2]\n");
        let a = Path::root("a").key("b");
        let (document, _) = load(&[one.clone(), Source::Text("two.yaml", "x: &x { c: 2 }\n\na:\n  b: *x\n")]);
        assert_eq!(place(&document, &a.key("c")), "two.yaml:4");
        assert_eq!(place(&document, &a.key("d")), "one.yaml:4");
        let (document, _) = load(&[one.clone(), Source::Text("two.yaml", "a:\n  b: [1]\n")]);
        assert_eq!(place(&document, &a.index(0)), "two.yaml:2");
        assert_eq!(place(&document, &a.key("d").index(1)), "two.yaml:2");
        let (document, _) = load(&[one.clone(), Source::Text("two.yaml", "\na:\n  b:\n")]);
        assert_eq!(document.value, yaml("a: {b: {c: 1, d: [1, 2]}}"));
        assert_eq!(place(&document, &a.key("c")), "one.yaml:3");
        let (document, _) = load(&[Source::Set("a.b=1".to_owned()), one]);
        assert!(document.marks.is_empty());
    }

    #[test]
    fn merge_keys_bring_in_what_was_brought_in() {
        let text = "a: &a { x: 1, y: 1 }\nb: &b\n  <<: *a\n  y: 2\nc:\n  <<: [*b]\n  z: 3\n";
        let (document, problems) = load(&[Source::Text("one.yaml", text)]);
        assert_eq!(problems, []);
        assert_eq!(document.value.get("c"), Some(&yaml("{z: 3, x: 1, y: 2}")));
        assert_eq!(place(&document, &Path::root("c").key("x")), "one.yaml:6");
        assert_eq!(place(&document, &Path::root("c").key("z")), "one.yaml:7");
        assert_eq!(told(&[Source::Text("one.yaml", "a:\n  <<: 1\n")]), ["one.yaml:2: error: a::<<: must be a section with keys, or a list of them"]);
    }

    #[test]
    fn what_can_not_be_read_is_told_once_with_its_line() {
        let one = Source::Text("one.yaml", "a: ${env:FUSEBOARD_UNSET_1}\n");
        let two = Source::Text("two.yaml", "receivers:\n  otlp:\n  debug:\n  otlp:\n");
        assert_eq!(told(&[one.clone(), two.clone()]), ["two.yaml:4: error: receivers::otlp: stands here twice, first on line 2"]);
        assert!(!load(&[one, two]).0.is_complete());
        assert_eq!(told(&[Source::Text("top.yaml", "a: 1\nb: 2\na: 3\n")]), ["top.yaml:3: error: a: stands here twice, first on line 1"]);
        let broken = told(&[Source::Text("three.yaml", "a: 1\nb: [1\n")]);
        assert_eq!(broken.len(), 1);
        assert!(broken[0].starts_with("three.yaml:2: error: this is no valid YAML: "), "{broken:?}");
        assert!(told(&[Source::File("/nowhere/at/all".into())])[0].starts_with("/nowhere/at/all: error: can't read it: "));
        assert_eq!(told(&[Source::File("/dev/zero".into())]), ["/dev/zero: error: it is not a regular file"]);
        assert!(told(&[Source::Text("four.yaml", "[a]")])[0].contains("top level"));
    }

    #[test]
    fn secrets_are_not_told() {
        for assignment in ["a.token=[hunter2", "a.token:hunter2", "a.token=@hunter2", "a.token=&x [*x, hunter2]", "a.token hunter2"] {
            let told = told(&[Source::Set(assignment.to_owned())]);
            assert_eq!(told.len(), 1, "{assignment}");
            assert!(told[0].starts_with("--set a.token: error: ") && !told[0].contains("hunter2"), "{told:?}");
        }
        let told = told(&[Source::Text("one.yaml", "a:\n  token: 340282366920938463463374607431768211455\n")]);
        assert!(told[0].starts_with("one.yaml:2: error: a number has at most 64 bits"), "{told:?}");
    }

    #[test]
    fn what_files_hold_and_passwords_of_urls_are_not_told() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/rustfmt.toml");
        let (document, problems) = load(&[Source::Text("one.yaml", concat!("a: ${file:", env!("CARGO_MANIFEST_DIR"), "/rustfmt.toml}\n"))]);
        assert_eq!(problems, []);
        let content = document.value.get("a").and_then(Value::as_str).unwrap();
        let told = document.describe(&Problem::error(&Path::root("a"), format!("`{content}` and http://user:hunter2@host are wrong")));
        assert_eq!(told, format!("one.yaml:1: error: a: `${{file:{file}}}` and http://[redacted]@host are wrong"));
    }

    #[test]
    fn set_takes_yaml_and_keeps_the_text_of_numbers() {
        let (document, problems) = load(&[
            Source::Set("a.b=0x10".to_owned()),
            Source::Set("a.c=[1, x]".to_owned()),
            Source::Set("a.d=http://x:1/?a=b".to_owned()),
            Source::Set("a.e={f: 1.5}".to_owned()),
            Source::Set("a.g=".to_owned()),
        ]);
        assert_eq!(problems, []);
        assert_eq!(document.value, yaml("a: {b: '0x10', c: [1, x], d: 'http://x:1/?a=b', e: {f: 1.5}, g: null}"));
        assert_eq!(document.marks.get(&Path::root("a").key("e").key("f")), Some(&Mark::Untyped));
    }

    #[test]
    fn only_what_is_left_in_the_end_is_expanded() {
        let one = Source::Text("one.yaml", "a:\n  token: ${env:FUSEBOARD_UNSET_1}\n  port: ${env:FUSEBOARD_UNSET_1:-4317}\n");
        let missing = told(std::slice::from_ref(&one));
        assert_eq!(missing.len(), 1);
        assert!(missing[0].starts_with("one.yaml:2: error: a::token: environment variable FUSEBOARD_UNSET_1 is not set"), "{missing:?}");
        let (document, problems) = load(&[one, Source::Set("a.token=4815".to_owned())]);
        assert_eq!(problems, []);
        assert_eq!(document.value, yaml("a: {token: '4815', port: '4317'}"));
        let schema = serde_json::json!({
            "properties": { "a": { "properties": { "token": { "type": "string" }, "port": { "type": "integer" } } } }
        });
        let (mut value, mut problems) = (document.value.clone(), Vec::new());
        assert!(document.check(&mut value, &schema, &Path::default(), &mut problems), "{problems:?}");
        assert_eq!(value, yaml("a: {token: '4815', port: 4317}"));
    }

    #[test]
    fn bombs_are_refused() {
        let list = |item: &str| format!("[{}]", vec![item; 3000].join(","));
        let bomb = format!("a: &a {}\nb: {}\n", list("x"), list("*a"));
        assert!(section(&bomb).is_err_and(|fault| fault.line == Some(2)));
        assert!(section(&"[".repeat(1 << 20)).is_err());
    }
}
