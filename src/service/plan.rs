use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use serde_yaml::{Mapping, Value};

use super::{
    effective::printable,
    elsewhere::{advice, kind, unknown_component},
    registry,
    settings::{Pipeline, Settings},
};
use crate::{
    circuit::analysis::config::AnalysisConfig,
    config::{Document, Path, Problem, Severity, nearest, schema_of},
    otlp::Signal,
    pipeline::{Factory, Fault, Faults, Made, Parsed, Section},
    telemetry::{Telemetry, check_endpoint},
};

/// Everything that was written, checked: what runs, and how it hangs together.
pub struct Plan {
    /// Components that stand in a pipeline, by section and id.
    pub(super) components: BTreeMap<(Section, String), Planned>,
    /// The pipelines.
    pub(super) pipelines: Vec<PipelinePlan>,
    /// What is looked for in the windows of processors that own some, by their ids.
    pub(super) analyses: BTreeMap<String, AnalysisConfig>,
    /// The section `service`.
    pub(super) settings: Settings,
    /// The whole configuration with defaults filled in and secrets redacted.
    pub effective: Json,
}

/// A component as it was written.
pub(super) struct Planned {
    pub(super) factory: &'static Factory,
    pub(super) value: Value,
    pub(super) parsed: Parsed,
}

/// A pipeline whose components are known to exist and fit.
#[derive(Clone, Debug)]
pub(super) struct PipelinePlan {
    pub(super) id: String,
    pub(super) signal: Signal,
    /// Ids, with the section each is defined in.
    pub(super) receivers: Vec<(Section, String)>,
    pub(super) processors: Vec<(Section, String)>,
    pub(super) analyzers: Vec<(Section, String)>,
    pub(super) exporters: Vec<(Section, String)>,
}

impl Plan {
    /// Components of one kind that stand in a pipeline: their ids, and what was written for them.
    pub fn written(&self, section: Section, kind: &str) -> Vec<(String, Value)> {
        let of_kind = self.components.iter().filter(|((of, _), planned)| *of == section && planned.factory.name == kind);
        of_kind.map(|((_, id), planned)| (id.clone(), planned.value.clone())).collect()
    }

    /// What is looked for in the windows of a processor.
    pub fn analysis(&self, processor: &str) -> AnalysisConfig {
        self.analyses.get(processor).cloned().unwrap_or_default()
    }

    /// How Fuseboard tells of itself.
    pub fn telemetry(&self) -> &Telemetry {
        &self.settings.telemetry
    }
}

/// Checks a document. All problems are found in one go; there is a plan if none of them is an error.
///
/// Where a source could not be read, that is all there is to say: the rest would be held against half of what was meant.
pub fn plan(document: &Document, found: Vec<Problem>) -> (Option<Plan>, Vec<Problem>) {
    if !document.is_complete() {
        return (None, found);
    }
    let mut planner = Planner { document, problems: found, defined: BTreeMap::new(), unreadable: BTreeSet::new() };
    let plan = planner.plan(document.value.clone());
    let plan = plan.filter(|_| planner.problems.iter().all(|problem| problem.severity == Severity::Warning));
    (plan, planner.problems)
}

struct Planner<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
    defined: BTreeMap<(Section, String), Option<Planned>>,
    /// Pipelines that are written and can't be read.
    unreadable: BTreeSet<String>,
}

/// Sections that a document may have.
const SECTIONS: [&str; 6] = ["receivers", "processors", "analyzers", "exporters", "extensions", "service"];

impl Planner<'_> {
    fn error(&mut self, path: &Path, message: impl Into<String>) {
        self.problems.push(Problem::error(path, message));
    }

    fn warning(&mut self, path: &Path, message: impl Into<String>) {
        self.problems.push(Problem::warning(path, message));
    }

    fn plan(&mut self, document: Value) -> Option<Plan> {
        let Value::Mapping(mut document) = document else {
            self.error(&Path::default(), "the configuration must be a section with keys");
            return None;
        };
        for key in document.keys().filter_map(Value::as_str) {
            if !SECTIONS.contains(&key) {
                let hint = nearest(key, SECTIONS).map_or_else(|| format!("known: {}", SECTIONS.join(", ")), |near| format!("did you mean `{near}`?"));
                let hint = if key == "connectors" { "circuit_window, the one of that kind, stands under `processors`".to_owned() } else { hint };
                self.problems.push(Problem::error(&Path::root(key), format!("unknown section; {hint}")));
            }
        }
        for section in Section::ALL {
            if let Some(written) = document.remove(section.name()) {
                self.section(section, written);
            }
        }
        for (id, _) in document.remove("extensions").and_then(|written| written.as_mapping().cloned()).unwrap_or_default() {
            let path = Path::root("extensions").key(id.as_str().unwrap_or("?"));
            self.error(&path, "there are no extensions in this version");
        }
        let settings = self.settings(document.remove("service").unwrap_or_default());
        let pipelines = self.pipelines(&settings);
        // What a pipeline that can't be read has is not known.
        if self.unreadable.is_empty() {
            self.connectors(&pipelines);
            self.windows(&pipelines);
        }
        let analyses = self.analyses(&pipelines);
        // Whether something is used can't be told where a pipeline can't be read.
        if self.unreadable.is_empty() {
            self.unused(&settings);
        }
        self.addresses(&settings);
        Some(self.finish(settings, pipelines, analyses))
    }

    /// Reads the components of one section.
    fn section(&mut self, section: Section, written: Value) {
        let path = Path::root(section.name());
        let components = match written {
            Value::Mapping(components) => components,
            Value::Null => return,
            _ => return self.error(&path, "must be a section with component ids as keys"),
        };
        for (id, value) in components {
            let Some(id) = id.as_str().map(str::to_owned) else {
                self.error(&path, "a component id must be text: `type` or `type/name`");
                continue;
            };
            let at = path.key(&id);
            let planned = match registry::find(section, &id) {
                Some(factory) => self.component(factory, value, &at),
                None => {
                    self.error(&at, unknown_component(section, &id));
                    None
                }
            };
            self.defined.insert((section, id), planned);
        }
    }

    fn component(&mut self, factory: &'static Factory, mut value: Value, path: &Path) -> Option<Planned> {
        if !self.document.check(&mut value, &(factory.schema)(), path, &mut self.problems) {
            return None;
        }
        match (factory.parse)(value.clone()) {
            Ok(parsed) => {
                parsed.warnings.iter().for_each(|warning| self.warning(path, warning.clone()));
                Some(Planned { factory, value, parsed })
            }
            Err(Faults(faults)) => {
                for Fault { key, message } in faults {
                    let at = key.split('.').filter(|key| !key.is_empty()).fold(path.clone(), |at, key| at.key(key));
                    self.error(&at, message);
                }
                None
            }
        }
    }

    /// The section `service`. What is wrong in one part of it hides nothing of the others.
    fn settings(&mut self, written: Value) -> Settings {
        let path = Path::root("service");
        let mut written = match written {
            Value::Null => Mapping::new(),
            Value::Mapping(written) => written,
            _ => {
                self.error(&path, "must be a section with keys");
                return Settings::default();
            }
        };
        let pipelines = self.written_pipelines(written.remove("pipelines").unwrap_or_default(), &path.key("pipelines"));
        let settings = self.read::<Settings>(Value::Mapping(written), &path).unwrap_or_default();
        for (position, id) in settings.extensions.iter().enumerate() {
            self.error(&path.key("extensions").index(position), format!("extension `{id}` is not defined under `extensions`"));
        }
        for endpoint in settings.telemetry.sends_to() {
            if let Err(reason) = check_endpoint(endpoint) {
                self.error(&path.key("telemetry"), reason);
            }
        }
        Settings { pipelines, ..settings }
    }

    fn written_pipelines(&mut self, written: Value, path: &Path) -> BTreeMap<String, Pipeline> {
        let written = match written {
            Value::Mapping(written) if !written.is_empty() => written,
            Value::Null | Value::Mapping(_) => {
                self.error(&Path::root("service"), "`pipelines` is missing or empty: nothing would run");
                return BTreeMap::new();
            }
            _ => {
                self.error(path, "must be a section with pipeline ids as keys");
                return BTreeMap::new();
            }
        };
        let mut pipelines = BTreeMap::new();
        for (id, written) in written {
            let Some(id) = id.as_str() else {
                self.error(path, "a pipeline's id must be text: `traces`, `metrics/circuits`");
                continue;
            };
            let read = self.read::<Pipeline>(written, &path.key(id));
            if read.is_none() {
                self.unreadable.insert(id.to_owned());
            }
            pipelines.insert(id.to_owned(), read.unwrap_or_default());
        }
        pipelines
    }

    /// Holds a section against its schema and reads it.
    fn read<T: JsonSchema + DeserializeOwned>(&mut self, mut written: Value, path: &Path) -> Option<T> {
        if !self.document.check(&mut written, &schema_of::<T>(), path, &mut self.problems) {
            return None;
        }
        serde_yaml::from_value(written).map_err(|error| self.error(path, error.to_string())).ok()
    }

    fn pipelines(&mut self, settings: &Settings) -> Vec<PipelinePlan> {
        let mut pipelines = Vec::new();
        for (id, written) in &settings.pipelines {
            let path = Path::root("service").key("pipelines").key(id);
            let Some(signal) = Signal::of_pipeline(id) else {
                let kind = id.split('/').next().unwrap_or_default();
                let hint = nearest(kind, Signal::ALL.map(Signal::name)).map(|near| format!("; did you mean `{near}`?"));
                self.error(&path, format!("a pipeline's id begins with traces, metrics or logs{}", hint.unwrap_or_default()));
                continue;
            };
            if self.unreadable.contains(id) {
                continue;
            }
            pipelines.push(self.pipeline(id, signal, written, &path));
        }
        pipelines
    }

    fn pipeline(&mut self, id: &str, signal: Signal, written: &Pipeline, path: &Path) -> PipelinePlan {
        for (list, name) in [(&written.receivers, "receivers"), (&written.exporters, "exporters")] {
            if list.is_empty() {
                self.error(path, format!("the pipeline has no {name}: list at least one"));
            }
        }
        PipelinePlan {
            id: id.to_owned(),
            signal,
            receivers: self.listed(Section::Receivers, signal, &written.receivers, path),
            processors: self.listed(Section::Processors, signal, &written.processors, path),
            analyzers: self.listed(Section::Analyzers, signal, &written.analyzers, path),
            exporters: self.listed(Section::Exporters, signal, &written.exporters, path),
        }
    }

    /// The components of one list of a pipeline that exist and can stand there.
    fn listed(&mut self, place: Section, signal: Signal, ids: &[String], pipeline: &Path) -> Vec<(Section, String)> {
        let mut fit = Vec::new();
        for (position, id) in ids.iter().enumerate() {
            let path = pipeline.key(place.name()).index(position);
            if ids.iter().take(position).any(|earlier| earlier == id) {
                self.error(&path, format!("`{id}` stands here twice"));
                continue;
            }
            // A connector is defined where it is a processor and listed where it is a receiver.
            let homes = [place, Section::Processors];
            let home = homes.into_iter().find(|home| self.defined.contains_key(&(*home, id.clone())));
            let Some(home) = home else {
                // Written under a name that was complained of already: it is that mistake over again.
                let mistaken = self.defined.keys().filter(|(section, id)| *section == place && registry::find(*section, id).is_none());
                if !mistaken.into_iter().any(|(_, wrong)| nearest(kind(wrong), [kind(id)]).is_some()) {
                    self.error(&path, self.undefined(place, id));
                }
                continue;
            };
            let Some(factory) = registry::find(home, id) else { continue };
            let Some(role) = factory.roles.iter().find(|role| role.section == place) else {
                self.error(&path, format!("`{id}` is defined under `{}` and can't stand under `{}`", home.name(), place.name()));
                continue;
            };
            if !role.signals.contains(&signal) {
                let signals: Vec<&str> = role.signals.iter().map(|signal| signal.name()).collect();
                self.error(&path, format!("`{id}` under `{}` works in pipelines of {} only, not of {signal}", place.name(), signals.join(" and ")));
                continue;
            }
            if place == Section::Exporters && signal != Signal::Traces {
                self.traces_only(&path, signal, id);
            }
            fit.push((home, id.clone()));
        }
        fit
    }

    fn undefined(&self, place: Section, id: &str) -> String {
        let known = self.defined.keys().filter(|(section, _)| *section == place || place == Section::Receivers && *section == Section::Processors);
        let hint = nearest(id, known.map(|(_, known)| known.as_str())).map(|near| format!("; did you mean `{near}`?"));
        let advice = || advice(place, kind(id)).map(|advice| format!("; {advice}"));
        let other = self.defined.keys().find(|(_, known)| known == id).map(|(section, _)| format!("; it is defined under `{}`", section.name()));
        format!("`{id}` is not defined under `{}`{}", place.name(), hint.or_else(advice).or(other).unwrap_or_default())
    }

    /// Jaeger and Tempo take traces and nothing else.
    fn traces_only(&mut self, path: &Path, signal: Signal, id: &str) {
        let Some(Some(planned)) = self.defined.get(&(Section::Exporters, id.to_owned())) else { return };
        let named = |text: &str| {
            let mut words = text.split(|byte: char| !byte.is_ascii_alphanumeric());
            words.find_map(|word| ["jaeger", "tempo", "zipkin"].into_iter().find(|backend| word.eq_ignore_ascii_case(backend)))
        };
        // The host tells; its address says nothing, then the id may.
        let hosts: Vec<String> = planned.parsed.sends_to.iter().map(|endpoint| host(endpoint)).collect();
        let tells_nothing = hosts.iter().all(|host| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok());
        let backend = match hosts.is_empty() {
            true => None,
            false if tells_nothing => named(id),
            false => hosts.iter().find_map(|host| named(host.split('.').next().unwrap_or_default())),
        };
        if let Some(backend) = backend {
            self.warning(path, format!("`{id}` seems to be {backend}, which takes traces only; it will refuse {signal}"));
        }
    }

    /// What is a processor here and a receiver there must be both, and never both in one pipeline.
    fn connectors(&mut self, pipelines: &[PipelinePlan]) {
        let ids: Vec<String> = registry_connectors(&self.defined).collect();
        for id in ids {
            let key = (Section::Processors, id.clone());
            let at = Path::root("processors").key(&id);
            let feeds = pipelines.iter().any(|pipeline| pipeline.signal == Signal::Traces && pipeline.processors.contains(&key));
            let read = pipelines.iter().any(|pipeline| pipeline.receivers.contains(&key));
            if read && !feeds {
                self.error(&at, format!("`{id}` is a receiver but a processor of no traces pipeline: nothing would come out of it"));
            }
            if feeds && !read {
                self.warning(&at, format!("no pipeline has `{id}` as a receiver: what it derives goes nowhere"));
            }
            for pipeline in pipelines.iter().filter(|pipeline| pipeline.processors.contains(&key) && pipeline.receivers.contains(&key)) {
                let at = Path::root("service").key("pipelines").key(&pipeline.id);
                self.error(&at, format!("`{id}` is receiver and processor of the same pipeline: it would work on what it derived"));
            }
        }
    }

    /// Spans that nobody windows pass through, which is hardly why somebody runs this. Said where nothing else is wrong: a
    /// mistake in a name is told already.
    fn windows(&mut self, pipelines: &[PipelinePlan]) {
        let owners: BTreeSet<String> = registry_connectors(&self.defined).collect();
        let windowed = pipelines.iter().filter(|pipeline| pipeline.signal == Signal::Traces).flat_map(|pipeline| &pipeline.processors);
        let is_windowed = windowed.into_iter().any(|(_, id)| owners.contains(id));
        if !is_windowed && self.problems.iter().all(|problem| problem.severity == Severity::Warning) {
            let path = Path::root("service").key("pipelines");
            self.warning(&path, "no pipeline of traces has a `circuit_window` among its processors: spans pass, and no circuit is found");
        }
    }

    /// What is looked for in whose windows. Analyzers stand beside the one that owns the windows; pipelines that share it
    /// list the same ones.
    fn analyses(&mut self, pipelines: &[PipelinePlan]) -> BTreeMap<String, AnalysisConfig> {
        let owners: BTreeSet<String> = registry_connectors(&self.defined).collect();
        let mut analyses = BTreeMap::new();
        let mut first: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        // In others it takes what processes use up, and no analyzers stand beside it.
        for pipeline in pipelines.iter().filter(|pipeline| pipeline.signal == Signal::Traces) {
            let at = Path::root("service").key("pipelines").key(&pipeline.id).key("analyzers");
            let here: Vec<&String> = pipeline.processors.iter().map(|(_, id)| id).filter(|id| owners.contains(*id)).collect();
            let ids: Vec<String> = pipeline.analyzers.iter().map(|(_, id)| id.clone()).collect();
            if here.is_empty() && !ids.is_empty() {
                self.error(&at, "analyzers look at the windows of a `circuit_window`, and there is none among the pipeline's processors");
            }
            let analysis = self.joined(&ids, &at);
            for owner in here {
                let mut sorted = ids.clone();
                sorted.sort();
                let (other, listed) = first.entry(owner.clone()).or_insert_with(|| (pipeline.id.clone(), sorted.clone()));
                if *listed != sorted {
                    let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
                    let message = format!("pipelines that share `{owner}` must list the same analyzers; `{other}` lists {listed}");
                    self.error(&at, message);
                }
                analyses.insert(owner.clone(), analysis.clone());
            }
        }
        // One that is written and wrong was complained of already.
        let is_written = self.defined.keys().any(|(section, id)| *section == Section::Analyzers && id.split('/').next() == Some("resource"));
        for pipeline in pipelines.iter().filter(|pipeline| pipeline.signal == Signal::Metrics && !is_written) {
            let blind = |id: &&String| analyses.get(*id).is_none_or(|analysis: &AnalysisConfig| analysis.resource.is_none());
            let owner = pipeline.processors.iter().map(|(_, id)| id).find(|id| owners.contains(*id) && blind(id)).cloned();
            if let Some(owner) = owner {
                let at = Path::root("service").key("pipelines").key(&pipeline.id).key("processors");
                self.warning(&at, format!("`{owner}` looks at no metrics: list the analyzer `resource` where it is a processor of traces"));
            }
        }
        analyses
    }

    /// What these analyzers look for, all together.
    fn joined(&mut self, ids: &[String], path: &Path) -> AnalysisConfig {
        let mut all = AnalysisConfig::default();
        for (position, id) in ids.iter().enumerate() {
            let Some(Some(Planned { parsed: Parsed { made: Made::Analysis(analysis), .. }, .. })) =
                self.defined.get(&(Section::Analyzers, id.clone()))
            else {
                continue;
            };
            let looks = (analysis.health.is_some(), ids.iter().any(|other| other.split('/').next() == Some("anomaly")));
            let joined = all.join(analysis);
            if looks == (true, false) {
                self.warning(&path.index(position), format!("`{id}` goes by breakers alone where `anomaly` is not listed"));
            }
            if !joined {
                self.error(&path.index(position), format!("`{id}` looks for what another one in this list looks for"));
            }
        }
        all
    }

    /// No two listen on one address, and nothing is sent back to where it came from.
    fn addresses(&mut self, settings: &Settings) {
        let mut listening: Vec<(String, Path)> = Vec::new();
        let mut sending: Vec<(String, Path)> = Vec::new();
        for ((section, id), planned) in &self.defined {
            let Some(planned) = planned else { continue };
            let path = Path::root(section.name()).key(id);
            listening.extend(planned.parsed.listens_on.iter().map(|endpoint| (address(endpoint), path.clone())));
            sending.extend(planned.parsed.sends_to.iter().map(|endpoint| (address(endpoint), path.clone())));
        }
        let telemetry = Path::root("service").key("telemetry");
        sending.extend(settings.telemetry.sends_to().map(|endpoint| (address(endpoint), telemetry.clone())));
        for (position, (endpoint, path)) in listening.iter().enumerate() {
            if endpoint.ends_with(":0") {
                continue;
            }
            if let Some((_, other)) = listening.iter().take(position).find(|(other, _)| other == endpoint) {
                self.problems.push(Problem::error(path, format!("{endpoint} is listened on by {other} too")));
            }
            for (_, sender) in sending.iter().filter(|(to, _)| to == endpoint) {
                self.problems.push(Problem::error(sender, format!("sends to {endpoint}, where {path} listens: telemetry would go round for ever")));
            }
        }
    }

    fn unused(&mut self, settings: &Settings) {
        // What stands where it can't, or in a pipeline that can't be, was complained of already.
        let mentioned: BTreeSet<(Section, &str)> = settings
            .pipelines
            .values()
            .flat_map(|written| {
                let lists = [
                    (Section::Receivers, &written.receivers),
                    (Section::Processors, &written.processors),
                    (Section::Analyzers, &written.analyzers),
                    (Section::Exporters, &written.exporters),
                ];
                lists.into_iter().flat_map(|(section, ids)| ids.iter().map(move |id| (section, id.as_str())))
            })
            .collect();
        let used = |(section, id): &(Section, String)| {
            mentioned.contains(&(*section, id.as_str())) || *section == Section::Processors && mentioned.contains(&(Section::Receivers, id.as_str()))
        };
        let unused: Vec<_> = self.defined.iter().filter(|(key, planned)| planned.is_some() && !used(key)).map(|(key, _)| key.clone()).collect();
        for (section, id) in unused {
            let path = Path::root(section.name()).key(&id);
            self.warning(&path, "is defined but stands in no pipeline");
            self.defined.remove(&(section, id));
        }
    }

    fn finish(&mut self, settings: Settings, pipelines: Vec<PipelinePlan>, analyses: BTreeMap<String, AnalysisConfig>) -> Plan {
        let components: BTreeMap<_, _> =
            std::mem::take(&mut self.defined).into_iter().filter_map(|(key, planned)| planned.map(|planned| (key, planned))).collect();
        let mut effective = Map::from_iter([("service".to_owned(), serde_json::to_value(&settings).unwrap_or_default())]);
        for section in Section::ALL {
            let of_section = components.iter().filter(|((of, _), _)| *of == section);
            let written: Map<String, Json> = of_section.map(|((_, id), planned)| (id.clone(), planned.parsed.effective.clone())).collect();
            effective.insert(section.name().to_owned(), written.into());
        }
        Plan { components, pipelines, analyses, settings, effective: printable(effective.into()) }
    }
}

/// Ids of defined components that can be a receiver though they are processors.
fn registry_connectors(defined: &BTreeMap<(Section, String), Option<Planned>>) -> impl Iterator<Item = String> {
    defined.keys().filter(|(section, _)| *section == Section::Processors).filter_map(|(section, id)| {
        let factory = registry::find(*section, id)?;
        factory.roles.iter().any(|role| role.section == Section::Receivers).then(|| id.clone())
    })
}

/// The host of an endpoint or URL.
fn host(endpoint: &str) -> String {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']).to_owned()
}

/// `host:port` of an endpoint or URL, with the names of this machine made one.
fn address(endpoint: &str) -> String {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let Some((host, port)) = authority.rsplit_once(':') else { return authority.to_owned() };
    let host = match host {
        "localhost" | "0.0.0.0" | "[::]" | "" => "127.0.0.1",
        host => host,
    };
    format!("{host}:{port}")
}
