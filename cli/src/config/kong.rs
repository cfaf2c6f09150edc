//! Kong's files, from the templates in `kong/`; its README explains the names in them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::Settings;
use crate::problem::{Problem, Result};
use crate::render::{Values, render_template, values};

/// What belongs to the place where Kong runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder of the rendered files.
    pub files: String,
    /// Kong's working folder.
    pub prefix: String,
    /// The folder of `kong_filter.wasm`.
    pub filters: String,
    /// The user of nginx's workers (and, after a space, the group).
    pub user: String,
    /// The number of workers, or `auto`.
    pub workers: String,
    /// Where health and metrics are to be had, as `address:port`.
    pub status_listen: String,
    /// Who may say what a client's address is.
    pub trusted_ips: String,
}

/// Kong's files, filled in. They hold secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `kong.yml`.
    pub kong_yml: String,
    /// `nginx-http.conf`.
    pub nginx_http: String,
    /// `nginx-proxy.conf`.
    pub nginx_proxy: String,
    /// `kong.env`.
    pub kong_env: String,
}

impl Files {
    /// The files that Kong reads: name and text.
    #[must_use]
    pub fn read_by_kong(&self) -> [(&'static str, &str); 3] {
        [
            ("kong.yml", &self.kong_yml),
            ("nginx-http.conf", &self.nginx_http),
            ("nginx-proxy.conf", &self.nginx_proxy),
        ]
    }

    /// `kong.env` as the environment of a process.
    ///
    /// # Errors
    /// A line that is not NAME=value.
    pub fn environment(&self) -> Result<BTreeMap<String, String>> {
        self.kong_env
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (name, value) = line
                    .split_once('=')
                    .ok_or_else(|| Problem::new(format!("kong.env.in: {line:?} is not NAME=value")))?;
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
    }
}

/// Fills in Kong's files.
///
/// # Errors
/// A template that cannot be read, or names something that has no value.
pub fn files(settings: &Settings, place: &Place) -> Result<Files> {
    let templates = settings.root.join("kong");
    let mut values = all_values(settings, place);
    values.insert("HOST_ROUTES".to_owned(), host_routes(&templates, &settings.hosts)?);
    let file = |name: &str| render_template(&templates.join(format!("{name}.in")), &values);
    Ok(Files {
        kong_yml: file("kong.yml")?,
        nginx_http: file("nginx-http.conf")?,
        nginx_proxy: file("nginx-proxy.conf")?,
        kong_env: file("kong.env")?,
    })
}

/// The routes of the hosts' short paths: `host-route.yml.in`, filled in for each.
fn host_routes(templates: &Path, hosts: &[(String, String)]) -> Result<String> {
    let file = templates.join("host-route.yml.in");
    let one = |(host, organisation): &(String, String)| {
        let own = [("ORGANISATION_HOST", host.clone()), ("ORGANISATION", organisation.clone())];
        render_template(&file, &values(own))
    };
    hosts.iter().map(one).collect()
}

fn all_values(settings: &Settings, place: &Place) -> Values {
    let targets: Vec<_> =
        settings.backends.iter().map(|target| json!({"target": target, "weight": 100})).collect();
    let pushpins: Vec<String> =
        settings.pushpins.iter().map(|address| format!("server {address};")).collect();
    values([
        ("BACKEND_TARGETS", json!(targets).to_string()),
        ("CORS_ORIGINS", json!(settings.origins).to_string()),
        ("FILTER_CONFIG", settings.filter_config.clone()),
        ("GATEWAY_LISTEN", settings.address()),
        ("HERMOD_SERVERS", pushpins.join("\n    ")),
        ("KEYCLOAK_ADDRESS", settings.keycloak.clone()),
        ("KONG_CONF_DIR", place.files.clone()),
        ("KONG_ERROR_LOG", "/dev/stderr".to_owned()),
        ("KONG_FILTERS_DIR", place.filters.clone()),
        ("KONG_PREFIX", place.prefix.clone()),
        ("KONG_STATUS_LISTEN", place.status_listen.clone()),
        ("KONG_TRUSTED_IPS", place.trusted_ips.clone()),
        ("KONG_USER", place.user.clone()),
        ("KONG_WORKERS", place.workers.clone()),
    ])
}
