use super::{Failed, lines::write_table, start};
use crate::{
    circuit::detect::rule::{Meaning, NameAt, Place, Rule},
    config::Source,
    pipeline::Section,
    processors::circuit_window,
};

/// Lists the rules of every `circuit_window` of the configuration.
pub(super) fn print(sources: &[Source]) -> Result<(), Failed> {
    let plan = start::plan(sources)?;
    let mut out = Vec::new();
    for (id, value) in plan.written(Section::Processors, "circuit_window") {
        let rules = circuit_window::rules(value).map_err(|reason| format!("processors::{id}: {reason}"))?;
        let rows = rules.iter().map(row).collect();
        out.extend_from_slice(format!("{id}: {} rules; the first that fits an error counts\n", rules.len()).as_bytes());
        write_table(&mut out, &["LIBRARY", "MEANING", "IN", "NAME", "TEXTS"], rows).map_err(|error| error.to_string())?;
    }
    super::print(&String::from_utf8_lossy(&out))
}

fn row(rule: &Rule) -> Vec<String> {
    let meaning = match rule.meaning {
        Meaning::Rejected => "rejected",
        Meaning::ForcedOpen => "forced_open",
        Meaning::Opened => "opened",
        Meaning::ProbeFailed => "probe_failed",
        Meaning::Full => "full",
        Meaning::Maybe => "maybe",
        Meaning::Limit => "limit",
        Meaning::NoBreaker => "no_breaker",
    };
    let place = match &rule.place {
        Place::Type => "type",
        Place::Message => "message",
        Place::StackTrace => "stack_trace",
        Place::Flag(attribute) => attribute,
    };
    let name = match &rule.name {
        NameAt::Nowhere => String::new(),
        NameAt::Whole => "the whole text".to_owned(),
        NameAt::Before(end) => format!("before `{end}`"),
        NameAt::WordBefore(end) => format!("the word before `{end}`"),
        NameAt::After(start) => format!("after `{start}`"),
        NameAt::Between(start, end) => format!("between `{start}` and `{end}`"),
    };
    let texts: Vec<String> = rule.texts.iter().map(|text| format!("`{text}`")).collect();
    let joined = texts.join(if matches!(rule.place, Place::Flag(_)) { " or " } else { " and " });
    vec![rule.library.to_string(), meaning.to_owned(), place.to_owned(), name, joined]
}
