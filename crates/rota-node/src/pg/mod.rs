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
//! Not here yet: passwords and TLS.

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
mod infer;
mod lexer;
mod porch;
mod session;
mod statement;
mod types;
mod variables;
mod wire;

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::driver::Driver;
use cancel::Sessions;
use porch::{Places, Porch};

/// How long a connection may be silent on the network before the client's machine is asked whether
/// it is still there, how often it is asked, and how many answers may be missing.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_MISSING: u32 = 4;

/// How long to wait when no connection can be accepted: others may end meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves PostgreSQL clients until the listener fails for good or the task is aborted.
pub async fn serve(listener: TcpListener, driver: Driver) -> io::Result<()> {
    let porch = Porch::new(Places::default());
    let sessions = Sessions::default();
    loop {
        let room = porch.room().await;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a client that left while it waited. Others are served
                // meanwhile.
                tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(guest) = porch.arrive(address.ip(), room) else { continue };
        let (driver, sessions) = (driver.clone(), sessions.clone());
        tokio::spawn(async move {
            adjust(&stream);
            if let Err(error) = session::serve(stream, driver, guest, sessions).await {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
    }
}

/// What the kernel is to do for a connection. It works without, so failing is no reason to end it.
fn adjust(stream: &TcpStream) {
    // Answers are single small packets: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_MISSING);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
