//! What works on telemetry on its way.

pub mod batch;
pub mod memory_limiter;
