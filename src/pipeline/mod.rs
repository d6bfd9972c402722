//! The contracts every component keeps: what travels, who takes it, how a component lives, and what it is told.
//!
//! A [`Payload`] is handed on in two steps, so that it reaches all or none of its exporters: [`Consumer::admit`]
//! finds room everywhere and may refuse; [`Admission::commit`] then can't fail.

mod component;
mod consumer;
mod fan_out;
mod intake;
mod ledger;
mod payload;
mod queue_room;

pub use component::{
    Build, Connector, Exporter, Factory, Fault, Faults, Instance, Lifecycle, Made, Outlets, Parsed, Processor, Receiver, Role, Section, Setup,
};
pub use consumer::{Admission, Admit, Consumer, Future, Refusal};
pub use fan_out::{Discard, FanOut, Outlet};
pub use intake::{Intake, Partial, Rejection};
pub use ledger::{Arriving, Charge, Ledger, OverLimit};
pub use payload::{Part, Payload};
pub use queue_room::QueueRoom;

/// The target of Fuseboard's own spans.
pub const TRACES: &str = "fuseboard::traces";
