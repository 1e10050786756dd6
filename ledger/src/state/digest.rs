//! The ledger's digest: the wrapping sum, over all rows, of a 128-bit hash of key and row (L9).
//!
//! A sum does not depend on the order of rows, so that a later version may keep it up to date row by row. The hash runs
//! over the values that serde shows of a row, each as fixed-width little-endian bytes: the same on every build.
//! Source: FNV-1a with 128 bits, draft-eastlake-fnv.

use super::State;
use serde::Serialize;
use serde::ser::{self, Impossible};
use std::fmt;

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A digest of the whole ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl State {
    /// The digest of the ledger as it stands.
    pub fn digest(&self) -> Digest {
        let counts = (self.next_pool, self.pools_version, self.reserved, self.revoked.version, self.limits_version);
        let head = hash(0, &(), &(self.at, self.stamp, self.windows, counts));
        let sum = head
            .wrapping_add(rows(1, self.pools.iter()))
            .wrapping_add(rows(2, self.names.iter()))
            .wrapping_add(rows(3, self.nodes.iter()))
            .wrapping_add(rows(4, self.tenants.iter()))
            .wrapping_add(rows(5, self.charged.iter()))
            .wrapping_add(rows(6, self.revoked.rows.iter()));
        Digest(sum)
    }
}

fn rows<'a, K: Serialize + 'a, V: Serialize + 'a>(table: u8, rows: impl Iterator<Item = (&'a K, &'a V)>) -> u128 {
    rows.fold(0, |sum, (key, row)| sum.wrapping_add(hash(table, key, row)))
}

fn hash<K: Serialize, V: Serialize>(table: u8, key: &K, row: &V) -> u128 {
    let mut hasher = Hasher(FNV_OFFSET);
    hasher.feed(&[table]);
    // The sink never fails, and the ledger's rows hold nothing it does not take.
    let fed = key.serialize(&mut hasher).and_then(|()| row.serialize(&mut hasher));
    debug_assert!(fed.is_ok(), "a row holds a value without a canonical form");
    hasher.0
}

struct Hasher(u128);

impl Hasher {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn length(&mut self, length: Option<usize>) -> Result<(), Unsupported> {
        let length = length.ok_or_else(|| Unsupported("a sequence of unknown length".to_owned()))?;
        self.feed(&(length as u64).to_le_bytes());
        Ok(())
    }
}

/// A value that has no canonical form.
#[derive(Debug, thiserror::Error)]
#[error("no canonical form: {0}")]
struct Unsupported(String);

impl ser::Error for Unsupported {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Fed = Result<(), Unsupported>;

impl<'h> ser::Serializer for &'h mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    type SerializeSeq = &'h mut Hasher;
    type SerializeTuple = &'h mut Hasher;
    type SerializeTupleStruct = &'h mut Hasher;
    type SerializeTupleVariant = &'h mut Hasher;
    type SerializeMap = &'h mut Hasher;
    type SerializeStruct = &'h mut Hasher;
    type SerializeStructVariant = Impossible<(), Unsupported>;

    fn serialize_bool(self, v: bool) -> Fed {
        self.serialize_u64(u64::from(v))
    }
    fn serialize_i8(self, v: i8) -> Fed {
        self.serialize_i64(i64::from(v))
    }
    fn serialize_i16(self, v: i16) -> Fed {
        self.serialize_i64(i64::from(v))
    }
    fn serialize_i32(self, v: i32) -> Fed {
        self.serialize_i64(i64::from(v))
    }
    fn serialize_i64(self, v: i64) -> Fed {
        self.feed(&v.to_le_bytes());
        Ok(())
    }
    fn serialize_u8(self, v: u8) -> Fed {
        self.serialize_u64(u64::from(v))
    }
    fn serialize_u16(self, v: u16) -> Fed {
        self.serialize_u64(u64::from(v))
    }
    fn serialize_u32(self, v: u32) -> Fed {
        self.serialize_u64(u64::from(v))
    }
    fn serialize_u64(self, v: u64) -> Fed {
        self.feed(&v.to_le_bytes());
        Ok(())
    }
    fn serialize_u128(self, v: u128) -> Fed {
        self.feed(&v.to_le_bytes());
        Ok(())
    }
    fn serialize_f32(self, _: f32) -> Fed {
        Err(Unsupported("a float".to_owned()))
    }
    fn serialize_f64(self, _: f64) -> Fed {
        Err(Unsupported("a float".to_owned()))
    }
    fn serialize_char(self, v: char) -> Fed {
        self.serialize_u32(u32::from(v))
    }
    fn serialize_str(self, v: &str) -> Fed {
        self.serialize_bytes(v.as_bytes())
    }
    fn serialize_bytes(self, v: &[u8]) -> Fed {
        self.length(Some(v.len()))?;
        self.feed(v);
        Ok(())
    }
    fn serialize_none(self) -> Fed {
        self.serialize_u64(0)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Fed {
        self.feed(&1u64.to_le_bytes());
        value.serialize(self)
    }
    fn serialize_unit(self) -> Fed {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Fed {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Fed {
        self.serialize_u32(index)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Fed {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Fed {
        self.feed(&index.to_le_bytes());
        value.serialize(self)
    }
    fn serialize_seq(self, length: Option<usize>) -> Result<Self, Unsupported> {
        self.length(length)?;
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, Unsupported> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unsupported> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Unsupported> {
        self.feed(&index.to_le_bytes());
        Ok(self)
    }
    fn serialize_map(self, length: Option<usize>) -> Result<Self, Unsupported> {
        self.length(length)?;
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unsupported> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unsupported> {
        Err(Unsupported("a struct variant".to_owned()))
    }
}

impl ser::SerializeSeq for &mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Fed {
        value.serialize(&mut **self)
    }
    fn end(self) -> Fed {
        Ok(())
    }
}

impl ser::SerializeTuple for &mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Fed {
        value.serialize(&mut **self)
    }
    fn end(self) -> Fed {
        Ok(())
    }
}

impl ser::SerializeTupleStruct for &mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Fed {
        value.serialize(&mut **self)
    }
    fn end(self) -> Fed {
        Ok(())
    }
}

impl ser::SerializeTupleVariant for &mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Fed {
        value.serialize(&mut **self)
    }
    fn end(self) -> Fed {
        Ok(())
    }
}

impl ser::SerializeMap for &mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Fed {
        key.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Fed {
        value.serialize(&mut **self)
    }
    fn end(self) -> Fed {
        Ok(())
    }
}

impl ser::SerializeStruct for &mut Hasher {
    type Ok = ();
    type Error = Unsupported;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Fed {
        value.serialize(&mut **self)
    }
    fn end(self) -> Fed {
        Ok(())
    }
}
