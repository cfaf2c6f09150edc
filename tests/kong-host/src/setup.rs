//! What a gateway is started with: the shipped files, filled in, and the filters.

use std::collections::BTreeMap;
use std::path::Path;

use asgard::config::Settings;
use asgard::config::kong::{self, Place};
use asgard::problem::Problem;

use crate::schema::Schema;

/// What a gateway is started with.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The text of `kong.yml`.
    pub config: String,
    /// The text of `kong.env`.
    pub environment: String,
    /// The modules in `KONG_WASM_FILTERS_PATH`: name without `.wasm`, and bytes.
    pub filters: BTreeMap<String, Vec<u8>>,
    /// The schemas of the modules that have a `NAME.meta.json`.
    pub schemas: BTreeMap<String, Schema>,
}

impl Setup {
    /// The shipped `kong.yml.in` and `kong.env.in`, filled in as `./asgard` does. No filter is there yet.
    ///
    /// # Errors
    /// A template that cannot be read, or names something that has no value.
    pub fn shipped(settings: &Settings) -> Result<Self, Problem> {
        let files = kong::files(settings, &place())?;
        Ok(Self { config: files.kong_yml, environment: files.kong_env, ..Self::default() })
    }
}

/// Names of folders that are read by nobody, and one worker.
#[must_use]
pub fn place() -> Place {
    Place {
        files: "/conf".to_owned(),
        prefix: "/prefix".to_owned(),
        filters: "/filters".to_owned(),
        user: "user".to_owned(),
        workers: "1".to_owned(),
        status_listen: "127.0.0.1:0".to_owned(),
        trusted_ips: "127.0.0.1".to_owned(),
    }
}

/// Settings for a gateway on this machine in a test: the public address of the sample, no Pushpin, and the hosts that the
/// filter's configuration gives a short path.
#[must_use]
pub fn settings(root: &Path, filter_config: String) -> Settings {
    Settings {
        root: root.to_owned(),
        public_url: "http://localhost:8000".to_owned(),
        listen: "127.0.0.1".to_owned(),
        port: 0,
        backends: Vec::new(),
        pushpins: Vec::new(),
        keycloak: "127.0.0.1:1".to_owned(),
        origins: ["http://localhost:6274", "http://127.0.0.1:6274"].map(str::to_owned).into(),
        hosts: short_hosts(&filter_config),
        filter_config,
    }
}

/// Host and organisation of each host with the short path `/mcp` in a filter's configuration.
fn short_hosts(filter_config: &str) -> Vec<(String, String)> {
    let config: serde_json::Value = serde_json::from_str(filter_config).unwrap_or_default();
    let one = |host: &serde_json::Value| {
        let text = |name: &str| host.get(name).and_then(serde_json::Value::as_str);
        let name = text("url")?.split("://").nth(1)?.split(':').next()?;
        let organisation = text("organisation").filter(|_| text("path") == Some("/mcp"))?;
        Some((name.to_owned(), organisation.to_owned()))
    };
    config.get("hosts").and_then(serde_json::Value::as_array).into_iter().flatten().filter_map(one).collect()
}
