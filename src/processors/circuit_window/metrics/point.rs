use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, exemplar, exponential_histogram_data_point::Buckets},
};

use super::super::gauge::ENDED;
use crate::circuit::{circuit::Exemplar as Slowest, totals};

/// A point of a histogram, whatever its kind.
pub(super) struct Drawn<'a> {
    pub(super) attributes: Vec<KeyValue>,
    pub(super) start: u64,
    pub(super) time: u64,
    pub(super) histogram: &'a totals::Histogram,
    /// What is not told again.
    pub(super) previous: Option<&'a totals::Histogram>,
    pub(super) exemplar: Option<Exemplar>,
    pub(super) ends: bool,
}

impl Drawn<'_> {
    fn count(&self) -> u64 {
        self.histogram.count.saturating_sub(self.previous.map_or(0, |previous| previous.count))
    }

    fn sum(&self) -> Option<f64> {
        (!self.ends).then(|| seconds(self.histogram.sum.saturating_sub(self.previous.map_or(0, |previous| previous.sum))))
    }

    /// The least and the most since the last time are not known: only since the beginning.
    fn range(&self) -> (Option<f64>, Option<f64>) {
        let range = (self.previous.is_none() && self.histogram.count > 0).then_some(self.histogram.range);
        (range.map(|(min, _)| seconds(u128::from(min))), range.map(|(_, max)| seconds(u128::from(max))))
    }

    pub(super) fn exponential(self) -> ExponentialHistogramDataPoint {
        let (min, max) = self.range();
        let (scale, offset, bucket_counts) = self.histogram.buckets_since(self.previous);
        ExponentialHistogramDataPoint {
            start_time_unix_nano: self.start,
            time_unix_nano: self.time,
            count: self.count(),
            sum: self.sum(),
            scale,
            zero_count: self.histogram.zero_count.saturating_sub(self.previous.map_or(0, |previous| previous.zero_count)),
            positive: Some(Buckets { offset, bucket_counts }),
            flags: if self.ends { ENDED } else { 0 },
            min,
            max,
            // What is shorter than this counts as zero.
            zero_threshold: 1e-6,
            exemplars: self.exemplar.into_iter().collect(),
            attributes: self.attributes,
            ..ExponentialHistogramDataPoint::default()
        }
    }

    pub(super) fn explicit(self, bounds: &[u64]) -> HistogramDataPoint {
        let (min, max) = self.range();
        let (_, _, mut bucket_counts) = self.histogram.buckets_since(self.previous);
        bucket_counts.resize(bounds.len() + 1, 0);
        HistogramDataPoint {
            start_time_unix_nano: self.start,
            time_unix_nano: self.time,
            count: self.count(),
            sum: self.sum(),
            bucket_counts,
            explicit_bounds: bounds.iter().map(|bound| seconds(u128::from(*bound))).collect(),
            flags: if self.ends { ENDED } else { 0 },
            min,
            max,
            exemplars: self.exemplar.into_iter().collect(),
            attributes: self.attributes,
        }
    }
}

/// A span that stands for others. Its time is when it was counted, which lies within its point's.
pub(super) fn exemplar_of(found: &Slowest, value: f64, start: u64, now: u64) -> Exemplar {
    let (trace_id, span_id) = found.ids.split_at(16);
    Exemplar {
        time_unix_nano: found.at.max(start.saturating_add(1)).min(now),
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(value)),
        ..Exemplar::default()
    }
}

pub(super) fn seconds(nanos: u128) -> f64 {
    nanos as f64 / 1e9
}
