//! The way to the other members: gRPC clients that openraft drives, and the server that hands calls to it.
//!
//! One long-lived stream carries entries to a member; heartbeats and snapshots have connections of their own, so that
//! neither waits behind the other. Every call says who calls, for which cluster, from which disk, and to whom (`pass`).

mod client;
mod dial;
mod members;
mod pass;
mod server;
mod talk;
mod tls;
mod wire;

pub(crate) use client::Network;
pub(crate) use dial::Dial;
pub(crate) use members::{Changed, change, gather, status};
pub(crate) use pass::Pass;
pub(crate) use server::{Door, Listening, listen, serve};
pub(crate) use talk::{Line, Routes, propose};
pub(crate) use tls::Tls;
pub use tls::TlsFiles;

/// The largest message of a peer: what the largest batch of entries needs, and room.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes of a snapshot sent in one message.
const CHUNK_BYTES: usize = 1 << 20;
