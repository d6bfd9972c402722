//! Everything that touches a socket. Every limit on what comes in lives here.
//!
//! Servers: [`Listeners`] hold sockets open across reloads, [`serve`] runs their connections, [`grpc`] and
//! [`http`] frame requests and answers. Clients: [`channel`] for gRPC, [`web`] for HTTP; both connect by way of the
//! proxies that the environment names.

mod answer;
mod buffer;
pub mod channel;
mod compression;
mod connections;
mod connector;
mod control;
pub mod descriptors;
mod door;
pub mod grpc;
pub mod http;
mod listeners;
mod proxies;
mod serve;
mod tls;
mod turns;
pub mod web;

pub use buffer::{Account, Held};
pub use compression::{Codings, Encoding, Inflate};
pub use door::{Answer, Limits, TooMuch, drain, read};
pub use listeners::Listeners;
pub use serve::{ConnectionLimits, serve};
pub use tls::ClientTls;
pub use turns::{Work, in_turn};

/// An error with all that caused it: "transport error" alone helps nobody.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
