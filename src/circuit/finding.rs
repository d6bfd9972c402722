//! What analyzers say.

use std::sync::Arc;

use super::{
    analysis::{
        anomaly::Signal,
        pressure::Usage,
        series::{Course, Turn},
    },
    event::IncidentId,
    key::CircuitKey,
};

/// Something that an analyzer found out about a circuit.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Since when it holds, or no longer does: the end of the bucket or the trip that showed it, in Unix nanoseconds.
    pub at: u64,
    /// The circuit; without a name where it is of a process of the caller.
    pub circuit: Arc<CircuitKey>,
    /// The instance, where it is of one; else empty.
    pub instance: Arc<str>,
    /// The incident that went on when it was found.
    pub incident: Option<IncidentId>,
    /// What.
    pub what: What,
}

impl Finding {
    /// The name of its event.
    pub fn event_name(&self) -> &'static str {
        match self.what {
            What::Anomaly(..) => "circuit_breaker.anomaly",
            What::Pattern(..) => "circuit_breaker.pattern",
            What::Trend(..) => "circuit_breaker.trend",
            What::Pressure(..) => "circuit_breaker.resource_pressure",
            What::Health(_) if self.instance.is_empty() => "circuit_breaker.health",
            What::Health(_) => "circuit_breaker.instance.health",
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// A signal is unusual.
    Anomaly(Phase, Anomaly),
    /// Trips follow a pattern.
    Pattern(Phase, Pattern),
    /// A signal rises or falls.
    Trend(Phase, Trend),
    /// A resource is under pressure.
    Pressure(Phase, Resource, Usage),
    /// How a circuit is.
    Health(HealthChange),
}

/// What callers use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    /// Calls of a circuit that are under way at a time.
    Concurrency,
    /// `process.cpu.utilization`, a share.
    ProcessCpu,
    /// `process.memory.usage`, in bytes.
    ProcessMemory,
    /// `system.cpu.utilization`, a share: all but what is idle.
    SystemCpu,
    /// `system.memory.utilization`, a share: what is used.
    SystemMemory,
    /// `jvm.cpu.recent_utilization`, a share.
    JvmCpu,
    /// `jvm.memory.used`, in bytes, of `jvm.memory.limit`: of all pools of the heap.
    JvmMemory,
    /// `jvm.thread.count`.
    JvmThreads,
    /// `go.memory.used`, in bytes, of `go.memory.limit`.
    GoMemory,
    /// `go.goroutine.count`.
    GoRoutines,
}

impl Resource {
    /// Those that processes tell of themselves.
    pub const OF_PROCESSES: [Self; 9] = [
        Self::ProcessCpu,
        Self::ProcessMemory,
        Self::SystemCpu,
        Self::SystemMemory,
        Self::JvmCpu,
        Self::JvmMemory,
        Self::JvmThreads,
        Self::GoMemory,
        Self::GoRoutines,
    ];

    /// `circuit_breaker.signal`: the metric's name, where it is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::ProcessCpu => "process.cpu.utilization",
            Self::ProcessMemory => "process.memory.usage",
            Self::SystemCpu => "system.cpu.utilization",
            Self::SystemMemory => "system.memory.utilization",
            Self::JvmCpu => "jvm.cpu.recent_utilization",
            Self::JvmMemory => "jvm.memory.used",
            Self::JvmThreads => "jvm.thread.count",
            Self::GoMemory => "go.memory.used",
            Self::GoRoutines => "go.goroutine.count",
        }
    }

    /// The metric that is its limit, where there is one.
    pub const fn limit_name(self) -> Option<&'static str> {
        match self {
            Self::JvmMemory => Some("jvm.memory.limit"),
            Self::GoMemory => Some("go.memory.limit"),
            _ => None,
        }
    }

    /// A change of the square root of its value that is no more than this is none: a hundredth of what is all, half a
    /// thread.
    pub const fn least(self) -> f64 {
        match self {
            Self::Concurrency | Self::JvmThreads | Self::GoRoutines => 0.5,
            Self::ProcessCpu | Self::SystemCpu | Self::SystemMemory | Self::JvmCpu => 0.05,
            // A megabyte.
            Self::ProcessMemory | Self::JvmMemory | Self::GoMemory => 1_024.0,
        }
    }

    /// Its limit by its nature: shares end at 1.
    pub const fn own_limit(self) -> Option<f64> {
        match self {
            Self::ProcessCpu | Self::SystemCpu | Self::SystemMemory | Self::JvmCpu => Some(1.0),
            _ => None,
        }
    }
}

/// Whether something begins to hold or no longer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It holds from now on.
    Begin,
    /// It holds, and something of it is another than it was.
    Change,
    /// It no longer does.
    End,
    /// Nobody looks any more whether it does: there were no calls for long, or settings changed.
    Stopped,
}

/// A signal that is unusual, from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anomaly {
    /// Which.
    pub signal: Signal,
    /// Since when, in Unix nanoseconds: as far back as evidence goes.
    pub begin: u64,
    /// Standard deviations of one bucket that it lay off the baseline when it was told; at its end, at the most.
    pub score: f64,
    /// What is usual. Latencies: seconds, of the median or the 90th percentile (with `zscore` of the mean or the 95th);
    /// errors and rejections: a share; rates: calls a second.
    pub expected: f64,
    /// What was seen when it was told; at its end, what was seen at the peak.
    pub seen: f64,
    /// When it lay furthest off, in Unix nanoseconds.
    pub peak: u64,
}

/// A pattern of trips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pattern {
    /// Which.
    pub kind: PatternKind,
    /// How sure it is.
    pub certainty: Certainty,
    /// Incidents that it was found in; of flapping: in how many half minutes of the last ten minutes the state changed.
    pub count: u32,
    /// Seconds from one to the next: of the comb or the clock that fits best, or their mean; of flapping, from one change of
    /// state to the next. `None` where there is no next.
    pub period: Option<f64>,
    /// Standard deviation of the period, in seconds; `None` where it is not known.
    pub jitter: Option<f64>,
    /// At most how likely chance alone would show as much; `None` where that is not what it is judged by.
    pub p_value: Option<f64>,
    /// When the next trip is expected, in Unix nanoseconds; `None` where nothing can be said.
    pub next: Option<u64>,
    /// By the clock: when in a period, in seconds.
    pub phase: Option<f64>,
}

/// Kinds of patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PatternKind {
    /// At even intervals.
    Regular,
    /// At a time by the clock, as each hour at twenty past.
    Aligned,
    /// Many in a short time.
    Burst,
    /// Open and closed in turn, too often.
    Flapping,
}

/// How sure a pattern is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// By chance in one look of a hundred.
    Possible,
    /// By chance in one look of five hundred, or less often.
    Certain,
}

/// Of what something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measured {
    /// Of the calls of a circuit.
    Calls(Signal),
    /// Of what callers use up.
    Resource(Resource),
}

impl Measured {
    /// `circuit_breaker.signal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls(signal) => signal.name(),
            Self::Resource(resource) => resource.name(),
        }
    }
}

/// Something rises or falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// What.
    pub signal: Measured,
    /// How: in seconds, shares, calls a second, or the unit of the resource.
    pub course: Course,
}

/// How a circuit is, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Too little is known: no calls, or it is new.
    #[default]
    Unknown,
    /// Nothing is wrong.
    Healthy,
    /// Something is.
    Degraded,
    /// It does not do what it is there for.
    Unhealthy,
}

/// Reasons that are told at most.
pub const REASONS_MAX: usize = 4;

/// A circuit's health changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthChange {
    /// What it was.
    pub before: Status,
    /// What it is.
    pub after: Status,
    /// Why, the worst first; none if nothing is wrong.
    pub reasons: [Option<Reason>; REASONS_MAX],
}

/// Why a circuit is not healthy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// Its breaker is open in some instances.
    Open {
        /// So many.
        open: u32,
        /// Of so many whose state is known or not.
        of: u32,
    },
    /// Its breaker tries whether it can close again.
    HalfOpen {
        /// In so many instances.
        half_open: u32,
        /// Of so many.
        of: u32,
    },
    /// Nobody calls though the callers go on.
    Silent,
    /// A signal is unusual.
    Unusual {
        /// Which.
        signal: Signal,
        /// Of failures and refused calls: their share of the last seconds.
        share: Option<f64>,
    },
    /// A share that is too high, whether it is unusual or not.
    High {
        /// Which.
        signal: Signal,
        /// Of the last minute.
        share: f64,
    },
    /// Nothing is wrong any more, but it was lately.
    Recovering,
    /// Its breaker opens and closes in turn.
    Flapping,
    /// Calls under way are at their limit.
    Full {
        /// Their share of it.
        usage: f64,
    },
    /// A signal will reach its limit.
    Limit {
        /// Which.
        signal: Measured,
        /// In so many seconds.
        seconds: f64,
    },
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// `circuit_breaker.health.status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open { of: 1, .. } => f.write_str("open"),
            Self::HalfOpen { of: 1, .. } => f.write_str("half-open"),
            Self::Open { open, of } => write!(f, "open in {open} of {of} instances"),
            Self::HalfOpen { half_open, of } => write!(f, "half-open in {half_open} of {of} instances"),
            Self::Silent => f.write_str("nobody calls"),
            Self::Unusual { signal, share: Some(share) } => write!(f, "{} unusual: {:.0} %", signal.name(), share * 100.0),
            Self::Unusual { signal, share: None } => write!(f, "{} unusual", signal.name()),
            Self::High { signal, share } => write!(f, "{} at {:.0} %", signal.name(), share * 100.0),
            Self::Recovering => f.write_str("recovering"),
            Self::Flapping => f.write_str("flapping"),
            Self::Full { usage } => write!(f, "concurrency at {:.0} % of its limit", usage * 100.0),
            Self::Limit { signal, seconds } => write!(f, "{} at its limit in {seconds:.0} s", signal.name()),
        }
    }
}

impl Phase {
    /// `circuit_breaker.anomaly.phase` and its likes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Change => "change",
            Self::End => "end",
            Self::Stopped => "stopped",
        }
    }
}

impl PatternKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Regular, Self::Aligned, Self::Burst, Self::Flapping];

    /// `circuit_breaker.pattern`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Aligned => "aligned",
            Self::Burst => "burst",
            Self::Flapping => "flapping",
        }
    }
}

impl Certainty {
    /// `circuit_breaker.pattern.certainty`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Certain => "certain",
        }
    }
}

impl Trend {
    /// Of this.
    pub const fn of(signal: Measured, course: Course) -> Self {
        Self { signal, course }
    }

    /// At most how likely chance alone shows a trend like this one, or the other way: Mills' ratio, which is right to some
    /// per cent from two deviations on.
    pub fn p_value(&self) -> f64 {
        let score = self.course.score.abs().max(1.0);
        ((-score * score / 2.0).exp() / (score * (std::f64::consts::TAU).sqrt()) * 2.0).min(1.0)
    }

    /// `circuit_breaker.direction`.
    pub const fn direction(&self) -> &'static str {
        if self.course.score < 0.0 { "down" } else { "up" }
    }
}

impl What {
    /// That something rises or falls, or no longer does.
    pub const fn of_turn(measured: Measured, turn: Turn) -> Self {
        let (phase, course) = match turn {
            Turn::Begins(course) => (Phase::Begin, course),
            Turn::Ends(course) => (Phase::End, course),
            Turn::Stops(course) => (Phase::Stopped, course),
        };
        Self::Trend(phase, Trend::of(measured, course))
    }

    /// Whether it begins, changes or ends.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Anomaly(phase, _) | Self::Pattern(phase, _) | Self::Trend(phase, _) | Self::Pressure(phase, ..) => *phase,
            Self::Health(_) => Phase::Change,
        }
    }
}
