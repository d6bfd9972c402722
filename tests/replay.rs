//! `replay`: the same recording gives the same to the byte, in whatever order its requests came within the lateness.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::Path,
};

use support::{
    Directory, run,
    spans::{SECOND, attribute, bytes, call, request},
};

/// 50 s of a Python service with pybreaker, recorded by the Collector's `file` exporter.
fn recording() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testdata/pybreaker.jsonl.gz");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

fn replay(file: &Path, more: &[&str]) -> String {
    let output = run(&[&["replay", file.to_str().unwrap()], more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of one kind.
fn lines(output: &str, kind: &str) -> Vec<serde_json::Value> {
    let lines = output.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).collect()
}

#[test]
fn a_recording_gives_the_same_twice_and_shuffled_within_the_lateness() {
    let directory = Directory::new();
    let text = recording();
    let straight = directory.file("straight.jsonl", &text);
    let metrics = [directory.0.join("first.jsonl"), directory.0.join("second.jsonl")];
    let outputs = metrics.each_ref().map(|metrics| replay(&straight, &["--metrics", metrics.to_str().unwrap()]));
    assert_eq!(outputs[0], outputs[1]);
    let [first, second] = metrics.map(|metrics| std::fs::read_to_string(metrics).unwrap());
    assert!(first == second && first.lines().count() > 5);

    let circuits = lines(&outputs[0], "circuit");
    let events = lines(&outputs[0], "event");
    assert_eq!((&circuits[0]["requests"]["success"], events.len()), (&5089.into(), 74));
    assert_eq!(circuits[0]["window"]["success"].as_u64().map(|calls| calls > 100), Some(true));

    // The recording holds a request every 0.5 s or so. Each comes up to 10 s later than it was sent: the same windows.
    let late = replay(&directory.file("late.jsonl", shuffled(&text, 20)), &[]);
    for part in ["window", "errors"] {
        assert_eq!(lines(&late, "circuit")[0][part], circuits[0][part]);
    }
    assert_eq!(lines(&late, "circuit")[0]["requests"]["success"], 5089);
    // Where spans are waited for as long as that, breakers' states are the same, too.
    let patient = ["--set", "processors.circuit_window.reorder=15s"];
    let [waited, late] = ["straight.jsonl", "late.jsonl"].map(|file| replay(&directory.0.join(file), &patient));
    assert_eq!(told(&late), told(&waited));
    assert_eq!(told(&waited), told(&outputs[0]));
}

#[test]
fn what_is_not_due_at_the_end_of_a_recording_is_of_its_time() {
    let directory = Directory::new();
    let text = recording();
    // Ends while calls are refused.
    let cut: Vec<&str> = text.lines().take(150).collect();
    let newest =
        cut.iter().flat_map(|line| line.split("\"endTimeUnixNano\":\"").skip(1)).filter_map(|rest| rest.split_once('"')?.0.parse::<u64>().ok()).max();
    let latest = newest.unwrap() + 2_000_000_000;
    let (file, metrics) = (directory.file("cut.jsonl", cut.join("\n")), directory.0.join("metrics.jsonl"));
    let output = replay(&file, &["--metrics", metrics.to_str().unwrap()]);
    let told = |kind: &str| lines(&output, kind).iter().map(|line| line["time_unix_nano"].as_u64().unwrap()).collect::<Vec<_>>();
    assert!(!told("event").is_empty() && !told("finding").is_empty());
    assert!(told("event").into_iter().chain(told("finding")).all(|at| at <= latest));
    let metrics = std::fs::read_to_string(metrics).unwrap();
    let times = metrics.split("imeUnixNano\":\"").skip(1).filter_map(|rest| rest.split_once('"')?.0.parse::<u64>().ok());
    assert!(times.max().unwrap() <= latest);
}

/// What was told of breakers, without when it was known.
fn told(output: &str) -> Vec<String> {
    let one = |line: &serde_json::Value| format!("{} {} {} {}", line["event"], line["time_unix_nano"], line["circuit"], line["instance"]);
    lines(output, "event").iter().map(one).collect()
}

/// The requests of a recording, each up to so many places later.
fn shuffled(text: &str, places: u64) -> String {
    let later = |at: usize| at as u64 + (at as u64).wrapping_mul(0x9e37_79b9) % places;
    let mut shuffled: Vec<(u64, &str)> = text.lines().enumerate().map(|(at, line)| (later(at), line)).collect();
    shuffled.sort_by_key(|(at, _)| *at);
    shuffled.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_recording_is_read_in_every_layout() {
    let directory = Directory::new();
    let text = recording();
    let few: Vec<&str> = text.lines().take(50).collect();
    let json = few.join("\n");
    let expected = replay(&directory.file("json.jsonl", &json), &[]);
    let framed: Vec<u8> = few
        .iter()
        .flat_map(|line| {
            let request: opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest = serde_json::from_str(line).unwrap();
            let body = bytes(&request);
            [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
        })
        .collect();
    assert_eq!(replay(&directory.file("spans.pb", &framed), &[]), expected);
    assert_eq!(replay(&directory.file("spans.jsonl.zst", zstd::encode_all(json.as_bytes(), 3).unwrap()), &[]), expected);
    // What is broken costs nothing beside it.
    let harmed = format!("{}\nnonsense\n{}", few[..25].join("\n"), few[25..].join("\n"));
    assert_eq!(replay(&directory.file("harmed.jsonl", harmed), &[]), expected);
}

/// A breaker's states as attributes and as a span event, some hundred milliseconds out of order.
fn reported() -> String {
    let start = 1_795_000_000 * SECOND;
    let span = |id: u64, tenths: u64, state: &str| {
        let attributes = vec![attribute("circuit_breaker.name", "payments"), attribute("circuit_breaker.state", state)];
        call(id, start + tenths * SECOND / 10, attributes)
    };
    let mut opened = span(3, 12, "closed");
    opened.events = vec![opentelemetry_proto::tonic::trace::v1::span::Event {
        time_unix_nano: start + SECOND * 1195 / 1000,
        name: "circuit breaker opened".to_owned(),
        attributes: vec![attribute("from_state", "CLOSED"), attribute("to_state", "OPEN")],
        ..Default::default()
    }];
    let spans = [
        span(1, 5, "closed"),
        span(5, 25, "open"),
        opened,
        span(2, 9, "closed"),
        span(7, 62, "half_open"),
        span(6, 58, "open"),
        span(8, 66, "closed"),
    ];
    let lines = spans.map(|span| serde_json::to_string(&request("shop", "a", vec![span])).unwrap());
    lines.join("\n")
}

#[test]
fn reported_states_give_their_events_in_order_of_time() {
    let directory = Directory::new();
    let output = replay(&directory.file("reported.jsonl", reported()), &[]);
    let told: Vec<(String, u64)> = lines(&output, "event")
        .iter()
        .map(|line| {
            (line["event"].as_str().unwrap().to_owned(), (line["time_unix_nano"].as_u64().unwrap() - 1_795_000_000 * SECOND) / (SECOND / 100))
        })
        .collect();
    let expected = [("trip", 119), ("recovery_attempt", 619), ("recovery", 659)].map(|(name, at)| (name.to_owned(), at));
    assert_eq!(told, expected);
    let circuits = lines(&output, "circuit");
    assert_eq!((circuits.len(), &circuits[0]["breaker"][0]["trips"], &circuits[0]["instances"]["closed"]), (1, &1.into(), &1.into()));
    let table = replay(&directory.file("again.jsonl", reported()), &["--format", "table"]);
    assert!(table.contains("shop -> payments") && table.contains("recovery_attempt"), "{table}");
}

/// Findings by what they are of: second of the recording, phase, and the line.
fn findings(output: &str, of: &str, named: &str) -> Vec<(f64, String, serde_json::Value)> {
    // The first call of the recording began then.
    const BEGAN: u64 = 1_795_445_590_241_792_350;
    let is = |line: &serde_json::Value| line["finding"] == of && (line["signal"] == named || line["pattern"] == named);
    let found = lines(output, "finding").into_iter().filter(is);
    found.map(|line| ((line["time_unix_nano"].as_u64().unwrap() - BEGAN) as f64 / 1e9, line["phase"].as_str().unwrap().to_owned(), line)).collect()
}

#[test]
fn analyzers_find_what_a_person_sees_in_a_recording() {
    let directory = Directory::new();
    let output = replay(&directory.file("recording.jsonl", recording()), &[]);
    // Outages of ten seconds every thirty, from second 158 to 308.
    let [(begin, _, possible), (end, _, gone)] = &findings(&output, "pattern", "regular")[..] else { panic!("{output}") };
    assert!((270.0..=310.0).contains(begin) && (320.0..=380.0).contains(end), "{begin} {end}");
    assert_eq!((&possible["phase"], &possible["certainty"], &gone["phase"]), (&"begin".into(), &"possible".into(), &"end".into()));
    let period = possible["period"].as_f64().unwrap();
    assert!((period - 30.0).abs() < 1.5, "{period}");
    for (signal, from) in [("rejection_ratio", 60.0), ("error_ratio", 110.0)] {
        // Once: the pause from second 318 to 377 is shorter than a minute, and the last outage ends at 439.
        let [(begin, ..), (end, ..)] = &findings(&output, "anomaly", signal)[..] else { panic!("{signal}: {output}") };
        assert!(*begin > from && *begin < 190.0 && (438.0..442.0).contains(end), "{signal}: {begin} to {end}");
    }
    let kinds: std::collections::BTreeSet<String> =
        lines(&output, "finding").iter().filter_map(|line| line["signal"].as_str().or(line["pattern"].as_str()).map(str::to_owned)).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["error_ratio", "flapping", "regular", "rejection_ratio"]);
    let services: Vec<_> = lines(&output, "finding").into_iter().filter(|line| line["finding"] == "service_health").collect();
    assert_eq!((&services[0]["service"], &services[0]["status"]), (&"payments".into(), &"unhealthy".into()), "{services:?}");
    let health = lines(&output, "finding").into_iter().filter(|line| line["finding"] == "health");
    let statuses: Vec<String> =
        health.map(|line| format!("{}: {}", line["status"].as_str().unwrap(), line["reasons"][0].as_str().unwrap_or_default())).collect();
    assert_eq!(statuses[0], "unhealthy: open", "{statuses:?}");
    // Nobody looks where no analyzer is listed.
    let quiet = replay(&directory.0.join("recording.jsonl"), &["--set", "service.pipelines.traces.analyzers=[]"]);
    assert!(lines(&quiet, "finding").is_empty());
    assert_eq!(told(&quiet), told(&output), "who looks changes nothing of what breakers did");
    let text = replay(&directory.0.join("recording.jsonl"), &["--format", "table"]);
    assert!(text.contains("possible: regular, every 30.1 s, 8 times"), "{text}");
}

#[test]
fn a_circuit_that_opens_soon_after_another_is_a_cascade() {
    let start = 1_795_000_000 * SECOND;
    let mut spans = Vec::new();
    // Each twenty minutes stock opens, four seconds later orders; mail at another time.
    for round in 0..8 {
        for (breaker, late) in [("stock", 0), ("orders", 4), ("mail", 600)] {
            for (state, at) in [("closed", 0), ("open", 1), ("closed", 30)] {
                let id = spans.len() as u64 + 1;
                let at = start + (round * 1_200 + late + at) * SECOND;
                spans.push((at, call(id, at, vec![attribute("circuit_breaker.name", breaker), attribute("circuit_breaker.state", state)])));
            }
        }
    }
    spans.sort_by_key(|(at, _)| *at);
    let text: Vec<String> = spans.into_iter().map(|(_, span)| serde_json::to_string(&request("shop", "a", vec![span])).unwrap()).collect();
    let directory = Directory::new();
    let file = directory.file("cascade.jsonl", text.join("\n"));
    let output = replay(&file, &[]);
    let cascades: Vec<_> = lines(&output, "finding").into_iter().filter(|line| line["pattern"] == "cascade").collect();
    let [cascade] = &cascades[..] else { panic!("{cascades:?}") };
    assert_eq!((&cascade["first"]["name"], &cascade["circuit"]["name"], &cascade["phase"]), (&"stock".into(), &"orders".into(), &"begin".into()));
    let table = replay(&file, &["--format", "table"]);
    assert!(table.contains("cascade: after shop -> stock, 3 of 3 times"), "{table}");
}

/// A service that calls more than fit into one request of metrics. Its callees come one after the other, fail now and then
/// from some time on, and some of them have a breaker.
fn many_callees() -> String {
    let start = 1_795_000_000 * SECOND;
    let mut id = 0;
    let lines: Vec<String> = (0..200_u64)
        .map(|second| {
            let calls = (0..40_u64).filter(|callee| second >= callee * 3).map(|callee| {
                id += 1;
                let end = start + second * SECOND + callee * SECOND / 100;
                let fails = second > 90 && (second + callee) % 7 == 0;
                let mut attributes = vec![
                    attribute("server.address", &format!("callee-{callee}")),
                    attribute("http.response.status_code", if fails { "503" } else { "200" }),
                ];
                if callee % 10 == 0 {
                    let state = if (100..130).contains(&second) { "open" } else { "closed" };
                    attributes.push(attribute("circuit_breaker.state", state));
                }
                call(id, end, attributes)
            });
            serde_json::to_string(&request("shop", "a", calls.collect())).unwrap()
        })
        .collect();
    lines.join("\n")
}

/// The metrics of a replay, request by request: resource, metric with attributes, time and value of each point.
fn points(text: &str) -> Vec<Vec<(String, String, u64, serde_json::Value)>> {
    let requests = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_request = |request: serde_json::Value| {
        let mut all = Vec::new();
        for resource in request["resourceMetrics"].as_array().unwrap() {
            for metric in resource["scopeMetrics"].as_array().unwrap().iter().flat_map(|scope| scope["metrics"].as_array().unwrap()) {
                let kinds = ["sum", "gauge", "histogram", "exponentialHistogram"];
                for point in kinds.iter().filter_map(|kind| metric[kind]["dataPoints"].as_array()).flatten() {
                    let series = format!("{} {}", metric["name"], point["attributes"]);
                    let time = point["timeUnixNano"].as_str().unwrap().parse().unwrap();
                    let counted = if metric["sum"]["isMonotonic"] == true { point["asInt"].clone() } else { point["count"].clone() };
                    all.push((resource["resource"].to_string(), series, time, counted));
                }
            }
        }
        all
    };
    requests.map(of_request).collect()
}

#[test]
fn what_is_told_of_a_resource_is_never_older_than_what_was_told_before() {
    let directory = Directory::new();
    for (name, text) in [("recording.jsonl", recording()), ("many.jsonl", many_callees())] {
        let metrics = directory.0.join("metrics.jsonl");
        replay(&directory.file(name, text), &["--metrics", metrics.to_str().unwrap()]);
        let requests = points(&std::fs::read_to_string(&metrics).unwrap());
        let (mut newest, mut series): (BTreeMap<&String, u64>, BTreeMap<_, u64>) = Default::default();
        for request in &requests {
            let before = newest.clone();
            for (resource, metric, time, counted) in request {
                assert!(before.get(resource).is_none_or(|newest| time >= newest), "{name}: {resource} goes back with {metric}");
                let known = newest.entry(resource).or_default();
                *known = (*known).max(*time);
                // By the millisecond, as Prometheus has it.
                let last = series.insert((resource, metric), time / 1_000_000);
                assert!(last.is_none_or(|last| last < time / 1_000_000), "{name}: {metric} has two points at one time");
                let begins = counted.is_null() || *counted == "0" || *counted == 0;
                assert!(last.is_some() || begins, "{name}: {metric} does not begin with 0: {counted}");
            }
        }
        assert!(requests.len() > 20 && series.len() > 20, "{name}");
    }
}

/// A text, compressed as a whole.
fn packed(text: &str) -> [Vec<u8>; 2] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    [gzip.finish().unwrap(), zstd::encode_all(text.as_bytes(), 3).unwrap()]
}

#[test]
fn one_wrong_clock_moves_nobody_elses() {
    let directory = Directory::new();
    let text = recording();
    let straight = replay(&directory.file("straight.jsonl", &text), &[]);
    let newest = |line: &str| {
        let ends = line.split("\"endTimeUnixNano\":\"").skip(1).filter_map(|rest| rest.split_once('"')?.0.parse::<u64>().ok());
        ends.max().unwrap()
    };
    let ahead = |line: &str, id: u64| {
        let span = call(id, newest(line) + 600 * SECOND, vec![attribute("server.address", "stock")]);
        serde_json::to_string(&request("skewed", "i-1", vec![span])).unwrap()
    };
    let lines: Vec<&str> = text.lines().collect();
    for (name, is_there) in [("first", [0..1, 0..0]), ("once", [500..501, 0..0]), ("often", [100..200, 600..700])] {
        let with = lines.iter().enumerate().flat_map(|(at, line)| {
            let wrong = is_there.iter().any(|there| there.contains(&at)).then(|| ahead(line, at as u64 + 1));
            wrong.into_iter().chain([(*line).to_owned()])
        });
        let with: Vec<String> = with.collect();
        let file = directory.file("skewed.jsonl", with.join("\n"));
        let output = run(&["replay", file.to_str().unwrap()]);
        let (found, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{said}");
        assert_eq!(found, straight, "{name}");
        let future = format!("{} spans from the future", with.len() - lines.len());
        assert!(said.contains(&future) && said.contains("the clock of \"skewed (i-1)\" is "), "{name}: {said}");
    }
}

#[test]
fn databases_and_topics_are_called_what_they_are_and_are_no_services() {
    let start = 1_795_000_000 * SECOND;
    type Called = (&'static str, i32, &'static [(&'static str, &'static str)]);
    let callees: [Called; 4] = [
        ("shop", 3, &[("server.address", "pay")]),
        ("shop", 3, &[("db.system", "sqlite"), ("db.name", "/data/x.db")]),
        ("till", 3, &[("db.system", "sqlite")]),
        ("orders", 4, &[("messaging.system", "kafka"), ("messaging.destination", "orders")]),
    ];
    let mut text = Vec::new();
    for second in 0..240 {
        for (caller, kind, called) in callees {
            let attributes = called.iter().chain(&[("error.type", "boom")]).map(|(key, value)| attribute(key, value)).collect();
            let mut span = call(text.len() as u64 + 1, start + second * SECOND, attributes);
            span.kind = kind;
            text.push(serde_json::to_string(&request(caller, "a", vec![span])).unwrap());
        }
    }
    let directory = Directory::new();
    let file = directory.file("callees.jsonl", text.join("\n"));
    let output = replay(&file, &[]);
    let circuits = lines(&output, "circuit");
    let mut names: Vec<String> = circuits
        .iter()
        .map(|line| ["caller", "callee", "callee_kind"].map(|key| line["circuit"][key].as_str().unwrap_or("service")).join(" "))
        .collect();
    names.sort();
    assert_eq!(names, ["orders kafka:orders topic", "shop /data/x.db database", "shop pay service", "till sqlite database"]);
    let mut services: Vec<String> =
        lines(&output, "finding").iter().filter(|line| line["finding"] == "service_health").map(|line| line["service"].to_string()).collect();
    services.dedup();
    assert_eq!(services, ["\"pay\""]);
    let table = replay(&file, &["--format", "table"]);
    assert!(table.contains("orders -> kafka:orders") && table.contains("shop -> sqlite:/data/x.db"), "{table}");
    // What a team says is no error is none.
    let output = replay(&file, &["--set", "processors.circuit_window.failure.ignore=[\"bo*\"]"]);
    assert!(lines(&output, "circuit").iter().all(|line| line["requests"]["failure"] == 0), "{output}");
}

#[test]
fn what_can_be_read_of_a_file_that_is_cut_off_counts() {
    let directory = Directory::new();
    let text = recording();
    let framed: Vec<u8> = text.lines().flat_map(|line| [&u32::try_from(line.len()).unwrap().to_be_bytes()[..], line.as_bytes()].concat()).collect();
    let [gzip, zstd] = packed(&text);
    let more = directory.file("more.jsonl", reported());
    for (name, whole) in [("gzip", gzip), ("zstd", zstd), ("records", framed)] {
        let file = directory.file(name, &whole[..whole.len() / 5 * 4]);
        let output = run(&["replay", file.to_str().unwrap(), more.to_str().unwrap()]);
        let (found, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("{}: can't be read from byte ", file.display())) && said.contains("1 files not read to their end"), "{said}");
        assert!(lines(&found, "event").iter().filter(|line| line["event"] == "trip").count() >= 5, "{name}: {said}");
        assert!(lines(&found, "circuit").iter().any(|line| line["circuit"]["caller"] == "shop"), "{name}: the file after it is not read");
    }
    let nothing = directory.file("nothing", [0x1f, 0x8b, 8]);
    assert!(!run(&["replay", nothing.to_str().unwrap()]).status.success(), "nothing in it could be read");
}

#[test]
fn json_is_read_as_people_have_it() {
    let directory = Directory::new();
    let text = recording();
    let few: Vec<&str> = text.lines().take(50).collect();
    let expected = replay(&directory.file("lines.jsonl", few.join("\n")), &[]);
    let pretty = |line: &&str| serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(line).unwrap()).unwrap();
    let pretty: Vec<String> = few.iter().map(pretty).collect();
    let snake = |line: &&str| {
        let keys = ["resourceSpans", "scopeSpans", "traceId", "spanId", "parentSpanId", "startTimeUnixNano", "endTimeUnixNano", "stringValue"];
        let names =
            ["resource_spans", "scope_spans", "trace_id", "span_id", "parent_span_id", "start_time_unix_nano", "end_time_unix_nano", "string_value"];
        keys.iter().zip(names).fold((*line).to_owned(), |text, (key, name)| text.replace(&format!("\"{key}\""), &format!("\"{name}\"")))
    };
    for (name, content) in [
        ("bom.jsonl", format!("\u{feff}{}", few.join("\r\n"))),
        ("pretty.json", pretty.join("\n")),
        ("array.json", format!("\u{feff}[\n{}\n]\n", pretty.join(",\n"))),
        ("behind.json", few.concat()),
        ("snake.jsonl", few.iter().map(snake).collect::<Vec<_>>().join("\n")),
        ("tempo.jsonl", few.iter().map(|line| line.replacen("resourceSpans", "batches", 1)).collect::<Vec<_>>().join("\n")),
        ("grafana.jsonl", few.iter().map(|line| line.replace("scopeSpans", "instrumentationLibrarySpans")).collect::<Vec<_>>().join("\n")),
        ("tempo2.jsonl", few.iter().map(|line| format!("{{\"trace\":{line},\"metrics\":{{}}}}")).collect::<Vec<_>>().join("\n")),
    ] {
        assert_eq!(replay(&directory.file(name, &content), &[]), expected, "{name}");
    }
}

#[test]
fn downloads_of_jaeger_and_tempo_are_read() {
    let directory = Directory::new();
    let tempo = r#"{"batches":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},"scopeSpans":[{"spans":[
        {"traceId":"somThyaeDTfyp03kUua0OA==","spanId":"hi4/6KajpFA=","name":"op","kind":"SPAN_KIND_CLIENT","status":{"code":"STATUS_CODE_ERROR"},
         "startTimeUnixNano":"1795000000000000000","endTimeUnixNano":"1795000000005000000","attributes":[{"key":"server.address","value":{"stringValue":"pay"}}]}]}]}]}"#;
    // Of two traces the newer first, as Jaeger has it.
    let span = |trace: u64, micros: u64| {
        let tags = r#"{"key":"span.kind","type":"string","value":"client"},{"key":"server.address","type":"string","value":"pay"},{"key":"error","type":"bool","value":true}"#;
        format!(
            r#"{{"traceID":"{trace}","processes":{{"p1":{{"serviceName":"shop","tags":[]}}}},"spans":[{{"traceID":"{trace}","spanID":"{trace}","processID":"p1",
                "operationName":"op","references":[],"startTime":{micros},"duration":5000,"tags":[{tags}],"logs":[]}}]}}"#
        )
    };
    let jaeger = format!("{{\"data\":[{},\n{}],\"total\":0,\"errors\":null}}", span(2, 1_795_000_900_000_000), span(1, 1_795_000_000_000_000));
    for (name, content, failed) in [("tempo.json", tempo, 1), ("jaeger.json", &*jaeger, 2)] {
        let circuits = lines(&replay(&directory.file(name, content), &[]), "circuit");
        let [circuit] = &circuits[..] else { panic!("{name}: {circuits:?}") };
        assert_eq!((&circuit["circuit"]["caller"], &circuit["circuit"]["callee"]), (&"shop".into(), &"pay".into()), "{name}");
        assert_eq!(circuit["requests"]["failure"], failed, "{name}");
    }
}

#[test]
fn a_breakers_log_may_begin_with_a_byte_order_mark_and_have_times_as_text() {
    let directory = Directory::new();
    let there = |name: &str| format!("{}/tests/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let marked = |name: &str| directory.file(name, format!("\u{feff}{}", std::fs::read_to_string(there(name)).unwrap()));
    let (truth, map) = (marked("pybreaker-truth.jsonl"), marked("pybreaker-aliases.json"));
    let more = ["--truth", truth.to_str().unwrap(), "--truth-map", map.to_str().unwrap()];
    let found = lines(&replay(Path::new(&there("pybreaker.jsonl.gz")), &more), "verdict");
    assert_eq!(found.len(), 3);
    let of_line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["t_ns"] = line["t_ns"].to_string().into();
        line.to_string()
    };
    let log = std::fs::read_to_string(there("pybreaker-truth.jsonl")).unwrap();
    let texts = directory.file("texts.jsonl", log.lines().map(of_line).collect::<Vec<_>>().join("\n"));
    let more = ["--truth", texts.to_str().unwrap(), "--truth-map", map.to_str().unwrap()];
    assert_eq!(lines(&replay(Path::new(&there("pybreaker.jsonl.gz")), &more), "verdict"), found);
}
