//! Tests of the keeper, beside the shipped policy and state: what it admits from memory, what it tells, and what it
//! makes of replies that are lost, repeated or late.

mod estimates;
mod leases;
mod refunds;
mod talk;
