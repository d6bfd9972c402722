use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::{
    component::{Outlets, Setup},
    consumer::Refusal,
    ledger::{Charge, Ledger},
    payload::{Part, Payload},
};
use crate::otlp::{Checked, Signal, check};

/// What every receiver does with a request once its bytes are there: checks it, hands it on, counts it.
#[derive(Debug)]
pub struct Intake {
    outlets: Outlets,
    ledger: Arc<Ledger>,
    counts: Counts,
}

/// Items of a request that were left out, and why.
#[derive(Debug, Default)]
pub struct Partial {
    /// So many.
    pub rejected: usize,
    /// For the sender.
    pub message: String,
}

/// Why a request was not taken.
#[derive(Debug)]
pub enum Rejection {
    /// No pipeline takes this signal from here.
    NoPipeline,
    /// It is broken.
    Malformed(String),
    /// Somebody behind has no room, or does not want it.
    Refused(Refusal),
}

impl Intake {
    /// The intake of one receiver for what comes by one transport (`grpc`, `http`, `file`).
    pub fn new(setup: &Setup, outlets: Outlets, transport: &'static str) -> Self {
        Self { outlets, ledger: Arc::clone(&setup.ledger), counts: Counts::new(&setup.meter, &setup.id, transport) }
    }

    /// A charge of nothing, to grow with the bytes of a request as they come.
    pub fn charge(&self) -> Charge {
        self.ledger.open()
    }

    /// Checks a request and hands it on; it may be acknowledged when this returns `Ok`.
    ///
    /// # Errors
    /// See [`Rejection`]; nobody has taken any of it.
    pub async fn take(&self, signal: Signal, bytes: Bytes, charge: Charge) -> Result<Partial, Rejection> {
        let outlet = self.outlets.of(signal);
        if !outlet.is_connected() {
            return Err(Rejection::NoPipeline);
        }
        let Checked { bytes, items, rejected, message } = check(signal, bytes).map_err(|error| {
            self.malformed();
            Rejection::Malformed(error.to_string())
        })?;
        self.counts.refused(signal, rejected);
        let partial = Partial { rejected, message };
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

    /// Counts a request that could not be read.
    pub fn malformed(&self) {
        self.counts.malformed.add(1, &self.counts.attributes);
    }

    /// Counts a request that passed a limit.
    pub fn limit_reached(&self, limit: &'static str) {
        let [receiver, transport] = self.counts.attributes.clone();
        self.counts.limit_reached.add(1, &[receiver, transport, KeyValue::new("limit", limit)]);
    }
}

/// Own metrics of one protocol of a receiver.
#[derive(Debug)]
struct Counts {
    accepted: [Counter<u64>; 3],
    refused: [Counter<u64>; 3],
    malformed: Counter<u64>,
    limit_reached: Counter<u64>,
    attributes: [KeyValue; 2],
}

impl Counts {
    fn new(meter: &Meter, id: &str, transport: &'static str) -> Self {
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
}

const fn of(counters: &[Counter<u64>; 3], signal: Signal) -> &Counter<u64> {
    let [traces, metrics, logs] = counters;
    match signal {
        Signal::Traces => traces,
        Signal::Metrics => metrics,
        Signal::Logs => logs,
    }
}
