//! What takes telemetry in.

pub mod otlp;
pub mod otlp_file;
