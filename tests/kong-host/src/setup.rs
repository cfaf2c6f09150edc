//! What a gateway is started with: the shipped files, filled in, and the filters.

use std::collections::BTreeMap;
use std::path::Path;

use crate::schema::Schema;
use crate::template;

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

/// The shipped files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file can't be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// A name in a template has no value.
    #[error("{0}: {1}")]
    Render(String, template::UnknownName),
}

impl Setup {
    /// The shipped `kong.yml.in` and `kong.env.in` under `root`, filled in; with a route for each host of an organisation
    /// that `FILTER_CONFIG` gives a short path, as `./asgard` and `./setup.sh` make them. No filter is there yet.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn shipped(root: &Path, values: &BTreeMap<&str, String>) -> Result<Self, SetupError> {
        let file = |name: &str, values: &BTreeMap<&str, String>| {
            let text =
                std::fs::read_to_string(root.join(name)).map_err(|e| SetupError::Read(name.into(), e))?;
            template::render(&text, values).map_err(|e| SetupError::Render(name.into(), e))
        };
        let mut values = values.clone();
        let routes = short_hosts(values.get("FILTER_CONFIG").map_or("", String::as_str))
            .into_iter()
            .map(|(host, organisation)| {
                let own = BTreeMap::from([("ORGANISATION_HOST", host), ("ORGANISATION", organisation)]);
                file("kong/host-route.yml.in", &own)
            })
            .collect::<Result<String, _>>()?;
        values.insert("HOST_ROUTES", routes);
        Ok(Self {
            config: file("kong/kong.yml.in", &values)?,
            environment: file("kong/kong.env.in", &values)?,
            ..Self::default()
        })
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
