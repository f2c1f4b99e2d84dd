//! The pool of readers: each a thread with a read-only connection of its own, all taking jobs from
//! one bounded queue.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rota_core::error::{Fault, Refusal};
use rota_core::transaction::{Settings, Statement};
use rota_core::types::{Height, TransactionId};
use rota_store::Rows;
use rota_store::access::View;
use rota_store::query::{Beyond, Description, ReadLimits, Reader};
use tokio::sync::oneshot;

use crate::board::Board;
use crate::driver::ReadOptions;
use crate::unfinal::Unfinal;

/// How many readers: enough that one slow query does not stop all others; each holds a connection
/// and a page cache.
pub const READERS: usize = 3;

/// How long one read may run.
pub const READ_TIME: Duration = Duration::from_secs(30);

/// How many rows one read may give: results are held in memory until they are sent.
pub const READ_ROWS: usize = 2_000_000;

/// How many bytes one read may give.
pub const READ_BYTES: usize = 128 << 20;

/// Something to look up.
pub(crate) enum ReadJob {
    /// Execute a statement that only reads.
    Query {
        user: Arc<str>,
        statement: Statement,
        settings: Settings,
        options: ReadOptions,
        reply: oneshot::Sender<Result<Rows, Refusal>>,
    },
    /// Say what a statement takes and gives.
    Describe {
        user: Arc<str>,
        sql: String,
        settings: Settings,
        reply: oneshot::Sender<Result<Description, Refusal>>,
    },
    /// Ask a reader something else.
    Ask(Box<dyn FnOnce(&mut Reader) + Send>),
    /// Run something on a draft.
    Draft(Box<dyn FnOnce() + Send>),
}

/// Starts the readers. They end when all senders of jobs are gone.
pub(crate) fn start(
    home: &Path,
    jobs: &Receiver<ReadJob>,
    (unfinal, board): (&Arc<Unfinal>, &Arc<Board>),
    access: &View,
) -> Result<Vec<JoinHandle<()>>, Fault> {
    (0..READERS)
        .map(|number| {
            let known = Known { unfinal: Arc::clone(unfinal), board: Arc::clone(board) };
            let mut reader = Reader::informed(home, Arc::new(known), access.clone())?;
            let (jobs, board) = (jobs.clone(), Arc::clone(board));
            std::thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || jobs.iter().for_each(|job| run(&mut reader, &board, job)))
                .map_err(|error| Fault::storage("starting a reader's thread", error))
        })
        .collect()
}

/// What this server knows of transactions and blocks, and its files do not tell.
struct Known {
    unfinal: Arc<Unfinal>,
    board: Arc<Board>,
}

impl Beyond for Known {
    fn knows(&self, id: &TransactionId) -> bool {
        // Nobody waits for a write that is answered; who asks this looks into the files again, and
        // must find it there.
        self.unfinal.knows(id) || !self.board.commit_gate.pass()
    }

    fn depth(&self, height: Height) -> Option<String> {
        Some(self.board.depth(height)?.to_string())
    }
}

fn run(reader: &mut Reader, board: &Board, job: ReadJob) {
    if !board.commit_gate.pass() {
        return; // who asked hears that this server is stopping
    }
    match job {
        ReadJob::Query { user, statement, settings, options, reply } => {
            if reply.is_closed() {
                return;
            }
            let limits = ReadLimits {
                deadline: options.until(Instant::now() + READ_TIME),
                cancelled: options.cancel.flag(),
                max_rows: READ_ROWS,
                max_bytes: READ_BYTES,
            };
            // A client that went away does not mind.
            let _ = reply.send(reader.query(&user, &statement, &settings, &limits));
        }
        ReadJob::Describe { user, sql, settings, reply } => {
            let _ = reply.send(reader.describe(&user, &sql, &settings));
        }
        ReadJob::Ask(ask) => ask(reader),
        ReadJob::Draft(run) => run(),
    }
}
