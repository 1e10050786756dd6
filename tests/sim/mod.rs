//! A deterministic simulator around the shipped keeper, policy and ledger: only clocks, network and disk are replaced.
//!
//! It holds no admission logic. One seed is one run: every delay, loss, duplicate, crash, pause, partition and leader
//! change comes from it. `make sim SEEDS=n` runs more of them; a seed that ever failed is a test of its own below.

mod arrivals;
mod chance;
mod faults;
mod node;
mod world;

use super::rules::Rules;
use faults::Faults;
use world::{Report, Setup, World};

fn run(setup: Setup) -> Report {
    World::new(setup).run()
}

fn seeds() -> u64 {
    std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12)
}

fn first_seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn check_seeds(nodes: usize, faults: Faults) {
    for seed in first_seed()..first_seed() + seeds() {
        let report = run(Setup { nodes, faults, ..Setup::new(seed) });
        report.assert_sound();
    }
}

#[test]
fn one_node_with_crashes_and_pauses_keeps_every_limit() {
    check_seeds(1, Faults::all());
}

#[test]
fn three_nodes_under_all_faults_keep_every_limit() {
    check_seeds(3, Faults::all());
}

#[test]
fn five_nodes_under_all_faults_keep_every_limit() {
    check_seeds(5, Faults::all());
}

#[test]
fn without_faults_saturated_capacity_is_used_and_priorities_hold() {
    for nodes in [1, 3, 5] {
        for seed in first_seed()..first_seed() + seeds() {
            let report = run(Setup { nodes, saturated: true, ..Setup::new(seed) });
            report.assert_sound();
            report.assert_used(90);
            report.assert_no_inversion_beyond_us(120_000);
        }
    }
}

#[test]
fn a_tenants_budget_is_never_exceeded_and_never_under_counted() {
    for nodes in [1, 3, 5] {
        for seed in first_seed()..first_seed() + seeds() {
            let faults = Faults::all();
            run(Setup { nodes, faults, tenants: true, ..Setup::new(seed) }).assert_sound();
        }
    }
}

#[test]
fn a_run_replays_from_its_seed() {
    let once = run(Setup { nodes: 3, faults: Faults::all(), ..Setup::new(7) });
    let again = run(Setup { nodes: 3, faults: Faults::all(), ..Setup::new(7) });
    assert_eq!(once, again);
}

#[test]
fn random_runs_break_the_limit_when_refill_uses_the_leaders_own_clock() {
    assert!(some_seed_breaks(Rules::without('e')));
}

#[test]
fn seed_26_a_lagging_leader_is_followed_by_one_whose_clock_does_not_lag() {
    run(Setup { nodes: 3, faults: Faults::all(), ..Setup::new(26) }).assert_sound();
}

#[test]
fn seed_145_an_answer_to_a_dead_process_is_not_heard_by_its_successor() {
    run(Setup { nodes: 3, faults: Faults::all(), ..Setup::new(145) }).assert_sound();
}

fn some_seed_breaks(rules: Rules) -> bool {
    (1..=40).any(|seed| !run(Setup { nodes: 3, faults: Faults::all(), rules, ..Setup::new(seed) }).is_sound())
}
