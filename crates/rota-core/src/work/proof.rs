//! A proof of work: Bitcoin's header of 80 bytes, with a Rota block's id where Bitcoin has the
//! Merkle root of its transactions. Step 4 ends in one; step 6 begins with one.
//!
//! ```text
//!  0        4                 36                68      72      76      80
//!  │version │ parent's hash   │ block id        │ time  │ bits  │ nonce │   numbers little-endian
//! ```

use std::fmt;

use bitcoin::block::Version;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, CompactTarget, Target, TxMerkleNode};
use borsh::{BorshDeserialize, BorshSerialize};
use rota_hash::sha256;

use crate::types::BlockId;

/// The hash of a header of 80 bytes: SHA-256 of its SHA-256, in the order in which it is hashed.
/// The tree of blocks under `pow` is keyed by it.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct HeaderHash(pub [u8; 32]);

impl HeaderHash {
    /// As a number, which a target is compared with.
    fn number(self) -> BlockHash {
        BlockHash::from_byte_array(self.0)
    }
}

impl fmt::Display for HeaderHash {
    /// As Bitcoin's programs write it: the bytes in reverse, so that the zeros come first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0;
        bytes.reverse();
        f.write_str(&hex::encode(bytes))
    }
}

impl fmt::Debug for HeaderHash {
    /// The last eight digits of what is displayed: the first ones are zeros.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        f.write_str(&hex::encode([d, c, b, a]))
    }
}

impl std::str::FromStr for HeaderHash {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        bytes.reverse();
        Ok(Self(bytes))
    }
}

/// The target that a header's bits stand for, in Bitcoin's compact form: the last three bytes are
/// a number, the first says of how many bytes. `None` where Bitcoin refuses them: negative, zero,
/// or more than 256 bits (`DeriveTarget` in Bitcoin Core's pow.cpp).
pub fn target_of(bits: u32) -> Option<Target> {
    let size = bits >> 24;
    let number = bits & 0x00ff_ffff;
    let negative = number > 0x007f_ffff;
    let too_long = size > 34 || (size > 33 && number > 0xff) || (size > 32 && number > 0xffff);
    let target = Target::from_compact(CompactTarget::from_consensus(bits));
    (!negative && !too_long && target != Target::ZERO).then_some(target)
}

/// A header of 80 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct WorkProof(pub [u8; 80]);

impl WorkProof {
    /// The version that our headers say: BIP 9's with no bit set, as a Bitcoin miner writes it who
    /// signals nothing. Nobody reads it: another one makes another hash, and needs its own work.
    pub const VERSION: i32 = 0x2000_0000;

    /// The header that says this. `time_s` is in seconds since 1970, `bits` a target in compact
    /// form ([`target_of`]).
    pub fn new(previous: HeaderHash, block: BlockId, time_s: u32, bits: u32, nonce: u32) -> Self {
        let header = bitcoin::block::Header {
            version: Version::from_consensus(Self::VERSION),
            prev_blockhash: previous.number(),
            merkle_root: TxMerkleNode::from_byte_array(block.0),
            time: time_s,
            bits: CompactTarget::from_consensus(bits),
            nonce,
        };
        let mut bytes = [0; 80];
        let mut rest: &mut [u8] = &mut bytes;
        bitcoin::consensus::Encodable::consensus_encode(&header, &mut rest)
            .expect("a header has 80 bytes");
        Self(bytes)
    }

    /// `N` of the bytes, from `at` on; both are constants of this file.
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("the place of a field")
    }

    /// Its first field, [`WorkProof::VERSION`] in ours.
    pub fn version(&self) -> i32 {
        i32::from_le_bytes(self.part(0))
    }

    /// The hash of the parent's header.
    pub fn previous(&self) -> HeaderHash {
        HeaderHash(self.part(4))
    }

    /// The block that the work was done for.
    pub fn block(&self) -> BlockId {
        BlockId(self.part(36))
    }

    /// When its finder began, as it says: seconds since 1970.
    pub fn time(&self) -> u32 {
        u32::from_le_bytes(self.part(68))
    }

    /// The target that it says it meets, in compact form.
    pub fn bits(&self) -> u32 {
        u32::from_le_bytes(self.part(72))
    }

    /// What was searched for.
    pub fn nonce(&self) -> u32 {
        u32::from_le_bytes(self.part(76))
    }

    /// SHA-256d of the 80 bytes.
    pub fn hash(&self) -> HeaderHash {
        HeaderHash(sha256(&sha256(&self.0)))
    }

    /// Whether its hash is not above the target that it names itself. Whether that target was due
    /// is another question: [`Difficulty`](super::Difficulty).
    pub fn meets_its_target(&self) -> bool {
        self.checked_hash().is_some()
    }

    /// Its hash, if it [meets its target](WorkProof::meets_its_target).
    pub fn checked_hash(&self) -> Option<HeaderHash> {
        let hash = self.hash();
        target_of(self.bits())?.is_met_by(hash.number()).then_some(hash)
    }
}

impl fmt::Debug for WorkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkProof({:?} on {:?} for {:?}", self.hash(), self.previous(), self.block())?;
        write!(f, " time {} bits {:08x})", self.time(), self.bits())
    }
}
