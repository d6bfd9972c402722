//! Key path to line: `serde_yaml` decides what a value is, this only says where it stood.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

use super::problem::Path;

/// A container that is open while events come in.
enum Open {
    Map { path: Path, key: Option<String> },
    List { path: Path, next: usize },
}

/// The line (from 1) of every key and list item of one YAML text.
///
/// A text that the position parser can't follow gives what was found up to there: positions help a person, the
/// values come from elsewhere.
pub(super) fn lines(text: &str) -> HashMap<Path, usize> {
    let mut lines = HashMap::new();
    let mut stack: Vec<Open> = Vec::new();
    for item in Parser::new_from_str(text) {
        let Ok((event, span)) = item else { break };
        let line = span.start.line();
        match event {
            Event::Scalar(value, ..) => {
                if let Some(Open::Map { path, key: key @ None }) = stack.last_mut() {
                    lines.insert(path.key(&value), line);
                    *key = Some(value.into_owned());
                } else {
                    place(&mut stack, &mut lines, line);
                }
            }
            Event::Alias(_) => {
                place(&mut stack, &mut lines, line);
            }
            Event::MappingStart(..) => {
                let path = place(&mut stack, &mut lines, line);
                stack.push(Open::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = place(&mut stack, &mut lines, line);
                stack.push(Open::List { path, next: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
            }
            _ => {}
        }
    }
    lines
}

/// Takes the place of the next value in the innermost container: its path, with its line noted.
fn place(stack: &mut [Open], lines: &mut HashMap<Path, usize>, line: usize) -> Path {
    match stack.last_mut() {
        None => Path::default(),
        Some(Open::Map { path, key }) => path.key(&key.take().unwrap_or_default()),
        Some(Open::List { path, next }) => {
            let path = path.index(*next);
            *next += 1;
            lines.insert(path.clone(), line);
            path
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_items_know_their_line() {
        let lines = lines("a:\n  b: 1\n  c: [x,\n    y]\nd: &n {e: 2}\nf: *n\ng: 3\n");
        assert_eq!(lines.get(&Path::root("a").key("b")), Some(&2));
        assert_eq!(lines.get(&Path::root("a").key("c").index(1)), Some(&4));
        assert_eq!(lines.get(&Path::root("d").key("e")), Some(&5));
        assert_eq!(lines.get(&Path::root("g")), Some(&7));
    }
}
