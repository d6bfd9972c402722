//! The command line.

mod components;
mod lines;
mod problems;
mod replay;
mod rules;
mod start;
mod truth;

use std::{env, ffi::OsStr, io, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{config::Source, service};

/// What is run when no configuration is given.
const DEFAULT: Source = Source::Text("config/fuseboard.yaml (built in)", include_str!("../../config/fuseboard.yaml"));

/// The variable that names configuration files where the command line names none.
const CONFIG_VARIABLE: &str = "FUSEBOARD_CONFIG";

/// The exit code for a configuration that is wrong: `EX_USAGE` of `sysexits.h`. What fails later exits with 1, and a
/// command line that can't be read with 2, as `clap` has it.
const EXIT_CONFIGURATION: u8 = 64;

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

const FILES: &str = "Configuration file; several are merged, later ones override earlier ones [default: a built-in one] [env: FUSEBOARD_CONFIG]";

/// Where the configuration comes from. It may be said before a subcommand and behind it.
// `global = true` of clap would keep only what stands behind, and `env` would read the variable in both places.
#[derive(Args, Debug)]
struct Configuration {
    #[arg(short, long = "config", value_name = "FILE", value_delimiter = ',', help = FILES)]
    config: Vec<PathBuf>,
    /// Sets one key, after all files; may be given several times. No secrets: every user of the machine can read them here
    #[arg(short, long = "set", value_name = "KEY.PATH=VALUE")]
    set: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and say all that is wrong with it
    Validate(Configuration),
    /// List every component with its keys and defaults
    Components {
        /// Only these
        names: Vec<String>,
    },
    /// Print the configuration as it takes effect, defaults filled in and secrets redacted
    PrintConfig(Configuration),
    /// List the texts by which breakers are recognised, in the order in which they count
    Rules(Configuration),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Run recorded spans through `circuit_window` by their own time, and print what was found
    Replay {
        #[command(flatten)]
        configuration: Configuration,
        #[command(flatten)]
        arguments: replay::Arguments,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Configuration {
    /// What was said here, then what was said behind the subcommand.
    fn then(mut self, behind: Self) -> Self {
        self.config.extend(behind.config);
        self.set.extend(behind.set);
        self
    }

    fn sources(self) -> Vec<Source> {
        self.sources_or(env::var_os(CONFIG_VARIABLE).as_deref())
    }

    /// The sources in their order; files that the variable names stand in for files that were not given.
    fn sources_or(self, variable: Option<&OsStr>) -> Vec<Source> {
        let mut files = self.config;
        if files.is_empty() {
            let names = variable.map(OsStr::to_string_lossy).unwrap_or_default();
            files.extend(names.split(',').filter(|name| !name.is_empty()).map(PathBuf::from));
        }
        let mut sources: Vec<Source> = files.into_iter().map(Source::File).collect();
        if sources.is_empty() {
            sources.push(DEFAULT);
        }
        sources.extend(self.set.into_iter().map(Source::Set));
        sources
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let Cli { configuration, command } = Cli::parse();
    let done = match command {
        None => start::run(configuration.sources()),
        Some(Command::Validate(behind)) => start::validate(&configuration.then(behind).sources()),
        Some(Command::PrintConfig(behind)) => start::print_config(&configuration.then(behind).sources()),
        Some(Command::Components { names }) => components::print(&names),
        Some(Command::Replay { configuration: behind, arguments }) => replay::run(&configuration.then(behind).sources(), &arguments),
        Some(Command::Rules(behind)) => rules::print(&configuration.then(behind).sources()),
        Some(Command::Schema) => print(&format!("{:#}", service::schema())),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fuseboard", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Told) => ExitCode::from(EXIT_CONFIGURATION),
        Err(Failed::Because(reason)) => {
            problems::tell_last(format!("error: {reason}"));
            ExitCode::FAILURE
        }
    }
}

/// Why nothing was done.
enum Failed {
    /// The configuration is wrong; all that is wrong with it was told already.
    Told,
    /// It could not start, or could not go on, for this reason.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The sources of a command line, as short text.
    fn sources(line: &str, variable: Option<&str>) -> Vec<String> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let configuration = match cli.command {
            Some(Command::Validate(behind) | Command::PrintConfig(behind) | Command::Replay { configuration: behind, .. }) => {
                cli.configuration.then(behind)
            }
            _ => cli.configuration,
        };
        let short = |source: Source| match source {
            Source::File(path) => path.display().to_string(),
            Source::Text(..) => "built in".to_owned(),
            Source::Set(assignment) => assignment,
        };
        configuration.sources_or(variable.map(OsStr::new)).into_iter().map(short).collect()
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn configuration_may_stand_before_a_subcommand_and_behind_it() {
        assert_eq!(sources("fuseboard -c a.yaml validate -c b.yaml", None), ["a.yaml", "b.yaml"]);
        assert_eq!(sources("fuseboard -s a=1 -c a.yaml,b.yaml print-config -s b=2", None), ["a.yaml", "b.yaml", "a=1", "b=2"]);
        assert_eq!(sources("fuseboard replay -c a.yaml -s a=1,2 spans.jsonl", None), ["a.yaml", "a=1,2"]);
        assert_eq!(sources("fuseboard -c a.yaml", None), ["a.yaml"]);
        assert!(Cli::try_parse_from(["fuseboard", "components", "-c", "a.yaml"]).is_err());
    }

    #[test]
    fn the_variable_stands_in_for_files_that_are_not_given() {
        assert_eq!(sources("fuseboard validate", Some("a.yaml,b.yaml")), ["a.yaml", "b.yaml"]);
        assert_eq!(sources("fuseboard validate -c c.yaml", Some("a.yaml")), ["c.yaml"]);
        assert_eq!(sources("fuseboard -s a=1", Some("")), ["built in", "a=1"]);
        assert_eq!(sources("fuseboard", None), ["built in"]);
    }

    #[test]
    fn help_is_about_the_subcommand() {
        let command = Cli::command();
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(about(&command).starts_with("An OpenTelemetry collector"));
        assert!(about(command.find_subcommand("validate").unwrap()).starts_with("Check the configuration"));
        assert!(about(command.find_subcommand("replay").unwrap()).starts_with("Run recorded spans"));
    }
}
