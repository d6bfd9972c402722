use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{config::Span, pipeline::Faults};

/// Which web pages may send, as browsers ask (Fetch standard, 3.2).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cors {
    /// Origins of pages that may send, such as `https://shop.example.com`; `*` stands for any text, once in each. An empty
    /// list allows none. By default pages that this machine itself serves.
    allowed_origins: Vec<String>,
    /// Headers that pages may set beside those of every browser and `Content-Type`; `*` allows all.
    allowed_headers: Vec<String>,
    /// How long a browser may keep the answer, up to a whole second; 0 leaves that to the browser.
    max_age: Span,
}

impl Default for Cors {
    fn default() -> Self {
        let local = ["http://localhost", "http://localhost:*", "http://127.0.0.1", "http://127.0.0.1:*", "http://[::1]:*"];
        Self { allowed_origins: local.map(str::to_owned).into(), allowed_headers: Vec::new(), max_age: Span::secs(0) }
    }
}

/// Headers that browsers' SDKs set.
const USUAL_HEADERS: [HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_ENCODING, HeaderName::from_static("x-requested-with")];

impl Cors {
    pub(super) fn check(&self, at: &str, faults: &mut Faults) {
        for origin in self.allowed_origins.iter().filter(|origin| origin.matches('*').count() > 1) {
            faults.note::<()>(&format!("{at}.allowed_origins"), Err(format!("`{origin}` holds more than one `*`; one is allowed")));
        }
        for name in self.allowed_headers.iter().filter(|name| *name != "*" && HeaderName::try_from(name.as_str()).is_err()) {
            faults.note::<()>(&format!("{at}.allowed_headers"), Err(format!("`{name}` is no name of a header, such as X-Api-Key")));
        }
    }

    /// Answers what browsers ask before a page sends, and says in every answer that the page may read it; `None` where no
    /// page may send.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        if self.allowed_origins.is_empty() {
            return None;
        }
        let origins: Arc<[String]> = self.allowed_origins.clone().into();
        let is_allowed = move |origin: &HeaderValue, _: &http::request::Parts| origins.iter().any(|allowed| fits(allowed, origin.as_bytes()));
        let headers = if self.allowed_headers.iter().any(|name| name == "*") {
            AllowHeaders::mirror_request()
        } else {
            let own = self.allowed_headers.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
            AllowHeaders::list(USUAL_HEADERS.into_iter().chain(own))
        };
        let layer = CorsLayer::new().allow_origin(AllowOrigin::predicate(is_allowed)).allow_methods([Method::POST]).allow_headers(headers);
        let age = self.max_age.get();
        Some(if age.is_zero() { layer } else { layer.max_age(Duration::from_secs(age.as_secs())) })
    }
}

/// Whether an origin is one that is allowed. Names of hosts are written in any case.
fn fits(allowed: &str, origin: &[u8]) -> bool {
    match allowed.split_once('*') {
        None => origin.eq_ignore_ascii_case(allowed.as_bytes()),
        Some((before, after)) => {
            let (start, end) = (origin.get(..before.len()), origin.len().checked_sub(after.len()).and_then(|at| origin.get(at..)));
            origin.len() >= before.len() + after.len()
                && start.is_some_and(|start| start.eq_ignore_ascii_case(before.as_bytes()))
                && end.is_some_and(|end| end.eq_ignore_ascii_case(after.as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn one_star_stands_for_any_text() {
        for (allowed, origin, expected) in [
            ("*", "https://a.example", true),
            ("https://*.example.com", "https://shop.Example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://shop.example.com.evil.net", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("http://localhost:*", "http://localhost", false),
            ("https://a.example", "https://a.example:8443", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(fits(allowed, origin.as_bytes()), expected, "{allowed} {origin}");
        }
    }
}
