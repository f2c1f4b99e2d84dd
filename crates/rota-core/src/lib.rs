//! The deciding code of Rota: pure, deterministic, tested under a simulator that owns time, network
//! and disks.
//!
//! A transaction's life has nine steps; those in capitals are here:
//!
//! ```text
//!  1 session    SQL arrives at a server                        rota-node  pg, http
//!  2 driver     it becomes a signed envelope                   rota-node  driver
//!  3 ADMIT      checked, remembered, sent to the leader        replica/admit, mempool
//!  4 PROPOSE    our turn: fill a block, sign it                replica/propose, consensus/schedule
//!  5 transport  the block travels                              rota-node  transport
//!  6 VALIDATE   was it their turn? is it well formed? vote     replica/validate, consensus/bft
//!  7 FINALIZE   it can no longer change                        replica/finalize, chain
//!  8 apply      one block, one SQLite transaction              rota-store apply
//!  9 reply      the server that took the SQL answers           rota-node  driver
//! ```
//!
//! Nothing here does I/O, reads a clock, starts a thread or draws randomness: what happens comes in
//! as [`replica::Input`], what is to be done goes out as [`replica::Output`], and the same inputs
//! give the same outputs.

pub mod block;
pub mod chain;
pub mod codec;
pub mod consensus;
pub mod crypto;
pub mod error;
#[cfg(test)]
mod four_members;
pub mod genesis;
pub mod journal;
pub mod members;
pub mod mempool;
pub mod message;
pub mod people;
pub mod replica;
pub mod time;
pub mod transaction;
pub mod types;
pub mod verify;
pub mod work;
