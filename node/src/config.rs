//! The configuration of a node, from three layers: defaults < `config/<env>/gateway.toml` < the environment, and the
//! few flags of the command line above them.
//!
//! This is the only place that reads configuration. Each crate's struct is plain data; here it is found, merged, checked,
//! and every problem is told at once with the layer that it comes from.

mod layer;
mod schema;

use layer::Setting;
use schema::Schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The documented file that `gatewayd config default` prints.
pub const DEFAULT_FILE: &str = include_str!("../../config/default.toml");

/// The file of dev mode, for when there is none in the working directory.
pub const DEV_FILE: &str = include_str!("../../config/dev/gateway.toml");

/// Everything a node is configured by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The node and its group.
    #[serde(flatten)]
    pub raft: raft::config::Config,
    /// The gateway.
    #[serde(flatten)]
    pub api: api::config::Config,
    /// What is written to standard error.
    pub log: Log,
    /// The marketplace, which this version does not have.
    pub marketplace: Marketplace,
}

/// `[log]`: what is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// One JSON object per line, or lines for people.
    pub format: LogFormat,
    /// What to log, in the syntax of `RUST_LOG`, which beats it.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info,openraft=warn,sqlx=warn".into() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Lines for people.
    Human,
}

/// `[marketplace]`: off; no part of it is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Marketplace {
    /// Must stay off.
    pub enabled: bool,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Nobody set it.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Layer::Default => f.write_str("default"),
            Layer::File(path) => write!(f, "{}", path.display()),
            Layer::Variable(name) => write!(f, "environment variable {name}"),
            Layer::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One thing that is wrong, and in which layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where the value comes from.
    pub layer: Layer,
    /// The key, with its section.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(layer: &Layer, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { layer: layer.clone(), key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.layer {
            Layer::Variable(name) if *name == self.key => write!(f, "{}: {}", self.layer, self.message),
            _ => write!(f, "{}: {}: {}", self.layer, self.key, self.message),
        }
    }
}

/// What a configuration is read from, lowest layer first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file: its path, for messages, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The environment; only names that begin with `TOKLIGENCE_` count.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: the flag's name, the key, the value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// A configuration that is in order.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where each key that somebody set comes from.
    pub origin: BTreeMap<String, Layer>,
}

/// Merges the layers and checks the result.
///
/// # Errors
/// Every problem of every layer.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Fault>> {
    load_with(sources, |_| Ok(()))
}

/// Merges the layers, lets `prepare` complete what no layer says, and checks the result.
///
/// # Errors
/// Every problem of every layer, and that of `prepare`.
pub fn load_with(
    sources: &Sources,
    prepare: impl FnOnce(&mut Config) -> Result<(), Fault>,
) -> Result<Loaded, Vec<Fault>> {
    let schema = Schema::of_config();
    let mut faults = Vec::new();
    let mut settings = Vec::new();
    if let Some((path, text)) = &sources.file {
        settings = layer::file(path, text, &schema, &mut faults);
    }
    let variables = layer::environment(&sources.environment, &settings, &schema, &mut faults);
    settings.extend(variables);
    for (flag, key, value) in &sources.flags {
        let path = key.split('.').map(str::to_owned).collect();
        settings.push(Setting { path, value: Value::String(value.clone()), layer: Layer::Flag(flag) });
    }
    settings.retain(|setting| match readable(setting) {
        Ok(()) => true,
        Err(fault) => {
            faults.push(fault);
            false
        }
    });
    let (mut config, origin) = merge(settings);
    faults.extend(prepare(&mut config).err());
    for problem in config.raft.validate().into_iter().chain(config.api.validate()).chain(own_problems(&config)) {
        faults.push(Fault::new(&origin_of(&origin, &problem.key), problem.key, problem.message));
    }
    if faults.is_empty() { Ok(Loaded { config, origin }) } else { Err(faults) }
}

/// Finds the file: `--config` names it or its directory, else it is `config/<env>/gateway.toml`.
///
/// # Errors
/// When it cannot be read.
pub fn find_file(config: Option<&Path>, env: &str) -> Result<(PathBuf, String), Fault> {
    let path = match config {
        None => Path::new("config").join(env).join("gateway.toml"),
        Some(dir) if dir.is_dir() => {
            let of_env = dir.join(env).join("gateway.toml");
            if of_env.exists() { of_env } else { dir.join("gateway.toml") }
        }
        Some(file) => file.to_owned(),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(cause) => Err(Fault::new(&Layer::File(path), "file", format!("cannot be read: {cause}"))),
    }
}

/// A value of the right type may still mean nothing (a policy that does not exist). Each setting is read alone, over
/// the defaults, so that all such problems are found and each belongs to its key.
fn readable(setting: &Setting) -> Result<(), Fault> {
    let mut alone = Table::new();
    let mut setting = setting.clone();
    for name in setting.path.iter_mut().filter(|name| *name == layer::EVERY_POOL) {
        *name = "pool".to_owned();
    }
    put(&mut alone, &setting.path, setting.value.clone());
    match alone.try_into::<Config>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(&setting.layer, key_of(&setting.path), error.message().trim())),
    }
}

fn merge(settings: Vec<Setting>) -> (Config, BTreeMap<String, Layer>) {
    let mut tree = Table::new();
    let mut origin = BTreeMap::new();
    let (of_every_pool, settings): (Vec<_>, Vec<_>) =
        settings.into_iter().partition(|setting| setting.path.get(2).is_some_and(|name| name == layer::EVERY_POOL));
    for setting in settings {
        origin.insert(key_of(&setting.path), setting.layer);
        put(&mut tree, &setting.path, setting.value);
    }
    let pools = tree.get_mut("provider").and_then(|provider| provider.get_mut("local")).and_then(Value::as_table_mut);
    for (label, pool) in pools.into_iter().flatten() {
        let Value::Table(pool) = pool else { continue };
        for setting in &of_every_pool {
            let key = &setting.path[3];
            if !pool.contains_key(key) && !other_unit(key).is_some_and(|other| pool.contains_key(other)) {
                pool.insert(key.clone(), setting.value.clone());
                let path = ["provider", "local", label, key].map(str::to_owned);
                origin.insert(key_of(&path), setting.layer.clone());
            }
        }
    }
    (tree.try_into().expect("each setting was read alone before"), origin)
}

/// The key that says the same in another unit; a pool has one of the two.
fn other_unit(key: &str) -> Option<&'static str> {
    match key {
        "max_rps" => Some("max_rpm"),
        "max_rpm" => Some("max_rps"),
        "max_tokens_per_sec" => Some("max_tokens_per_min"),
        "max_tokens_per_min" => Some("max_tokens_per_sec"),
        _ => None,
    }
}

fn own_problems(config: &Config) -> Vec<raft::config::Problem> {
    let mut problems = Vec::new();
    if config.marketplace.enabled {
        problems.push(raft::config::Problem::new("marketplace.enabled", "this version has no marketplace"));
    }
    problems
}

fn put(tree: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => match tree.get(key) {
            Some(Value::Table(_)) if value.as_table().is_some_and(Table::is_empty) => {}
            _ => {
                tree.insert(key.clone(), value);
            }
        },
        [key, rest @ ..] => {
            let below = tree.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(table) = below {
                put(table, rest, value);
            }
        }
    }
}

/// The layer of a key, or of the first key set in the table that it names.
fn origin_of(origin: &BTreeMap<String, Layer>, key: &str) -> Layer {
    let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
    let within = |set: &str, table: &str| set.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    let in_pool = |set: &str| table.starts_with("provider.local.") && (set == table || within(set, table));
    let found = origin.get(key).or_else(|| {
        let mut set = origin.iter();
        set.find(|(set, _)| within(set, key) || in_pool(set)).map(|(_, layer)| layer)
    });
    found.cloned().unwrap_or(Layer::Default)
}

/// Writes a path as TOML would, with quotes where they are needed.
fn key_of(path: &[String]) -> String {
    let words = path.iter().map(|word| {
        let bare = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if bare { word.clone() } else { format!("\"{word}\"") }
    });
    words.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests;
