//! What stands in the store: keys, and records with a version, a kind and a checksum each.
//!
//! Key layout, one sled tree: `U` store uuid, `V` vote, `P` purge watermark, `L` + index (big endian) log entry.
//! Record: version (1 byte), kind (1 byte), CRC-32 of key, kind and body (4 bytes, little endian), body.
//! An entry's body is its term (8 bytes, little endian) and the payload as it was proposed.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;

use crate::types::{Entry, LogId, Membership, Node, NodeId, Payload, StoredMembership, Vote, log_id};

/// Where the store's own name stands.
pub(crate) const UUID: &[u8] = b"U";
/// Where the vote stands.
pub(crate) const VOTE: &[u8] = b"V";
/// Where the id of the last purged entry stands.
pub(crate) const PURGED: &[u8] = b"P";

const ENTRY: u8 = b'L';
const VERSION: u8 = 1;
const HEADER: usize = 6;
/// What a record adds to an entry's payload: header and term.
pub(crate) const OVERHEAD: usize = HEADER + 8;

const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;
const KIND_META: u8 = 3;

/// A record that cannot be what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record {key} {reason}")]
pub(crate) struct Broken {
    key: String,
    reason: String,
}

/// The stored form of an entry's id.
#[derive(bincode::Encode, bincode::Decode)]
pub(crate) struct StoredId {
    term: u64,
    index: u64,
}

/// The stored form of a vote.
#[derive(bincode::Encode, bincode::Decode)]
struct StoredVote {
    term: u64,
    node: u64,
    committed: bool,
}

/// The stored form of a membership: sets of voters, then all nodes.
#[derive(bincode::Encode, bincode::Decode)]
pub(crate) struct StoredMembers {
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, (String, [u8; 16])>,
}

/// The stored form of a membership together with the entry that set it.
#[derive(bincode::Encode, bincode::Decode)]
pub(crate) struct StoredMembersAt {
    at: Option<StoredId>,
    members: StoredMembers,
}

/// The key of the entry at an index.
pub(crate) fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index an entry's key stands for.
pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    let rest = key.strip_prefix(&[ENTRY])?;
    Some(u64::from_be_bytes(rest.try_into().ok()?))
}

/// Encodes an entry.
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Vec::new()),
        EntryPayload::Normal(Payload(bytes)) => {
            return seal(&entry_key(entry.log_id.index), KIND_NORMAL, &[&term_bytes(entry), bytes]);
        }
        EntryPayload::Membership(members) => (KIND_MEMBERSHIP, encode_meta_body(&StoredMembers::from(members))),
    };
    seal(&entry_key(entry.log_id.index), kind, &[&term_bytes(entry), &payload])
}

/// Decodes the entry that stands under a key.
pub(crate) fn decode_entry(key: &[u8], record: &[u8]) -> Result<Entry, Broken> {
    let broken = |reason: &str| Broken::new(key, reason);
    let index = index_of(key).ok_or_else(|| broken("has no index in its key"))?;
    let (kind, body) = open(key, record)?;
    let (term, payload) = body.split_first_chunk::<8>().ok_or_else(|| broken("is too short for a term"))?;
    let payload = match kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_NORMAL => EntryPayload::Normal(Payload(payload.to_vec())),
        KIND_MEMBERSHIP => EntryPayload::Membership(decode_meta_body::<StoredMembers>(key, payload)?.try_into()?),
        other => return Err(broken(&format!("has the unknown kind {other}"))),
    };
    Ok(Entry { log_id: log_id(u64::from_le_bytes(*term), index), payload })
}

/// Encodes a vote.
pub(crate) fn encode_vote(vote: &Vote) -> Vec<u8> {
    let stored = StoredVote { term: vote.leader_id.term(), node: *vote.leader_id.node_id(), committed: vote.committed };
    seal(VOTE, KIND_META, &[&encode_meta_body(&stored)])
}

/// Decodes a vote.
pub(crate) fn decode_vote(record: &[u8]) -> Result<Vote, Broken> {
    let stored: StoredVote = decode_meta(VOTE, record)?;
    let mut vote = Vote::new(stored.term, stored.node);
    vote.committed = stored.committed;
    Ok(vote)
}

/// Encodes the id of the last purged entry.
pub(crate) fn encode_purged(id: &LogId) -> Vec<u8> {
    seal(PURGED, KIND_META, &[&encode_meta_body(&StoredId::from(id))])
}

/// Decodes the id of the last purged entry.
pub(crate) fn decode_purged(record: &[u8]) -> Result<LogId, Broken> {
    Ok(decode_meta::<StoredId>(PURGED, record)?.into())
}

/// Encodes the store's own name.
pub(crate) fn encode_uuid(uuid: [u8; 16]) -> Vec<u8> {
    seal(UUID, KIND_META, &[&uuid])
}

/// Decodes the store's own name.
pub(crate) fn decode_uuid(record: &[u8]) -> Result<[u8; 16], Broken> {
    let (_, body) = open(UUID, record)?;
    body.try_into().map_err(|_| Broken::new(UUID, "is not 16 bytes long"))
}

/// Encodes node-local metadata without a frame of its own.
pub(crate) fn encode_meta_body<T: bincode::Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode::config::standard()).expect("encoding into memory has nothing to fail on")
}

/// Decodes node-local metadata; every byte must be used.
pub(crate) fn decode_meta_body<T: bincode::Decode<()>>(key: &[u8], body: &[u8]) -> Result<T, Broken> {
    let limits = bincode::config::standard().with_limit::<{ 1 << 20 }>();
    match bincode::decode_from_slice(body, limits) {
        Ok((value, used)) if used == body.len() => Ok(value),
        Ok(_) => Err(Broken::new(key, "has bytes after its end")),
        Err(error) => Err(Broken::new(key, &format!("cannot be decoded: {error}"))),
    }
}

fn decode_meta<T: bincode::Decode<()>>(key: &[u8], record: &[u8]) -> Result<T, Broken> {
    match open(key, record)? {
        (KIND_META, body) => decode_meta_body(key, body),
        (other, _) => Err(Broken::new(key, &format!("has the unknown kind {other}"))),
    }
}

fn term_bytes(entry: &Entry) -> [u8; 8] {
    entry.log_id.leader_id.term.to_le_bytes()
}

fn seal(key: &[u8], kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + parts.iter().map(|part| part.len()).sum::<usize>());
    record.extend_from_slice(&[VERSION, kind, 0, 0, 0, 0]);
    for part in parts {
        record.extend_from_slice(part);
    }
    let crc = checksum(key, kind, &record[HEADER..]);
    record[2..HEADER].copy_from_slice(&crc.to_le_bytes());
    record
}

fn open<'a>(key: &[u8], record: &'a [u8]) -> Result<(u8, &'a [u8]), Broken> {
    let (header, body) =
        record.split_first_chunk::<HEADER>().ok_or_else(|| Broken::new(key, "is too short for its header"))?;
    let [version, kind, crc @ ..] = *header;
    if version != VERSION {
        return Err(Broken::new(key, &format!("has version {version}, this build reads {VERSION}")));
    }
    if u32::from_le_bytes(crc) != checksum(key, kind, body) {
        return Err(Broken::new(key, "does not match its checksum"));
    }
    Ok((kind, body))
}

fn checksum(key: &[u8], kind: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[kind]);
    hasher.update(body);
    hasher.finalize()
}

impl Broken {
    fn new(key: &[u8], reason: &str) -> Self {
        let key = match index_of(key) {
            Some(index) => format!("of entry {index}"),
            None => String::from_utf8_lossy(key).into_owned(),
        };
        Self { key, reason: reason.to_owned() }
    }
}

impl From<&LogId> for StoredId {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, index: id.index }
    }
}

impl From<StoredId> for LogId {
    fn from(id: StoredId) -> Self {
        log_id(id.term, id.index)
    }
}

impl From<&Membership> for StoredMembers {
    fn from(members: &Membership) -> Self {
        let nodes = members.nodes().map(|(id, node)| (*id, (node.addr.clone(), node.store_uuid)));
        Self { configs: members.get_joint_config().clone(), nodes: nodes.collect() }
    }
}

impl TryFrom<StoredMembers> for Membership {
    type Error = Broken;

    fn try_from(stored: StoredMembers) -> Result<Self, Broken> {
        let node = |(id, (addr, store_uuid))| (id, Node { addr, store_uuid });
        let nodes: BTreeMap<NodeId, Node> = stored.nodes.into_iter().map(node).collect();
        Membership::new(stored.configs, nodes).map_err(|error| Broken::new(b"membership", &error.to_string()))
    }
}

impl From<&StoredMembership> for StoredMembersAt {
    fn from(members: &StoredMembership) -> Self {
        Self { at: members.log_id().as_ref().map(StoredId::from), members: members.membership().into() }
    }
}

impl TryFrom<StoredMembersAt> for StoredMembership {
    type Error = Broken;

    fn try_from(stored: StoredMembersAt) -> Result<Self, Broken> {
        Ok(StoredMembership::new(stored.at.map(LogId::from), stored.members.try_into()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_votes_read_back_as_they_were_written() {
        let nodes = BTreeMap::from([(3, Node { addr: "a:1".into(), store_uuid: [7; 16] }), (4, Node::default())]);
        let members = Membership::new(vec![BTreeSet::from([3]), BTreeSet::from([3, 4])], nodes).unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(vec![])),
            EntryPayload::Normal(Payload(vec![5; 300])),
            EntryPayload::Membership(members),
        ] {
            let entry = Entry { log_id: log_id(9, 1 << 40), payload };
            let key = entry_key(entry.log_id.index);
            assert_eq!(decode_entry(&key, &encode_entry(&entry)), Ok(entry));
        }
        let mut vote = Vote::new(4, 2);
        vote.committed = true;
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let entry = Entry { log_id: log_id(9, 77), payload: EntryPayload::Normal(Payload(vec![1, 2, 3])) };
        let record = encode_entry(&entry);
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_entry(&entry_key(77), &flipped).is_err(), "bit {bit}");
        }
        assert!(decode_entry(&entry_key(78), &record).is_err(), "a record under another key");
    }
}
