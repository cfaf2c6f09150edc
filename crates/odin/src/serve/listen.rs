//! Listening.

/// Listens with `TCP_NODELAY` on every connection: without it small answers wait for tens of milliseconds.
///
/// # Errors
/// When the address can't be listened on.
pub async fn listen(address: &str) -> std::io::Result<NoDelay> {
    Ok(NoDelay(tokio::net::TcpListener::bind(address).await?))
}

/// A listener whose connections have `TCP_NODELAY`.
pub struct NoDelay(tokio::net::TcpListener);

impl NoDelay {
    /// Where it listens.
    ///
    /// # Errors
    /// As [`tokio::net::TcpListener::local_addr`].
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.0.local_addr()
    }
}

impl axum::serve::Listener for NoDelay {
    type Io = tokio::net::TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY can't be set");
        }
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
