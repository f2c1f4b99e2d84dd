//! SHA-256, the one hash of Rota: hardware has it, browsers have it, Bitcoin and Solana prove with
//! it.
//!
//! Everything hashed here is **domain-separated**: the first thing hashed is the length and name of
//! what it is, so that the bytes of a vote can never be read as the bytes of a block.

mod mining;

pub use mining::{Kernel, Midstate};
use sha2::{Digest, Sha256};

/// What a hash function of this crate returns.
pub type Sha256Digest = [u8; 32];

/// A running domain-separated hash.
#[derive(Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Starts a hash of the kind `domain`, at most 255 bytes long.
    pub fn new(domain: &str) -> Self {
        let length = u8::try_from(domain.len()).expect("a domain is a short constant of ours");
        let mut sha = Sha256::new();
        sha.update([length]);
        sha.update(domain.as_bytes());
        Self(sha)
    }

    /// Adds bytes. No length is added: callers hash fixed-size fields, or one encoded value.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// The digest of all that was added.
    pub fn finish(self) -> Sha256Digest {
        self.0.finalize().into()
    }
}

/// The domain-separated hash of the parts, one after another.
pub fn hash(domain: &str, parts: &[&[u8]]) -> Sha256Digest {
    let mut hasher = Hasher::new(domain);
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

/// Plain SHA-256 without a domain, for what other programs define: Bitcoin's headers, the
/// hash-chain clock.
pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_agrees_with_fips_180_4() {
        // FIPS 180-4, the one-block example "abc".
        let expected = [
            0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae,
            0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61,
            0xf2, 0x00, 0x15, 0xad,
        ];
        assert_eq!(sha256(b"abc"), expected);
    }

    #[test]
    fn domains_separate() {
        assert_ne!(hash("ab", &[b"c"]), hash("a", &[b"bc"]));
    }
}
