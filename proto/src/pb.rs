//! The messages of `proto/ledger.proto` as prost writes them. They do not leave this crate.

#![expect(unreachable_pub, reason = "generated: prost makes everything pub")]

include!(concat!(env!("OUT_DIR"), "/tokligence.ledger.v1.rs"));
