use std::{sync::Arc, time::Duration};

use super::{Failed, print, problems};
use crate::{
    config::{self, Severity, Source},
    net,
    pipeline::Ledger,
    service::{self, Plan, Reload},
    telemetry::Running,
};

/// How long the program waits for writes to files and to the standard output that are under way when it ends.
const BLOCKED: Duration = Duration::from_secs(1);

/// Threads that serve: one a core.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| format!("can't start threads: {error}"))
}

pub(super) fn plan(sources: &[Source]) -> Result<Plan, Failed> {
    let (document, found) = config::load(sources);
    let (plan, problems) = service::plan(&document, found);
    problems::tell_all(&document, &problems);
    plan.ok_or(Failed::Told)
}

/// Runs until it is told to stop.
pub(super) fn run(sources: Vec<Source>) -> Result<(), Failed> {
    let plan = plan(&sources)?;
    let named = sources.iter().map(Source::name).collect::<Vec<_>>().join(", ");
    let reload: Reload = Box::new(move || {
        let (document, found) = config::load(&sources);
        let (plan, problems) = service::plan(&document, found);
        let of = |severity: Severity| problems.iter().filter(move |problem| problem.severity == severity).map(|problem| document.describe(problem));
        of(Severity::Warning).for_each(|problem| tracing::warn!(problem, "in the configuration"));
        plan.ok_or_else(|| of(Severity::Error).collect())
    });
    let descriptors = net::descriptors::raise_limit();
    let runtime = runtime()?;
    let ran = runtime.block_on(async {
        let telemetry = Running::start(plan.telemetry())?;
        if let Err(error) = descriptors {
            tracing::warn!(%error, "can't raise the limit on open file descriptors");
        }
        tracing::info!(configuration = named, version = env!("CARGO_PKG_VERSION"), "starting");
        let ran = service::run(plan, telemetry.meter(), Arc::new(Ledger::default()), reload).await;
        telemetry.stop().await;
        ran.map_err(Failed::Because)
    });
    // Whoever writes to a pipe that nobody reads would never end.
    runtime.shutdown_timeout(BLOCKED);
    ran
}

/// Checks the configuration.
pub(super) fn validate(sources: &[Source]) -> Result<(), Failed> {
    plan(sources)?;
    print("the configuration is valid")
}

/// Prints the configuration as it takes effect.
pub(super) fn print_config(sources: &[Source]) -> Result<(), Failed> {
    let plan = plan(sources)?;
    let text = serde_yaml::to_string(&plan.effective).map_err(|error| error.to_string())?;
    print(&text)
}
