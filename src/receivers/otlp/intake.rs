use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use crate::{
    otlp::{Signal, edit, trace},
    pipeline::{Charge, Ledger, Outlets, Part, Payload, Refusal},
};

/// What both protocols do with a request once its bytes are there.
pub(super) struct Intake {
    pub(super) outlets: Outlets,
    pub(super) ledger: Arc<Ledger>,
    pub(super) counts: Counts,
}

/// Items of a request that were left out, and why.
#[derive(Debug, Default)]
pub(super) struct Partial {
    pub(super) rejected: usize,
    pub(super) message: String,
}

/// Why a request was not taken.
#[derive(Debug)]
pub(super) enum Rejection {
    /// No pipeline takes this signal from here.
    NoPipeline,
    /// It is broken.
    Malformed(String),
    /// Somebody behind has no room, or does not want it.
    Refused(Refusal),
}

impl Intake {
    /// Checks a request and hands it on; it is acknowledged when this returns `Ok`.
    pub(super) async fn take(&self, signal: Signal, bytes: Bytes, charge: Charge) -> Result<Partial, Rejection> {
        let outlet = self.outlets.of(signal);
        if !outlet.is_connected() {
            return Err(Rejection::NoPipeline);
        }
        let (bytes, items, partial) = checked(signal, bytes).map_err(|reason| {
            self.counts.malformed();
            Rejection::Malformed(reason)
        })?;
        self.counts.refused(signal, partial.rejected);
        if items == 0 {
            return Ok(partial);
        }
        let payload = Payload::new(signal, Part::charged(bytes, items, charge));
        match outlet.consume(payload).await {
            Ok(()) => {
                self.counts.accepted(signal, items);
                Ok(partial)
            }
            Err(refusal) => {
                self.counts.refused(signal, items);
                Err(Rejection::Refused(refusal))
            }
        }
    }
}

/// The request without what must not be in it, and how many items stay.
fn checked(signal: Signal, bytes: Bytes) -> Result<(Bytes, usize, Partial), String> {
    if signal != Signal::Traces {
        let items = signal.count(&bytes).map_err(|error| error.to_string())?;
        return Ok((bytes, items, Partial::default()));
    }
    let census = trace::census(&bytes).map_err(|error| error.to_string())?;
    if census.invalid_ids == 0 {
        return Ok((bytes, census.spans, Partial::default()));
    }
    let rest = edit::without_invalid_ids(&bytes).map_err(|error| error.to_string())?;
    let message =
        format!("{} of {} spans have no valid trace id (16 bytes) or span id (8 bytes), or one that is all zero", census.invalid_ids, census.spans);
    Ok((rest.into(), census.spans - census.invalid_ids, Partial { rejected: census.invalid_ids, message }))
}

/// Own metrics of one protocol of a receiver.
pub(super) struct Counts {
    accepted: [Counter<u64>; 3],
    refused: [Counter<u64>; 3],
    malformed: Counter<u64>,
    limit_reached: Counter<u64>,
    attributes: [KeyValue; 2],
}

impl Counts {
    pub(super) fn new(meter: &Meter, id: &str, transport: &'static str) -> Self {
        let by_signal = |what: &str| Signal::ALL.map(|signal| meter.u64_counter(format!("otelcol_receiver_{what}_{}", signal.items())).build());
        Self {
            accepted: by_signal("accepted"),
            refused: by_signal("refused"),
            malformed: meter.u64_counter("fuseboard_receiver_malformed_requests").build(),
            limit_reached: meter.u64_counter("fuseboard_limit_reached").build(),
            attributes: [KeyValue::new("receiver", id.to_owned()), KeyValue::new("transport", transport)],
        }
    }

    fn accepted(&self, signal: Signal, items: usize) {
        of(&self.accepted, signal).add(items as u64, &self.attributes);
    }

    fn refused(&self, signal: Signal, items: usize) {
        if items > 0 {
            of(&self.refused, signal).add(items as u64, &self.attributes);
        }
    }

    pub(super) fn malformed(&self) {
        self.malformed.add(1, &self.attributes);
    }

    pub(super) fn limit_reached(&self, limit: &'static str) {
        let [receiver, transport] = self.attributes.clone();
        self.limit_reached.add(1, &[receiver, transport, KeyValue::new("limit", limit)]);
    }
}

const fn of(counters: &[Counter<u64>; 3], signal: Signal) -> &Counter<u64> {
    let [traces, metrics, logs] = counters;
    match signal {
        Signal::Traces => traces,
        Signal::Metrics => metrics,
        Signal::Logs => logs,
    }
}
