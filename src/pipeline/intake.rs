use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tracing::Instrument;

use super::{
    TRACES,
    component::{Outlets, Setup},
    consumer::Refusal,
    ledger::{Arriving, Charge, Ledger},
    payload::{Part, Payload},
};
use crate::{
    net::TooMuch,
    otlp::{Checked, Signal, check},
};

/// What a request takes of memory beside its bytes until it is sent: its charge, what counts who shares it, its places
/// in queues that grow by doubling, and what allocators round up.
const OVERHEAD: usize = 512;

/// What every receiver does with a request once its bytes are there: checks it, hands it on, counts it.
#[derive(Debug)]
pub struct Intake {
    outlets: Outlets,
    ledger: Arc<Ledger>,
    counts: Counts,
    misdirected: AtomicU64,
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
        Self { outlets, ledger: Arc::clone(&setup.ledger), counts: Counts::new(&setup.meter, &setup.id, transport), misdirected: AtomicU64::new(0) }
    }

    /// A charge of nothing, to grow with the bytes of a request as they come from a peer.
    pub fn arriving(&self, peer: IpAddr) -> Arriving {
        self.ledger.arriving(peer)
    }

    /// A charge of nothing, for a request that is there.
    pub fn charge(&self) -> Charge {
        self.ledger.open()
    }

    /// Checks a request and hands it on; it may be acknowledged when this returns `Ok`. The charge is what its bytes
    /// weigh.
    ///
    /// # Errors
    /// See [`Rejection`]; nobody has taken any of it.
    pub async fn take(&self, signal: Signal, bytes: Bytes, charge: Charge) -> Result<Partial, Rejection> {
        let [receiver, transport] = &self.counts.attributes;
        let (receiver, transport) = (receiver.value.as_str(), transport.value.as_str());
        let span = tracing::trace_span!(target: TRACES, "receive", %receiver, %transport, signal = signal.name(), bytes = bytes.len());
        let taken = self.taken(signal, bytes, charge);
        if span.is_disabled() { taken.await } else { taken.instrument(span).await }
    }

    async fn taken(&self, signal: Signal, bytes: Bytes, mut charge: Charge) -> Result<Partial, Rejection> {
        // Asked once: a reload may lead the outlet elsewhere, or nowhere, at any moment.
        let Some(consumer) = self.outlets.of(signal).consumer() else {
            self.misdirected(&format!("no pipeline takes {signal} from here"));
            return Err(Rejection::NoPipeline);
        };
        let Checked { bytes, items, rejected, message } = check(signal, bytes).map_err(|error| {
            self.malformed();
            Rejection::Malformed(error.to_string())
        })?;
        self.counts.refused(signal, rejected);
        let partial = Partial { rejected, message };
        if items == 0 {
            return Ok(partial);
        }
        // What is left after something was left out is a copy.
        let weight = if rejected == 0 { charge.bytes() } else { bytes.len() };
        charge.set(weight + OVERHEAD);
        let payload = Payload::new(signal, Part::charged(bytes, items, charge));
        match consumer.admit(&payload).await {
            Ok(admission) => {
                admission.commit(payload);
                self.counts.accepted(signal, items);
                Ok(partial)
            }
            Err(refusal) => {
                match refusal {
                    Refusal::Retryable { .. } => self.counts.refused(signal, items),
                    Refusal::Permanent { .. } => self.counts.failed(signal, items),
                }
                Err(Rejection::Refused(refusal))
            }
        }
    }

    /// Counts a request that could not be read.
    pub fn malformed(&self) {
        self.counts.malformed.add(1, &self.counts.attributes);
    }

    /// Counts a request that went to the wrong place, and says so: the 1st, 2nd, 4th, 8th … time, since a wrongly aimed
    /// exporter comes again and again.
    pub fn misdirected(&self, what: &str) {
        self.malformed();
        let times = self.misdirected.fetch_add(1, Ordering::Relaxed) + 1;
        if times.is_power_of_two() {
            let [receiver, transport] = &self.counts.attributes;
            let (receiver, transport) = (receiver.value.as_str(), transport.value.as_str());
            tracing::warn!(%receiver, %transport, times, "an application sends to the wrong place: {what}");
        }
    }

    /// Counts a request whose sender went away before it had come whole.
    pub fn broken_off(&self) {
        self.counts.broken_off.add(1, &self.counts.attributes);
    }

    /// Counts a request that was too much, or did not come whole; `size` is the key of the limit to its size.
    pub fn too_much(&self, why: &TooMuch, size: &'static str) {
        match *why {
            TooMuch::Request(_) => self.limit_reached(size),
            TooMuch::NoRoom { limit, .. } => self.limit_reached(limit),
            TooMuch::Stalled => self.limit_reached("request_progress"),
            TooMuch::Slow => self.limit_reached("request_time"),
            TooMuch::BrokenOff(_) => self.broken_off(),
        }
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
    failed: [Counter<u64>; 3],
    malformed: Counter<u64>,
    broken_off: Counter<u64>,
    limit_reached: Counter<u64>,
    attributes: [KeyValue; 2],
}

impl Counts {
    fn new(meter: &Meter, id: &str, transport: &'static str) -> Self {
        let by_signal = |what: &str| Signal::ALL.map(|signal| meter.u64_counter(format!("otelcol_receiver_{what}_{}", signal.items())).build());
        Self {
            accepted: by_signal("accepted"),
            refused: by_signal("refused"),
            failed: by_signal("failed"),
            malformed: meter.u64_counter("fuseboard_receiver_malformed_requests").build(),
            broken_off: meter.u64_counter("fuseboard_receiver_broken_off_requests").build(),
            limit_reached: meter.u64_counter("fuseboard_limit_reached").build(),
            attributes: [KeyValue::new("receiver", id.to_owned()), KeyValue::new("transport", transport)],
        }
    }

    fn accepted(&self, signal: Signal, items: usize) {
        signal.of(&self.accepted).add(items as u64, &self.attributes);
    }

    fn failed(&self, signal: Signal, items: usize) {
        signal.of(&self.failed).add(items as u64, &self.attributes);
    }

    fn refused(&self, signal: Signal, items: usize) {
        if items > 0 {
            signal.of(&self.refused).add(items as u64, &self.attributes);
        }
    }
}
