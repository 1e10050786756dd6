//! Tests of the leader's choice, through keepers and ledger: who is served when, and what refusals say.

mod desk;
mod estimates;
mod fairness;
mod order;
