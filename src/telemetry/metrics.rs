use opentelemetry_otlp::{MetricExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
};

use super::settings::Telemetry;

/// The provider of own metrics; `None` where nobody asked for them.
pub(super) fn provider(settings: &Telemetry, resource: Resource) -> Result<Option<SdkMeterProvider>, String> {
    if settings.metrics.readers.is_empty() {
        return Ok(None);
    }
    let mut builder = SdkMeterProvider::builder().with_resource(resource);
    for reader in &settings.metrics.readers {
        let endpoint = &reader.periodic.exporter.otlp.endpoint;
        let exporter = MetricExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| format!("service::telemetry::metrics: endpoint `{endpoint}`: {error}"))?;
        builder = builder.with_reader(PeriodicReader::builder(exporter).with_interval(reader.periodic.interval.get()).build());
    }
    Ok(Some(builder.build()))
}
