use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

use super::{
    consumer::{Admission, Admit, Consumer, Refusal},
    payload::Payload,
};

/// Hands every payload to all of its consumers, or to none.
pub struct FanOut(Vec<Arc<dyn Consumer>>);

impl FanOut {
    /// One consumer that stands for all of these.
    pub fn of(mut consumers: Vec<Arc<dyn Consumer>>) -> Arc<dyn Consumer> {
        match (consumers.pop(), consumers.is_empty()) {
            (Some(only), true) => only,
            (Some(last), false) => {
                consumers.push(last);
                Arc::new(Self(consumers))
            }
            (None, _) => Arc::new(Discard),
        }
    }
}

impl Consumer for FanOut {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            let mut admissions = Vec::with_capacity(self.0.len());
            for consumer in &self.0 {
                admissions.push(consumer.admit(payload).await?);
            }
            Ok(Box::new(All(admissions)) as Box<dyn Admission>)
        })
    }
}

struct All(Vec<Box<dyn Admission>>);

impl Admission for All {
    fn commit(self: Box<Self>, payload: Payload) {
        for admission in self.0 {
            admission.commit(payload.clone());
        }
    }
}

/// Takes everything and keeps nothing.
#[derive(Debug)]
pub struct Discard;

impl Consumer for Discard {
    fn admit<'a>(&'a self, _: &'a Payload) -> Admit<'a> {
        Box::pin(async { Ok(Box::new(Self) as Box<dyn Admission>) })
    }
}

impl Admission for Discard {
    fn commit(self: Box<Self>, _: Payload) {}
}

/// Where a receiver hands its payloads; a reload points it elsewhere while the receiver runs on.
pub struct Outlet(ArcSwap<Arc<dyn Consumer>>);

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outlet")
    }
}

impl Outlet {
    /// An outlet that leads to this consumer.
    pub fn to(consumer: Arc<dyn Consumer>) -> Self {
        Self(ArcSwap::from_pointee(consumer))
    }

    /// Leads elsewhere from now on; what is being admitted already goes where it was going.
    pub fn lead_to(&self, consumer: Arc<dyn Consumer>) {
        self.0.store(Arc::new(consumer));
    }

    /// Admits and commits a payload.
    ///
    /// # Errors
    /// Somebody behind the outlet has no room; nobody has taken it.
    pub async fn consume(&self, payload: Payload) -> Result<(), Refusal> {
        let consumer = self.0.load_full();
        consumer.admit(&payload).await?.commit(payload);
        Ok(())
    }
}
