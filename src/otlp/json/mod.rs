//! OTLP/JSON to protobuf and back, by a table of the messages and in one go: no tree of the request is built.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding> and
//! <https://protobuf.dev/programming-guides/json/>.

mod form;
mod jaeger;
mod read;
mod schema;
mod write;

#[cfg(test)]
mod tests;

pub use self::{
    form::{Form, form_of},
    jaeger::from_jaeger,
};
use super::{Malformed, Signal};

/// What could not be turned from one encoding into the other, for people.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The JSON is broken or holds something of the wrong type: where, and what.
    #[error("invalid OTLP/JSON: {0}")]
    Json(String),
    /// It is no download of Jaeger: where, and why.
    #[error("invalid JSON of Jaeger: {0}")]
    Jaeger(String),
    /// It would be larger than this many bytes in protobuf.
    #[error("the request is larger than {0} bytes in protobuf")]
    TooLarge(usize),
    /// The protobuf is broken.
    #[error(transparent)]
    Protobuf(#[from] Malformed),
}

/// The protobuf of a request in JSON, of at most so many bytes: a list of numbers may be four times as large as its
/// text. Unknown keys are left out, but not where there are no others. Nesting stops at 128 objects and arrays. What
/// Tempo and Grafana write is read as well: `batches`, ids in base64, the names of enumerations.
///
/// # Errors
/// The text is no OTLP/JSON request of this signal, or too large a one.
pub fn to_protobuf(signal: Signal, json: &[u8], limit: usize) -> Result<Vec<u8>, JsonError> {
    read::to_protobuf(schema::request(signal), without_bom(json), limit)
}

/// A text without the byte order mark that editors and PowerShell put before UTF-8.
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(BOM).unwrap_or(text)
}

/// The byte order mark in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The JSON, on one line, of a request in protobuf. Unknown fields are left out, and what is no UTF-8 in text is
/// replaced by `U+FFFD`. Nesting stops at 100 values of attributes or bodies within each other.
///
/// # Errors
/// The bytes are no request of this signal.
pub fn from_protobuf(signal: Signal, request: &[u8]) -> Result<Vec<u8>, JsonError> {
    Ok(write::from_protobuf(schema::request(signal), request)?)
}
