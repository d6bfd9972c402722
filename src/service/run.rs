use std::sync::Arc;

use opentelemetry::metrics::Meter;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    graph::{Graph, Shared},
    plan::Plan,
};
use crate::{clock::Wall, net::Listeners, pipeline::Ledger};

/// Reads the configuration again; an error is what is wrong with it, for the log.
pub type Reload = Box<dyn Fn() -> Result<Plan, Vec<String>> + Send>;

/// Runs a plan until SIGTERM or SIGINT, then stops it with everything in flight drained. SIGHUP reloads.
///
/// # Errors
/// For people: what keeps it from starting.
pub async fn run(plan: Plan, meter: Meter, ledger: Arc<Ledger>, reload: Reload) -> Result<(), String> {
    let catch = |kind| signal(kind).map_err(|error| format!("can't listen for signals: {error}"));
    let (mut terminate, mut interrupt, mut hangup) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?, catch(SignalKind::hangup())?);
    let shared = Shared { clock: Arc::new(Wall), ledger, listeners: Arc::new(Listeners::default()), meter };
    let mut graph = Graph::start(shared, plan).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "everything is running");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => change(&mut graph, &reload).await,
        }
    }
    tracing::info!("stopping; a second signal stops at once");
    tokio::select! {
        () = graph.stop() => tracing::info!("stopped"),
        _ = terminate.recv() => tracing::warn!("stopped at once; what was in flight is lost"),
        _ = interrupt.recv() => tracing::warn!("stopped at once; what was in flight is lost"),
    }
    Ok(())
}

async fn change(graph: &mut Graph, reload: &Reload) {
    let plan = match reload() {
        Ok(plan) => plan,
        Err(problems) => {
            for problem in problems {
                tracing::error!(problem, "can't reload");
            }
            return tracing::error!("the configuration was not reloaded; the old one runs on");
        }
    };
    match graph.change_to(plan).await {
        Ok(()) => tracing::info!("the configuration was reloaded"),
        Err(reason) => tracing::error!(reason, "the configuration was not reloaded; the old one runs on"),
    }
}
