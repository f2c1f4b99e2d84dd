//! Errors say who is to blame: the client ([`Refusal`]), a peer ([`Invalid`]), or this machine
//! ([`Fault`]).

use thiserror::Error;

/// A client asked for something that cannot be had. It hears `message`; nobody else notices.
#[derive(Clone, Debug, PartialEq, Eq, Error, borsh::BorshSerialize, borsh::BorshDeserialize)]
#[error("{message} (SQLSTATE {})", self.code())]
pub struct Refusal {
    /// The five characters of PostgreSQL's Appendix A, "Error Codes".
    pub sqlstate: [u8; 5],
    /// What is wrong and what to do, in a sentence without a full stop.
    pub message: String,
}

impl Refusal {
    /// A refusal with one of the codes of [`sqlstate`].
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        let sqlstate = sqlstate.as_bytes().try_into().expect("an SQLSTATE has five characters");
        Self { sqlstate, message: message.into() }
    }

    /// The SQLSTATE as text.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.sqlstate).unwrap_or("XX000")
    }
}

/// The SQLSTATE codes that Rota answers with (PostgreSQL, Appendix A).
pub mod sqlstate {
    /// A feature that Rota refuses, mostly because copies could not stay equal.
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    /// A value that the protocol does not allow.
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    /// A value of the wrong type or out of range.
    pub const DATA_EXCEPTION: &str = "22000";
    /// A parameter that is not the text or the bytes that its type asks for.
    pub const INVALID_PARAMETER: &str = "22023";
    /// A constraint of no more particular kind.
    pub const INTEGRITY_VIOLATION: &str = "23000";
    /// NOT NULL.
    pub const NOT_NULL_VIOLATION: &str = "23502";
    /// A foreign key, deferred ones included.
    pub const FOREIGN_KEY_VIOLATION: &str = "23503";
    /// UNIQUE or PRIMARY KEY.
    pub const UNIQUE_VIOLATION: &str = "23505";
    /// CHECK.
    pub const CHECK_VIOLATION: &str = "23514";
    /// A statement that may not stand where it stands (BEGIN inside a batch, say).
    pub const INVALID_TRANSACTION_STATE: &str = "25000";
    /// A write where only reads are allowed.
    pub const READ_ONLY: &str = "25006";
    /// What the client was shown is no longer so; trying again helps.
    pub const SERIALIZATION_FAILURE: &str = "40001";
    /// Signed and sent, but not known to be final; ask with `rota_transaction('id')`.
    pub const OUTCOME_UNKNOWN: &str = "40003";
    /// SQL that SQLite does not understand.
    pub const SYNTAX_ERROR: &str = "42601";
    /// No such user, or not any more.
    pub const INVALID_AUTHORIZATION: &str = "28000";
    /// A password that is wrong, or a user that is not there: the answer is the same.
    pub const INVALID_PASSWORD: &str = "28P01";
    /// No such role.
    pub const UNDEFINED_OBJECT: &str = "42704";
    /// The role is there already.
    pub const DUPLICATE_OBJECT: &str = "42710";
    /// Not allowed.
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    /// No such column.
    pub const UNDEFINED_COLUMN: &str = "42703";
    /// No such function.
    pub const UNDEFINED_FUNCTION: &str = "42883";
    /// No such table.
    pub const UNDEFINED_TABLE: &str = "42P01";
    /// The table is there already.
    pub const DUPLICATE_TABLE: &str = "42P07";
    /// A queue is full: busy, try again.
    pub const BUSY: &str = "53000";
    /// A limit that trying again will not lift: a cost budget or a size.
    pub const TOO_COMPLEX: &str = "54000";
    /// A statement or transaction over its budget.
    pub const STATEMENT_TOO_COMPLEX: &str = "54001";
    /// No quorum in reach, or the server is stopping.
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    /// A statement took longer than this server lets a read run.
    pub const QUERY_CANCELED: &str = "57014";
    /// Anything inside this server.
    pub const INTERNAL: &str = "XX000";
}

/// Bytes from a peer that an honest server would not have sent. The peer pays; nothing else
/// happens.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// Not the canonical encoding of anything.
    #[error("bytes that are not canonically encoded: {0}")]
    Encoding(String),
    /// A signature that does not verify, by the named signer.
    #[error("a bad signature by {0}")]
    Signature(crate::types::PublicKey),
    /// A signer, voter or leader that is not a member.
    #[error("not a member: {0}")]
    NotAMember(String),
    /// A certificate whose votes do not make a quorum, or not for what it claims.
    #[error("a certificate that proves nothing: {0}")]
    Certificate(&'static str),
    /// A block or envelope that breaks a rule.
    #[error("{0}")]
    Rule(&'static str),
}

/// This machine or this program cannot go on: disk trouble, corruption, a broken invariant. The
/// server stops.
#[derive(Debug, Error)]
pub enum Fault {
    /// The disk or SQLite's files.
    #[error("{doing}: {error}")]
    Storage {
        /// What was being done.
        doing: String,
        /// What went wrong.
        error: String,
    },
    /// This server's state is not the cluster's.
    #[error("{0}")]
    Diverged(String),
    /// The files belong to another database, another version, or do not fit together.
    #[error("{0}")]
    WrongFiles(String),
}

impl Fault {
    /// Disk or SQLite trouble while doing something.
    pub fn storage(doing: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self::Storage { doing: doing.into(), error: error.to_string() }
    }
}
