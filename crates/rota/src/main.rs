//! The binary: arguments in, text out. What a server does is in rota-node; here is only what people
//! see of it.
//!
//! ```text
//!   rota dev ──► starts `rota start` once per server ──► rota_node::run
//!   rota init ─► writes the homes that `rota start` takes; rota certificate renews what is in them
//!   rota join ─► writes a home for one more server of an open database
//!   rota follow ► writes one for a server that follows a closed one's members
//!   rota stop ──► asks the process of a server on this machine
//!   rota status, leaders, sql, bench ──► ask running servers, as any other client would
//! ```

mod address;
mod args;
mod certificates;
mod cluster;
mod commands;
mod difficulty;
mod failure;
mod http;
mod postgres;
mod print;
mod stop;
mod trust;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Command, Rota};
use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments = match Rota::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => args::without_passwords(error).exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure::new(format!("starting threads: {error}"))),
    };
    let outcome = runtime.block_on(async {
        match arguments.command {
            Command::Dev(asked) => commands::dev::run(asked).await,
            Command::Init(asked) => commands::init::run(&asked),
            Command::Join(asked) => commands::join::run(asked).await,
            Command::Follow(asked) => commands::follow::run(&asked),
            Command::Certificate(asked) => commands::certificate::run(&asked),
            Command::Start(asked) => commands::start::run(asked).await,
            Command::Stop(asked) => commands::stop::run(asked).await,
            Command::Status(asked) => commands::status::run(asked).await,
            Command::Leaders(asked) => commands::leaders::run(asked).await,
            Command::Sql(asked) => commands::sql::run(asked).await,
            Command::Backup(asked) => commands::backup::run(asked).await,
            Command::Keys(asked) => commands::keys::run(&asked),
            Command::Tx(asked) => commands::tx::run(asked).await,
            Command::Bench(asked) => commands::bench::run(asked).await,
        }
    });
    // What is left is connections that nobody waits for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    if !failure.is_quiet() {
        eprintln!("rota: {failure}");
    }
    ExitCode::FAILURE
}
