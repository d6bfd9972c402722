use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of a request, as sent and once more when decompressed.
    pub request_bytes: usize,
}

/// Accounts for bytes that are about to be held; an error is a reason for people.
pub type Grow<'a> = &'a mut (dyn FnMut(usize) -> Result<(), String> + Send);

/// Why a request was not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// It is larger than this many bytes: it never fits.
    Request(usize),
    /// There is no memory for it now.
    Memory(String),
    /// The sender broke off.
    BrokenOff(String),
}

/// Reads a body, holding no more than is allowed. Nothing is reserved by a length the sender declares.
///
/// # Errors
/// See [`TooMuch`]; the rest of the body is then not read.
pub async fn read<B>(mut body: B, limits: Limits, grow: Grow<'_>) -> Result<Bytes, TooMuch>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| TooMuch::BrokenOff(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + joined.len() + data.len() > limits.request_bytes {
            return Err(TooMuch::Request(limits.request_bytes));
        }
        grow(data.len()).map_err(TooMuch::Memory)?;
        // A body of one frame, the usual one, is handed on as it came.
        if first.is_empty() && joined.is_empty() {
            first = data;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut first));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// The body of an answer: some bytes, then perhaps trailers.
#[derive(Debug, Default)]
pub struct Answer {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Answer {
    /// Bytes only.
    pub fn bytes(data: impl Into<Bytes>) -> Self {
        Self { data: Some(data.into()).filter(|data: &Bytes| !data.is_empty()), trailers: None }
    }

    /// Bytes, then trailers.
    pub fn with_trailers(data: Bytes, trailers: HeaderMap) -> Self {
        Self { data: Some(data), trailers: Some(trailers) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let next = this.data.take().map(Frame::data).or_else(|| this.trailers.take().map(Frame::trailers));
        Poll::Ready(next.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
