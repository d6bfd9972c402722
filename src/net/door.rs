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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::net::buffer::tests::Scale;

    const LIMITS: Limits = Limits { request_bytes: 64 << 20 };

    /// What a sender does next.
    enum Step {
        Wait(Duration),
        Send(Bytes),
        End,
    }

    /// A sender that does one thing after the other, and nothing when there is no more.
    struct Sender {
        steps: VecDeque<Step>,
        waiting: Option<Pin<Box<tokio::time::Sleep>>>,
    }

    impl Sender {
        fn new(steps: impl IntoIterator<Item = Step>) -> Self {
            Self { steps: steps.into_iter().collect(), waiting: None }
        }
    }

    impl Body for Sender {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let this = self.get_mut();
            loop {
                if let Some(waiting) = &mut this.waiting {
                    std::task::ready!(waiting.as_mut().poll(cx));
                    this.waiting = None;
                }
                match this.steps.pop_front() {
                    Some(Step::Wait(time)) => this.waiting = Some(Box::pin(tokio::time::sleep(time))),
                    Some(Step::Send(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Some(Step::End) => return Poll::Ready(None),
                    None => return Poll::Pending,
                }
            }
        }
    }

    fn send(bytes: usize) -> Step {
        Step::Send(Bytes::from(vec![7; bytes]))
    }

    /// So many bytes after each time, for so often.
    fn steadily(bytes: usize, each: Duration, times: usize) -> impl Iterator<Item = Step> {
        (0..times).flat_map(move |_| [send(bytes), Step::Wait(each)])
    }

    async fn take(steps: impl IntoIterator<Item = Step>) -> (Result<Held, TooMuch>, Scale, Duration) {
        let (mut scale, began) = (Scale::default(), Instant::now());
        let came = read(&mut Sender::new(steps), LIMITS, |_| None, &mut scale).await;
        (came, scale, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn fault_f5_a_body_that_stops_is_given_up_whatever_came_before() {
        for steps in [vec![], vec![send(100)], vec![send(63 << 20)], steadily(100, Duration::from_secs(1), 60).collect()] {
            let (came, _, after) = take(steps).await;
            assert_eq!(came.unwrap_err(), TooMuch::Stalled);
            assert_eq!(after.as_secs(), STALL.as_secs());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_must_come_within_a_time_that_grows_with_it() {
        // 64 KiB each 9 s are progress and still too slow: four times that came within 30 s, which grants one second more.
        let (came, _, after) = take(steadily(PROGRESS_BYTES, Duration::from_secs(9), 100)).await;
        assert_eq!(came.unwrap_err(), TooMuch::Slow);
        assert_eq!(after.as_secs(), 31);
        // A quarter of a MiB a second is fast enough for any length.
        let (came, ..) = take(steadily(BYTES_A_SECOND, Duration::from_secs(1), 200).chain([Step::End])).await;
        assert_eq!(came.unwrap().bytes.len(), 200 * BYTES_A_SECOND);
        // What is small has as long as anything may stall.
        let (came, ..) = take([send(1), Step::Wait(Duration::from_secs(14)), send(1), Step::End]).await;
        assert_eq!(came.unwrap().bytes.len(), 2);
    }

    #[tokio::test]
    async fn a_small_body_is_copied_out_of_the_buffer_it_was_read_into() {
        let read_buffer = Bytes::from(vec![7; 8 << 10]);
        let small = read_buffer.slice(100..335);
        let at = small.as_ptr();
        // Clients of HTTP/2 end a body with an empty frame.
        let (came, scale, _) = take([Step::Send(small), Step::Send(Bytes::new()), Step::End]).await;
        let held = came.unwrap();
        assert_eq!((held.bytes.len(), held.weight, scale.held, scale.most), (235, 235, 235, 235));
        assert_ne!(held.bytes.as_ptr(), at);
    }

    #[tokio::test]
    async fn a_large_frame_is_kept_as_it_came_and_weighs_the_buffer_it_is_in() {
        let frame = Bytes::from(vec![7; KEPT_FROM]);
        let at = frame.as_ptr();
        let (came, scale, _) = take([Step::Send(frame), Step::Send(Bytes::new()), Step::End]).await;
        let held = came.unwrap();
        assert_eq!((held.bytes.as_ptr(), held.bytes.len()), (at, KEPT_FROM));
        assert_eq!((held.weight, scale.held), (PINNED_BYTES, PINNED_BYTES));
        // With another one behind it, it is copied like any other.
        let (came, scale, _) = take([send(KEPT_FROM), send(10), Step::End]).await;
        let held = came.unwrap();
        assert_eq!((held.bytes.len(), held.weight), (KEPT_FROM + 10, scale.held));
        assert_eq!(scale.held, KEPT_FROM + 10);
    }

    #[tokio::test]
    async fn what_a_body_takes_while_it_comes_is_accounted_for() {
        let (came, scale, _) = take((0..4096).map(|_| send(16 << 10)).chain([Step::End])).await;
        assert_eq!((came.unwrap().weight, scale.held), (64 << 20, 64 << 20));
        assert!(scale.most <= 96 << 20, "{}", scale.most);
        let (came, ..) = take((0..4097).map(|_| send(16 << 10)).chain([Step::End])).await;
        assert_eq!(came.unwrap_err(), TooMuch::Request(64 << 20));
    }
}
