use std::{sync::Arc, time::Duration};

use opentelemetry::metrics::Meter;
use serde_json::Value as Json;
use serde_yaml::Value;

use super::{
    consumer::{Consumer, Future},
    fan_out::Outlet,
    ledger::Ledger,
    payload::Payload,
    queue_room::QueueRoom,
};
use crate::{circuit::analysis::config::AnalysisConfig, clock::Clock, net::Listeners, otlp::Signal};

/// The sections of a configuration that define components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// What takes telemetry in.
    Receivers,
    /// What works on it in between.
    Processors,
    /// What looks at windows.
    Analyzers,
    /// What sends it on.
    Exporters,
}

impl Section {
    /// All of them, in the order of the way.
    pub const ALL: [Self; 4] = [Self::Receivers, Self::Processors, Self::Analyzers, Self::Exporters];

    /// The key in the YAML.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receivers => "receivers",
            Self::Processors => "processors",
            Self::Analyzers => "analyzers",
            Self::Exporters => "exporters",
        }
    }
}

/// A place where a component may stand in a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// The list of the pipeline it may stand in.
    pub section: Section,
    /// The signals of such pipelines.
    pub signals: &'static [Signal],
}

/// Everything that is known of a kind of component before one is built.
pub struct Factory {
    /// The section it is defined in.
    pub section: Section,
    /// Its name in component ids.
    pub name: &'static str,
    /// Names it is accepted under too.
    pub aliases: &'static [&'static str],
    /// One line for people.
    pub about: &'static str,
    /// Where it may stand.
    pub roles: &'static [Role],
    /// Whether one that runs can take changed settings, by [`Lifecycle::reconfigure`].
    pub in_place: bool,
    /// JSON Schema of its configuration, with defaults.
    pub schema: fn() -> Json,
    /// Checks what a user wrote (already held against the schema) and fills in the defaults.
    pub parse: fn(Value) -> Result<Parsed, Faults>,
}

/// All that is wrong with what a user wrote for a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key within the component, dots between levels; empty for the component itself.
    pub key: String,
    /// What is wrong and what would be right, for people.
    pub message: String,
}

impl Faults {
    /// Notes what is wrong, if it is.
    pub fn note<T>(&mut self, key: &str, found: Result<T, String>) -> Option<T> {
        found.map_err(|message| self.0.push(Fault { key: key.to_owned(), message })).ok()
    }

    /// What was made, if nothing was wrong.
    ///
    /// # Errors
    /// What was wrong.
    pub fn unless_any<T>(self, made: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(made) } else { Err(self) }
    }
}

impl From<String> for Faults {
    /// Something wrong with the component as a whole.
    fn from(message: String) -> Self {
        Self(vec![Fault { key: String::new(), message }])
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |fault: &Fault| if fault.key.is_empty() { fault.message.clone() } else { format!("{}: {}", fault.key, fault.message) };
        f.write_str(&self.0.iter().map(each).collect::<Vec<_>>().join("; "))
    }
}

/// Makes a component; an error is for people.
pub type Build = Box<dyn FnOnce(&Setup) -> Result<Instance, String> + Send>;

/// A checked configuration and what can be made of it.
pub struct Parsed {
    /// With defaults filled in, secrets redacted.
    pub effective: Json,
    /// Worth saying, stops nothing.
    pub warnings: Vec<String>,
    /// Addresses it will listen on.
    pub listens_on: Vec<String>,
    /// Addresses it will send to.
    pub sends_to: Vec<String>,
    /// The most bytes that the process may hold, where it sets a limit to that.
    pub memory_limit: Option<usize>,
    /// Whether it has a queue whose size is its part of the [`QueueRoom`].
    pub shares_queue_room: bool,
    /// What comes of it.
    pub made: Made,
}

/// What comes of a checked configuration.
pub enum Made {
    /// A component; making it has no effect outside it yet.
    Component(Build),
    /// Something that is looked for by whatever owns the windows.
    Analysis(AnalysisConfig),
}

impl Parsed {
    /// A component that listens nowhere and sends nowhere.
    ///
    /// # Errors
    /// The configuration can't be shown.
    pub fn new<C: serde::Serialize + Send + 'static>(
        config: C,
        build: impl FnOnce(C, &Setup) -> Result<Instance, String> + Send + 'static,
    ) -> Result<Self, Faults> {
        let effective = serde_json::to_value(&config).map_err(|error| error.to_string())?;
        Ok(Self::made(effective, Made::Component(Box::new(|setup| build(config, setup)))))
    }

    /// An analyzer.
    ///
    /// # Errors
    /// The configuration can't be shown.
    pub fn looking_for<C: serde::Serialize>(config: C, analysis: AnalysisConfig) -> Result<Self, Faults> {
        let effective = serde_json::to_value(&config).map_err(|error| error.to_string())?;
        Ok(Self::made(effective, Made::Analysis(analysis)))
    }

    fn made(effective: Json, made: Made) -> Self {
        let (warnings, listens_on, sends_to) = (Vec::new(), Vec::new(), Vec::new());
        Self { effective, warnings, listens_on, sends_to, memory_limit: None, shares_queue_room: false, made }
    }

    /// From what a user wrote.
    ///
    /// # Errors
    /// It is no such configuration.
    pub fn read<C: serde::de::DeserializeOwned>(value: Value) -> Result<C, Faults> {
        serde_yaml::from_value(value).map_err(|error| error.to_string().into())
    }
}

/// What a component is given when it is built.
#[derive(Clone)]
pub struct Setup {
    /// Its id, `type/name`.
    pub id: String,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What the process holds.
    pub ledger: Arc<Ledger>,
    /// What queues may hold.
    pub queue_room: Arc<QueueRoom>,
    /// Sockets that stay open across reloads.
    pub listeners: Arc<Listeners>,
    /// For Fuseboard's own metrics.
    pub meter: Meter,
}

/// A component, by what it can do.
#[derive(Clone)]
pub enum Instance {
    /// Takes telemetry in.
    Receiver(Arc<dyn Receiver>),
    /// Works on it.
    Processor(Arc<dyn Processor>),
    /// A processor that is a receiver of what it derived in other pipelines.
    Connector(Arc<dyn Connector>),
    /// Sends it on.
    Exporter(Arc<dyn Exporter>),
}

/// How every component lives.
pub trait Lifecycle: Send + Sync {
    /// Ends what it does, with everything in flight handed on, by the deadline at the latest. What could not be
    /// handed on is counted and logged.
    fn shutdown(&self, within: Duration) -> Future<'_, ()>;

    /// Takes changed settings in place, where the factory says that this kind can.
    ///
    /// # Errors
    /// For people: why it keeps its old ones.
    fn reconfigure(&self, value: &Value) -> Result<(), String> {
        let _ = value;
        Err("can't be changed while it runs".to_owned())
    }
}

/// Where a receiver hands on what it has, one outlet a signal.
#[derive(Clone, Debug, Default)]
pub struct Outlets {
    /// For spans.
    pub traces: Arc<Outlet>,
    /// For metrics.
    pub metrics: Arc<Outlet>,
    /// For logs.
    pub logs: Arc<Outlet>,
}

impl Outlets {
    /// The outlet for a signal.
    pub const fn of(&self, signal: Signal) -> &Arc<Outlet> {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
        }
    }
}

/// Takes telemetry in.
pub trait Receiver: Lifecycle {
    /// Begins to receive.
    ///
    /// # Errors
    /// For people: what keeps it from starting.
    fn start(&self, outlets: Outlets) -> Future<'_, Result<(), String>>;
}

/// Works on telemetry on its way.
pub trait Processor: Lifecycle {
    /// The consumer that stands before `next` in one pipeline; its state is the processor's.
    fn attach(&self, signal: Signal, next: Arc<dyn Consumer>) -> Arc<dyn Consumer>;
}

/// A processor that is a receiver of what it derived, in other pipelines.
pub trait Connector: Processor + Receiver {
    /// Looks for this in its windows from now on.
    fn look_for(&self, analysis: AnalysisConfig);
}

/// Sends telemetry on.
pub trait Exporter: Lifecycle + Consumer {
    /// Begins to send.
    ///
    /// # Errors
    /// For people: what keeps it from starting.
    fn start(&self) -> Future<'_, Result<(), String>>;

    /// Ends soon, within this time at the most: another one takes its place, and gets what this one has not sent and
    /// what still comes to it.
    fn hand_over(&self, heir: Arc<dyn Exporter>, within: Duration) -> Future<'_, ()>;

    /// Takes over what the one before has not sent, though that may be more than there is room for.
    fn inherit(&self, unsent: Vec<Payload>);
}

impl Instance {
    /// Its life.
    pub fn lifecycle(&self) -> &dyn Lifecycle {
        match self {
            Self::Receiver(receiver) => receiver.as_ref(),
            Self::Processor(processor) => processor.as_ref(),
            Self::Connector(connector) => connector.as_ref(),
            Self::Exporter(exporter) => exporter.as_ref(),
        }
    }
}
