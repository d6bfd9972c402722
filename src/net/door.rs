use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    buffer::{Account, Buffer, Held},
    serve::FRAME_BYTES,
};

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes of a request, as sent and once more when decompressed.
    pub request_bytes: usize,
}

/// Why a request was not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// It is larger than this many bytes: it never fits.
    Request(usize),
    /// There is no room for it now; it may come again.
    NoRoom {
        /// Which limit it would pass, as it is counted.
        limit: &'static str,
        /// For people.
        reason: String,
    },
    /// Too little of it came for too long.
    Stalled,
    /// As a whole it comes too slowly.
    Slow,
    /// The sender broke off.
    BrokenOff(String),
}

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Request(limit) => write!(f, "the request is larger than {limit} bytes"),
            Self::NoRoom { reason, .. } | Self::BrokenOff(reason) => f.write_str(reason),
            Self::Stalled => write!(f, "the request stalls: neither {} KiB nor its end came within {STALL:?}", PROGRESS_BYTES >> 10),
            Self::Slow => write!(f, "the request comes too slowly: it may take {PATIENCE:?}, and 1s more for each {} KiB", BYTES_A_SECOND >> 10),
        }
    }
}

/// How long a body may take at least …
const PATIENCE: Duration = Duration::from_secs(30);
/// … and one second more for so many bytes that have come.
const BYTES_A_SECOND: usize = 256 << 10;
/// Within this time …
const STALL: Duration = Duration::from_secs(15);
/// … so many bytes of a body have to come, or its end.
const PROGRESS_BYTES: usize = 64 << 10;
/// How long the rest of a refused body is read, so that its sender reads the answer before it is cut off.
const DRAIN: Duration = Duration::from_secs(2);
/// A frame keeps the whole buffer alive that it was read into, which may be as large as the largest frame.
const PINNED_BYTES: usize = FRAME_BYTES as usize;
/// A frame that is smaller is copied out of that buffer; a larger one is kept, and the buffer accounted for.
const KEPT_FROM: usize = PINNED_BYTES / 2;

/// Reads a body, holding no more than is allowed. Nothing is reserved by a length the sender declares: `announced` says
/// from the first frame how long the whole is said to be, if it says so, and a buffer grows to that and not beyond.
///
/// # Errors
/// See [`TooMuch`]; the rest of the body is then not read.
pub async fn read<B>(body: &mut B, limits: Limits, announced: fn(&[u8]) -> Option<usize>, account: &mut dyn Account) -> Result<Held, TooMuch>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let declared = body.size_hint();
    if declared.lower() > limits.request_bytes as u64 {
        return Err(TooMuch::Request(limits.request_bytes));
    }
    let declared = declared.exact().and_then(|bytes| usize::try_from(bytes).ok());
    let mut pace = Pace::new();
    let mut gathered: Option<Gathered> = None;
    loop {
        let Ok(frame) = timeout_at(pace.until(), body.frame()).await else { return Err(pace.fault()) };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| TooMuch::BrokenOff(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        // Clients of HTTP/2 end a body with an empty frame.
        if data.is_empty() {
            continue;
        }
        pace.came(data.len());
        let gathered = gathered.get_or_insert_with(|| {
            let expected = declared.or_else(|| announced(&data)).unwrap_or_default();
            Gathered { kept: Bytes::new(), joined: Buffer::new(limits.request_bytes, expected) }
        });
        gathered.add(data, limits, account)?;
    }
    Ok(gathered.map(|gathered| gathered.whole(account)).unwrap_or_default())
}

/// What has come of a body: one large frame as it came, or a buffer of what was copied.
struct Gathered {
    kept: Bytes,
    joined: Buffer,
}

impl Gathered {
    fn add(&mut self, data: Bytes, limits: Limits, account: &mut dyn Account) -> Result<(), TooMuch> {
        let first = self.kept.is_empty() && self.joined.len() == 0;
        if first && data.len() >= KEPT_FROM {
            if data.len() > limits.request_bytes {
                return Err(TooMuch::Request(limits.request_bytes));
            }
            account.hold(pinned(&data))?;
            self.kept = data;
            return Ok(());
        }
        self.joined.make_room(self.kept.len() + data.len(), account)?;
        let kept = std::mem::take(&mut self.kept);
        self.joined.extend(&kept);
        self.joined.extend(&data);
        if !kept.is_empty() {
            account.release(pinned(&kept));
        }
        Ok(())
    }

    fn whole(self, account: &mut dyn Account) -> Held {
        if self.kept.is_empty() {
            return self.joined.freeze(account);
        }
        Held { weight: pinned(&self.kept), bytes: self.kept }
    }
}

/// Memory that a large frame keeps alive.
fn pinned(frame: &Bytes) -> usize {
    frame.len().max(PINNED_BYTES)
}

/// How fast a body comes, and until when more of it is waited for.
struct Pace {
    began: Instant,
    bytes: usize,
    /// Since when less than [`PROGRESS_BYTES`] came, and how many.
    since: Instant,
    lately: usize,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, bytes: 0, since: now, lately: 0 }
    }

    fn came(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.lately += bytes;
        if self.lately >= PROGRESS_BYTES {
            self.lately = 0;
            self.since = Instant::now();
        }
    }

    fn stalled_at(&self) -> Instant {
        self.since + STALL
    }

    fn too_slow_at(&self) -> Instant {
        self.began + PATIENCE + Duration::from_secs((self.bytes / BYTES_A_SECOND) as u64)
    }

    fn until(&self) -> Instant {
        self.stalled_at().min(self.too_slow_at())
    }

    /// What is wrong when that time is over.
    fn fault(&self) -> TooMuch {
        if self.stalled_at() <= self.too_slow_at() { TooMuch::Stalled } else { TooMuch::Slow }
    }
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
