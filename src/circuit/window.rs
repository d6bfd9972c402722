//! The rolling window of a circuit: closed buckets, packed, and their sums.

use std::{collections::VecDeque, sync::LazyLock};

use super::{
    bucket::{MetricsBucket, get, put},
    config::CircuitMetricsConfig,
    event::WindowSnapshot,
    sketch::{Code, Dense},
};

/// Sums over the closed buckets of a window. Kept incrementally: what a bucket adds when it closes is taken when it
/// expires, in integers, so that nothing drifts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowTotal {
    /// Calls that ended well.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that were refused.
    pub rejections: u64,
    /// Sum of latencies, in nanoseconds.
    pub duration_sum: u64,
    /// Closed to open.
    pub trips: u64,
    /// Probes that were let through.
    pub recovery_attempts: u64,
    /// Back to closed.
    pub recoveries: u64,
    /// Latencies of calls that were sent.
    pub latencies: Dense,
}

impl WindowTotal {
    /// Calls of every outcome.
    pub const fn requests(&self) -> u64 {
        self.successes + self.failures + self.rejections
    }

    fn add(&mut self, bucket: &mut MetricsBucket) {
        self.successes += u64::from(bucket.successes);
        self.failures += u64::from(bucket.failures);
        self.rejections += u64::from(bucket.rejections);
        self.duration_sum = self.duration_sum.wrapping_add(bucket.duration_sum);
        self.trips += u64::from(bucket.trips);
        self.recovery_attempts += u64::from(bucket.recovery_attempts);
        self.recoveries += u64::from(bucket.recoveries);
        bucket.latencies().iter().for_each(|(code, count)| self.latencies.add(Code(*code), *count));
    }

    /// Takes exactly what [`add`](Self::add) added: wrapping sums come out right all the same.
    fn take(&mut self, bucket: &mut MetricsBucket) {
        self.successes = self.successes.wrapping_sub(u64::from(bucket.successes));
        self.failures = self.failures.wrapping_sub(u64::from(bucket.failures));
        self.rejections = self.rejections.wrapping_sub(u64::from(bucket.rejections));
        self.duration_sum = self.duration_sum.wrapping_sub(bucket.duration_sum);
        self.trips = self.trips.wrapping_sub(u64::from(bucket.trips));
        self.recovery_attempts = self.recovery_attempts.wrapping_sub(u64::from(bucket.recovery_attempts));
        self.recoveries = self.recoveries.wrapping_sub(u64::from(bucket.recoveries));
        bucket.latencies().iter().for_each(|(code, count)| self.latencies.take(Code(*code), *count));
    }
}

/// The rolling window of one circuit: open buckets as they fill, closed ones packed, and their total.
///
/// Buckets are named by number: Unix time divided by the bucket's size.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Buckets at or beyond `closed_to`, ascending.
    open: VecDeque<(u64, MetricsBucket)>,
    /// Buckets before `closed_to` that hold something, oldest first: gap to the one before, length, packed bucket.
    closed: VecDeque<u8>,
    /// Number of the first closed bucket kept, and of the last; meaningless while there is none.
    first: u64,
    last: u64,
    /// What came for closed buckets since buckets closed last, ascending.
    late: Vec<(u64, MetricsBucket)>,
    /// Buckets that were begun, as far as two.
    called: u8,
    /// Every bucket with a smaller number is closed.
    closed_to: u64,
    total: WindowTotal,
    /// Time that calls spent in each bucket, in nanoseconds, by number modulo its length; empty while nothing is kept.
    busy: Vec<u64>,
    /// Numbers below this one have their place in `busy`.
    busy_to: u64,
}

/// A window that weighs next to nothing while there is nothing in it.
#[derive(Clone, Debug, Default)]
pub struct Rolling {
    kept: Option<Box<Window>>,
    /// How far it is closed while it is not kept.
    closed_to: u64,
    /// Buckets that had been begun before it was kept, as far as two.
    called: u8,
}

static EMPTY: LazyLock<Window> = LazyLock::new(Window::default);

impl Rolling {
    /// The window; [`closed_to`](Self::closed_to) knows better than an empty one how far it is closed.
    pub fn get(&self) -> &Window {
        self.kept.as_deref().unwrap_or(&EMPTY)
    }

    /// The window, to put something in it.
    #[inline]
    pub fn get_mut(&mut self) -> &mut Window {
        let closed_to = self.closed_to;
        self.kept.get_or_insert_with(|| Box::new(Window { closed_to, ..Window::default() }))
    }

    /// Every bucket with a smaller number is closed.
    pub fn closed_to(&self) -> u64 {
        self.kept.as_ref().map_or(self.closed_to, |window| window.closed_to)
    }

    /// Buckets that were ever begun, as far as two.
    pub fn called(&self) -> u8 {
        self.called.saturating_add(self.kept.as_ref().map_or(0, |window| window.called)).min(2)
    }

    /// Whether the window holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.get().is_empty()
    }

    /// Closes all buckets before this number, in a window of so many.
    /// Each is shown as it closes, with its number, and with the total as it was before.
    pub fn close_to(&mut self, number: u64, buckets: u64, closing: impl FnMut(u64, &mut MetricsBucket, &WindowTotal)) {
        if let Some(window) = &mut self.kept {
            window.close_to(number, buckets, closing);
        }
        self.closed_to = self.closed_to().max(number);
        if self.is_empty() {
            self.called = self.called();
            self.kept = None;
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |window| size_of::<Window>() + window.heap_bytes())
    }
}

/// Where a bucket is.
pub enum Place<'a> {
    /// Still filling.
    Open(&'a mut MetricsBucket),
    /// Closed, but within the window: what is put here is added to it when the next buckets close.
    Late(&'a mut MetricsBucket),
    /// No longer, or not yet, within the window.
    Outside,
}

impl Window {
    /// Lets an empty window begin here: buckets before this number are closed.
    #[inline]
    pub fn begin(&mut self, number: impl FnOnce() -> u64) {
        if self.is_empty() {
            self.closed_to = self.closed_to.max(number());
        }
    }

    /// The bucket of this number, in a window of so many.
    #[inline]
    pub fn place(&mut self, number: u64, buckets: u64) -> Place<'_> {
        if number < self.closed_to {
            return if number + buckets >= self.closed_to { self.late(number) } else { Place::Outside };
        }
        // Usually the newest, or close to it.
        if self.open.back().is_some_and(|(newest, _)| *newest == number) {
            return self.open.back_mut().map_or(Place::Outside, |(_, bucket)| Place::Open(bucket));
        }
        let behind = self.open.iter().rev().take_while(|(open, _)| *open > number).count();
        let mut at = self.open.len() - behind;
        if at == 0 || self.open.get(at - 1).is_none_or(|(open, _)| *open != number) {
            self.open.insert(at, (number, MetricsBucket::default()));
            self.begin_bucket();
            at += 1;
        }
        self.open.get_mut(at - 1).map_or(Place::Outside, |(_, bucket)| Place::Open(bucket))
    }

    const fn begin_bucket(&mut self) {
        self.called = if self.called < 2 { self.called + 1 } else { 2 };
    }

    fn late(&mut self, number: u64) -> Place<'_> {
        let at = self.late.partition_point(|(other, _)| *other < number);
        if self.late.get(at).is_none_or(|(other, _)| *other != number) {
            self.late.insert(at, (number, MetricsBucket::default()));
            // More of the only bucket there was is no other one.
            if self.closed.is_empty() || self.last != number {
                self.begin_bucket();
            }
        }
        self.late.get_mut(at).map_or(Place::Outside, |(_, bucket)| Place::Late(bucket))
    }

    /// Counts the time a call that ended in the bucket `last`, or as many as its weight says, spent in the buckets it
    /// went through; what lies before a window of `buckets` is left out. Work by the length of the call in buckets, at
    /// most the window's.
    #[inline]
    pub fn spend(&mut self, last: u64, (start, end): (u64, u64), weight: u32, bucket_size: u64, buckets: u64) {
        // Most calls begin in the bucket they end in, and a division is dear.
        let within = end - start <= end - last * bucket_size;
        let first = if within { last } else { (start / bucket_size).max((last + 1).saturating_sub(buckets)) };
        if self.busy.is_empty() {
            // Room for the window and for what may be open beyond it.
            self.busy = vec![0; usize::try_from((2 * buckets).next_power_of_two()).unwrap_or_default()];
            self.busy_to = first;
        }
        let length = self.busy.len() as u64;
        if last + length < self.busy_to {
            return;
        }
        while self.busy_to <= last {
            // A long gap clears every place once, not once a bucket.
            self.busy_to = self.busy_to.max((last + 1).saturating_sub(length));
            if let Some(slot) = self.slot(self.busy_to) {
                *slot = 0;
            }
            self.busy_to += 1;
        }
        for number in first.max((self.busy_to).saturating_sub(length))..=last {
            let from = start.max(number * bucket_size);
            let to = end.min((number + 1) * bucket_size);
            if let Some(slot) = self.slot(number) {
                *slot = slot.saturating_add(to.saturating_sub(from).saturating_mul(u64::from(weight)));
            }
        }
    }

    /// The place of a bucket's time; there is a power of two of them.
    #[inline]
    fn slot(&mut self, number: u64) -> Option<&mut u64> {
        let at = number & (self.busy.len() as u64).wrapping_sub(1);
        usize::try_from(at).ok().and_then(|at| self.busy.get_mut(at))
    }

    /// Time that calls spent in a bucket, in nanoseconds.
    pub fn busy(&self, number: u64) -> u64 {
        let length = self.busy.len() as u64;
        if number >= self.busy_to || number + length < self.busy_to || length == 0 {
            return 0;
        }
        usize::try_from(number & (length - 1)).ok().and_then(|at| self.busy.get(at)).copied().unwrap_or_default()
    }

    /// Adds to a closed bucket that is within the window, and to the total with it.
    fn add_late(&mut self, number: u64, late: &mut MetricsBucket) {
        let mut packed = std::mem::take(&mut self.closed);
        let mut at = self.first;
        let mut first = true;
        let mut kept = Vec::with_capacity(packed.len() + 64);
        let mut records = Vec::new();
        let bytes = packed.make_contiguous();
        let mut rest: &[u8] = bytes;
        while !rest.is_empty() {
            let gap = get(&mut rest);
            at = if first { self.first } else { at + gap };
            first = false;
            let length = usize::try_from(get(&mut rest)).unwrap_or_default();
            let (bucket, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            records.push((at, bucket));
        }
        let position = records.partition_point(|(other, _)| *other < number);
        let mut bucket = match records.get(position) {
            Some((other, packed)) if *other == number => {
                let bucket = MetricsBucket::unpack(packed);
                records.remove(position);
                bucket
            }
            _ => MetricsBucket::default(),
        };
        self.total.take(&mut bucket);
        bucket.merge(late);
        self.total.add(&mut bucket);
        let mut changed = Vec::new();
        bucket.pack(&mut changed);
        records.insert(position, (number, &changed));
        self.first = records.first().map_or(0, |(number, _)| *number);
        let mut last = self.first;
        for (number, bucket) in &records {
            put(&mut kept, number - last);
            put(&mut kept, bucket.len() as u64);
            kept.extend_from_slice(bucket);
            last = *number;
        }
        self.last = last;
        kept.shrink_to_fit();
        self.closed = kept.into();
    }

    /// Closes all buckets before this number, oldest first, each shown with its number before it is added to the
    /// total, and lets those expire that have left a window of `buckets`.
    pub fn close_to(&mut self, number: u64, buckets: u64, mut closing: impl FnMut(u64, &mut MetricsBucket, &WindowTotal)) {
        for (late, mut bucket) in std::mem::take(&mut self.late) {
            self.add_late(late, &mut bucket);
        }
        while let Some((next, _)) = self.open.front()
            && *next < number
        {
            let Some((next, mut bucket)) = self.open.pop_front() else { break };
            self.expire(next.saturating_sub(buckets.saturating_sub(1)));
            bucket.busy = self.busy(next);
            closing(next, &mut bucket, &self.total);
            self.keep(next, &mut bucket);
        }
        if number > self.closed_to {
            self.closed_to = number;
            self.expire(number.saturating_sub(buckets));
        }
        if self.open.is_empty() {
            self.open = VecDeque::new();
            if self.closed.is_empty() {
                self.busy = Vec::new();
            }
        }
    }

    fn keep(&mut self, number: u64, bucket: &mut MetricsBucket) {
        self.total.add(bucket);
        let mut packed = Vec::new();
        bucket.pack(&mut packed);
        if self.closed.is_empty() {
            self.first = number;
            self.last = number;
        }
        let mut head = Vec::with_capacity(12);
        put(&mut head, number - self.last);
        put(&mut head, packed.len() as u64);
        let needed = head.len() + packed.len();
        if self.closed.capacity() - self.closed.len() < needed {
            // Doubling would leave half of a circuit's memory unused.
            self.closed.reserve_exact(needed + self.closed.len() / 8);
        }
        self.closed.extend(head);
        self.closed.extend(packed);
        self.last = number;
    }

    /// The number of the first bucket that holds something and is not closed; of the first that is not closed, if none does.
    pub fn first_open(&self) -> u64 {
        self.open.front().map_or(self.closed_to, |(number, _)| *number)
    }

    /// Forgets closed buckets before this number.
    fn expire(&mut self, number: u64) {
        while !self.closed.is_empty() && self.first < number {
            self.pop_varint();
            let length = usize::try_from(self.pop_varint()).unwrap_or_default();
            let packed: Vec<u8> = self.closed.drain(..length.min(self.closed.len())).collect();
            self.total.take(&mut MetricsBucket::unpack(&packed));
            self.first += self.peek_varint();
        }
        if self.closed.is_empty() && self.closed.capacity() > 0 {
            self.closed = VecDeque::new();
            self.total.latencies.clear();
        }
    }

    fn peek_varint(&self) -> u64 {
        let mut head = [0; 10];
        let length = head.iter_mut().zip(self.closed.iter()).map(|(to, from)| *to = *from).count();
        get(&mut head.get(..length).unwrap_or_default())
    }

    fn pop_varint(&mut self) -> u64 {
        let number = self.peek_varint();
        self.closed.drain(..crate::otlp::wire::varint_len(number).min(self.closed.len()));
        number
    }

    /// The window as it is while the bucket of this number is filling: closed buckets and that one.
    pub fn snapshot(&mut self, number: u64, config: &CircuitMetricsConfig) -> WindowSnapshot {
        self.expire((number + 1).saturating_sub(config.buckets()));
        let mut total = self.total.clone();
        if let Some((_, bucket)) = self.open.iter_mut().find(|(open, _)| *open == number) {
            total.add(bucket);
        }
        WindowSnapshot {
            requests: total.requests(),
            failures: total.failures,
            rejections: total.rejections,
            percentiles: config.percentiles().iter().copied().zip(total.latencies.percentiles(config.percentiles())).collect(),
        }
    }

    /// Mean number of calls that were under way at a time in the closed buckets of a window.
    pub fn concurrency(&self, bucket_size: u64, buckets: u64) -> f64 {
        let busy: u64 = (self.closed_to.saturating_sub(buckets)..self.closed_to).map(|number| self.busy(number)).sum();
        busy as f64 / (bucket_size * buckets) as f64
    }

    /// Sums over the closed buckets of the window.
    pub const fn total(&self) -> &WindowTotal {
        &self.total
    }

    /// Every bucket with a smaller number is closed.
    pub const fn closed_to(&self) -> u64 {
        self.closed_to
    }

    /// Whether the window holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.closed.is_empty() && self.late.is_empty()
    }

    /// Closed buckets that hold something, oldest first, with their numbers.
    pub fn closed_buckets(&self) -> Vec<(u64, MetricsBucket)> {
        let bytes: Vec<u8> = self.closed.iter().copied().collect();
        let mut rest: &[u8] = &bytes;
        let mut found: Vec<(u64, MetricsBucket)> = Vec::new();
        while !rest.is_empty() {
            let gap = get(&mut rest);
            let number = found.last().map_or(self.first, |(last, _)| last + gap);
            let length = usize::try_from(get(&mut rest)).unwrap_or_default();
            let (bucket, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after;
            found.push((number, MetricsBucket::unpack(bucket)));
        }
        found
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let filling: usize = self.open.iter().chain(&self.late).map(|(_, bucket)| bucket.heap_bytes()).sum();
        filling
            + (self.open.capacity() + self.late.capacity()) * size_of::<(u64, MetricsBucket)>()
            + self.closed.capacity()
            + self.total.latencies.heap_bytes()
            + self.busy.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a window holds, worked out from scratch.
    fn expected(calls: &[(u64, u64)], closed_to: u64, buckets: u64) -> WindowTotal {
        let mut total = WindowTotal::default();
        for (number, nanos) in calls.iter().filter(|(number, _)| *number < closed_to && number + buckets >= closed_to) {
            let mut bucket = MetricsBucket::default();
            bucket.call(number.is_multiple_of(3).then_some(1), *nanos, Code::of(*nanos), 1);
            total.add(&mut bucket);
        }
        total
    }

    fn same(left: &WindowTotal, right: &WindowTotal) -> bool {
        let values = |total: &WindowTotal| total.latencies.iter().collect::<Vec<_>>();
        (left.requests(), left.failures, left.duration_sum, values(left)) == (right.requests(), right.failures, right.duration_sum, values(right))
    }

    proptest! {
        /// The heart of it: whatever comes in whatever order, the total is that of the window.
        #[test]
        fn the_total_is_the_sum_of_the_window(
            steps in prop::collection::vec((0_u64..40, 1_000_u64..9_000_000_000, 0_u64..4), 1..200), buckets in 10_u64..20,
        ) {
            let mut window = Window::default();
            let mut counted = Vec::new();
            let mut now = 100;
            window.close_to(now - 5, buckets, |_, _, _| {});
            for (back, nanos, step) in steps {
                let number = now - back.min(now);
                let add = |bucket: &mut MetricsBucket| bucket.call(number.is_multiple_of(3).then_some(1), nanos, Code::of(nanos), 1);
                match window.place(number, buckets) {
                    Place::Open(bucket) | Place::Late(bucket) => add(bucket),
                    Place::Outside => continue,
                }
                counted.push((number, nanos));
                now += step * step;
                window.close_to(now - 5, buckets, |_, _, _| {});
                prop_assert!(same(window.total(), &expected(&counted, now - 5, buckets)));
            }
            window.close_to(now + 1000, buckets, |_, _, _| {});
            prop_assert_eq!(window.total(), &WindowTotal::default());
            prop_assert!(window.is_empty());
        }
    }

    #[test]
    fn time_spent_is_split_over_the_buckets_a_call_went_through() {
        let mut window = Window::default();
        window.spend(2, (950, 2_300), 1, 1_000, 10);
        window.spend(2, (2_100, 2_200), 1, 1_000, 10);
        assert_eq!([0, 1, 2, 3].map(|number| window.busy(number)), [50, 1_000, 400, 0]);
        window.spend(190, (100_000, 190_500), 1, 1_000, 10);
        assert_eq!([180, 181, 190, 2].map(|number| window.busy(number)), [0, 1_000, 500, 0]);
    }

    #[test]
    fn a_second_bucket_counts_also_when_the_first_is_long_gone_or_late() {
        let call = |rolling: &mut Rolling, number: u64| match rolling.get_mut().place(number, 10) {
            Place::Open(bucket) | Place::Late(bucket) => bucket.rejection(1),
            Place::Outside => {}
        };
        let close = |rolling: &mut Rolling, number: u64| rolling.close_to(number, 10, |_, _, _| {});
        let mut rolling = Rolling::default();
        (0..3).for_each(|_| call(&mut rolling, 50));
        close(&mut rolling, 51);
        call(&mut rolling, 50);
        assert_eq!(rolling.called(), 1, "more of the same bucket, late");
        close(&mut rolling, 52);
        call(&mut rolling, 49);
        assert_eq!(rolling.called(), 2);
        let mut rolling = Rolling::default();
        call(&mut rolling, 50);
        close(&mut rolling, 90);
        assert!(rolling.is_empty() && rolling.called() == 1);
        call(&mut rolling, 95);
        assert_eq!(rolling.called(), 2);
    }

    #[test]
    fn buckets_close_in_order_and_once() {
        let mut window = Window::default();
        for number in [7, 3, 5, 3] {
            if let Place::Open(bucket) = window.place(number, 10) {
                bucket.rejection(1);
            }
        }
        let mut closed = Vec::new();
        window.close_to(6, 10, |number, bucket, total| closed.push((number, bucket.rejections, total.rejections)));
        window.close_to(9, 10, |number, bucket, total| closed.push((number, bucket.rejections, total.rejections)));
        assert_eq!(closed, [(3, 2, 0), (5, 1, 2), (7, 1, 3)]);
        assert_eq!(window.closed_buckets().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 5, 7]);
    }
}
