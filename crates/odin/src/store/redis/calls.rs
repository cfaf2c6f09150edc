//! What becomes of calls: the side of their clients, in Redis.

use async_trait::async_trait;

use super::ROOT;
use super::RedisStore;
use super::codec;
use super::record;
use super::request_key;
use super::unanswered;
use crate::call::{Join, Message, Offer, Read, Resume, Withdraw};
use crate::id::{CallId, Ticket};
use crate::store::{Calls, Held, Result};

#[async_trait]
impl Calls for RedisStore {
    async fn offer(
        &self,
        call: CallId,
        node: &str,
        request: u64,
        ticket: Ticket,
        may_hold: bool,
    ) -> Result<Offer> {
        let args = [node, &request.to_string(), &ticket.to_string(), record::digit(may_hold)];
        codec::offer(self.call(&self.scripts.offer, call, &args).await?)
    }

    async fn withdraw(&self, call: CallId, node: &str, request: u64) -> Result<Withdraw> {
        let args = [node, &request.to_string()];
        codec::withdraw(self.call(&self.scripts.withdraw, call, &args).await?)
    }

    async fn hold(&self, ticket: Ticket, assertion: &str) -> Result<Option<Held>> {
        let reply = self
            .invoke(&self.scripts.hold, |invocation| {
                invocation.arg(ticket.to_string()).arg(assertion);
            })
            .await?;
        codec::held(reply)
    }

    async fn read(&self, call: CallId, node: &str, request: u64, from: u32) -> Result<Read> {
        let args = [node, &request.to_string(), &from.to_string()];
        codec::read(self.call(&self.scripts.read, call, &args).await?)
    }

    async fn abandon(&self, call: CallId, node: &str, request: u64) -> Result<()> {
        self.call(&self.scripts.abandon, call, &[node, &request.to_string()]).await.map(drop)
    }

    async fn resume(
        &self,
        call: CallId,
        session: &str,
        last: u32,
        at: Option<(&str, u64)>,
    ) -> Result<Resume> {
        let last = last.to_string();
        let reply = match at {
            Some((node, request)) => {
                let args = [session, &last, node, &request.to_string()];
                self.call(&self.scripts.resume, call, &args).await?
            }
            None => self.call(&self.scripts.resume, call, &[session, &last]).await?,
        };
        codec::resume(reply)
    }

    async fn join(&self, call: CallId, name: &str, node: &str, request: u64) -> Result<Join> {
        let args = [name, node, &request.to_string()];
        codec::join(self.call(&self.scripts.join, call, &args).await?)
    }

    async fn cancel(&self, session: &str, request_id: &str) -> Result<()> {
        self.invoke(&self.scripts.cancel, |invocation| {
            invocation.arg(request_key(session, request_id));
        })
        .await
        .map(drop)
    }

    async fn post(&self, call: CallId, session: &str, message: Message) -> Result<bool> {
        let mut invocation = self.scripts.post.key(ROOT);
        invocation.arg(call.to_string()).arg(session).arg(&*message);
        match self.link.invoke_once(&invocation).await? {
            Some(reply) => Ok(codec::number::<u8>(reply)? == 1),
            None => Err(unanswered()),
        }
    }
}
