//! OTLP as text for people.

use std::fmt::{self, Write};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::{DataPointFlags, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point},
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message;

use super::Verbosity;
use crate::{
    foreign::{escaped, escaped_json},
    otlp::{Malformed, Signal, json},
};

/// Requests larger than this are not printed in full: decoded, hostile ones may be fifty times as large.
const BYTES_MAX: usize = 1 << 20;

/// Writes a serialised request as text; every line ends with a line feed.
///
/// # Errors
/// The bytes are no such request.
pub(super) fn render(signal: Signal, request: &[u8], verbosity: Verbosity) -> Result<String, String> {
    let mut out = summary(signal, request).map_err(|error| error.to_string())?;
    if verbosity == Verbosity::Basic {
        return Ok(out);
    }
    if request.len() > BYTES_MAX {
        let more = format!("  not printed in full: {} bytes are more than {BYTES_MAX}\n", request.len());
        return Ok(out + &more);
    }
    let mut page = Page { out: String::new(), verbosity };
    let written = match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(request).map(|request| page.traces(&request)),
        Signal::Metrics => ExportMetricsServiceRequest::decode(request).map(|request| page.metrics(&request)),
        Signal::Logs => ExportLogsServiceRequest::decode(request).map(|request| page.logs(&request)),
    };
    match written {
        // Writing to a string fails only where a value's own Display does, and ours never do.
        Ok(written) => written.unwrap_or_default(),
        // What is not UTF-8 or nested deeply has no other form that a person can read.
        Err(_) => {
            let json = json::from_protobuf(signal, request).map_err(|error| error.to_string())?;
            page.out = escaped_json(&String::from_utf8_lossy(&json)).into_owned() + "\n";
        }
    }
    out.push_str(&page.out);
    Ok(out)
}

/// One line: how many of what. Nothing is decoded for it.
fn summary(signal: Signal, request: &[u8]) -> Result<String, Malformed> {
    let (resources, items) = (signal.count_resources(request)?, signal.count(request)?);
    let what = match signal {
        Signal::Traces => "spans",
        Signal::Metrics => "data points",
        Signal::Logs => "log records",
    };
    Ok(format!("{signal}: {resources} resources, {items} {what}\n"))
}

struct Page {
    out: String,
    verbosity: Verbosity,
}

impl Page {
    fn traces(&mut self, request: &ExportTraceServiceRequest) -> fmt::Result {
        for resource in &request.resource_spans {
            self.resource(resource.resource.as_ref())?;
            for scope in &resource.scope_spans {
                self.scope(scope.scope.as_ref())?;
                scope.spans.iter().try_for_each(|span| self.span(span))?;
            }
        }
        Ok(())
    }

    fn metrics(&mut self, request: &ExportMetricsServiceRequest) -> fmt::Result {
        for resource in &request.resource_metrics {
            self.resource(resource.resource.as_ref())?;
            for scope in &resource.scope_metrics {
                self.scope(scope.scope.as_ref())?;
                scope.metrics.iter().try_for_each(|metric| self.metric(metric))?;
            }
        }
        Ok(())
    }

    fn logs(&mut self, request: &ExportLogsServiceRequest) -> fmt::Result {
        for resource in &request.resource_logs {
            self.resource(resource.resource.as_ref())?;
            for scope in &resource.scope_logs {
                self.scope(scope.scope.as_ref())?;
                scope.log_records.iter().try_for_each(|record| self.record(record))?;
            }
        }
        Ok(())
    }

    fn resource(&mut self, resource: Option<&Resource>) -> fmt::Result {
        let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
        writeln!(self.out, "resource {}", Attributes(attributes))
    }

    fn scope(&mut self, scope: Option<&InstrumentationScope>) -> fmt::Result {
        match scope {
            Some(scope) if self.verbosity == Verbosity::Detailed => {
                writeln!(self.out, "scope {} {} {}", escaped(&scope.name), escaped(&scope.version), Attributes(&scope.attributes))
            }
            _ => Ok(()),
        }
    }

    fn span(&mut self, span: &Span) -> fmt::Result {
        let kind = SpanKind::try_from(span.kind).unwrap_or(SpanKind::Unspecified).as_str_name().trim_start_matches("SPAN_KIND_");
        let status = span.status.clone().unwrap_or_default();
        let code = StatusCode::try_from(status.code).unwrap_or(StatusCode::Unset).as_str_name().trim_start_matches("STATUS_CODE_");
        writeln!(
            self.out,
            "  {} {kind} {} {code} trace={} span={} {}",
            escaped(&span.name),
            Seconds(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano)),
            Hex(&span.trace_id),
            Hex(&span.span_id),
            Attributes(&span.attributes)
        )?;
        if self.verbosity != Verbosity::Detailed {
            return Ok(());
        }
        writeln!(
            self.out,
            "    parent={} start={} end={} message={}",
            Hex(&span.parent_span_id),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            escaped(&status.message)
        )?;
        for event in &span.events {
            writeln!(self.out, "    event {} at {} {}", escaped(&event.name), event.time_unix_nano, Attributes(&event.attributes))?;
        }
        for link in &span.links {
            writeln!(self.out, "    link trace={} span={} {}", Hex(&link.trace_id), Hex(&link.span_id), Attributes(&link.attributes))?;
        }
        Ok(())
    }

    fn metric(&mut self, metric: &Metric) -> fmt::Result {
        let unit = if matches!(metric.unit.as_str(), "" | "1") { String::new() } else { format!(" {}", escaped(&metric.unit)) };
        if self.verbosity == Verbosity::Detailed {
            writeln!(self.out, "  metric {}{unit}: {}", escaped(&metric.name), escaped(&metric.description))?;
        }
        match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.iter().try_for_each(|point| self.number(metric, &unit, point)),
            Some(Data::Sum(sum)) => sum.data_points.iter().try_for_each(|point| self.number(metric, &unit, point)),
            Some(Data::Histogram(histogram)) => histogram.data_points.iter().try_for_each(|point| self.histogram(metric, &unit, point)),
            Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.iter().try_for_each(|point| self.exponential(metric, &unit, point)),
            Some(Data::Summary(summary)) => summary.data_points.iter().try_for_each(|point| {
                writeln!(self.out, "  {} {} count={} sum={}{unit}", escaped(&metric.name), Attributes(&point.attributes), point.count, point.sum)
            }),
            None => Ok(()),
        }
    }

    fn number(&mut self, metric: &Metric, unit: &str, point: &NumberDataPoint) -> fmt::Result {
        write!(self.out, "  {} {} ", escaped(&metric.name), Attributes(&point.attributes))?;
        let no_value = point.flags & DataPointFlags::NoRecordedValueMask as u32 != 0;
        match point.value {
            _ if no_value => write!(self.out, "no recorded value")?,
            Some(number_data_point::Value::AsInt(value)) => write!(self.out, "{value}{unit}")?,
            Some(number_data_point::Value::AsDouble(value)) => write!(self.out, "{}{unit}", Rounded(value))?,
            None => write!(self.out, "no value")?,
        }
        self.times(point.start_time_unix_nano, point.time_unix_nano)
    }

    fn histogram(&mut self, metric: &Metric, unit: &str, point: &HistogramDataPoint) -> fmt::Result {
        write!(self.out, "  {} {} count={} sum={}{unit}", escaped(&metric.name), Attributes(&point.attributes), point.count, Rounded(point.sum()))?;
        if self.verbosity == Verbosity::Detailed {
            write!(self.out, " bounds={:?} counts={:?}", point.explicit_bounds, point.bucket_counts)?;
        }
        self.times(point.start_time_unix_nano, point.time_unix_nano)
    }

    fn exponential(&mut self, metric: &Metric, unit: &str, point: &ExponentialHistogramDataPoint) -> fmt::Result {
        write!(self.out, "  {} {} count={} sum={}{unit}", escaped(&metric.name), Attributes(&point.attributes), point.count, Rounded(point.sum()))?;
        if self.verbosity == Verbosity::Detailed {
            let buckets = point.positive.clone().unwrap_or_default();
            write!(self.out, " scale={} zero={} offset={} counts={:?}", point.scale, point.zero_count, buckets.offset, buckets.bucket_counts)?;
        }
        self.times(point.start_time_unix_nano, point.time_unix_nano)
    }

    /// Ends a data point's line.
    fn times(&mut self, start: u64, time: u64) -> fmt::Result {
        if self.verbosity == Verbosity::Detailed {
            write!(self.out, " start={start} time={time}")?;
        }
        writeln!(self.out)
    }

    fn record(&mut self, record: &LogRecord) -> fmt::Result {
        let body = record.body.as_ref().map(|body| Any(body).to_string()).unwrap_or_default();
        writeln!(
            self.out,
            "  {} {} {} {body} {}",
            Instant(record.time_unix_nano),
            escaped(&record.severity_text),
            escaped(&record.event_name),
            Attributes(&record.attributes)
        )
    }
}

struct Attributes<'a>(&'a [KeyValue]);

impl fmt::Display for Attributes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (position, attribute) in self.0.iter().enumerate() {
            let value = attribute.value.as_ref().map(|value| Any(value).to_string()).unwrap_or_default();
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{}={value}", escaped(&attribute.key))?;
        }
        f.write_str("}")
    }
}

struct Any<'a>(&'a AnyValue);

impl fmt::Display for Any<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.value {
            Some(Value::StringValue(text)) => f.write_str(&escaped(text)),
            Some(Value::BoolValue(value)) => write!(f, "{value}"),
            Some(Value::IntValue(value)) => write!(f, "{value}"),
            Some(Value::DoubleValue(value)) => write!(f, "{}", Rounded(*value)),
            Some(Value::BytesValue(bytes)) => write!(f, "{}", Hex(bytes)),
            Some(Value::ArrayValue(array)) => {
                f.write_str("[")?;
                for (position, value) in array.values.iter().enumerate() {
                    write!(f, "{}{}", if position == 0 { "" } else { ", " }, Any(value))?;
                }
                f.write_str("]")
            }
            Some(Value::KvlistValue(map)) => write!(f, "{}", Attributes(&map.values)),
            _ => f.write_str("-"),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A number with four digits that count, which is what a person reads; of a large one all that are whole.
struct Rounded(f64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded: f64 = format!("{:.3e}", self.0).parse().unwrap_or(self.0);
        if self.0.fract() == 0.0 {
            write!(f, "{}", self.0)
        } else if self.0.abs() >= 1e4 {
            write!(f, "{:.0}", self.0)
        } else {
            write!(f, "{rounded}")
        }
    }
}

/// Unix time in nanoseconds as a date and time.
struct Instant(u64);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

/// Nanoseconds as a duration.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", std::time::Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of one span with this name; not every name is text.
    fn named(name: &[u8]) -> Vec<u8> {
        let field = |number: u8, content: &[u8]| [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat();
        field(1, &field(2, &field(2, &field(5, name))))
    }

    #[test]
    fn names_of_strangers_are_shown_on_one_line() {
        let shown = render(Signal::Traces, &named(b"a\x1b[31m\nb"), Verbosity::Normal).unwrap();
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.starts_with("traces: 1 resources, 1 spans\n") && !shown.contains('\x1b'), "{shown}");
        let shown = render(Signal::Traces, &named(b"ca\xfffe"), Verbosity::Normal).unwrap();
        assert!(shown.contains("ca\u{fffd}fe"), "{shown}");
    }

    #[test]
    fn what_is_large_is_only_counted() {
        let many = named(b"x").repeat(200_000);
        let shown = render(Signal::Traces, &many, Verbosity::Detailed).unwrap();
        assert!(shown.starts_with("traces: 200000 resources, 200000 spans\n  not printed in full: "), "{shown:.200}");
        assert_eq!(render(Signal::Traces, &many, Verbosity::Basic).unwrap(), "traces: 200000 resources, 200000 spans\n");
    }
}
