//! Rota's server.
pub mod board;
pub mod config;
pub mod driver;
pub mod queues;
pub mod readers;
pub mod status;
