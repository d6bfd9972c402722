//! Causes: what stands behind an error, as languages and libraries write it into stack traces and messages.
//!
//! A stack trace names many types in its frames, which say only what was called. Lines that name a cause are told from
//! those by how they begin: one way for all libraries.

use memchr::memchr;

/// An error, or one behind another: a line of a stack trace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause<'a> {
    /// All that the line says.
    pub(super) text: &'a [u8],
    /// The type; empty where it can't be told.
    pub(super) kind: &'a [u8],
    /// What follows the type.
    pub(super) message: &'a [u8],
}

/// What stands before a cause, at any indentation: Java (`Wrapped by` where the root cause stands first), .NET, Node.js,
/// PHP, Rust's error-stack.
const MARKS: [&[u8]; 9] = [
    b"Caused by: ",
    b"Suppressed: ",
    b"Wrapped by: ",
    b"---> ",
    b"[cause]: ",
    b"cause: ",
    b"Next ",
    "\u{2570}\u{2500}\u{25b6} ".as_bytes(),
    "\u{251c}\u{2500}\u{25b6} ".as_bytes(),
];

/// What an indented frame begins with, and what stands between frames.
const FRAMES: [&[u8]; 7] = [b"at ", b"from ", b"... ", b"--- ", b"^", b"~", b"File \""];

/// What stands before a type that ends a message.
const BEFORE_TYPES: [&[u8]; 4] = [b"nested exception is ", b"---> ", b"caused by ", b"Caused by "];

/// Shows the error of a stack trace and all of its causes, at any depth and in any order.
pub(super) fn each<'a>(stack_trace: &'a [u8], mut show: impl FnMut(Cause<'a>)) {
    let (mut list, mut source) = (false, false);
    let mut lines = Lines(stack_trace).peekable();
    while let Some(line) = lines.next() {
        let line = ungrouped(line.trim_ascii_end());
        let text = line.trim_ascii_start();
        let indented = text.len() < line.len();
        // Most lines are frames of Java, .NET or Node.js.
        if indented && text.starts_with(b"at ") {
            (list, source) = (false, false);
            continue;
        }
        // Rust lists causes below a line of its own, up to an empty one.
        if matches!(text, b"Caused by:" | b"Error:") {
            list = true;
            continue;
        }
        list &= indented;
        // Python shows the line of the source below each frame, where it has the source.
        let is_source = std::mem::replace(&mut source, indented && text.starts_with(b"File \"")) && indented;
        let (rest, is_marked) = unmarked(text);
        if rest.is_empty() || !is_marked && (is_source || is_frame(rest, indented)) {
            continue;
        }
        let cause = if is_marked {
            Some(Cause::of(rest))
        } else if list {
            Some(Cause::of(unnumbered(rest)))
        } else if indented {
            Cause::in_list(rest)
        } else if is_ruby(rest) {
            Cause::of_ruby(rest)
        } else {
            Some(Cause::of(rest)).filter(|_| !lines.peek().is_some_and(|next| is_place_in_go(next)))
        };
        cause.into_iter().for_each(&mut show);
    }
}

/// Shows each type that a message names as what it wraps, with what follows: `charge: A: nested exception is B: no` wraps
/// A, and B, which says `no`.
pub(super) fn each_wrapped<'a>(message: &'a [u8], mut show: impl FnMut(&'a [u8], &'a [u8])) {
    let mut rest = message;
    while let Some((before, after)) = split(rest) {
        let kind = last_word(before);
        if is_type(kind) {
            show(kind, after);
        }
        rest = after;
    }
    let last = last_word(rest);
    let before = rest.get(..rest.len() - last.len()).unwrap_or_default();
    if is_type(last) && (before.is_empty() || BEFORE_TYPES.iter().any(|mark| before.ends_with(mark))) {
        show(last, &[]);
    }
}

/// The lines of a text.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr(b'\n', self.0).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(line)
    }
}

/// A line of a group of Python's exceptions, without the bar that shows how deep it stands.
fn ungrouped(line: &[u8]) -> &[u8] {
    match line.trim_ascii_start() {
        [b'|', b' ', rest @ ..] => rest,
        [b'+', b'-', ..] => &[],
        _ => line,
    }
}

/// A line without what says that it is a cause, and whether that was there.
fn unmarked(text: &[u8]) -> (&[u8], bool) {
    let (mut rest, mut is_marked) = (text, false);
    loop {
        if !matches!(rest.first(), Some(b'C' | b'S' | b'W' | b'N' | b'-' | b'[' | b'(' | b'c' | 0xe2)) {
            return (rest, is_marked);
        }
        let stripped = MARKS.iter().find_map(|mark| rest.strip_prefix(*mark)).or_else(|| inner(rest));
        match stripped {
            Some(stripped) => (rest, is_marked) = (stripped.trim_ascii_start(), true),
            None => return (rest, is_marked),
        }
    }
}

/// Behind the number that .NET gives to each of several causes, or the opening of what Java has shown already.
fn inner(text: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = text.strip_prefix(b"(Inner Exception #") {
        return rest.iter().position(|byte| *byte == b')').and_then(|at| rest.get(at + 1..));
    }
    text.strip_prefix(b"[CIRCULAR REFERENCE:")
}

impl<'a> Cause<'a> {
    /// An error in one line: `module.Type: message`, `Type`, `Error [CODE]: message`, `** (Type) message`; without a type
    /// that can be told, all of it is the message.
    fn of(text: &'a [u8]) -> Self {
        let text = text.strip_suffix(b"<---").unwrap_or(text);
        // Node.js shows an error without a stack in brackets, and what it holds behind it.
        let shown = text.strip_suffix(b" {").unwrap_or(text);
        let text = match shown {
            [b'[', within @ .., b']'] if !within.contains(&b']') => within,
            [within @ .., b']'] if !within.contains(&b'[') => within,
            _ => shown,
        };
        let text = without_place(text);
        if let Some(rest) = text.strip_prefix(b"** (")
            && let Some(end) = rest.iter().position(|byte| *byte == b')')
        {
            let (kind, message) = rest.split_at(end);
            return Self { text, kind, message: message.get(1..).unwrap_or_default().trim_ascii() };
        }
        let (kind, message) = split(text).unwrap_or_else(|| (text.strip_suffix(b":").unwrap_or(text), &[][..]));
        if is_type(kind) { Self { text, kind, message } } else { Self { text, kind: &[], message: text } }
    }

    /// An indented line without a mark: in a list of errors, as Node.js shows them, one of those or its code.
    fn in_list(text: &'a [u8]) -> Option<Self> {
        if let Some(code) = text.strip_prefix(b"code: ") {
            let code = code.strip_suffix(b",").unwrap_or(code);
            let kind = [b'\'', b'"'].iter().find_map(|quote| match code {
                [first, kind @ .., last] if first == quote && last == quote => Some(kind),
                _ => None,
            });
            return kind.map(|kind| Self { kind, ..Self::default() });
        }
        Some(Self::of(text)).filter(|cause| is_error(cause.kind))
    }

    /// What Ruby says: `pay.rb:3:in 'pay': message (Type)`. `None` of a frame.
    fn of_ruby(text: &'a [u8]) -> Option<Self> {
        let end = text.windows(3).position(|window| window == b"': ")?;
        let message = text.get(end + 3..)?;
        let typed = message.strip_suffix(b")").and_then(|within| {
            let open = within.iter().rposition(|byte| *byte == b'(')?;
            let kind = within.get(open + 1..).filter(|kind| is_type(kind))?;
            let message = within.get(..open)?.trim_ascii_end();
            Some(Self { text: message, kind, message })
        });
        Some(typed.unwrap_or(Self { text: message, kind: &[], message }))
    }
}

/// Whether a line names place and function as Ruby does.
fn is_ruby(text: &[u8]) -> bool {
    text.windows(5).any(|window| matches!(window, b":in `" | b":in '"))
}

/// Whether a line without a mark is a frame by how it begins.
fn is_frame(text: &[u8], indented: bool) -> bool {
    match text {
        [b'#', b'0'..=b'9', ..] => true,
        _ => indented && FRAMES.iter().any(|frame| text.starts_with(frame)),
    }
}

/// Whether a type is called an error, and not a function: those end lines of frames.
fn is_error(kind: &[u8]) -> bool {
    let has = |part: &[u8]| kind.windows(part.len()).any(|window| window == part);
    has(b"Error") || has(b"Exception")
}

/// A message without the place that PHP puts behind it.
fn without_place(text: &[u8]) -> &[u8] {
    const PLACE: &[u8] = b" in ";
    let at = text.windows(PLACE.len()).rposition(|window| window == PLACE);
    let place = at.and_then(|at| text.get(at + PLACE.len()..)).unwrap_or_default();
    let is_place = place.windows(5).any(|window| window == b".php:") && !place.contains(&b' ');
    at.filter(|_| is_place).and_then(|at| text.get(..at)).unwrap_or(text)
}

/// Whether a line says where a function of Go stands, whose name is the line before.
fn is_place_in_go(line: &[u8]) -> bool {
    line.first() == Some(&b'\t') && line.windows(4).any(|window| window == b".go:")
}

/// An entry of a list without its number.
fn unnumbered(text: &[u8]) -> &[u8] {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.get(digits..).filter(|_| digits > 0).and_then(|rest| rest.strip_prefix(b": ")).unwrap_or(text)
}

/// Before and behind the first colon that is followed by a space.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.windows(2).position(|window| window == b": ")?;
    Some((text.get(..at)?, text.get(at + 2..)?))
}

fn last_word(text: &[u8]) -> &[u8] {
    let start = text.iter().rposition(|byte| matches!(byte, b' ' | b'(' | b'"' | b'\n')).map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default()
}

/// Whether a text may be the name of a type, with what it is made of or its code behind it.
fn is_type(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'$' | b'\\' | b':' | b'*' | b'/' | b'-');
    let (name, behind) = text.split_at(text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len()));
    let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'*' | b'\\'));
    begins && matches!(behind, [] | [b'`' | b'[' | b'<', ..] | [b' ', b'[', .., b']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stack_trace: &str) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut found = Vec::new();
        each(stack_trace.as_bytes(), |cause| found.push((text(cause.kind), text(cause.message))));
        found
    }

    fn assert_causes(stack_trace: &str, expected: &[(&str, &str)]) {
        let found = shown(stack_trace);
        let found: Vec<(&str, &str)> = found.iter().map(|(kind, message)| (&**kind, &**message)).collect();
        assert_eq!(found, expected, "{stack_trace}");
    }

    #[test]
    fn causes_are_found_as_java_writes_them() {
        let java = "com.acme.PayFailed: no\r\n\tat com.acme.Pay.go(Pay.java:9)\r\n\tat io.github.resilience4j.CircuitBreaker.acquire(C.java:1)\n\
                    \tSuppressed: a.B: first\n\t\tat x.y(Z.java)\n\t\tCaused by: [CIRCULAR REFERENCE:a.C: again]\n\t... 12 common frames omitted\n\
                    Caused by: java.util.concurrent.ExecutionException: a.D\nWrapped by: a.E\n";
        let expected =
            [("com.acme.PayFailed", "no"), ("a.B", "first"), ("a.C", "again"), ("java.util.concurrent.ExecutionException", "a.D"), ("a.E", "")];
        assert_causes(java, &expected);
    }

    #[test]
    fn causes_are_found_as_dotnet_writes_them() {
        let dotnet = "System.AggregateException: One or more errors occurred. (no)\n ---> A.PayException: failed\n \
                      ---> Polly.CircuitBreaker.BrokenCircuitException`1[[System.Int32, Core]]: open\n   at Polly.X()\n   \
                      --- End of inner exception stack trace ---\n   at A.Go()\n ---> (Inner Exception #1) B.C: second<---\n";
        let expected = [
            ("System.AggregateException", "One or more errors occurred. (no)"),
            ("A.PayException", "failed"),
            ("Polly.CircuitBreaker.BrokenCircuitException`1[[System.Int32, Core]]", "open"),
            ("B.C", "second"),
        ];
        assert_causes(dotnet, &expected);
    }

    #[test]
    fn causes_are_found_as_python_writes_them() {
        let python = "Traceback (most recent call last):\n  File \"/app/pay.py\", line 3, in pay\n    raise a.CircuitBreakerError: never\n    \
                      ^^^^^\npybreaker.CircuitBreakerError\n\nThe above exception was the direct cause of the following exception:\n\n\
                      acme.PayError: failed\n";
        assert_causes(
            python,
            &[
                ("", "Traceback (most recent call last):"),
                ("pybreaker.CircuitBreakerError", ""),
                ("", "The above exception was the direct cause of the following exception:"),
                ("acme.PayError", "failed"),
            ],
        );
        let group = "  + Exception Group Traceback (most recent call last):\n  | ExceptionGroup: unhandled (1 sub-exception)\n  \
                     +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n    |   File \"/app/pay.py\", line 3\n    \
                     |     pay()\n    | a.CircuitBreakerError: open\n    +------------------------------------\n";
        let found = shown(group);
        assert!(found.contains(&("a.CircuitBreakerError".to_owned(), "open".to_owned())), "{found:?}");
        assert!(!found.iter().any(|(kind, message)| kind.contains("pay()") || message.contains("pay()")), "{found:?}");
    }

    #[test]
    fn causes_are_found_as_node_writes_them() {
        let node = "Error: no\n    at pay (/app/pay.js:3:9) {\n  [cause]: Error: Breaker is open\n      at x (/app/y.js:1:1) {\n    \
                    code: 'EOPENBREAKER'\n  },\n  [errors]: [\n    BrokenCircuitError: second\n        at z (/app/z.js:1:1)\n    \
                    [cause]: [Error: third] {\n  ]\n}";
        let expected =
            [("Error", "no"), ("Error", "Breaker is open"), ("EOPENBREAKER", ""), ("BrokenCircuitError", "second"), ("Error", "third"), ("", "}")];
        assert_causes(node, &expected);
        assert_causes("Error [EOPENBREAKER]: Breaker is open", &[("Error [EOPENBREAKER]", "Breaker is open")]);
    }

    #[test]
    fn causes_are_found_as_other_languages_write_them() {
        let ruby = "pay.rb:3:in 'pay': failed (PayError)\n\tfrom pay.rb:9:in '<main>'\nlib/s.rb:1:in `acquire': [pay] open (Net::CircuitOpenError)\n";
        assert_causes(ruby, &[("PayError", "failed"), ("Net::CircuitOpenError", "[pay] open")]);
        let php = "Ganesha\\Exception\\RejectedException: \"pay\" is not available in /app/x.php:12\nStack trace:\n#0 {main}\n\n\
                   Next Acme\\PayFailed: no in /app/pay.php:9\nStack trace:\n#0 {main}";
        let found = shown(php);
        assert!(found.contains(&("Acme\\PayFailed".to_owned(), "no".to_owned())), "{found:?}");
        assert_eq!(found[0], ("Ganesha\\Exception\\RejectedException".to_owned(), "\"pay\" is not available".to_owned()));
        let rust = "payment failed\n\nCaused by:\n    0: call pay\n    1: circuit is open; call not permitted\n\nStack backtrace:\n   0: failsafe::call\n   \
                    \u{20}         at src/main.rs:3\n";
        assert_causes(rust, &[("", "payment failed"), ("", "call pay"), ("", "circuit is open; call not permitted"), ("", "Stack backtrace:")]);
        let go = "circuit breaker is open\nmain.isCircuitOpenError\n\t/app/pay.go:12\nmain.main\n\t/app/main.go:3\n";
        assert_causes(go, &[("", "circuit breaker is open")]);
        assert_causes("** (Acme.PayError) no", &[("Acme.PayError", "no")]);
    }

    #[test]
    fn messages_name_what_they_wrap() {
        let wrapped = |message: &str| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut found = Vec::new();
            each_wrapped(message.as_bytes(), |kind, message| found.push((text(kind), text(message))));
            found
        };
        let pair = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
        assert_eq!(wrapped("Request failed; nested exception is a.B: no"), [pair("a.B", "no"), pair("no", "")]);
        assert_eq!(wrapped("failed; nested exception is a.B"), [pair("a.B", "")]);
        assert_eq!(wrapped("a.B: a.C"), [pair("a.B", "a.C"), pair("a.C", "")]);
        assert_eq!(wrapped("there is no a.B"), []);
        assert_eq!(wrapped(""), []);
    }
}
