//! Rota's server: all that is sockets, threads and time.
//!
//! ```text
//!             PostgreSQL clients      HTTP clients                       peers (TCP; pow: QUIC)
//!  async            pg                    http                             transport
//!  (tokio)           └───────┬─────────────┘                            ▲        │
//!                          driver                                       │        ▼
//!  ───────────────── reads ┴ writes ──────────────────────────────────  │  ── inboxes ──
//!  threads        │             │                                       │        │
//!           reader × 3       signer ──► INPUTS ◄────────────────── checker: votes, blocks
//!               │                         │                             │
//!               │                      replica ── messages ─────────────┘
//!               │                     (chain.db) ── final blocks ──► executor ──► receipts: driver
//!           state.db ◄─────────────────────────────────────────── (state.db)
//! ```
//!
//! One thread owns the replica and the durable log, one the users' database, so neither needs a
//! lock. [`queues`] lists what lies between. A thread that cannot go on (a `Fault`) stops the
//! server.

mod agenda;
mod anew;
pub mod auth;
pub mod board;
mod checker;
pub mod clock;
mod commit_gate;
pub mod config;
pub mod driver;
mod executor;
mod files;
mod flow;
pub mod http;
mod mailbox;
mod miner;
mod pending;
pub mod pg;
mod porch;
pub mod queues;
pub mod readers;
mod replica_thread;
mod server;
mod signer;
mod snapshots;
pub mod status;
pub mod threads;
pub mod tls;
pub mod transport;
mod unfinal;

pub use anew::{Anew, Ended};
pub use config::{HomeLock, PeerConfig, ServerConfig, create_home};
pub use driver::{Driver, WriteError, Written};
pub use server::{RunOptions, Server, ServerError, run, run_until};
pub use status::{ServerStatus, State};
