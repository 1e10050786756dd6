//! Secrets: how an API key is made, hashed and compared. Nothing in here prints one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};
use subtle::ConstantTimeEq;

const MARK: &str = "tok_";
const RANDOM_BYTES: usize = 32;
const LENGTH: usize = MARK.len() + (RANDOM_BYTES * 4).div_ceil(3);
const PREFIX_LENGTH: usize = 12;

/// A key in clear, which exists once: in the answer to the one who made it. Never printed by `Debug`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Makes a key of 32 random bytes.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> std::io::Result<Self> {
        let mut random = [0u8; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(random))))
    }

    /// The key in clear.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Its first characters, for people.
    pub fn prefix(&self) -> &str {
        &self.0[..PREFIX_LENGTH]
    }

    /// What the stores keep of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a key.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Hashes a presented key.
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// Hashes what has the shape of our keys; anything else cannot be one, so that no store needs to be asked.
    pub(crate) fn of_well_formed(presented: &str) -> Option<Self> {
        let random = presented.strip_prefix(MARK)?;
        let well_formed = presented.len() == LENGTH
            && random.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        well_formed.then(|| Self::of(presented))
    }
}

impl PartialEq for KeyHash {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_random_and_recognised() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), LENGTH);
        assert_eq!(one.prefix().len(), 12);
        assert_eq!(KeyHash::of_well_formed(one.expose()), Some(one.hash()));
        assert_ne!(one.hash(), two.hash());
    }

    #[test]
    fn what_is_not_shaped_like_a_key_is_none() {
        let good = Secret::generate().unwrap();
        let cut = &good.expose()[..LENGTH - 1];
        let long = format!("{}A", good.expose());
        let odd = format!("{cut}\u{e9}");
        for presented in ["", "tok_", "sk-abc", cut, long.as_str(), odd.as_str(), " ", &format!("{cut} ")] {
            assert_eq!(KeyHash::of_well_formed(presented), None, "{presented:?}");
        }
    }

    #[test]
    fn neither_a_secret_nor_its_hash_is_printed() {
        let secret = Secret::generate().unwrap();
        let shown = format!("{secret:?} {:?}", secret.hash());
        assert_eq!(shown, "Secret(..) KeyHash(..)");
    }
}
