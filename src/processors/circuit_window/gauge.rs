use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, DataPointFlags, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};

use super::attributes::scope;

/// Flag of the last point of a series.
pub(super) const ENDED: u32 = DataPointFlags::NoRecordedValueMask as u32;

/// A point of a gauge; one without a value ends its series.
pub(super) fn point(attributes: Vec<KeyValue>, value: Option<f64>, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        time_unix_nano: now,
        value: value.map(number_data_point::Value::AsDouble),
        flags: if value.is_none() { ENDED } else { 0 },
        ..NumberDataPoint::default()
    }
}

/// A point of how many there are; one without a value ends its series. `since`: 0 if it is not known.
pub(super) fn count(attributes: Vec<KeyValue>, value: Option<u64>, since: u64, now: u64) -> NumberDataPoint {
    let value = value.map(|value| number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX)));
    NumberDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        flags: if value.is_none() { ENDED } else { 0 },
        value,
        ..NumberDataPoint::default()
    }
}

/// Points of a gauge.
pub(super) const fn gauge(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points })
}

/// Points of an up-down counter: told as it stands, whatever the temporality, since what stands is no event.
pub(super) const fn standing(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum { data_points, aggregation_temporality: AggregationTemporality::Cumulative as i32, is_monotonic: false })
}

/// A metric of a resource, by its name, unit and meaning.
pub(super) fn of(resource: Resource, (name, unit, description): (&str, &str, &str), data: Data) -> ResourceMetrics {
    let (name, unit, description) = (name.to_owned(), unit.to_owned(), description.to_owned());
    let metrics = vec![Metric { name, unit, description, data: Some(data), ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    ResourceMetrics { resource: Some(resource), scope_metrics, ..ResourceMetrics::default() }
}
