//! What is usual in the calls of one circuit: shares of calls, calls a bucket, and quantiles of latency.
//!
//! Sources: those of [`evidence`](super::evidence) for how widely each spreads; quantiles are followed as by Robbins and
//! Monro, A stochastic approximation method, 1951.

use super::{
    super::sketch::{Code, Dense},
    chart::{BUCKET_MAX, ENOUGH},
    evidence::{Dispersion, RATE_MIN},
};

/// Latencies are told that seem to exceed the usual by a fifth, and by the least change that is asked for: what is less may
/// be sure, and still nobody's concern.
const LEAST_SLOWER: f64 = 1.2;

/// The shares of calls beyond the two quantiles.
pub(super) const BEYOND_MEDIAN: f64 = 0.5;
pub(super) const BEYOND_NINETY: f64 = 0.1;

/// Seconds over which baselines forget.
const MEMORY: f64 = 300.0;

/// A share is remembered over so many calls at least, and for so many seconds at most.
const MEMORY_CALLS: f64 = 3_000.0;
const MEMORY_MAX: f64 = 3_600.0;

/// Seconds of a block that the first share is taken from: a third of those of a minute with the least, and with the most,
/// are left out.
const FIRST_BLOCK: f64 = 10.0;

/// Seconds and calls that the first quantiles are taken from.
const FIRST_SECONDS: f64 = 30.0;
const FIRST_CALLS: f64 = 50.0;

/// A share of calls, and how widely it spreads.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Share {
    hits: f64,
    pub(super) all: f64,
    /// Of the first minute; empty after that.
    first: Vec<Block>,
    pub(super) is_known: bool,
    pub(super) dispersion: Dispersion,
}

/// Some seconds of the first minute.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Block {
    hits: f64,
    all: f64,
    seconds: f64,
}

impl Share {
    /// Learns from nothing, the first minute being over.
    pub(super) fn anew() -> Self {
        Self { is_known: true, ..Self::default() }
    }

    /// So that one hit among the first calls is no surprise.
    pub(super) fn usual(&self) -> f64 {
        (self.hits + 1.0) / (self.all + 200.0)
    }

    pub(super) fn learn(&mut self, hits: f64, all: f64, rate: f64, seconds: f64) {
        if !self.is_known {
            return self.collect(hits, all, seconds);
        }
        let usual = self.usual();
        self.dispersion.learn(hits - all * usual, all * usual * (1.0 - usual), seconds);
        let memory = (MEMORY_CALLS / rate).clamp(MEMORY, MEMORY_MAX);
        let kept = (1.0 - seconds / memory).max(0.0);
        (self.hits, self.all) = (self.hits * kept + hits, self.all * kept + all);
    }

    /// Bytes on the heap: none but in the first minute.
    pub(super) fn heap_bytes(&self) -> usize {
        self.first.capacity() * size_of::<Block>()
    }

    fn collect(&mut self, hits: f64, all: f64, seconds: f64) {
        match self.first.last_mut().filter(|block| block.seconds < FIRST_BLOCK) {
            Some(block) => *block = Block { hits: block.hits + hits, all: block.all + all, seconds: block.seconds + seconds },
            None => self.first.push(Block { hits, all, seconds }),
        }
    }

    /// The first minute is over: the share is that of its blocks in the middle, since an outage in it must not be the usual
    /// from then on.
    pub(super) fn settle(&mut self) {
        let mut blocks = std::mem::take(&mut self.first);
        blocks.retain(|block| block.all > 0.0);
        blocks.sort_by(|one, other| (one.hits / one.all).total_cmp(&(other.hits / other.all)));
        let aside = blocks.len() / 3;
        for block in blocks.iter().skip(aside).take(blocks.len() - 2 * aside) {
            (self.hits, self.all) = (self.hits + block.hits, self.all + block.all);
        }
        self.is_known = true;
    }
}

/// Calls a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub(super) usual: f64,
    pub(super) age: f64,
    pub(super) dispersion: Dispersion,
    /// How unlikely it is by now, in nats, that nobody called.
    pub(super) silence: f64,
}

impl Rate {
    /// Notes how unlikely the silence has become, or that it is over.
    pub(super) fn hear(&mut self, requests: f64) {
        self.silence = if requests > 0.0 { 0.0 } else { self.silence + self.unlikely() };
    }

    /// How unlikely an empty bucket is, in nats.
    pub(super) fn unlikely(&self) -> f64 {
        (self.usual.max(RATE_MIN) / self.dispersion.spread().bucket).min(BUCKET_MAX * ENOUGH)
    }

    pub(super) fn learn(&mut self, count: f64, seconds: f64) {
        let usual = self.usual.max(RATE_MIN);
        if self.age > 0.0 {
            self.dispersion.learn(count - usual, usual, seconds);
        }
        self.usual += (seconds / MEMORY).max(seconds / (self.age + seconds)).min(1.0) * (count - self.usual);
        self.age += seconds;
    }
}

/// Median and 90th percentile of latency.
#[derive(Clone, Debug, Default)]
pub(super) struct Quantiles {
    /// Their logarithms; `None` until enough calls were seen.
    pub(super) logs: Option<(f64, f64)>,
    pub(super) first: Dense,
    pub(super) age: f64,
    pub(super) body: Dispersion,
    pub(super) tail: Dispersion,
}

impl Quantiles {
    /// Calls that took longer than the median, and than the 90th percentile; and those that took longer by a fifth and by
    /// `least` seconds.
    pub(super) fn slower(&self, latencies: &[(u16, u32)], least: f64) -> Option<((f64, f64), (f64, f64))> {
        let (median, ninety) = self.logs?;
        let (median, ninety) = (median.exp(), ninety.exp());
        let beyond = |seconds: f64| {
            let code = Code::of(nanos(seconds)).0;
            // They ascend.
            let slower = latencies.iter().rev().take_while(|(other, _)| *other > code);
            slower.map(|(_, count)| f64::from(*count)).sum()
        };
        let clearly = |usual: f64| beyond((usual * LEAST_SLOWER).max(usual + least));
        Some(((beyond(median), beyond(ninety)), (clearly(median), clearly(ninety))))
    }

    pub(super) fn learn(&mut self, latencies: &[(u16, u32)], (calls, seconds): (f64, f64), slower: Option<(f64, f64)>) {
        self.age += seconds;
        let Some((slower, slowest)) = slower else {
            return self.collect(latencies);
        };
        if calls <= 0.0 {
            return;
        }
        self.body.learn(slower - calls * BEYOND_MEDIAN, calls * 0.25, seconds);
        self.tail.learn(slowest - calls * BEYOND_NINETY, calls * 0.09, seconds);
        let Some((median, ninety)) = &mut self.logs else { return };
        let width = (*ninety - *median).max(0.05);
        let pace = (seconds / MEMORY).max(seconds / (self.age + 60.0)).min(1.0) * (calls / 5.0).min(1.0);
        // One over the density of a log-normal at the two quantiles.
        *median += pace * 2.0 * width * (slower / calls - BEYOND_MEDIAN);
        *ninety += pace * 4.5 * width * (slowest / calls - BEYOND_NINETY);
        *ninety = ninety.max(*median + 0.02);
    }

    fn collect(&mut self, latencies: &[(u16, u32)]) {
        latencies.iter().for_each(|(code, count)| self.first.add(Code(*code), *count));
        if self.age < FIRST_SECONDS || (self.first.total() as f64) < FIRST_CALLS {
            return;
        }
        if let [median, ninety] = self.first.percentiles(&[50.0, 90.0])[..] {
            self.logs = Some((median.ln(), ninety.ln().max(median.ln() + 0.02)));
            self.first.clear();
        }
    }
}

/// A latency of so many seconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to latencies that a sketch tells apart")]
pub(super) fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9).clamp(0.0, 4e12) as u64
}
