//! The domain: circuits, what tells them apart, their windows, their breakers and what those did.
//!
//! Knows no I/O: bytes of spans come in, closed buckets, events and totals come out.

pub mod bucket;
pub mod config;
pub mod event;
pub mod key;
pub mod sketch;
pub mod state;
pub mod totals;
pub mod window;
