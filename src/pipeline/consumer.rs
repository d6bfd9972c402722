use std::{pin::Pin, time::Duration};

use super::payload::Payload;

/// A future that can be held behind a trait object.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// What [`Consumer::admit`] returns.
pub type Admit<'a> = Future<'a, Result<Box<dyn Admission>, Refusal>>;

/// Why a payload was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It will never be taken: sending it again is of no use.
    #[error("{reason}")]
    Permanent {
        /// For the sender and the log.
        reason: String,
    },
    /// It may be taken later.
    #[error("{reason}")]
    Retryable {
        /// For the sender and the log.
        reason: String,
        /// How long to wait at least.
        after: Option<Duration>,
    },
}

/// Takes payloads.
pub trait Consumer: Send + Sync {
    /// Finds room for a payload here and everywhere behind here, and changes nothing yet.
    ///
    /// # Errors
    /// The future gives the refusal of the first that has no room.
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a>;
}

/// Room that was found for one payload; given back when dropped without [`commit`](Self::commit).
pub trait Admission: Send {
    /// Hands over the payload that was admitted. Can't fail and doesn't wait.
    fn commit(self: Box<Self>, payload: Payload);
}
