//! One layer of configuration, flattened to single settings: a file, the environment, or command-line flags.

use super::schema::Schema;
use super::{Fault, Layer, key_of};
use api::nearest;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use toml::{Table, Value};

/// One key and the value that a layer gives it.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) layer: Layer,
}

/// Names that look like configuration and are none: the CLI's, and the choice of the file itself.
const RESERVED: [&str; 3] = ["TOKLIGENCE_ADMIN_KEY", "TOKLIGENCE_ENDPOINT", "TOKLIGENCE_ENV"];

/// Stands for "every pool" in the path of a default that the environment sets.
pub(super) const EVERY_POOL: &str = "*every*";

/// Reads the settings of a file.
pub(super) fn file(path: &Path, text: &str, schema: &Schema, faults: &mut Vec<Fault>) -> Vec<Setting> {
    let layer = Layer::File(path.to_owned());
    let mut settings = Vec::new();
    match text.parse::<Table>() {
        Ok(table) => flatten(schema, &mut Vec::new(), table, &layer, &mut settings, faults),
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            faults.push(Fault::new(&layer, format!("line {line}"), format!("is not TOML: {}", error.message())));
        }
    }
    settings
}

fn flatten(
    schema: &Schema,
    path: &mut Vec<String>,
    table: Table,
    layer: &Layer,
    settings: &mut Vec<Setting>,
    faults: &mut Vec<Fault>,
) {
    if table.is_empty() {
        settings.push(Setting { path: path.clone(), value: Value::Table(Table::new()), layer: layer.clone() });
    }
    for (key, value) in table {
        path.push(key.clone());
        match (schema.child(&key), value) {
            (None, _) => faults.push(unknown(schema, path, layer)),
            (Some(child @ Schema::Table { .. }), Value::Table(table)) => {
                flatten(child, path, table, layer, settings, faults);
            }
            (Some(Schema::Table { .. }), value) => faults.push(not_a_table(schema, path, &value, layer)),
            (Some(Schema::Tables(inner)), value) => {
                if targets(inner, path, &value, layer, faults) {
                    settings.push(Setting { path: path.clone(), value, layer: layer.clone() });
                }
            }
            (Some(Schema::Leaf(default)), value) if value.same_type(default) => {
                settings.push(Setting { path: path.clone(), value, layer: layer.clone() });
            }
            (Some(Schema::Leaf(default)), value) => {
                let message = format!("must be {}, is {}", kind(default), kind(&value));
                faults.push(Fault::new(layer, key_of(path), message));
            }
        }
        path.pop();
    }
}

fn unknown(schema: &Schema, path: &[String], layer: &Layer) -> Fault {
    let key = path.last().map_or("", String::as_str);
    let message = match nearest(key, schema.keys()) {
        Some(known) => format!("unknown key; the nearest known one is `{known}`"),
        None => "unknown key".to_owned(),
    };
    Fault::new(layer, key_of(path), message)
}

/// Where names are free, a plain value is more likely a mistyped key than a table.
fn not_a_table(schema: &Schema, path: &[String], value: &Value, layer: &Layer) -> Fault {
    let key = path.last().map_or("", String::as_str);
    match nearest(key, schema.keys()).filter(|known| *known != key) {
        Some(_) => unknown(schema, path, layer),
        None => Fault::new(layer, key_of(path), format!("must be a table, is {}", kind(value))),
    }
}

fn targets(schema: &Schema, path: &[String], value: &Value, layer: &Layer, faults: &mut Vec<Fault>) -> bool {
    let before = faults.len();
    let Value::Array(tables) = value else {
        faults.push(Fault::new(layer, key_of(path), format!("must be an array of tables, is {}", kind(value))));
        return false;
    };
    for table in tables {
        let keys = table.as_table().into_iter().flat_map(Table::keys);
        for key in keys.filter(|key| schema.child(key).is_none()) {
            let path: Vec<String> = path.iter().chain([key]).cloned().collect();
            faults.push(unknown(schema, &path, layer));
        }
    }
    faults.len() == before
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

/// Reads the settings of the environment. `below` are the settings of the layers below, which say what the free names
/// are and which variables are secrets that they refer to.
pub(super) fn environment(
    variables: &[(OsString, OsString)],
    below: &[Setting],
    schema: &Schema,
    faults: &mut Vec<Fault>,
) -> Vec<Setting> {
    let names = variable_names(below, schema);
    let secrets: BTreeSet<&str> =
        below.iter().filter_map(|setting| setting.value.as_str()?.strip_prefix("env:")).collect();
    let mut settings: Vec<Setting> = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("TOKLIGENCE_")) else { continue };
        if RESERVED.contains(&name) || secrets.contains(name) {
            continue;
        }
        let layer = Layer::Variable(name.to_owned());
        let Some(value) = value.to_str() else {
            faults.push(Fault::new(&layer, name, "is not UTF-8 text"));
            continue;
        };
        match variable(name, value, &layer, &names, schema) {
            Ok(setting) => {
                if let Some(other) = settings.iter().find(|other| other.path == setting.path) {
                    let message = format!("is set by {} too", other.layer);
                    faults.push(Fault::new(&layer, key_of(&setting.path), message));
                } else {
                    settings.push(setting);
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    settings
}

fn variable(
    name: &str,
    value: &str,
    layer: &Layer,
    names: &BTreeMap<String, BTreeSet<Vec<String>>>,
    schema: &Schema,
) -> Result<Setting, Fault> {
    let Some(paths) = names.get(name) else {
        let message = match nearest(name, names.keys().map(String::as_str)) {
            Some(known) => format!("unknown variable; the nearest known one is `{known}`"),
            None => "unknown variable".to_owned(),
        };
        return Err(Fault::new(layer, name, message));
    };
    let mut paths = paths.iter();
    let path = paths.next().expect("a name is listed with its first path");
    if let Some(other) = paths.next() {
        let message = format!("is ambiguous: it may mean {} or {}", key_of(path), key_of(other));
        return Err(Fault::new(layer, name, message));
    }
    let default = path.iter().try_fold(schema, |schema, key| schema.child(key));
    let value = match default {
        Some(Schema::Leaf(default)) => parse(value, default),
        _ => parse_array(value),
    };
    let value = value.map_err(|message| Fault::new(layer, key_of(path), message))?;
    Ok(Setting { path: path.clone(), value, layer: layer.clone() })
}

/// All names by which the environment can set a key. A name with several keys is ambiguous.
fn variable_names(below: &[Setting], schema: &Schema) -> BTreeMap<String, BTreeSet<Vec<String>>> {
    let free = |table: &[String]| -> Vec<String> {
        let names = below.iter().filter(|setting| setting.path.starts_with(table)).filter_map(|setting| {
            let name = setting.path.get(table.len())?;
            let free = table.first().is_some_and(|first| first == "aliases")
                || setting.path.len() > table.len() + 1
                || setting.value.is_table();
            free.then(|| name.clone())
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let mut names: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    let mut leaves = schema.leaves(&free);
    let pool = schema.child("provider").and_then(|provider| provider.child("local")).and_then(|l| l.child(EVERY_POOL));
    for key in pool.iter().flat_map(|pool| pool.keys()).filter(|key| key.starts_with("max_")) {
        leaves.push(["provider", "local", EVERY_POOL, key].map(str::to_owned).to_vec());
    }
    for path in leaves {
        let words = path.iter().filter(|word| *word != EVERY_POOL).map(|word| screaming(word)).collect::<Vec<_>>();
        let Some((key, sections)) = words.split_last() else { continue };
        let mut forms = vec![words.join("__"), format!("{}__{key}", sections.join("_")), words.join("_")];
        if path[0] == "scheduling" {
            forms.push(format!("SCHEDULER_{key}"));
        }
        for form in forms {
            names.entry(format!("TOKLIGENCE_{form}")).or_default().insert(path.clone());
        }
    }
    names
}

fn screaming(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn parse(text: &str, default: &Value) -> Result<Value, String> {
    match default {
        Value::Integer(_) => {
            text.trim().parse().map(Value::Integer).map_err(|_| format!("must be an integer, is `{text}`"))
        }
        Value::Boolean(_) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Boolean(true)),
            "false" | "0" => Ok(Value::Boolean(false)),
            _ => Err(format!("must be true or false, is `{text}`")),
        },
        Value::Array(_) => parse_array(text),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Reads a TOML array, or strings with commas between them.
fn parse_array(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('[') {
        let mut table: Table = format!("it = {text}").parse().map_err(|_| format!("is not a TOML array: `{text}`"))?;
        return table.remove("it").ok_or_else(|| "must be an array".to_owned());
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
}
