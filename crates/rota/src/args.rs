//! What `rota` can be asked to do, and what it says about itself. The texts here are the manual:
//! every command shows how it is used.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand, ValueEnum};
use rota_core::genesis::Method;

use crate::address::{Address, without_password};
use crate::commands::follow;
use crate::commands::join::{self, Join};

/// A replicated SQL database whose servers take turns.
///
/// Every server holds the whole database and answers reads from its own copy. The servers agree,
/// block by block, whose turn it is to write; so all copies stay equal, and provably so.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = ROTA_HELP)]
pub struct Rota {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What is wrong with the command line, without the passwords in it: errors are copied into logs
/// and letters.
pub fn without_passwords(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
    {
        if let Some(ContextValue::String(text)) = error.get(kind) {
            let shown = without_password(text);
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}

const ROTA_HELP: &str = "\
Try it:
  rota dev                                             four servers on this machine
  rota dev --method raft                               three, one of which is elected
  rota sql postgres://rota@127.0.0.1:5441/rota         a shell on the first
  rota status http://127.0.0.1:4001 http://127.0.0.1:4002

Exit codes:
  0  it worked
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine, each server a process of its own
    #[command(after_help = DEV_HELP)]
    Dev(Dev),
    /// Write a genesis and one home folder per server, for real machines
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// Make a home for a new server of an open database (pow)
    #[command(after_help = join::HELP)]
    Join(Join),
    /// Make a home for a server that holds a cluster's data and never votes (poa, raft)
    #[command(after_help = follow::HELP)]
    Follow(follow::Follow),
    /// Make a new certificate for a server: before the old one ends, or for other names
    #[command(after_help = CERTIFICATE_HELP)]
    Certificate(Certificate),
    /// Run one server
    #[command(after_help = START_HELP)]
    Start(Start),
    /// Stop servers of this machine, each of them after it has handed its turn over
    #[command(after_help = STOP_HELP)]
    Stop(Stop),
    /// Show where servers stand, and whether their copies are equal
    #[command(after_help = STATUS_HELP)]
    Status(Status),
    /// Show who led when, and by what right
    #[command(after_help = LEADERS_HELP)]
    Leaders(Leaders),
    /// A shell for SQL; or one statement, or a script from a pipe
    #[command(after_help = SQL_HELP)]
    Sql(Sql),
    /// Write a copy of the database to a file
    #[command(after_help = BACKUP_HELP)]
    Backup(Backup),
    /// Make keys for users who sign for themselves
    #[command(subcommand, after_help = KEYS_HELP)]
    Keys(Keys),
    /// Sign a transaction with its user's own key, and send it
    #[command(after_help = TX_HELP)]
    Tx(Tx),
    /// Measure how many transactions a cluster takes, and how fast it answers
    #[command(after_help = BENCH_HELP)]
    Bench(Bench),
}

/// How the servers find out whose turn it is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Election: one leader for a term; survives crashes, not lies
    Raft,
    /// Authority: known members take turns; survives under a third that lie
    Poa,
    /// Work: whoever finds the hash; anybody may, final by depth
    Pow,
}

impl From<Rule> for Method {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Raft => Self::Raft,
            Rule::Poa => Self::Poa,
            Rule::Pow => Self::Pow,
        }
    }
}

/// Whom to trust, for commands that talk to servers.
#[derive(Clone, Debug, Default, Args)]
pub struct Authority {
    /// The certificate of the cluster's authority: servers over TLS must have theirs from it [env:
    /// ROTA_CA]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

const DEV_HELP: &str = "\
Server i listens on 127.0.0.1: PostgreSQL on 5440+i, HTTP on 4000+i, other servers on 7000+i \
(TCP; with pow UDP), all plus the offset. User and database are `rota`; there is no password \
until one is set (ALTER USER rota PASSWORD '…'; from then on give it in ROTA_PASSWORD). Ctrl-C \
stops all servers that this command started; the next `rota dev` on the same home carries on where \
they stopped.

Under `pow` every server mines, one thread at a tenth of a core each, and a block comes every two \
seconds or so: how much work that is, is measured when the home is made, and stands in its genesis.

The home is ./rota-dev unless --home says otherwise: in sight, so that its logs and databases are \
easily looked at and removed, and short enough to type after `rota start --home`.

Examples:
  rota dev
  rota dev --servers 7 --home /tmp/seven --port-offset 100
  rota dev --method raft --home raft --port-offset 200
  rota dev --method pow --home pow --port-offset 300
  rota dev --fresh                        throw the old databases away first
  kill -9 PID; rota start --home rota-dev/server-3    lose a server, bring it back

Exit codes:
  0  stopped by Ctrl-C
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// `rota dev`.
#[derive(Debug, Args)]
pub struct Dev {
    /// How it is found out whose turn it is; poa unless the home already has another method
    #[arg(long, value_enum)]
    pub method: Option<Rule>,
    /// How many servers; 4 (raft: 3) unless the home already has another number
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub servers: Option<u16>,
    /// Where the servers keep their files
    #[arg(long, default_value = "rota-dev", value_name = "DIR")]
    pub home: PathBuf,
    /// Delete what an earlier `rota dev` left in the home (and nothing else)
    #[arg(long)]
    pub fresh: bool,
    /// Added to every port
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub port_offset: u16,
}

const INIT_HELP: &str = "\
Beside a home for each server, --out gets a certificate authority (ca.crt for clients, ca.key to \
be kept), and the first user's key and password. PostgreSQL's protocol and HTTP are served on \
127.0.0.1, or where --listen says, over TLS. A host that is named several times gets several \
servers, each with ports of its own. Between servers everything is encrypted and only members are \
let in.

Examples:
  rota init --servers db1.example.org,db2.example.org,db3.example.org,db4.example.org --out cluster
  rota init --servers 10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4 --out cluster --listen 0.0.0.0
  rota init --method raft --servers db1.example.org,db2.example.org,db3.example.org --out cluster
  rota init --method pow --servers db1.example.org,db2.example.org --spacing 30 --out cluster
  scp -r cluster/server-1 db1.example.org:rota; ssh db1.example.org rota start --home rota

Exit codes:
  0  written
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// `rota init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The machines, by host name or address, in the order of their turns
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST,…")]
    pub servers: Vec<String>,
    /// Where to write: must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A name for the cluster
    #[arg(long, default_value = "rota")]
    pub name: String,
    /// The address that clients are served on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub listen: IpAddr,
    /// The port for PostgreSQL's protocol
    #[arg(long, default_value_t = 5441, value_name = "PORT")]
    pub postgres_port: u16,
    /// The port for HTTP
    #[arg(long, default_value_t = 4001, value_name = "PORT")]
    pub http_port: u16,
    /// The port for the other servers (TCP; with pow UDP)
    #[arg(long, default_value_t = 7001, value_name = "PORT")]
    pub peer_port: u16,
    /// The first user, who may do everything
    #[arg(long, default_value = "rota", value_name = "NAME")]
    pub administrator: String,
    /// Let servers change users and grants for administrators that log in by password; otherwise
    /// only their own keys can. Under raft it is so in any case
    #[arg(long)]
    pub trusted_servers: bool,
    /// How it is found out whose turn it is
    #[arg(long, value_enum, default_value_t = Rule::Poa)]
    pub method: Rule,
    #[command(flatten)]
    pub work: Work,
}

/// What a new database under `pow` is to be like.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "With --method pow")]
pub struct Work {
    /// The time between two blocks that the difficulty is kept at, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub spacing: Option<u32>,
    /// So many blocks deep is final [default: 6]
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub depth: Option<u32>,
    /// What the finder of a block is paid [default: 50000000]
    #[arg(long, value_name = "AMOUNT")]
    pub reward: Option<u64>,
    /// What a transaction costs for each started 1,000 bytes; with 0 writing needs a grant
    /// [default: 0]
    #[arg(long, value_name = "AMOUNT")]
    pub fee_per_kb: Option<u64>,
    /// The hashes a second that the first blocks are made for; more or less of them change the
    /// difficulty soon [default: one core of this machine for each server]
    #[arg(long, value_name = "HASHES", value_parser = clap::value_parser!(u64).range(1..))]
    pub hash_rate: Option<u64>,
    /// How the difficulty follows the pace of blocks [default: asert]
    #[arg(long, value_enum)]
    pub retarget: Option<Follow>,
}

/// How the difficulty follows the pace of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Follow {
    /// After each block, by how far the chain is ahead of its schedule (aserti3-2d)
    Asert,
    /// After each 2,016 blocks, by how long they took
    Bitcoin,
}

const CERTIFICATE_HELP: &str = "\
Run it where ca.key is. The server's home gets a new tls.crt, tls.key and ca.crt; a running server \
uses them within a minute, without a restart. Without names, the certificate that is there is made \
anew for the names in it.

Examples:
  rota certificate --ca cluster --home rota                  renew, on a machine with both
  rota certificate --ca cluster --home new db1.example.org 10.0.0.1
  scp new/tls.key new/tls.crt db1.example.org:rota           the key first

Exit codes:
  0  written
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// `rota certificate`.
#[derive(Debug, Args)]
pub struct Certificate {
    /// The folder with ca.crt and ca.key, as `rota init` wrote it
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// The server's home folder, or any other to write to
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// The names and addresses by which clients know the server; localhost is always added
    #[arg(value_name = "HOST")]
    pub names: Vec<String>,
}

const START_HELP: &str = "\
Examples:
  rota start --home rota-dev/server-3
  RUST_LOG=debug rota start --home /var/lib/rota
  rota start --home pow/server-2 --mine-threads 2 --mine-share 50

The server runs in the foreground, logs to standard error, and stops on Ctrl-C or SIGTERM: a \
leader that was elected has another one elected first. `rota stop` does the same from elsewhere.

Exit codes:
  0  stopped when asked to
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// `rota start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The server's home folder, as `rota init` or `rota dev` wrote it
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
    /// Serve clients without TLS on other addresses than this machine's own: whoever is in between
    /// reads and changes what they send
    #[arg(long)]
    pub insecure: bool,
    /// Search for blocks with so many threads (pow); 0 does not mine. Else as server.toml says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_024))]
    pub mine_threads: Option<u32>,
    /// Each of them for so many percent of a core's time
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub mine_share: Option<u8>,
    /// Stop when standard input closes: so no server outlives the `rota dev` that started it
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

const STOP_HELP: &str = "\
Nothing that was acknowledged needs an orderly stop: it spares those who write the time until \
others notice. A server is asked by SIGTERM, so this works on its own machine, for whoever may \
signal its process.

Examples:
  rota stop --home rota-dev/server-3
  rota stop 127.0.0.1:4003

Exit codes:
  0  stopped
  1  a server does not run here, cannot be asked, or still runs after 15 s: the last line says which
  2  the command line was not understood";

/// `rota stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// The servers' HTTP addresses, on this machine
    #[arg(required_unless_present = "home", value_name = "URL")]
    pub servers: Vec<Address>,
    /// Or their home folders
    #[arg(long, value_name = "DIR")]
    pub home: Vec<PathBuf>,
    #[command(flatten)]
    pub authority: Authority,
}

const LEADERS_HELP: &str = "\
A line of the table is a run of blocks that one server led one after the other. The right is what \
anyone can check: the turn of the rota (poa), an election for a term (raft), a hash below a target \
(pow). The picture below has a column for each block, or for some where the terminal is narrower; \
slots that passed without a block are not in it. Only final blocks are shown, those that the \
server still has.

Examples:
  rota leaders 127.0.0.1:4001
  rota leaders 127.0.0.1:4001 --last 1000
  rota leaders 127.0.0.1:4001 --json | jq -r '.runs[] | [.from, .to, .server] | @tsv'

Exit codes:
  0  shown
  1  the server did not answer: the last line says why
  2  the command line was not understood";

/// `rota leaders`.
#[derive(Debug, Args)]
pub struct Leaders {
    /// A server's HTTP address
    #[arg(value_name = "URL")]
    pub server: Address,
    /// The newest so many blocks
    #[arg(long, default_value_t = 60, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub last: u64,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub authority: Authority,
}

const STATUS_HELP: &str = "\
The columns are those that matter for the method: slot and leader (poa); term, role and leader \
(raft); head, work, hashes and stale blocks (pow).

Equal roots at equal heights mean equal databases. Servers that are a few blocks apart are asked \
again until a height is found that all have reached.

Examples:
  rota status 127.0.0.1:4001 127.0.0.1:4002 127.0.0.1:4003 127.0.0.1:4004
  rota status 127.0.0.1:4001 --json | jq .height

Exit codes:
  0  every server answered, and all have one root for one height
  1  a server did not answer, or two differ: the last line says which
  2  the command line was not understood";

/// `rota status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The servers' HTTP addresses
    #[arg(required = true, value_name = "URL")]
    pub servers: Vec<Address>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub authority: Authority,
}

const BACKUP_HELP: &str = "\
The copy is of one moment, while the server goes on. It has all tables, indexes, views and \
triggers, and no users and grants; sqlite3 opens it, and POST /db/load takes it back:
  curl --data-binary @rota.sqlite -X POST http://127.0.0.1:4001/db/load

Examples:
  rota backup http://127.0.0.1:4001 -o rota.sqlite
  rota backup https://ada@db1.example:4001 --ca ca.crt --sql | gzip > rota.sql.gz

Exit codes:
  0  the copy is complete
  1  there is none: the last line says why
  2  the command line was not understood";

/// `rota backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// A server's address
    #[arg(value_name = "URL")]
    pub server: Address,
    /// Where the copy goes, which must not be there yet; else to standard output
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// SQL text rather than a SQLite file
    #[arg(long)]
    pub sql: bool,
    /// As gzip
    #[arg(long)]
    pub compress: bool,
    /// Only these tables, with their indexes and triggers
    #[arg(long = "table", value_name = "NAME")]
    pub tables: Vec<String>,
    #[command(flatten)]
    pub authority: Authority,
}

const SQL_HELP: &str = "\
In the shell, a statement ends with `;` and may take several lines. `.help` lists the commands of \
the shell itself. An HTTP address does too: the server is asked for its PostgreSQL address.

Examples:
  rota sql postgres://rota@127.0.0.1:5441/rota
  rota sql 127.0.0.1:5441 -c 'SELECT count(*) FROM packages'
  rota sql postgres://rota@127.0.0.1:5441/rota --mode csv < script.sql > result.csv

Exit codes:
  0  every statement worked
  1  a statement failed (a script stops there), or the server could not be reached
  2  the command line was not understood";

/// `rota sql`.
#[derive(Debug, Args)]
pub struct Sql {
    /// The server: postgres://USER@HOST:PORT/DATABASE, HOST:PORT, or its HTTP address
    #[arg(value_name = "URL")]
    pub server: Address,
    /// Run this and exit; may be given several times
    #[arg(short, long, value_name = "SQL")]
    pub command: Vec<String>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Mode::Table)]
    pub mode: Mode,
    /// Print how long each statement took
    #[arg(long)]
    pub timer: bool,
    #[command(flatten)]
    pub authority: Authority,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In columns, for people
    Table,
    /// Comma-separated values with a header line (RFC 4180)
    Csv,
    /// One array of objects per statement
    Json,
    /// One column to a line
    Line,
}

const KEYS_HELP: &str = "\
A key is a file of 64 hex digits that only its owner may read: whoever has it is its user, so keep \
it on the user's own machine, and a copy where it cannot get lost. Servers are told the public \
part only: CREATE USER alice KEY 'ed25519:…'.

Examples:
  rota keys new alice.key
  rota keys show alice.key

Exit codes:
  0  the public part was printed
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// `rota keys`.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key and print its public part; a file that is there stays as it is
    New {
        /// Where to keep it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the public part of a key
    Show {
        /// Where it is
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

const TX_HELP: &str = "\
All statements of one command are one transaction: all of them happen, or none. They are in \
SQLite's words, as over HTTP. Rows go to standard output, the place in the chain to standard \
error. A password in CREATE USER or ALTER USER is made a verifier here, before anything is signed. \
Sending it again is harmless: a transaction that has been executed is not executed again.

With --sign-only the key can stay on a machine without a network: what it needs to know of the \
chain is what GET /chain answers, in a file; it lives from then on, so give it time with --expires.

Examples:
  rota tx --key alice.key http://127.0.0.1:4001 \"INSERT INTO t VALUES (1)\"
  rota tx --key alice.key 127.0.0.1:4001 \"INSERT INTO t VALUES (?, ?)\" --param 1 --param one
  rota tx --key root.key https://db1.example.org:4001 --ca ca.crt < grants.sql
  curl -s http://127.0.0.1:4001/chain > chain.json
  rota tx --key root.key --user root --chain chain.json --expires 3000 --sign-only -o one.tx \
      \"GRANT SELECT ON t TO bob\"
  rota tx --send one.tx http://127.0.0.1:4001

Exit codes:
  0  final; or signed, with --sign-only
  1  it failed, or the outcome is unknown: the last line says which
  2  the command line was not understood";

/// `rota tx`.
#[derive(Debug, Args)]
pub struct Tx {
    /// The server's URL, and SQL; without --chain the first is the URL. Without SQL, standard input
    /// is read
    #[arg(value_name = "URL|SQL")]
    pub words: Vec<String>,
    /// The secret key to sign with
    #[arg(long, value_name = "FILE", required_unless_present = "send")]
    pub key: Option<PathBuf>,
    /// In whose name; as a rule the server knows whose key it is
    #[arg(long, value_name = "NAME", conflicts_with = "send")]
    pub user: Option<String>,
    /// More SQL; may be given several times
    #[arg(short, long, value_name = "SQL", conflicts_with = "send")]
    pub command: Vec<String>,
    /// A parameter of the one statement, in the order of its `?`: a number, NULL, x'00ff', or text
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true, conflicts_with = "send")]
    pub param: Vec<String>,
    /// For how many seconds it may be executed [default: 60; more where blocks take longer]
    #[arg(long, value_name = "SECONDS", conflicts_with = "send")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_500))]
    pub expires: Option<u64>,
    /// Sign, and do not send: write it to --output
    #[arg(long, requires = "output", conflicts_with = "send")]
    pub sign_only: bool,
    /// Where --sign-only writes to; `-` is standard output
    #[arg(short, long, value_name = "FILE", requires = "sign_only")]
    pub output: Option<PathBuf>,
    /// What GET /chain answered, in a file, in place of a server
    #[arg(long, value_name = "FILE", requires = "sign_only", requires = "user")]
    pub chain: Option<PathBuf>,
    /// Send what --sign-only has written
    #[arg(long, value_name = "FILE")]
    pub send: Option<PathBuf>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Mode::Table)]
    pub mode: Mode,
    #[command(flatten)]
    pub authority: Authority,
}

const BENCH_HELP: &str = "\
Rows go to a table `bench_rows`, accounts to `bench_accounts`; both stay: drop them when done. \
After inserting, the rows are counted on every server and compared with the acknowledgements. \
After transfers, every server is asked for the sum of all balances, and how often they were \
changed. What ends in 40001 is tried again with the same values until it works; the latency is \
then from the first attempt on.

Examples:
  rota bench postgres://rota@127.0.0.1:5441/rota
  rota bench 127.0.0.1:5441 127.0.0.1:5442 127.0.0.1:5443 127.0.0.1:5444 --connections 128
  rota bench http://127.0.0.1:4001 --workload mixed --seconds 60
  rota bench 127.0.0.1:5441 --workload insert,transaction     what BEGIN and COMMIT cost
  rota bench 127.0.0.1:5441 127.0.0.1:5442 127.0.0.1:5443 127.0.0.1:5444 \
      --connections 16 --workload transfer --count 10000

Exit codes:
  0  measured, every acknowledged write is there, and no money was made or lost
  1  it failed: the last line says why and what to do
  2  the command line was not understood";

/// `rota bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// The servers, by PostgreSQL or HTTP address; connections are spread over them
    #[arg(required = true, value_name = "URL")]
    pub servers: Vec<Address>,
    /// How many connections, each with one statement under way at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// How long each workload runs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// End each workload after so many answers instead
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// What to do: one or more, one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "insert,read")]
    pub workload: Vec<Workload>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub authority: Authority,
}

/// What `rota bench` does over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Insert one row with a text of 100 characters
    Insert,
    /// The same between BEGIN and COMMIT, waiting for each answer
    Transaction,
    /// Update one row, chosen evenly
    Update,
    /// Read one row by its key
    Read,
    /// Four reads to one update
    Mixed,
    /// Read two balances of 100 and write both, in one transaction
    Transfer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_no_password() {
        for wrong in [
            &["rota", "sql", "postgres://rota:geheim@h/rota?sslmode=verify-ca"][..],
            &["rota", "sql", "postgres://rota@h:1/rota?password=geheim&sslmode=no"],
            &["rota", "status", "htp://rota:geheim@h:1"],
            &["rota", "sql", "h:1", "postgres://rota:geheim@h/rota"],
            &["rota", "https://rota:geheim@h:1"],
        ] {
            let error = Rota::try_parse_from(wrong).unwrap_err();
            let said = without_passwords(error).to_string();
            assert!(said.contains("***") && !said.contains("geheim"), "{said}");
        }
    }
}
