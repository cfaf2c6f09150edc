//! From a call that is handed in to the worker that runs it, in Redis.

use async_trait::async_trait;
use futures::future::try_join_all;
use redis::Value;

use super::BEATS;
use super::ROOT;
use super::RedisStore;
use super::add_fields;
use super::codec;
use super::fresh;
use super::order_key;
use super::record::{Field, Stored};
use super::waiting;
use crate::call::{Enqueue, Gone, Order, Parties, Reach, Registrant, Rerun, Snapshot, State, Whose};
use crate::id::CallId;
use crate::store::{
    Arrived, Beat, Beaten, Claimed, Entry, Queue, Registered, Result, Room, Taken, Unavailable,
};

#[async_trait]
impl Queue for RedisStore {
    async fn enqueue(&self, call: CallId, order: Order) -> Result<Enqueue> {
        let key = order_key(&order);
        let retry = order.retry.as_ref();
        let parties = order.parties();
        let reach = at_node(&order);
        let fields = of_new(&order, &reach, &parties, key.as_deref());
        let mut invocation = self.scripts.enqueue.key(ROOT);
        invocation.arg(call.to_string()).arg(&order.server).arg(key.as_deref().unwrap_or_default());
        invocation.arg(retry.map_or("", |retry| &retry.name));
        invocation.arg(retry.map_or("", |retry| &retry.fingerprint));
        invocation.arg(&parties.principal).arg(&parties.organisation);
        add_fields(&mut invocation, &fields);
        let Some(reply) = self.link.invoke_once(&invocation).await? else { return Ok(Enqueue::Unanswered) };
        if let Value::Array(_) = reply {
            let [call, same] = codec::fixed(reply)?;
            return Ok(Enqueue::Known { call: codec::number(call)?, same: codec::number::<u8>(same)? == 1 });
        }
        match codec::text(reply)?.as_str() {
            "accepted" => Ok(Enqueue::Accepted),
            "full" => Ok(Enqueue::Full),
            "principal" => Ok(Enqueue::TooMany(Whose::Principal)),
            "organisation" => Ok(Enqueue::TooMany(Whose::Organisation)),
            "cancelled" => Ok(Enqueue::Cancelled),
            reply => Err(Unavailable(format!("unexpected reply {reply}"))),
        }
    }

    async fn next(&self, server: &str, _worker: &str, room: &Room) -> Result<Vec<Entry>> {
        let reply = self
            .invoke(&self.scripts.next, |invocation| {
                invocation.arg(server).arg(room.most).arg(room.organisation).arg(room.principal);
                for (name, taken) in waiting::named(room, room.most) {
                    invocation.arg(name).arg(*taken);
                }
            })
            .await?;
        codec::items(reply)?.into_iter().map(waiting::entry).collect()
    }

    async fn arrival(&self, server: &str, worker: &str) -> Result<Option<Arrived>> {
        self.waiting(server, worker).line().await
    }

    async fn pass_on(&self, server: &str, line: &Arrived) -> Result<()> {
        let Some(words) = waiting::passed_on(line) else { return Ok(()) };
        self.invoke(&self.scripts.pass_on, |invocation| {
            invocation.arg(server).arg(&words);
        })
        .await
        .map(drop)
    }

    async fn take(
        &self,
        server: &str,
        worker: &str,
        entry: &Entry,
        attempt: &str,
        rerun: Rerun,
    ) -> Result<Option<Taken>> {
        let args = [server, worker, &entry.receipt, attempt, rerun.word(), &fresh()];
        let reply = self.call(&self.scripts.take, entry.call, &args).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let [generation, snapshot] = codec::fixed(reply)?;
        Ok(Some(Taken { snapshot: codec::snapshot(snapshot)?, generation: codec::text(generation)? }))
    }

    async fn register(
        &self,
        call: CallId,
        order: &Order,
        worker: &str,
        by: Registrant,
    ) -> Result<std::result::Result<Registered, Gone>> {
        let key = order_key(order);
        let (parties, reach) = (order.parties(), at_node(order));
        let fields = of_new(order, &reach, &parties, key.as_deref());
        let reply = self
            .invoke(&self.scripts.register, |invocation| {
                invocation.arg(call.to_string()).arg(worker).arg(by.rerun().map_or("", Rerun::word));
                invocation.arg(fresh()).arg(key.as_deref().unwrap_or_default());
                add_fields(invocation, &fields);
            })
            .await?;
        codec::registered(reply)
    }

    async fn beat(&self, worker: &str, beats: &[Beat]) -> Result<Beaten> {
        // Without a call as well: the memory may be lost all the same.
        let first = beats.chunks(BEATS).next().unwrap_or_default();
        let rest = beats.get(first.len()..).unwrap_or_default().chunks(BEATS);
        let replies = [first].into_iter().chain(rest).map(|some| self.beat_some(worker, some));
        let mut beaten = Beaten { views: Vec::with_capacity(beats.len()), generation: String::new(), now: 0 };
        for some in try_join_all(replies).await? {
            beaten.views.extend(some.views);
            (beaten.generation, beaten.now) = (some.generation, some.now);
        }
        Ok(beaten)
    }

    async fn claim(&self, server: &str, worker: &str, most: usize, by: u64) -> Result<Vec<Claimed>> {
        let reply = self
            .invoke(&self.scripts.claim, |invocation| {
                invocation.arg(server).arg(worker).arg(most).arg(by);
            })
            .await?;
        let mut claimed = Vec::new();
        for item in codec::items(reply)? {
            match codec::claimed(item) {
                Ok(item) => claimed.push(item),
                // It must not stand in the way of the others.
                Err(error) => tracing::warn!(server, %error, "a record that can't be read"),
            }
        }
        Ok(claimed)
    }

    async fn restore(
        &self,
        call: CallId,
        worker: &str,
        snapshot: Snapshot,
    ) -> Result<std::result::Result<State, Gone>> {
        let key = order_key(&snapshot.order);
        let parties = snapshot.order.parties();
        let mut fields = snapshot.fields();
        fields.extend(counted(&parties));
        fields.extend(key.as_deref().map(|key| ("ids", key.into())));
        let reply = self
            .invoke(&self.scripts.restore, |invocation| {
                invocation.arg(call.to_string()).arg(worker).arg(snapshot.epoch).arg(fields.len() * 2);
                add_fields(invocation, &fields);
                for event in &snapshot.log {
                    invocation.arg(&**event);
                }
            })
            .await?;
        codec::view(reply)
    }
}

/// The fields that say whom a call counts for.
fn counted(parties: &Parties) -> [Field<'_>; 2] {
    [("by", parties.principal.as_str().into()), ("of", parties.organisation.as_str().into())]
}

/// Where the client of a new call is; the script says since when.
fn at_node(order: &Order) -> Reach {
    Reach::Node { node: order.node.clone(), request: order.request, asked: 0 }
}

/// The fields that a new record begins with. `ids` names what a cancellation finds it by.
fn of_new<'a>(
    order: &'a Order,
    reach: &'a Reach,
    parties: &'a Parties,
    ids: Option<&'a str>,
) -> Vec<Field<'a>> {
    let mut fields = order.fields();
    reach.write("reach", &mut fields);
    fields.extend(counted(parties));
    fields.extend(ids.map(|ids| ("ids", ids.into())));
    fields
}
