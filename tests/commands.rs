//! The command line: what it says of configurations, good and bad, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use support::{Directory, run};

fn validate(directory: &Directory, yaml: &str) -> (Option<i32>, String) {
    let path = directory.file("f.yaml", yaml);
    let output = run(&["validate", "--config", path.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said.replace(directory.0.to_str().unwrap(), "").replace("/f.yaml", "f.yaml"))
}

const GOOD: &str = "receivers: { otlp: { protocols: { grpc: { endpoint: '127.0.0.1:0' } } } }
processors: { circuit_window: {} }
exporters: { debug: {} }
service:
  pipelines:
    traces: { receivers: [otlp], processors: [circuit_window], exporters: [debug] }
    metrics: { receivers: [circuit_window], exporters: [debug] }
";

/// A mistake in the good configuration, and a line that must be said of it.
fn mistakes() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("debug: {}", "debug: { verbosty: basic }", "f.yaml:3: error: exporters::debug::verbosty: unknown key; did you mean `verbosity`?"),
        ("debug: {}", "debgu: {}", "f.yaml:3: error: exporters::debgu: unknown exporter `debgu`; did you mean `debug`?"),
        ("circuit_window: {}", "circuit_window: { window_size: 60 }", "f.yaml:2: error: processors::circuit_window::window_size: "),
        ("circuit_window: {}", "circuit_window: { window_size: 60parsecs }", "f.yaml:2: error: processors::circuit_window::window_size: "),
        ("circuit_window: {}", "circuit_window: { max_circuits: many }", "f.yaml:2: error: processors::circuit_window::max_circuits: "),
        (
            "circuit_window: {}",
            "circuit_window: { percentiles: [150] }",
            "f.yaml:2: error: processors::circuit_window::percentiles: must be between 0 and 100",
        ),
        (
            "receivers: [otlp]",
            "receivers: [otpl]",
            "f.yaml:6: error: service::pipelines::traces::receivers::0: `otpl` is not defined under `receivers`; did you mean `otlp`?",
        ),
        ("receivers: [otlp]", "receivers: []", "f.yaml:6: error: service::pipelines::traces: the pipeline has no receivers"),
        (
            "processors: [circuit_window], exporters: [debug] }",
            "processors: [circuit_window], exporters: [] }",
            "f.yaml:6: error: service::pipelines::traces: the pipeline has no exporters",
        ),
        (
            "    metrics:",
            "    metrcis:",
            "f.yaml:7: error: service::pipelines::metrcis: a pipeline's id begins with traces, metrics or logs; did you mean `metrics`?",
        ),
        (
            "receivers: [circuit_window]",
            "receivers: [otlp], processors: [circuit_window]",
            "f.yaml:7: warning: service::pipelines::metrics::processors: `circuit_window` looks at no metrics: list the analyzer `resource` where it is a processor of traces",
        ),
        ("debug: {}", "debug: {}, debug/unused: {}", "f.yaml:3: warning: exporters::debug/unused: is defined but stands in no pipeline"),
        ("exporters: { debug: {} }", "exporters: { debug: { verbosity: '${env:NOT_SET_ANYWHERE}' } }", "NOT_SET_ANYWHERE"),
        ("service:", "servcie:", "unknown section; did you mean `service`?"),
        ("exporters: { debug: {} }", "exporters: { debug: {}, debug: {} }", "f.yaml:3: error: "),
        ("exporters: { debug: {} }", "exporters: [", "f.yaml:"),
    ]
}

/// What is right elsewhere, and what must be said of it.
fn foreign_habits() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("debug: {}", "logging: {}", "f.yaml:3: error: exporters::logging: unknown exporter `logging`; `debug` is what the Collector calls it now"),
        ("debug: {}", "prometheusremotewrite: {}", "write `otlp_http` with `endpoint: http://HOST:9090/api/v1/otlp`"),
        ("debug: {}", "jaeger/a: {}", "unknown exporter `jaeger`; it takes OTLP: write `otlp_grpc` with `endpoint: HOST:4317`"),
        ("debug: {}", "kafka: {}", "needs a Collector behind Fuseboard"),
        ("{ otlp:", "{ kafka: {}, otlp:", "needs a Collector in front of Fuseboard"),
        (
            "circuit_window: {}",
            "circuit_window: {}, resource: {}",
            "f.yaml:2: error: processors::resource: unknown processor `resource`; the Collector's",
        ),
        ("processors: [circuit_window]", "processors: [resource, circuit_window]", "The `resource` of Fuseboard is an analyzer"),
        (
            "  pipelines:",
            "  telemetry: { metrics: { address: '0.0.0.0:8888' } }\n  pipelines:",
            "f.yaml:5: error: service::telemetry::metrics::address: unknown key; there is no page to scrape; `readers` says",
        ),
        (
            "exporters: { debug: {} }",
            "exporters: { debug: {}, otlp_http: { endpoint: 'http://x', headers: { X-Scope-OrgID: 1 } } }",
            "f.yaml:3: error: exporters::otlp_http::headers::X-Scope-OrgID: must be text: put it in quotes",
        ),
    ]
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let directory = Directory::new();
    let (code, said) = validate(&directory, GOOD);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    for (good, bad, expected) in mistakes().into_iter().chain(foreign_habits()) {
        let (code, said) = validate(&directory, &GOOD.replacen(good, bad, 1));
        assert!(said.contains(expected), "{bad}: `{expected}` is not in\n{said}");
        assert_eq!(code, Some(if expected.contains("warning") { 0 } else { 64 }), "{said}");
    }
}

/// Two pipelines that share windows, with analyzers.
const ANALYZED: &str = "receivers: { otlp: { protocols: { grpc: { endpoint: '127.0.0.1:0' } } } }
processors: { circuit_window: {}, batch: {} }
analyzers: { anomaly: {}, pattern: {}, trend: {} }
exporters: { debug: {} }
service:
  pipelines:
    traces: { receivers: [otlp], processors: [circuit_window], analyzers: [anomaly, pattern, trend], exporters: [debug] }
    traces/two: { receivers: [otlp], processors: [batch, circuit_window], analyzers: [trend, anomaly, pattern], exporters: [debug] }
    metrics: { receivers: [circuit_window], exporters: [debug] }
";

/// Mistakes in that, as above.
fn analyzer_mistakes() -> Vec<(&'static str, &'static str, &'static str)> {
    vec![
        ("anomaly: {}", "anomaly: { threshold: 9 }", "f.yaml:3: error: analyzers::anomaly::threshold: 9 is not between 1 and 6 standard deviations"),
        ("anomaly: {}", "anomaly: { min_duration_change: 2m }", "analyzers::anomaly::min_duration_change: must be at most 1m"),
        ("anomaly: {}", "anomaly: { method: zscor }", "f.yaml:3: error: analyzers::anomaly::method: "),
        ("anomaly: {}", "anomaly: { treshold: 2 }", "f.yaml:3: error: analyzers::anomaly::treshold: unknown key; did you mean `threshold`?"),
        ("anomaly: {}", "anomoly: {}", "f.yaml:3: error: analyzers::anomoly: unknown analyzer `anomoly`; did you mean `anomaly`?"),
        ("pattern: {}", "pattern: { sensitivity: high }", "f.yaml:3: error: analyzers::pattern::sensitivity: "),
        (
            "trend: {}",
            "trend: {}, resource: { low: 0.9 }",
            "f.yaml:3: error: analyzers::resource::low: 0.9 must be more than 0 and at most `high`, which is 0.8",
        ),
        (
            "trend: {}",
            "trend: {}, resource: { concurrency_limit: 0 }",
            "analyzers::resource::concurrency_limit: must be more than 0 and at most 1000000000",
        ),
        ("trend: {}", "trend: {}, resource: { threshold: 0.5 }", "analyzers::resource::threshold: must be 1 to 6 standard deviations"),
        (
            "trend: {}",
            "trend: {}, health: { unhealthy: { error_ratio: 5 } }",
            "analyzers::health::unhealthy::error_ratio: must be more than 0 and at most 1",
        ),
        ("trend: {}", "trend: {}, health: { degraded: { time_to_limit: 1h } }", "analyzers::health::degraded::time_to_limit: must be at most 20m"),
        ("trend: {}", "trend: {}, health: { degraded: { signals: [latency] } }", "analyzers::health::degraded::signals"),
        ("trend: {}", "trend: { window: 10s }", "f.yaml:3: error: analyzers::trend::window: must be 3m to 1h"),
        (
            "trend: {}",
            "trend: { limits: { error_ratio: 50 } }",
            "f.yaml:3: error: analyzers::trend::limits::error_ratio: must be more than 0 and at most 1",
        ),
        ("trend: {}", "trend: {}, trend/slow: { window: 1h }", "f.yaml:3: warning: analyzers::trend/slow: is defined but stands in no pipeline"),
        (
            "analyzers: [anomaly,",
            "analyzers: [anomalie,",
            "f.yaml:7: error: service::pipelines::traces::analyzers::0: `anomalie` is not defined under `analyzers`; did you mean `anomaly`?",
        ),
        (
            "[trend, anomaly, pattern]",
            "[trend]",
            "f.yaml:8: error: service::pipelines::traces/two::analyzers: pipelines that share `circuit_window` must list the same analyzers; `traces` lists anomaly, pattern, trend",
        ),
        (
            "processors: [batch, circuit_window]",
            "processors: [batch]",
            "f.yaml:8: error: service::pipelines::traces/two::analyzers: analyzers look at the windows of a `circuit_window`, and there is none among the pipeline's processors",
        ),
        (
            "metrics: { receivers: [circuit_window],",
            "metrics: { receivers: [circuit_window], analyzers: [trend],",
            "f.yaml:9: error: service::pipelines::metrics::analyzers::0: `trend` under `analyzers` works in pipelines of traces only, not of metrics",
        ),
        (
            "processors: [circuit_window], analyzers",
            "processors: [circuit_window, trend], analyzers",
            "`trend` is not defined under `processors`; it is defined under `analyzers`",
        ),
    ]
}

#[test]
fn every_mistake_with_analyzers_is_named_with_its_place() {
    let directory = Directory::new();
    let (code, said) = validate(&directory, ANALYZED);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    for (good, bad, expected) in analyzer_mistakes() {
        let (code, said) = validate(&directory, &ANALYZED.replacen(good, bad, 1));
        assert!(said.contains(expected), "{bad}: `{expected}` is not in\n{said}");
        assert_eq!(code, Some(if expected.contains("warning") { 0 } else { 64 }), "{said}");
    }
    let blind = ANALYZED.replace("anomaly: {}", "health: {}").replace("anomaly", "health");
    let (code, said) = validate(&directory, &blind);
    assert!(
        code == Some(0)
            && said.contains(
                "f.yaml:7: warning: service::pipelines::traces::analyzers::0: `health` goes by breakers alone where `anomaly` is not listed"
            ),
        "{said}"
    );
    let twice = ANALYZED.replace("trend: {} }", "trend: {}, trend/slow: { window: 1h } }").replace("pattern, trend]", "pattern, trend, trend/slow]");
    let (_, said) = validate(&directory, &twice);
    assert!(
        said.contains("f.yaml:7: error: service::pipelines::traces::analyzers::3: `trend/slow` looks for what another one in this list looks for"),
        "{said}"
    );
}

#[test]
fn all_mistakes_are_named_at_once() {
    let directory = Directory::new();
    let (code, said) = validate(
        &directory,
        "receivers: { otlp: { protocols: { grpc: { endpoint: nowhere }, http: { endpoint: '1:2:3' } } } }
processors:
  circuit_window:
    bucket_size: 3s
    emit_interval: 100ms
    disabled_metrics: [circuit_breaker.trip]
    failure: { http_status_codes: ['9999'], grpc_status_codes: [UNAVAILABEL] }
exporters: { otlp_grpc/tempo: { endpoint: tempo, tls: { insecure: yes please } }, debug: { verbosity: loud } }
service:
  telemtry: {}
  pipelines:
    traces: { receivers: [otpl], processors: [circuit_window], exporters: [debgu] }
    metrics: { receivers: [circuit_window], exporters: [otlp_grpc/tempo] }
",
    );
    assert_eq!(code, Some(64));
    for place in [
        "f.yaml:1: error: receivers::otlp::protocols::grpc::endpoint",
        "f.yaml:1: error: receivers::otlp::protocols::http::endpoint",
        "f.yaml:4: error: processors::circuit_window::bucket_size",
        "f.yaml:5: error: processors::circuit_window::emit_interval",
        "f.yaml:6: error: processors::circuit_window::disabled_metrics: there is no metric `circuit_breaker.trip`; did you mean `circuit_breaker.trips`?",
        "f.yaml:7: error: processors::circuit_window::failure::http_status_codes",
        "there is no gRPC status `UNAVAILABEL`; did you mean `UNAVAILABLE`?",
        "f.yaml:8: error: exporters::otlp_grpc/tempo::tls::insecure",
        "f.yaml:8: error: exporters::debug::verbosity",
        "f.yaml:10: error: service::telemtry: unknown key; did you mean `telemetry`?",
        "f.yaml:12: error: service::pipelines::traces::receivers::0",
        "f.yaml:12: error: service::pipelines::traces::exporters::0",
    ] {
        assert!(said.contains(place), "`{place}` is not in\n{said}");
    }
}

#[test]
fn backends_that_take_traces_only_are_known() {
    let directory = Directory::new();
    let with = |exporter: &str| {
        let yaml = GOOD.replace("debug: {}", exporter).replace("[debug]", &format!("[{}]", exporter.split_once(": {").unwrap().0));
        validate(&directory, &yaml)
    };
    let (code, said) = with("otlp_grpc/x: { endpoint: 'tempo:4317' }");
    assert!(code == Some(0) && said.contains("seems to be tempo, which takes traces only"), "{said}");
    for fine in ["otlp_grpc/x: { endpoint: 'temporal.prod:4317' }", "debug/tempo: {}", "otlp_http/tempo: { endpoint: 'http://prometheus:9090' }"] {
        assert_eq!(with(fine), (Some(0), String::new()));
    }
}

#[test]
fn pipelines_without_windows_draw_a_warning() {
    let directory = Directory::new();
    let (code, said) = validate(
        &directory,
        "receivers: { otlp: { protocols: { grpc: { endpoint: '127.0.0.1:0' } } } }
exporters: { debug: {} }
service: { pipelines: { traces: { receivers: [otlp], exporters: [debug] } } }
",
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("f.yaml:3: warning: service::pipelines: no pipeline of traces has a `circuit_window`"), "{said}");
}

/// A fault in every place where a secret may stand by mistake.
const FAULTS: &str = "receivers:
  otlp: { protocols: { grpc: { endpoint: SECRET }, http: { endpoint: '127.0.0.1:0', unknown: SECRET } } }
  otlp/units: { protocols: { http: { max_request_body_size: SECRET } } }
  otlp_file: { include: SECRET, start_at: SECRET }
processors:
  memory_limiter: { limit_mib: SECRET }
  circuit_window: { window_size: SECRET, max_circuits: SECRET, percentiles: [SECRET], sampling: SECRET, unknown: SECRET }
  circuit_window/values: { failure: { http_status_codes: [SECRET], grpc_status_codes: [SECRET] }, disabled_metrics: [SECRET] }
  circuit_window/rules: { detection: { rules: [{ library: a, texts: [a], meaning: SECRET }] } }
analyzers:
  anomaly: { threshold: SECRET, method: SECRET }
exporters:
  otlp_http: { endpoint: 'ftp://user:SECRET@x', headers: { a: [SECRET], 'b c': SECRET } }
  otlp_http/headers: { endpoint: 'http://x', headers: SECRET }
  otlp_http/types: { endpoint: [SECRET], compression: SECRET, timeout: SECRET, sending_queue: { queue_size: SECRET }, retry_on_failure: SECRET }
  otlp_http/url: { endpoint: 'http://user:SECRET@' }
  otlp_grpc: { endpoint: 'http://user:SECRET@host' }
  otlp_grpc/plain: { endpoint: 'user:SECRET@host' }
  otlp_grpc/token: { endpoint: SECRET, headers: { 'b c': SECRET } }
  debug: { verbosity: SECRET }
  file: { path: /x, format: SECRET, rotation: { max_megabytes: SECRET } }
service:
  shutdown_timeout: SECRET
  extensions: [SECRET]
  telemetry:
    logs: { level: SECRET }
    metrics: { readers: [{ periodic: { exporter: { otlp: { endpoint: 'http://user:SECRET@x:1' } } } }], address: SECRET }
  pipelines:
    traces: { receivers: [SECRET, otlp], processors: [SECRET], exporters: [SECRET, debug] }
    logs: { receivers: otlp, exporters: SECRET }
";

#[test]
fn what_variables_and_files_hold_shows_nowhere() {
    let directory = Directory::new();
    for secret in ["48151623421", "open-4815", "sesame\n"] {
        let file = directory.file("token", secret);
        for expression in ["${env:TOKEN}".to_owned(), format!("${{file:{}}}", file.display())] {
            // Alone, and in the middle of a text.
            for before in ["", "x-"] {
                let yaml = FAULTS.replace(":SECRET@", &format!(":{expression}@")).replace("SECRET", &format!("'{before}{expression}'"));
                let path = directory.file("faults.yaml", &yaml);
                let mut command = std::process::Command::new(support::PROGRAM);
                let output = command.args(["validate", "-c"]).arg(path).env("TOKEN", secret).output().unwrap();
                let said = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(64), "{said}");
                assert!(!said.to_lowercase().contains(secret.trim()), "`{secret}` shows in\n{said}");
                assert!(said.matches(&expression).count() > 10, "the expression is not shown in\n{said}");
            }
        }
    }
}

#[test]
fn bombs_are_refused() {
    let directory = Directory::new();
    let list = vec!["x"; 3000].join(", ");
    let aliases = vec!["*a"; 3000].join(", ");
    for bomb in [
        format!("a: &a [{list}]\nb: [{aliases}]\n{GOOD}"),
        "[".repeat(100_000),
        format!("{GOOD}# {}", "x".repeat(2 << 20)),
        "a: ".to_owned() + &"{a: ".repeat(5000),
    ] {
        let (code, said) = validate(&directory, &bomb);
        assert!(code == Some(64) && said.len() < 2000, "{code:?} {said:.500}");
    }
}

#[test]
fn sources_are_merged_in_order() {
    let directory = Directory::new();
    let base = directory.file("base.yaml", GOOD);
    let over = directory.file("over.yaml", "exporters: { debug: { verbosity: detailed } }");
    let print = |more: &[&str]| {
        let (base, over) = (base.to_str().unwrap(), over.to_str().unwrap());
        let output = run(&[&["-c", base, "print-config", "-c", over], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_yaml::from_slice::<serde_yaml::Value>(&output.stdout).unwrap()
    };
    assert_eq!(print(&[])["exporters"]["debug"]["verbosity"], "detailed");
    assert_eq!(print(&["--set", "exporters.debug.verbosity=normal"])["exporters"]["debug"]["verbosity"], "normal");
    let output = run(&["-c", "/no/such/file.yaml", "validate", "-c", base.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn what_is_printed_takes_effect_again_and_tells_no_secrets() {
    let directory = Directory::new();
    let with_secret =
        GOOD.replace("debug: {}", "otlp_http: { endpoint: 'http://x', headers: { authorization: hunter2 } }").replace("[debug]", "[otlp_http]");
    let path = directory.file("secret.yaml", with_secret);
    let print = |path: &std::path::Path| {
        let output = run(&["print-config", "-c", path.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(&path);
    assert!(!printed.contains("hunter2"), "{printed}");
    let again = directory.file("again.yaml", &printed);
    assert_eq!(print(&again), printed);
    let failed = run(&["validate", "--set", "exporters.debug.headers.authorization=hunter2"]);
    assert!(!String::from_utf8_lossy(&failed.stderr).contains("hunter2"));
}

#[test]
fn everything_else_is_told_too() {
    let text = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(text(&["--version"]).trim(), concat!("fuseboard ", env!("CARGO_PKG_VERSION")));
    let components = text(&["components"]);
    for name in ["otlp:", "otlp_file:", "memory_limiter:", "batch:", "circuit_window:", "otlp_grpc:", "otlp_http:", "debug:", "file:"] {
        assert!(components.contains(name), "{name}");
    }
    assert!(components.contains("percentiles: [50.0,90.0,95.0,99.0]"), "{components}");
    let schema: serde_json::Value = serde_json::from_str(&text(&["schema"])).unwrap();
    assert!(schema["properties"]["processors"]["properties"]["circuit_window"].is_object());
    assert!(text(&["completions", "bash"]).contains("_fuseboard"));
    assert_eq!(run(&["--no-such-flag"]).status.code(), Some(2));
    for shipped in ["fuseboard", "jaeger", "tempo-prometheus"] {
        let path = format!("{}/config/{shipped}.yaml", env!("CARGO_MANIFEST_DIR"));
        let output = run(&["validate", "-c", &path]);
        assert!(output.status.success() && output.stderr.is_empty(), "{shipped}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
