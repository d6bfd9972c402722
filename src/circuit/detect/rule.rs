//! Texts that libraries write, and what they mean: rules as data, found in one pass.

use aho_corasick::{AhoCorasick, MatchKind};
use smallvec::SmallVec;

use super::cause::{self, Cause};

/// What a text of a library means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Meaning {
    /// An open breaker refused the call.
    Rejected,
    /// A breaker that an operator holds open refused the call.
    ForcedOpen,
    /// This very call failed and opened the breaker.
    Opened,
    /// This very call was a probe that failed: the breaker stays open.
    ProbeFailed,
    /// A half-open breaker that is full refused the call: a probe is under way.
    Full,
    /// A half-open breaker that is full, or something else: it counts only while the circuit is not closed.
    Maybe,
    /// A limit of a proxy on connections or requests refused the call: such a limit has no open state.
    Limit,
    /// A bulkhead, a rate limiter or a time limiter refused the call: no breaker did.
    NoBreaker,
}

impl Meaning {
    /// Whether the call was turned away, so that nothing was sent.
    pub const fn turns_away(self) -> bool {
        matches!(self, Self::Rejected | Self::ForcedOpen | Self::Full | Self::Limit)
    }

    /// Whether a breaker refused the call because it is open, and lets none through.
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::Rejected | Self::ForcedOpen)
    }

    /// Whether the breaker is open after it.
    pub const fn leaves_open(self) -> bool {
        self.is_refusal() || matches!(self, Self::Opened | Self::ProbeFailed)
    }
}

/// Where a text stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `exception.type` or `error.type`, or the type of a cause.
    Type,
    /// `exception.message` or the status message, or what a cause says.
    Message,
    /// `exception.stacktrace`, anywhere in it.
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
    /// The last word before this text.
    WordBefore(Box<str>),
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
    /// Whether a user wrote it: then it comes before those of libraries, wherever in a span each fits.
    pub own: bool,
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
    /// Index of the rule.
    pub rule: u16,
    /// What it means.
    pub meaning: Meaning,
    /// The breaker's name; empty if it is not told.
    pub name: &'a [u8],
    /// Whether the error's own type tells of a breaker, or a flag or a user's rule does. Else the text may be a quotation:
    /// clients put answers of their callees into the messages of their errors.
    pub typed: bool,
    /// Whether the text looks like an answer: it holds a body or a status.
    pub answer: bool,
}

/// Whether a message looks like what a client makes of an answer: it holds JSON or HTML, a status of HTTP, or gRPC's words.
fn is_answer(text: &[u8]) -> bool {
    let holds = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    let statuses: [&[u8]; 4] = [b"UNAVAILABLE", b"INTERNAL", b"UNKNOWN", b"FAILED_PRECONDITION"];
    let mut words = text.split(|byte| !byte.is_ascii_alphanumeric());
    text.iter().any(|byte| matches!(byte, b'{' | b'<'))
        || holds(b"desc = ")
        || statuses.iter().any(|status| text.starts_with(status))
        || words.any(|word| matches!(word, [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']))
}

/// The most rules, those of users included.
pub const RULES_MAX: usize = 1_000;

/// Finds the rule that counts of those that fit, in one pass over each text.
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

/// A rule that fits, and the text that holds the breaker's name.
#[derive(Clone, Copy)]
struct Fit<'a> {
    rule: u16,
    text: &'a [u8],
    /// See [`Match::typed`].
    typed: bool,
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

    /// Whether one of the texts may be there.
    fn may_find(&self, text: &[u8]) -> bool {
        self.automata.as_ref().is_some_and(|(sieve, _)| sieve.is_match(self.cased(text, &mut SmallVec::new())))
    }

    /// A text as it is searched: in its own case, or in lower case.
    fn cased<'a>(&self, text: &'a [u8], lowered: &'a mut SmallVec<[u8; 512]>) -> &'a [u8] {
        if !self.any_case {
            return text;
        }
        lowered.extend_from_slice(text);
        lowered.make_ascii_lowercase();
        lowered.as_slice()
    }

    /// The rule with the least index all of whose texts are there.
    fn first(&self, rules: &[Rule], text: &[u8]) -> Option<u16> {
        let (sieve, automaton) = self.automata.as_ref()?;
        if text.is_empty() {
            return None;
        }
        let mut lowered = SmallVec::new();
        let text = self.cased(text, &mut lowered);
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
            let is_last = |at: usize| text.get(at..at + last.len()).is_some_and(|part| part.eq_ignore_ascii_case(last));
            (0..=text.len().saturating_sub(last.len())).any(|at| is_last(at) && ends_sentence(text.get(at + last.len()..).unwrap_or_default()))
        };
        let fits = |rule: &Rule, bits: u8| bits.count_ones() as usize == rule.texts.len() && (!rule.at_end || ends(rule));
        let whole = |(rule, bits): &(u16, u8)| rules.get(usize::from(*rule)).is_some_and(|rule| fits(rule, *bits));
        found.iter().filter(|one| whole(one)).map(|(rule, _)| *rule).min()
    }
}

/// Whether a sentence ends before this: the text ends, or the line, or what follows says more of it.
fn ends_sentence(rest: &[u8]) -> bool {
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    matches!(rest, [] | [b'\n' | b'\r', ..] | [b':' | b',' | b';', b' ', ..] | [b'"' | b'\'' | b')' | b']', ..]) || rest.trim_ascii().is_empty()
}

impl Matcher {
    /// From rules in order: of several that fit one error the first counts.
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

    /// The rule that counts of those that fit what a span says of errors, of what stands behind them, and the values of
    /// its flags, by attribute. Of one error the first rule that fits counts; of several errors a user's own rule, then
    /// one that tells of a breaker: that a limiter had a say does not hide a refusal.
    pub fn find<'a>(&self, said: &[Said<'a>], flag: impl Fn(&str) -> &'a [u8]) -> Option<Match<'a>> {
        let mut best: Option<((bool, bool, u16), Fit<'a>)> = None;
        let mut take = |fit: Option<Fit<'a>>| {
            if let Some(fit) = fit
                && let Some(rule) = self.rules.get(usize::from(fit.rule))
            {
                let rank = (!rule.own, rule.meaning == Meaning::NoBreaker, fit.rule);
                if best.is_none_or(|(other, _)| rank < other) {
                    best = Some((rank, fit));
                }
            }
        };
        for (at, one) in said.iter().enumerate() {
            // A status often repeats what the exception says, with its type before it.
            let repeats = |other: &Said<'_>| !other.message.is_empty() && one.message.ends_with(other.message);
            let text = if said.iter().take(at).any(repeats) { &[][..] } else { one.message };
            take(self.first_of(&Cause { text, kind: one.kind, message: one.message }));
            cause::each(one.stack_trace, |cause| take(self.first_of(&cause)));
            take(self.stack_traces.first(&self.rules, one.stack_trace).map(|rule| Fit { rule, text: one.stack_trace, typed: false }));
        }
        for (index, rule) in (0..).zip(&self.rules) {
            if let Place::Flag(key) = &rule.place {
                let value = flag(key);
                let has =
                    |text: &str| value.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(text.as_bytes()) || text == "*");
                if !value.is_empty() && rule.texts.iter().any(|text| has(text)) {
                    take(Some(Fit { rule: index, text: value, typed: true }));
                }
            }
        }
        let (_, Fit { rule, text, typed }) = best?;
        let found = self.rules.get(usize::from(rule))?;
        Some(Match { rule, meaning: found.meaning, name: found.name.find(text), typed: typed || found.own, answer: is_answer(text) })
    }

    /// The first rule that fits an error by what it says, by its type, or by a type that it names as what it wraps.
    fn first_of<'a>(&self, cause: &Cause<'a>) -> Option<Fit<'a>> {
        // A name stands in the message, also where the type tells what it means.
        let by_type = self.types.first(&self.rules, cause.kind).map(|rule| Fit { rule, text: cause.message, typed: true });
        let by_text = self.messages.first(&self.rules, cause.text).map(|rule| Fit { rule, text: cause.text, typed: by_type.is_some() });
        let mut first = by_text.into_iter().chain(by_type).min_by_key(|fit| fit.rule);
        if self.types.may_find(cause.message) {
            cause::each_wrapped(cause.message, |kind, message| {
                let fit = self.types.first(&self.rules, kind).map(|rule| Fit { rule, text: message, typed: false });
                first = first.into_iter().chain(fit).min_by_key(|fit| fit.rule);
            });
        }
        first
    }
}

impl NameAt {
    fn find<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let at = |text: &[u8], part: &str| text.windows(part.len().max(1)).position(|window| window.eq_ignore_ascii_case(part.as_bytes()));
        match self {
            Self::Nowhere => &[],
            Self::Whole => text.trim_ascii(),
            Self::Before(end) => at(text, end).and_then(|at| text.get(..at)).unwrap_or_default().trim_ascii(),
            Self::WordBefore(end) => {
                let before = at(text, end).and_then(|at| text.get(..at)).unwrap_or_default().trim_ascii();
                before.rsplit(u8::is_ascii_whitespace).next().unwrap_or_default()
            }
            Self::After(start) => at(text, start).and_then(|at| text.get(at + start.len()..)).unwrap_or_default().trim_ascii(),
            Self::Between(start, end) => {
                let rest = at(text, start).and_then(|at| text.get(at + start.len()..)).unwrap_or_default();
                let mut name = at(rest, end).and_then(|at| rest.get(..at)).unwrap_or_default();
                // What stands before the name may hold the same: `order [17]: [pay] is open`.
                while let Some(nearer) = at(name, start).and_then(|at| name.get(at + start.len()..)) {
                    name = nearer;
                }
                name
            }
        }
    }
}
