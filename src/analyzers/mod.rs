//! What looks at windows: each says what is to be looked for, and the `circuit_window` that owns the windows looks.

pub mod anomaly;
pub mod health;
pub mod pattern;
pub mod resource;
pub mod trend;
