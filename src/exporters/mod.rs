//! What sends telemetry on.
//!
//! `sending` is what the exporters share: a bounded queue, batches by concatenation, retry with backoff.

mod answer;
pub mod debug;
pub mod file;
pub mod otlp_grpc;
pub mod otlp_http;
mod sending;

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::{Secret, Span};

/// A timeout as a user wrote it: 0 means none.
const fn limit(written: Span) -> Duration {
    if written.get().is_zero() { Duration::MAX } else { written.get() }
}

/// Headers as a user wrote them; a value that can't be one is named by its key only.
fn headers(written: &BTreeMap<String, Secret>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(written.len());
    for (name, value) in written {
        let parsed = HeaderName::try_from(name.to_ascii_lowercase()).map_err(|_invalid| format!("`{name}` is no name of a header"))?;
        let mut value =
            HeaderValue::from_str(value.expose()).map_err(|_invalid| format!("the value of header `{name}` holds characters no header may hold"))?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

/// An endpoint without user name and password, and the header that they travel in. They are taken out before anything is
/// made of the endpoint: what libraries log of it holds none.
fn credentials(endpoint: &str) -> (Cow<'_, str>, Option<HeaderValue>) {
    let (scheme, rest) = endpoint.find("://").map_or(("", endpoint), |at| endpoint.split_at(at + 3));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let Some((credentials, host)) = authority.rsplit_once('@') else { return (Cow::Borrowed(endpoint), None) };
    let path = rest.get(authority.len()..).unwrap_or_default();
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let basic = [&decoded(user)[..], b":", &decoded(password)].concat();
    let mut header = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(basic))).ok();
    if let Some(header) = &mut header {
        header.set_sensitive(true);
    }
    (Cow::Owned(format!("{scheme}{host}{path}")), header)
}

/// A part of a URL with its `%41` resolved; what is no such thing stands for itself.
fn decoded(part: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|digits| first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_travel_in_a_header_and_nowhere_else() {
        let header = |text: &'static str| Some(HeaderValue::from_static(text));
        // base64 of user:hunter2, of user: and of a@b:c:d
        for (endpoint, without, authorization) in [
            ("https://user:hunter2@host:1/path", "https://host:1/path", header("Basic dXNlcjpodW50ZXIy")),
            ("user@host:1", "host:1", header("Basic dXNlcjo=")),
            ("http://a%40b:c:d@host", "http://host", header("Basic YUBiOmM6ZA==")),
            ("https://host:1/a@b", "https://host:1/a@b", None),
            ("host:1", "host:1", None),
        ] {
            assert_eq!(credentials(endpoint), (Cow::Borrowed(without), authorization));
        }
        assert!(!format!("{:?}", credentials("http://user:hunter2@host")).contains("dXNl"));
    }
}
