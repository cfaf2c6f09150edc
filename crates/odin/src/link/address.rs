//! Where a worker's links are, and which of them a backend keeps.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Longest address, in bytes.
const LONGEST: usize = 300;

/// Where a worker takes links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `HOST:PORT`.
    Tcp(String),
    /// `unix:/PATH`, for parts on one machine.
    Unix(PathBuf),
}

/// Text that is not an address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address of a link: write HOST:PORT, or unix:/PATH; at most {LONGEST} bytes, no spaces")]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if text.len() > LONGEST || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidAddress);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(InvalidAddress) };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.into()))
            }
            _ => Err(InvalidAddress),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => f.write_str(at),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How many workers a backend keeps links to.
pub(super) fn wanted(workers: usize, backends: usize) -> usize {
    (3 * workers).div_ceil(backends.max(1)).max(8)
}

/// The workers that this backend keeps links to, of all of its server: those whose hash with its name is the highest. So
/// each worker has links of several backends, and little changes when one comes or goes.
pub(super) fn choose<'a>(
    backend: &str,
    workers: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let mut all: Vec<(Vec<u8>, &str)> = workers
        .into_iter()
        .map(|worker| {
            let hash = Sha256::new().chain_update(backend).chain_update([0]).chain_update(worker).finalize();
            (hash.to_vec(), worker)
        })
        .collect();
    all.sort_unstable_by(|one, other| other.cmp(one));
    all.into_iter().take(count).map(|(_, worker)| worker).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_path() {
        for text in ["127.0.0.1:7000", "worker-1:7000", "[::1]:7000", "unix:/run/w.sock"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "host", "host:", ":7000", "host:70000", "unix:w.sock", "a b:1", &"x".repeat(400)] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text}");
        }
    }

    #[test]
    fn every_worker_has_links_and_no_backend_has_them_all() {
        let workers: Vec<String> = (0..100).map(|n| format!("worker-{n}")).collect();
        let backends: Vec<String> = (0..20).map(|n| format!("backend-{n}")).collect();
        let count = wanted(workers.len(), backends.len());
        assert_eq!(count, 15);
        assert_eq!((wanted(2, 2), wanted(0, 0), wanted(9, 1)), (8, 8, 27));
        let mut links: BTreeMap<&str, usize> = BTreeMap::new();
        for backend in &backends {
            let chosen = choose(backend, workers.iter().map(String::as_str), count);
            assert_eq!(chosen.len(), count);
            chosen.into_iter().for_each(|worker| *links.entry(worker).or_default() += 1);
        }
        assert!(links.len() >= 95, "{} of 100 workers have a link", links.len());
        // A worker that goes changes only its own place.
        let all = choose("backend-1", workers.iter().map(String::as_str), count);
        let without = workers.iter().map(String::as_str).filter(|worker| *worker != all[0]);
        let fewer = choose("backend-1", without, count);
        assert_eq!(all[1..], fewer[..count - 1]);
    }
}
