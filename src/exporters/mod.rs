//! What sends telemetry on.
//!
//! `sending` is what the exporters share: a bounded queue, batches by concatenation, retry with backoff.

mod answer;
pub mod debug;
pub mod file;
pub mod otlp_grpc;
pub mod otlp_http;
mod sending;

use std::{collections::BTreeMap, time::Duration};

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
