//! The domain: circuits, what tells them apart, their windows, their breakers and what those did.
//!
//! Knows no I/O: bytes of spans come in, closed buckets, events and totals come out.

pub mod analysis;
mod analyst;
pub mod answers;
pub mod bucket;
pub mod cascade;
#[expect(clippy::module_inception, reason = "a circuit is what the room is about")]
pub mod circuit;
pub mod collector;
pub mod config;
pub mod detect;
mod callees;
mod detection;
pub mod enrich;
pub mod event;
pub mod finding;
mod gateway;
pub mod inspect;
pub mod key;
pub mod meeting;
mod member;
pub mod newcomers;
mod paths;
pub mod pattern;
mod process;
pub mod room;
pub mod round;
mod rpc;
mod seats;
pub mod selection;
pub mod sent;
pub mod service;
mod sightings;
pub mod sketch;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
pub mod totals;
mod unnamed;
pub mod usages;
mod usual;
pub mod window;
