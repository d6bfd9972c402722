//! OTLP as bytes: the wire format is the data model.
//!
//! [`check`](fn@check) holds a serialised request against the shapes of its messages, all the way down: what it lets in is
//! what `prost` decodes. [`trace`] walks a request of spans that was let in and shows what it passes to a visitor; nothing
//! is decoded that nobody reads. [`edit`] drops spans or adds to them without touching the rest. [`json`] turns OTLP/JSON
//! into protobuf at the door, and back where a person or a file wants it.

mod check;
pub mod edit;
pub mod json;
mod shape;
mod signal;
pub mod trace;
mod value;
pub mod wire;

pub use check::{Checked, check};
pub use signal::Signal;
pub use value::Value;
pub use wire::Malformed;
