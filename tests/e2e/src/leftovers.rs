//! What the store keeps of calls.

use redis::aio::MultiplexedConnection;
use redis::cmd;

use crate::Stack;

/// A connection to the stack's Redis.
pub async fn connect(stack: &Stack) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis+unix://{}", stack.paths.redis().display())).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// The keys that fit a pattern.
pub async fn keys(redis: &mut MultiplexedConnection, pattern: &str) -> Vec<String> {
    cmd("KEYS").arg(pattern).query_async(redis).await.unwrap()
}

/// Work that somebody has yet to do: what waits in queues, and leases.
pub async fn work(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut left = Vec::new();
    for pattern in ["*:waiting:*", "*:read:*", "*:leases:*"] {
        for key in keys(redis, pattern).await {
            let count: u64 = cmd("ZCARD").arg(&key).query_async(redis).await.unwrap_or_default();
            if count > 0 {
                left.push(format!("{key}: {count}"));
            }
        }
    }
    left
}

/// Keys without an end of their life; the name of the memory has none.
pub async fn eternal(redis: &mut MultiplexedConnection) -> Vec<String> {
    let mut eternal = Vec::new();
    for key in keys(redis, "*").await {
        let life: i64 = cmd("PTTL").arg(&key).query_async(redis).await.unwrap();
        if life == -1 && !key.ends_with(":generation") {
            eternal.push(key);
        }
    }
    eternal
}
