//! What only ever grows: cumulative counts of a circuit.

use super::{
    bucket::{Kind, get, put},
    sketch::{Code, SCALE, index_of},
    state::Source,
};

/// Buckets of an exported histogram, as in the SDKs.
const HISTOGRAM_BUCKETS_MAX: usize = 160;

/// Values of `error.type` that a circuit tells apart; the next ones are `_OTHER`.
pub const ERROR_KINDS_MAX: usize = 8;

/// What a circuit counted since it began: the source of the counters that go out.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Calls that ended well.
    pub successes: u64,
    /// Calls that were refused by an open breaker.
    pub rejections: u64,
    /// When the first of them was counted, in Unix nanoseconds: the start of their series.
    pub rejections_since: u64,
    /// Failures by `error.type`, at most [`ERROR_KINDS_MAX`] and `_OTHER`.
    pub errors: Vec<ErrorCount>,
    /// Latencies of calls that ended well.
    pub success_duration: Histogram,
    /// Latencies of calls that failed, if one did.
    pub failure_duration: Option<Box<Histogram>>,
    /// Breaker events, by source.
    pub breaker: Box<[BreakerCounts]>,
    /// Durations of incidents that ended.
    pub incident_duration: Option<Box<Histogram>>,
}

/// Failures of one `error.type`.
#[derive(Clone, Debug)]
pub struct ErrorCount {
    /// The value of `error.type`.
    pub kind: Box<str>,
    /// So many.
    pub count: u64,
    /// The start of its series, in Unix nanoseconds: when it is known to have been 0.
    pub since: u64,
}

/// Breaker events of one source.
#[derive(Clone, Copy, Debug)]
pub struct BreakerCounts {
    /// How they were found out.
    pub source: Source,
    /// Closed to open.
    pub trips: u64,
    /// Probes that were let through.
    pub recovery_attempts: u64,
    /// Probes that failed.
    pub recovery_attempt_failures: u64,
    /// Back to closed.
    pub recoveries: u64,
    /// The start of their series, in Unix nanoseconds: when all are known to have been 0.
    pub since: u64,
}

impl Totals {
    /// Counts a failure; gives the index of its `error.type`, which is made known if there is room. If it is new, its
    /// series starts at `born`.
    #[inline]
    pub fn failure(&mut self, kind: &str, weight: u32, born: u64) -> Kind {
        let found = self.errors.iter().position(|error| &*error.kind == kind);
        let at = found.unwrap_or_else(|| self.new_kind(kind, born));
        if let Some(error) = self.errors.get_mut(at) {
            error.count += u64::from(weight);
        }
        Kind::try_from(at).unwrap_or(Kind::MAX)
    }

    #[cold]
    fn new_kind(&mut self, kind: &str, born: u64) -> usize {
        let kind = if self.errors.len() < ERROR_KINDS_MAX { kind } else { "_OTHER" };
        self.errors.iter().position(|error| &*error.kind == kind).unwrap_or_else(|| {
            // Most circuits know one kind, and no breaker.
            self.errors.reserve_exact(1);
            self.errors.push(ErrorCount { kind: kind.into(), count: 0, since: born });
            self.errors.len() - 1
        })
    }

    /// Counts rejections, whose series starts at `born` if these are the first.
    #[inline]
    pub const fn reject(&mut self, weight: u32, born: u64) {
        if self.rejections == 0 {
            self.rejections_since = born;
        }
        self.rejections += weight as u64;
    }

    /// Counts of one source; if it is new, its series start at `born`.
    pub fn breaker(&mut self, source: Source, born: u64) -> Option<&mut BreakerCounts> {
        if !self.breaker.iter().any(|counts| counts.source == source) {
            let (trips, recovery_attempts, recovery_attempt_failures, recoveries) = (0, 0, 0, 0);
            let new = BreakerCounts { source, trips, recovery_attempts, recovery_attempt_failures, recoveries, since: born };
            self.breaker = std::mem::take(&mut self.breaker).into_iter().chain([new]).collect();
        }
        self.breaker.iter_mut().find(|counts| counts.source == source)
    }

    /// All failures.
    pub fn failures(&self) -> u64 {
        self.errors.iter().map(|error| error.count).sum()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let kinds: usize = self.errors.iter().map(|error| error.kind.len()).sum();
        let errors = self.errors.capacity() * size_of::<ErrorCount>();
        let breaker = self.breaker.len() * size_of::<BreakerCounts>();
        let boxed = |histogram: &Option<Box<Histogram>>| histogram.as_ref().map_or(0, |histogram| size_of::<Histogram>() + histogram.heap_bytes());
        let durations = self.success_duration.heap_bytes() + boxed(&self.failure_duration) + boxed(&self.incident_duration);
        kinds + errors + breaker + durations
    }
}

/// Latencies as they are exported: an exponential histogram of at most 160 buckets, or one with explicit bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many latencies.
    pub count: u64,
    /// Their sum, in nanoseconds.
    pub sum: u128,
    /// The shortest and longest, in nanoseconds; meaningless without any.
    pub range: (u64, u64),
    /// Those below 1 µs (exponential only).
    pub zero_count: u64,
    /// The start of its series, in Unix nanoseconds: when it is known to have been empty.
    pub since: u64,
    /// Steps that the scale was halved.
    halvings: u8,
    /// Index of the first bucket at the present scale.
    first: i32,
    /// In use; empty at rest.
    counts: Vec<u64>,
    /// At rest: varints; else empty.
    packed: Box<[u8]>,
}

impl Histogram {
    /// Adds a latency; with explicit bounds (in nanoseconds, ascending) it falls into those, upper ends inclusive. If
    /// it is the first, the series starts at `born`.
    #[inline]
    pub fn add(&mut self, nanos: u64, code: Code, weight: u32, bounds: &[u64], born: u64) {
        let weight = u64::from(weight);
        if self.count == 0 {
            (self.range, self.since) = ((nanos, nanos), born);
        }
        self.range = (self.range.0.min(nanos), self.range.1.max(nanos));
        self.count += weight;
        self.sum += u128::from(nanos) * u128::from(weight);
        if !bounds.is_empty() {
            let at = bounds.partition_point(|bound| *bound < nanos);
            if add_packed(&mut self.packed, at, weight) {
                return;
            }
            let counts = self.wide();
            if counts.len() <= bounds.len() {
                counts.resize(bounds.len() + 1, 0);
            }
            if let Some(slot) = counts.get_mut(at) {
                *slot += weight;
            }
            return;
        }
        if code == Code::UNDERFLOW {
            self.zero_count += weight;
            return;
        }
        self.add_at(code.index().unwrap_or_else(|| index_of(nanos)), weight);
    }

    #[inline]
    fn add_at(&mut self, index: i32, weight: u64) {
        let at = usize::try_from((index >> self.halvings) - self.first).ok();
        if let Some(slot) = at.and_then(|at| self.counts.get_mut(at)) {
            *slot += weight;
            return;
        }
        if at.is_some_and(|at| add_packed(&mut self.packed, at, weight)) {
            return;
        }
        self.widen(index);
        let at = (index >> self.halvings) - self.first;
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| self.wide().get_mut(at)) {
            *slot += weight;
        }
    }

    /// Makes room for an index, at a coarser scale if it takes too many buckets.
    fn widen(&mut self, index: i32) {
        loop {
            let (first, halvings) = (self.first, self.halvings);
            let at = index >> halvings;
            let counts = self.wide();
            if counts.is_empty() {
                counts.push(0);
                self.first = at;
                return;
            }
            let last = first + i32::try_from(counts.len()).unwrap_or(i32::MAX) - 1;
            let (low, high) = (first.min(at), last.max(at));
            let needed = usize::try_from(high - low + 1).unwrap_or(usize::MAX);
            if needed <= HISTOGRAM_BUCKETS_MAX {
                let before = usize::try_from(first - low).unwrap_or_default();
                // Exactly: growing by doubling would leave much of it unused.
                let mut widened = Vec::with_capacity(needed);
                widened.resize(before, 0);
                widened.append(counts);
                widened.resize(needed, 0);
                *counts = widened;
                self.first = low;
                return;
            }
            self.halve();
        }
    }

    /// Merges neighbours: an index `i` becomes `i >> 1`, exactly.
    fn halve(&mut self) {
        let first = self.first;
        let counts = self.wide();
        let mut halved: Vec<u64> = Vec::with_capacity(counts.len() / 2 + 1);
        for (index, count) in (first..).zip(counts.iter()) {
            let at = usize::try_from((index >> 1) - (first >> 1)).unwrap_or_default();
            if halved.len() <= at {
                halved.resize(at + 1, 0);
            }
            if let Some(slot) = halved.get_mut(at) {
                *slot += count;
            }
        }
        *counts = halved;
        self.first = first >> 1;
        self.halvings += 1;
    }

    /// Takes the memory that latencies are added to fastest in.
    pub fn wake(&mut self) {
        self.wide();
    }

    fn wide(&mut self) -> &mut Vec<u64> {
        if !self.packed.is_empty() {
            self.counts = unpacked(&self.packed);
            self.packed = Box::default();
        }
        &mut self.counts
    }

    /// Takes little memory until it is woken, or a latency finds no place.
    pub fn rest(&mut self) {
        if !self.counts.is_empty() {
            let mut packed = Vec::with_capacity(self.counts.len());
            self.counts.iter().for_each(|count| put(&mut packed, *count));
            self.packed = packed.into();
            self.counts = Vec::new();
        }
    }

    /// Scale, index of the first bucket, and counts of consecutive buckets, as OTLP wants them.
    pub fn buckets(&self) -> (i32, i32, Vec<u64>) {
        let counts = if self.packed.is_empty() { self.counts.clone() } else { unpacked(&self.packed) };
        (SCALE - i32::from(self.halvings), self.first, counts)
    }

    /// As [`buckets`](Self::buckets), without what an earlier copy of this histogram held.
    pub fn buckets_since(&self, earlier: Option<&Self>) -> (i32, i32, Vec<u64>) {
        let (scale, first, mut counts) = self.buckets();
        if let Some(earlier) = earlier {
            let mut earlier = earlier.clone();
            while earlier.halvings < self.halvings {
                earlier.halve();
            }
            let (_, earlier_first, earlier_counts) = earlier.buckets();
            for (index, before) in (earlier_first..).zip(earlier_counts) {
                if let Some(count) = usize::try_from(index - first).ok().and_then(|at| counts.get_mut(at)) {
                    *count = count.saturating_sub(before);
                }
            }
        }
        (scale, first, counts)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>() + self.packed.len()
    }
}

/// Adds to a count at rest; `false`, and nothing is changed, if it is not there or would take more bytes.
fn add_packed(packed: &mut [u8], at: usize, weight: u64) -> bool {
    let mut ends = (0..).zip(packed.iter()).filter(|(_, byte)| **byte < 0x80).map(|(end, _)| end + 1);
    let (from, to) = match at {
        0 => (Some(0), ends.next()),
        at => (ends.nth(at - 1), ends.next()),
    };
    let Some(bytes) = from.zip(to).and_then(|(from, to)| packed.get_mut(from..to)) else { return false };
    let mut count = get(&mut &*bytes).saturating_add(weight);
    if crate::otlp::wire::varint_len(count) != bytes.len() {
        return false;
    }
    for byte in bytes {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are what is meant")]
        let low = count as u8 & 0x7f;
        *byte = *byte & 0x80 | low;
        count >>= 7;
    }
    true
}

fn unpacked(mut packed: &[u8]) -> Vec<u64> {
    let mut counts = Vec::new();
    while !packed.is_empty() {
        counts.push(get(&mut packed));
    }
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::circuit::sketch::bound;

    proptest! {
        #[test]
        fn every_latency_is_in_the_bucket_its_scale_says(values in prop::collection::vec(1_000_u64..7_200_000_000_000, 1..200), rest in any::<bool>()) {
            let mut histogram = Histogram::default();
            for nanos in &values {
                histogram.add(*nanos, Code::of(*nanos), 1, &[], 0);
                if rest {
                    histogram.rest();
                }
            }
            let (scale, first, counts) = histogram.buckets();
            prop_assert!(counts.len() <= HISTOGRAM_BUCKETS_MAX);
            prop_assert_eq!(counts.iter().sum::<u64>(), values.len() as u64);
            let step = 1 << (SCALE - scale);
            for (at, count) in (first..).zip(&counts) {
                let (low, high) = (bound(at * step), bound((at + 1) * step));
                let inside = values.iter().filter(|nanos| {
                    let index = index_of(**nanos);
                    index >= at * step && index < (at + 1) * step
                });
                prop_assert_eq!(inside.count() as u64, *count, "bucket {}..{}", low, high);
            }
        }
    }

    proptest! {
        #[test]
        fn a_count_at_rest_is_added_to_where_it_stands(
            counts in prop::collection::vec(prop_oneof![0_u64..300, 0_u64..40_000, any::<u64>()], 0..9),
            at in 0_usize..10,
            weight in prop_oneof![0_u64..3, 0_u64..20_000],
        ) {
            let pack = |counts: &[u64]| {
                let mut packed = Vec::new();
                counts.iter().for_each(|count| put(&mut packed, *count));
                packed
            };
            let mut added = counts.clone();
            added.get_mut(at).into_iter().for_each(|count| *count = count.saturating_add(weight));
            let (mut packed, wanted) = (pack(&counts), pack(&added));
            let fits = at < counts.len() && wanted.len() == packed.len();
            prop_assert_eq!(add_packed(&mut packed, at, weight), fits);
            prop_assert_eq!(packed, if fits { wanted } else { pack(&counts) });
        }

        #[test]
        fn what_rests_counts_the_same(values in prop::collection::vec((0_u32..200, 1_u32..200, any::<bool>()), 1..200), bounds in any::<bool>()) {
            let (mut resting, mut busy) = (Histogram::default(), Histogram::default());
            let bounds: &[u64] = if bounds { &[2_000_000, 3_000_000] } else { &[] };
            for (step, weight, rest) in values {
                let nanos = 1_000_000 + u64::from(step) * 20_000;
                for histogram in [&mut resting, &mut busy] {
                    histogram.add(nanos, Code::of(nanos), weight, bounds, 0);
                }
                if rest { resting.rest() } else { resting.wake() }
                prop_assert_eq!(resting.buckets(), busy.buckets());
            }
        }
    }

    #[test]
    fn explicit_bounds_include_their_upper_end() {
        let mut histogram = Histogram::default();
        for nanos in [5, 10, 11, 20, 21] {
            histogram.add(nanos, Code::of(nanos), 1, &[10, 20], 0);
        }
        assert_eq!(histogram.buckets().2, [2, 2, 1]);
    }

    #[test]
    fn the_ninth_kind_of_error_is_other() {
        let mut totals = Totals::default();
        for number in 0..20 {
            totals.failure(&format!("kind{number}"), 1, 0);
        }
        assert_eq!(totals.errors.len(), ERROR_KINDS_MAX + 1);
        assert_eq!((totals.failure("_OTHER", 1, 0), totals.failure("kind3", 2, 0)), (8, 3));
        assert_eq!((totals.errors[8].count, totals.errors[3].count, totals.failures()), (13, 3, 23));
    }
}
