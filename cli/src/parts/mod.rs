//! The parts of a stack: from the state to programs with their configuration. One file a part.
//!
//! Each part renders what it needs into the run folder (which goes when the stack ends) and describes its
//! program, its health check and what it waits for.

mod backend;
mod envoy;
pub mod inspector;
pub mod keycloak;
mod kong;
mod pushpin;
mod redis;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Settings, filter};
use crate::gateway::Gateway;
use crate::hosts::Hosts;
use crate::install::{Needs, Tools};
use crate::paths::{Paths, private_dir};
use crate::policy;
use crate::ports::{LOOPBACK, demand_free};
use crate::problem::Result;
use crate::size::Size;
use crate::state::State;
use crate::supervisor::part::{Kind, PartSpec};

/// What to start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folders.
    pub paths: Paths,
    /// Ports, secrets.
    pub state: State,
    /// How many backends and workers.
    pub size: Size,
    /// The gateway.
    pub gateway: Gateway,
    /// The programs.
    pub tools: Tools,
    /// Whether the Inspector runs.
    pub inspector: bool,
    /// Nothing but these parts (names or kinds); empty: all.
    pub only: Vec<String>,
}

impl Plan {
    /// The folder of a part's rendered files.
    fn folder(&self, part: &str) -> Result<PathBuf> {
        let folder = self.paths.run().join(part);
        private_dir(&folder)?;
        Ok(folder)
    }

    /// `127.0.0.1:PORT`.
    fn local(port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    /// Where publishers reach Pushpin.
    fn publish_address(&self) -> String {
        format!("ipc://{}", self.paths.pushpin().join("sub").display())
    }

    fn backend_addresses(&self) -> Vec<String> {
        (0..self.size.backends).map(|i| Self::local(self.state.ports.backend.saturating_add(i))).collect()
    }

    /// What the gateway is given.
    fn gateway_settings(&self) -> Result<Settings> {
        let ports = &self.state.ports;
        let keycloak = Self::local(ports.keycloak);
        let hosts = Hosts::load(&self.paths)?;
        let policy = policy::load(&self.paths)?;
        let filter_config = filter::config(self.gateway, &self.state, &hosts, policy.as_ref(), &keycloak)?;
        let mut origins = filter::origins(&self.state);
        origins.push(self.state.public_url.clone());
        Ok(Settings {
            root: self.paths.root.clone(),
            public_url: self.state.public_url.clone(),
            listen: self.state.listen.clone(),
            port: ports.gateway,
            backends: self.backend_addresses(),
            pushpins: vec![Self::local(ports.pushpin)],
            keycloak,
            origins,
            hosts: hosts.to_vec(),
            filter_config,
        })
    }

    /// Where [`Plan::parts`] writes the gateway's files.
    #[must_use]
    pub fn gateway_folder(&self) -> PathBuf {
        self.paths.run().join("gateway")
    }

    /// The gateway's files, name and text, as [`Plan::parts`] writes them for a gateway that finds them in `folder`,
    /// and `kong.env`, which a Kong gets as its environment.
    ///
    /// # Errors
    /// A template with an unknown name, or settings that are not as they should be.
    pub fn gateway_files(&self, folder: &Path) -> Result<Vec<(&'static str, String)>> {
        match self.gateway {
            Gateway::Envoy => Ok(vec![("envoy.yaml", envoy::configuration(self)?)]),
            Gateway::Kong => {
                let files = kong::configuration(self, folder)?;
                let read = files.read_by_kong().map(|(name, text)| (name, text.to_owned()));
                Ok(read.into_iter().chain([("kong.env", files.kong_env.clone())]).collect())
            }
        }
    }

    /// The environment of a backend or worker: what both need, then what the state file adds.
    fn own_env(
        &self,
        kind: Kind,
        own: impl IntoIterator<Item = (&'static str, String)>,
    ) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = [
            ("ASGARD_REDIS_URL", format!("redis+unix://{}", self.paths.redis().display())),
            ("ASGARD_PUSHPINS", self.publish_address()),
            ("ASGARD_BROADCAST_KEY", self.state.secrets.broadcast_key.clone()),
            ("ASGARD_LINK_KEY", self.state.secrets.link_key.clone()),
            // Loopback only: no proxy of the surroundings may get in between.
            ("NO_PROXY", "localhost,127.0.0.1".to_owned()),
        ]
        .into_iter()
        .chain(own)
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        self.add_env(kind, &mut env);
        env
    }

    /// The program of a kind of part: the one that the state file names, else our own.
    fn program(&self, kind: Kind, own: &Path) -> PathBuf {
        self.state.programs.get(kind.name()).map_or(own, PathBuf::as_path).to_owned()
    }

    fn add_env(&self, kind: Kind, env: &mut BTreeMap<String, String>) {
        if let Some(more) = self.state.env.get(kind.name()) {
            env.extend(more.clone());
        }
    }

    fn needs(&self) -> Needs {
        Needs { gateway: self.gateway, inspector: self.inspector, only: self.only.clone(), tests: false }
    }

    /// Renders every configuration and describes every part.
    ///
    /// # Errors
    /// A template with an unknown name, a tool that is missing, a file that cannot be written.
    pub fn parts(&self) -> Result<Vec<PartSpec>> {
        let needs = self.needs();
        let mut parts = Vec::new();
        if needs.wants(Kind::Redis) {
            parts.push(redis::part(self)?);
        }
        if needs.wants(Kind::Pushpin) {
            parts.push(pushpin::part(self)?);
        }
        if needs.wants(Kind::Keycloak) {
            parts.push(keycloak::part(self)?);
        }
        if needs.wants(Kind::Gateway) {
            parts.push(match self.gateway {
                Gateway::Kong => kong::part(self)?,
                Gateway::Envoy => envoy::part(self)?,
            });
        }
        if needs.wants(Kind::Backend) {
            parts.extend((1..=self.size.backends).map(|number| backend::part(self, number)));
        }
        if needs.wants(Kind::Worker) {
            parts.extend((1..=self.size.workers).map(|number| worker::part(self, number)));
        }
        if needs.wants(Kind::Inspector) {
            parts.push(inspector::part(self)?);
        }
        parts.retain(|part| {
            self.only.is_empty()
                || self.only.iter().any(|name| *name == part.name || name == part.kind.name())
        });
        let names: Vec<String> = parts.iter().map(|part| part.name.clone()).collect();
        for part in &mut parts {
            part.after.retain(|name| names.contains(name));
            self.add_env(part.kind, &mut part.env);
        }
        Ok(parts)
    }

    /// Checks that every port of this stack is free.
    ///
    /// # Errors
    /// The first that is taken, with its holder.
    pub fn demand_ports(&self) -> Result<()> {
        let state_file = self.paths.shown(&self.paths.state_file());
        let listen = self.state.listen.parse().unwrap_or(LOOPBACK);
        let needs = self.needs();
        let wanted = |name: &str| match name.split('_').next().unwrap_or(name) {
            "gateway" => needs.wants(Kind::Gateway),
            "kong" => needs.wants(Kind::Gateway) && self.gateway == Gateway::Kong,
            "pushpin" => needs.wants(Kind::Pushpin),
            "keycloak" => needs.wants(Kind::Keycloak),
            "inspector" => needs.wants(Kind::Inspector),
            "backend" => needs.wants(Kind::Backend),
            _ => needs.wants(Kind::Worker),
        };
        for (name, port) in self.state.ports.named(self.size) {
            if wanted(&name) {
                let address = if matches!(name.as_str(), "gateway" | "pushpin") { listen } else { LOOPBACK };
                demand_free(address, port, &name, &state_file)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
