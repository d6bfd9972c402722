//! What works on telemetry on its way.

pub mod batch;
pub mod circuit_window;
pub mod memory_limiter;
