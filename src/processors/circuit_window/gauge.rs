use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{DataPointFlags, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point},
    resource::v1::Resource,
};

use super::attributes::scope;

/// A point of a gauge; one without a value ends its series.
pub(super) fn point(attributes: Vec<KeyValue>, value: Option<f64>, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        time_unix_nano: now,
        value: value.map(number_data_point::Value::AsDouble),
        flags: if value.is_none() { DataPointFlags::NoRecordedValueMask as u32 } else { 0 },
        ..NumberDataPoint::default()
    }
}

/// A gauge of a resource, by its name, unit and meaning.
pub(super) fn of(resource: Resource, (name, unit, description): (&str, &str, &str), data_points: Vec<NumberDataPoint>) -> ResourceMetrics {
    let (name, unit, description) = (name.to_owned(), unit.to_owned(), description.to_owned());
    let metrics = vec![Metric { name, unit, description, data: Some(Data::Gauge(Gauge { data_points })), ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }
}
