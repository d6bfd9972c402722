//! One slice of one circuit in event time.

use smallvec::SmallVec;

use super::sketch::Code;

/// Index of an `error.type` among those of its circuit.
pub type Kind = u8;

/// How a call ended, as its breaker would count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The callee answered well enough.
    Success,
    /// The callee did not answer, or badly.
    Failure,
    /// An open breaker refused the call: it was never sent.
    Rejected,
}

impl Outcome {
    /// The value of `circuit_breaker.outcome`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Rejected => "rejected",
        }
    }
}

/// One circuit in one slice of event time. Spans count where they end. Latencies are of calls that were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsBucket {
    /// Calls that ended well.
    pub successes: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Calls that were refused by an open breaker.
    pub rejections: u32,
    /// Failures by the circuit's error kinds.
    pub errors: SmallVec<[(Kind, u32); 2]>,
    /// Sum of latencies, in nanoseconds.
    pub duration_sum: u64,
    /// The shortest latency, in nanoseconds; `None` without calls.
    pub duration_min: Option<u64>,
    /// The longest latency, in nanoseconds.
    pub duration_max: u64,
    /// Time that calls spent in this slice, in nanoseconds: over the slice's length, the mean concurrency. Filled in
    /// when the bucket closes, and not packed: the window keeps it, since calls reach back into closed buckets.
    pub busy: u64,
    /// Closed to open.
    pub trips: u32,
    /// A probe was let through.
    pub recovery_attempts: u32,
    /// The probe failed.
    pub recovery_attempt_failures: u32,
    /// Back to closed.
    pub recoveries: u32,
    latencies: Tally,
}

/// Codes as they come, put together when there are many.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// One entry a call: two bytes.
    log: Vec<u16>,
    /// Ascending.
    sorted: Vec<(u16, u32)>,
}

/// Bytes that the head of a packed bucket usually takes.
const HEAD_USUAL: usize = 24;

/// Entries of the log from which on it is put together.
const LOG_MAX: usize = 512;

impl Tally {
    #[inline]
    fn add(&mut self, code: u16, count: u32) {
        if count != 1 {
            return self.add_several(code, count);
        }
        if self.log.len() >= LOG_MAX {
            self.settle();
        }
        self.log.push(code);
    }

    /// What is in the log stays there: a code may be in both.
    fn add_several(&mut self, code: u16, count: u32) {
        match self.sorted.binary_search_by_key(&code, |entry| entry.0) {
            Ok(at) => {
                if let Some(entry) = self.sorted.get_mut(at) {
                    entry.1 = entry.1.saturating_add(count);
                }
            }
            Err(at) => self.sorted.insert(at, (code, count)),
        }
    }

    /// Empties the log into the sorted counts.
    fn settle(&mut self) {
        if self.log.is_empty() {
            return;
        }
        self.log.sort_unstable();
        let mut merged = Vec::with_capacity(self.sorted.len() + self.log.len());
        let mut sorted = std::mem::take(&mut self.sorted).into_iter().peekable();
        for run in self.log.chunk_by(|a, b| a == b) {
            let Some(code) = run.first().copied() else { continue };
            while let Some(before) = sorted.next_if(|entry| entry.0 < code) {
                merged.push(before);
            }
            let already = sorted.next_if(|entry| entry.0 == code).map_or(0, |entry| entry.1);
            merged.push((code, already.saturating_add(u32::try_from(run.len()).unwrap_or(u32::MAX))));
        }
        merged.extend(sorted);
        self.sorted = merged;
        self.log.clear();
    }
}

impl PartialEq for Tally {
    fn eq(&self, other: &Self) -> bool {
        let settled = |tally: &Self| {
            let mut tally = tally.clone();
            tally.settle();
            tally.sorted
        };
        settled(self) == settled(other)
    }
}

impl Eq for Tally {}

impl MetricsBucket {
    /// Calls of every outcome.
    pub const fn requests(&self) -> u32 {
        self.successes.saturating_add(self.failures).saturating_add(self.rejections)
    }

    /// Counts a call that was sent and took `nanos`.
    #[inline]
    pub fn call(&mut self, failed: Option<Kind>, nanos: u64, code: Code, weight: u32) {
        match failed {
            None => self.successes = self.successes.saturating_add(weight),
            Some(kind) => {
                self.failures = self.failures.saturating_add(weight);
                self.error(kind, weight);
            }
        }
        self.duration_sum = self.duration_sum.saturating_add(nanos.saturating_mul(u64::from(weight)));
        self.duration_min = Some(self.duration_min.map_or(nanos, |least| least.min(nanos)));
        self.duration_max = self.duration_max.max(nanos);
        self.latencies.add(code.0, weight);
    }

    /// Counts a call that an open breaker refused.
    pub const fn rejection(&mut self, weight: u32) {
        self.rejections = self.rejections.saturating_add(weight);
    }

    /// Adds what another bucket of the same circuit counted, exactly.
    pub fn merge(&mut self, other: &mut Self) {
        self.successes = self.successes.saturating_add(other.successes);
        self.failures = self.failures.saturating_add(other.failures);
        self.rejections = self.rejections.saturating_add(other.rejections);
        self.trips = self.trips.saturating_add(other.trips);
        self.recovery_attempts = self.recovery_attempts.saturating_add(other.recovery_attempts);
        self.recovery_attempt_failures = self.recovery_attempt_failures.saturating_add(other.recovery_attempt_failures);
        self.recoveries = self.recoveries.saturating_add(other.recoveries);
        other.errors.iter().for_each(|(kind, count)| self.error(*kind, *count));
        self.duration_sum = self.duration_sum.saturating_add(other.duration_sum);
        self.duration_min = [self.duration_min, other.duration_min].into_iter().flatten().min();
        self.duration_max = self.duration_max.max(other.duration_max);
        for (code, count) in other.latencies() {
            self.latencies.add_several(*code, *count);
        }
    }

    fn error(&mut self, kind: Kind, count: u32) {
        match self.errors.iter_mut().find(|error| error.0 == kind) {
            Some(error) => error.1 = error.1.saturating_add(count),
            None => self.errors.push((kind, count)),
        }
    }

    /// Latencies by code, ascending.
    pub fn latencies(&mut self) -> &[(u16, u32)] {
        self.latencies.settle();
        &self.latencies.sorted
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.latencies.log.capacity() * size_of::<u16>()
            + self.latencies.sorted.capacity() * size_of::<(u16, u32)>()
            + if self.errors.spilled() { self.errors.capacity() * size_of::<(Kind, u32)>() } else { 0 }
    }

    /// Appends the bucket in few bytes: varints, and latencies as gaps with their counts where those are not 1.
    pub fn pack(&mut self, out: &mut Vec<u8>) {
        self.latencies.settle();
        out.reserve(HEAD_USUAL);
        let numbers = [
            u64::from(self.successes),
            u64::from(self.failures),
            u64::from(self.rejections),
            u64::from(self.trips),
            u64::from(self.recovery_attempts),
            u64::from(self.recovery_attempt_failures),
            u64::from(self.recoveries),
            self.errors.len() as u64,
        ];
        numbers.into_iter().for_each(|number| put(out, number));
        for (kind, count) in &self.errors {
            out.push(*kind);
            put(out, u64::from(*count));
        }
        if self.latencies.sorted.is_empty() {
            return;
        }
        let least = self.duration_min.unwrap_or_default();
        for number in [self.duration_sum, least, self.duration_max - least] {
            put(out, number);
        }
        let mut last = 0;
        out.reserve(2 * self.latencies.sorted.len());
        for (code, count) in &self.latencies.sorted {
            put(out, u64::from(code - last) << 1 | u64::from(*count != 1));
            if *count != 1 {
                put(out, u64::from(*count));
            }
            last = *code;
        }
    }

    /// Reads what [`pack`](Self::pack) wrote.
    pub fn unpack(packed: &[u8]) -> Self {
        let mut rest = packed;
        let mut bucket = Self {
            successes: get32(&mut rest),
            failures: get32(&mut rest),
            rejections: get32(&mut rest),
            trips: get32(&mut rest),
            recovery_attempts: get32(&mut rest),
            recovery_attempt_failures: get32(&mut rest),
            recoveries: get32(&mut rest),
            ..Self::default()
        };
        for _ in 0..get(&mut rest) {
            let Some((kind, after)) = rest.split_first() else { break };
            rest = after;
            bucket.errors.push((*kind, get32(&mut rest)));
        }
        if rest.is_empty() {
            return bucket;
        }
        bucket.duration_sum = get(&mut rest);
        let least = get(&mut rest);
        bucket.duration_min = Some(least);
        bucket.duration_max = least + get(&mut rest);
        let mut last = 0;
        // No code takes less than a byte.
        bucket.latencies.sorted.reserve(rest.len());
        while !rest.is_empty() {
            let entry = get32(&mut rest);
            last += u16::try_from(entry >> 1).unwrap_or_default();
            let count = if entry & 1 == 1 { get32(&mut rest) } else { 1 };
            bucket.latencies.sorted.push((last, count));
        }
        bucket
    }
}

/// Appends a varint.
pub(super) fn put(out: &mut Vec<u8>, number: u64) {
    crate::otlp::wire::put_varint(out, number);
}

/// Reads a varint that [`put`] wrote.
pub(super) fn get(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    let mut shift = 0;
    while let Some((byte, after)) = rest.split_first() {
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
        shift += 7;
    }
    number
}

fn get32(rest: &mut &[u8]) -> u32 {
    u32::try_from(get(rest)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_is_the_same_unpacked(
            calls in prop::collection::vec((prop::option::of(0_u8..9), 0_u64..5_000_000_000, 1_u32..4), 0..700),
            rejections in 0_u32..5, trips in 0_u32..3,
        ) {
            let mut bucket = MetricsBucket { rejections, trips, ..MetricsBucket::default() };
            for (failed, nanos, weight) in calls {
                bucket.call(failed, nanos, Code::of(nanos), weight);
            }
            let mut packed = Vec::new();
            bucket.pack(&mut packed);
            prop_assert_eq!(MetricsBucket::unpack(&packed), bucket);
        }
    }
}
