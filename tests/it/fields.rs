//! Every field that the official SDKs can send has a row in the docs that says what becomes of it.

use std::collections::BTreeSet;
use std::path::Path;

const FATES: [&str; 4] = ["carried", "mapped", "dropped", "refused"];

fn text(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn every_field_of_the_sdks_has_a_row() {
    let fields: BTreeSet<(String, String)> = text("tests/sdk/fields.txt")
        .lines()
        .map(|line| line.split_once(' ').map(|(sdk, field)| (sdk.to_owned(), field.to_owned())).unwrap())
        .collect();
    let mut rows = BTreeSet::new();
    let (page, mut sdk) = (text("docs/dialect-fields.md"), String::new());
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut sdk);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(field) = cells.get(1).and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`')) else { continue };
        assert!(FATES.contains(&cells[2]), "{sdk} {field}: {}", cells[2]);
        assert!(cells[2] != "dropped" || !cells[3].is_empty(), "{sdk} {field} is dropped without a reason");
        rows.insert((sdk.clone(), field.to_owned()));
    }
    assert!(fields.len() > 90, "only {} fields", fields.len());
    assert_eq!(fields.difference(&rows).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}
