//! What tells circuits apart.

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc};

/// Who calls: the service, as its resource names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller {
    /// `deployment.environment.name`; empty if not said.
    pub environment: Box<str>,
    /// `service.namespace`; empty if not said.
    pub namespace: Box<str>,
    /// `service.name`; empty if not said.
    pub service: Box<str>,
}

/// What is called, as a span tells it: text of the span and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target<'a> {
    /// Whether the text is a breaker's own name; else it is the callee.
    pub named: bool,
    /// The breaker's name, or the callee's name or host.
    pub text: &'a [u8],
    /// The callee's port, where it belongs to the name.
    pub port: Option<u16>,
}

/// What tells a circuit from all others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CircuitKey {
    /// Who calls.
    pub caller: Arc<Caller>,
    /// Whether `text` is a breaker's own name.
    pub named: bool,
    /// The breaker's own name, or the callee's name or host; not longer than [`TEXT_BYTES_MAX`].
    pub text: Box<str>,
    /// The callee's port, where it belongs to the name.
    pub port: Option<u16>,
    /// Where the callee's name was learned from its own spans: the address that spans called first.
    pub address: Box<str>,
    /// Whether this is the circuit of all that found no room.
    pub overflow: bool,
}

/// The most of a name that is kept, in bytes. What is longer is cut, and names that begin alike become one.
pub const TEXT_BYTES_MAX: usize = 256;

impl CircuitKey {
    /// `circuit_breaker.name`: the breaker's own name, else the callee.
    pub fn name(&self) -> String {
        self.shown().into_owned()
    }

    /// `service.peer.name`: the callee, where it is known.
    pub fn callee(&self) -> Option<Cow<'_, str>> {
        (!self.named && !self.overflow).then(|| self.shown())
    }

    fn shown(&self) -> Cow<'_, str> {
        match self.port {
            Some(port) => format!("{}:{port}", self.text).into(),
            None => Cow::Borrowed(&self.text),
        }
    }

    /// What spans that belong to it call it.
    pub(super) fn target(&self) -> Target<'_> {
        Target { named: self.named, text: self.text.as_bytes(), port: self.port }
    }

    /// Whether a span's target is this circuit's.
    pub fn is(&self, target: &Target<'_>) -> bool {
        self.named == target.named && self.port == target.port && self.text.as_bytes() == target.text
    }
}

impl fmt::Display for CircuitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.caller.service, self.name())
    }
}

/// The part of a text that is kept: cut, and with what is no UTF-8 replaced.
pub fn kept(text: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(text.get(..TEXT_BYTES_MAX).unwrap_or(text));
    text.trim_end_matches('\u{fffd}').into()
}

/// The callee in a host, given its port and scheme: the port stays only where the host alone would not tell
/// callees apart (IP literals, localhost) and where it is not the scheme's own.
pub fn callee<'a>(host: &'a [u8], port: Option<u16>, scheme: Option<&[u8]>) -> Target<'a> {
    let own = match scheme {
        Some(b"http" | b"ws") => port == Some(80),
        Some(b"https" | b"wss") => port == Some(443),
        _ => matches!(port, Some(80 | 443)),
    };
    let port = port.filter(|_| !own || is_address(host));
    Target { named: false, text: host, port }
}

/// Whether a host is an address, or this machine.
pub(super) fn is_address(host: &[u8]) -> bool {
    if host == b"localhost" {
        return true;
    }
    // An address begins with a digit, or has a colon.
    (host.first().is_some_and(u8::is_ascii_digit) || host.contains(&b':'))
        && std::str::from_utf8(host).is_ok_and(|host| host.parse::<IpAddr>().is_ok())
}

/// Scheme, host and port of a URL, or of a bare `host:port`.
#[inline]
pub fn authority(url: &[u8]) -> (Option<&[u8]>, &[u8], Option<u16>) {
    let (scheme, rest) = match url.iter().position(|byte| *byte == b':') {
        Some(at) if url.get(at + 1..at + 3) == Some(b"//") => (url.get(..at), url.get(at + 3..).unwrap_or_default()),
        _ => (None, url),
    };
    let (mut start, mut end, mut colon) = (0, rest.len(), None);
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            byte if is_end_of_authority(*byte) => {
                end = at;
                break;
            }
            // What stands before it is a user's name, and perhaps a password.
            b'@' => (start, colon) = (at + 1, None),
            b':' => colon = Some(at),
            _ => {}
        }
    }
    if rest.get(start) == Some(&b'[') {
        let inner = rest.get(start + 1..end).unwrap_or_default();
        let close = inner.iter().position(|byte| *byte == b']').unwrap_or(inner.len());
        let port = inner.get(close + 1..).and_then(|rest| rest.strip_prefix(b":")).and_then(number);
        return (scheme, inner.get(..close).unwrap_or_default(), port);
    }
    let host = rest.get(start..colon.unwrap_or(end)).unwrap_or_default();
    (scheme, host, colon.and_then(|colon| rest.get(colon + 1..end)).and_then(number))
}

/// Whether the authority of a URL ends before this byte.
#[inline]
pub const fn is_end_of_authority(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#')
}

#[inline]
fn number(digits: &[u8]) -> Option<u16> {
    let digit = |number: u16, byte: &u8| number.checked_mul(10)?.checked_add(u16::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?));
    if digits.is_empty() { None } else { digits.iter().try_fold(0, digit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_their_callee() {
        for (url, host, port) in [
            ("http://127.0.0.1:15001/pay", "127.0.0.1", Some(15001)),
            ("https://user:pw@api.example.com:443/x?y#z", "api.example.com", None),
            ("https://api.example.com:8443", "api.example.com", Some(8443)),
            ("http://localhost:80/", "localhost", Some(80)),
            ("http://[::1]:8080/x", "::1", Some(8080)),
            ("inventory:8080", "inventory", Some(8080)),
            ("http://inventory?x=http://other:1", "inventory", None),
            ("https://a:b@c@api:7/", "api", Some(7)),
            ("http://[::1]/x:9", "::1", None),
            ("http://api:99999/", "api", None),
            ("host:", "host", None),
            ("", "", None),
        ] {
            let (scheme, found, found_port) = authority(url.as_bytes());
            let target = callee(found, found_port, scheme);
            assert_eq!((target.text, target.port), (host.as_bytes(), port), "{url}");
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        let long = "ä".repeat(200);
        assert_eq!(&*kept(long.as_bytes()), "ä".repeat(128));
        assert_eq!(&*kept(b"a\xffb"), "a\u{fffd}b");
    }
}
