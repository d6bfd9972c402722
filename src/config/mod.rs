//! YAML to located values: files are read, expanded and merged here, and every problem is reported with the
//! file, the line and the key it stands at. This room knows no component: what a section may hold is told to it
//! as a JSON Schema made from the component's own `Config` struct.

mod check;
mod expand;
mod load;
mod locate;
mod mark;
mod origin;
mod problem;
mod read;
mod value;

pub use load::{Document, Source, load};
pub use problem::{Path, Problem, Severity, nearest};
pub use value::{Secret, Size, Span};

/// The JSON Schema of a configuration struct.
pub fn schema_of<T: schemars::JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}
