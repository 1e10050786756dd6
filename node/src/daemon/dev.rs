//! `gatewayd dev`: one node on loopback, with keys of its own making, so that the first request takes one command.
//!
//! It differs from `serve` only in its configuration and in what it prints: the node is the same.

use super::data_dir::{DataDir, write_private};
use super::{Plan, one, sentences};
use crate::config::{self, Config, DEV_FILE, Sources};
use anyhow::Context;
use api::config::{Dialect, Secret};
use api::identity::{Actor, Identity, KeyRef, LookupError, NewKey, StoreError};
use clap::Args;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The name of the API key that dev mode makes.
const KEY_NAME: &str = "dev";

/// What `gatewayd dev` can be told.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Where everything is kept [default: data/dev].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen, on loopback; port 0 takes any free one [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A configuration file, or a directory that holds dev/gateway.toml [default: config].
    #[arg(long, value_name = "DIR_OR_FILE")]
    config: Option<PathBuf>,
}

impl DevArgs {
    /// Reads the configuration, locks the data directory and sees to the admin key.
    pub(super) fn plan(self) -> Result<Plan, Vec<String>> {
        let mut data = None;
        let loaded = config::load_with(&self.sources()?, |config| {
            data = Some(DataDir::open(&config.raft.node.data_dir).and_then(|data| admin_key(config, data)));
            if config.api.identity.admin_key.is_empty() {
                // The directory's own problem is told below, without this one on top.
                config.api.identity.admin_key = Secret::new("unavailable");
            }
            Ok(())
        });
        let config = loaded.map_err(sentences)?.config;
        let data = data.expect("load_with prepares every configuration").map_err(one)?;
        for (key, listen) in [("http.listen", &config.api.http.listen), ("peer.listen", &config.raft.peer.listen)] {
            if !listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback()) {
                return Err(vec![format!("{key}: dev mode listens on loopback only, not on {listen}")]);
            }
        }
        Ok(Plan { config, data, dev: true })
    }

    fn sources(&self) -> Result<Sources, Vec<String>> {
        let file = match config::find_file(self.config.as_deref(), "dev") {
            Ok(file) => file,
            Err(fault) if self.config.is_some() => return Err(vec![fault.to_string()]),
            Err(_) => (PathBuf::from("built-in dev file"), DEV_FILE.to_owned()),
        };
        let mut flags = Vec::new();
        if let Some(dir) = &self.data_dir {
            let dir = dir.to_str().ok_or_else(|| vec!["--data-dir: is not UTF-8 text".to_owned()])?;
            flags.push(("--data-dir", "node.data_dir", dir.to_owned()));
        }
        if let Some(listen) = self.listen {
            flags.push(("--listen", "http.listen", listen.to_string()));
        }
        Ok(Sources { file: Some(file), environment: std::env::vars_os().collect(), flags })
    }
}

/// Makes the admin key at the first start; a configured one is left alone.
fn admin_key(config: &mut Config, data: DataDir) -> anyhow::Result<DataDir> {
    if config.api.identity.admin_key.is_empty() {
        let path = data.path().join("admin-key");
        if !path.exists() {
            let random = api::identity::Secret::generate().context("the system has no randomness to give")?;
            write_private(&path, &format!("{}\n", random.expose().replacen("tok_", "adm_", 1)))?;
        }
        config.api.identity.admin_key = Secret::new(format!("file:{}", path.display()));
    }
    Ok(data)
}

/// The API key of dev mode: the one in `<data-dir>/key`, or a new one when that one is gone, unknown or revoked.
///
/// # Errors
/// When the key store or the file system does not answer.
pub(super) async fn key(identity: &Identity, data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("key");
    if let Ok(text) = std::fs::read_to_string(&path) {
        match identity.lookup(text.trim()).await {
            Ok(_) => return Ok(text.trim().to_owned()),
            Err(LookupError::StoresDown) => anyhow::bail!("the key store does not answer"),
            Err(LookupError::Unknown | LookupError::Revoked | LookupError::Expired) => {}
        }
    }
    // A key of that name whose secret nobody has any more is of no use, and in the way.
    match identity.revoke_key(&KeyRef::Name(KEY_NAME.to_owned()), &Actor::node()).await {
        Ok(_) | Err(StoreError::NotFound(_)) => {}
        Err(error) => return Err(error).context("the old dev key cannot be revoked"),
    }
    let (_, secret) = identity
        .create_key(&NewKey::named(KEY_NAME), None, &Actor::node())
        .await
        .context("the dev key cannot be made")?;
    write_private(&path, &format!("{}\n", secret.expose()))?;
    Ok(secret.expose().to_owned())
}

/// What dev mode prints once it serves.
#[derive(Debug)]
pub(super) struct Banner {
    model: Option<String>,
}

impl Banner {
    /// Chooses the model of the examples: a built-in one if there is one.
    pub(super) fn of(config: &Config) -> Self {
        let named = || config.api.pools().filter(|(label, _)| !label.contains('*'));
        let built_in = named().find(|(_, pool)| pool.dialect == Dialect::Loopback);
        Self { model: built_in.or_else(|| named().next()).map(|(label, _)| label.to_owned()) }
    }

    /// Prints the address, the key, and two lines to paste.
    pub(super) fn print(&self, address: SocketAddr, key: &str, data_dir: &Path) {
        // Nobody reading is no reason to stop.
        let _ = std::io::stdout().write_all(self.text(address, key, data_dir).as_bytes());
    }

    fn text(&self, address: SocketAddr, key: &str, data_dir: &Path) -> String {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let url = format!("http://{host}:{}", address.port());
        let dir = data_dir.display();
        let mut text = format!(
            "Tokligence Gateway {}, one node in dev mode\n\n  URL        {url}/v1\n  key        {key}\n  \
             admin key  in {dir}/admin-key\n",
            env!("CARGO_PKG_VERSION")
        );
        let Some(model) = &self.model else { return text };
        for (title, flag, stream) in [("Paste to try it", "", ""), ("the same, streamed", " -N", r#","stream":true"#)] {
            let _ = write!(
                text,
                "\n{title}:\n\ncurl{flag} {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \
                 -H 'Content-Type: application/json' \
                 -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]{stream}}}'\n"
            );
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_dev_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("identity.db").display());
        let first = key(&Identity::open(&url).await.unwrap(), dir.path()).await.unwrap();
        assert!(first.starts_with("tok_"));
        assert_eq!(key(&Identity::open(&url).await.unwrap(), dir.path()).await.unwrap(), first);
    }

    #[tokio::test]
    async fn a_lost_dev_key_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&format!("sqlite:{}", dir.path().join("identity.db").display())).await.unwrap();
        let first = key(&identity, dir.path()).await.unwrap();
        std::fs::remove_file(dir.path().join("key")).unwrap();
        let second = key(&identity, dir.path()).await.unwrap();
        assert_ne!(first, second);
        assert_eq!(identity.lookup(&first).await.unwrap_err(), LookupError::Revoked);
        assert!(identity.lookup(&second).await.is_ok());
    }

    #[test]
    fn the_banner_shows_two_lines_to_paste() {
        let banner = Banner { model: Some("loopback".into()) };
        let text = banner.text("127.0.0.1:8081".parse().unwrap(), "tok_x", Path::new("data/dev"));
        assert_eq!(text.lines().filter(|line| line.starts_with("curl")).count(), 2);
        assert!(
            text.contains(r#"-d '{"model":"loopback","messages":[{"role":"user","content":"hello"}],"stream":true}'"#)
        );
    }
}
