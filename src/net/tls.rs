use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a connection to a backend is protected. By default by TLS that trusts the system's certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// Send in plain text. An endpoint that begins with `http://` does so too.
    pub insecure: bool,
}
