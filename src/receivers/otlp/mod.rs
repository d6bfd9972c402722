//! `otlp`: takes OTLP over gRPC and HTTP.

mod config;
mod cors;
mod grpc;
mod http;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_yaml::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::config::Config;
use crate::{
    config::schema_of,
    net::{descriptors, serve},
    otlp::Signal,
    pipeline::{Factory, Faults, Future, Instance, Intake, Lifecycle, Outlets, Parsed, Receiver, Role, Section, Setup},
};

/// What is known of `otlp` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Receivers,
    name: "otlp",
    aliases: &[],
    about: "Takes OTLP over gRPC and HTTP (protobuf and JSON; gzip, deflate and zstd).",
    roles: &[Role { section: Section::Receivers, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    config.check()?;
    let listens_on = config.endpoints().map(|(_, endpoint)| endpoint.to_owned()).collect();
    let parsed = Parsed::new(config, |config, setup| Ok(Instance::Receiver(Arc::new(Otlp::new(config, setup)))))?;
    Ok(Parsed { listens_on, ..parsed })
}

struct Otlp {
    config: Config,
    setup: Setup,
    stop: CancellationToken,
    servers: Mutex<JoinSet<()>>,
}

impl Otlp {
    fn new(config: Config, setup: &Setup) -> Self {
        Self { config, setup: setup.clone(), stop: CancellationToken::new(), servers: Mutex::default() }
    }
}

impl Otlp {
    /// Warns where there may be more connections than file descriptors.
    fn compare_descriptors(&self) {
        let most = self.config.max_connections() as u64;
        if let Some(limit) = descriptors::limit().filter(|limit| *limit < most) {
            tracing::warn!(
                receiver = self.setup.id,
                max_connections = most,
                descriptors = limit,
                "max_connections exceeds the limit on open file descriptors; raise that limit (ulimit -n, LimitNOFILE) or set max_connections lower"
            );
        }
    }
}

impl Receiver for Otlp {
    fn start(&self, outlets: Outlets) -> Future<'_, Result<(), String>> {
        Box::pin(async move {
            let mut bound = Vec::new();
            for (protocol, endpoint) in self.config.endpoints() {
                let owner = format!("{}/{protocol}", self.setup.id);
                let listener = self.setup.listeners.bind(&owner, endpoint).await?;
                let address = listener.local_addr().map_err(|error| error.to_string())?;
                tracing::info!(receiver = self.setup.id, protocol, endpoint = %address, "listening");
                bound.push((protocol, listener));
            }
            self.compare_descriptors();
            let mut servers = self.servers.lock();
            for (protocol, listener) in bound {
                let stop = self.stop.clone();
                match (protocol, &self.config.protocols.grpc, &self.config.protocols.http) {
                    ("grpc", Some(config), _) => {
                        let service = Arc::new(grpc::Service { intake: Intake::new(&self.setup, outlets.clone(), "grpc"), limits: config.limits() });
                        let counts = Arc::clone(&service);
                        let answer = move |request, peer| Arc::clone(&service).answer(request, peer);
                        servers.spawn(serve(listener, config.connections(), stop, answer, move |limit| counts.intake.limit_reached(limit)));
                    }
                    (_, _, Some(config)) => {
                        let service = Arc::new(http::Service {
                            intake: Intake::new(&self.setup, outlets.clone(), "http"),
                            limits: config.limits(),
                            paths: config.paths(),
                        });
                        let counts = Arc::clone(&service);
                        let answer = http::answer(service, config.cors.layer());
                        servers.spawn(serve(listener, config.connection_limits(), stop, answer, move |limit| counts.intake.limit_reached(limit)));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

impl Lifecycle for Otlp {
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            self.stop.cancel();
            let mut servers = std::mem::take(&mut *self.servers.lock());
            let finished = async { while servers.join_next().await.is_some() {} };
            if tokio::time::timeout(within, finished).await.is_err() {
                tracing::warn!(receiver = self.setup.id, "connections were still busy at the end of the time to shut down; cut off");
            }
        })
    }
}
