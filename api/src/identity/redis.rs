//! Redis, a cache of keys in force between the nodes and the database. What it holds is never the last word on a key
//! that it lacks, and losing it costs nothing but time.
//!
//! Shape: `tokligence:key:HASH` (SHA-256 in hexadecimal) holds a record, for a jittered time to live.

use super::record::Record;
use super::secret::KeyHash;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use std::fmt;
use std::time::Duration;
use tokio::sync::Mutex;

const CONNECT_MAX: Duration = Duration::from_secs(1);

/// A Redis server.
pub(super) struct Redis {
    client: Client,
    /// None until it is connected; a probe connects it.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// Names a server, without asking it anything.
    ///
    /// # Errors
    /// When the URL is none.
    pub(super) fn new(url: &str) -> RedisResult<Self> {
        Ok(Self { client: Client::open(url)?, connection: Mutex::default() })
    }

    /// Sees that it answers, and connects anew when it does not.
    pub(super) async fn probe(&self) -> RedisResult<()> {
        let present = self.connection.lock().await.clone();
        if let Some(mut connection) = present
            && let Ok(()) = redis::cmd("PING").query_async::<()>(&mut connection).await
        {
            return Ok(());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(CONNECT_MAX));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("PING").query_async::<()>(&mut connection).await?;
        *self.connection.lock().await = Some(connection);
        Ok(())
    }

    pub(super) async fn get(&self, hash: &KeyHash) -> RedisResult<Option<Record>> {
        let mut connection = self.connected().await?;
        let bytes: Option<Vec<u8>> = redis::cmd("GET").arg(name(hash)).query_async(&mut connection).await?;
        Ok(bytes.and_then(|bytes| Record::decode(hash, &bytes)))
    }

    pub(super) async fn put(&self, hash: &KeyHash, record: &Record, keep: Duration) -> RedisResult<()> {
        let mut connection = self.connected().await?;
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = redis::cmd("SET");
        set.arg(name(hash)).arg(record.encode(hash)).arg("PX").arg(keep_ms);
        set.query_async(&mut connection).await
    }

    pub(super) async fn forget(&self, hash: &KeyHash) -> RedisResult<()> {
        let mut connection = self.connected().await?;
        redis::cmd("DEL").arg(name(hash)).query_async(&mut connection).await
    }

    async fn connected(&self) -> RedisResult<MultiplexedConnection> {
        let connection = self.connection.lock().await.clone();
        connection.ok_or_else(|| RedisError::from((redis::ErrorKind::Io, "not connected")))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.write_str("Redis(..)")
    }
}

fn name(hash: &KeyHash) -> String {
    format!("tokligence:key:{}", hex::encode(hash.0))
}
