//! What Fuseboard tells of itself: metrics over OTLP, logs on the standard error output.

mod logs;
mod metrics;
mod settings;

use std::time::Duration;

use opentelemetry::{global, metrics::Meter};
use opentelemetry_sdk::metrics::SdkMeterProvider;

pub use settings::Telemetry;

/// Own telemetry while it runs.
pub struct Running {
    meters: Option<SdkMeterProvider>,
}

impl Running {
    /// Begins to log, and to export own metrics where somebody asks for them. Needs a tokio runtime.
    ///
    /// # Errors
    /// For people: an exporter that can't be made, a level that is none.
    pub fn start(settings: &Telemetry) -> Result<Self, String> {
        logs::start(&settings.logs)?;
        let meters = metrics::provider(settings)?;
        if let Some(meters) = &meters {
            global::set_meter_provider(meters.clone());
        }
        Ok(Self { meters })
    }

    /// Where own metrics are made.
    pub fn meter(&self) -> Meter {
        global::meter("fuseboard")
    }

    /// Sends what is left.
    pub fn stop(self) {
        if let Some(meters) = self.meters
            && let Err(error) = meters.shutdown_with_timeout(Duration::from_secs(2))
        {
            tracing::warn!(%error, "own metrics could not be sent to the end");
        }
    }
}
