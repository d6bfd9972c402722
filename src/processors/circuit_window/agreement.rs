//! What time it is in a recording, by agreement of those who send.
//!
//! A recording has no clock but those of its senders. The newest end of any span would do, were it not for one sender
//! whose clock is wrong: all others would be late for ever. So what ends far ahead of all that came before is *held*
//! until it is plain what that means. Others follow: there was a pause, and time goes on there. Others do not: that
//! sender's clock is ahead, and its spans are from the future, as they would be live. Only the sender itself goes back:
//! the request came too early. As long as nobody is far ahead, nothing is held.

use std::collections::BTreeMap;

use smallvec::SmallVec;

/// How long a clock must run before it is decided which are ahead: by then everybody who sends has sent, in nanoseconds.
const ROUND: u64 = 60_000_000_000;
/// What may be held in the meantime, in bytes of requests; beyond it is decided at once.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Clocks that are less apart, in nanoseconds, can't be told from spans that were kept back on their way.
const SKEW_MIN: u64 = 10_000_000_000;

/// The time of a recording, and what is held until it is agreed on.
pub(super) struct Agreement<T> {
    /// How far a sender may be ahead, in nanoseconds.
    skew: u64,
    /// How much later than others a request may come, in nanoseconds.
    lateness: u64,
    /// The time that is agreed on; 0 before there is any.
    now: u64,
    /// What it was when the round began.
    began: u64,
    /// Requests that were heard in this round.
    heard: u64,
    held: Vec<Heard<T>>,
    /// Of `held`, in bytes.
    bytes: usize,
    /// What senders said in this round; there is one while something is held.
    voices: BTreeMap<String, Voice>,
    /// Senders whose clocks are ahead, and how far, in nanoseconds.
    ahead: BTreeMap<String, u64>,
}

/// Senders of a request, each with the newest end of its spans.
pub(super) type Statements = SmallVec<[(String, u64); 1]>;

/// A request that waits for agreement.
struct Heard<T> {
    request: T,
    bytes: usize,
    statements: Statements,
    time: u64,
    /// What is from the future if it turns out to be; 0 if no time was agreed on when it came.
    horizon: u64,
    /// Its place in the round.
    order: u64,
}

/// A request whose turn it is.
pub(super) struct Due<T> {
    pub(super) request: T,
    /// Spans that end later are from the future.
    pub(super) horizon: u64,
    /// Whether time goes on with it.
    pub(super) moves: bool,
}

/// What a sender said in a round.
#[derive(Clone, Copy, Default)]
struct Voice {
    /// Since it is ahead: what it said first.
    first: u64,
    last: u64,
    /// The place of its last request.
    spoke: u64,
    /// Whether it was ahead when it spoke last.
    ahead: bool,
    /// Whether it ever was not.
    par: bool,
}

/// The time of a request: the lower middle of the newest ends of its resources, so that one of them can't move it; 0
/// if none of them has any.
pub(super) fn time_of(newest_ends: impl Iterator<Item = u64>) -> u64 {
    let mut all: SmallVec<[u64; 8]> = newest_ends.filter(|end| *end > 0).collect();
    lower_middle(&mut all).unwrap_or_default()
}

fn lower_middle(all: &mut [u64]) -> Option<u64> {
    all.sort_unstable();
    all.get(all.len().checked_sub(1)? / 2).copied()
}

impl<T> Agreement<T> {
    /// With the most that a clock may be ahead, and the most that spans may be late, in nanoseconds.
    pub(super) fn new(max_clock_skew: u64, allowed_lateness: u64) -> Self {
        Self {
            skew: max_clock_skew.max(SKEW_MIN),
            lateness: allowed_lateness,
            now: 0,
            began: 0,
            heard: 0,
            held: Vec::new(),
            bytes: 0,
            voices: BTreeMap::new(),
            ahead: BTreeMap::new(),
        }
    }

    /// Whether a request of that time needs no agreement.
    pub(super) fn is_plain(&self, time: u64) -> bool {
        self.held.is_empty() && !self.is_ahead(time)
    }

    /// Beyond what spans of a request that needs no agreement are from the future.
    pub(super) fn horizon(&self, time: u64) -> u64 {
        self.now.max(time).saturating_add(self.skew)
    }

    /// Time went on.
    pub(super) fn reached(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Senders whose clocks are ahead of the others', and how far, in nanoseconds.
    pub(super) fn ahead(&self) -> impl Iterator<Item = (&str, u64)> {
        self.ahead.iter().map(|(sender, by)| (sender.as_str(), *by))
    }

    /// Hears a request; gives those whose turn it is, in their order.
    pub(super) fn hear(&mut self, request: T, bytes: usize, statements: Statements) -> Vec<Due<T>> {
        let mut due = Vec::new();
        if self.held.is_empty() {
            self.voices.clear();
            (self.began, self.heard) = (self.now, 0);
        }
        self.heard += 1;
        self.note(&statements);
        let time = time_of(statements.iter().map(|(_, end)| *end));
        let horizon = if self.now > 0 { self.now.saturating_add(self.skew) } else { 0 };
        let heard = Heard { request, bytes, statements, time, horizon, order: self.heard };
        if self.is_ahead(time) {
            self.hold(heard);
        } else {
            let horizon = self.horizon(time);
            self.turn(heard, horizon, true, &mut due);
        }
        self.release(&mut due);
        if self.is_due() {
            self.vote(false, &mut due);
        }
        due
    }

    /// Decides on what is held at the end of a recording; gives it, in its order.
    pub(super) fn finish(&mut self) -> Vec<Due<T>> {
        let mut due = Vec::new();
        while !self.held.is_empty() {
            let before = self.held.len();
            self.vote(true, &mut due);
            if self.held.len() == before {
                self.stay(true, &mut due);
            }
        }
        due
    }

    fn is_ahead(&self, time: u64) -> bool {
        time > 0 && (self.now == 0 || time > self.now.saturating_add(self.skew))
    }

    fn note(&mut self, statements: &Statements) {
        for (sender, end) in statements.iter().filter(|(_, end)| *end > 0) {
            let ahead = self.is_ahead(*end);
            let voice = self.voices.entry(sender.clone()).or_default();
            if ahead && !voice.ahead {
                voice.first = *end;
            }
            *voice = Voice { first: voice.first, last: *end, spoke: self.heard, ahead, par: voice.par || !ahead };
        }
    }

    fn hold(&mut self, heard: Heard<T>) {
        self.bytes += heard.bytes;
        self.held.push(heard);
    }

    fn take_held(&mut self) -> Vec<Heard<T>> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }

    fn turn(&mut self, heard: Heard<T>, horizon: u64, moves: bool, due: &mut Vec<Due<T>>) {
        if moves {
            let newest = heard.statements.iter().map(|(_, end)| *end).filter(|end| *end <= horizon).max();
            self.reached(newest.unwrap_or_default());
        }
        due.push(Due { request: heard.request, horizon, moves });
    }

    fn any_voice(&self, heard: &Heard<T>, is: impl Fn(&Voice) -> bool) -> bool {
        heard.statements.iter().any(|(sender, end)| *end > 0 && self.voices.get(sender).is_some_and(&is))
    }

    /// What came too early, as its sender has gone back since, has its turn when time has come so far.
    fn release(&mut self, due: &mut Vec<Due<T>>) {
        let reach = self.now.saturating_add(self.skew);
        if self.now == 0 || self.held.iter().all(|heard| heard.time > reach) {
            return;
        }
        for heard in self.take_held() {
            if heard.time <= reach && self.any_voice(&heard, |voice| voice.par) {
                self.turn(heard, reach, false, due);
            } else {
                self.hold(heard);
            }
        }
    }

    /// Whether everybody has had time to speak, or no more can be held.
    fn is_due(&self) -> bool {
        let runs = |voice: &Voice| voice.ahead && voice.last.saturating_sub(voice.first) >= ROUND;
        let goes_on = self.began > 0 && self.now - self.began >= ROUND;
        !self.held.is_empty() && (goes_on || self.bytes > HELD_BYTES_MAX || self.voices.values().any(runs))
    }

    fn vote(&mut self, is_last: bool, due: &mut Vec<Due<T>>) {
        match self.elsewhere() {
            Some(most) => self.go_on(most, due),
            None => self.stay(is_last, due),
        }
        self.began = self.now;
    }

    /// Up to when time goes on, if more senders agree on that than have stayed behind.
    fn elsewhere(&self) -> Option<u64> {
        let mut ahead: SmallVec<[u64; 8]> = self.voices.values().filter(|voice| voice.ahead).map(|voice| voice.last).collect();
        let behind = self.voices.len() - ahead.len();
        let middle = lower_middle(&mut ahead)?;
        let agreeing = ahead.iter().filter(|end| end.abs_diff(middle) <= self.skew).count();
        (agreeing > behind).then(|| middle.saturating_add(self.skew))
    }

    /// What is held has its turn. Senders that are ahead even of that stay held, from where they were.
    fn go_on(&mut self, most: u64, due: &mut Vec<Due<T>>) {
        let held = self.take_held();
        let agree: Vec<bool> = held.iter().map(|heard| heard.time <= most && self.any_voice(heard, |voice| voice.last <= most)).collect();
        let first = held.iter().zip(&agree).find(|(_, agrees)| **agrees).map_or(0, |(heard, _)| heard.time);
        let mut now = if self.now > 0 { self.now } else { first };
        let mut since: BTreeMap<String, u64> = BTreeMap::new();
        for (mut heard, agrees) in held.into_iter().zip(agree) {
            let reach = now.saturating_add(self.skew);
            if agrees {
                now = now.max(heard.time);
                let horizon = self.horizon(heard.time);
                self.turn(heard, horizon, true, due);
            } else if heard.time <= reach {
                self.turn(heard, reach, true, due);
            } else {
                for (sender, _) in &heard.statements {
                    since.entry(sender.clone()).or_insert(heard.order);
                }
                heard.horizon = if heard.horizon > 0 { heard.horizon } else { reach };
                self.hold(heard);
            }
        }
        // Those who spoke after one that is still ahead, and did not follow it, speak against it in the next round.
        since.retain(|sender, _| self.voices.get(sender).is_some_and(|voice| voice.ahead && voice.last > most));
        let first = since.values().min().copied().unwrap_or(u64::MAX);
        self.voices.retain(|sender, voice| {
            let ahead = since.contains_key(sender);
            *voice = Voice { first: voice.last, ahead, par: !ahead, ..*voice };
            ahead || voice.spoke > first
        });
    }

    /// What is held is from the future, but for what may have come too early.
    fn stay(&mut self, is_last: bool, due: &mut Vec<Due<T>>) {
        let mut held = self.take_held();
        if is_last {
            held.sort_by_key(|heard| heard.time);
        }
        for heard in held {
            let is_outvoted = self.any_voice(&heard, |voice| !voice.par);
            let near = self.now.saturating_add(self.skew).saturating_add(self.lateness);
            if is_last && !is_outvoted {
                let horizon = heard.time.saturating_add(self.skew);
                self.turn(heard, horizon, true, due);
            } else if !is_last && heard.time <= near && self.any_voice(&heard, |voice| voice.par) {
                self.hold(heard);
            } else {
                let horizon = if heard.horizon > 0 { heard.horizon } else { self.now.saturating_add(self.skew) };
                for (sender, end) in &heard.statements {
                    if self.voices.get(sender).is_some_and(|voice| !voice.par) {
                        self.ahead.insert(sender.clone(), end.saturating_sub(horizon - self.skew));
                    }
                }
                self.turn(heard, horizon, false, due);
            }
        }
        self.voices.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use smallvec::smallvec;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_795_000_000;

    /// Requests of one sender each, and the second they end in: how often each sender was from the future, and the order
    /// they had their turn in.
    fn play(requests: &[(&str, u64)]) -> (BTreeMap<String, usize>, Vec<usize>) {
        let mut agreement = Agreement::new(10 * SECOND, 15 * SECOND);
        let mut due = Vec::new();
        for (place, (sender, second)) in requests.iter().enumerate() {
            let end = (START + second) * SECOND;
            if agreement.is_plain(end) {
                due.push(Due { request: place, horizon: agreement.horizon(end), moves: true });
                agreement.reached(end);
            } else {
                due.extend(agreement.hear(place, 100, smallvec![((*sender).to_owned(), end)]));
            }
        }
        due.extend(agreement.finish());
        let mut future = BTreeMap::new();
        for one in &due {
            let (sender, second) = requests[one.request];
            if (START + second) * SECOND > one.horizon {
                *future.entry(sender.to_owned()).or_default() += 1;
            }
        }
        (future, due.into_iter().map(|one| one.request).collect())
    }

    /// Nobody is from the future, and all have their turn as they came.
    fn is_as_it_came(requests: &[(&str, u64)]) {
        let (future, order) = play(requests);
        assert!(future.is_empty(), "{future:?}");
        assert!(order.into_iter().eq(0..requests.len()));
    }

    #[test]
    fn a_clock_that_is_ahead_moves_nobody_elses() {
        for ahead in [30, 600, 86_400] {
            let three = |second: u64| [("a", second), ("w", second + ahead), ("b", second)];
            for seconds in [20, 400] {
                let requests: Vec<(&str, u64)> = (0..seconds).flat_map(three).collect();
                let (future, order) = play(&requests);
                assert_eq!(order.len(), requests.len());
                assert!(!future.contains_key("a") && !future.contains_key("b"), "{ahead} {seconds}: {future:?}");
                assert!(ahead < 100 || future["w"] == requests.len() / 3, "{ahead} {seconds}: {future:?}");
            }
        }
    }

    #[test]
    fn once_is_enough_to_be_ahead() {
        for at in [0, 1, 200] {
            let mut requests: Vec<(&str, u64)> = (0..400).flat_map(|second| [("a", second), ("b", second)]).collect();
            requests.insert(at, ("w", at as u64 + 600));
            let (future, order) = play(&requests);
            assert_eq!((future.get("w"), future.len(), order.len()), (Some(&1), 1, requests.len()), "{at}");
        }
    }

    #[test]
    fn a_pause_is_no_wrong_clock() {
        for pause in [12, 60, 3_600, 86_400] {
            let two = |second: u64| [("a", second), ("b", second)];
            let (before, after) = (0..100, 100 + pause..200 + pause);
            is_as_it_came(&before.clone().chain(after.clone()).flat_map(two).collect::<Vec<_>>());
            is_as_it_came(&before.clone().chain(after.clone()).map(|second| ("a", second)).collect::<Vec<_>>());
            // One of them ended before it; one recording behind the other.
            let ended: Vec<(&str, u64)> = before.clone().flat_map(two).chain(after.clone().map(|second| ("a", second))).collect();
            is_as_it_came(&ended);
            let other: Vec<(&str, u64)> = before.map(|second| ("a", second)).chain(after.map(|second| ("b", second))).collect();
            is_as_it_came(&other);
        }
        is_as_it_came(&[("a", 0), ("b", 3_600), ("c", 7_200)]);
    }

    #[test]
    fn what_comes_too_early_has_its_turn_when_time_has_come_so_far() {
        let mut requests: Vec<(&str, u64)> = (0..200).map(|second| ("a", second)).collect();
        let early = requests.remove(118);
        requests.insert(104, early);
        let (future, order) = play(&requests);
        assert!(future.is_empty() && order.len() == requests.len(), "{future:?}");
    }

    proptest! {
        #[test]
        fn every_request_has_its_turn_once(requests in vec((0..4_usize, 0..100_000_u64), 0..200)) {
            let requests: Vec<(&str, u64)> = requests.into_iter().map(|(sender, second)| (["a", "b", "c", "d"][sender], second)).collect();
            let (_, mut order) = play(&requests);
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..requests.len()));
        }
    }
}
