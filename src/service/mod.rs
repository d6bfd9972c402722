//! Builds the pipelines from the configuration, starts them from the sinks up, stops them from the sources down,
//! and reloads them.

mod counted;
mod effective;
mod elsewhere;
mod graph;
mod plan;
mod registry;
mod run;
mod schema;
mod settings;

pub use plan::{Plan, plan};
pub use registry::FACTORIES;
pub use run::{Reload, run};
pub use schema::schema;
