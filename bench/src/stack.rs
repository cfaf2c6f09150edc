//! The running stack, as `asgard status --json` tells.

use serde::Deserialize;

use crate::Result;

#[derive(Deserialize)]
pub struct Stack {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    kind: String,
    pid: u32,
    address: String,
}

impl Stack {
    /// Address of the first part of a kind.
    pub fn address(&self, kind: &str) -> Result<String> {
        let part = self.parts.iter().find(|part| part.kind == kind);
        Ok(part.ok_or_else(|| format!("no {kind} runs"))?.address.clone())
    }

    /// The parts that a call touches, by kind.
    pub fn parts(&self) -> Vec<(String, Vec<u32>)> {
        ["gateway", "pushpin", "backend", "redis", "worker"]
            .into_iter()
            .map(|kind| {
                let pids = self.parts.iter().filter(|part| part.kind == kind).map(|part| part.pid).collect();
                (kind.to_owned(), pids)
            })
            .collect()
    }
}

pub async fn read(asgard: &str) -> Result<Stack> {
    let output = tokio::process::Command::new(asgard).args(["status", "--json"]).output().await?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub async fn token(asgard: &str) -> Result<String> {
    let output = tokio::process::Command::new(asgard).args(["token", "thor"]).output().await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
