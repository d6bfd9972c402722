//! What was found, held against a breaker's own log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::lines::{EventLine, write_table};
use crate::circuit::state::State;

/// A number, or text of one.
fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => {
            text.parse().map_err(|_| D::Error::custom(format!("`t_ns` is nanoseconds, such as 1795000000000000000, not `{text}`")))
        }
    }
}

/// One line of a breaker's own log.
#[derive(Debug, Deserialize)]
struct Line {
    /// When, in Unix nanoseconds: a number, or text of one, as JSON of other languages has it for 64 bits.
    #[serde(deserialize_with = "nanoseconds")]
    t_ns: u64,
    /// The breaker's name.
    name: String,
    /// The state before; as the line before it says, if not written.
    #[serde(default)]
    from: Option<String>,
    to: String,
    /// As spans tell it; any, if not written.
    #[serde(default)]
    instance: Option<String>,
    /// The callee's name; the breaker's, if not written.
    #[serde(default)]
    callee: Option<String>,
    /// The breaker's name, where one callee has several.
    #[serde(default)]
    breaker: Option<String>,
    /// Other names that are as good.
    #[serde(default)]
    aliases: Vec<String>,
    /// No span shows it: it may be found, but need not be.
    #[serde(default)]
    unseen: bool,
    /// The caller; any, if not written.
    #[serde(default)]
    service: Option<String>,
}

/// What a breaker did, by its own account.
struct Done {
    what: &'static str,
    at: u64,
    instance: Option<String>,
    names: BTreeSet<String>,
    caller: Option<String>,
    unseen: bool,
}

/// Kinds of events that are judged together, and how far off, in nanoseconds, they may be.
const GATES: [(&str, &[&str], u64); 3] = [
    ("opening", &["trip", "recovery_attempt_failed"], 1_000_000_000),
    ("attempt", &["recovery_attempt"], 1_000_000_000),
    ("recovery", &["recovery"], 3_000_000_000),
];

/// The share that has to be found, and the share of what is said that may be invented.
const FOUND_MIN: f64 = 0.99;
const INVENTED_MAX: f64 = 0.01;
/// Of fewer than this one may always be wrong.
const FEW: usize = 100;

/// How well one kind of event was found.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    kind: &'static str,
    gate: &'static str,
    /// Those that some span shows.
    truth: usize,
    found: usize,
    missed: usize,
    /// Found though no span shows them.
    found_unseen: usize,
    invented: usize,
    said: usize,
    /// Found, by source.
    sources: BTreeMap<&'static str, usize>,
    /// Between what was said and what was; seconds.
    off_median: f64,
    off_worst: f64,
    /// From what was to the event time that settled it; seconds.
    settled_median: f64,
    settled_worst: f64,
    pub(super) holds: bool,
}

/// Reads a breaker's own log, and other names of callees: those of the map, else of an `aliases.json` beside the log.
struct Truth(Vec<Done>);

impl Truth {
    fn read(path: &Path, map: Option<&Path>) -> Result<Self, String> {
        let text = |path: &Path| match fs::read_to_string(path) {
            // Editors and PowerShell put a byte order mark first.
            Ok(text) => Ok(text.trim_start_matches('\u{feff}').to_owned()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        let beside = path.with_file_name("aliases.json");
        let map = map.or_else(|| beside.exists().then_some(beside.as_path()));
        let aliases: BTreeMap<String, Vec<String>> = match map {
            Some(map) => serde_json::from_str(&text(map)?).map_err(|error| format!("{}: {error}", map.display()))?,
            None => BTreeMap::new(),
        };
        let mut states: BTreeMap<[Option<String>; 4], String> = BTreeMap::new();
        let mut done = Vec::new();
        for (number, line) in (1..).zip(text(path)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| format!("{}:{number}: {error}", path.display()))?;
            let callee = line.callee.clone().unwrap_or_else(|| line.name.clone());
            let breaker = line.breaker.clone().unwrap_or_else(|| line.name.clone());
            let state = |key: &str, text: &str| {
                let known = State::named(text.as_bytes()).map(State::name);
                known.ok_or_else(|| format!("{}:{number}: {key}: `{text}` is no state; write closed, open or half_open", path.display()))
            };
            let to = state("to", &line.to)?.to_owned();
            let known = states.insert([line.service.clone(), line.instance.clone(), Some(callee.clone()), Some(breaker.clone())], to.clone());
            let from = line.from.as_deref().map(|from| state("from", from).map(str::to_owned)).transpose()?;
            let before = from.or(known).unwrap_or_else(|| "closed".to_owned());
            let what = match to.as_str() {
                same if same == before => continue,
                "open" if before == "half_open" => "recovery_attempt_failed",
                "open" => "trip",
                "half_open" => "recovery_attempt",
                "closed" => "recovery",
                _ => continue,
            };
            let of_callee = aliases.get(&callee).into_iter().flatten().cloned();
            let names = [callee.clone(), breaker].into_iter().chain(of_callee).chain(line.aliases).collect();
            done.push(Done { what, at: line.t_ns, instance: line.instance, names, caller: line.service, unseen: line.unseen });
        }
        Ok(Self(done))
    }

    fn is(done: &Done, event: &EventLine, within: u64) -> bool {
        let same = |wanted: Option<&String>, said: &str| wanted.is_none_or(|wanted| wanted == said);
        done.what == event.event
            && done.at.abs_diff(event.time_unix_nano) <= within
            && same(done.instance.as_ref(), &event.instance)
            && same(done.caller.as_ref(), event.caller())
            && event.names().any(|name| done.names.contains(name))
    }
}

/// Holds what was found in the circuits of a caller against a breaker's own log: each event is matched with the nearest
/// of its kind, instance and circuit, each once.
pub(super) fn hold(path: &Path, map: Option<&Path>, caller: Option<&str>, events: &[EventLine]) -> Result<Vec<Verdict>, String> {
    let Truth(all) = Truth::read(path, map)?;
    let callers: BTreeSet<&str> = all.iter().filter_map(|done| done.caller.as_deref()).collect();
    let is_wanted = |name: &str| caller.map_or(callers.is_empty() || callers.contains(name), |caller| caller == name);
    let said: Vec<&EventLine> =
        events.iter().filter(|event| event.kind == "event" && event.source != "inferred" && is_wanted(event.caller())).collect();
    let verdict = |(gate, kinds, within): &(&'static str, &[&str], u64)| {
        let done: Vec<&Done> = all.iter().filter(|done| kinds.contains(&done.what) && done.caller.as_deref().is_none_or(is_wanted)).collect();
        let said: Vec<&EventLine> = said.iter().copied().filter(|event| kinds.contains(&event.event)).collect();
        judge(gate, &done, &said, *within)
    };
    Ok(GATES.iter().map(verdict).collect())
}

fn judge(gate: &'static str, done: &[&Done], said: &[&EventLine], within: u64) -> Verdict {
    let mut pairs: Vec<(u64, usize, usize)> = Vec::new();
    for (at, done) in done.iter().enumerate() {
        let alike = said.iter().enumerate().filter(|(_, event)| Truth::is(done, event, within));
        pairs.extend(alike.map(|(index, event)| (done.at.abs_diff(event.time_unix_nano), at, index)));
    }
    pairs.sort_unstable();
    let mut matched: BTreeMap<usize, usize> = BTreeMap::new();
    let mut taken: BTreeSet<usize> = BTreeSet::new();
    for (_, at, index) in pairs {
        if !matched.contains_key(&at) && taken.insert(index) {
            matched.insert(at, index);
        }
    }
    let seconds = |nanos: i128| nanos as f64 / 1e9;
    let (mut off, mut settled, mut sources) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (done, event) in matched.iter().filter_map(|(at, index)| Some((done.get(*at)?, said.get(*index)?))) {
        off.push(seconds(i128::from(done.at.abs_diff(event.time_unix_nano))));
        settled.push(seconds(i128::from(event.decided_unix_nano) - i128::from(done.at)));
        *sources.entry(event.source).or_default() += 1;
    }
    let truth = done.iter().filter(|done| !done.unseen).count();
    let found = matched.keys().filter(|at| done.get(**at).is_some_and(|done| !done.unseen)).count();
    let (missed, invented) = (truth - found, said.len() - matched.len());
    let forgiven = |few: bool| if few { 1.0 } else { 0.0 };
    let may_miss = ((1.0 - FOUND_MIN) * truth as f64).max(forgiven(truth < FEW));
    let may_invent = (INVENTED_MAX * said.len() as f64).max(forgiven(!done.is_empty() && done.len() < FEW));
    Verdict {
        kind: "verdict",
        gate,
        truth,
        found,
        missed,
        found_unseen: matched.len() - found,
        invented,
        said: said.len(),
        sources,
        off_median: median(&mut off),
        off_worst: off.last().copied().unwrap_or_default(),
        settled_median: median(&mut settled),
        settled_worst: settled.last().copied().unwrap_or_default(),
        holds: missed as f64 <= may_miss && invented as f64 <= may_invent,
    }
}

/// The median, and the numbers in order.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match (numbers.get(middle), middle.checked_sub(1).and_then(|before| numbers.get(before))) {
        (Some(upper), Some(lower)) if numbers.len().is_multiple_of(2) => f64::midpoint(*upper, *lower),
        (Some(only), _) => *only,
        _ => 0.0,
    }
}

/// For reading.
pub(super) fn write(out: &mut impl std::io::Write, verdicts: &[Verdict]) -> std::io::Result<()> {
    let row = |verdict: &Verdict| {
        let sources: Vec<String> = verdict.sources.iter().map(|(source, count)| format!("{source} {count}")).collect();
        vec![
            verdict.gate.to_owned(),
            format!("{}/{}", verdict.found, verdict.truth),
            verdict.missed.to_string(),
            format!("{} of {}", verdict.invented, verdict.said),
            seconds(verdict.off_median, verdict.off_worst),
            seconds(verdict.settled_median, verdict.settled_worst),
            sources.join(", "),
            if verdict.holds { "holds" } else { "FALLS SHORT" }.to_owned(),
        ]
    };
    let head = ["TRUTH", "FOUND", "MISSED", "INVENTED", "OFF BY", "SETTLED AFTER", "FOUND BY", ""];
    write_table(out, &head, verdicts.iter().map(row).collect())
}
/// A median and the worst, in seconds; what rounds to nothing is nothing on either side.
fn seconds(median: f64, worst: f64) -> String {
    let [median, worst] = [median, worst].map(|seconds| (seconds * 100.0).round() / 100.0 + 0.0);
    format!("{median:.2} s (worst {worst:.2})")
}
