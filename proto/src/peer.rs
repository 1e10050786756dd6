//! What nodes say to each other, as `proto/peer.proto` has it: the services, and the ledger's own messages to protobuf
//! and back. Consensus' messages are turned where its types are, in the raft crate.

#![expect(missing_docs, reason = "generated from proto/peer.proto, where the comments stand")]
#![allow(clippy::doc_markdown, clippy::large_enum_variant, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/tokligence.peer.v1.rs"));
