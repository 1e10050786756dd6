//! `gateway key`: API keys.

use super::Context;
use super::client::Call;
use super::failure::Failure;
use super::limits::Limits;
use super::output::{cell, pairs, table};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key; it is shown once.
    Create(Box<NewKey>),
    /// List the keys.
    List {
        /// Revoked ones too.
        #[arg(long)]
        revoked: bool,
    },
    /// Show a key.
    Show {
        /// Its id, its first 12 characters or its name.
        key: String,
    },
    /// Change a key; what is not named stays.
    Update(Box<ChangedKey>),
    /// Give a key a new secret, shown once; the one before is good for a while.
    Rotate {
        /// Its id, its first 12 characters or its name.
        key: String,
        /// How long the secret before is good, as in 24h; 0s ends it now.
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
        overlap: Duration,
    },
    /// Take a key back, for ever.
    Revoke {
        /// Its id, its first 12 characters or its name.
        key: String,
    },
}

/// A key that is to be made. What is not given is the gateway's default.
#[derive(Debug, Args, Serialize)]
pub(super) struct NewKey {
    /// Its name.
    #[arg(long)]
    name: String,
    /// Its class, which gives its priority: internal 1, partner 3, standard 5, external 7.
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
    /// Its priority, 0 first, when it is not its class's.
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    /// How far its requests may raise themselves.
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority_ceiling: Option<u8>,
    /// Its user, by id, name or e-mail address.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Its team, by id or name, where it is not its user's.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    limits: Limits,
    /// What it may be used for: chat, embeddings, models, admin. Without any: all but admin.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    /// The models that it may use: names, or patterns with one `*`.
    #[arg(long, value_name = "PATTERN,..", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    /// When it ends, from now on, as in 30d.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(rename = "expires_in_s", serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    expires: Option<Duration>,
}

/// What is to change of a key; what is not given stays.
#[derive(Debug, Args, Serialize)]
pub(super) struct ChangedKey {
    /// Its id, its first 12 characters or its name.
    #[serde(skip)]
    key: String,
    /// Its new name.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its class.
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<Tier>,
    /// Its priority.
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    /// How far its requests may raise themselves.
    #[arg(long, value_name = "P")]
    #[serde(skip_serializing_if = "Option::is_none")]
    priority_ceiling: Option<u8>,
    /// Its user, by id, name or e-mail address; empty for none.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Its team, by id or name; empty for its user's.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    limits: Limits,
    /// What it may be used for.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    /// The models that it may use.
    #[arg(long, value_name = "PATTERN,..", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    /// When it ends, from now on.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(rename = "expires_in_s", serialize_with = "seconds", skip_serializing_if = "Option::is_none")]
    expires: Option<Duration>,
    /// Change this version only; exit 6 when it is not the present one.
    #[arg(long, value_name = "VERSION")]
    #[serde(rename = "version", skip_serializing_if = "Option::is_none")]
    if_version: Option<u64>,
}

/// A key's named class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tier {
    Internal,
    Partner,
    Standard,
    External,
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn seconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.map_or(0, |duration| duration.as_secs()))
}

impl KeyCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            KeyCommand::Create(new) => {
                let made: Value = context.client.json(Call::post(&["keys"], &new)).await?;
                context.output.show(&made, created)
            }
            KeyCommand::List { revoked } => {
                let keys = list(context, revoked).await?;
                context.output.show(&keys, |keys| listed(keys))
            }
            KeyCommand::Show { key } => {
                let shown: Value = context.client.json(Call::get(&["keys", &key])).await?;
                context.output.show(&shown, described)
            }
            KeyCommand::Update(change) => {
                let changed: Value = context.client.json(Call::patch(&["keys", &change.key], &change)).await?;
                context.output.show(&changed, described)
            }
            KeyCommand::Rotate { key, overlap } => {
                let body = serde_json::json!({ "overlap_s": overlap.as_secs() });
                let rotated: Value = context.client.json(Call::post(&["keys", &key, "rotate"], &body)).await?;
                context.output.show(&rotated, created)
            }
            KeyCommand::Revoke { key } => {
                context.confirm("This takes the key back for ever", &key)?;
                let revoked: Value = context.client.json(Call::delete(&["keys", &key])).await?;
                context.output.show(&revoked, |_| format!("{key}: revoked"))
            }
        }
    }
}

/// Reads all pages.
async fn list(context: &Context, revoked: bool) -> Result<Vec<Value>, Failure> {
    let mut keys: Vec<Value> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let call = Call::get(&["keys"]).query("revoked", revoked.then_some(true)).query("after", after);
        let mut page: Value = context.client.json(call).await?;
        let Some(Value::Array(rows)) = page.get_mut("keys").map(Value::take) else {
            return Err(Failure::Unhealthy("the list of keys cannot be read".to_owned()));
        };
        keys.extend(rows);
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            return Ok(keys);
        }
    }
}

fn created(made: &Value) -> String {
    let secret = cell(&made["key"]);
    format!("{}\n\nkey  {secret}\n\nKeep it now: it is not shown again.", described(made))
}

fn described(key: &Value) -> String {
    let empty = Map::new();
    let fields = key.as_object().unwrap_or(&empty).iter().filter(|(name, _)| *name != "key");
    pairs(fields.filter(|(_, value)| value.as_u64() != Some(0)).map(|(name, value)| (name.as_str(), cell(value))))
}

fn listed(keys: &[Value]) -> String {
    let columns = ["id", "prefix", "name", "tier", "priority", "user", "limits", "models", "expires_at", "revoked_at"];
    let head = columns.map(|name| name.trim_end_matches("_at").to_uppercase());
    let rows =
        keys.iter().map(|key| columns.map(|name| if name == "limits" { limits_cell(key) } else { cell(&key[name]) }));
    table(&head.each_ref().map(String::as_str), rows)
}

/// The limits of a key, a user or a team in one cell; bursts and budgets stand in `show`.
pub(super) fn limits_cell(key: &Value) -> String {
    let units = [
        ("rps", "req/s"),
        ("rpm", "req/min"),
        ("tpm", "tokens/min"),
        ("concurrency", "at once"),
        ("tokens_per_day", "tokens/day"),
    ];
    let set = units.iter().filter_map(|(name, unit)| Some((key[name].as_u64().filter(|&limit| limit > 0)?, unit)));
    let set: Vec<String> = set.map(|(limit, unit)| format!("{limit} {unit}")).collect();
    if set.is_empty() { "-".to_owned() } else { set.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        run: KeyCommand,
    }

    #[test]
    fn only_what_was_given_is_sent() {
        let line = "key create --name app --tier partner --rps 10 --models gpt-*,a --expires 30d";
        let KeyCommand::Create(new) = Line::try_parse_from(line.split(' ')).unwrap().run else { panic!("not create") };
        let expected =
            json!({ "name": "app", "tier": "partner", "rps": 10, "models": ["gpt-*", "a"], "expires_in_s": 2_592_000 });
        assert_eq!(serde_json::to_value(new).unwrap(), expected);
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        let error = Line::try_parse_from("key create --name app --rps 0".split(' ')).unwrap_err().to_string();
        assert!(error.contains("must be above 0; without a limit, leave the option out, or say none"), "{error}");
    }

    #[test]
    fn a_list_shows_each_keys_limits() {
        let key = json!({ "name": "app", "rps": 3, "rpm": 0, "tokens_per_day": 1000 });
        assert_eq!(limits_cell(&key), "3 req/s, 1000 tokens/day");
        assert_eq!(limits_cell(&json!({ "rps": 0 })), "-");
    }

    #[test]
    fn the_key_itself_stands_apart() {
        let text = created(&json!({ "id": "0a", "key": "tok_x", "name": "app", "rps": 0 }));
        assert_eq!(text, "id    0a\nname  app\n\nkey  tok_x\n\nKeep it now: it is not shown again.");
    }
}
