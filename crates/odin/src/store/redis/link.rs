//! A connection that comes back by itself.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, RedisResult, ScriptInvocation, Value,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::{Result, Unavailable};

/// How long a connection may take to come up.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Commands that wait to be written; more make their senders wait.
const COMMANDS: usize = 1024;
/// After a failed attempt to connect, everybody is told so at once for this time.
const PAUSE: Duration = Duration::from_millis(100);

/// One connection, shared by concurrent commands; opened by the first of them, and again after it broke.
///
/// The crate's own `ConnectionManager` gives up for good when a new connection is refused by other than an
/// I/O error (a server that is still loading its data, for one), and keeps a connection that only times out.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Number of the connection.
    serial: u64,
    failed: Option<(Instant, Unavailable)>,
}

impl Link {
    /// `patience`: how long an answer may take.
    pub(super) fn new(client: Client, patience: Duration) -> Self {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_pipeline_buffer_size(COMMANDS)
            .set_response_timeout(Some(patience));
        Self { client, config, state: Mutex::default() }
    }

    /// Runs a script that must not run twice: it is sent once. None: it was sent, and nobody knows whether it ran.
    pub(super) async fn invoke_once(&self, script: &ScriptInvocation<'_>) -> Result<Option<Value>> {
        let (mut connection, serial) = self.connection().await?;
        let reply = script.invoke_async(&mut connection).await;
        once(self.check(serial, reply).await)
    }

    /// Runs a command that must not run twice.
    pub(super) async fn command_once(&self, command: &Cmd) -> Result<Option<Value>> {
        let (mut connection, serial) = self.connection().await?;
        let reply = command.query_async(&mut connection).await;
        once(self.check(serial, reply).await)
    }

    /// Runs a script; loads it first where the server does not know it. Sent again when the connection broke before
    /// the reply came.
    pub(super) async fn invoke(&self, script: &ScriptInvocation<'_>) -> Result<Value> {
        let (mut connection, serial) = self.connection().await?;
        let reply = script.invoke_async(&mut connection).await;
        match self.check(serial, reply).await {
            Err(error) if error.is_connection_dropped() => {
                let (mut connection, serial) = self.connection().await?;
                let reply = script.invoke_async(&mut connection).await;
                self.check(serial, reply).await.map_err(unavailable)
            }
            reply => reply.map_err(unavailable),
        }
    }

    /// Runs a command. Sent again when the connection broke before the reply came.
    pub(super) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let connect = async || {
            let error = |error: Unavailable| RedisError::from(std::io::Error::other(error.0));
            self.connection().await.map_err(error)
        };
        let (mut connection, serial) = connect().await?;
        let reply = command.query_async(&mut connection).await;
        match self.check(serial, reply).await {
            Err(error) if error.is_connection_dropped() => {
                let (mut connection, serial) = connect().await?;
                let reply = command.query_async(&mut connection).await;
                self.check(serial, reply).await
            }
            reply => reply,
        }
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64)> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.serial));
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        match self.client.get_multiplexed_async_connection_with_config(&self.config).await {
            Ok(connection) => {
                state.failed = None;
                state.serial += 1;
                state.connection = Some(connection.clone());
                Ok((connection, state.serial))
            }
            Err(error) => {
                let error = unavailable(error);
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Drops the connection if the reply says that it is of no more use.
    async fn check<T>(&self, serial: u64, reply: RedisResult<T>) -> RedisResult<T> {
        if let Err(error) = &reply
            && (error.is_io_error() || error.is_unrecoverable_error())
        {
            let mut state = self.state.lock().await;
            if state.serial == serial {
                state.connection = None;
            }
        }
        reply
    }
}

/// What is known after a command was sent once. A server's own error says that it did nothing.
fn once(reply: RedisResult<Value>) -> Result<Option<Value>> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Server(_)) => Err(unavailable(error)),
        Err(_) => Ok(None),
    }
}

pub(super) fn unavailable(error: RedisError) -> Unavailable {
    Unavailable(error.to_string())
}
