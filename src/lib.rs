//! Fuseboard: an OpenTelemetry collector for circuit breakers.
//!
//! The rooms of the house, from the ground up; a room uses only rooms above it in this list. How a span travels
//! through them is told in `ARCHITECTURE.md`.

pub mod clock;
pub mod foreign;
pub mod otlp;
pub mod config;
pub mod net;
pub mod circuit;
pub mod pipeline;
pub mod analyzers;
pub mod exporters;
pub mod processors;
pub mod receivers;
pub mod telemetry;
pub mod service;
pub mod cli;
