//! A gateway and its upstream in one: what most tests start from.

use crate::client::GatewayClient;
use crate::config::{Config, Pool};
use crate::gateway::{GatewayBuilder, GatewayProcess};
use crate::upstream::{Script, Upstream};
use serde_json::json;
use std::path::PathBuf;
use toml::Value;

pub(crate) const ADMIN_KEY: &str = "adm_test-only-0123456789abcdef0123456789abcdef";

/// What to start.
#[derive(Debug)]
pub struct TestAppBuilder {
    binary: PathBuf,
    script: Script,
    settings: Vec<(String, Value)>,
    pools: Vec<PoolChange>,
    env: Vec<(String, String)>,
    lean: bool,
}

type Change = Box<dyn FnOnce(Pool) -> Pool>;

struct PoolChange {
    model: String,
    change: Change,
}

impl std::fmt::Debug for PoolChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolChange").field("model", &self.model).finish_non_exhaustive()
    }
}

/// A gateway in front of a scripted upstream, with a key and a client.
#[derive(Debug)]
pub struct TestApp {
    /// The upstream of every pool.
    pub upstream: Upstream,
    /// The gateway.
    pub gateway: GatewayProcess,
    /// A client with a key of priority ceiling 0 and no limits of its own.
    pub client: GatewayClient,
    _dir: tempfile::TempDir,
}

impl TestApp {
    /// Starts from one node in front of a scripted upstream; `binary` is `env!("CARGO_BIN_EXE_gatewayd")`.
    pub fn builder(binary: impl Into<PathBuf>) -> TestAppBuilder {
        TestAppBuilder {
            binary: binary.into(),
            script: Script::default(),
            settings: Vec::new(),
            pools: Vec::new(),
            env: Vec::new(),
            lean: false,
        }
    }

    /// Starts the gateway again on its data, and points the client to its new port.
    ///
    /// # Errors
    /// As [`GatewayProcess::restart`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.gateway.restart().await?;
        self.client = GatewayClient::new(&self.gateway.base_url(), self.client.key(), ADMIN_KEY);
        Ok(())
    }
}

impl TestAppBuilder {
    /// Adds a pool of the upstream, with limits as `change` sets them.
    #[must_use]
    pub fn pool(mut self, model: &str, change: impl FnOnce(Pool) -> Pool + 'static) -> Self {
        self.pools.push(PoolChange { model: model.to_owned(), change: Box::new(change) });
        self
    }

    /// Sets any key of the configuration by its dotted path.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.settings.push((path.to_owned(), value.into()));
        self
    }

    /// Sets what the upstream does at first.
    #[must_use]
    pub fn script(mut self, script: impl Into<Script>) -> Self {
        self.script = script.into();
        self
    }

    /// Sets a variable of the gateway's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets the upstream keep counts only.
    #[must_use]
    pub fn lean(mut self) -> Self {
        self.lean = true;
        self
    }

    /// Starts both and makes a key.
    ///
    /// # Errors
    /// When the upstream or the gateway cannot be started, or no key be made.
    pub async fn start(self) -> anyhow::Result<TestApp> {
        let dir = tempfile::tempdir()?;
        let data = dir.path().join("data");
        let options = crate::upstream::Options { listen: None, lean: self.lean, script: self.script };
        let upstream = Upstream::start_with(options).await?;
        let mut config = Config::one_node(&data, ADMIN_KEY);
        for PoolChange { model, change } in self.pools {
            config = config.pool(change(Pool::new(&model, &upstream.base_url())));
        }
        for (path, value) in self.settings {
            config = config.set(&path, value);
        }
        let builder = GatewayBuilder::serve(self.binary, data, config);
        let builder = self.env.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        let gateway = builder.start().await?;
        let admin = GatewayClient::new(&gateway.base_url(), "", ADMIN_KEY);
        let key = admin.create_key(&json!({"name": "test", "priority_ceiling": 0})).await?;
        Ok(TestApp { client: admin.with_key(&key), upstream, gateway, _dir: dir })
    }
}
