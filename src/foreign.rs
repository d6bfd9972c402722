//! Text that others wrote, made fit to be shown: it stays on its line, tells a terminal nothing, and holds no password.

use std::borrow::Cow;

/// What stands in place of a secret.
const REDACTED: &str = "[redacted]";

/// Whether a character is not seen as what it is: a terminal obeys it, it has no width, or it changes the direction in
/// which its neighbours are read.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text with every hidden character written out (`\n`, `\u{1b}`).
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A JSON text with every hidden character written as JSON writes it; they stand in strings only.
pub fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if !is_hidden(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Cow::Owned(out)
}

/// At most so many characters of a text, and a sign where something was cut off.
pub fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    let start = text.char_indices().nth(chars_max).and_then(|(at, _)| text.get(..at));
    start.map_or(Cow::Borrowed(text), |start| Cow::Owned(format!("{start}…")))
}

/// A text without what is secret in the URLs in it: user name and password, and the query.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    if !text.contains('@') && !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(ends_url) {
        let url = piece.trim_end_matches(ends_url);
        let end = piece.get(url.len()..).unwrap_or_default();
        // What stands before the scheme is text: `endpoint=http://…`, `("http://…`.
        let (scheme, rest) = url.find("://").map_or(("", url), |at| url.split_at(at + 3));
        let (credentials, rest) = match credentials_end(rest, !scheme.is_empty()) {
            Some(at) => (REDACTED, rest.get(at..).unwrap_or_default()),
            None => ("", rest),
        };
        match rest.split_once('?') {
            Some((before, _)) if !scheme.is_empty() => out.extend([scheme, credentials, before, "?", REDACTED, end]),
            _ => out.extend([scheme, credentials, rest, end]),
        }
    }
    Cow::Owned(out)
}

/// Whether a character can't stand in a URL as people write it in a text.
fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '{' | '}')
}

/// Where what stands between scheme and host ends: at the `@` behind user name and password, if they are there.
fn credentials_end(rest: &str, has_scheme: bool) -> Option<usize> {
    let authority = rest.split(['/', '?', '#']).next()?;
    if let Some(at) = authority.rfind('@') {
        // Without a scheme, `a@b` may be anything; `a:b@c` is a user with a password.
        return (has_scheme || authority.get(..at)?.contains(':')).then_some(at);
    }
    // A password with a `/` or `?` in it: what follows the colon is no port.
    let (_, port) = authority.rsplit_once(':')?;
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) || port.ends_with(']');
    rest.rfind('@').filter(|_| !is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_written_out() {
        assert_eq!(escaped("plain é 語 'x'"), "plain é 語 'x'");
        assert_eq!(escaped("a\nb\u{1b}[31m\u{9b}\u{202e}\u{200b}c\0"), "a\\nb\\u{1b}[31m\\u{9b}\\u{202e}\\u{200b}c\\u{0}");
        let json = serde_json::to_string("a\n\u{7f}\u{202e}\u{e0041}").unwrap();
        let shown = escaped_json(&json);
        assert!(!shown.contains(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "a\n\u{7f}\u{202e}\u{e0041}");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(cut("éé", 2), "éé");
        assert_eq!(cut("ééé", 2), "éé…");
    }

    #[test]
    fn urls_tell_no_secrets() {
        for (text, shown) in [
            ("https://user:hunter2@host:1/path?key=hunter2", "https://[redacted]@host:1/path?[redacted]"),
            ("can't reach (http://hunter2@host/): refused", "can't reach (http://[redacted]@host/): refused"),
            ("`http://user:hunter2@host` and http://b:1/", "`http://[redacted]@host` and http://b:1/"),
            ("endpoint=http://u:hun/ter2@host:1", "endpoint=http://[redacted]@host:1"),
            ("http://u:hunter2@a@host", "http://[redacted]@host"),
            ("http://u:hunt?er2@host", "http://[redacted]@host"),
            ("`user:hunter2@host` names no port", "`[redacted]@host` names no port"),
            ("(\"http\", u:hunter2@host:80)", "(\"http\", [redacted]@host:80)"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
        for text in ["https://host:1/@scope", "a@b?c", "http://[::1]:4317/a@b", "12:30 a@b", "", "x ", "what? no"] {
            assert_eq!(without_secrets(text), text);
        }
    }
}
