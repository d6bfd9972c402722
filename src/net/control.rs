//! Frames of HTTP/2 that carry no request, counted before HTTP/2 itself reads them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::connections::Activity;

/// The most bytes of control frames in [`WINDOW`] on a connection that completes no request in that time.
const CONTROL_BYTES_MAX: usize = 1 << 20;
/// See [`CONTROL_BYTES_MAX`].
const WINDOW: Duration = Duration::from_secs(10);

/// Length, type, flags and stream (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Reads a connection, and ends it when it sends control frames only: SETTINGS, PING, PRIORITY and the like cost this
/// side CPU and answers, and bring nothing.
#[derive(Debug)]
pub(super) struct Watched<R> {
    inner: R,
    frames: Frames,
    flood: Flood,
    activity: Arc<Activity>,
}

impl<R> Watched<R> {
    /// From the first byte behind the preface on.
    pub(super) fn new(inner: R, activity: Arc<Activity>) -> Self {
        Self { inner, frames: Frames::default(), flood: Flood::new(Instant::now()), activity }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let control = this.frames.control_bytes(buffer.filled().get(before..).unwrap_or_default());
        if control > 0 && this.flood.is_too_much(control, this.activity.completed(), Instant::now()) {
            this.activity.flood();
            let reason = format!("more than {CONTROL_BYTES_MAX} bytes of HTTP/2 control frames within {} s, and no request", WINDOW.as_secs());
            return Poll::Ready(Err(io::Error::other(reason)));
        }
        Poll::Ready(Ok(()))
    }
}

/// Where frames begin in a stream of bytes.
#[derive(Debug)]
struct Frames {
    /// Of the preface, or of the body of the frame at hand.
    left: usize,
    /// Whether what is left counts.
    counts: bool,
    head: [u8; HEAD_BYTES],
    head_len: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { left: super::serve::PREFACE.len(), counts: false, head: [0; HEAD_BYTES], head_len: 0 }
    }
}

impl Frames {
    /// Bytes of control frames among these. An empty DATA frame is one: it carries nothing.
    fn control_bytes(&mut self, mut bytes: &[u8]) -> usize {
        let mut control = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let (body, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= body.len();
                control += if self.counts { body.len() } else { 0 };
                bytes = rest;
                continue;
            }
            let (part, rest) = bytes.split_at((HEAD_BYTES - self.head_len).min(bytes.len()));
            if let Some(place) = self.head.get_mut(self.head_len..self.head_len + part.len()) {
                place.copy_from_slice(part);
            }
            self.head_len += part.len();
            bytes = rest;
            if self.head_len == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                self.counts = !(kind == DATA && length > 0 || kind == HEADERS);
                control += if self.counts { HEAD_BYTES } else { 0 };
                (self.left, self.head_len) = (length, 0);
            }
        }
        control
    }
}

/// Control frames since a request was completed last, in this half of a window and in the one before.
#[derive(Debug)]
struct Flood {
    since: Instant,
    completed: usize,
    bytes: usize,
    before: usize,
}

impl Flood {
    const fn new(now: Instant) -> Self {
        Self { since: now, completed: 0, bytes: 0, before: 0 }
    }

    fn is_too_much(&mut self, bytes: usize, completed: usize, now: Instant) -> bool {
        let half = WINDOW / 2;
        let passed = now.saturating_duration_since(self.since);
        if completed != self.completed || passed >= half * 2 {
            *self = Self { since: now, completed, bytes: 0, before: 0 };
        } else if passed >= half {
            *self = Self { since: self.since + half, completed, bytes: 0, before: self.bytes };
        }
        self.bytes += bytes;
        self.bytes + self.before > CONTROL_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let [_, a, b, c] = length.to_be_bytes();
        [vec![a, b, c, kind, 0, 0, 0, 0, 1], vec![7; length as usize]].concat()
    }

    proptest! {
        /// However the bytes are cut, the same ones count.
        #[test]
        fn control_frames_are_found_in_any_pieces(frames in prop::collection::vec((0_u8..10, 0_u32..40), 0..40), cut in 1_usize..50) {
            let bytes: Vec<u8> = super::super::serve::PREFACE.iter().copied().chain(frames.iter().flat_map(|(kind, length)| frame(*kind, *length))).collect();
            let counted = |(kind, length): &(u8, u32)| !(*kind == HEADERS || *kind == DATA && *length > 0);
            let expected: usize = frames.iter().filter(|frame| counted(frame)).map(|(_, length)| HEAD_BYTES + *length as usize).sum();
            let mut reader = Frames::default();
            prop_assert_eq!(bytes.chunks(cut).map(|piece| reader.control_bytes(piece)).sum::<usize>(), expected);
        }
    }

    #[test]
    fn a_request_or_time_begins_anew() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        assert!(!flood.is_too_much(CONTROL_BYTES_MAX, 0, start));
        assert!(!flood.is_too_much(CONTROL_BYTES_MAX, 1, start), "a request was completed");
        assert!(!flood.is_too_much(CONTROL_BYTES_MAX, 1, start + WINDOW * 2), "that was long ago");
        assert!(flood.is_too_much(1, 1, start + WINDOW * 2));
        // Wherever a window begins.
        let mut flood = Flood::new(start);
        assert!(!flood.is_too_much(CONTROL_BYTES_MAX, 0, start + WINDOW * 4 / 10));
        assert!(flood.is_too_much(1, 0, start + WINDOW * 6 / 10));
    }
}
