use crate::{
    analyzers::{anomaly, health, pattern, resource, trend},
    exporters::{debug, file, otlp_grpc, otlp_http},
    pipeline::{Factory, Section},
    processors::{batch, circuit_window, memory_limiter},
    receivers::{otlp, otlp_file},
};

/// Every component there is: the one table that names them.
pub static FACTORIES: [&Factory; 14] = [
    &otlp::FACTORY,
    &otlp_file::FACTORY,
    &memory_limiter::FACTORY,
    &batch::FACTORY,
    &circuit_window::FACTORY,
    &anomaly::FACTORY,
    &pattern::FACTORY,
    &trend::FACTORY,
    &resource::FACTORY,
    &health::FACTORY,
    &otlp_grpc::FACTORY,
    &otlp_http::FACTORY,
    &debug::FACTORY,
    &file::FACTORY,
];

/// The component of a section that an id (`type/name`) means.
pub(super) fn find(section: Section, id: &str) -> Option<&'static Factory> {
    let kind = id.split_once('/').map_or(id, |(kind, _)| kind);
    of(section).find(|factory| factory.name == kind || factory.aliases.contains(&kind))
}

/// The components of a section.
pub(super) fn of(section: Section) -> impl Iterator<Item = &'static Factory> {
    FACTORIES.iter().copied().filter(move |factory| factory.section == section)
}
