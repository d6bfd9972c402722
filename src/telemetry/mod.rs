//! What Fuseboard tells of itself: metrics and traces over OTLP, logs on the standard error output.

mod line;
mod logs;
mod metrics;
mod output;
mod process;
mod repeats;
mod settings;
mod traces;

use std::{sync::Arc, time::Duration};

use opentelemetry::{KeyValue, global, metrics::Meter};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use tokio::task::AbortHandle;

use self::logs::Log;
pub use settings::{Telemetry, check_endpoint};

/// Own telemetry while it runs.
pub struct Running {
    meters: Option<SdkMeterProvider>,
    tracers: Option<SdkTracerProvider>,
    log: Arc<Log>,
    /// Tells of log lines that were left out.
    look_after_log: AbortHandle,
}

/// How long the last of it may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Running {
    /// Begins to log, and to export own metrics and traces where somebody asks for them. Needs a tokio runtime.
    ///
    /// # Errors
    /// For people: an exporter that can't be made, a level that is none.
    pub fn start(settings: &Telemetry) -> Result<Self, String> {
        let resource = resource(settings);
        let tracers = traces::provider(settings, resource.clone())?;
        let log = logs::start(&settings.logs, tracers.as_ref())?;
        let meters = metrics::provider(settings, resource)?;
        if let Some(meters) = &meters {
            global::set_meter_provider(meters.clone());
            process::observe(&global::meter("fuseboard"));
            log.observe(&global::meter("fuseboard"));
        }
        let look_after_log = tokio::spawn(Arc::clone(&log).look_after()).abort_handle();
        Ok(Self { meters, tracers, log, look_after_log })
    }

    /// Where own metrics are made.
    pub fn meter(&self) -> Meter {
        global::meter("fuseboard")
    }

    /// Sends what is left, then writes the last lines of the log.
    pub async fn stop(self) {
        let Self { meters, tracers, log, look_after_log } = self;
        // Both wait for their last request, which needs the threads that serve.
        let stopped = tokio::task::spawn_blocking(move || {
            let meters = meters.map_or(Ok(()), |meters| meters.shutdown_with_timeout(LAST_WORDS));
            let tracers = tracers.map_or(Ok(()), |tracers| tracers.shutdown_with_timeout(LAST_WORDS));
            meters.and(tracers)
        });
        if let Ok(Err(error)) = stopped.await {
            tracing::warn!(%error, "own telemetry could not be sent to the end");
        }
        look_after_log.abort();
        // It may be that nobody reads the log: that must not hold up the threads that end the rest.
        drop(tokio::task::spawn_blocking(move || log.finish()).await);
    }
}

/// What own telemetry says of its source; the instance tells replicas apart.
fn resource(settings: &Telemetry) -> Resource {
    let instance = format!("{:016x}", fastrand::u64(..));
    let own = settings.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder()
        .with_service_name("fuseboard")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .with_attributes(own)
        .build()
}
