use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};

use super::settings::Telemetry;

/// The provider of own traces; `None` where nobody asked for them.
pub(super) fn provider(settings: &Telemetry, resource: Resource) -> Result<Option<SdkTracerProvider>, String> {
    let traces = &settings.traces;
    if traces.processors.is_empty() {
        return Ok(None);
    }
    let ratio = traces.sampler.trace_id_ratio_based.ratio;
    let mut builder = SdkTracerProvider::builder().with_resource(resource).with_sampler(Sampler::TraceIdRatioBased(ratio));
    for processor in &traces.processors {
        let endpoint = &processor.batch.exporter.otlp.endpoint;
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| format!("service::telemetry::traces: endpoint `{endpoint}`: {error}"))?;
        builder = builder.with_batch_exporter(exporter);
    }
    Ok(Some(builder.build()))
}
