//! The gateway's configuration, rendered in one place for whoever starts one: `asgard up`, `asgard render`, the
//! containers ([`crate::compose`]) and the tests' own gateways.
//!
//! [`filter::config`] makes the configuration of our filter, [`kong::files`] and [`envoy::file`] the gateway's own
//! files around it, from the templates in `kong/` and `envoy/`.

pub mod envoy;
pub mod filter;
pub mod kong;

use std::path::PathBuf;

/// What both gateways are given.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The repository, which has the templates.
    pub root: PathBuf,
    /// What clients call the gateway, without a slash at its end.
    pub public_url: String,
    /// The IP address that the gateway listens on.
    pub listen: String,
    /// The port there.
    pub port: u16,
    /// The backends, each as `host:port`.
    pub backends: Vec<String>,
    /// Where each Pushpin takes clients over, as `host:port`.
    pub pushpins: Vec<String>,
    /// Keycloak, as `host:port`.
    pub keycloak: String,
    /// Web origins that may call.
    pub origins: Vec<String>,
    /// Hosts that have a short path, each with its organisation.
    pub hosts: Vec<(String, String)>,
    /// The filter's configuration, as [`filter::config`] makes it.
    pub filter_config: String,
}

impl Settings {
    /// Where the gateway listens, as `address:port`.
    fn address(&self) -> String {
        format!("{}:{}", self.listen, self.port)
    }
}
