//! The one integration binary: the repository's own rules, and scenarios against the real programs over HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod capacity;
mod cluster;
mod crash;
mod dialects;
mod fields;
mod green;
mod input;
mod names;
mod observe;
mod people;
mod priority;
mod queue;
mod rig;
mod secrets;
mod settle;
mod start;
mod stop;
mod stores;
mod tenants;
mod tidy;
mod trace;
mod utilization;
