//! The bus by publish/subscribe: one connection for all followers of this process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use redis::Client;
use redis::aio::{PubSubSink, PubSubStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::Cast;
use super::super::followers::Followers;
use super::super::{Result, Unavailable};
use super::link::CONNECT;

/// Followers that wait to be subscribed.
const WAITING: usize = 1024;
/// Followers that are subscribed in one round trip.
const AT_ONCE: usize = 256;
/// How often topics that nobody follows any more are left.
const SWEEP: Duration = Duration::from_secs(1);
/// How often the connection is asked whether it still lives, and how long Redis may take to answer.
const PING: Duration = Duration::from_secs(2);
const PONG: Duration = Duration::from_secs(1);

/// The name of a topic's channel.
pub(super) fn channel(topic: &str) -> String {
    format!("{PREFIX}{topic}")
}

const PREFIX: &str = "asgard:bus:";

/// The following end of the bus. Its connection opens with the first follower and stays.
pub(super) struct Subscriber {
    client: Client,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
}

struct Request {
    topics: Vec<String>,
    reply: oneshot::Sender<Result<mpsc::Receiver<Cast>>>,
}

impl Subscriber {
    pub(super) fn new(client: Client) -> Self {
        Self { client, requests: Mutex::default() }
    }

    /// Follows topics: what is cast after this has returned arrives, or the receiver ends.
    pub(super) async fn follow(&self, topics: &[String]) -> Result<mpsc::Receiver<Cast>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { topics: topics.to_vec(), reply };
        let stopped = || Unavailable("the bus has stopped".to_owned());
        self.sender().send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// The way to the task; the first caller starts it, and whoever finds that its runtime has ended.
    fn sender(&self) -> mpsc::Sender<Request> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match &*requests {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(WAITING);
                tokio::spawn(run(self.client.clone(), receiver));
                requests.insert(sender).clone()
            }
        }
    }
}

/// Serves requests until the store is dropped. Each connection begins with the first request after the loss
/// of the one before it: without followers nothing is needed.
async fn run(client: Client, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        let connected = match timeout(CONNECT, client.get_async_pubsub()).await {
            Ok(Ok(connection)) => Ok(connection.split()),
            Ok(Err(error)) => Err(Unavailable(error.to_string())),
            Err(_) => Err(Unavailable("Redis does not answer".to_owned())),
        };
        match connected {
            Ok((sink, stream)) => {
                let mut connection = Connection { sink, followers: Arc::default() };
                if let Err(error) = connection.serve(stream, request, &mut requests).await {
                    tracing::warn!(%error, "the bus lost Redis; what follows it ends");
                }
                connection.followers().clear();
            }
            Err(error) => {
                // Who else waits would only wait as long for the same.
                let mut waiting = vec![request];
                while let Ok(request) = requests.try_recv() {
                    waiting.push(request);
                }
                for request in waiting {
                    let _ = request.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

struct Connection {
    sink: PubSubSink,
    followers: Arc<Mutex<Followers>>,
}

impl Connection {
    fn followers(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends with an error when the connection is lost, and without when the store is dropped.
    async fn serve(
        &mut self,
        mut stream: PubSubStream,
        first: Request,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<()> {
        // Casts are passed on beside the commands, so that neither waits for the other.
        let followers = self.followers.clone();
        let passing = async move {
            while let Some(message) = stream.next().await {
                let name = message.get_channel_name();
                let topic = name.strip_prefix(PREFIX).unwrap_or(name);
                let Ok(text) = std::str::from_utf8(message.get_payload_bytes()) else { continue };
                followers.lock().unwrap_or_else(PoisonError::into_inner).pass(topic, &text.into());
            }
        };
        tokio::select! {
            () = passing => Err(Unavailable("the connection ended".to_owned())),
            ended = self.obey(first, requests) => ended,
        }
    }

    async fn obey(&mut self, first: Request, requests: &mut mpsc::Receiver<Request>) -> Result<()> {
        let mut subscribed = HashSet::new();
        self.subscribe(vec![first], &mut subscribed).await?;
        let mut sweep = tokio::time::interval(SWEEP);
        let mut ping = tokio::time::interval(PING);
        let mut waiting = Vec::new();
        loop {
            tokio::select! {
                count = requests.recv_many(&mut waiting, AT_ONCE) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.subscribe(std::mem::take(&mut waiting), &mut subscribed).await?;
                }
                _ = sweep.tick() => self.sweep(&mut subscribed).await?,
                _ = ping.tick() => {
                    answered(timeout(PONG, self.sink.ping::<redis::Value>()).await)?;
                }
            }
        }
    }

    async fn subscribe(&mut self, requests: Vec<Request>, subscribed: &mut HashSet<String>) -> Result<()> {
        let mut new = HashSet::new();
        let mut followed = Vec::with_capacity(requests.len());
        {
            let mut followers = self.followers();
            for Request { topics, reply } in requests {
                for topic in &topics {
                    if !subscribed.contains(topic) {
                        new.insert(topic.clone());
                    }
                }
                followed.push((followers.add(&topics), reply));
            }
        }
        if !new.is_empty() {
            let channels: Vec<String> = new.iter().map(|topic| channel(topic)).collect();
            let outcome = answered(timeout(PONG, self.sink.subscribe(&channels)).await);
            if let Err(error) = outcome {
                for (_, reply) in followed {
                    let _ = reply.send(Err(error.clone()));
                }
                return Err(error);
            }
            subscribed.extend(new);
        }
        for (receiver, reply) in followed {
            let _ = reply.send(Ok(receiver));
        }
        Ok(())
    }

    /// Leaves the topics that nobody follows any more.
    async fn sweep(&mut self, subscribed: &mut HashSet<String>) -> Result<()> {
        let mut left = Vec::new();
        {
            let mut followers = self.followers();
            followers.sweep();
            subscribed.retain(|topic| {
                let kept = followers.has(topic);
                if !kept {
                    left.push(channel(topic));
                }
                kept
            });
        }
        if left.is_empty() {
            return Ok(());
        }
        answered(timeout(PONG, self.sink.unsubscribe(&left)).await)
    }
}

fn answered<T>(reply: std::result::Result<redis::RedisResult<T>, tokio::time::error::Elapsed>) -> Result<T> {
    match reply {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(Unavailable(error.to_string())),
        Err(_) => Err(Unavailable("Redis does not answer".to_owned())),
    }
}
