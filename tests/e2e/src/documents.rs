//! A small server of one public JSON document, for Keycloak to fetch: a client's metadata, an identity provider's keys.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// A document that is served until this is dropped.
#[derive(Debug)]
pub struct Served {
    /// Its address, at `localhost`.
    pub url: String,
    server: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves what `make` gives for the document's own address.
pub async fn serve(make: impl FnOnce(&str) -> Value) -> Served {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/document.json", listener.local_addr().unwrap().port());
    let document = make(&url).to_string();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=60\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{document}",
                document.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    Served { url, server }
}
