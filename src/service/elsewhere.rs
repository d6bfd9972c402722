//! Components that other configurations have and this program doesn't: what to write instead, or where else they belong.

use super::registry;
use crate::{config::nearest, pipeline::Section};

/// The type in a component's id.
pub(super) fn kind(id: &str) -> &str {
    id.split_once('/').map_or(id, |(kind, _)| kind)
}

/// What is said of a component that there is none of.
pub(super) fn unknown_component(section: Section, id: &str) -> String {
    let kind = kind(id);
    let one = section.name().trim_end_matches('s');
    if let Some(advice) = advice(section, kind) {
        return format!("unknown {one} `{kind}`; {advice}");
    }
    if let Some(near) = nearest(kind, registry::of(section).map(|factory| factory.name)) {
        return format!("unknown {one} `{kind}`; did you mean `{near}`?");
    }
    if let Some(other) = Section::ALL.into_iter().find(|other| registry::find(*other, id).is_some()) {
        return format!("`{kind}` is no {one}; it stands under `{}`", other.name());
    }
    let known: Vec<&str> = registry::of(section).map(|factory| factory.name).collect();
    if section == Section::Analyzers {
        return format!("unknown {one} `{kind}`; known: {}", known.join(", "));
    }
    format!("unknown {one} `{kind}`; known here: {}. {}", known.join(", "), place(section))
}

/// What is said of a component under a section that is none here.
pub(super) fn advice(section: Section, kind: &str) -> Option<&'static str> {
    match section {
        Section::Receivers => receiver(kind),
        Section::Processors => processor(kind),
        Section::Analyzers => None,
        Section::Exporters => exporter(kind),
    }
}

/// Where a component that only the Collector has can do its work.
const fn place(section: Section) -> &'static str {
    match section {
        Section::Exporters => "What only the OpenTelemetry Collector sends to needs a Collector behind Fuseboard: send it OTLP by `otlp_grpc`",
        _ => "What only the OpenTelemetry Collector has needs a Collector in front of Fuseboard",
    }
}

fn receiver(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "otlp_grpc" | "otlp_http" | "otlphttp" => "`otlp` receives both: write `otlp: { protocols: { grpc: {}, http: {} } }`",
        "otlpjsonfile" | "otlp_json_file" | "filelog" | "file_log" => {
            "`otlp_file` reads files of OTLP; other logs need a Collector in front of Fuseboard"
        }
        "jaeger" | "zipkin" => "applications that send spans in that form need a Collector in front of Fuseboard, which sends them on as OTLP",
        "spanmetrics" | "span_metrics" | "servicegraph" | "service_graph" => {
            "what `circuit_window` derives from spans comes out of it: list it as the receiver"
        }
        _ => return None,
    })
}

fn processor(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "resource" => {
            "the Collector's processor of this name changes attributes of resources, which nothing here does: it needs a Collector in front \
             of Fuseboard. The `resource` of Fuseboard is an analyzer, and looks at what callers and processes use up: it stands under `analyzers`"
        }
        "probabilistic_sampler" | "probabilisticsampler" | "tail_sampling" | "tailsampling" => {
            "circuits need all spans: sample in a Collector behind Fuseboard"
        }
        _ => return None,
    })
}

fn exporter(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "logging" => "`debug` is what the Collector calls it now, and so does Fuseboard",
        "prometheus" | "prometheusremotewrite" | "prometheus_remote_write" => {
            "Prometheus takes OTLP: write `otlp_http` with `endpoint: http://HOST:9090/api/v1/otlp`, and start Prometheus with \
             --web.enable-otlp-receiver. There is no page to scrape"
        }
        "jaeger" | "jaeger_thrift" | "tempo" => "it takes OTLP: write `otlp_grpc` with `endpoint: HOST:4317`",
        "loki" => "Loki takes OTLP: write `otlp_http` with `endpoint: http://HOST:3100/otlp`",
        "mimir" => "Mimir takes OTLP: write `otlp_http` with `endpoint: http://HOST:8080/otlp`",
        "spanmetrics" | "span_metrics" | "servicegraph" | "service_graph" => {
            "what is derived from spans here is derived by `circuit_window`, among the processors"
        }
        _ => return None,
    })
}
