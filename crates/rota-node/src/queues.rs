//! Every queue of a server, and how much it holds. Nothing in a server waits in anything that is
//! not bounded here.
//!
//! ```text
//!  doors ──────────(signed at once)──────────┐
//!    ├──WRITES──► signer ──────────────────┐ │            ┌──EXECUTION──► executor ──► receipts
//!    └──READS──► readers                   ▼ ▼            │                  │
//!  peers ──CHECKS──► checkers ──────────► INPUTS ──► replica ◄───(results)───┘
//!    └─────────────(raft's)──────────────────┘ ▲ ▲        │
//!  readers, driver ──QUESTIONS─────────────────┘ └ clock  └──outboxes──► peers
//! ```
//!
//! What happens when one is full: WRITES and READS refuse the client (53000). CHECKS and INPUTS
//! make the sender wait, and so, through the flow control of its connection, the peer. An outbox
//! drops its oldest message: the protocol repeats. The replica never waits for the executor: what
//! does not fit in EXECUTION stays with it, and until that has drained it takes no more inputs but
//! results, so the two can never wait for each other.

/// Transactions of this server's clients that wait to be signed: two full blocks of
/// single-statement transactions.
pub const WRITES: usize = 16_384;

/// Bytes of statements and parameters among them: with the envelopes in flight, what clients can
/// make a server hold.
pub const WRITES_BYTES: usize = 64 << 20;

/// Reads that wait for a reader: some hundred milliseconds of small ones.
pub const READS: usize = 4_096;

/// Messages of one stream kind that wait to be checked.
pub const CHECKS: usize = 1_024;

/// Bytes of peers' messages of one stream kind, from the socket until the replica has seen them: a
/// few of the largest. Peers wait their turn for it, one message each, so that none can keep the
/// others out.
pub const CHECKS_BYTES: usize = 64 << 20;

/// Checked inputs that wait for the replica.
pub const INPUTS: usize = 1_024;

/// Final blocks that wait for the executor: more than the default `lag`, at which leaders stop
/// filling blocks.
pub const EXECUTION: usize = 128;

/// Blocks that may be executed before they are final (`raft`) and wait for their turn: more than a
/// leader has on their way at once. What there is no room for is executed when it is final.
pub const AHEAD: usize = 8;

/// States that wait to be copied, beside the one that is: while one waits, the write-ahead log
/// grows.
pub const SNAPSHOTS: usize = 1;

/// Questions about what is not final that wait for the replica's thread: more than there are
/// readers and clients who ask at once. When it is full the client is refused (53000).
pub const QUESTIONS: usize = 1_024;

/// The most inputs that the replica takes before it makes what they ask for durable: one flush for
/// all of them, and no longer than some milliseconds until the first of them is answered.
pub const INPUT_BATCH: usize = 128;

/// The most messages that a checker takes at once: a batch of this size verifies two to three times
/// as fast per signature as single ones; larger ones gain little.
pub const CHECK_BATCH: usize = 64;

/// Messages to one peer that wait for its votes stream.
pub const OUTBOX_VOTES: usize = 1_024;

/// Messages to one peer that wait for its blocks stream.
pub const OUTBOX_BLOCKS: usize = 256;

/// Bytes to one peer that wait for one of its streams: two of the largest messages.
pub const OUTBOX_BYTES: usize = 48 << 20;

/// The same where anybody may connect and there are 32 of them: some answers of the usual size, and
/// always the newest message, however large.
pub const OPEN_OUTBOX_BYTES: usize = 8 << 20;
