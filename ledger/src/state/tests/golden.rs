//! Golden scripts: `ledger/golden/*.txt`. A block of commands, `---`, and what they print. `UPDATE=1` writes the output
//! anew; what changed is then for a person to read in the diff. The commands are in `script.rs`.

use super::script::Script;
use std::fs;
use std::path::Path;

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("txt");
    let text = fs::read_to_string(&path).unwrap();
    let mut script = Script::new();
    let mut written = String::new();
    for block in text.trim_end().split("\n\n") {
        let commands = block.split("\n---").next().unwrap();
        written.push_str(commands);
        let output = script.run(commands);
        if !output.is_empty() {
            written.push_str("\n---\n");
            written.push_str(output.trim_end());
        }
        written.push_str("\n\n");
    }
    let written = format!("{}\n", written.trim_end());
    script.assert_replays();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &written).unwrap();
    } else {
        assert_eq!(text, written, "{name}: run with UPDATE=1 and read the diff");
    }
}

#[test]
fn every_script_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path().file_stem().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, SCRIPTS);
}

const SCRIPTS: [&str; 14] = [
    "budgets",
    "changes",
    "days",
    "entries",
    "leases",
    "limits",
    "permits",
    "refill",
    "refunds",
    "reports",
    "reservations",
    "restarts",
    "settling",
    "tenants",
];

#[test]
fn a_bucket_refills_up_to_its_burst_and_pays_its_debt_first() {
    check("refill");
}

#[test]
fn limits_are_lowered_raised_removed_and_set_again() {
    check("limits");
}

#[test]
fn a_lease_is_granted_renewed_expired_and_its_units_burned() {
    check("leases");
}

#[test]
fn reports_may_be_repeated_and_reordered() {
    check("reports");
}

#[test]
fn a_refund_counts_as_far_as_there_was_room() {
    check("refunds");
}

#[test]
fn permits_outlive_epochs() {
    check("permits");
}

#[test]
fn a_restart_frees_permits_at_once_on_the_same_boot_and_later_on_another() {
    check("restarts");
}

#[test]
fn a_reservation_is_made_once_whole_or_not_at_all() {
    check("reservations");
}

#[test]
fn a_reservation_ends_once() {
    check("settling");
}

#[test]
fn tenants_are_refused_at_once_and_in_time_forgotten() {
    check("tenants");
}

#[test]
fn a_quota_is_of_one_day_and_an_expired_hold_is_corrected_once() {
    check("days");
}

#[test]
fn a_revocation_is_remembered_and_set_limits_beat_older_copies() {
    check("changes");
}

#[test]
fn a_budget_is_exact_over_its_windows_and_tells_of_its_levels() {
    check("budgets");
}

#[test]
fn entries_are_void_or_in_order_and_time_never_runs_back() {
    check("entries");
}
