use std::{collections::HashMap, net::TcpListener as Socket};

use parking_lot::Mutex;
use tokio::net::{TcpListener, lookup_host};

/// Listening sockets by address; they stay open while a reload replaces who accepts from them.
#[derive(Debug, Default)]
pub struct Listeners {
    open: Mutex<HashMap<String, Socket>>,
}

impl Listeners {
    /// A listener on `endpoint` (`host:port`): the one that is open already, else a new one.
    ///
    /// `owner` tells those apart that ask for any free port (`:0`).
    ///
    /// # Errors
    /// For people: why nobody can listen there.
    pub async fn bind(&self, owner: &str, endpoint: &str) -> Result<TcpListener, String> {
        let key = Self::key(owner, endpoint);
        let known = self.open.lock().get(&key).map(Socket::try_clone);
        let socket = match known {
            Some(socket) => socket,
            None => {
                let socket = open(endpoint).await.and_then(TcpListener::into_std);
                let socket = socket.map_err(|error| self.refusal(endpoint, &error))?;
                let clone = socket.try_clone();
                self.open.lock().insert(key, socket);
                clone
            }
        };
        socket.and_then(TcpListener::from_std).map_err(|error| self.refusal(endpoint, &error))
    }

    fn refusal(&self, endpoint: &str, error: &std::io::Error) -> String {
        if error.kind() != std::io::ErrorKind::AddrInUse {
            return format!("can't listen on {endpoint}: {error}");
        }
        let port = |endpoint: &str| endpoint.rsplit_once(':').map(|(_, port)| port.to_owned());
        let own = self.open.lock().keys().find(|own| port(own) == port(endpoint)).cloned();
        match own {
            Some(own) => format!("can't listen on {endpoint}: Fuseboard itself listens on {own}; to listen elsewhere on a port takes a restart"),
            None => format!("can't listen on {endpoint}: another program does already (a Collector, perhaps?); stop it or set another endpoint"),
        }
    }

    /// Closes the sockets on all other addresses than these.
    pub fn keep_only<'a>(&self, endpoints: impl IntoIterator<Item = &'a str>) {
        let wanted: Vec<&str> = endpoints.into_iter().collect();
        self.open.lock().retain(|key, _| wanted.contains(&key.rsplit(' ').next().unwrap_or(key)));
    }

    fn key(owner: &str, endpoint: &str) -> String {
        if endpoint.ends_with(":0") { format!("{owner} {endpoint}") } else { endpoint.to_owned() }
    }
}

async fn open(endpoint: &str) -> std::io::Result<TcpListener> {
    // As in Go's net package, a missing host means every address.
    let endpoint = if endpoint.starts_with(':') { format!("[::]{endpoint}") } else { endpoint.to_owned() };
    let mut last = None;
    for address in lookup_host(&endpoint).await? {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("the host has no address")))
}
