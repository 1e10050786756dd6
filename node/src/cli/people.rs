//! `gateway user` and `gateway team`: who keys belong to.

use super::Context;
use super::client::Call;
use super::failure::Failure;
use super::key::limits_cell;
use super::limits::Limits;
use super::output::{cell, pairs, table};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make a user.
    Create(Box<NewUser>),
    /// Make the users of a CSV file with the columns name, email, role, team and limits; name is needed.
    Import {
        /// The file.
        file: PathBuf,
    },
    /// List the users.
    List,
    /// Show a user.
    Show {
        /// Its id, its name or its e-mail address.
        user: String,
    },
    /// Change a user; what is not named stays.
    Update(Box<ChangedUser>),
    /// Remove a user, with all keys, for ever.
    Remove {
        /// Its id, its name or its e-mail address.
        user: String,
    },
}

/// A user that is to be made.
#[derive(Debug, Args, Serialize)]
pub(super) struct NewUser {
    /// Its name.
    #[arg(long)]
    name: String,
    /// Its e-mail address.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// What it may do on the admin routes.
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// Its team, by id or name.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    limits: Limits,
}

/// What is to change of a user.
#[derive(Debug, Args, Serialize)]
pub(super) struct ChangedUser {
    /// Its id, its name or its e-mail address.
    #[serde(skip)]
    user: String,
    /// Its new name.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its new e-mail address; empty for none.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// What it may do on the admin routes.
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// Its team, by id or name; empty for none.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    team: Option<String>,
    /// Change this version only; exit 6 when it is not the present one.
    #[arg(long, value_name = "VERSION")]
    #[serde(rename = "version", skip_serializing_if = "Option::is_none")]
    if_version: Option<u64>,
    #[command(flatten)]
    #[serde(flatten)]
    limits: Limits,
}

/// What a user may do on the admin routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(super) enum Role {
    RootAdmin,
    GatewayAdmin,
    GatewayUser,
}

#[derive(Debug, Subcommand)]
pub(super) enum TeamCommand {
    /// Make a team.
    Create {
        /// Its name.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// List the teams.
    List,
    /// Show a team.
    Show {
        /// Its id or its name.
        team: String,
    },
    /// Change a team; what is not named stays.
    Update {
        /// Its id or its name.
        team: String,
        /// Its new name.
        #[arg(long)]
        name: Option<String>,
        /// Change this version only; exit 6 when it is not the present one.
        #[arg(long, value_name = "VERSION")]
        if_version: Option<u64>,
        #[command(flatten)]
        limits: Limits,
    },
    /// Remove a team, with all of its keys, for ever.
    Remove {
        /// Its id or its name.
        team: String,
    },
}

impl UserCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            UserCommand::Create(new) => show(context, Call::post(&["users"], &new)).await,
            UserCommand::Import { file } => import(context, &file).await,
            UserCommand::List => list(context, "users", &["id", "name", "email", "role", "limits"]).await,
            UserCommand::Show { user } => show(context, Call::get(&["users", &user])).await,
            UserCommand::Update(change) => show(context, Call::patch(&["users", &change.user], &change)).await,
            UserCommand::Remove { user } => {
                context.confirm("This removes the user and refuses all of its keys for ever", &user)?;
                show(context, Call::delete(&["users", &user])).await
            }
        }
    }
}

impl TeamCommand {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            TeamCommand::Create { name, limits } => {
                show(context, Call::post(&["teams"], &body(Some(name), None, limits))).await
            }
            TeamCommand::List => list(context, "teams", &["id", "name", "limits"]).await,
            TeamCommand::Show { team } => show(context, Call::get(&["teams", &team])).await,
            TeamCommand::Update { team, name, if_version, limits } => {
                show(context, Call::patch(&["teams", &team], &body(name, if_version, limits))).await
            }
            TeamCommand::Remove { team } => {
                context.confirm("This removes the team and refuses all of its keys for ever", &team)?;
                show(context, Call::delete(&["teams", &team])).await
            }
        }
    }
}

fn body(name: Option<String>, version: Option<u64>, limits: Limits) -> Value {
    let mut body = serde_json::to_value(limits).expect("limits are plain numbers");
    if let Some(name) = name {
        body["name"] = name.into();
    }
    if let Some(version) = version {
        body["version"] = version.into();
    }
    body
}

async fn show(context: &Context, call: Call<'_>) -> Result<(), Failure> {
    let shown: Value = context.client.json(call).await?;
    context.output.show(&shown, described)
}

fn described(shown: &Value) -> String {
    let empty = Map::new();
    let fields = shown.as_object().unwrap_or(&empty).iter().filter(|(_, value)| value.as_u64() != Some(0));
    pairs(fields.map(|(name, value)| (name.as_str(), cell(value))))
}

/// Reads and shows all pages.
async fn list(context: &Context, what: &str, columns: &[&str]) -> Result<(), Failure> {
    let (mut all, mut after): (Vec<Value>, Option<String>) = (Vec::new(), None);
    loop {
        let mut page: Value = context.client.json(Call::get(&[what]).query("after", after)).await?;
        let Some(Value::Array(rows)) = page.get_mut(what).map(Value::take) else {
            return Err(Failure::Unhealthy(format!("the list of {what} cannot be read")));
        };
        all.extend(rows);
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    context.output.show(&all, |all| {
        let head: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let shown = |row: &Value, name: &str| if name == "limits" { limits_cell(row) } else { cell(&row[name]) };
        table(&head, all.iter().map(|row| columns.iter().map(|name| shown(row, name)).collect::<Vec<_>>()))
    })
}

/// Makes one user for each row, and goes on behind one that is refused.
async fn import(context: &Context, file: &std::path::Path) -> Result<(), Failure> {
    let unreadable = |error: csv::Error| Failure::Usage(format!("{}: {error}", file.display()));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(file).map_err(unreadable)?;
    let head = reader.headers().map_err(unreadable)?.clone();
    let (mut made, mut refused): (u64, Vec<Value>) = (0, Vec::new());
    for (number, row) in reader.records().enumerate() {
        let row = row.map_err(unreadable)?;
        let body = user_of(&head, &row);
        match context.client.json::<Value>(Call::post(&["users"], &body)).await {
            Ok(_) => made += 1,
            Err(Failure::Refused(why) | Failure::Conflict(why)) => {
                refused.push(json!({ "line": number + 2, "name": body["name"], "why": why }));
            }
            Err(other) => return Err(other),
        }
    }
    context.output.show(&json!({ "made": made, "refused": refused }), |_| {
        let rows = refused.iter().map(|row| ["line", "name", "why"].map(|name| cell(&row[name])));
        let refused =
            if refused.is_empty() { String::new() } else { format!("\n{}", table(&["LINE", "NAME", "REFUSED"], rows)) };
        format!("{made} users made{refused}")
    })?;
    if refused.is_empty() { Ok(()) } else { Err(Failure::Refused(format!("{} rows were refused", refused.len()))) }
}

fn user_of(head: &csv::StringRecord, row: &csv::StringRecord) -> Value {
    let fields = head.iter().zip(row).filter(|(_, value)| !value.is_empty()).map(|(name, value)| {
        // What looks like a number is a limit, except in what is text.
        let number = value.parse::<u64>().ok().filter(|_| !["name", "email", "role", "team"].contains(&name));
        (name.to_owned(), number.map_or_else(|| Value::from(value), Value::from))
    });
    Value::Object(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_becomes_a_user_and_an_empty_cell_is_not_said() {
        let head = csv::StringRecord::from(vec!["name", "email", "team", "tokens_per_day"]);
        let row = csv::StringRecord::from(vec!["007", "", "core", "1000"]);
        assert_eq!(user_of(&head, &row), json!({ "name": "007", "team": "core", "tokens_per_day": 1_000 }));
    }
}
