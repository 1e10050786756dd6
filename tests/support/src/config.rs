//! Writes a node's configuration file, with the keys that users write.

use std::path::Path;
use toml::{Table, Value};

/// A node's configuration in the making.
#[derive(Clone, Debug)]
pub struct Config {
    table: Table,
}

impl Config {
    /// A group of one on loopback: sled and SQLite in `data_dir`, free ports, the given admin key, no pools.
    pub fn one_node(data_dir: &Path, admin_key: &str) -> Self {
        let config = Self { table: Table::new() };
        let dir = data_dir.display();
        config
            .set("node.id", 1)
            .set("node.data_dir", dir.to_string())
            .set("http.listen", "127.0.0.1:0")
            .set("peer.listen", "127.0.0.1:0")
            .set("peer.tls", "off")
            .set("identity.database_url", format!("sqlite:{dir}/identity.db"))
            .set("identity.redis_url", "")
            .set("identity.admin_key", admin_key)
    }

    /// Sets a key by its dotted path, for example `scheduling.queue_timeout_ms`.
    ///
    /// # Panics
    /// When the path leads through a value that is no table.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let mut parts: Vec<&str> = path.split('.').collect();
        let last = parts.pop().expect("a path has a last part");
        let mut table = &mut self.table;
        for part in parts {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("the path leads through tables");
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// Adds a pool.
    ///
    /// # Panics
    /// When `provider.local` was set to something that is no table.
    #[must_use]
    pub fn pool(self, pool: Pool) -> Self {
        let mut config = self.set("provider.local.enabled", true);
        let local = config.table.get_mut("provider").and_then(|p| p.get_mut("local")).and_then(Value::as_table_mut);
        local.expect("provider.local is a table").insert(pool.name, Value::Table(pool.table));
        config
    }

    /// Adds an alias of a model.
    ///
    /// # Panics
    /// When `aliases` was set to something that is no table.
    #[must_use]
    pub fn alias(mut self, name: &str, model: &str) -> Self {
        let entry = self.table.entry("aliases").or_insert_with(|| Value::Table(Table::new()));
        entry.as_table_mut().expect("aliases is a table").insert(name.to_owned(), Value::from(model));
        self
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        self.table.to_string()
    }

    /// A value by its dotted path.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.table.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }
}

/// One pool: `[provider.local."NAME"]`. A limit that is not set is unlimited.
#[derive(Clone, Debug)]
pub struct Pool {
    name: String,
    table: Table,
}

impl Pool {
    /// A pool of one OpenAI-compatible target, its tokens counted one per byte.
    pub fn new(name: &str, base_url: &str) -> Self {
        let pool = Self { name: name.to_owned(), table: Table::new() };
        pool.set("dialect", "openai").set("base_url", base_url).set("api_key", "upstream-key").set("tokenizer", "bytes")
    }

    /// Sets any key of the pool.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.table.insert(key.to_owned(), value.into());
        self
    }

    /// `max_tokens_per_sec`.
    #[must_use]
    pub fn tokens_per_sec(self, tokens: u32) -> Self {
        self.set("max_tokens_per_sec", i64::from(tokens))
    }

    /// `burst_tokens`.
    #[must_use]
    pub fn burst_tokens(self, tokens: u32) -> Self {
        self.set("burst_tokens", i64::from(tokens))
    }

    /// `max_rps`.
    #[must_use]
    pub fn rps(self, requests: u32) -> Self {
        self.set("max_rps", i64::from(requests))
    }

    /// `burst_requests`.
    #[must_use]
    pub fn burst_requests(self, requests: u32) -> Self {
        self.set("burst_requests", i64::from(requests))
    }

    /// `max_concurrent`.
    #[must_use]
    pub fn concurrent(self, requests: u32) -> Self {
        self.set("max_concurrent", i64::from(requests))
    }

    /// `max_context_length`.
    #[must_use]
    pub fn context(self, tokens: u32) -> Self {
        self.set("max_context_length", i64::from(tokens))
    }

    /// `default_max_tokens`.
    #[must_use]
    pub fn default_max_tokens(self, tokens: u32) -> Self {
        self.set("default_max_tokens", i64::from(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back_as_it_was_set() {
        let config = Config::one_node(Path::new("d"), "k")
            .set("scheduling.queue_timeout_ms", 500)
            .pool(Pool::new("gpt-4.1", "http://u/v1").tokens_per_sec(1000).concurrent(10))
            .alias("gpt-4o", "gpt-4.1");
        let read: Table = config.to_toml().parse().unwrap();
        assert_eq!(read["scheduling"]["queue_timeout_ms"].as_integer(), Some(500));
        assert_eq!(read["provider"]["local"]["gpt-4.1"]["max_concurrent"].as_integer(), Some(10));
        assert_eq!(read["aliases"]["gpt-4o"].as_str(), Some("gpt-4.1"));
        assert_eq!(config.get("node.id").and_then(Value::as_integer), Some(1));
    }
}
