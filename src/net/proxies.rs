use std::{env, net::IpAddr};

use http::{Uri, uri::Scheme};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// What is spoken to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC, which no proxy passes on: it always goes through a tunnel.
    Grpc,
    /// HTTP, which proxies pass on request by request, or tunnel where it is protected by TLS.
    Http,
}

impl Protocol {
    /// Whether a proxy passes bytes on, and not requests.
    pub(super) fn is_tunnelled(self, to: &Uri) -> bool {
        self == Self::Grpc || to.scheme() == Some(&Scheme::HTTPS)
    }
}

/// The proxies that the environment names, by the rules of Go's `httpproxy`, which the Collector follows.
///
/// It holds passwords and is therefore not `Debug`.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    /// `HTTP_PROXY`.
    http: String,
    /// `HTTPS_PROXY`.
    https: String,
    /// `NO_PROXY`.
    no: String,
}

impl Proxies {
    /// As the environment says now; a name in capitals comes before the same in small letters.
    pub(super) fn from_env() -> Self {
        let first = |names: [&str; 2]| names.into_iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty()).unwrap_or_default();
        Self { http: first(["HTTP_PROXY", "http_proxy"]), https: first(["HTTPS_PROXY", "https_proxy"]), no: first(["NO_PROXY", "no_proxy"]) }
    }

    /// The proxy by which a destination is reached; `None` where it is reached directly. What is tunnelled, gRPC without
    /// TLS too, goes by `HTTPS_PROXY`, as with grpc-go.
    ///
    /// # Errors
    /// For people: which variable is no URL of a proxy. The value may hold a password and is not told.
    pub(super) fn before(&self, to: &Uri, protocol: Protocol) -> Result<Option<Intercept>, String> {
        let (variable, written) = if protocol.is_tunnelled(to) { ("HTTPS_PROXY", &self.https) } else { ("HTTP_PROXY", &self.http) };
        if written.is_empty() || self.exempts(to) {
            return Ok(None);
        }
        let proxy = Matcher::builder().all(written).build().intercept(to);
        let proxy = proxy.filter(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https")));
        proxy.map(Some).ok_or_else(|| format!("the environment's {variable} is no URL of an HTTP proxy: write http://host:port"))
    }

    /// Whether a destination is this machine, or named by `NO_PROXY`.
    fn exempts(&self, to: &Uri) -> bool {
        let host = unbracketed(to.host().unwrap_or_default());
        if host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()) {
            return true;
        }
        let port = port(to);
        let exempt: Vec<&str> = self.no.split(',').filter_map(|entry| exempt_on(entry.trim(), port)).collect();
        let others = Matcher::builder().all("http://proxy").no(exempt.join(",")).build();
        exempt.contains(&"*") || others.intercept(to).is_none()
    }
}

/// An entry of `NO_PROXY` without its port, `None` where it is for another one: the matcher knows hosts, domains and networks.
fn exempt_on(entry: &str, port: u16) -> Option<&str> {
    let (host, own) = match entry.rsplit_once(':') {
        // Colons within an IPv6 address are before no port.
        Some((host, own)) if !host.contains(':') || host.ends_with(']') => (host, Some(own)),
        _ => (entry, None),
    };
    let applies = own.is_none_or(|own| own.parse() == Ok(port));
    applies.then(|| unbracketed(host.strip_prefix('*').filter(|domain| domain.starts_with('.')).unwrap_or(host)))
}

fn unbracketed(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

/// The port of a URL, written or its scheme's.
pub(super) fn port(to: &Uri) -> u16 {
    to.port_u16().unwrap_or(if to.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no: &str) -> Proxies {
        Proxies { http: "http://plain:1".to_owned(), https: "tunnel:2".to_owned(), no: no.to_owned() }
    }

    fn before(proxies: &Proxies, to: &str, protocol: Protocol) -> Option<String> {
        proxies.before(&to.parse().unwrap(), protocol).unwrap().map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn requests_and_tunnels_have_proxies_of_their_own() {
        let proxies = proxies("");
        assert_eq!(before(&proxies, "http://backend:4318", Protocol::Http).as_deref(), Some("http://plain:1/"));
        assert_eq!(before(&proxies, "https://backend", Protocol::Http).as_deref(), Some("http://tunnel:2/"));
        for endpoint in ["http://backend:4317", "https://backend:4317"] {
            assert_eq!(before(&proxies, endpoint, Protocol::Grpc).as_deref(), Some("http://tunnel:2/"), "{endpoint}");
        }
        for here in ["http://localhost:4318", "http://LOCALHOST", "http://127.0.0.2:4318", "http://[::1]:4318"] {
            assert_eq!(before(&proxies, here, Protocol::Http), None, "{here}");
        }
        assert_eq!(before(&Proxies::default(), "http://backend:4318", Protocol::Http), None);
    }

    #[test]
    fn what_is_exempt_is_reached_directly() {
        let exempt = [
            ("backend", "http://backend:4318"),
            ("example.com", "http://a.example.com:4318"),
            (".example.com", "http://a.example.com:4318"),
            ("*.example.com", "http://a.example.com:4318"),
            ("backend:4318", "http://backend:4318"),
            ("backend:80", "http://backend"),
            ("10.0.0.0/8", "http://10.1.2.3:4318"),
            ("other, 10.1.2.3", "http://10.1.2.3:4318"),
            ("10.1.2.3:4318", "http://10.1.2.3:4318"),
            ("fe80::1", "http://[fe80::1]:4318"),
            ("[fe80::1]:4318", "http://[fe80::1]:4318"),
            ("*", "http://backend:4318"),
            ("*", "http://10.1.2.3:4318"),
        ];
        for (no, to) in exempt {
            assert_eq!(before(&proxies(no), to, Protocol::Http), None, "{no}: {to}");
        }
        for (no, to) in [("backend:80", "http://backend:4318"), ("ample.com", "http://example.com"), ("10.0.0.0/8", "http://11.1.2.3")] {
            assert!(before(&proxies(no), to, Protocol::Http).is_some(), "{no}: {to}");
        }
    }

    #[test]
    fn a_proxy_that_can_not_be_used_is_told_without_its_password() {
        for written in ["socks5://user:hunter2@proxy:1080", "http://user:hunter2@", "ftp://proxy"] {
            let proxies = Proxies { https: written.to_owned(), ..Proxies::default() };
            let reason = proxies.before(&"http://backend:4317".parse().unwrap(), Protocol::Grpc).unwrap_err();
            assert!(reason.contains("HTTPS_PROXY") && !reason.contains("hunter2"), "{written}: {reason}");
        }
    }
}
