//! Where a Pushpin takes messages.

use std::fmt;
use std::str::FromStr;

/// Why a text is no [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of tcp://host:port, ipc:///path and http://host[:port]/path/")]
pub struct EndpointError(String);

impl EndpointError {
    pub(crate) fn not_http(url: String) -> Self {
        Self(url)
    }
}

/// Longest path of a Unix socket, in bytes (`sun_path` in unix(7), with its zero).
const MAX_PATH: usize = 107;

/// Where a Pushpin takes messages: `tcp://host:port` or `ipc:///path` for ZeroMQ (`push_in_sub_specs`, by default port
/// 5562) or `http://host:port/publish/` for HTTP (`push_in_http_port`, by default 5561).
///
/// ```
/// let zmq: grip::Endpoint = "tcp://127.0.0.1:5562".parse()?;
/// assert!(zmq.is_gated());
/// let http: grip::Endpoint = "http://127.0.0.1:5561/publish/".parse()?;
/// assert!(!http.is_gated());
/// # Ok::<(), grip::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// ZeroMQ: tells which channels have subscribers.
    Tcp {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// ZeroMQ over a Unix socket, of this machine: as [`Endpoint::Tcp`], for those alone who may open the socket's file.
    Ipc {
        /// The absolute path of the socket.
        path: String,
    },
    /// HTTP: tells nothing. A message for a hold that is not open yet is lost.
    Http {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The path, with its leading slash.
        path: String,
    },
}

impl Endpoint {
    /// True when subscriptions are reported, so that a message can wait for its hold.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        !matches!(self, Self::Http { .. })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || EndpointError(text.chars().take(200).collect());
        if let Some(authority) = text.strip_prefix("tcp://") {
            let (host, port) = split_authority(authority, None).ok_or_else(error)?;
            return Ok(Self::Tcp { host, port });
        }
        if let Some(path) = text.strip_prefix("ipc://") {
            let fits = path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('\0');
            return fits.then(|| Self::Ipc { path: path.to_owned() }).ok_or_else(error);
        }
        let rest = text.strip_prefix("http://").ok_or_else(error)?;
        let (authority, path) = rest.split_once('/').ok_or_else(error)?;
        let path = format!("/{path}");
        // What hyper takes as the path of a request, so that it can't fail later.
        path.parse::<http::uri::PathAndQuery>().map_err(|_| error())?;
        let (host, port) = split_authority(authority, Some(80)).ok_or_else(error)?;
        Ok(Self::Http { host, port, path })
    }
}

fn split_authority(authority: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let fits = (1..=253).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (fits.then_some(host)?, port)
    };
    let port = if port.is_empty() { default_port? } else { port.parse().ok().filter(|port| *port != 0)? };
    Some((host.to_owned(), port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = |host: &str| if host.contains(':') { ("[", "]") } else { ("", "") };
        match self {
            Self::Tcp { host, port } => {
                let (open, close) = brackets(host);
                write!(f, "tcp://{open}{host}{close}:{port}")
            }
            Self::Ipc { path } => write!(f, "ipc://{path}"),
            Self::Http { host, port, path } => {
                let (open, close) = brackets(host);
                write!(f, "http://{open}{host}{close}:{port}{path}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_come_back_as_they_were() {
        for text in [
            "tcp://127.0.0.1:5562",
            "tcp://pushpin-1.hold_net:5562",
            "tcp://[::1]:5562",
            "ipc:///run/pushpin/sub",
            "http://127.0.0.1:5561/publish/",
            "http://[::1]:5561/publish/?x=1",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("http://h/publish/".parse::<Endpoint>().unwrap().to_string(), "http://h:80/publish/");
    }

    #[test]
    fn bad_ones_are_refused() {
        for text in [
            "",
            "tcp://",
            "tcp://h",
            "tcp://h:0",
            "tcp://h:99999",
            "tcp://h:5562/",
            "tcp://*:5562",
            "tcp://::1:5562",
            "tcp://[::1]5562",
            "tcp://user@h:1",
            "ipc://x",
            "ipc://",
            &format!("ipc:///{}", "x".repeat(MAX_PATH)),
            "https://h/publish/",
            "http://h:1",
            "http://h:1/a b",
            "127.0.0.1:5562",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
