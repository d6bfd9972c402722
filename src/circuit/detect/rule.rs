//! Texts that libraries write, and what they mean: rules as data, found in one pass.

use aho_corasick::{AhoCorasick, MatchKind};
use smallvec::SmallVec;

/// What a text of a library means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meaning {
    /// An open breaker refused the call.
    Rejected,
    /// This very call failed and opened the breaker.
    Opened,
    /// This very call was a probe that failed: the breaker stays open.
    ProbeFailed,
    /// A half-open breaker that is full refused the call: a probe is under way.
    Full,
    /// A half-open breaker that is full, or something else: it counts only while the circuit is not closed.
    Maybe,
    /// A bulkhead, a rate limiter or a time limiter refused the call: no breaker did.
    NoBreaker,
}

/// Where a text stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `exception.type` or `error.type`.
    Type,
    /// `exception.message` or the status message.
    Message,
    /// `exception.stacktrace`.
    StackTrace,
    /// An attribute of the span; one of the texts must be among its values, which commas part.
    Flag(Box<str>),
}

/// Where the breaker's name stands in the text it was found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameAt {
    /// Nowhere.
    Nowhere,
    /// Between these two texts.
    Between(Box<str>, Box<str>),
    /// From the beginning to this text.
    Before(Box<str>),
    /// From behind this text to the end.
    After(Box<str>),
    /// It is the whole text.
    Whole,
}

/// A text of a library, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The library that writes it.
    pub library: Box<str>,
    /// What it means.
    pub meaning: Meaning,
    /// Where it stands.
    pub place: Place,
    /// What must be there, in any order and, but for stack traces, whatever the case; of a flag one of them.
    pub texts: Vec<Box<str>>,
    /// Whether the last of the texts must be the end: errors that wrap others keep those at their end, and what is said in
    /// the middle of a sentence is something else.
    pub at_end: bool,
    /// The breaker's name.
    pub name: NameAt,
}

/// What a span says of an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// `exception.type` or `error.type`.
    pub kind: &'a [u8],
    /// `exception.message` or the status message.
    pub message: &'a [u8],
    /// `exception.stacktrace`.
    pub stack_trace: &'a [u8],
}

/// A rule that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'a> {
    /// Index of the rule; of several that fit the one with the least.
    pub rule: u16,
    /// What it means.
    pub meaning: Meaning,
    /// The breaker's name; empty if it is not told.
    pub name: &'a [u8],
}

/// The most rules, those of users included.
pub const RULES_MAX: usize = 1_000;

/// Finds the first rule that fits, in one pass over each text.
#[derive(Clone, Debug)]
pub struct Matcher {
    rules: Vec<Rule>,
    types: Searcher,
    messages: Searcher,
    stack_traces: Searcher,
}

/// Searches one place for the texts of all rules at once.
#[derive(Clone, Debug)]
struct Searcher {
    /// `None` if no rule looks there; else what tells many times faster than the other, which finds all texts, that
    /// there are none.
    automata: Option<(AhoCorasick, AhoCorasick)>,
    /// Whether the case of letters does not matter.
    any_case: bool,
    /// Of each text: its rule, and its number within that.
    of: Vec<(u16, u8)>,
}

/// Rules that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRules(String);

impl Searcher {
    fn new(rules: &[Rule], place: &Place) -> Result<Self, BadRules> {
        // Names of classes in stack traces are written in one way only.
        let any_case = *place != Place::StackTrace;
        let (mut texts, mut of) = (Vec::new(), Vec::new());
        for (index, rule) in (0..).zip(rules) {
            if rule.place == *place {
                texts.extend(rule.texts.iter().map(|text| if any_case { text.to_ascii_lowercase() } else { text.to_string() }));
                of.extend((0..).zip(&rule.texts).map(|(number, _)| (index, number)));
            }
        }
        let build = |kind| AhoCorasick::builder().match_kind(kind).build(&texts).map_err(|error| BadRules(error.to_string()));
        let searched = !texts.is_empty();
        let automata = if searched { Some((build(MatchKind::LeftmostFirst)?, build(MatchKind::Standard)?)) } else { None };
        Ok(Self { automata, any_case, of })
    }

    /// The rule with the least index all of whose texts are there.
    fn first(&self, rules: &[Rule], text: &[u8]) -> Option<u16> {
        let (sieve, automaton) = self.automata.as_ref()?;
        if text.is_empty() {
            return None;
        }
        let mut lowered: SmallVec<[u8; 512]> = SmallVec::new();
        let text = if self.any_case {
            lowered.extend_from_slice(text);
            lowered.make_ascii_lowercase();
            &lowered
        } else {
            text
        };
        if !sieve.is_match(text) {
            return None;
        }
        // Rules of which something was found, and one bit for each of their texts.
        let mut found: SmallVec<[(u16, u8); 8]> = SmallVec::new();
        for one in automaton.find_overlapping_iter(text) {
            let Some((rule, number)) = self.of.get(one.pattern().as_usize()).copied() else { continue };
            let bit = 1_u8.checked_shl(u32::from(number)).unwrap_or_default();
            match found.iter_mut().find(|(other, _)| *other == rule) {
                Some((_, bits)) => *bits |= bit,
                None => found.push((rule, bit)),
            }
        }
        let ends = |rule: &Rule| {
            let last = rule.texts.last().map(|text| text.as_bytes()).unwrap_or_default();
            let text = text.trim_ascii_end();
            text.len().checked_sub(last.len()).and_then(|at| text.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(last))
        };
        let fits = |rule: &Rule, bits: u8| bits.count_ones() as usize == rule.texts.len() && (!rule.at_end || ends(rule));
        let whole = |(rule, bits): &(u16, u8)| rules.get(usize::from(*rule)).is_some_and(|rule| fits(rule, *bits));
        found.iter().filter(|one| whole(one)).map(|(rule, _)| *rule).min()
    }
}

impl Matcher {
    /// From rules in order: of several that fit a span the first counts.
    ///
    /// # Errors
    /// There are too many, or one has no text, more than eight, or an empty one.
    pub fn new(rules: Vec<Rule>) -> Result<Self, BadRules> {
        if rules.len() > RULES_MAX {
            return Err(BadRules(format!("there are {} rules; {RULES_MAX} at the most", rules.len())));
        }
        if let Some(wrong) = rules.iter().find(|rule| !(1..=8).contains(&rule.texts.len()) || rule.texts.iter().any(|text| text.is_empty())) {
            return Err(BadRules(format!("a rule of `{}` must have one to eight texts, none of them empty", wrong.library)));
        }
        Ok(Self {
            types: Searcher::new(&rules, &Place::Type)?,
            messages: Searcher::new(&rules, &Place::Message)?,
            stack_traces: Searcher::new(&rules, &Place::StackTrace)?,
            rules,
        })
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that fits what a span says of errors and the values of its flags, by attribute.
    pub fn find<'a>(&self, said: &[Said<'a>], flag: impl Fn(&str) -> &'a [u8]) -> Option<Match<'a>> {
        let mut best: Option<(u16, &'a [u8])> = None;
        let mut take = |rule: Option<u16>, text: &'a [u8]| {
            if let Some(rule) = rule
                && best.is_none_or(|(other, _)| rule < other)
            {
                best = Some((rule, text));
            }
        };
        for (at, one) in said.iter().enumerate() {
            // A status often repeats what the exception says, with its type before it.
            let repeats = |other: &Said<'_>| !other.message.is_empty() && one.message.ends_with(other.message);
            if !said.iter().take(at).any(repeats) {
                take(self.messages.first(&self.rules, one.message), one.message);
            }
            // A name stands in the message, also where the type tells what it means.
            take(self.types.first(&self.rules, one.kind), one.message);
            take(self.stack_traces.first(&self.rules, one.stack_trace), one.stack_trace);
        }
        for (index, rule) in (0..).zip(&self.rules) {
            if let Place::Flag(key) = &rule.place {
                let value = flag(key);
                let has =
                    |text: &str| value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(text.as_bytes()) || text == "*");
                if !value.is_empty() && rule.texts.iter().any(|text| has(text)) {
                    take(Some(index), value);
                }
            }
        }
        let (rule, text) = best?;
        let found = self.rules.get(usize::from(rule))?;
        Some(Match { rule, meaning: found.meaning, name: found.name.find(text) })
    }
}

impl NameAt {
    fn find<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let at = |text: &[u8], part: &str| text.windows(part.len().max(1)).position(|window| window.eq_ignore_ascii_case(part.as_bytes()));
        match self {
            Self::Nowhere => &[],
            Self::Whole => text.trim_ascii(),
            Self::Before(end) => at(text, end).and_then(|at| text.get(..at)).unwrap_or_default().trim_ascii(),
            Self::After(start) => at(text, start).and_then(|at| text.get(at + start.len()..)).unwrap_or_default().trim_ascii(),
            Self::Between(start, end) => {
                let rest = at(text, start).and_then(|at| text.get(at + start.len()..)).unwrap_or_default();
                at(rest, end).and_then(|at| rest.get(..at)).unwrap_or_default()
            }
        }
    }
}
