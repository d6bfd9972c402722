use std::io::{self, Read};

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{
    buffer::{Account, Buffer, Held, Unaccounted},
    door::{Limits, TooMuch},
    turns::{Work, in_turn},
};

/// How what is sent is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Why a body could not be decompressed.
#[derive(Debug)]
pub enum Inflate {
    /// It grows beyond what is allowed.
    TooMuch(TooMuch),
    /// It is not what its encoding says: which, and what is wrong.
    Broken(String),
}

/// One way to compress a body that is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950; bare RFC 1951 is read too, since some clients send that.
    Deflate,
    /// RFC 8878.
    Zstd,
}

/// How a body that is received is compressed: the codings in the order in which they were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Codings(SmallVec<[Coding; 1]>);

/// The largest window that is accepted in a zstd stream, as its base-2 logarithm: 8 MiB, what RFC 8878 asks
/// decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Codings one upon the other that are undone for one body.
const CODINGS_MAX: usize = 4;
/// Compressed bodies larger than this are decompressed away from the threads that serve.
const ASIDE_BYTES: usize = 4 << 10;
/// What becomes larger than this leaves others their turn.
const LARGE_BYTES: usize = 1 << 20;
/// How many bytes a byte of deflate becomes at most.
const DEFLATE_RATIO_MAX: usize = 1032;
/// How many bytes a byte of compressed telemetry usually becomes at most.
const USUAL_RATIO: usize = 8;

impl Encoding {
    /// By the name that an answer's header gives; `None` if it is none of these.
    pub fn named(name: &str) -> Option<Self> {
        let (_, coding) = Coding::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.trim()))?;
        match coding {
            None => Some(Self::None),
            Some(Coding::Gzip) => Some(Self::Gzip),
            Some(Coding::Zstd) => Some(Self::Zstd),
            Some(Coding::Deflate) => None,
        }
    }

    /// Its HTTP and gRPC name; `None` if nothing is to be said.
    pub const fn header(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Decompresses what no sender waits for, such as a record of a file, stopping at the limit while at it.
    ///
    /// # Errors
    /// The data is broken or grows too large.
    pub fn inflate(self, compressed: &Bytes, limits: Limits) -> Result<Bytes, Inflate> {
        let coding = match self {
            Self::None => return Ok(compressed.clone()),
            Self::Gzip => Coding::Gzip,
            Self::Zstd => Coding::Zstd,
        };
        coding.inflate(compressed, limits, &mut Unaccounted).map(|held| held.bytes)
    }

    /// Compresses.
    ///
    /// # Errors
    /// The compressor fails, for want of memory.
    pub fn deflate(self, body: Bytes) -> io::Result<Bytes> {
        match self {
            Self::None => Ok(body),
            Self::Gzip => {
                let mut out = Vec::with_capacity(body.len() / 4);
                flate2::read::GzEncoder::new(&body[..], flate2::Compression::default()).read_to_end(&mut out)?;
                Ok(out.into())
            }
            Self::Zstd => zstd::bulk::compress(&body, 0).map(Bytes::from),
        }
    }
}

impl Coding {
    /// Every name that is known (RFC 9110, 8.4.1, and what senders write), and what it stands for.
    const NAMES: [(&'static str, Option<Self>); 8] = [
        ("gzip", Some(Self::Gzip)),
        ("x-gzip", Some(Self::Gzip)),
        ("deflate", Some(Self::Deflate)),
        ("zlib", Some(Self::Deflate)),
        ("zstd", Some(Self::Zstd)),
        ("identity", None),
        ("none", None),
        ("", None),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// How many bytes the data becomes: what it says itself, as far as that can be, else a guess.
    fn expected(self, data: &[u8]) -> usize {
        let said = match self {
            Self::Gzip => data.last_chunk().map(|size| u64::from(u32::from_le_bytes(*size)).min((data.len() * DEFLATE_RATIO_MAX) as u64)),
            Self::Deflate => None,
            // Who declares more than that is believed as far as it comes.
            Self::Zstd => zstd::zstd_safe::get_frame_content_size(data).ok().flatten().map(|size| size.min((data.len() * DEFLATE_RATIO_MAX) as u64)),
        };
        said.map_or(data.len() * USUAL_RATIO, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    fn inflate(self, body: &[u8], limits: Limits, account: &mut dyn Account) -> Result<Held, Inflate> {
        let expected = self.expected(body);
        let broken = |error: &io::Error| Inflate::Broken(format!("broken {} data: {error}", self.name()));
        match self {
            Self::Gzip => read_all(MultiGzDecoder::new(body), expected, limits, account, broken),
            Self::Deflate if is_zlib(body) => read_all(ZlibDecoder::new(body), expected, limits, account, broken),
            Self::Deflate => read_all(DeflateDecoder::new(body), expected, limits, account, broken),
            Self::Zstd => {
                let decoder = zstd::Decoder::with_buffer(body).and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                    Ok(decoder)
                });
                read_all(decoder.map_err(|error| broken(&error))?, expected, limits, account, broken)
            }
        }
    }
}

/// Whether data begins as RFC 1950 has it: deflate with a window of at most 32 KiB, and a multiple of 31.
fn is_zlib(data: &[u8]) -> bool {
    data.first_chunk::<2>().is_some_and(|&[method, flags]| {
        let known = method & 0x0f == 8 && method >> 4 <= 7;
        known && u16::from_be_bytes([method, flags]).is_multiple_of(31)
    })
}

impl Codings {
    /// Every one a server offers.
    pub const ACCEPTED: &'static str = "gzip,zstd,deflate,identity";

    /// From a header, which may be there several times and list several.
    ///
    /// # Errors
    /// For people: one of them is not known, or there are too many.
    pub fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Self, String> {
        let mut codings: SmallVec<[Coding; 1]> = SmallVec::new();
        for value in headers.get_all(name) {
            let listed = String::from_utf8_lossy(value.as_bytes());
            for one in listed.split(',').map(str::trim) {
                let Some((_, coding)) = Coding::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(one)) else {
                    return Err(format!("{} `{one}` is not supported; known: {}", title(name), Self::ACCEPTED));
                };
                codings.extend(*coding);
            }
        }
        if codings.len() > CODINGS_MAX {
            return Err(format!("{} lists {} codings; at most {CODINGS_MAX} are undone", title(name), codings.len()));
        }
        Ok(Self(codings))
    }

    /// Whether a body is not compressed.
    pub fn is_identity(&self) -> bool {
        self.0.is_empty()
    }

    /// Decompresses when it is its turn, stopping at the limits while at it. What it becomes is accounted for before it
    /// is there; what it was is given back.
    ///
    /// # Errors
    /// The data is broken or grows too large.
    pub async fn inflate(&self, body: Held, limits: Limits, account: &mut dyn Account) -> Result<Held, Inflate> {
        let mut held = body;
        for coding in self.0.iter().rev() {
            let work = match coding.expected(&held.bytes) {
                bytes if bytes > LARGE_BYTES => Work::Large,
                _ if held.bytes.len() > ASIDE_BYTES => Work::Medium,
                _ => Work::Small,
            };
            let inflated = in_turn(work, || coding.inflate(&held.bytes, limits, account)).await?;
            let compressed = std::mem::replace(&mut held, inflated).weight;
            account.release(compressed);
        }
        Ok(held)
    }
}

/// How a header's name is usually written.
fn title(name: &HeaderName) -> &str {
    if *name == http::header::CONTENT_ENCODING { "Content-Encoding" } else { name.as_str() }
}

fn read_all(
    mut decoder: impl Read,
    expected: usize,
    limits: Limits,
    account: &mut dyn Account,
    broken: impl Fn(&io::Error) -> Inflate,
) -> Result<Held, Inflate> {
    let mut out = Buffer::new(limits.request_bytes, 0);
    out.make_room(expected.min(limits.request_bytes), account).map_err(Inflate::TooMuch)?;
    loop {
        let room = out.room();
        if out.read_from(&mut decoder).map_err(|error| broken(&error))? < room {
            return Ok(out.freeze(account));
        }
        // The buffer is full, which may be the end or not.
        let mut next = [0];
        if decoder.read(&mut next).map_err(|error| broken(&error))? == 0 {
            return Ok(out.freeze(account));
        }
        out.make_room(next.len(), account).map_err(Inflate::TooMuch)?;
        out.extend(&next);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::net::buffer::tests::Scale;

    const LIMITS: Limits = Limits { request_bytes: 300_000 };

    fn body() -> Vec<u8> {
        (0..300_000_u32).map(|number| u8::try_from(number / 7 % 251).unwrap()).collect()
    }

    /// Writes the body; encoders end their stream when they are dropped.
    fn write_into(mut encoder: impl Write) {
        encoder.write_all(&body()).unwrap();
        drop(encoder);
    }

    #[test]
    fn what_is_deflated_inflates_to_the_same() {
        let body = Bytes::from(body());
        for encoding in [Encoding::None, Encoding::Gzip, Encoding::Zstd] {
            let small = encoding.deflate(body.clone()).unwrap();
            assert_eq!(encoding.inflate(&small, LIMITS).unwrap(), body);
        }
    }

    /// The body in every form that a coding has.
    fn forms() -> Vec<(Coding, Vec<u8>)> {
        let level = flate2::Compression::default();
        let (mut gzip, mut zlib, mut raw, mut unsized_zstd) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        write_into(flate2::write::GzEncoder::new(&mut gzip, level));
        write_into(flate2::write::ZlibEncoder::new(&mut zlib, level));
        write_into(flate2::write::DeflateEncoder::new(&mut raw, level));
        write_into(zstd::Encoder::new(&mut unsized_zstd, 0).unwrap().auto_finish());
        let sized_zstd = zstd::bulk::compress(&body(), 0).unwrap();
        vec![(Coding::Gzip, gzip), (Coding::Deflate, zlib), (Coding::Deflate, raw), (Coding::Zstd, unsized_zstd), (Coding::Zstd, sized_zstd)]
    }

    #[test]
    fn what_a_body_becomes_is_accounted_for_whole() {
        for (coding, data) in forms() {
            let mut scale = Scale::default();
            let held = coding.inflate(&data, LIMITS, &mut scale).unwrap();
            assert_eq!(held.bytes, body(), "{coding:?}");
            assert_eq!(held.weight, scale.held, "{coding:?}");
            assert!(scale.most <= 2 * LIMITS.request_bytes, "{coding:?}: {}", scale.most);
        }
    }

    #[test]
    fn who_says_how_much_it_becomes_takes_no_more_than_that() {
        for (coding, data) in [forms().swap_remove(0), forms().swap_remove(4)] {
            let mut scale = Scale::default();
            coding.inflate(&data, LIMITS, &mut scale).unwrap();
            assert_eq!((scale.held, scale.most), (300_000, 300_000), "{coding:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_broken() {
        for (coding, data) in forms() {
            let cut = &data[..data.len() - 10];
            let inflated = coding.inflate(cut, LIMITS, &mut Unaccounted);
            assert!(matches!(&inflated, Err(Inflate::Broken(reason)) if reason.contains(coding.name())), "{coding:?}: {inflated:?}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_while_it_grows() {
        let zeros = Bytes::from(vec![0; 64 << 20]);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let bomb = encoding.deflate(zeros.clone()).unwrap();
            let coding = if encoding == Encoding::Gzip { Coding::Gzip } else { Coding::Zstd };
            let mut scale = Scale::default();
            let stopped = coding.inflate(&bomb, Limits { request_bytes: 1 << 20 }, &mut scale);
            assert!(matches!(stopped, Err(Inflate::TooMuch(TooMuch::Request(_)))), "{coding:?}");
            assert!(scale.most <= 2 << 20, "{coding:?}: {}", scale.most);
        }
    }

    /// Has room for so many bytes.
    struct Room(usize);

    impl Account for Room {
        fn hold(&mut self, bytes: usize) -> Result<(), TooMuch> {
            let none = || TooMuch::NoRoom { limit: "memory", reason: format!("{bytes} bytes are too many") };
            self.0 = self.0.checked_sub(bytes).ok_or_else(none)?;
            Ok(())
        }

        fn release(&mut self, bytes: usize) {
            self.0 += bytes;
        }
    }

    #[test]
    fn nothing_is_inflated_that_there_is_no_room_for() {
        for (coding, data) in forms() {
            let inflated = coding.inflate(&data, LIMITS, &mut Room(200_000));
            assert!(matches!(inflated, Err(Inflate::TooMuch(TooMuch::NoRoom { .. }))), "{coding:?}");
        }
    }

    fn codings(values: &[&'static str]) -> Result<Codings, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("content-encoding", http::HeaderValue::from_static(value));
        }
        Codings::of(&headers, &http::header::CONTENT_ENCODING)
    }

    #[test]
    fn codings_are_read_as_people_write_them() {
        for gzip in [&["gzip"][..], &["GZIP"], &[" x-GZip "], &["identity, gzip"], &["gzip,"], &["identity", "gzip"]] {
            assert_eq!(codings(gzip).unwrap(), Codings([Coding::Gzip].into_iter().collect()), "{gzip:?}");
        }
        for none in [&[""][..], &[], &["Identity"], &["identity, identity"]] {
            assert!(codings(none).unwrap().is_identity(), "{none:?}");
        }
        assert_eq!(codings(&["Deflate , ZSTD"]).unwrap(), Codings([Coding::Deflate, Coding::Zstd].into_iter().collect()));
        let unknown = codings(&["gzip, br"]).unwrap_err();
        assert!(unknown.contains("`br`") && unknown.contains("zstd"), "{unknown}");
        assert!(codings(&["gzip,gzip,gzip,gzip,gzip"]).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn codings_are_undone_in_reverse_and_what_was_is_given_back() {
        let body = Bytes::from(body());
        let twice = Encoding::Zstd.deflate(Encoding::Gzip.deflate(body.clone()).unwrap()).unwrap();
        let mut scale = Scale::default();
        scale.hold(twice.len()).unwrap();
        let held = Held { weight: twice.len(), bytes: twice };
        let whole = codings(&["gzip, zstd"]).unwrap().inflate(held, LIMITS, &mut scale).await.unwrap();
        assert_eq!((whole.bytes, whole.weight), (body, scale.held));
    }
}
