use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use opentelemetry::metrics::{Meter, MeterProvider, noop::NoopMeterProvider};
use prost::Message;

use super::{Failed, lines, problems, start, truth};
use crate::{
    config::Source,
    net::Limits,
    otlp::{Signal, json},
    pipeline::Section,
    processors::circuit_window::{Ahead, Replay, Replayed, Replayings},
    receivers::otlp_file::{Content, Next, Request, Requests, is_of_content},
    service::Plan,
};

/// What to replay, and what to say of it.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Recordings: OTLP as JSON or length-prefixed protobuf, downloads of Tempo, Grafana or Jaeger; plain, gzip or zstd; `-` is the standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to say what was found
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Write the metrics that would have been sent, one line of OTLP/JSON a request
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Hold what was found against a breaker's own log, JSON lines of `t_ns`, `name`, `from`, `to` and, if known, `instance`,
    /// `callee`, `breaker`, `aliases`, `service`, `unseen`; exits with 1 if it falls short
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// Other names of callees in the spans, as a JSON object of lists [default: `aliases.json` beside the log, if there is one]
    #[arg(long, value_name = "FILE", requires = "truth")]
    truth_map: Option<PathBuf>,
    /// Judge the circuits of this service only [default: those that the log names, else all]
    #[arg(long, value_name = "SERVICE", requires = "truth")]
    truth_caller: Option<String>,
    /// The `circuit_window` of the configuration to replay with, where there are several
    #[arg(long, value_name = "ID")]
    processor: Option<String>,
}

/// How to say what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line: what breakers did and what analyzers found, each in order of time, then the final state of each circuit
    Json,
    /// For reading; with `--truth` only how well it holds
    Table,
}

/// The longest request in a recording.
const LIMITS: Limits = Limits { request_bytes: 128 << 20 };

/// Replays recordings by their own time.
pub(super) fn run(sources: &[Source], arguments: &Arguments) -> Result<(), Failed> {
    let plan = start::plan(sources)?;
    let (id, value) = chosen(&plan, arguments.processor.as_deref())?;
    let meter: Meter = NoopMeterProvider::new().meter("fuseboard");
    let replay =
        Replay::new(value, plan.analysis(&id), meter, arguments.metrics.is_some()).map_err(|reason| format!("processors::{id}: {reason}"))?;
    let metrics = arguments.metrics.as_deref().map(create).transpose()?;
    let mut session = Session { replay, metrics, said: Said::default() };
    // One that is missing is told before the others are read, which may take long.
    for path in arguments.files.iter().filter(|path| **path != Path::new("-")) {
        path.metadata().map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for path in &arguments.files {
        session.read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    session.finish(arguments)
}

/// The processor to replay with, as it was written.
fn chosen(plan: &Plan, wanted: Option<&str>) -> Result<(String, serde_yaml::Value), String> {
    let mut there = plan.written(Section::Processors, "circuit_window");
    match wanted {
        Some(wanted) => there.into_iter().find(|(id, _)| id == wanted).ok_or_else(|| format!("no pipeline has a processor `{wanted}` of this kind")),
        None if there.len() > 1 => {
            let ids: Vec<String> = there.into_iter().map(|(id, _)| id).collect();
            Err(format!("there are several: choose with --processor one of {}", ids.join(", ")))
        }
        None => there.pop().ok_or_else(|| "no pipeline has a `circuit_window` to replay with".to_owned()),
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    File::create(path).map(BufWriter::new).map_err(|error| format!("{}: {error}", path.display()))
}

/// What was read, for the summary.
#[derive(Default)]
struct Said {
    requests: u64,
    /// Requests that are not spans.
    other: u64,
    broken: u64,
    /// Files with a part that can't be read.
    cut_off: u64,
}

struct Session {
    replay: Replay,
    metrics: Option<BufWriter<File>>,
    said: Said,
}

impl Session {
    fn read(&mut self, path: &Path) -> io::Result<()> {
        let (file, length): (Box<dyn Read + Send>, u64) = if path == Path::new("-") {
            (Box::new(io::stdin()), 0)
        } else {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            (Box::new(file), length)
        };
        let progress = progress(path, length);
        let Content { reader, compressed } = Content::of(progress.wrap_read(file))?;
        let mut requests = Requests::new(reader, LIMITS, Signal::Traces);
        loop {
            match requests.next(false) {
                Ok(Next::Request(request)) => self.feed(path, request)?,
                Ok(Next::Broken(reason)) => self.broken(path, &reason),
                Ok(Next::End) => break,
                // What was read of it counts, and there may be more files.
                Err(error) if is_of_content(&error) => {
                    let content = if compressed { " of its decompressed content" } else { "" };
                    self.said.cut_off += 1;
                    let (path, at) = (path.display(), requests.consumed());
                    problems::tell(&format!("warning: {path}: can't be read from byte {at}{content} on: {error}; what stands before it counts"));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn feed(&mut self, path: &Path, request: Request) -> io::Result<()> {
        self.said.requests += 1;
        if request.signal != Signal::Traces {
            self.said.other += 1;
            return Ok(());
        }
        if let Err(error) = self.replay.feed(request.bytes) {
            self.broken(path, &error.to_string());
        }
        self.write_metrics()
    }

    fn broken(&mut self, path: &Path, reason: &str) {
        self.said.broken += 1;
        problems::tell(&format!("warning: {}: left out: {reason}", path.display()));
    }

    fn write_metrics(&mut self) -> io::Result<()> {
        let Some(out) = &mut self.metrics else { return Ok(()) };
        for request in self.replay.take_metrics() {
            let line = json::from_protobuf(Signal::Metrics, &request.encode_to_vec()).map_err(io::Error::other)?;
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    fn finish(mut self, arguments: &Arguments) -> Result<(), Failed> {
        let Replayings { events, findings, services, together, ahead } = self.replay.finish();
        self.write_metrics()
            .and_then(|()| self.metrics.as_mut().map_or(Ok(()), Write::flush))
            .map_err(|error| format!("can't write metrics: {error}"))?;
        let settings = self.replay.settings();
        let mut circuits = Vec::new();
        self.replay.visit(&mut |circuit| circuits.push(lines::CircuitLine::of(circuit, settings.bucket_size(), settings.percentiles())));
        lines::absorb(&mut circuits);
        circuits.sort_by(|left, right| left.circuit.cmp(&right.circuit));
        let events: Vec<lines::EventLine> = events.iter().map(lines::EventLine::of).collect();
        let findings: Vec<lines::FindingLine> = findings.iter().map(lines::FindingLine::of).collect();
        let services: Vec<lines::ServiceLine> = services.iter().map(lines::ServiceLine::of).collect();
        let together: Vec<lines::TogetherLine> = together.iter().map(lines::TogetherLine::of).collect();
        let found = lines::Found { findings: &findings, services: &services, together: &together };
        let verdicts = match &arguments.truth {
            Some(path) => truth::hold(path, arguments.truth_map.as_deref(), arguments.truth_caller.as_deref(), &events)?,
            None => Vec::new(),
        };
        let mut out = BufWriter::new(io::stdout().lock());
        let written = match arguments.format {
            Format::Json => lines::write(&mut out, &events, &found, &circuits, &verdicts),
            Format::Table if !verdicts.is_empty() => truth::write(&mut out, &verdicts),
            Format::Table => lines::write_tables(&mut out, &events, &found, &circuits),
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(format!("can't write to the standard output: {error}").into()),
            _ => {}
        }
        for Ahead { sender, by } in ahead {
            let by = by as f64 / 1e9;
            problems::tell(&format!(
                "warning: the clock of {sender:?} is {by:.1} s ahead of the others': what it sent is from the future, and left out"
            ));
        }
        problems::tell(&self.said.summary(&self.replay.counted(), events.len(), findings.len() + services.len() + together.len(), circuits.len()));
        if self.said.requests == 0 && self.said.broken + self.said.cut_off > 0 {
            return Err("nothing in it is OTLP".to_owned().into());
        }
        if verdicts.iter().all(|verdict| verdict.holds) { Ok(()) } else { Err("what was found falls short of the truth".to_owned().into()) }
    }
}

impl Said {
    fn summary(&self, counted: &Replayed, events: usize, findings: usize, circuits: usize) -> String {
        let mut text = format!("{} spans in {} requests: {circuits} circuits, {events} events, {findings} findings", counted.spans, self.requests);
        for (count, what) in [
            (counted.late, "spans late"),
            (counted.future, "spans from the future"),
            (counted.invalid_ids, "spans without valid ids"),
            (self.broken, "requests broken"),
            (self.cut_off, "files not read to their end"),
            (self.other, "requests of other signals passed over"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        text
    }
}

/// A bar on a terminal, nothing elsewhere.
fn progress(path: &Path, length: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let bar = if length > 0 { ProgressBar::new(length) } else { ProgressBar::new_spinner() };
    bar.with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(path.display().to_string())
}
