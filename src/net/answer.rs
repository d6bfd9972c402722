//! Reads what backends answer, no more of it than anybody needs.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;

use super::{compression::Encoding, door::Limits, with_causes};

/// The most bytes of an answer that are kept, as sent and once more when decompressed; answers of OTLP are a few hundred.
pub(super) const KEPT_BYTES_MAX: usize = 4 << 20;

/// An answer's body, as far as it was read.
pub(super) struct Read {
    /// Its bytes, or why there are none.
    pub(super) bytes: Result<Bytes, String>,
    /// What stood behind them.
    pub(super) trailers: HeaderMap,
}

/// Reads a body, at most this many bytes of it. Of one that is longer than [`KEPT_BYTES_MAX`] nothing is kept.
pub(super) async fn read<B>(body: &mut B, most: usize) -> Read
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + 'static,
{
    let mut kept = BytesMut::new();
    let mut length = 0;
    let mut trailers = HeaderMap::new();
    while length <= most
        && let Some(frame) = body.frame().await
    {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return Read { bytes: Err(format!("it broke off: {}", with_causes(&error))), trailers },
        };
        match frame.into_data() {
            Ok(data) => {
                length += data.len();
                if length <= KEPT_BYTES_MAX {
                    kept.extend_from_slice(&data);
                } else {
                    kept = BytesMut::new();
                }
            }
            Err(other) => trailers = other.into_trailers().unwrap_or_default(),
        }
    }
    let too_long = || format!("it is longer than {} MiB", KEPT_BYTES_MAX >> 20);
    Read { bytes: if length > KEPT_BYTES_MAX { Err(too_long()) } else { Ok(kept.freeze()) }, trailers }
}

/// Decompresses what was compressed by the encoding of this name.
///
/// # Errors
/// For people: why it can't be.
pub(super) fn inflated(bytes: &Bytes, encoding: &str) -> Result<Bytes, String> {
    let known = Encoding::named(encoding).ok_or_else(|| format!("its encoding `{encoding}` is not known"))?;
    known.inflate(bytes, Limits { request_bytes: KEPT_BYTES_MAX }).map_err(|error| format!("it can't be decompressed as {encoding}: {error:?}"))
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_of_an_answer_that_is_too_long() {
        let long = Bytes::from(vec![0; KEPT_BYTES_MAX + 1]);
        let read = read(&mut Full::new(long), usize::MAX).await;
        assert_eq!(read.bytes, Err("it is longer than 4 MiB".to_owned()));
    }

    #[test]
    fn answers_are_decompressed_as_far_as_they_may_grow() {
        let small = Bytes::from_static(b"answer");
        let bomb = Bytes::from(vec![0; KEPT_BYTES_MAX + 1]);
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let name = encoding.header().unwrap();
            assert_eq!(inflated(&encoding.deflate(small.clone()).unwrap(), name).unwrap(), small);
            assert!(inflated(&encoding.deflate(bomb.clone()).unwrap(), name).is_err(), "{name}");
            assert!(inflated(&small, name).is_err(), "{name}");
        }
        assert!(inflated(&small, "snappy").unwrap_err().contains("snappy"));
    }
}
