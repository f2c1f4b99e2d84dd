//! A server from its start to its stop: opens the home, executes what was missed, starts threads,
//! transport and doors.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::bounded;
use rota_core::crypto::SecretKey;
use rota_core::error::Fault;
use rota_core::genesis::Genesis;
use rota_core::journal::Recovered;
use rota_core::members::Members;
use rota_core::replica::{Output, Replica};
use rota_core::verify::Verifier;
use rota_store::StateDb;
use rota_store::accounts::Purses;
use rota_store::chain_db::ChainDb;
use rota_store::draft::Drafts;
use rota_store::files::Files;
use rota_store::host::Host;
use rota_store::snapshot::Snapshots;
use rota_store::snapshot::swap::Incoming;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::agenda::{agenda, patience};
use crate::anew::{Anew, Ended, Origin, Past};
use crate::auth::operator::Operator;
use crate::auth::{Credentials, Entrance};
use crate::board::Board;
use crate::clock::Clock;
use crate::config::{ConfigError, HomeLock, PEERS_FILE, ServerConfig, load_genesis, load_key};
use crate::driver::{Driver, purse_of};
use crate::executor::{Executor, replay};
use crate::mailbox::mailbox;
use crate::miner::Miner;
use crate::pending::Pending;
use crate::replica_thread::{Outside, ReplicaThread};
use crate::signer::{EnvelopeLimits, Nib, Pen, Signer};
use crate::snapshots::Maker;
use crate::threads::{Faults, StopSender};
use crate::tls::Tls;
use crate::transport::open::Open;
use crate::transport::{Inboxes, Peer, Transport, TransportError};
use crate::unfinal::Unfinal;
use crate::{checker, http, pg, queues, readers, threads};

/// How long a stopping server waits for its threads: one block's execution and one flush. What is
/// cut short is done again at the next start.
const PATIENCE: Duration = Duration::from_millis(500);

/// How a server is started.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Accept clients without TLS from other machines.
    pub insecure: bool,
    /// Mine with so many threads (`pow`), whatever `server.toml` says.
    pub mine_threads: Option<u32>,
    /// Each for so many percent of a core's time.
    pub mine_share: Option<u8>,
}

/// A server that did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its home cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A door's address cannot be had.
    #[error("cannot listen for {what} clients on {address} (TCP): {error}{}", taken(error))]
    Listen {
        /// Which door.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// An address that other machines can reach.
    #[error(
        "{what} would be served on {address}, which other machines can reach, and the home has no \
         certificate: make one with `rota certificate`, or listen on 127.0.0.1, or use --insecure \
         if the whole network can be trusted with passwords and data in the clear"
    )]
    NotLoopback {
        /// Which door.
        what: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// The peers' address cannot be had, or a key is wrong.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// This home's key is not one of the database's members.
    #[error(
        "this server's key {0} is not a member's in genesis.json: the home belongs elsewhere; a \
         server that only follows has `follower = true` in its server.toml"
    )]
    NotAMember(rota_core::types::NodeId),
    /// This home's key is one of the database's members, and its settings say that it is not.
    #[error(
        "server.toml says `follower = true`, but this server's key {0} is a member's in \
         genesis.json: remove that line, or give the home a key of its own"
    )]
    IsAMember(rota_core::types::NodeId),
    /// This machine or its files.
    #[error(transparent)]
    Fault(#[from] Fault),
}

fn taken(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            " (another program has it: stop that one, or choose another port in server.toml)"
        }
        _ => "",
    }
}

/// Runs the server in this home until Ctrl-C, SIGTERM or a fault.
pub async fn run(home: PathBuf, options: RunOptions) -> Result<(), ServerError> {
    run_until(&home, options, asked_to_stop()).await
}

/// The same until `asked` is ready.
pub async fn run_until(
    home: &Path,
    options: RunOptions,
    asked: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let mut server = Server::start(home, options).await?;
    let mut asked = std::pin::pin!(asked);
    loop {
        let ended = tokio::select! {
            () = &mut asked => None,
            ended = server.ended() => Some(ended),
        };
        match ended {
            Some(Ended::Anew(anew)) => server = server.renew(anew).await?,
            Some(Ended::Fault(fault)) => {
                server.stop().await;
                return Err(fault.into());
            }
            None => {
                server.stop().await;
                return Ok(());
            }
        }
    }
}

async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    // Where a signal cannot be caught, the kernel ends the process: that is as good for a server
    // that survives kill -9.
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping");
}

/// A running server.
pub struct Server {
    /// What the doors see.
    pub driver: Driver,
    /// Where PostgreSQL's protocol is spoken.
    pub pg: SocketAddr,
    /// Where HTTP is spoken.
    pub http: SocketAddr,
    /// Where peers connect.
    pub peer: SocketAddr,
    transport: Transport,
    pending: Arc<Pending>,
    raised: mpsc::Receiver<Fault>,
    anew: mpsc::Receiver<Anew>,
    doors: Vec<AbortHandle>,
    stop: StopSender,
    /// Those that write files.
    threads: Vec<JoinHandle<()>>,
    origin: Origin,
}

impl Server {
    /// Starts the server in this home; returns when it serves.
    pub async fn start(home: &Path, options: RunOptions) -> Result<Self, ServerError> {
        let lock = Arc::new(HomeLock::take(home)?);
        no_core_dumps();
        let past = Past::default();
        Self::begin(Origin { home: home.into(), options, _lock: lock, past }).await
    }

    /// Starts it in a home that this process has.
    pub(crate) async fn begin(origin: Origin) -> Result<Self, ServerError> {
        let (home, options) = (origin.home.as_path(), origin.options);
        let mut config = ServerConfig::load(home)?;
        config.mine_threads = options.mine_threads.unwrap_or(config.mine_threads);
        config.mine_share = options.mine_share.unwrap_or(config.mine_share);
        let genesis = load_genesis(home)?;
        let key = load_key(home)?;
        let members = genesis.check().map_err(Fault::WrongFiles)?;
        if genesis.method.is_closed() {
            match (members.index_of(&key.public()), config.follower) {
                (None, false) => return Err(ServerError::NotAMember(key.public())),
                (Some(_), true) => return Err(ServerError::IsAMember(key.public())),
                _ => {}
            }
        }
        let tls = Tls::load(home)?;
        let bare = tls.is_none() && !options.insecure;
        let pg = bind("PostgreSQL", config.pg, bare).await?;
        let http = bind("HTTP", config.http, bare).await?;
        let doors = Doors { pg, http, tls, insecure: options.insecure };
        let keep = config.keep_blocks;
        let opened = open(&origin, genesis.clone(), key.clone(), keep).await?;
        let parts = Parts { origin, genesis, members, key, config, doors };
        parts.assemble(opened).await
    }

    /// Returns when a thread cannot go on, or the server has to start anew.
    pub async fn ended(&mut self) -> Ended {
        tokio::select! {
            fault = self.raised.recv() => match fault {
                Some(fault) => Ended::Fault(fault),
                None => Ended::Fault(Fault::storage("running", "all threads ended")),
            },
            Some(anew) = self.anew.recv() => Ended::Anew(anew),
        }
    }

    /// Returns when a thread cannot go on.
    pub async fn fault(&mut self) -> Fault {
        let gone = || Fault::storage("running", "all threads ended");
        self.raised.recv().await.unwrap_or_else(gone)
    }

    /// Ends it so that nothing has its files open for writing any more.
    pub(crate) async fn end(self) -> Origin {
        for door in &self.doors {
            door.abort();
        }
        self.pending.close("this server starts anew: connect again");
        self.transport.stop().await;
        drop(self.stop);
        drop(self.driver);
        let threads = self.threads;
        let ended = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        let _ = ended.await;
        self.origin
    }

    /// Takes no more writes, hands the turn over if it is this server's for longer (`raft`), closes
    /// the doors, says goodbye to peers, ends the threads: in some milliseconds, as a rule.
    pub async fn stop(self) {
        self.driver.wind_up().await;
        for door in &self.doors {
            door.abort();
        }
        self.pending.close("this server stopped");
        self.transport.stop().await;
        drop(self.stop);
        drop(self.driver);
        let threads = self.threads;
        let ended = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        if tokio::time::timeout(PATIENCE, ended).await.is_err() {
            tracing::info!(
                "not all threads ended in time; what they were doing is done at the next start"
            );
        }
    }
}

/// Keys and passwords are in memory: when the process dies, no copy of it is to stay on a disk.
fn no_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps of this process, with its keys, cannot be ruled out");
    }
}

async fn bind(
    what: &'static str,
    address: SocketAddr,
    bare: bool,
) -> Result<TcpListener, ServerError> {
    if bare && !address.ip().is_loopback() {
        return Err(ServerError::NotLoopback { what, address });
    }
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| ServerError::Listen { what, address, error })
}

/// The door's address with its real port.
fn local(
    what: &'static str,
    address: SocketAddr,
    listener: &TcpListener,
) -> Result<SocketAddr, ServerError> {
    listener.local_addr().map_err(|error| ServerError::Listen { what, address, error })
}

/// Serves at a door until the server stops. A server that cannot be reached is of no use: it stops.
fn door(
    name: &'static str,
    serve: impl Future<Output = std::io::Result<()>> + Send + 'static,
    faults: &Faults,
) -> AbortHandle {
    let faults = faults.clone();
    let serving = tokio::spawn(async move {
        let ended = serve.await;
        let why = ended.err().map_or_else(|| "it ended".into(), |error| error.to_string());
        faults.raise(Fault::storage(format!("serving {name} clients"), why));
    });
    serving.abort_handle()
}

/// The files, brought up to date, and the replica that starts from them.
struct Opened {
    state: StateDb,
    chain: ChainDb,
    snapshots: Arc<Snapshots>,
    incoming: Incoming,
    replica: Replica,
    first: Vec<Output>,
    clock: Clock,
}

async fn open(
    origin: &Origin,
    genesis: Genesis,
    key: SecretKey,
    keep_blocks: u64,
) -> Result<Opened, Fault> {
    let home = origin.home.clone();
    let Past { distrusted } = origin.past.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let Files { mut state, mut chain, snapshots, incoming } = Files::open(&home, &genesis)?;
        chain.keep_blocks(keep_blocks);
        // Receipts are written behind what they tell of: a crash takes the newest with it.
        let newest = chain.newest_receipt()?;
        chain.save_receipts(state.remembered_after(newest)?);
        let recovered = Recovered { distrusted, ..chain.recover()? };
        if recovered.is_wiped && genesis.members.iter().any(|member| member.key == key.public()) {
            tracing::warn!(
                "chain.db was lost, and with it what this server has voted for: it follows the \
                 other members and never votes again under this key"
            );
        }
        let last =
            recovered.last.as_ref().map_or_else(Default::default, |(block, _)| block.header.height);
        replay(&mut state, &mut chain, last)?;
        let roots = [snapshots.states(), state.recent_roots()?].concat();
        let recovered = Recovered { roots, ..recovered };
        let clock = Clock::start();
        let (replica, first) =
            Replica::new(&genesis, key, recovered, state.applied(), clock.now())?;
        Ok(Opened { state, chain, snapshots, incoming, replica, first, clock })
    });
    opening.await.unwrap_or_else(|panic| Err(Fault::storage("opening the home", panic)))
}

/// What a server is made of, before it runs.
struct Parts {
    origin: Origin,
    genesis: Genesis,
    members: Members,
    key: SecretKey,
    config: ServerConfig,
    doors: Doors,
}

/// Where clients come in.
struct Doors {
    pg: TcpListener,
    http: TcpListener,
    tls: Option<Tls>,
    /// Whether other machines may do without TLS.
    insecure: bool,
}

impl Doors {
    /// Opens them; they are served until the tasks are aborted.
    fn open(
        self,
        addresses: [SocketAddr; 2],
        driver: &Driver,
        credentials: Credentials,
        faults: &Faults,
    ) -> Vec<AbortHandle> {
        let credentials = Arc::new(credentials);
        let [pg, http] = addresses.map(|address| Entrance {
            credentials: credentials.clone(),
            tls: self.tls.clone(),
            plain: self.insecure || address.ip().is_loopback(),
        });
        let mut serving = vec![
            door("PostgreSQL", pg::serve(self.pg, driver.clone(), pg), faults),
            door("HTTP", http::serve(self.http, driver.clone(), http), faults),
        ];
        if let Some(tls) = self.tls {
            serving.push(tokio::spawn(tls.keep()).abort_handle());
        }
        serving
    }
}

/// Whether users without password need none: only where nobody comes from elsewhere.
fn is_open(config: &ServerConfig, addresses: [SocketAddr; 2]) -> bool {
    let elsewhere = addresses.into_iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = elsewhere.filter(|_| config.open) {
        tracing::warn!(
            "`open = true` in server.toml is not honoured, since {address} can be reached by other \
             machines: every user needs a password"
        );
    }
    config.open && elsewhere.is_none()
}

impl Parts {
    async fn assemble(self, opened: Opened) -> Result<Server, ServerError> {
        let Opened { state, chain, snapshots, incoming, replica, first, clock } = opened;
        let board = Arc::new(Board::new(
            &self.genesis,
            self.members.clone(),
            self.key.public(),
            self.config.clone(),
            replica.status(clock.now()),
        ));
        let pending = Arc::new(Pending::new(self.genesis.chain_id(), self.key.public()));
        let (mailbox, inputs, executed, asking) = mailbox();
        let verifier = Verifier::new(&self.genesis, self.members.clone());
        let (inboxes, votes, blocks) = Inboxes::new();
        let inboxes = inboxes.with(checker::shortcut(verifier, inputs.clone()));
        let transport = self.transport(inboxes, board.clone()).await?;
        let patience = patience(self.genesis.method, self.members.index_of(&self.key.public()));
        let (agenda, jobs, haste) = agenda(pending.clone(), patience);
        let unfinal = Unfinal::new(board.chain, inputs.clone(), asking, pending.clone());
        let unfinal = Arc::new(unfinal);
        let (writes, signer_writes) = bounded(queues::WRITES);
        let (reads, reader_jobs) = bounded(queues::READS);
        let (mut stop_sender, stop) = threads::stop();
        stop_sender.also(mailbox.closer());
        stop_sender.also(agenda.closer());
        let (faults, raised) = threads::faults();
        let (anew_sender, anew) = mpsc::channel(1);
        let (maker, making) = Maker::start(snapshots, &stop, &faults)?;
        // Where the log begins with a snapshot, this is what is left when state.db is lost.
        maker.executed(state.applied().height);
        let miner = Miner::start(&self.genesis, &self.config, &board, &inputs, &stop, &faults)?;
        let outside = Outside {
            transport: transport.clone(),
            jobs,
            pending: pending.clone(),
            unfinal: unfinal.clone(),
            board: board.clone(),
            miner,
            incoming,
            anew: anew_sender,
            faults: faults.clone(),
            backlog: VecDeque::new(),
            executing: 0,
            wake: None,
        };
        let replica_thread = ReplicaThread {
            host: Host::new(replica, chain),
            clock,
            board: board.clone(),
            mailbox,
            outside,
        };
        let limits = EnvelopeLimits::new(&self.genesis);
        let pen = Pen {
            nib: Arc::new(Nib::new(&self.key)?),
            board: board.clone(),
            pending: pending.clone(),
            inputs: inputs.clone(),
            expiry: limits.patience.expiry,
        };
        let signer = Signer { pen: pen.clone(), writes: signer_writes, limits };
        let access = state.access();
        let drafts = Drafts::new(&self.origin.home, &self.genesis, access.clone());
        let executor = Executor {
            state,
            drafts: drafts.clone(),
            board: board.clone(),
            pending: pending.clone(),
            agenda,
            results: executed,
            maker,
            held: Vec::new(),
        };
        readers::start(&self.origin.home, &reader_jobs, (&unfinal, &board), &access)?;
        for (name, inbox) in [("check-votes", votes), ("check-blocks", blocks)] {
            let verifier = Verifier::new(&self.genesis, self.members.clone());
            let (inputs, transport) = (inputs.clone(), transport.clone());
            let purses = Purses::open(&self.origin.home, access.clone())?;
            let body = move || checker::run(inbox, verifier, purses, &inputs, &transport);
            threads::spawn(name, &faults, body)?;
        }
        drop(inputs);
        threads::spawn("sign", &faults, move || signer.run())?;
        let threads = vec![
            making,
            threads::spawn("execute", &faults, move || executor.run())?,
            threads::spawn("replica", &faults, move || replica_thread.run(first))?,
        ];
        let purse = purse_of(Purses::open(&self.origin.home, access.clone())?);
        let driver = Driver::new(
            board,
            pending.clone(),
            (unfinal, haste),
            (pen, writes),
            reads,
            limits,
            (drafts, access.clone(), purse),
        );
        let peer = transport.address;
        let pg = local("PostgreSQL", self.config.pg, &self.doors.pg)?;
        let http = local("HTTP", self.config.http, &self.doors.http)?;
        let (tls, open) = (self.doors.tls.is_some(), is_open(&self.config, [pg, http]));
        let operator = Operator::load(&self.origin.home, self.key.public())?;
        let credentials = Credentials::new(access, open, &self.genesis).of(operator);
        let doors = self.doors.open([pg, http], &driver, credentials, &faults);
        tracing::info!(name = self.config.name, %pg, %http, tls, %peer, "serving");
        Ok(Server {
            driver,
            pg,
            http,
            peer,
            transport,
            pending,
            raised,
            doors,
            stop: stop_sender,
            threads,
            anew,
            origin: self.origin,
        })
    }

    /// Among members only, or among whoever has the same genesis.
    async fn transport(
        &self,
        inboxes: Inboxes,
        board: Arc<Board>,
    ) -> Result<Transport, TransportError> {
        let (key, listen) = (&self.key, self.config.peer);
        if self.genesis.method.is_closed() {
            let chain = self.genesis.chain_id();
            return Transport::start(key, chain, listen, self.peers(), inboxes, board).await;
        }
        let known = self.config.peers.iter();
        let open = Open {
            chain: self.genesis.chain_id(),
            block_bytes: self.genesis.parameters.block_bytes,
            bootstrap: self.config.bootstrap.clone(),
            peers: known
                .map(|peer| Peer { key: peer.key, address: peer.address.clone(), follows: false })
                .collect(),
            file: Some(self.origin.home.join(PEERS_FILE)),
        };
        Transport::start_open(key, listen, open, inboxes, board).await
    }

    fn peers(&self) -> Vec<Peer> {
        let configured = |key| self.config.peers.iter().find(|peer| peer.key == key);
        let address = |key| configured(key).map(|peer| peer.address.clone()).unwrap_or_default();
        let members = self.members.iter().map(|(_, member)| member.key);
        let members = members.map(|key| Peer { key, address: address(key), follows: false });
        // Among themselves followers have nothing to say.
        let known = self.config.followers.iter().filter(|_| !self.config.follower);
        let followers = known.filter(|other| self.members.index_of(&other.key).is_none());
        let followers = followers.map(|follower| {
            let address = follower.address.clone();
            Peer { key: follower.key, address, follows: true }
        });
        members.chain(followers).collect()
    }
}
