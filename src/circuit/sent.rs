//! What was handed out of a circuit last.

use super::{analysis::anomaly::Signal, state::State, totals::Histogram};

/// What was handed out of a circuit's totals last: a series whose count is the same has nothing to say. One that has not
/// begun has no count here.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// When, in Unix nanoseconds; 0 if never.
    pub at: u64,
    /// When everything was handed out last, changed or not.
    pub whole_at: u64,
    /// Calls that ended well.
    pub successes: u64,
    /// Failures, in the order of the totals' error kinds; further ones have not begun.
    pub errors: Vec<u64>,
    /// Trips, recovery attempts, failed ones and recoveries, in the order of the totals' sources.
    pub breaker: Vec<[u64; 4]>,
    /// Latencies counted: successes, failures.
    pub durations: [Option<u64>; 2],
    /// What the gauges of the window said, as a hash; 0 if they said nothing.
    pub gauges: u64,
    /// What of most circuits is never handed out.
    pub rarely: Option<Box<SentRarely>>,
}

/// What of most circuits is never handed out.
#[derive(Clone, Debug, Default)]
pub struct SentRarely {
    /// Calls that were refused.
    pub rejections: Option<u64>,
    /// Incidents whose duration is known.
    pub incidents: Option<u64>,
    /// The histograms themselves, where deltas are sent: successes, failures, incidents.
    pub histograms: Option<Box<[Histogram; 3]>>,
    /// Instances by state, in the order of [`State::ALL`]; `None` while no state is known.
    pub instances: Option<[u32; State::ALL.len()]>,
    /// Anomalies, in the order of [`Signal::ALL`].
    pub anomalies: [Option<u64>; Signal::ALL.len()],
    /// Findings whose gauges had a value: a bit for each, anomalies first, then patterns and trends.
    pub findings: u64,
    /// What those gauges said, as a hash.
    pub gauges: u64,
}

impl Sent {
    /// The histograms, where deltas are sent.
    pub fn histograms(&self) -> Option<&[Histogram; 3]> {
        self.rarely.as_ref()?.histograms.as_deref()
    }

    /// Instances by state, in the order of [`State::ALL`]; `None` while no state is known.
    pub fn instances(&self) -> Option<[u32; State::ALL.len()]> {
        self.rarely.as_ref()?.instances
    }

    /// Calls that were refused.
    pub fn rejections(&self) -> Option<u64> {
        self.rarely.as_ref()?.rejections
    }

    /// Incidents whose duration is known.
    pub fn incidents(&self) -> Option<u64> {
        self.rarely.as_ref()?.incidents
    }

    /// Anomalies, in the order of [`Signal::ALL`].
    pub fn anomalies(&self) -> [Option<u64>; Signal::ALL.len()] {
        self.rarely.as_ref().map(|rarely| rarely.anomalies).unwrap_or_default()
    }

    /// What of most circuits is never handed out, to be noted.
    pub fn rarely(&mut self) -> &mut SentRarely {
        self.rarely.get_or_insert_default()
    }
}
