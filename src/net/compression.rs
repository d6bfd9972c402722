use std::io::{self, Read};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::door::{Grow, Limits, TooMuch};

/// How the body of a request is compressed.
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
    /// It is not what its encoding says.
    Broken(io::Error),
}

/// The largest window that is accepted in a zstd stream, as its base-2 logarithm: 8 MiB, what RFC 8878 asks
/// decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Bytes that are decompressed before the limits are looked at again.
const STEP: usize = 64 << 10;

impl Encoding {
    /// Every one a server offers.
    pub const ACCEPTED: &'static str = "gzip,zstd,identity";

    /// By its HTTP or gRPC name.
    pub fn named(name: &str) -> Option<Self> {
        match name.trim() {
            "" | "identity" | "none" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
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

    /// Decompresses, stopping at the limit while at it.
    ///
    /// # Errors
    /// The data is broken or grows too large.
    pub fn inflate(self, compressed: &Bytes, limits: Limits, grow: Grow<'_>) -> Result<Bytes, Inflate> {
        let body: &[u8] = compressed;
        match self {
            Self::None => Ok(compressed.clone()),
            Self::Gzip => read_all(flate2::read::MultiGzDecoder::new(body), limits, grow),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(body).map_err(Inflate::Broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(Inflate::Broken)?;
                read_all(decoder, limits, grow)
            }
        }
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

fn read_all(mut decoder: impl Read, limits: Limits, grow: Grow<'_>) -> Result<Bytes, Inflate> {
    let mut out = Vec::new();
    loop {
        let before = out.len();
        let taken = decoder.by_ref().take(STEP as u64).read_to_end(&mut out).map_err(Inflate::Broken)?;
        if taken == 0 {
            return Ok(out.into());
        }
        if out.len() > limits.request_bytes {
            return Err(Inflate::TooMuch(TooMuch::Request(limits.request_bytes)));
        }
        grow(out.len() - before).map_err(|reason| Inflate::TooMuch(TooMuch::Memory(reason)))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deflated_inflates_to_the_same() {
        let body = Bytes::from(vec![7; 300_000]);
        for encoding in [Encoding::None, Encoding::Gzip, Encoding::Zstd] {
            let small = encoding.deflate(body.clone()).unwrap();
            let mut held = 0;
            let mut grow = |bytes| {
                held += bytes;
                Ok(())
            };
            assert_eq!(encoding.inflate(&small, Limits { request_bytes: 300_000 }, &mut grow).unwrap(), body);
            assert!(encoding == Encoding::None || held == 300_000);
        }
    }

    #[test]
    fn a_bomb_is_stopped_while_it_grows() {
        let bomb = Encoding::Zstd.deflate(Bytes::from(vec![0; 64 << 20])).unwrap();
        let mut held = 0;
        let mut grow = |bytes| {
            held += bytes;
            Ok(())
        };
        let stopped = Encoding::Zstd.inflate(&bomb, Limits { request_bytes: 1 << 20 }, &mut grow);
        assert!(matches!(stopped, Err(Inflate::TooMuch(TooMuch::Request(_)))));
        assert!(held <= 2 << 20, "{held}");
    }
}
