//! What a statement gives back, and what a transaction became.

use rota_core::error::Refusal;
use rota_core::transaction::Value;
use rota_core::types::{Height, TransactionId};

/// What became of one transaction, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which.
    pub id: TransactionId,
    /// The block it stood in.
    pub height: Height,
    /// Its place among the transactions of the block, all envelopes counted through.
    pub index: u32,
    /// One result per statement, or why all of them together did nothing.
    pub outcome: Result<Vec<StatementResult>, Refusal>,
}

/// What one statement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementResult {
    /// For the command tag.
    pub kind: StatementKind,
    /// Rows inserted, updated or deleted by the statement itself, without triggers and foreign key
    /// actions; for a `SELECT`, rows returned.
    pub rows_affected: u64,
    /// The rowid of the transaction's newest insert into a rowid table, 0 if there was none.
    pub last_insert_rowid: i64,
    /// What a SELECT or RETURNING gave.
    pub rows: Rows,
}

impl StatementResult {
    /// Of a statement that did nothing.
    pub fn nothing(kind: StatementKind) -> Self {
        Self { kind, rows_affected: 0, last_insert_rowid: 0, rows: Rows::default() }
    }
}

/// A table of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Empty for a statement that returns nothing.
    pub columns: Vec<Column>,
    /// Each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}

/// A result column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name or expression text.
    pub name: String,
    /// The declared type of the table's column that it shows, if it shows one.
    pub declared: Option<String>,
}

/// What a statement is, for PostgreSQL's command tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// SELECT, VALUES, and WITH … SELECT.
    Select,
    /// INSERT and REPLACE.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// COPY … FROM: rows that came as lines of text.
    Copy,
    /// CREATE TABLE.
    CreateTable,
    /// CREATE INDEX.
    CreateIndex,
    /// CREATE VIEW.
    CreateView,
    /// CREATE TRIGGER.
    CreateTrigger,
    /// DROP TABLE.
    DropTable,
    /// DROP INDEX.
    DropIndex,
    /// DROP VIEW.
    DropView,
    /// DROP TRIGGER.
    DropTrigger,
    /// ALTER TABLE.
    AlterTable,
    /// CREATE USER, CREATE ROLE.
    CreateUser,
    /// ALTER USER, ALTER ROLE.
    AlterUser,
    /// DROP USER, DROP ROLE.
    DropUser,
    /// GRANT.
    Grant,
    /// REVOKE.
    Revoke,
    /// EXPLAIN.
    Explain,
    /// BEGIN and START TRANSACTION.
    Begin,
    /// COMMIT and END.
    Commit,
    /// ROLLBACK, without TO.
    Rollback,
    /// SAVEPOINT.
    Savepoint,
    /// RELEASE.
    Release,
    /// ROLLBACK TO.
    RollbackTo,
    /// PRAGMA.
    Pragma,
    /// SET, of PostgreSQL: a front door's matter.
    Set,
    /// SHOW, of PostgreSQL: a front door's matter.
    Show,
    /// No words at all.
    Empty,
    /// Anything else.
    Other,
}

impl StatementKind {
    /// PostgreSQL's command tag for a statement that touched or returned `n` rows.
    pub fn tag(self, n: u64) -> String {
        match self {
            Self::Select => format!("SELECT {n}"),
            Self::Insert => format!("INSERT 0 {n}"),
            Self::Update => format!("UPDATE {n}"),
            Self::Delete => format!("DELETE {n}"),
            Self::Copy => format!("COPY {n}"),
            Self::CreateTable => "CREATE TABLE".into(),
            Self::CreateIndex => "CREATE INDEX".into(),
            Self::CreateView => "CREATE VIEW".into(),
            Self::CreateTrigger => "CREATE TRIGGER".into(),
            Self::DropTable => "DROP TABLE".into(),
            Self::DropIndex => "DROP INDEX".into(),
            Self::DropView => "DROP VIEW".into(),
            Self::DropTrigger => "DROP TRIGGER".into(),
            Self::AlterTable => "ALTER TABLE".into(),
            Self::CreateUser => "CREATE ROLE".into(),
            Self::AlterUser => "ALTER ROLE".into(),
            Self::DropUser => "DROP ROLE".into(),
            Self::Grant => "GRANT".into(),
            Self::Revoke => "REVOKE".into(),
            Self::Explain => "EXPLAIN".into(),
            Self::Begin => "BEGIN".into(),
            Self::Commit => "COMMIT".into(),
            Self::Rollback | Self::RollbackTo => "ROLLBACK".into(),
            Self::Savepoint => "SAVEPOINT".into(),
            Self::Release => "RELEASE".into(),
            Self::Set => "SET".into(),
            Self::Show => "SHOW".into(),
            Self::Pragma | Self::Empty | Self::Other => "OK".into(),
        }
    }
}
