//! Rota's state machine: SQLite, used strictly. Blocking: no async, no network.
//!
//! Step 8 of a transaction's nine: a final block is applied, as one SQLite transaction in which
//! every client transaction is one savepoint.
//!
//! ```text
//!   home/state.db   the users' tables, and rota_* system tables         [`state`], read by `query`
//!                     sqlite   the raw interface, the only unsafe code
//!                     sql      what a statement is, by its words    policy   what it may touch
//!                     determinism   what must not differ between servers
//!                     merkle   the root over all rows, fed by the preupdate hook
//!   home/chain.db   final blocks, certificates, votes, receipts  `chain_db`, driven by `host`
//! ```
//!
//! A block and its certificate are in `chain.db`, fsynced, before it is applied; so `state.db` is
//! never ahead of it, and is rebuilt from it after a power loss.

pub mod access;
pub mod accounts;
mod ahead;
mod apply;
pub mod backup;
pub mod bind;
mod capture;
pub mod catalog;
pub mod chain_db;
pub mod copy;
pub mod datetime;
pub mod determinism;
pub mod draft;
mod engine;
pub mod error;
pub mod files;
mod fold;
pub mod functions;
pub mod host;
pub mod merkle;
pub mod policy;
pub mod query;
mod recent;
mod remembered;
mod replay;
mod run;
mod savepoints;
mod schema;
mod seen;
pub mod sequences;
pub mod snapshot;
pub mod sql;
pub mod sqlite;
pub mod staged;
pub mod state;
mod texts;
pub mod value;
pub use query::{Description, Parameter, ReadLimits, Reader};

pub use state::{AppliedBlock, DifferingRow, Rescan, StateDb};
pub use value::{Column, Receipt, Rows, StatementKind, StatementResult};
