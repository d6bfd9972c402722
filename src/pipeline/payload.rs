use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::ledger::Charge;
use crate::otlp::Signal;

/// One request as its sender wrote it: a serialised `Export…ServiceRequest` in protobuf.
#[derive(Clone, Debug)]
pub struct Part {
    /// The request's bytes.
    pub bytes: Bytes,
    /// Spans, data points or log records in it.
    pub items: usize,
    /// What it weighs in the ledger until the last clone of it is gone.
    charge: Option<Arc<Charge>>,
}

impl Part {
    /// A part that no ledger knows: derived data of bounded size, tests.
    pub const fn new(bytes: Bytes, items: usize) -> Self {
        Self { bytes, items, charge: None }
    }

    /// A part whose bytes are accounted for.
    pub fn charged(bytes: Bytes, items: usize, charge: Charge) -> Self {
        Self { bytes, items, charge: Some(Arc::new(charge)) }
    }

    /// The same request with other bytes, under the same charge.
    #[must_use]
    pub fn with(&self, bytes: Bytes, items: usize) -> Self {
        Self { bytes, items, charge: self.charge.clone() }
    }
}

/// What travels through a pipeline: one or more requests of one signal.
///
/// Two serialised requests one behind the other are a valid request too, so a batch is a list of parts that is
/// put together only when it is sent; a refused batch can be taken apart again.
#[derive(Clone, Debug)]
pub struct Payload {
    /// What kind of telemetry this is.
    pub signal: Signal,
    /// The requests, in order of arrival.
    pub parts: SmallVec<[Part; 1]>,
}

impl Payload {
    /// A payload of one request.
    pub fn new(signal: Signal, part: Part) -> Self {
        Self { signal, parts: SmallVec::from_buf([part]) }
    }

    /// Spans, data points or log records in all parts.
    pub fn items(&self) -> usize {
        self.parts.iter().map(|part| part.items).sum()
    }

    /// Bytes of all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.bytes.is_empty())
    }

    /// A charge for so many bytes that are held while this is sent, beside what it weighs itself; `None` if no ledger knows
    /// of it.
    pub fn beside(&self, bytes: usize) -> Option<Charge> {
        self.parts.iter().find_map(|part| part.charge.as_ref()).map(|charge| charge.beside(bytes))
    }

    /// All parts as one request; copies only if there are several.
    pub fn joined(&self) -> Bytes {
        match self.parts.as_slice() {
            [only] => only.bytes.clone(),
            parts => {
                let mut joined = BytesMut::with_capacity(self.len());
                parts.iter().for_each(|part| joined.extend_from_slice(&part.bytes));
                joined.freeze()
            }
        }
    }
}
