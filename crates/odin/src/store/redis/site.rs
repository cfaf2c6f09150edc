//! What the nodes of a site say of themselves, so that one that does not fit is found.

use std::time::Duration;

use redis::Script;

use super::super::Result;
use super::{RedisStore, codec};

/// How long the facts are kept after the last node that stored them.
pub const SITE_LIFE: Duration = Duration::from_secs(15);

/// The name of what all nodes must have alike, and what this one has. Two fit that share a line.
pub type Fact = (&'static str, String);

/// What a node has otherwise than those that run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} differs: this node has {own}, the running nodes of the site have {others}. Give all nodes the same; to change \
     it for all, stop them, wait {} s, and start them",
    SITE_LIFE.as_secs()
)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// What the node has; of a key its fingerprint.
    pub own: String,
    /// What the others have.
    pub others: String,
}

impl RedisStore {
    /// Compares this node's facts with those of the site, and stores them for [`SITE_LIFE`] when all fit.
    ///
    /// # Errors
    /// [`super::Unavailable`] when Redis is.
    pub async fn join_site(&self, facts: &[Fact]) -> Result<Option<Difference>> {
        let script = Script::new(include_str!("../lua/site.lua"));
        let reply = self
            .invoke(&script, |invocation| {
                invocation.arg(SITE_LIFE.as_millis().to_string());
                for (name, fact) in facts {
                    invocation.arg(*name).arg(fact);
                }
            })
            .await?;
        let mut reply = codec::items(reply)?.into_iter();
        let (Some(name), Some(others)) = (reply.next(), reply.next()) else { return Ok(None) };
        let (name, others) = (codec::text(name)?, codec::text(others)?);
        let own = facts.iter().find(|(known, _)| *known == name).map(|(_, fact)| shown(fact));
        Ok(Some(Difference { own: own.unwrap_or_default(), others: shown(&others), name }))
    }
}

fn shown(fact: &str) -> String {
    fact.replace('\n', ", ")
}
