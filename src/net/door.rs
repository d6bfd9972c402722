use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

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
    /// It comes too slowly.
    Slow,
    /// The sender broke off.
    BrokenOff(String),
}

/// How long a body may take at least …
const PATIENCE: Duration = Duration::from_secs(30);
/// … and one second more for so many bytes that have come.
const BYTES_A_SECOND: usize = 64 << 10;
/// How long the rest of a refused body is read, so that its sender reads the answer before it is cut off.
const DRAIN: Duration = Duration::from_secs(2);

/// Reads a body, holding no more than is allowed. Nothing is reserved by a length the sender declares.
///
/// # Errors
/// See [`TooMuch`]; the rest of the body is then not read.
pub async fn read<B>(body: &mut B, limits: Limits, grow: Grow<'_>) -> Result<Bytes, TooMuch>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    if body.size_hint().lower() > limits.request_bytes as u64 {
        return Err(TooMuch::Request(limits.request_bytes));
    }
    let began = Instant::now();
    loop {
        let seconds = (first.len() + joined.len()) / BYTES_A_SECOND;
        let until = began + PATIENCE + Duration::from_secs(seconds as u64);
        let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_elapsed| TooMuch::Slow)? else { break };
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

/// Reads and forgets the rest of a body that was refused: no more than a request may be long, and not for long.
pub async fn drain<B: Body<Data = Bytes> + Unpin>(body: &mut B, limits: Limits) {
    let drained = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await
            && bytes <= limits.request_bytes
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Who still sends after that has been told what there is to tell.
    drop(timeout(DRAIN, drained).await);
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
