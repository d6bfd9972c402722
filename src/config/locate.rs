//! Reads a text for its shape, before any of it becomes values: where each key stands, and whether there is too much.
//!
//! `serde_yaml` decides what a value is, but it keeps no positions, limits aliases by their number and not by what
//! they repeat, and takes one anchor for another where a name is used twice. So a text is weighed and checked here
//! first, and `serde_yaml` sees none that was refused.

use std::{
    collections::{HashMap, HashSet},
    str::Chars,
};

use saphyr_parser::{Event, Marker, Parser, ScanError, Tag};

use super::problem::Path;

/// The most keys and values in one text, with every alias counted as what it repeats.
const VALUES_MAX: usize = 100_000;

/// The most bytes in the values of one text and in the paths that lead to them, counted alike.
const BYTES_MAX: usize = 16 << 20;

/// How deep sections and lists may lie in each other.
const DEPTH_MAX: usize = 64;

/// Why a text can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where in the text, if it is about a place in it.
    pub(super) line: Option<usize>,
    /// The key it is about, or the root.
    pub(super) path: Path,
    /// What is wrong, for people.
    pub(super) message: String,
}

impl Fault {
    /// A fault of the whole text.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { line: None, path: Path::default(), message: message.into() }
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self::whole(message)
    }
}

/// The line (from 1) of every key and list item of one YAML text.
///
/// # Errors
/// Where it is no YAML, where it has what can't stand in a configuration, and where it is larger than any
/// configuration: no work follows that grows beyond the limits above.
pub(super) fn lines(text: &str) -> Result<HashMap<Path, usize>, Fault> {
    // The parser may hold a whole list before it tells of the first item, so what could make too many is counted before.
    let marks = text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{' | b'\n' | b'\r')).count();
    if marks > VALUES_MAX {
        return Err(Fault::whole(format!("it has more than {VALUES_MAX} lines, commas and brackets")));
    }
    let mut survey = Survey::new(text);
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|error| broken(text, &error))?;
        survey.take(&event, span.start)?;
    }
    Ok(survey.lines)
}

fn broken(text: &str, error: &ScanError) -> Fault {
    // The parser takes the end of a text for one line more.
    let line = error.marker().line().min(text.lines().count()).max(1);
    // It has a limit of its own to brackets in brackets, and sees some of them before it tells of the first.
    let message = if error.info().contains("recursion limit") { too_deep() } else { format!("this is no valid YAML: {}", error.info()) };
    Fault { line: Some(line), path: Path::default(), message }
}

fn too_deep() -> String {
    format!("sections and lists lie more than {DEPTH_MAX} deep in each other")
}

/// A container that is open while events come in.
struct Open {
    path: Path,
    /// The number of its anchor, or 0.
    anchor: usize,
    /// What was counted before it.
    before: Weight,
    /// How deep the deepest container in it is.
    height: usize,
    kind: Kind,
}

enum Kind {
    /// A section: the key that waits for its value, and where each key stands.
    Map { key: Option<String>, keys: HashMap<String, usize> },
    /// A list, and the position of its next item.
    List { next: usize },
}

#[derive(Clone, Copy, Default)]
struct Weight {
    values: usize,
    bytes: usize,
}

/// What an alias repeats. Its bytes are without the path to it, which differs from alias to alias.
#[derive(Clone, Copy)]
struct Anchor {
    weight: Weight,
    height: usize,
}

struct Survey<'a> {
    lines: HashMap<Path, usize>,
    stack: Vec<Open>,
    /// By the number the parser gave it; one that is still open is not here.
    anchors: HashMap<usize, Anchor>,
    names: HashSet<String>,
    total: Weight,
    documents: usize,
    /// The text from the last anchor on, and how many characters of it are behind.
    rest: Chars<'a>,
    passed: usize,
}

impl<'a> Survey<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: HashMap::new(),
            stack: Vec::new(),
            anchors: HashMap::new(),
            names: HashSet::new(),
            total: Weight::default(),
            documents: 0,
            rest: text.chars(),
            passed: 0,
        }
    }

    fn take(&mut self, event: &Event<'_>, start: Marker) -> Result<(), Fault> {
        let line = start.line();
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { Err(self.fault(line, "a second YAML document begins here; a file holds one")) } else { Ok(()) }
            }
            Event::Scalar(text, _, anchor, tag) => {
                self.properties(*anchor, tag.as_deref(), start)?;
                self.scalar(text, *anchor, line)
            }
            Event::MappingStart(anchor, tag) => {
                self.properties(*anchor, tag.as_deref(), start)?;
                self.open(Kind::Map { key: None, keys: HashMap::new() }, *anchor, line)
            }
            Event::SequenceStart(anchor, tag) => {
                self.properties(*anchor, tag.as_deref(), start)?;
                self.open(Kind::List { next: 0 }, *anchor, line)
            }
            Event::MappingEnd | Event::SequenceEnd => {
                self.close();
                Ok(())
            }
            Event::Alias(anchor) => self.alias(*anchor, line),
            _ => Ok(()),
        }
    }

    /// Tags mean nothing here, and every anchor has its own name.
    fn properties(&mut self, anchor: usize, tag: Option<&Tag>, start: Marker) -> Result<(), Fault> {
        let line = start.line();
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
            return Err(self.fault(line, "YAML tags have no meaning here"));
        }
        if anchor == 0 {
            return Ok(());
        }
        let Some(name) = self.name(start.index()) else { return Err(self.fault(line, "an anchor (`&name`) stands before a tag")) };
        // `serde_yaml` would lead later aliases astray, to what may be much larger than what was weighed here.
        let twice = format!("the anchor `&{name}` is there already: give each its own name");
        if self.names.insert(name) { Ok(()) } else { Err(self.fault(line, twice)) }
    }

    /// The name of the anchor that is written at a character of the text, if one is.
    fn name(&mut self, start: usize) -> Option<String> {
        while self.passed < start && self.rest.next().is_some() {
            self.passed += 1;
        }
        let mut name = self.rest.clone();
        if name.next() != Some('&') {
            return None;
        }
        Some(name.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect())
    }

    /// A key, or a value that is no container.
    fn scalar(&mut self, text: &str, anchor: usize, line: usize) -> Result<(), Fault> {
        let path = match self.stack.last_mut() {
            Some(Open { path, kind: Kind::Map { key: key @ None, keys }, .. }) => {
                let path = path.key(text);
                if let Some(first) = keys.insert(text.to_owned(), line) {
                    return Err(Fault { line: Some(line), path, message: format!("stands here twice, first on line {first}") });
                }
                *key = Some(text.to_owned());
                self.lines.insert(path.clone(), line);
                path
            }
            _ => self.place(line)?,
        };
        if anchor > 0 {
            self.anchors.insert(anchor, Anchor { weight: Weight { values: 1, bytes: text.len() }, height: 0 });
        }
        self.weigh(Weight { values: 1, bytes: text.len() + path.bytes() }, line)
    }

    fn open(&mut self, kind: Kind, anchor: usize, line: usize) -> Result<(), Fault> {
        let path = self.place(line)?;
        if self.stack.len() >= DEPTH_MAX {
            return Err(Fault { line: Some(line), path, message: too_deep() });
        }
        let before = self.total;
        self.weigh(Weight { values: 1, bytes: path.bytes() }, line)?;
        self.stack.push(Open { path, anchor, before, height: 0, kind });
        Ok(())
    }

    fn close(&mut self) {
        let Some(closed) = self.stack.pop() else { return };
        let height = closed.height + 1;
        if let Some(above) = self.stack.last_mut() {
            above.height = above.height.max(height);
        }
        if closed.anchor > 0 {
            let values = self.total.values.saturating_sub(closed.before.values);
            let paths = values.saturating_mul(closed.path.bytes());
            let bytes = self.total.bytes.saturating_sub(closed.before.bytes).saturating_sub(paths);
            self.anchors.insert(closed.anchor, Anchor { weight: Weight { values, bytes }, height });
        }
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), Fault> {
        let path = self.place(line)?;
        let Some(Anchor { weight, height }) = self.anchors.get(&anchor).copied() else {
            return Err(Fault { line: Some(line), path, message: "this alias stands in what it repeats".to_owned() });
        };
        if self.stack.len() + height > DEPTH_MAX {
            return Err(Fault { line: Some(line), path, message: too_deep() });
        }
        if let Some(above) = self.stack.last_mut() {
            above.height = above.height.max(height);
        }
        let paths = weight.values.saturating_mul(path.bytes());
        self.weigh(Weight { values: weight.values, bytes: weight.bytes.saturating_add(paths) }, line)
    }

    /// Takes the place of the next value in the innermost container: its path, with the line of a list item noted.
    fn place(&mut self, line: usize) -> Result<Path, Fault> {
        match self.stack.last_mut() {
            None => Ok(Path::default()),
            Some(Open { path, kind: Kind::Map { key, .. }, .. }) => match key.take() {
                Some(key) => Ok(path.key(&key)),
                None => Err(Fault { line: Some(line), path: path.clone(), message: "a key must be text".to_owned() }),
            },
            Some(Open { path, kind: Kind::List { next }, .. }) => {
                let path = path.index(*next);
                *next += 1;
                self.lines.insert(path.clone(), line);
                Ok(path)
            }
        }
    }

    fn weigh(&mut self, weight: Weight, line: usize) -> Result<(), Fault> {
        self.total.values = self.total.values.saturating_add(weight.values);
        self.total.bytes = self.total.bytes.saturating_add(weight.bytes);
        if self.total.values > VALUES_MAX {
            return Err(self.fault(line, format!("up to here there are more than {VALUES_MAX} values, aliases counted as what they repeat")));
        }
        if self.total.bytes > BYTES_MAX {
            return Err(self.fault(line, format!("up to here there are more than {BYTES_MAX} bytes, aliases counted as what they repeat")));
        }
        Ok(())
    }

    /// A fault in the innermost container.
    fn fault(&self, line: usize, message: impl Into<String>) -> Fault {
        let path = self.stack.last().map_or_else(Path::default, |open| match &open.kind {
            Kind::Map { key: Some(key), .. } => open.path.key(key),
            _ => open.path.clone(),
        });
        Fault { line: Some(line), path, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and message of what a text is refused for.
    fn refused(text: &str) -> (Option<usize>, String) {
        let fault = lines(text).unwrap_err();
        (fault.line, fault.message)
    }

    fn list(item: &str, times: usize) -> String {
        format!("[{}]", vec![item; times].join(","))
    }

    #[test]
    fn keys_and_items_know_their_line() {
        let lines = lines("a:\n  b: 1\n  c: [x,\n    y]\nd: &n {e: 2}\nf: *n\ng: 3\n").unwrap();
        assert_eq!(lines.get(&Path::root("a").key("b")), Some(&2));
        assert_eq!(lines.get(&Path::root("a").key("c").index(1)), Some(&4));
        assert_eq!(lines.get(&Path::root("d").key("e")), Some(&5));
        assert_eq!(lines.get(&Path::root("f")), Some(&6));
        assert_eq!(lines.get(&Path::root("g")), Some(&7));
    }

    #[test]
    fn aliases_weigh_what_they_repeat() {
        let bomb = format!("a: &a {}\nb: {}\n", list("x", 3000), list("*a", 3000));
        let (line, message) = refused(&bomb);
        assert_eq!(line, Some(2));
        assert!(message.contains("100000 values"), "{message}");
        assert!(lines(&format!("a: &a {}\nb: {}\n", list("x", 3000), list("*a", 30))).is_ok());
    }

    #[test]
    fn aliases_of_aliases_weigh_it_all() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            bomb.push_str(&format!("a{level}: &a{level} {}\n", list(&format!("*a{}", level - 1), 9)));
        }
        // 10 values in the first, 9 × 10 + 1 in the second and so on, 66 430 in the fifth: the sixth may not repeat it once.
        assert_eq!(refused(&bomb).0, Some(6));
    }

    #[test]
    fn long_text_that_is_repeated_is_weighed_too() {
        let bomb = format!("a: &a {}\nb: {}\n", "x".repeat(100_000), list("*a", 1000));
        let (line, message) = refused(&bomb);
        assert_eq!(line, Some(2));
        assert!(message.contains("bytes"), "{message}");
        let keys: Vec<String> = (0..1000).map(|number| format!("  {number}: x\n")).collect();
        let long = format!("? {}\n:\n{}", "k".repeat(100_000), keys.concat());
        assert!(refused(&long).1.contains("bytes"));
    }

    #[test]
    fn depth_has_a_limit() {
        let deep = |levels: usize| format!("a: {}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(lines(&deep(63)).is_ok());
        assert_eq!(refused(&deep(64)), (Some(1), too_deep()));
        assert_eq!(refused(&"[".repeat(50_000)), (Some(1), too_deep()));
        assert_eq!(refused(&"- ".repeat(10_000)), (Some(1), too_deep()));
        assert_eq!(refused(&"? ".repeat(10_000)), (Some(1), "a key must be text".to_owned()));
        let halves = format!("a: &a {}{}\nb: {}*a{}\n", "[".repeat(40), "]".repeat(40), "[".repeat(40), "]".repeat(40));
        assert_eq!(refused(&halves), (Some(2), too_deep()));
    }

    #[test]
    fn too_many_brackets_are_refused_unread() {
        assert!(refused(&"[".repeat(200_000)).1.contains("brackets"));
    }

    #[test]
    fn a_key_that_stands_twice_is_found_at_the_second() {
        let fault = lines("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n").unwrap_err();
        assert_eq!(fault, Fault { line: Some(5), path: Path::root("b").key("c"), message: "stands here twice, first on line 3".to_owned() });
        assert_eq!(refused("a: 1\na: 2\n").0, Some(2));
    }

    #[test]
    fn what_would_mislead_is_refused_with_its_line() {
        assert_eq!(refused("a: 1\nb: [1\n").0, Some(2));
        assert!(refused("a: &x 1\nb: &x 2\nc: *x\n").1.contains("`&x`"));
        assert!(refused("a: &x [*x]\n").1.contains("stands in what it repeats"));
        assert!(refused("a: !thing 1\n").1.contains("tags"));
        assert!(refused("a: 1\n---\nb: 2\n").1.contains("second YAML document"));
        assert!(refused("[a]: 1\n").1.contains("a key must be text"));
        assert!(lines("é: &x 1\nb: &y !!str 2\nc: [*x, *y]\n").is_ok());
    }
}
