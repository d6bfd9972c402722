//! A breaker of our own, run over what became of calls where no breaker is known: it says when one would have opened.
//!
//! Thresholds have the names and the meaning of Resilience4j's `CircuitBreakerConfig` with a time-based sliding window:
//! <https://resilience4j.readme.io/docs/circuitbreaker>. The window is the circuit's own, and is looked at when a bucket
//! closes.

/// When it opens, and when it closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InferredRule {
    /// The share of failures in percent, from which on it opens.
    pub failure_rate_threshold: f64,
    /// The share of slow calls in percent, from which on it opens.
    pub slow_call_rate_threshold: f64,
    /// From which on a call is slow, in nanoseconds.
    pub slow_call_duration: u64,
    /// Calls in the window below which it never opens.
    pub minimum_number_of_calls: u64,
    /// How long it stays open, in nanoseconds.
    pub wait_duration_in_open_state: u64,
    /// Calls that decide whether it closes again.
    pub permitted_number_of_calls_in_half_open_state: u64,
}

impl Default for InferredRule {
    fn default() -> Self {
        Self {
            failure_rate_threshold: 50.0,
            slow_call_rate_threshold: 100.0,
            slow_call_duration: 60_000_000_000,
            minimum_number_of_calls: 100,
            wait_duration_in_open_state: 60_000_000_000,
            permitted_number_of_calls_in_half_open_state: 10,
        }
    }
}

/// Calls that were sent, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::circuit) struct Outcomes {
    pub(in crate::circuit) calls: u64,
    pub(in crate::circuit) failures: u64,
    pub(in crate::circuit) slow: u64,
}

/// What it would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit) enum Would {
    Trip,
    Recover,
}

/// The state of such a breaker.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::circuit) struct Inferred(State);

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    /// Closed again: only what came since then counts, until the window holds nothing older.
    Recovered {
        at: u64,
        since: Outcomes,
    },
    Open {
        at: u64,
    },
    HalfOpen {
        seen: Outcomes,
    },
}

impl Outcomes {
    fn add(self, other: Self) -> Self {
        Self { calls: self.calls + other.calls, failures: self.failures + other.failures, slow: self.slow + other.slow }
    }

    fn is_bad(self, rule: &InferredRule) -> bool {
        let reaches = |count: u64, percent: f64| self.calls > 0 && count as f64 * 100.0 >= percent * self.calls as f64;
        reaches(self.failures, rule.failure_rate_threshold) || reaches(self.slow, rule.slow_call_rate_threshold)
    }
}

impl Inferred {
    /// Whether it is closed, and nothing has to be remembered.
    pub(in crate::circuit) const fn is_idle(&self) -> bool {
        matches!(self.0, State::Closed)
    }

    /// Takes a bucket that closed and ended then, and the window of this length that it completes.
    pub(in crate::circuit) fn take(&mut self, end: u64, bucket: Outcomes, window: Outcomes, length: u64, rule: &InferredRule) -> Option<Would> {
        match self.0 {
            State::Closed => self.judge(end, window, rule),
            State::Recovered { at, since } => {
                let since = since.add(bucket);
                self.0 = if end.saturating_sub(at) >= length { State::Closed } else { State::Recovered { at, since } };
                self.judge(end, since, rule)
            }
            State::Open { at } => {
                if end.saturating_sub(at) >= rule.wait_duration_in_open_state {
                    self.0 = State::HalfOpen { seen: Outcomes::default() };
                }
                None
            }
            State::HalfOpen { seen } => {
                let seen = seen.add(bucket);
                self.0 = State::HalfOpen { seen };
                if seen.calls < rule.permitted_number_of_calls_in_half_open_state {
                    return None;
                }
                if seen.is_bad(rule) {
                    self.0 = State::Open { at: end };
                    return None;
                }
                self.0 = State::Recovered { at: end, since: Outcomes::default() };
                Some(Would::Recover)
            }
        }
    }

    fn judge(&mut self, end: u64, seen: Outcomes, rule: &InferredRule) -> Option<Would> {
        let trips = seen.calls >= rule.minimum_number_of_calls.max(1) && seen.is_bad(rule);
        trips.then(|| {
            self.0 = State::Open { at: end };
            Would::Trip
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Runs so many seconds with ten calls each; gives what it would have done, by second.
    fn run(failing: impl Fn(u64) -> u64) -> Vec<(u64, Would)> {
        let rule = InferredRule { wait_duration_in_open_state: 5 * SECOND, ..InferredRule::default() };
        let (mut breaker, mut done) = (Inferred::default(), Vec::new());
        let bucket = |second: u64| Outcomes { calls: 10, failures: failing(second), slow: 0 };
        for second in 0..120_u64 {
            let window = (second.saturating_sub(59)..=second).map(bucket).fold(Outcomes::default(), Outcomes::add);
            let would = breaker.take((second + 1) * SECOND, bucket(second), window, 60 * SECOND, &rule);
            done.extend(would.map(|would| (second, would)));
        }
        done
    }

    #[test]
    fn it_opens_at_the_threshold_and_closes_after_good_calls() {
        assert_eq!(run(|_| 4), [], "40 % is below the threshold");
        // From second 20 on all fail: half of the window has failed at second 39. Open for 5 s, then ten calls decide.
        let done = run(|second| if (20..50).contains(&second) { 10 } else { 0 });
        assert_eq!(done, [(39, Would::Trip), (51, Would::Recover)]);
        assert_eq!(run(|second| if second < 4 { 10 } else { 0 }), [], "fewer calls than the minimum, then fewer failures");
    }

    #[test]
    fn what_was_before_a_recovery_does_not_count_again() {
        let done = run(|second| if second < 30 { 10 } else { 0 });
        assert_eq!(done.first(), Some(&(9, Would::Trip)));
        assert_eq!(done.iter().filter(|(_, would)| *would == Would::Trip).count(), 1);
    }
}
