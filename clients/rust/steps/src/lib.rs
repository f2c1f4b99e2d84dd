//! What both Rust programs share: the servers, the values, and one line printed for each step.

use std::fmt::Debug;
use std::process::ExitCode;

/// Why a step failed.
pub type Failure = Box<dyn std::error::Error>;
/// What a step ends with.
pub type Outcome = Result<(), Failure>;

/// How many rows the large result has.
pub const LARGE: i32 = 100_000;
/// Nobody waits for this one: it is there to be cancelled.
pub const COUNT_FOR_EVER: &str = "WITH RECURSIVE n(i) AS (SELECT 1::bigint UNION ALL \
     SELECT i + 1 FROM n WHERE i < 1000000000000) SELECT count(*) FROM n";

/// A query's beginning whose table `n` counts from 1 to [`LARGE`].
pub fn count_to() -> String {
    format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LARGE}) ")
}

/// The servers: the first takes all the statements, the last is asked for the data, too.
pub fn urls() -> Vec<String> {
    let urls = std::env::var("ROTA_URLS");
    let urls = urls.unwrap_or_else(|_| "postgresql://rota@127.0.0.1:5441/rota".into());
    urls.split(',').map(str::to_owned).collect()
}

/// PostgreSQL itself has LISTEN. Everything else is expected to be the same there.
pub fn is_postgresql() -> bool {
    std::env::var("ROTA_REFERENCE").is_ok_and(|reference| reference == "postgresql")
}

/// Fails the step unless the two are equal.
pub fn expect<T: PartialEq + Debug>(got: T, wanted: T) -> Outcome {
    if got == wanted { Ok(()) } else { Err(format!("got {got:?}, not {wanted:?}").into()) }
}

/// Prints a line for each step, and remembers whether one failed.
#[derive(Default)]
pub struct Report {
    failed: bool,
}

impl Report {
    /// One step's line. Its name is the one in docs/clients.md.
    pub fn step(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Ok(()) => println!("ok {name}"),
            Err(failure) => {
                self.failed = true;
                let mut why = failure.to_string();
                let mut cause = failure.source();
                while let Some(deeper) = cause {
                    why = format!("{why}: {deeper}");
                    cause = deeper.source();
                }
                let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
                println!("FAIL {name}: {why}");
            }
        }
    }

    /// What the program ends with.
    pub fn end(&self) -> ExitCode {
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
