//! The numbers and names that everything else is about: newtypes, so that a height is never passed
//! where a slot belongs.
//!
//! There is no `From<u64>` for them: to make one is to say what the number means. Arithmetic that
//! could overflow panics (`next`), since no honest cluster lives through 2⁶⁴ of anything; numbers
//! from peers are compared, never added to.

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            BorshSerialize, BorshDeserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! counted {
    ($name:ident) => {
        impl $name {
            /// The next one. Panics at the end of the number range, which nothing reaches by
            /// counting.
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("counted past the end of u64"))
            }

            /// The one before, or `None` at zero.
            pub fn previous(self) -> Option<Self> {
                self.0.checked_sub(1).map(Self)
            }
        }
    };
}

number! {
    /// A block's place in the chain of final blocks: genesis is 0. Blocks have heights, slots may
    /// stay empty.
    Height(u64)
}
number! {
    /// A turn to propose a block; Simplex calls it a view. Genesis stands in slot 0, the first turn
    /// is slot 1.
    Slot(u64)
}
number! {
    /// A span of blocks with one method, one set of members and one schedule.
    Epoch(u64)
}
number! {
    /// A member's share of the votes.
    Weight(u64)
}
number! {
    /// A member's place in its epoch's list of members.
    MemberIndex(u16)
}
counted!(Height);
counted!(Slot);
counted!(Epoch);

impl MemberIndex {
    /// As an index into a slice of all members.
    pub fn position(self) -> usize {
        usize::from(self.0)
    }
}

macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            BorshSerialize, BorshDeserialize,
        )]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            /// The first eight hex digits: enough to tell two apart in a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(&self.0[..4]))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text: std::borrow::Cow<'de, str> =
                    serde::Deserialize::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = hex::FromHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

bytes32! {
    /// The hash of the genesis: which database this is. Every signed byte string starts with it.
    ChainId
}
bytes32! {
    /// The hash of a block's header, signature excluded.
    BlockId
}
bytes32! {
    /// `H(chain, signer, salt)`: known before anything is sent, never a hash of the content.
    TransactionId
}
bytes32! {
    /// The hash of an envelope's signed bytes.
    EnvelopeId
}
bytes32! {
    /// The root of the Merkle tree over all rows (rota-store's `merkle`).
    StateRoot
}
bytes32! {
    /// Any other SHA-256.
    Digest
}
bytes32! {
    /// An Ed25519 public key: who a server or a client is.
    PublicKey
}

/// A server is its public key.
pub type NodeId = PublicKey;
