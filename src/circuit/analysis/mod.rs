//! What analyzers compute: each a pure function of few numbers, with its source.

pub mod clock_alignment;
pub mod regularity;
pub mod trend;
