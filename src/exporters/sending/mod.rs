//! The way from a pipeline to a backend: queue, batch, send, try again.

mod config;
mod queue;
mod worker;

pub(super) use config::{RetryOnFailure, SendingQueue};
pub(super) use worker::{Failure, Sender, Sending, Sent};
