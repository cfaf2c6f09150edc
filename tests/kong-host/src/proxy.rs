//! HTTP/1.1 requests to others: to an upstream for a client, and to anybody for a filter.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::wasm::{Callout, CalloutReply};

/// Largest answer that a filter gets, in bytes.
const MAX_CALLOUT_BODY: usize = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Nobody took the connection: another target may be tried.
    #[error("connect: {0}")]
    Connect(std::io::Error),
    /// The request was sent, or in part.
    #[error("exchange: {0}")]
    Exchange(#[from] hyper::Error),
}

/// Sends one request on a connection of its own. The body of the answer is read as it comes.
///
/// # Errors
/// [`ProxyError`].
pub async fn exchange(
    address: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ProxyError> {
    let stream = TcpStream::connect(address).await.map_err(ProxyError::Connect)?;
    stream.set_nodelay(true).map_err(ProxyError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Takes off what belongs to one connection.
pub fn without_hop_by_hop(headers: &mut HeaderMap) {
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        headers.remove(name);
    }
}

/// Makes a filter's request. A failure is an answer without headers.
pub async fn callout(callout: Callout) -> CalloutReply {
    let work = tokio::time::timeout(Duration::from_millis(callout.timeout.into()), attempt(&callout));
    match work.await {
        Ok(Some(reply)) => reply,
        Ok(None) => failure("connection failure"),
        Err(_) => failure("timeout"),
    }
}

fn failure(why: &str) -> CalloutReply {
    CalloutReply { headers: vec![(":dispatch_status".into(), why.into())], body: Vec::new() }
}

async fn attempt(callout: &Callout) -> Option<CalloutReply> {
    let pseudo = |name: &str| {
        let found = callout.headers.iter().find(|(n, _)| n == name);
        found.and_then(|(_, v)| String::from_utf8(v.clone()).ok())
    };
    if pseudo(":scheme").is_some_and(|s| s == "https") {
        return None;
    }
    let mut request = Request::builder()
        .method(pseudo(":method").as_deref().unwrap_or("GET"))
        .uri(pseudo(":path").unwrap_or_else(|| "/".into()))
        .header("host", pseudo(":authority").unwrap_or_else(|| callout.upstream.clone()));
    for (name, value) in callout.headers.iter().filter(|(n, _)| !n.starts_with(':')) {
        request = request.header(name, value.as_slice());
    }
    let request = request.body(Full::new(Bytes::from(callout.body.clone()))).ok()?;
    let response = exchange(&callout.upstream, request).await.ok()?;
    let (parts, body) = response.into_parts();
    let body = http_body_util::Limited::new(body, MAX_CALLOUT_BODY).collect().await.ok()?.to_bytes();
    let status = (":status".to_owned(), parts.status.as_str().as_bytes().to_vec());
    let lines = parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec()));
    Some(CalloutReply { headers: std::iter::once(status).chain(lines).collect(), body: body.to_vec() })
}
