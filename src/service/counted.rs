use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use crate::{
    otlp::Signal,
    pipeline::{Admission, Admit, Consumer, Payload},
};

/// Counts what a processor takes and hands on, under the Collector's names. Ours hand on whatever they take, so both
/// counts grow together when a payload is committed.
pub(super) struct Counted {
    next: Arc<dyn Consumer>,
    counts: Arc<Counts>,
}

struct Counts {
    incoming: Counter<u64>,
    outgoing: Counter<u64>,
    attributes: [KeyValue; 2],
}

impl Counted {
    /// Around the consumer of the processor with this id.
    pub(super) fn around(next: Arc<dyn Consumer>, meter: &Meter, id: &str, signal: Signal) -> Arc<dyn Consumer> {
        let counts = Counts {
            incoming: meter.u64_counter("otelcol_processor_incoming_items").build(),
            outgoing: meter.u64_counter("otelcol_processor_outgoing_items").build(),
            attributes: [KeyValue::new("processor", id.to_owned()), KeyValue::new("otel.signal", signal.name())],
        };
        Arc::new(Self { next, counts: Arc::new(counts) })
    }
}

impl Consumer for Counted {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            let next = self.next.admit(payload).await?;
            Ok(Box::new(Admitted { next, counts: Arc::clone(&self.counts) }) as Box<dyn Admission>)
        })
    }
}

struct Admitted {
    next: Box<dyn Admission>,
    counts: Arc<Counts>,
}

impl Admission for Admitted {
    fn commit(self: Box<Self>, payload: Payload) {
        let items = payload.items() as u64;
        self.next.commit(payload);
        self.counts.incoming.add(items, &self.counts.attributes);
        self.counts.outgoing.add(items, &self.counts.attributes);
    }
}
