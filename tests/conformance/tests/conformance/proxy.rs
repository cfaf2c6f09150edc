//! Adds an access token to every request. The suite has no option for that
//! (<https://github.com/modelcontextprotocol/conformance/issues/453>). All else passes as it is: Host and Origin too,
//! which the suite forges in a scenario.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// A running proxy; ends with the value.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// What to give the suite.
    pub(crate) url: String,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Way {
    target: SocketAddr,
    authorization: HeaderValue,
}

impl Proxy {
    /// Starts one on a port, for an endpoint such as `http://localhost:8000/api/v1/mcp/org-1`.
    pub(crate) async fn start(port: u16, endpoint: &str, token: &str) -> Self {
        let endpoint: Uri = endpoint.parse().unwrap();
        let target = SocketAddr::from(([127, 0, 0, 1], endpoint.port_u16().unwrap()));
        let way = Way { target, authorization: format!("Bearer {token}").parse().unwrap() };
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let routes = Router::new().fallback(pass).with_state(way);
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url: format!("http://localhost:{port}{}", endpoint.path()), task }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection of its own for each request: the gateway then chooses a backend anew, whatever it balances by.
async fn pass(State(way): State<Way>, mut request: Request) -> Response {
    request.headers_mut().insert(AUTHORIZATION, way.authorization);
    match send(way.target, request).await {
        Ok(response) => response,
        Err(error) => {
            eprintln!("the proxy: {error}");
            StatusCode::BAD_GATEWAY.into_response()
        }
    }
}

async fn send(target: SocketAddr, request: Request) -> Result<Response, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the body of the answer was read, or dropped.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(Body::new))
}
