use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::detection::DetectionConfig;
use crate::{
    circuit::{
        config::{CircuitMetricsConfig, ConfigError},
        inspect::{FailureOverride, FailureRule, GRPC_STATUSES, IGNORED, Rules, RulesText},
        pattern::Pattern,
        selection::{self, Selection},
    },
    config::Span,
    pipeline::Faults,
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Length of the rolling window.
    pub(super) window_size: Span,
    /// Length of a bucket: 1s, 2s, 5s or 10s.
    pub(super) bucket_size: Span,
    /// Latency percentiles, between 0 and 100.
    pub(super) percentiles: Vec<f64>,
    /// How long after its end a span may come and still be on time; SDKs batch for 5s.
    pub(super) allowed_lateness: Span,
    /// How far out of order the spans of one process may end.
    pub(super) reorder: Span,
    /// A span that ends further in the future than this is counted apart.
    pub(super) max_clock_skew: Span,
    /// A process without a span for so long is gone.
    pub(super) instance_ttl: Span,
    /// A circuit without a span for so long ends, and its series with it.
    pub(super) circuit_ttl: Span,
    /// The most circuits; what is beyond counts in one overflow circuit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) max_circuits: usize,
    /// The most instances of a circuit that are told apart.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) max_instances: usize,
    /// How often metrics go out, spread over the interval.
    pub(super) emit_interval: Span,
    /// `cumulative` or `delta`.
    pub(super) temporality: Temporality,
    /// How latencies go out.
    pub(super) histogram: HistogramConfig,
    /// Spans that stand for others, on points.
    pub(super) exemplars: Exemplars,
    /// Metrics that are not sent, by name.
    pub(super) disabled_metrics: Vec<String>,
    /// `extrapolate`: a sampled span stands for those that were not sent; `count`: only for itself.
    pub(super) sampling: Sampling,
    /// How the callee of a call is found.
    pub(super) target: Target,
    /// How a breaker's own words are found.
    pub(super) breaker: Breaker,
    /// How breakers are found that say nothing of themselves.
    pub(super) detection: DetectionConfig,
    /// Whether spans of circuits that are not closed are told so on their way.
    pub(super) enrich_spans: bool,
    /// What a failure is.
    pub(super) failure: Failure,
    /// Only these circuits; all if there are none.
    pub(super) include: Vec<Choice>,
    /// But not these.
    pub(super) exclude: Vec<Choice>,
}

impl Default for Config {
    fn default() -> Self {
        let circuit = CircuitMetricsConfig::default();
        Self {
            window_size: Span::secs(60),
            bucket_size: Span::secs(1),
            percentiles: circuit.percentiles().to_vec(),
            allowed_lateness: Span::secs(15),
            reorder: Span::secs(1),
            max_clock_skew: Span::secs(10),
            instance_ttl: Span::secs(300),
            circuit_ttl: Span::secs(3600),
            max_circuits: circuit.max_circuits,
            max_instances: circuit.max_instances,
            emit_interval: Span::secs(10),
            temporality: Temporality::default(),
            histogram: HistogramConfig::default(),
            exemplars: Exemplars::default(),
            disabled_metrics: Vec::new(),
            sampling: Sampling::default(),
            target: Target::default(),
            breaker: Breaker::default(),
            detection: DetectionConfig::default(),
            enrich_spans: true,
            failure: Failure::default(),
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

/// What counters and histograms count from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Temporality {
    /// From the circuit's first span.
    #[default]
    Cumulative,
    /// From what was sent last.
    Delta,
}

/// What a sampled span is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sampling {
    /// As many as its `tracestate` says.
    #[default]
    Extrapolate,
    /// One.
    Count,
}

/// How latencies go out: exponential unless `explicit` is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HistogramConfig {
    /// As a histogram of explicit bounds, off unless written.
    pub(super) explicit: Option<Explicit>,
}

/// A histogram of explicit bounds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Explicit {
    /// Upper bounds, ascending.
    pub(super) buckets: Vec<Span>,
}

impl Default for Explicit {
    fn default() -> Self {
        let millis = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1_000, 1_400, 2_000, 5_000, 10_000, 15_000];
        Self { buckets: millis.map(Span::millis).to_vec() }
    }
}

/// Spans that stand for others, on points.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Exemplars {
    /// Whether they are sent.
    pub(super) enabled: bool,
}

impl Default for Exemplars {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// How the callee of a call is found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Target {
    /// Attributes that may name it; the first that is there counts.
    pub(super) attributes: Vec<String>,
    /// Kinds of spans that are calls.
    pub(super) span_kinds: Vec<SpanKind>,
}

impl Default for Target {
    fn default() -> Self {
        Self { attributes: RulesText::default().targets, span_kinds: vec![SpanKind::Client, SpanKind::Producer] }
    }
}

/// Kinds of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SpanKind {
    /// Within a process.
    Internal,
    /// Answers a call.
    Server,
    /// Makes a call.
    Client,
    /// Sends a message.
    Producer,
    /// Takes a message.
    Consumer,
}

/// How a breaker's own words are found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Breaker {
    /// Attributes that may hold its name.
    pub(super) name_attributes: Vec<String>,
    /// Attributes that may hold its state when the span began.
    pub(super) state_attributes: Vec<String>,
    /// Attributes that may hold how it counted the call: `success`, `failure`, `rejected`, or true for rejected.
    pub(super) outcome_attributes: Vec<String>,
    /// Names of span events that tell of a transition; `*` stands for anything.
    pub(super) transition_events: Vec<String>,
    /// Attributes of such events that may hold the state before.
    pub(super) from_attributes: Vec<String>,
    /// Attributes of such events that may hold the state after.
    pub(super) to_attributes: Vec<String>,
}

impl Default for Breaker {
    fn default() -> Self {
        let RulesText { breaker_names, breaker_states, breaker_outcomes, transition_events, transition_from, transition_to, .. } =
            RulesText::default();
        Self {
            name_attributes: breaker_names,
            state_attributes: breaker_states,
            outcome_attributes: breaker_outcomes,
            transition_events,
            from_attributes: transition_from,
            to_attributes: transition_to,
        }
    }
}

/// What a failure is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Failure {
    /// HTTP statuses: `503`, or `5xx`.
    pub(super) http_status_codes: Vec<String>,
    /// gRPC statuses by name, such as `UNAVAILABLE`.
    pub(super) grpc_status_codes: Vec<String>,
    /// Whether a span of status ERROR failed where there is no protocol status.
    pub(super) span_status: bool,
    /// Errors that are none: types of exceptions, with or without their package, and texts; `*` stands for anything.
    pub(super) ignore: Vec<String>,
    /// Rules of their own for some callees or breakers; the first that matches counts.
    pub(super) overrides: Vec<Override>,
}

impl Default for Failure {
    fn default() -> Self {
        let grpc = ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
        Self {
            http_status_codes: ["5xx", "429"].map(str::to_owned).to_vec(),
            grpc_status_codes: grpc.map(str::to_owned).to_vec(),
            span_status: true,
            ignore: IGNORED.map(str::to_owned).to_vec(),
            overrides: Vec::new(),
        }
    }
}

/// What a failure is for some callees.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Override {
    /// Name of the callee or breaker, without port; `*` stands for anything.
    pub(super) target: String,
    /// As above; as above if not written.
    #[serde(default)]
    pub(super) http_status_codes: Option<Vec<String>>,
    /// As above; as above if not written.
    #[serde(default)]
    pub(super) grpc_status_codes: Option<Vec<String>>,
    /// As above; as above if not written.
    #[serde(default)]
    pub(super) span_status: Option<bool>,
    /// As above; as above if not written.
    #[serde(default)]
    pub(super) ignore: Option<Vec<String>>,
}

/// A group of circuits.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Choice {
    /// `service.name` of the caller; `*` stands for anything.
    pub(super) service: Option<String>,
    /// Name of the callee or breaker, without port; `*` stands for anything.
    pub(super) target: Option<String>,
}

/// What was written, checked.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) circuit: CircuitMetricsConfig,
    pub(super) rules: Rules,
    pub(super) selection: Selection,
    pub(super) emit_interval: u64,
    pub(super) exemplars: bool,
    pub(super) disabled_metrics: Vec<String>,
    pub(super) enrich_spans: bool,
}

impl Config {
    /// What no schema can say; everything that is wrong at once.
    pub(super) fn check(&self) -> Result<Checked, Faults> {
        let mut faults = Faults::default();
        let circuit = self.circuit(&mut faults);
        self.check_times(&mut faults);
        for unknown in self.disabled_metrics.iter().filter(|name| !super::metrics::NAMES.contains(&name.as_str())) {
            let near = crate::config::nearest(unknown, super::metrics::NAMES).map(|near| format!("; did you mean `{near}`?"));
            faults.note::<()>("disabled_metrics", Err(format!("there is no metric `{unknown}`{}", near.unwrap_or_default())));
        }
        let rules = self.rules(&mut faults);
        let choices = |choices: &[Choice]| {
            let pattern = |text: &Option<String>| text.as_deref().map(Pattern::new);
            choices.iter().map(|choice| selection::Choice { service: pattern(&choice.service), target: pattern(&choice.target) }).collect()
        };
        let selection = Selection { include: choices(&self.include), exclude: choices(&self.exclude) };
        let (Some(circuit), Some(rules), true) = (circuit, rules, faults.0.is_empty()) else { return Err(faults) };
        Ok(Checked {
            circuit,
            rules,
            selection,
            emit_interval: self.emit_interval.nanos(),
            exemplars: self.exemplars.enabled,
            disabled_metrics: self.disabled_metrics.clone(),
            enrich_spans: self.enrich_spans,
        })
    }

    fn circuit(&self, faults: &mut Faults) -> Option<CircuitMetricsConfig> {
        let circuit = CircuitMetricsConfig::default().with_window(self.window_size.nanos(), self.bucket_size.nanos(), &self.percentiles);
        let circuit = match circuit {
            Err(error @ ConfigError::BucketSize) => faults.note("bucket_size", Err(error.to_string())),
            Err(error @ ConfigError::WindowSize) => faults.note("window_size", Err(error.to_string())),
            Err(error @ ConfigError::Percentiles) => faults.note("percentiles", Err(error.to_string())),
            Ok(circuit) => Some(circuit),
        };
        let explicit_bounds = faults.note("histogram.explicit.buckets", self.bounds());
        let (mut circuit, explicit_bounds) = (circuit?, explicit_bounds?);
        circuit.allowed_lateness = self.allowed_lateness.nanos();
        circuit.reorder = self.reorder.nanos();
        circuit.max_clock_skew = self.max_clock_skew.nanos();
        circuit.instance_ttl = self.instance_ttl.nanos();
        circuit.circuit_ttl = self.circuit_ttl.nanos();
        circuit.max_circuits = self.max_circuits;
        circuit.max_instances = self.max_instances;
        circuit.detection = self.detection.check(faults);
        circuit.delta = self.temporality == Temporality::Delta;
        circuit.explicit_bounds = explicit_bounds;
        Some(circuit)
    }

    fn check_times(&self, faults: &mut Faults) {
        let mut must = |key: &str, holds: bool, what: &str| {
            if !holds {
                faults.note::<()>(key, Err(what.to_owned()));
            }
        };
        must("reorder", self.reorder.nanos() <= self.allowed_lateness.nanos(), "must not be longer than `allowed_lateness`");
        let fits = self.allowed_lateness.nanos() <= self.window_size.nanos();
        must("allowed_lateness", fits, "must not be longer than `window_size`: what comes later would be in no window");
        let lives = self.instance_ttl.nanos() >= self.allowed_lateness.nanos().max(SECOND);
        must("instance_ttl", lives, "must be at least `allowed_lateness` and 1s: a process whose spans are still awaited is not gone");
        let lives = self.circuit_ttl.nanos() >= self.window_size.nanos();
        must("circuit_ttl", lives, "must be at least `window_size`: a circuit with calls in its window has not ended");
        let whole = self.emit_interval.nanos() >= SECOND && self.emit_interval.nanos().is_multiple_of(SECOND);
        must("emit_interval", whole, "must be whole seconds, at least 1s");
    }

    fn bounds(&self) -> Result<Vec<u64>, String> {
        let Some(explicit) = &self.histogram.explicit else { return Ok(Vec::new()) };
        let bounds: Vec<u64> = explicit.buckets.iter().map(|bound| bound.nanos()).collect();
        if bounds.is_empty() || bounds.len() > 200 || !bounds.is_sorted_by(|one, next| one < next) {
            return Err("must be 1 to 200 bounds in ascending order".to_owned());
        }
        Ok(bounds)
    }

    fn rules(&self, faults: &mut Faults) -> Option<Rules> {
        let text = RulesText {
            rules: self.detection.rules(),
            breaker_names: self.breaker.name_attributes.clone(),
            breaker_states: self.breaker.state_attributes.clone(),
            breaker_outcomes: self.breaker.outcome_attributes.clone(),
            transition_events: self.breaker.transition_events.clone(),
            transition_from: self.breaker.from_attributes.clone(),
            transition_to: self.breaker.to_attributes.clone(),
            targets: self.target.attributes.clone(),
            span_kinds: self.target.span_kinds.iter().map(|kind| *kind as u8 + 1).collect(),
        };
        let rules = faults.note("target.attributes", Rules::new(&text).map_err(|error| error.to_string()));
        let general = &self.failure;
        let mut failure = rule("failure", &general.http_status_codes, &general.grpc_status_codes, general.span_status, faults);
        failure.ignore = ignored("failure", &general.ignore, faults);
        failure.ignores_by_default = general.ignore == IGNORED;
        let mut overrides = Vec::new();
        for one in &general.overrides {
            let http = one.http_status_codes.as_ref().unwrap_or(&general.http_status_codes);
            let grpc = one.grpc_status_codes.as_ref().unwrap_or(&general.grpc_status_codes);
            let mut rule = rule("failure.overrides", http, grpc, one.span_status.unwrap_or(general.span_status), faults);
            rule.ignores_by_default = one.ignore.is_none() && failure.ignores_by_default;
            rule.ignore = one.ignore.as_ref().map_or_else(|| failure.ignore.clone(), |own| ignored("failure.overrides", own, faults));
            overrides.push(FailureOverride { target: Pattern::new(&one.target), rule });
        }
        let mut rules = rules?;
        (rules.failure, rules.overrides) = (failure, overrides);
        rules.detects = self.detection.enabled();
        rules.extrapolate = self.sampling == Sampling::Extrapolate;
        Some(rules)
    }
}

/// A rule from what was written under this key; what is wrong in it is left out and noted.
fn rule(key: &str, http: &[String], grpc: &[String], span_status: bool, faults: &mut Faults) -> FailureRule {
    let mut rule = FailureRule::empty();
    rule.span_status = span_status;
    for text in http {
        let range = match text.as_bytes() {
            [hundreds @ b'1'..=b'9', b'x' | b'X', b'x' | b'X'] => {
                let first = u16::from(hundreds - b'0') * 100;
                Some(first..first + 100)
            }
            _ => text.parse::<u16>().ok().filter(|status| (100..1_000).contains(status)).map(|status| status..status + 1),
        };
        let range = range.ok_or_else(|| format!("`{text}` is no HTTP status; write such as \"503\" or \"5xx\""));
        faults.note(&format!("{key}.http_status_codes"), range).into_iter().flatten().for_each(|status| rule.add_http(status));
    }
    for text in grpc {
        let known = GRPC_STATUSES.iter().position(|name| name == text).and_then(|at| u8::try_from(at).ok());
        let hint = || crate::config::nearest(text, GRPC_STATUSES).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        let known = known.ok_or_else(|| format!("there is no gRPC status `{text}`{}", hint()));
        faults.note(&format!("{key}.grpc_status_codes"), known).into_iter().for_each(|status| rule.add_grpc(status));
    }
    rule
}

/// Errors that are none, as written under this key; a text that would match nothing is left out and noted.
fn ignored(key: &str, texts: &[String], faults: &mut Faults) -> Vec<Pattern> {
    let check = |text: &String| {
        if text.is_empty() { Err("must not be empty: write the type of an error, or its text".to_owned()) } else { Ok(Pattern::new(text)) }
    };
    texts.iter().filter_map(|text| faults.note(&format!("{key}.ignore"), check(text))).collect()
}

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
