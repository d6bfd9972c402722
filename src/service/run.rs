use std::sync::Arc;

use opentelemetry::metrics::Meter;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    graph::{Graph, Shared},
    plan::Plan,
};
use crate::{clock::Wall, net::Listeners, pipeline::Ledger, telemetry::Telemetry};

/// Reads the configuration again; an error is what is wrong with it, for the log.
pub type Reload = Box<dyn Fn() -> Result<Plan, Vec<String>> + Send>;

/// Runs a plan until SIGTERM or SIGINT, then stops it with everything in flight drained. SIGHUP reloads.
///
/// # Errors
/// For people: what keeps it from starting.
pub async fn run(plan: Plan, meter: Meter, ledger: Arc<Ledger>, reload: Reload) -> Result<(), String> {
    let catch = |kind| signal(kind).map_err(|error| format!("can't listen for signals: {error}"));
    let (mut terminate, mut interrupt, mut hangup) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?);
    let telemetry = plan.telemetry().clone();
    let (listeners, has_own_metrics) = (Arc::new(Listeners::default()), telemetry.has_metrics());
    let shared = Shared { clock: Arc::new(Wall), ledger, queue_room: Arc::default(), listeners, meter, has_own_metrics };
    let mut graph = Graph::start(shared, plan).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "everything is running");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => change(&mut graph, &telemetry, &reload).await,
        }
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = graph.stop() => tracing::info!("stopped"),
        _ = terminate.recv() => return Err(AT_ONCE.to_owned()),
        _ = interrupt.recv() => return Err(AT_ONCE.to_owned()),
    }
    Ok(())
}

const AT_ONCE: &str = "stopped at once by a second signal; what was in flight is lost";

async fn change(graph: &mut Graph, telemetry: &Telemetry, reload: &Reload) {
    let plan = match reload() {
        Ok(plan) => plan,
        Err(problems) => {
            for problem in problems {
                tracing::error!("can't reload: {problem}");
            }
            return tracing::error!("the configuration was not reloaded; the old one runs on");
        }
    };
    if plan.telemetry() != telemetry {
        tracing::warn!("what changed in service::telemetry takes effect at the next start only");
    }
    match graph.change_to(plan).await {
        Ok(()) => tracing::info!("the configuration was reloaded"),
        Err(reason) => tracing::error!(reason, "the configuration was not reloaded; the old one runs on"),
    }
}
