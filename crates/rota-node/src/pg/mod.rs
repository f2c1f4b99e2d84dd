//! The PostgreSQL door: psql, drivers, pgbench. Steps 1 and 9 of a transaction's life.
//!
//! ```text
//!  TCP ─► accept ─► session ─► wire      frames in and out
//!                      │  └──► statement ─► dialect (lexer)   PostgreSQL's spellings
//!                      │            ├─────► commands, catalog what is answered here
//!                      │            └─────► Driver            what is not
//!                      └─────► encode, infer                  types and values
//! ```
//!
//! Not here yet: passwords and TLS, transactions over several statements, COPY, cancelling.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod catalog;
mod commands;
mod dialect;
mod encode;
mod infer;
mod lexer;
mod session;
mod statement;
mod types;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::driver::Driver;

/// How many clients are served at once. Each costs some 20 KB when idle and up to a result's size
/// when not; benchmarks use 128, pools some hundreds.
const MAX_CONNECTIONS: usize = 1_000;

/// How many more are told that there are too many. Beyond that connections are closed without a
/// word.
const MAX_TURNED_AWAY: usize = 100;

/// Serves PostgreSQL clients until the listener fails for good or the task is aborted.
pub async fn serve(listener: TcpListener, driver: Driver) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let porch = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
    let mut process = 0i32;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, or a client that left while it waited. Others are served
                // meanwhile.
                tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        process = process.checked_add(1).unwrap_or(1);
        let (place, crowded) = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => (place, false),
            Err(_) => match Arc::clone(&porch).try_acquire_owned() {
                Ok(place) => (place, true),
                Err(_) => continue,
            },
        };
        let driver = driver.clone();
        tokio::spawn(async move {
            let _place = place;
            // Answers are single small packets: waiting for more to send would only delay them.
            let _ = stream.set_nodelay(true);
            if let Err(error) = session::serve(stream, driver, process, crowded).await {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
    }
}
