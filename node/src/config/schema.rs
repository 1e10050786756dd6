//! The keys that exist, taken from the configuration structs themselves, so that there is no second list to keep.

use super::Config;
use api::config::{Pool, Target};
use std::collections::BTreeMap;
use toml::Value;

/// What may stand at one place of the file.
pub(super) enum Schema {
    /// A value, with its default, which also tells its type.
    Leaf(Value),
    /// A table: keys that have a meaning, and what stands under any other name, where names are free.
    Table { known: BTreeMap<String, Schema>, rest: Option<Box<Schema>> },
    /// An array of tables.
    Tables(Box<Schema>),
}

impl Schema {
    /// The schema of the whole file.
    pub(super) fn of_config() -> Self {
        let mut root = Self::of(&Config::default());
        let mut pool = Self::of(&Pool::default());
        *pool.known_mut("targets") = Schema::Tables(Box::new(Self::of(&Target::default())));
        root.known_mut("provider").known_mut("local").set_rest(pool);
        root.known_mut("prices").set_rest(Self::of(&api::config::Price::default()));
        root.known_mut("aliases").set_rest(Schema::Leaf(Value::String(String::new())));
        root
    }

    fn of(defaults: &impl serde::Serialize) -> Self {
        Self::from_value(Value::try_from(defaults).expect("configuration structs hold only what TOML can say"))
    }

    fn from_value(value: Value) -> Self {
        match value {
            Value::Table(table) => Schema::Table {
                known: table.into_iter().map(|(key, value)| (key, Self::from_value(value))).collect(),
                rest: None,
            },
            leaf => Schema::Leaf(leaf),
        }
    }

    fn known_mut(&mut self, key: &str) -> &mut Schema {
        match self {
            Schema::Table { known, .. } => known.get_mut(key).expect("the key is a field of the struct"),
            _ => unreachable!("the key is a section"),
        }
    }

    fn set_rest(&mut self, schema: Schema) {
        if let Schema::Table { rest, .. } = self {
            *rest = Some(Box::new(schema));
        }
    }

    /// What stands under `key`.
    pub(super) fn child(&self, key: &str) -> Option<&Schema> {
        match self {
            Schema::Table { known, rest } => known.get(key).or(rest.as_deref()),
            _ => None,
        }
    }

    /// The keys of a table that have a meaning.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let known = match self {
            Schema::Table { known, .. } => Some(known),
            _ => None,
        };
        known.into_iter().flatten().map(|(key, _)| key.as_str())
    }

    /// Every value that can be set, where `names` are the free names in use below a path.
    pub(super) fn leaves(&self, names: &dyn Fn(&[String]) -> Vec<String>) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        self.collect(&mut Vec::new(), names, &mut found);
        found
    }

    fn collect(&self, path: &mut Vec<String>, names: &dyn Fn(&[String]) -> Vec<String>, found: &mut Vec<Vec<String>>) {
        let Schema::Table { known, rest } = self else { return found.push(path.clone()) };
        let free_names = if rest.is_some() { names(path) } else { Vec::new() };
        let free = rest.iter().flat_map(|schema| free_names.iter().map(move |name| (name.clone(), schema.as_ref())));
        let fixed = known.iter().map(|(key, schema)| (key.clone(), schema));
        for (key, schema) in fixed.chain(free) {
            path.push(key);
            schema.collect(path, names, found);
            path.pop();
        }
    }
}
