//! The command line.

mod components;
mod lines;
mod problems;
mod replay;
mod start;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{config::Source, service};

/// What is run when no configuration is given.
const DEFAULT: Source = Source::Text("config/fuseboard.yaml (built in)", include_str!("../../config/fuseboard.yaml"));

/// An OpenTelemetry collector for circuit breakers: OTLP spans in; circuit windows, events and metrics out.
#[derive(Debug, Parser)]
#[command(name = "fuseboard", version, args_conflicts_with_subcommands = false)]
struct Cli {
    #[command(flatten)]
    configuration: Configuration,
    /// What to do; without it, Fuseboard runs.
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration comes from.
#[derive(Args, Debug)]
struct Configuration {
    /// Configuration file; several are merged, later ones override earlier ones [default: a built-in one]
    #[arg(short, long = "config", value_name = "FILE", global = true, env = "FUSEBOARD_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Sets one key, after all files; may be given several times
    #[arg(short, long = "set", value_name = "KEY.PATH=VALUE", global = true)]
    set: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and say all that is wrong with it
    Validate,
    /// List every component with its keys and defaults
    Components {
        /// Only these
        names: Vec<String>,
    },
    /// Print the configuration as it takes effect, defaults filled in and secrets redacted
    PrintConfig,
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Run recorded spans through `circuit_window` by their own time, and print what was found
    Replay(replay::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Configuration {
    fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = self.config.iter().cloned().map(Source::File).collect();
        if sources.is_empty() {
            sources.push(DEFAULT);
        }
        sources.extend(self.set.iter().cloned().map(Source::Set));
        sources
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => start::run(cli.configuration.sources()),
        Some(Command::Validate) => start::validate(&cli.configuration.sources()),
        Some(Command::PrintConfig) => start::print_config(&cli.configuration.sources()),
        Some(Command::Components { names }) => components::print(&names),
        Some(Command::Replay(arguments)) => replay::run(&cli.configuration.sources(), &arguments),
        Some(Command::Schema) => print(&format!("{:#}", service::schema())),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "fuseboard", &mut io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Told) => ExitCode::FAILURE,
        Err(Failed::Because(reason)) => {
            problems::tell(&format!("error: {reason}"));
            ExitCode::FAILURE
        }
    }
}

/// Why nothing was done.
enum Failed {
    /// For a reason that was told already.
    Told,
    /// For this one.
    Because(String),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

/// Writes to the standard output; a reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Failed> {
    use io::Write;
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("can't write to the standard output: {error}").into()),
        _ => Ok(()),
    }
}
