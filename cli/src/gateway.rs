//! The two gateways.

use serde::{Deserialize, Serialize};

/// Which program is the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// Kong 3.9, the last line with WebAssembly in its open-source build.
    Kong,
    /// Envoy.
    Envoy,
}

impl Gateway {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kong => "kong",
            Self::Envoy => "envoy",
        }
    }
}
