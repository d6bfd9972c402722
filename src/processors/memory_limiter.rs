//! `memory_limiter`: refuses telemetry while too much is held.
//!
//! What is in flight, queued and held by windows, and the memory it takes, is known (see [`Ledger`]), so the limit is
//! compared with that and not with a guess from the resident set. Above the limit the door lets no byte in; above the limit
//! less `spike_limit_mib` requests that are in already are refused here.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    config::{Span, schema_of},
    otlp::Signal,
    pipeline::{Admit, Consumer, Factory, Faults, Future, Instance, Ledger, Lifecycle, Parsed, Payload, Processor, Refusal, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Accepted as the Collector has it; without effect, since what is held is known at any moment.
    check_interval: Span,
    /// The most that may be held, in MiB. Give this or `limit_percentage`.
    limit_mib: usize,
    /// How far below the limit refusing begins, in MiB; 20 % of the limit if not written.
    spike_limit_mib: usize,
    /// The most that may be held, in percent of the machine's (or the container's) memory.
    #[schemars(range(max = 100))]
    limit_percentage: usize,
    /// How far below the limit refusing begins, in percent of the memory.
    #[schemars(range(max = 100))]
    spike_limit_percentage: usize,
}

/// What is known of `memory_limiter` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Processors,
    name: "memory_limiter",
    aliases: &[],
    about: "Refuses telemetry, so that senders try again later, while too much is in flight, queued or held by windows.",
    roles: &[Role { section: Section::Processors, signals: &Signal::ALL }],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let limits = config.limits()?;
    let parsed = Parsed::new(config, move |_, setup| {
        let counts = Arc::new(Counts::new(&setup.meter, &setup.id));
        let limiter = MemoryLimiter { ledger: Arc::clone(&setup.ledger), limits: Arc::new(Mutex::new(limits)), counts };
        Ok(Instance::Processor(Arc::new(limiter)))
    })?;
    // The door refuses above it, so the service sets it, when everything that sets one runs.
    Ok(Parsed { memory_limit: Some(limits.hard), ..parsed })
}

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    hard: usize,
    soft: usize,
}

impl Config {
    fn limits(&self) -> Result<Limits, String> {
        let (hard, spike) = match (self.limit_mib, self.limit_percentage) {
            (0, 0) => return Err("a limit is missing: write `limit_mib` (or `limit_percentage`)".to_owned()),
            (mib, 0) => (mib << 20, self.spike_limit_mib << 20),
            (0, percent) => {
                let memory = memory_of_this_machine().ok_or("the size of the memory can't be found out here: write `limit_mib`")?;
                (memory / 100 * percent, memory / 100 * self.spike_limit_percentage)
            }
            _ => return Err("write either `limit_mib` or `limit_percentage`".to_owned()),
        };
        let spike = if spike == 0 { hard / 5 } else { spike };
        if spike >= hard {
            return Err("the spike limit must be smaller than the limit".to_owned());
        }
        Ok(Limits { hard, soft: hard - spike })
    }
}

/// The container's limit where there is one, else the machine's memory, in bytes.
fn memory_of_this_machine() -> Option<usize> {
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    container.or_else(|| {
        let about = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = about.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<usize>().ok().map(|kib| kib << 10)
    })
}

struct Counts {
    refused: [Counter<u64>; 3],
    limit_reached: Counter<u64>,
    attributes: [KeyValue; 1],
    reached: [KeyValue; 2],
}

impl Counts {
    fn new(meter: &Meter, id: &str) -> Self {
        let processor = KeyValue::new("processor", id.to_owned());
        Self {
            refused: Signal::ALL.map(|signal| meter.u64_counter(format!("otelcol_processor_memory_limiter_refused_{}", signal.items())).build()),
            limit_reached: meter.u64_counter("fuseboard_limit_reached").build(),
            reached: [processor.clone(), KeyValue::new("limit", "memory")],
            attributes: [processor],
        }
    }
}

impl Counts {
    const fn of(&self, signal: Signal) -> &Counter<u64> {
        signal.of(&self.refused)
    }
}

struct MemoryLimiter {
    ledger: Arc<Ledger>,
    limits: Arc<Mutex<Limits>>,
    counts: Arc<Counts>,
}

impl Processor for MemoryLimiter {
    fn attach(&self, _: Signal, next: Arc<dyn Consumer>) -> Arc<dyn Consumer> {
        let Self { ledger, limits, counts } = self;
        Arc::new(Limited { ledger: Arc::clone(ledger), limits: Arc::clone(limits), counts: Arc::clone(counts), next })
    }
}

impl Lifecycle for MemoryLimiter {
    fn shutdown(&self, _: Duration) -> Future<'_, ()> {
        Box::pin(async {})
    }

    fn reconfigure(&self, value: &Value) -> Result<(), String> {
        let config: Config = serde_yaml::from_value(value.clone()).map_err(|error| error.to_string())?;
        *self.limits.lock() = config.limits()?;
        Ok(())
    }
}

struct Limited {
    ledger: Arc<Ledger>,
    limits: Arc<Mutex<Limits>>,
    counts: Arc<Counts>,
    next: Arc<dyn Consumer>,
}

impl Consumer for Limited {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        let limits = *self.limits.lock();
        let used = self.ledger.used();
        if used <= limits.soft {
            return self.next.admit(payload);
        }
        self.counts.of(payload.signal).add(payload.items() as u64, &self.counts.attributes);
        self.counts.limit_reached.add(1, &self.counts.reached);
        let reason = format!("memory limit reached: {} MiB of {} are in flight, queued or held by windows", used >> 20, limits.hard >> 20);
        Box::pin(async { Err(Refusal::Retryable { reason, after: Some(Duration::from_secs(1)) }) })
    }
}
