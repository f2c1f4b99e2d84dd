//! The PostgreSQL door: psql, drivers, pgbench. Steps 1 and 9 of a transaction's life.
//!
//! ```text
//!  TCP ─► accept ─► startup ─► stream    TLS, passwords, a place
//!                      ▼
//!                   session ─► wire      frames in and out
//!                      │  └──► statement ─► dialect (lexer)   PostgreSQL's spellings
//!                      │            ├─────► commands, catalog what is answered here
//!                      │            └─────► Driver            what is not
//!                      └─────► encode, infer                  types and values
//! ```

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod answers;
mod block;
mod cancel;
mod catalog;
mod commands;
mod context;
mod copy;
mod cursors;
mod dialect;
mod encode;
mod grants;
mod infer;
mod lexer;
mod session;
mod startup;
mod statement;
mod stream;
mod types;
mod variables;
mod wire;

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::auth::Entrance;
use crate::driver::Driver;
use crate::porch::{Closing, Porch};
use startup::Door;

/// Serves PostgreSQL clients until the task is aborted.
pub async fn serve(listener: TcpListener, driver: Driver, entrance: Entrance) -> io::Result<()> {
    let porch = Porch::open("PostgreSQL", &listener);
    let _closing = Closing(porch.clone());
    let door = Arc::new(Door::new(entrance));
    loop {
        let (stream, address) = porch.accept(&listener).await;
        let (driver, door) = (driver.clone(), Arc::clone(&door));
        porch.welcome(address.ip(), |guest| async move {
            if let Err(error) = session::serve(stream, address, driver, &door, guest).await {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
    }
}
