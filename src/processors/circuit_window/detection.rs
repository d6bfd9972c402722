use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    circuit::{
        config::Detection,
        detect::{
            inferred::InferredRule,
            library,
            rule::{self, Matcher, NameAt, Place, Rule},
        },
    },
    config::{Span, nearest},
    pipeline::Faults,
};

/// How breakers are found that say nothing of themselves.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DetectionConfig {
    /// Whether texts of the libraries that are known are looked for: `fuseboard rules` lists them.
    pub(super) known_libraries: bool,
    /// More texts; they come before those of the libraries, and of one error the first that fits counts.
    pub(super) rules: Vec<RuleConfig>,
    /// Whether calls that stop after failures, while their caller's traffic goes on, tell of a breaker.
    pub(super) silence: bool,
    /// A breaker of our own where none is known: when it would have opened.
    pub(super) inferred: InferredConfig,
}

impl Default for DetectionConfig {
    fn default() -> Self {
        Self { known_libraries: true, rules: Vec::new(), silence: true, inferred: InferredConfig::default() }
    }
}

/// A text, and what it means.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleConfig {
    /// Who writes it: stands as the reason of a trip.
    pub(super) library: String,
    /// What it means.
    #[serde(default)]
    pub(super) meaning: Meaning,
    /// Where it stands: `type` or `message` of an exception or one of its causes, its `stack_trace`, or the name of an
    /// attribute.
    #[serde(rename = "in", default = "message")]
    pub(super) place: String,
    /// What must be there, all of it, whatever the case; of an attribute's values, which commas part, one of them, and
    /// `*` is any.
    pub(super) texts: Vec<String>,
    /// Whether the last of the texts must be the end of it.
    #[serde(default)]
    pub(super) at_end: bool,
    /// Where the breaker's name stands in the message; nowhere unless written.
    #[serde(default)]
    pub(super) name: Option<NameConfig>,
}

fn message() -> String {
    "message".to_owned()
}

/// What a text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Meaning {
    /// An open breaker refused the call.
    #[default]
    Rejected,
    /// A breaker that an operator holds open refused the call.
    ForcedOpen,
    /// This call failed and opened the breaker.
    Opened,
    /// This call was a probe that failed.
    ProbeFailed,
    /// A half-open breaker that is full refused the call.
    Full,
    /// Counts only while the circuit is not closed.
    Maybe,
    /// A limit of a proxy on connections or requests refused the call: it counts as rejected, and nothing opens.
    Limit,
    /// A bulkhead, a rate limiter, a time limit: no breaker.
    NoBreaker,
}

/// Where a breaker's name stands: the whole text if nothing is written here.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NameConfig {
    /// It begins behind this.
    pub(super) after: String,
    /// It ends before this.
    pub(super) before: String,
}

/// A breaker of our own: Resilience4j's names and meanings.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct InferredConfig {
    /// Whether it is run.
    pub(super) enabled: bool,
    /// Share of failures in the window, in percent, from which on it opens.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub(super) failure_rate_threshold: f64,
    /// Share of slow calls in the window, in percent, from which on it opens.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub(super) slow_call_rate_threshold: f64,
    /// A call that takes longer is slow.
    pub(super) slow_call_duration_threshold: Span,
    /// Calls in the window below which it never opens.
    #[schemars(range(min = 1))]
    pub(super) minimum_number_of_calls: u64,
    /// How long it stays open.
    pub(super) wait_duration_in_open_state: Span,
    /// Calls that decide whether it closes again.
    #[schemars(range(min = 1))]
    pub(super) permitted_number_of_calls_in_half_open_state: u64,
}

impl Default for InferredConfig {
    fn default() -> Self {
        let rule = InferredRule::default();
        Self {
            enabled: true,
            failure_rate_threshold: rule.failure_rate_threshold,
            slow_call_rate_threshold: rule.slow_call_rate_threshold,
            slow_call_duration_threshold: Span::secs(60),
            minimum_number_of_calls: rule.minimum_number_of_calls,
            wait_duration_in_open_state: Span::secs(60),
            permitted_number_of_calls_in_half_open_state: rule.permitted_number_of_calls_in_half_open_state,
        }
    }
}

/// Where the text of an exception may stand.
const PLACES: [&str; 3] = ["type", "message", "stack_trace"];

impl RuleConfig {
    fn check(&self, at: &str, faults: &mut Faults) {
        let mut must = |key: &str, holds: bool, what: &str| {
            if !holds {
                faults.note::<()>(&format!("{at}.{key}"), Err(what.to_owned()));
            }
        };
        must("library", !self.library.trim().is_empty(), "must not be empty: it stands as the reason of a trip");
        must("in", !self.place.trim().is_empty(), "must be `type`, `message`, `stack_trace`, or the name of an attribute");
        let is_attribute = !PLACES.contains(&self.place.as_str());
        if is_attribute && let Some(near) = nearest(&self.place, PLACES) {
            must("in", false, &format!("there is hardly an attribute `{}`; did you mean `{near}`?", self.place));
        }
        let is_part = |text: &String| text.contains(',');
        must("texts", !(is_attribute && self.texts.iter().any(is_part)), "commas part the values of an attribute: none of these can be found");
        if let Err(error) = Matcher::new(vec![self.rule()]) {
            must("texts", false, &error.to_string());
        }
    }

    fn rule(&self) -> Rule {
        let boxed = |text: &str| Box::from(text);
        Rule {
            library: boxed(&self.library),
            meaning: match self.meaning {
                Meaning::Rejected => rule::Meaning::Rejected,
                Meaning::ForcedOpen => rule::Meaning::ForcedOpen,
                Meaning::Opened => rule::Meaning::Opened,
                Meaning::ProbeFailed => rule::Meaning::ProbeFailed,
                Meaning::Full => rule::Meaning::Full,
                Meaning::Maybe => rule::Meaning::Maybe,
                Meaning::Limit => rule::Meaning::Limit,
                Meaning::NoBreaker => rule::Meaning::NoBreaker,
            },
            place: match self.place.as_str() {
                "type" => Place::Type,
                "message" => Place::Message,
                "stack_trace" => Place::StackTrace,
                attribute => Place::Flag(boxed(attribute)),
            },
            texts: self.texts.iter().map(|text| boxed(text)).collect(),
            at_end: self.at_end,
            name: self.name.as_ref().map_or(NameAt::Nowhere, |name| match (name.after.as_str(), name.before.as_str()) {
                ("", "") => NameAt::Whole,
                ("", before) => NameAt::Before(boxed(before)),
                (after, "") => NameAt::After(boxed(after)),
                (after, before) => NameAt::Between(boxed(after), boxed(before)),
            }),
            own: true,
        }
    }
}

impl DetectionConfig {
    /// What was written, then what is known, in the order in which they count.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let known = if self.known_libraries { library::rules() } else { Vec::new() };
        self.rules.iter().map(RuleConfig::rule).filter(|rule| Matcher::new(vec![rule.clone()]).is_ok()).chain(known).collect()
    }

    /// Whether anything is looked for.
    pub(super) fn enabled(&self) -> bool {
        self.silence || self.known_libraries || !self.rules.is_empty()
    }

    /// The rest of it, checked.
    pub(super) fn check(&self, faults: &mut Faults) -> Detection {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check(&format!("detection.rules.{index}"), faults);
        }
        let at_least_a_second = |key: &str, span: Span, faults: &mut Faults| {
            let right = if span.nanos() >= 1_000_000_000 { Ok(()) } else { Err("must be at least 1s".to_owned()) };
            faults.note(&format!("detection.inferred.{key}"), right);
        };
        at_least_a_second("wait_duration_in_open_state", self.inferred.wait_duration_in_open_state, faults);
        let inferred = &self.inferred;
        let rule = InferredRule {
            failure_rate_threshold: inferred.failure_rate_threshold,
            slow_call_rate_threshold: inferred.slow_call_rate_threshold,
            slow_call_duration: inferred.slow_call_duration_threshold.nanos(),
            minimum_number_of_calls: inferred.minimum_number_of_calls,
            wait_duration_in_open_state: inferred.wait_duration_in_open_state.nanos(),
            permitted_number_of_calls_in_half_open_state: inferred.permitted_number_of_calls_in_half_open_state,
        };
        Detection {
            enabled: self.enabled(),
            libraries: self.rules().into_iter().map(|rule| Arc::from(rule.library)).collect(),
            silence: self.silence,
            inferred: inferred.enabled.then_some(rule),
        }
    }
}
