//! What tells circuits apart.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

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

/// What kind of thing is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A service, by a name that somebody gave it.
    #[default]
    Service,
    /// Whoever answers at an address.
    Address,
    /// Whoever offers an RPC service.
    Rpc,
    /// A database.
    Database,
    /// Where messages are sent to.
    Topic,
}

impl Kind {
    /// Whether it is a service, whose health can be told.
    pub const fn is_service(self) -> bool {
        !matches!(self, Self::Database | Self::Topic)
    }

    /// Whether it may have a name of its own, which its SERVER spans tell.
    pub(super) const fn is_learned(self) -> bool {
        matches!(self, Self::Address | Self::Rpc)
    }

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service | Self::Address | Self::Rpc => "service",
            Self::Database => "database",
            Self::Topic => "topic",
        }
    }
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
    /// What kind of thing its spans call.
    pub kind: Kind,
    /// Where in `text` the own name of a database or topic begins, behind its system and a colon; 0 if it stands alone.
    pub own_at: u8,
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

    /// The callee without its system: of `kafka:orders` it is `orders`. A callee that has its caller's name keeps the
    /// system, or it would read as a call of the caller to itself.
    pub fn own_name(&self) -> Option<Cow<'_, str>> {
        let own = self.text.get(usize::from(self.own_at)..).filter(|own| self.own_at > 0 && **own != *self.caller.service);
        self.callee().map(|callee| own.map_or(callee, Cow::Borrowed))
    }

    fn shown(&self) -> Cow<'_, str> {
        shown(&self.text, self.port)
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

/// A host with its port, as people write it.
pub(super) fn shown(host: &str, port: Option<u16>) -> Cow<'_, str> {
    match port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}").into(),
        Some(port) => format!("{host}:{port}").into(),
        None => Cow::Borrowed(host),
    }
}

/// The part of a text that is kept: cut, and with what is no UTF-8 replaced.
pub fn kept(text: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(text.get(..TEXT_BYTES_MAX).unwrap_or(text));
    text.trim_end_matches('\u{fffd}').into()
}

/// The callee in a host, given its port and scheme: the port stays only where the host alone would not tell
/// callees apart (IP literals, localhost) and where it is not the scheme's own. Where it has to stay and is not said, it
/// is the scheme's.
pub fn callee<'a>(host: &'a [u8], port: Option<u16>, scheme: Option<&[u8]>) -> Target<'a> {
    let is = |names: [&[u8]; 2]| scheme.is_some_and(|scheme| names.iter().any(|name| scheme.eq_ignore_ascii_case(name)));
    let of_scheme = if is([b"http", b"ws"]) {
        Some(80)
    } else if is([b"https", b"wss"]) {
        Some(443)
    } else {
        None
    };
    let is_own = of_scheme.map_or(matches!(port, Some(80 | 443)), |own| port == Some(own));
    let port = if is_address(host) { port.or(of_scheme) } else { port.filter(|_| !is_own) };
    Target { named: false, text: host, port }
}

/// A host in the one spelling of many that is kept: in small letters, without brackets and without the dot at its end, IPv6 in
/// its short form, and IPv4 within IPv6 as IPv4. `None` if it is spelled so already.
pub fn spelled(host: &[u8]) -> Option<Vec<u8>> {
    let is_odd = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b':' | b'[');
    if !host.is_ascii() || !host.iter().any(is_odd) && host.last() != Some(&b'.') {
        return None;
    }
    let bare = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).unwrap_or(host);
    let bare = bare.strip_suffix(b".").filter(|rest| !rest.is_empty()).unwrap_or(bare);
    let mut spelled = bare.to_ascii_lowercase();
    if let Some(ip) = ipv6(&spelled) {
        let zone = spelled.iter().position(|byte| *byte == b'%').and_then(|at| spelled.get(at..)).unwrap_or_default().to_vec();
        spelled = [ip.to_canonical().to_string().into_bytes(), zone].concat();
    }
    (spelled != host).then_some(spelled)
}

/// An IPv6 address, whose zone may stand behind it (RFC 4007, 11).
fn ipv6(text: &[u8]) -> Option<Ipv6Addr> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.contains(':'))?;
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok()
}

/// Scheme, host and port of what stands where a host should: some write its port there, too, or a whole URL.
pub fn host_in(text: &[u8]) -> (Option<&[u8]>, &[u8], Option<u16>) {
    // A path is that of a socket.
    let is_socket = text.first() == Some(&b'/') || text.starts_with(b"unix:");
    let is_host = is_socket || !text.contains(&b':') && text.first() != Some(&b'[');
    match authority(text) {
        found @ (_, [_, ..], _) if !is_host => found,
        _ => (None, text, None),
    }
}

/// The service in the full name of a method, as gRPC has it: `shop.Pay` of `shop.Pay/Charge`.
pub fn rpc_service(method: &[u8]) -> Option<&[u8]> {
    let method = method.strip_prefix(b"/").unwrap_or(method);
    let end = method.iter().rposition(|byte| *byte == b'/')?;
    method.get(..end).filter(|service| !service.is_empty())
}

/// Schemes behind which gRPC's names have an empty authority, and the host follows.
const NAMING_SCHEMES: [&[u8]; 3] = [b"dns", b"passthrough", b"xds"];

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
        Some(3) => (None, url.strip_prefix(b"dns:").unwrap_or(url)),
        Some(4) => (None, url.strip_prefix(b"ipv4:").or_else(|| url.strip_prefix(b"ipv6:")).unwrap_or(url)),
        _ => (None, url),
    };
    let rest = match rest {
        [b'/', behind @ ..] if scheme.is_some_and(|scheme| NAMING_SCHEMES.contains(&scheme)) => behind,
        _ => rest,
    };
    let (mut start, mut end, mut colon, mut colons) = (0, rest.len(), None, 0);
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            byte if is_end_of_authority(*byte) => {
                end = at;
                break;
            }
            // What stands before it is a user's name, and perhaps a password.
            b'@' => (start, colon) = (at + 1, None),
            b':' => (colon, colons) = (Some(at), colons + 1),
            _ => {}
        }
    }
    // An IPv6 address without brackets has no port.
    if colons > 1
        && let Some(bare) = rest.get(start..end).filter(|bare| ipv6(bare).is_some())
    {
        return (scheme, bare, None);
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
    fn what_tells_hosts_apart_stays() {
        assert_eq!(spelled(b"FE80::1%eth0").as_deref(), Some(&b"fe80::1%eth0"[..]));
        assert_eq!(host_in(b"fe80::1%eth0"), (None, &b"fe80::1%eth0"[..], None));
        assert_eq!(host_in(b"unix:/tmp/a.sock"), (None, &b"unix:/tmp/a.sock"[..], None));
    }

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
            ("http://[::1]/x:9", "::1", Some(80)),
            ("HTTPS://10.0.0.7/", "10.0.0.7", Some(443)),
            ("10.0.0.7", "10.0.0.7", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("dns:///pricing:50051", "pricing", Some(50051)),
            ("dns:pricing:50051", "pricing", Some(50051)),
            ("ipv4:10.0.0.7:50051", "10.0.0.7", Some(50051)),
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
    fn a_host_has_one_spelling() {
        for (written, kept) in [
            ("API.Example.com.", "api.example.com"),
            ("api.example.com", "api.example.com"),
            ("[2001:DB8:0:0::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
            ("LOCALHOST", "localhost"),
            (".", "."),
            ("/var/run/redis.sock", "/var/run/redis.sock"),
        ] {
            let spelled = spelled(written.as_bytes());
            assert_eq!(spelled.as_deref().unwrap_or(written.as_bytes()), kept.as_bytes(), "{written}");
        }
    }

    #[test]
    fn a_port_may_stand_behind_its_host() {
        for (text, host, port) in [
            ("api.example.com:8443", "api.example.com", Some(8443)),
            ("[2001:db8::1]:8080", "2001:db8::1", Some(8080)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("tcp://broker:9092", "broker", Some(9092)),
            ("/tmp/.s.PGSQL:5432", "/tmp/.s.PGSQL:5432", None),
            ("api", "api", None),
        ] {
            let (_, found, found_port) = host_in(text.as_bytes());
            assert_eq!((found, found_port), (host.as_bytes(), port), "{text}");
        }
    }

    #[test]
    fn a_topic_is_shown_with_its_system_and_never_as_its_caller() {
        let caller = |service: &str| Arc::new(Caller { service: service.into(), ..Caller::default() });
        let key = |by: &str| CircuitKey { caller: caller(by), text: "kafka:orders".into(), kind: Kind::Topic, own_at: 6, ..CircuitKey::default() };
        let names = |key: &CircuitKey| (key.name(), key.own_name().map(Cow::into_owned));
        assert_eq!(names(&key("shop")), ("kafka:orders".to_owned(), Some("orders".to_owned())));
        assert_eq!(names(&key("orders")), ("kafka:orders".to_owned(), Some("kafka:orders".to_owned())));
        let host = CircuitKey { caller: caller("shop"), text: "2001:db8::1".into(), port: Some(80), ..CircuitKey::default() };
        assert_eq!(names(&host), ("[2001:db8::1]:80".to_owned(), Some("[2001:db8::1]:80".to_owned())));
    }

    #[test]
    fn the_service_is_the_first_part_of_a_full_method() {
        for (method, service) in
            [("shop.Pay/Charge", Some("shop.Pay")), ("/shop.Pay/Charge", Some("shop.Pay")), ("Charge", None), ("/Charge", None), ("", None)]
        {
            assert_eq!(rpc_service(method.as_bytes()), service.map(str::as_bytes), "{method}");
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        let long = "ä".repeat(200);
        assert_eq!(&*kept(long.as_bytes()), "ä".repeat(128));
        assert_eq!(&*kept(b"a\xffb"), "a\u{fffd}b");
    }
}
