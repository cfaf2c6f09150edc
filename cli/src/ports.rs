//! Ports: which ones, whether they are free, and who holds one that is not.

use std::net::{IpAddr, TcpListener};

use serde::{Deserialize, Serialize};

use crate::problem::{Problem, Result};
use crate::size::{MAX_COPIES, Size};

/// The ports of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The gateway (the bifrost entry point).
    pub gateway: u16,
    /// Pushpin for clients (the hermod entry point).
    pub pushpin: u16,
    /// Pushpin's counters for Prometheus.
    pub pushpin_metrics: u16,
    /// Keycloak.
    pub keycloak: u16,
    /// Keycloak's health checks.
    pub keycloak_management: u16,
    /// MCP Inspector's page.
    pub inspector: u16,
    /// MCP Inspector's sandbox for a server's own pages.
    pub inspector_sandbox: u16,
    /// MCP Inspector's origin for MCP Apps.
    pub inspector_apps: u16,
    /// Kong's status page.
    pub kong_status: u16,
    /// The first backend; the others follow.
    pub backend: u16,
    /// The first worker's health checks; the others follow.
    pub worker: u16,
    /// The first backend's admin API; the others follow. 0, as in files from before it: there is none.
    #[serde(default)]
    pub admin: u16,
    // Of files from before these were sockets in the run folder: read, and of no use.
    #[serde(default, skip_serializing)]
    pushpin_pull: Former,
    #[serde(default, skip_serializing)]
    pushpin_http: Former,
    #[serde(default, skip_serializing)]
    pushpin_sub: Former,
    #[serde(default, skip_serializing)]
    pushpin_command: Former,
    #[serde(default, skip_serializing)]
    pushpin_stats: Former,
    #[serde(default, skip_serializing)]
    redis: Former,
}

/// A port that is one no longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "u16")]
struct Former;

impl From<u16> for Former {
    fn from(_: u16) -> Self {
        Self
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            gateway: 8000,
            pushpin: 7999,
            pushpin_metrics: 5565,
            keycloak: 8080,
            keycloak_management: 9000,
            inspector: 6274,
            inspector_sandbox: 6275,
            inspector_apps: 6278,
            kong_status: 8007,
            backend: 8081,
            worker: 8091,
            admin: 8181,
            ..Self::NONE
        }
    }
}

/// How many ports a block of [`Ports::from_base`] takes.
pub const BLOCK: u16 = 50;

impl Ports {
    const NONE: Self = Self {
        gateway: 0,
        pushpin: 0,
        pushpin_metrics: 0,
        keycloak: 0,
        keycloak_management: 0,
        inspector: 0,
        inspector_sandbox: 0,
        inspector_apps: 0,
        kong_status: 0,
        backend: 0,
        worker: 0,
        admin: 0,
        pushpin_pull: Former,
        pushpin_http: Former,
        pushpin_sub: Former,
        pushpin_command: Former,
        pushpin_stats: Former,
        redis: Former,
    };

    /// A block of [`BLOCK`] ports from `base` on.
    #[must_use]
    pub fn from_base(base: u16) -> Self {
        Self {
            gateway: base,
            pushpin: base.saturating_add(1),
            pushpin_metrics: base.saturating_add(14),
            keycloak: base.saturating_add(6),
            keycloak_management: base.saturating_add(7),
            inspector: base.saturating_add(10),
            inspector_sandbox: base.saturating_add(11),
            inspector_apps: base.saturating_add(12),
            kong_status: base.saturating_add(13),
            backend: base.saturating_add(20),
            worker: base.saturating_add(30),
            admin: base.saturating_add(40),
            ..Self::NONE
        }
    }

    /// What `--ports` says: a first port, or `free` for a block that is free now.
    ///
    /// # Errors
    /// Neither of both, or no free block found.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "free" {
            return Self::free();
        }
        match text.parse::<u16>() {
            Ok(base) if (1024..=u16::MAX - BLOCK).contains(&base) => Ok(Self::from_base(base)),
            _ => Err(Problem::new(format!(
                "--ports wants a first port from 1024 to {} or `free`",
                u16::MAX - BLOCK
            ))),
        }
    }

    /// A block of free ports below the range that the kernel gives to outgoing connections.
    fn free() -> Result<Self> {
        (0..200)
            .map(|_| 20_000 + rand::random_range(0..240_u16) * BLOCK)
            .find(|base| (*base..*base + BLOCK).all(|port| is_free(LOOPBACK, port)))
            .map(Self::from_base)
            .ok_or_else(|| Problem::new("found no block of free ports").hint("name one with --ports"))
    }

    /// Every port by the name it has in the state file, for a stack of that size.
    #[must_use]
    pub fn named(&self, size: Size) -> Vec<(String, u16)> {
        let mut all: Vec<(String, u16)> = [
            ("gateway", self.gateway),
            ("pushpin", self.pushpin),
            ("pushpin_metrics", self.pushpin_metrics),
            ("keycloak", self.keycloak),
            ("keycloak_management", self.keycloak_management),
            ("inspector", self.inspector),
            ("inspector_sandbox", self.inspector_sandbox),
            ("inspector_apps", self.inspector_apps),
            ("kong_status", self.kong_status),
        ]
        .map(|(name, port)| (name.to_owned(), port))
        .into();
        all.extend((0..size.backends).map(|i| ("backend".to_owned(), self.backend.saturating_add(i))));
        let admins = if self.admin == 0 { 0 } else { size.backends };
        all.extend((0..admins).map(|i| ("admin".to_owned(), self.admin.saturating_add(i))));
        all.extend((0..size.workers).map(|i| ("worker".to_owned(), self.worker.saturating_add(i))));
        all
    }

    /// No port twice, none zero, room for [`MAX_COPIES`] backends and workers.
    ///
    /// # Errors
    /// Names the port.
    pub fn check(&self) -> Result<()> {
        let mut all = self.named(Size { backends: MAX_COPIES, workers: MAX_COPIES });
        all.sort_by_key(|(_, port)| *port);
        if let Some((name, _)) = all.iter().find(|(_, port)| *port == 0) {
            return Err(Problem::new(format!("ports.{name} is 0")));
        }
        for (one, two) in all.iter().zip(all.iter().skip(1)) {
            if one.1 == two.1 {
                return Err(Problem::new(format!(
                    "port {} is used twice, by {} and {} (backends and workers take {MAX_COPIES} ports each)",
                    one.1, one.0, two.0
                )));
            }
        }
        Ok(())
    }
}

/// 127.0.0.1.
pub const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Whether a server could listen there now.
#[must_use]
pub fn is_free(address: IpAddr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok()
}

/// A problem that says who holds the port, if it is taken.
///
/// # Errors
/// When it is taken.
pub fn demand_free(address: IpAddr, port: u16, name: &str, state_file: &str) -> Result<()> {
    let Err(error) = TcpListener::bind((address, port)) else { return Ok(()) };
    let hint = format!("stop that program, or write another port for {name} into {state_file}");
    let what = match (error.kind(), holder(port)) {
        (std::io::ErrorKind::PermissionDenied, _) => {
            return Err(Problem::new(format!("port {port} ({name}) needs more rights"))
                .hint(format!("choose a port over 1023 in {state_file}")));
        }
        (_, Some(holder)) => {
            format!("port {port} ({name}) is taken by pid {} ({})", holder.pid, holder.program)
        }
        (_, None) => format!("port {port} ({name}) is taken by a program of another user"),
    };
    Err(Problem::new(what).hint(hint))
}

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub program: String,
}

/// Finds the process that listens on `port`: the socket's inode from `/proc/net/tcp*`, then the process
/// that has it open. `None` when nobody does, or when that process may not be looked at.
#[must_use]
pub fn holder(port: u16) -> Option<Holder> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            table.lines().skip(1).filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>()
        })
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(open) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = open
            .flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()));
        if holds {
            let program =
                std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned();
            return Some(Holder { pid, program });
        }
    }
    None
}

/// The inode of a line of `/proc/net/tcp` that listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let (_, hex) = local.rsplit_once(':')?;
    (state == "0A" && u16::from_str_radix(hex, 16).ok()? == port).then(|| inode.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_ports_and_blocks_do_not_collide() {
        Ports::default().check().unwrap();
        Ports::from_base(20_000).check().unwrap();
        let last = Ports::from_base(20_000).named(Size { backends: MAX_COPIES, workers: MAX_COPIES });
        assert!(last.iter().all(|(_, port)| (20_000..20_000 + BLOCK).contains(port)));
    }

    #[test]
    fn what_ports_may_say() {
        assert_eq!(Ports::parse("23000").unwrap().gateway, 23_000);
        for wrong in ["80", "x", "", "65530", "70000"] {
            assert!(Ports::parse(wrong).is_err(), "{wrong}");
        }
        let free = Ports::parse("free").unwrap();
        assert!(is_free(LOOPBACK, free.gateway));
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(holder(port).unwrap().pid, std::process::id());
        let problem = demand_free(LOOPBACK, port, "gateway", ".asgard/asgard.toml").unwrap_err().to_string();
        assert!(
            problem.contains(&format!("port {port} (gateway) is taken by pid {}", std::process::id())),
            "{problem}"
        );
        drop(listener);
        demand_free(LOOPBACK, port, "gateway", "f").unwrap();
        assert_eq!(holder(port), None);
    }
}
