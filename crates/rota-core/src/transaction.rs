//! What clients ask for: statements in a transaction, transactions in a signed envelope.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::encode;
use crate::crypto::{SecretKey, Signature, Signed};
use crate::error::Invalid;
use crate::time::Time;
use crate::types::{ChainId, Digest, EnvelopeId, Height, PublicKey, TransactionId};

/// The largest encoded envelope. Smaller than the smallest allowed block less its header and
/// certificate.
pub const MAX_ENVELOPE_BYTES: usize = 3 << 20;

/// How far ahead of a block's height an envelope's expiry may lie; the same in time is
/// `genesis::Parameters::max_expiry`.
pub const MAX_EXPIRY_BLOCKS: u64 = 1_000_000;

/// A value as SQLite stores it. Reals are compared and hashed by their bits; NaN is stored as NULL,
/// as SQLite does.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Value {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL, as IEEE 754 bits: see [`Value::real`] and [`Value::as_real`].
    Real(u64),
    /// TEXT, UTF-8.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

impl Value {
    /// A REAL; NaN becomes NULL.
    pub fn real(number: f64) -> Self {
        if number.is_nan() { Self::Null } else { Self::Real(number.to_bits()) }
    }

    /// The number of a REAL.
    pub fn as_real(&self) -> Option<f64> {
        match self {
            Self::Real(bits) => Some(f64::from_bits(*bits)),
            _ => None,
        }
    }
}

/// A parameter of a statement: by position, or by name with its prefix (`:a`, `@a`, `$a`).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Parameters {
    /// `?`, `?1`, `$1`.
    Positional(Vec<Value>),
    /// `:name`, `@name`, `$name`; names without their prefix, sorted and unique.
    Named(Vec<(String, Value)>),
}

/// One SQL statement with its parameters.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Statement {
    /// Exactly one statement of SQLite's dialect.
    pub sql: String,
    /// What to bind.
    pub parameters: Parameters,
}

/// The session settings that the meaning of a statement depends on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Settings {
    /// Whether "double-quoted" words that name no column are string literals: rqlite's clients rely
    /// on it, PostgreSQL's must not.
    pub double_quoted_strings: bool,
    /// The session's time zone; only `UTC` as yet.
    pub time_zone: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { double_quoted_strings: false, time_zone: "UTC".into() }
    }
}

/// What an interactive transaction was shown on its draft.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Interactive {
    /// The time of BEGIN, which is `now` on the draft and at apply.
    pub begun: Time,
    /// The hash of all that the client was shown.
    pub seen: Digest,
    /// The numbers that it drew from sequences, in order: they were reserved before, so that
    /// transactions that run at the same time are given different ones.
    pub values: Vec<i64>,
}

/// Statements that happen together or not at all, once.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transaction {
    /// Makes the id unique; 16 bytes of a good random source.
    pub salt: [u8; 16],
    /// In whose name.
    pub user: String,
    /// What to do, in order; at least one.
    pub statements: Vec<Statement>,
    /// What the statements' meaning depends on.
    pub settings: Settings,
    /// Present if it ran on a draft first.
    pub interactive: Option<Interactive>,
}

impl Transaction {
    /// Known before anything is sent; covers neither content nor signature, so that a retry has the
    /// same id.
    pub fn id(&self, chain: ChainId, signer: PublicKey) -> TransactionId {
        Self::id_of(chain, signer, &self.salt)
    }

    /// The id of the transaction that will have this salt.
    pub fn id_of(chain: ChainId, signer: PublicKey, salt: &[u8; 16]) -> TransactionId {
        TransactionId(rota_hash::hash("rota transaction", &[&chain.0, &signer.0, salt]))
    }
}

/// After this an envelope can no longer enter the chain: whichever of the two comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Expiry {
    /// The last height at which it may stand.
    pub height: Height,
    /// The last block time at which it may stand.
    pub time: Time,
}

impl Expiry {
    /// Whether an envelope may no longer stand in a block of this height and time.
    pub fn has_passed(&self, height: Height, time: Time) -> bool {
        height > self.height || time > self.time
    }

    /// Whether it lies further ahead of such a block than ids are remembered.
    pub fn is_too_far(&self, height: Height, time: Time, most: Duration) -> bool {
        self.height.0.saturating_sub(height.0) > MAX_EXPIRY_BLOCKS || self.time.since(time) > most
    }
}

/// Transactions of one signer under one signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Envelope {
    /// A server, for the clients that log in to it, or a client with a key of its own.
    pub signer: PublicKey,
    /// Until when it may enter the chain.
    pub expiry: Expiry,
    /// At least one.
    pub transactions: Vec<Transaction>,
    /// Over [`Envelope::signed_bytes`].
    pub signature: Signature,
}

impl Envelope {
    /// Signs transactions.
    pub fn sign(
        chain: ChainId,
        key: &SecretKey,
        expiry: Expiry,
        transactions: Vec<Transaction>,
    ) -> Self {
        Self::sign_by(chain, key.public(), expiry, transactions, |message| key.sign(message))
    }

    /// The same by another way to make the signer's signatures (RFC 8032) than [`SecretKey`]'s.
    pub fn sign_by(
        chain: ChainId,
        signer: PublicKey,
        expiry: Expiry,
        transactions: Vec<Transaction>,
        sign: impl FnOnce(&[u8]) -> Signature,
    ) -> Self {
        let mut envelope = Self { signer, expiry, transactions, signature: Signature([0; 64]) };
        envelope.signature = sign(&envelope.signed_bytes(chain));
        envelope
    }

    /// What the signature covers: what it is, the chain, and the digest of all but the signature.
    pub fn signed_bytes(&self, chain: ChainId) -> Vec<u8> {
        [b"rota envelope".as_slice(), &chain.0, &self.content_digest()].concat()
    }

    /// Covers everything but the signature.
    pub fn id(&self) -> EnvelopeId {
        EnvelopeId(self.content_digest())
    }

    /// The signature as a claim to check.
    pub fn claim(&self, chain: ChainId) -> Signed {
        Signed { signer: self.signer, message: self.signed_bytes(chain), signature: self.signature }
    }

    /// Whether it is well formed, whatever its signature and expiry.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.transactions.is_empty() {
            return Err(Invalid::Rule("an envelope without transactions"));
        }
        if self.transactions.iter().any(|transaction| transaction.statements.is_empty()) {
            return Err(Invalid::Rule("a transaction without statements"));
        }
        Ok(())
    }

    fn content_digest(&self) -> [u8; 32] {
        let mut hasher = rota_hash::Hasher::new("rota envelope");
        hasher.update(&encode(&(&self.signer, &self.expiry)));
        hasher.update(&encode(&self.transactions));
        hasher.finish()
    }
}
