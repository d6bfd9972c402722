//! The head of an OTLP/HTTP request: what it is, and what is wrong with it.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::compression::Codings;

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MediaType {
    /// `application/x-protobuf`.
    #[default]
    Protobuf,
    /// `application/json`.
    Json,
}

impl MediaType {
    /// Its name in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    /// By a `Content-Type`, whose parameters say nothing.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.split(';').next().unwrap_or_default().trim();
        [Self::Protobuf, Self::Json].into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

/// What the head of a request says of its body, or the status and reason that refuse it.
///
/// # Errors
/// 415 where type or encoding is none that is known here.
pub fn body_kind(headers: &HeaderMap) -> Result<(MediaType, Codings), (StatusCode, String)> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(media) = MediaType::named(media) else {
        let reason = format!("Content-Type `{media}` is not supported; send application/x-protobuf or application/json");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    };
    let codings = Codings::of(headers, &header::CONTENT_ENCODING).map_err(|reason| (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))?;
    Ok((media, codings))
}

/// `google.rpc.Status` with a message, written in the encoding of the request.
pub fn status_body(media: MediaType, code: tonic::Code, message: &str) -> Bytes {
    let message: String = message.chars().take(1024).collect();
    match media {
        MediaType::Json => serde_json::json!({ "code": code as i32, "message": message }).to_string().into(),
        MediaType::Protobuf => {
            let status = tonic_types::Status { code: code as i32, message, details: Vec::new() };
            prost::Message::encode_to_vec(&status).into()
        }
    }
}
