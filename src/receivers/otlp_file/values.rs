//! Objects of JSON in a text: one a line, one over many lines, several behind each other, or in an array.

use std::ops::Range;

/// Text of a file, from where an object may begin.
#[derive(Default)]
pub(super) struct Values {
    text: Vec<u8>,
    /// Where what was not taken yet begins.
    from: usize,
    /// How far it was looked at without coming to the end of the object, and what is open there.
    looked: usize,
    open: Open,
}

/// What is open at some place in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// Objects and arrays.
    depth: u32,
    quoted: bool,
    escaped: bool,
}

/// What a byte of JSON does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Inside,
    /// It ends the outermost object.
    Closes,
    /// No object can go on with it: there are no lines in strings.
    Tears,
}

impl Open {
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match byte {
            b'\n' if self.quoted => return Step::Tears,
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            _ if self.quoted => {}
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Step::Closes;
                }
            }
            _ => {}
        }
        Step::Inside
    }
}

impl Values {
    /// What was not taken yet.
    pub(super) fn text(&self) -> &[u8] {
        self.text.get(self.from..).unwrap_or_default()
    }

    /// Where more of the text is put.
    pub(super) fn more(&mut self) -> &mut Vec<u8> {
        self.text.drain(..self.from);
        self.looked = self.looked.saturating_sub(self.from);
        self.from = 0;
        &mut self.text
    }

    /// What is open at the end of an object that is not there.
    pub(super) const fn open(&self) -> Open {
        self.open
    }

    /// Takes so many bytes of [`Self::text`].
    pub(super) fn take(&mut self, bytes: usize) {
        self.from = (self.from + bytes).min(self.text.len());
        self.looked = self.from;
        self.open = Open::default();
    }

    /// Where in [`Self::text`] the next object stands, or what is none: the rest of a line, or an object whose end is
    /// missing. An empty place is behind what stands between objects. `None` where more of the text is needed.
    pub(super) fn find(&mut self) -> Option<Range<usize>> {
        let text = self.text.get(self.from..).unwrap_or_default();
        let begin = text.iter().position(|byte| !is_between(*byte)).unwrap_or(text.len());
        let Some(first) = text.get(begin) else { return (begin > 0).then_some(begin..begin) };
        if *first != b'{' {
            let line = text.iter().skip(begin).position(|byte| *byte == b'\n')?;
            return Some(begin..begin + line + 1);
        }
        let looked = (self.looked - self.from).max(begin);
        for (at, byte) in text.iter().enumerate().skip(looked) {
            if *byte == b'{' && at > begin && !self.open.quoted && is_request(text, at) {
                return Some(begin..at);
            }
            if self.open.step(*byte) != Step::Inside {
                return Some(begin..at + 1);
            }
        }
        self.looked = self.text.len();
        None
    }
}

/// Whether a request begins in a line of its own: then the object before it has no end.
fn is_request(text: &[u8], at: usize) -> bool {
    let begins = |rest: &[u8]| REQUESTS.iter().any(|request| rest.starts_with(request));
    text.get(at - 1) == Some(&b'\n') && text.get(at..).is_some_and(begins)
}

/// How requests begin that are written a line each.
const REQUESTS: [&[u8]; 4] = [br#"{"resourceSpans""#, br#"{"resourceMetrics""#, br#"{"resourceLogs""#, br#"{"resource_"#];

/// What may stand between objects: space, a byte order mark, and what makes an array of them.
const fn is_between(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'[' | b',' | b']' | 0xef | 0xbb | 0xbf)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a text that comes in pieces of so many bytes.
    fn found(text: &str, piece: usize) -> Vec<String> {
        let mut values = Values::default();
        let mut found = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            values.more().extend_from_slice(bytes);
            while let Some(place) = values.find() {
                let end = place.end;
                if !place.is_empty() {
                    found.push(String::from_utf8(values.text()[place].to_vec()).unwrap());
                }
                values.take(end);
            }
        }
        if !values.text().is_empty() {
            found.push(format!("open: {}", String::from_utf8_lossy(values.text()).trim_start()));
        }
        found
    }

    #[test]
    fn objects_are_found_however_they_stand() {
        let nested = "{\n  \"a\": [\n    {\n      \"b\": \"}\\\"{\"\n    }\n  ]\n}";
        for (text, expected) in [
            ("{\"a\":1}\n{\"b\":2}\n", vec!["{\"a\":1}", "{\"b\":2}"]),
            ("{\"a\":1}{\"b\":2} {\"c\":3}", vec!["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"]),
            ("[{\"a\":1},\n{\"b\":[{},[]]}\n]\n", vec!["{\"a\":1}", "{\"b\":[{},[]]}"]),
            (&*format!("\u{feff}{nested}\n{nested}\n"), vec![nested, nested]),
            ("", vec![]),
            (" \n[]\n", vec![]),
        ] {
            for piece in 1..8 {
                assert_eq!(found(text, piece), expected, "{text} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_torn_costs_nothing_behind_it() {
        for (text, expected) in [
            ("x\n{\"a\":1}\n", vec!["x\n", "{\"a\":1}"]),
            ("{\"a\":\"tor\n{\"b\":2}\n", vec!["{\"a\":\"tor\n", "{\"b\":2}"]),
            ("{\"a\":[{\"c\":\n{\"resourceLogs\":2}\n", vec!["{\"a\":[{\"c\":\n", "{\"resourceLogs\":2}"]),
            ("{\"a\":[\n{\"resource\":1},\n{\"resource\":2}\n]}\n", vec!["{\"a\":[\n{\"resource\":1},\n{\"resource\":2}\n]}"]),
            ("{\"a\":1}\n{\"b\":", vec!["{\"a\":1}", "open: {\"b\":"]),
        ] {
            assert_eq!(found(text, 1000), expected, "{text}");
        }
    }
}
