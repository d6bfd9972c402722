//! Fuseboard: an OpenTelemetry collector for circuit breakers.
//!
//! The rooms of the house, from the ground up; a room uses only rooms above it in this list. How a span travels
//! through them is told in `ARCHITECTURE.md`.

pub mod clock;
pub mod config;
pub mod otlp;
pub mod net;
pub mod pipeline;
pub mod exporters;
pub mod receivers;
pub mod processors;
pub mod cli;
pub mod service;
pub mod telemetry;
