//! `rota start`: one server, in the foreground.

use std::io::Read;

use rota_node::{RunOptions, ServerError};
use tracing_subscriber::EnvFilter;

use crate::args::Start;
use crate::failure::Failure;
use crate::stop::Stop;

/// What is logged unless `RUST_LOG` says otherwise: Rota's own words, and what its libraries find
/// worth a warning. Kademlia warns each server that is the first one to come up.
const LOGGED: &str = "warn,libp2p_kad=error,rota=info,rota_node=info,rota_store=info";

/// Runs until it is stopped.
pub async fn run(asked: Start) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGGED));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let failed = |error: ServerError| Failure::new(format!("{}: {error}", asked.home.display()));
    let mut stop = Stop::new()?;
    let options = RunOptions {
        insecure: asked.insecure,
        mine_threads: asked.mine_threads,
        mine_share: asked.mine_share,
    };
    let asked_to = async {
        tokio::select! {
            () = stop.asked() => {}
            () = stdin_closed(), if asked.stop_with_stdin => {}
        }
    };
    rota_node::run_until(&asked.home, options, asked_to).await.map_err(failed)
}

/// Ends when standard input does. A thread, since a read of standard input cannot be cancelled.
async fn stdin_closed() {
    let (closed, waiting) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        let _ = closed.send(());
    });
    let _ = waiting.await;
}
