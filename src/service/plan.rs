use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};
use serde_yaml::Value;

use super::{
    registry,
    settings::{Pipeline, Settings},
};
use crate::{
    config::{Path, Problem, Severity, check, nearest, schema_of},
    otlp::Signal,
    pipeline::{Factory, Parsed, Section},
    telemetry::Telemetry,
};

/// Everything that was written, checked: what runs, and how it hangs together.
pub struct Plan {
    /// Components that stand in a pipeline, by section and id.
    pub(super) components: BTreeMap<(Section, String), Planned>,
    /// The pipelines.
    pub(super) pipelines: Vec<PipelinePlan>,
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
    pub(super) exporters: Vec<(Section, String)>,
}

impl Plan {
    /// Components of one kind that stand in a pipeline: their ids, and what was written for them.
    pub fn written(&self, section: Section, kind: &str) -> Vec<(String, Value)> {
        let of_kind = self.components.iter().filter(|((of, _), planned)| *of == section && planned.factory.name == kind);
        of_kind.map(|((_, id), planned)| (id.clone(), planned.value.clone())).collect()
    }

    /// How Fuseboard tells of itself.
    pub fn telemetry(&self) -> &Telemetry {
        &self.settings.telemetry
    }
}

/// Checks a document. All problems are found in one go; there is a plan if none of them is an error.
pub fn plan(document: Value, found: Vec<Problem>) -> (Option<Plan>, Vec<Problem>) {
    let mut planner = Planner { problems: found, defined: BTreeMap::new() };
    let plan = planner.plan(document);
    let plan = plan.filter(|_| planner.problems.iter().all(|problem| problem.severity == Severity::Warning));
    (plan, planner.problems)
}

struct Planner {
    problems: Vec<Problem>,
    defined: BTreeMap<(Section, String), Option<Planned>>,
}

/// Sections that a document may have.
const SECTIONS: [&str; 6] = ["receivers", "processors", "analyzers", "exporters", "extensions", "service"];

impl Planner {
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
        for section in ["analyzers", "extensions"] {
            for (id, _) in document.remove(section).and_then(|written| written.as_mapping().cloned()).unwrap_or_default() {
                let path = Path::root(section).key(id.as_str().unwrap_or("?"));
                self.error(&path, format!("there are no {section} in this version"));
            }
        }
        let settings = self.settings(document.remove("service").unwrap_or_default())?;
        let pipelines = self.pipelines(&settings);
        self.connectors(&pipelines);
        self.addresses(&settings);
        self.unused(&pipelines);
        Some(self.finish(settings, pipelines))
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
        let before = self.problems.len();
        check(&mut value, &(factory.schema)(), path, &mut self.problems);
        if self.problems.iter().skip(before).any(|problem| problem.severity == Severity::Error) {
            return None;
        }
        match (factory.parse)(value.clone()) {
            Ok(parsed) => {
                parsed.warnings.iter().for_each(|warning| self.warning(path, warning.clone()));
                Some(Planned { factory, value, parsed })
            }
            Err(message) => {
                self.error(path, message);
                None
            }
        }
    }

    fn settings(&mut self, mut written: Value) -> Option<Settings> {
        let path = Path::root("service");
        let before = self.problems.len();
        check(&mut written, &schema_of::<Settings>(), &path, &mut self.problems);
        if self.problems.len() > before {
            return None;
        }
        match serde_yaml::from_value::<Settings>(written) {
            Ok(settings) => {
                if settings.pipelines.is_empty() {
                    self.error(&path, "`pipelines` is missing or empty: nothing would run");
                }
                for (position, id) in settings.extensions.iter().enumerate() {
                    self.error(&path.key("extensions").index(position), format!("extension `{id}` is not defined under `extensions`"));
                }
                Some(settings)
            }
            Err(error) => {
                self.error(&path, error.to_string());
                None
            }
        }
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
        for (position, analyzer) in written.analyzers.iter().enumerate() {
            self.error(&path.key("analyzers").index(position), format!("analyzer `{analyzer}` is not defined under `analyzers`"));
        }
        PipelinePlan {
            id: id.to_owned(),
            signal,
            receivers: self.listed(Section::Receivers, signal, &written.receivers, path),
            processors: self.listed(Section::Processors, signal, &written.processors, path),
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
                self.error(&path, self.undefined(place, id));
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
        let elsewhere = self.defined.keys().find(|(_, known)| known == id).map(|(section, _)| format!("; it is defined under `{}`", section.name()));
        format!("`{id}` is not defined under `{}`{}", place.name(), hint.or(elsewhere).unwrap_or_default())
    }

    /// Jaeger and Tempo take traces and nothing else.
    fn traces_only(&mut self, path: &Path, signal: Signal, id: &str) {
        let Some(Some(planned)) = self.defined.get(&(Section::Exporters, id.to_owned())) else { return };
        let named = |text: &str| ["jaeger", "tempo", "zipkin"].into_iter().find(|backend| text.to_ascii_lowercase().contains(backend));
        let backend = planned.parsed.sends_to.iter().find_map(|endpoint| named(endpoint));
        if let Some(backend) = backend.or_else(|| named(id)) {
            self.warning(path, format!("`{id}` seems to be {backend}, which takes traces only; it will refuse {signal}"));
        }
    }

    /// What is a processor here and a receiver there must be both, and never both in one pipeline.
    fn connectors(&mut self, pipelines: &[PipelinePlan]) {
        let ids: Vec<String> = registry_connectors(&self.defined).collect();
        for id in ids {
            let key = (Section::Processors, id.clone());
            let at = Path::root("processors").key(&id);
            let feeds = pipelines.iter().any(|pipeline| pipeline.processors.contains(&key));
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

    fn unused(&mut self, pipelines: &[PipelinePlan]) {
        let used = |key: &(Section, String)| {
            pipelines.iter().any(|pipeline| pipeline.receivers.contains(key) || pipeline.processors.contains(key) || pipeline.exporters.contains(key))
        };
        let unused: Vec<_> = self.defined.iter().filter(|(key, planned)| planned.is_some() && !used(key)).map(|(key, _)| key.clone()).collect();
        for (section, id) in unused {
            let path = Path::root(section.name()).key(&id);
            self.warning(&path, "is defined but stands in no pipeline");
            self.defined.remove(&(section, id));
        }
    }

    fn finish(&mut self, settings: Settings, pipelines: Vec<PipelinePlan>) -> Plan {
        let components: BTreeMap<_, _> =
            std::mem::take(&mut self.defined).into_iter().filter_map(|(key, planned)| planned.map(|planned| (key, planned))).collect();
        let mut effective = Map::from_iter([("service".to_owned(), serde_json::to_value(&settings).unwrap_or_default())]);
        for section in Section::ALL {
            let of_section = components.iter().filter(|((of, _), _)| *of == section);
            let written: Map<String, Json> = of_section.map(|((_, id), planned)| (id.clone(), planned.parsed.effective.clone())).collect();
            effective.insert(section.name().to_owned(), written.into());
        }
        Plan { components, pipelines, settings, effective: effective.into() }
    }
}

/// Ids of defined components that can be a receiver though they are processors.
fn registry_connectors(defined: &BTreeMap<(Section, String), Option<Planned>>) -> impl Iterator<Item = String> {
    defined.keys().filter(|(section, _)| *section == Section::Processors).filter_map(|(section, id)| {
        let factory = registry::find(*section, id)?;
        factory.roles.iter().any(|role| role.section == Section::Receivers).then(|| id.clone())
    })
}

fn unknown_component(section: Section, id: &str) -> String {
    let kind = id.split_once('/').map_or(id, |(kind, _)| kind);
    let one = section.name().trim_end_matches('s');
    if let Some(near) = nearest(kind, registry::of(section).map(|factory| factory.name)) {
        return format!("unknown {one} `{kind}`; did you mean `{near}`?");
    }
    if let Some(other) = Section::ALL.into_iter().find(|other| registry::find(*other, id).is_some()) {
        return format!("`{kind}` is no {one}; it stands under `{}`", other.name());
    }
    let known: Vec<&str> = registry::of(section).map(|factory| factory.name).collect();
    format!(
        "unknown {one} `{kind}`; known here: {}. What only the OpenTelemetry Collector has needs a Collector in front of Fuseboard",
        known.join(", ")
    )
}

/// `host:port` of an endpoint or URL, with the names of this machine made one.
fn address(endpoint: &str) -> String {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let Some((host, port)) = authority.rsplit_once(':') else { return authority.to_owned() };
    let host = match host {
        "localhost" | "0.0.0.0" | "[::]" | "[::1]" | "" => "127.0.0.1",
        host => host,
    };
    format!("{host}:{port}")
}
