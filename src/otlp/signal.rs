use std::fmt;

use super::wire::{Malformed, Reader, Tag};

/// The kinds of telemetry OTLP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric data points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// The word of pipelines: `traces`, `metrics`, `logs`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// The word of the Collector's own metrics: `spans`, `metric_points`, `log_records`.
    pub const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metric_points",
            Self::Logs => "log_records",
        }
    }

    /// One of three things that there are for each signal, in the order of [`ALL`](Self::ALL).
    pub const fn of<T>(self, each: &[T; 3]) -> &T {
        let [traces, metrics, logs] = each;
        match self {
            Self::Traces => traces,
            Self::Metrics => metrics,
            Self::Logs => logs,
        }
    }

    /// The signal that a pipeline's name begins with.
    pub fn of_pipeline(id: &str) -> Option<Self> {
        let kind = id.split_once('/').map_or(id, |(kind, _)| kind);
        Self::ALL.into_iter().find(|signal| signal.name() == kind)
    }

    /// How many resources a serialised request holds.
    ///
    /// # Errors
    /// The bytes are no protobuf as far down as was looked.
    pub fn count_resources(self, request: &[u8]) -> Result<usize, Malformed> {
        count(request, &[1])
    }

    /// How many spans, data points or log records a serialised request holds.
    ///
    /// # Errors
    /// The bytes are no protobuf as far down as was looked.
    pub fn count(self, request: &[u8]) -> Result<usize, Malformed> {
        match self {
            // ResourceX -> ScopeX -> item; a metric holds its points one level (and one oneof) further down.
            Self::Traces | Self::Logs => count(request, &[1, 2, 2]),
            Self::Metrics => {
                let mut points = 0;
                each(request, &[1, 2, 2], &mut |metric| {
                    for kind in [5, 7, 9, 10, 11] {
                        points += count(metric, &[kind, 1])?;
                    }
                    Ok(())
                })?;
                Ok(points)
            }
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn count(message: &[u8], path: &[u32]) -> Result<usize, Malformed> {
    let mut found = 0;
    each(message, path, &mut |_| {
        found += 1;
        Ok(())
    })?;
    Ok(found)
}

/// Calls `visit` with every message that stands at the end of a path of field numbers.
fn each<'a>(message: &'a [u8], path: &[u32], visit: &mut dyn FnMut(&'a [u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let Some((field, rest)) = path.split_first() else { return visit(message) };
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        if tag == Tag::bytes(*field) {
            each(reader.bytes()?, rest, visit)?;
        } else {
            reader.skip(tag, 1 << *field)?;
        }
    }
    Ok(())
}
