use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::settings::{Encoding, Level, Logs};

/// Begins to log to the standard error output. `RUST_LOG` overrides the level.
pub(super) fn start(settings: &Logs) -> Result<(), String> {
    let level = match settings.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    // Libraries speak of themselves only when something is wrong.
    let usual = || EnvFilter::try_new(format!("warn,fuseboard={level}")).map_err(|error| error.to_string());
    let filter = match std::env::var("RUST_LOG") {
        Ok(wanted) => EnvFilter::try_new(&wanted).map_err(|error| format!("RUST_LOG `{wanted}`: {error}"))?,
        Err(_) => usual()?,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    let started = match settings.encoding {
        Encoding::Console => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Encoding::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("can't begin to log: {error}"))
}
