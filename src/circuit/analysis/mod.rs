//! What analyzers compute: each a pure function of few numbers, with its source.

pub mod anomaly;
mod baseline;
pub mod chart;
pub mod clock_alignment;
pub mod config;
pub mod evidence;
pub mod flapping;
pub mod gauge;
pub mod pressure;
pub mod regularity;
pub mod series;
pub mod trend;
pub mod zscore;
