use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;

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
#[derive(Default)]
pub struct Outlet(ArcSwapOption<Arc<dyn Consumer>>);

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outlet({})", if self.is_connected() { "connected" } else { "unconnected" })
    }
}

impl Outlet {
    /// Leads elsewhere from now on, or nowhere; what is being admitted already goes where it was going.
    pub fn lead_to(&self, consumer: Option<Arc<dyn Consumer>>) {
        self.0.store(consumer.map(Arc::new));
    }

    /// Whether a pipeline takes what comes here.
    pub fn is_connected(&self) -> bool {
        self.0.load().is_some()
    }

    /// Where it leads.
    pub fn consumer(&self) -> Option<Arc<dyn Consumer>> {
        self.0.load().as_ref().map(|consumer| Arc::clone(consumer.as_ref()))
    }

    /// Admits and commits a payload. Where no pipeline takes it, it is gone.
    ///
    /// # Errors
    /// Somebody behind the outlet has no room; nobody has taken it.
    pub async fn consume(&self, payload: Payload) -> Result<(), Refusal> {
        if let Some(consumer) = self.consumer() {
            consumer.admit(&payload).await?.commit(payload);
        }
        Ok(())
    }
}
