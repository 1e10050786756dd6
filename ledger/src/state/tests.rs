//! Tests of the state machine: golden scripts, and random histories against naive models.

mod bucket;
mod golden;
mod histories;
mod nodes;
mod script;
mod tenants;
