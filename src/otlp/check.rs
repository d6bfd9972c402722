use bytes::Bytes;

use super::{Malformed, Signal, edit, trace};

/// A request whose structure is sound, without the items that must not be in it.
#[derive(Debug)]
pub struct Checked {
    /// The request: as it came, unless something had to be left out.
    pub bytes: Bytes,
    /// Spans, data points or log records in it.
    pub items: usize,
    /// Items that were left out.
    pub rejected: usize,
    /// Why they were, for their sender; empty if none was.
    pub message: String,
}

/// Checks a serialised request. Spans without valid ids are left out.
///
/// # Errors
/// The bytes are no request of this signal.
pub fn check(signal: Signal, bytes: Bytes) -> Result<Checked, Malformed> {
    if signal != Signal::Traces {
        let items = signal.count(&bytes)?;
        return Ok(Checked { bytes, items, rejected: 0, message: String::new() });
    }
    let census = trace::census(&bytes)?;
    let (invalid, all) = (census.invalid_ids, census.spans);
    if invalid == 0 {
        return Ok(Checked { bytes, items: all, rejected: 0, message: String::new() });
    }
    let rest = edit::without_invalid_ids(&bytes)?.into();
    let message = format!("{invalid} of {all} spans have no valid trace id (16 bytes) or span id (8 bytes), or one that is all zero");
    Ok(Checked { bytes: rest, items: all - invalid, rejected: invalid, message })
}
