//! How results are shown: tables for people, JSON for scripts.

use super::Format;
use super::failure::Failure;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;
use std::io::Write;

/// Writes results to standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    format: Format,
}

impl Output {
    /// Shows results in one format.
    pub(super) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Shows `value` as JSON, or as the text that `table` makes of it.
    pub(super) fn show<T: Serialize>(&self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value).expect("results are plain structs"),
            Format::Table => table(value),
        };
        self.line(&text)
    }

    /// Writes lines.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        write(format!("{}\n", text.trim_end()).as_bytes())
    }
}

/// Writes to standard output. A reader that had enough (`| head`) is no failure.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::io(error)),
        _ => Ok(()),
    }
}

/// A table without lines around its cells, so that it can be cut and sorted.
pub(super) fn table<R: IntoIterator<Item = String>>(head: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !head.is_empty() {
        table.set_header(head);
    }
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Two columns, name and value, of what has a value.
pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty() && value != "-");
    table(&[], pairs.map(|(name, value)| [name.to_owned(), value]))
}

/// A JSON value in a cell; absent is a dash.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A number in a cell; absent is a dash.
pub(super) fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_around_its_cells() {
        let text = table(&["MODEL", "RPS"], [["gpt-4".to_owned(), "100".to_owned()], ["a".to_owned(), "-".to_owned()]]);
        assert_eq!(text, "MODEL  RPS\ngpt-4  100\na      -");
    }

    #[test]
    fn pairs_leave_out_what_has_no_value() {
        assert_eq!(pairs([("name", "a".to_owned()), ("team", "-".to_owned())]), "name  a");
    }
}
