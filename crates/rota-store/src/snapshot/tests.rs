//! Snapshots: what is in them, who is offered one, and that one takes the place of a server's files
//! wholly or not at all.

use std::sync::Arc;

use rota_core::block::{Block, Body, Certificate, Choice, Finality, Header, Kind, Turn};
use rota_core::crypto::SecretKey;
use rota_core::journal::Record;
use rota_core::message::{Fetch, Message, Offer};
use rota_core::time::Time;
use rota_core::transaction::{Envelope, Expiry, Parameters, Settings, Statement, Transaction};
use rota_core::types::{ChainId, Epoch, MemberIndex, Slot};
use rota_core::work::{HeaderHash, WorkProof};

use super::swap::{self, Incoming, Outcome};
use super::*;
use crate::chain_db::ChainDb;
use crate::files::{self, Files};
use crate::host::Journal;

/// How many blocks are between two snapshots in these tests.
const EVERY: u64 = 10;

/// A server that executes what it makes final, alone.
struct Server {
    home: tempfile::TempDir,
    genesis: Genesis,
    chain: ChainDb,
    state: StateDb,
    snapshots: Arc<Snapshots>,
    parent: Block,
    /// What the next headers say of the executed state.
    named: Applied,
}

fn genesis() -> Genesis {
    let mut genesis = crate::chain_db::tests::genesis("snapshots");
    genesis.parameters.snapshot_blocks = EVERY;
    genesis
}

fn block(chain: ChainId, parent: &Block, applied: Applied, sql: &str) -> Arc<Block> {
    let statement = Statement { sql: sql.into(), parameters: Parameters::Positional(Vec::new()) };
    let height = parent.header.height.next();
    let transaction = Transaction {
        salt: [u8::try_from(height.0 % 250).unwrap(); 16],
        user: "rota".into(),
        statements: vec![statement],
        settings: Settings::default(),
        interactive: None,
    };
    let expiry = Expiry { height: Height(1_000_000), time: Time(100_000) };
    let key = SecretKey::from_bytes([1; 32]);
    let envelope = Envelope::sign(chain, &key, expiry, vec![transaction]);
    let body = Body { parent_certificate: None, envelopes: vec![Arc::new(envelope)] };
    let header = Header {
        epoch: Epoch(0),
        slot: Slot(height.0),
        height,
        kind: Kind::Ordinary,
        parent: parent.id(chain),
        leader: MemberIndex(0),
        turn: Turn::Scheduled,
        time: Time(2_000 + height.0),
        applied,
        body: body.digest(),
    };
    Arc::new(Block { header, body })
}

fn finalized(chain: ChainId, block: &Arc<Block>) -> Record {
    let (slot, choice) = (block.header.slot, Choice::Finalize(block.id(chain)));
    let certificate = Certificate { epoch: Epoch(0), slot, choice, votes: Vec::new() };
    Record::Finalized { blocks: vec![block.clone()], finality: Finality::Votes(certificate) }
}

impl Server {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn open(home: tempfile::TempDir) -> Self {
        let genesis = genesis();
        swap::finish(home.path()).unwrap();
        let mut chain = ChainDb::open(home.path(), &genesis).unwrap();
        let state = StateDb::open(home.path(), &genesis).unwrap();
        let snapshots = Snapshots::open(home.path(), &genesis).unwrap();
        chain.offer_from(snapshots.clone()).unwrap();
        let recovered = chain.recover().unwrap();
        let parent =
            recovered.last.map_or_else(|| Block::genesis(&genesis), |(block, _)| (*block).clone());
        let named = parent.header.applied;
        Self { home, genesis, chain, state, snapshots, parent, named }
    }

    fn reopen(self) -> Self {
        let Self { home, chain, state, snapshots, .. } = self;
        drop((chain, state, snapshots));
        Self::open(home)
    }

    /// Makes a block with this statement final and executes it.
    fn write(&mut self, sql: &str) {
        let id = self.genesis.chain_id();
        let block = block(id, &self.parent, self.named, sql);
        self.parent = (*block).clone();
        self.chain.append(&[finalized(id, &block)]).unwrap();
        let done = self.state.apply(&block).unwrap();
        assert!(done.receipts[0].outcome.is_ok(), "{:?}", done.receipts);
        self.chain.save_receipts(done.receipts);
        self.named = done.applied;
        if self.snapshots.is_due(done.applied.height) {
            let pinned = self.snapshots.pin().unwrap();
            self.snapshots.make(pinned, || false).unwrap();
        }
    }

    /// The first writes, up to this height.
    fn up_to(&mut self, height: u64) {
        if self.parent.header.height == Height(0) {
            self.write("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE)");
        }
        while self.parent.header.height.0 < height {
            let next = self.parent.header.height.0 + 1;
            self.write(&format!("INSERT INTO t VALUES ({next}, 'row {next}')"));
        }
    }

    fn offer(&mut self) -> Offer {
        match self.chain.serve(&Fetch::FinalAfter(Height(0))).unwrap() {
            Some(Message::Offer(offer)) => *offer,
            other => panic!("{other:?}"),
        }
    }

    /// Sends all pieces of an offer to a home.
    fn send(&mut self, offer: &Offer, home: &Path) {
        let mut incoming = Incoming::new(home).unwrap();
        let height = offer.applied.height;
        for number in (0..u32::try_from(offer.chunks.len()).unwrap()).rev() {
            let wanted = Fetch::Chunk { height, number };
            let Some(Message::Chunk { bytes, .. }) = self.chain.serve(&wanted).unwrap() else {
                panic!("no piece {number}");
            };
            incoming.keep(height, number, &bytes).unwrap();
        }
    }
}

fn count(state: &StateDb) -> i64 {
    let sql = "SELECT count(*) FROM t";
    state.ours("counting", |connection| connection.query_row(sql, [], |row| row.get(0))).unwrap()
}

/// An empty home, and in it what a server at height 34 offers of its second snapshot.
fn fetched() -> (Server, tempfile::TempDir, Offer) {
    let mut server = Server::new();
    server.up_to(34);
    let offer = server.offer();
    let home = tempfile::tempdir().unwrap();
    drop(ChainDb::open(home.path(), &server.genesis).unwrap());
    drop(StateDb::open(home.path(), &server.genesis).unwrap());
    server.send(&offer, home.path());
    (server, home, offer)
}

#[test]
fn a_snapshot_is_of_its_height_however_far_the_state_has_come_while_it_was_made() {
    let mut server = Server::new();
    server.up_to(9);
    let pinned = server.snapshots.pin().unwrap();
    let root = server.state.applied().root;
    server.up_to(25);
    server.snapshots.make(pinned, || false).unwrap();
    let copy = StateDb::open(&server.snapshots.folder(Height(9)), &server.genesis).unwrap();
    assert_eq!(copy.applied(), Applied { height: Height(9), root });
    assert_eq!(count(&copy), 8);
    let again = Snapshots::open(server.home.path(), &server.genesis).unwrap();
    let found: Vec<u64> = again.all().iter().map(|own| own.applied.height.0).collect();
    assert_eq!(found, [9, 10, 20]);
}

#[test]
fn a_snapshot_that_was_not_finished_is_none() {
    let mut server = Server::new();
    server.up_to(9);
    let pinned = server.snapshots.pin().unwrap();
    server.snapshots.make(pinned, || true).unwrap();
    assert!(server.snapshots.all().is_empty() && !server.snapshots.folder(Height(9)).exists());
    let folder = server.snapshots.folder(Height(7));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(STATE_FILE), b"half").unwrap();
    let server = server.reopen();
    assert!(server.snapshots.all().is_empty() && !folder.exists());
}

#[test]
fn a_snapshot_is_offered_once_a_final_header_names_its_root() {
    let mut server = Server::new();
    server.up_to(10);
    assert!(!server.snapshots.all().is_empty());
    let answer = server.chain.serve(&Fetch::FinalAfter(Height(0))).unwrap();
    assert!(matches!(answer, Some(Message::Final(_))), "nobody vouches for it yet");
    server.up_to(31);
    let offer = server.offer();
    assert_eq!(offer.applied.height, Height(30));
    assert_eq!(offer.headers.last().unwrap().applied, offer.applied);
    assert_eq!(offer.headers.len(), 1);
    // One that is near has blocks, and nobody is offered what it has.
    for (height, blocks) in [(19, false), (20, true), (30, true)] {
        let answer = server.chain.serve(&Fetch::FinalAfter(Height(height))).unwrap();
        assert_eq!(matches!(answer, Some(Message::Final(_))), blocks, "{height}: {answer:?}");
    }
    let mut again = server.reopen();
    assert_eq!(again.offer(), offer, "after a restart it is known from the blocks");
}

#[test]
fn a_wrong_root_in_our_own_snapshot_is_never_offered() {
    let mut server = Server::new();
    server.up_to(10);
    server.named.root = StateRoot([9; 32]);
    server.up_to(30);
    let offered = server.chain.serve(&Fetch::FinalAfter(Height(0))).unwrap();
    match offered {
        Some(Message::Offer(offer)) => assert_eq!(offer.applied.height, Height(20)),
        other => panic!("{other:?}"),
    }
    let chunk = Fetch::Chunk { height: Height(10), number: 0 };
    assert_eq!(server.chain.serve(&chunk).unwrap(), None);
}

#[test]
fn the_two_newest_certified_ones_stay_and_a_newer_one() {
    let mut server = Server::new();
    server.up_to(45);
    let heights = |server: &Server| -> Vec<u64> {
        server.snapshots.all().iter().map(|own| own.applied.height.0).collect()
    };
    assert_eq!(heights(&server), [30, 40]);
    server.up_to(50);
    assert_eq!(heights(&server), [30, 40, 50], "nobody vouches for the newest yet");
    server.up_to(61);
    assert_eq!(heights(&server), [50, 60]);
    assert!(!server.snapshots.folder(Height(30)).exists(), "and what is gone is deleted");
}

#[test]
fn a_damaged_piece_is_never_sent_and_its_snapshot_given_up() {
    let mut server = Server::new();
    server.up_to(31);
    let offer = server.offer();
    let path = server.snapshots.file(Height(30));
    let mut bytes = fs::read(&path).unwrap();
    bytes[5_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let wanted = Fetch::Chunk { height: Height(30), number: 0 };
    assert_eq!(server.chain.serve(&wanted).unwrap(), None);
    assert_eq!(server.offer().applied.height, Height(20), "there is an older one");
    assert_ne!(server.offer(), offer);
}

#[test]
fn a_snapshot_that_cannot_be_read_for_a_while_is_kept() {
    let mut server = Server::new();
    server.up_to(31);
    let (path, aside) = (server.snapshots.file(Height(30)), server.home.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    let wanted = Fetch::Chunk { height: Height(30), number: 0 };
    assert_eq!(server.chain.serve(&wanted).unwrap(), None);
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert!(server.chain.serve(&wanted).unwrap().is_some());
}

#[test]
fn a_fetched_snapshot_takes_the_place_of_a_servers_files() {
    let (mut server, home, offer) = fetched();
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert_eq!(outcome, Outcome::Taken);
    let mut restored = Server::open(home);
    assert_eq!(restored.state.applied(), offer.applied);
    assert_eq!(count(&restored.state), 29);
    let recovered = restored.chain.recover().unwrap();
    let last = recovered.last.unwrap();
    assert_eq!((last.0, last.1), (offer.block.clone(), Finality::Snapshot));
    // What comes next comes as blocks, and this server can go on, and serve.
    let answer = server.chain.serve(&Fetch::FinalAfter(Height(30))).unwrap();
    let Some(Message::Final(answer)) = answer else { panic!("{answer:?}") };
    let (blocks, finality) = (answer.blocks.clone(), answer.finality);
    restored.chain.append(&[Record::Finalized { blocks, finality }]).unwrap();
    for block in &answer.blocks {
        restored.state.apply(block).unwrap();
    }
    assert_eq!(restored.state.applied(), server.state.applied());
    let first = restored.chain.serve(&Fetch::FinalAfter(Height(29))).unwrap();
    let Some(Message::Final(first)) = first else { panic!("{first:?}") };
    assert_ne!(first.finality, Finality::Snapshot, "which would prove nothing to others");
    assert_eq!(restored.chain.serve(&Fetch::FinalAfter(Height(5))).unwrap(), None);
}

#[test]
fn a_snapshot_whose_rows_are_others_changes_nothing() {
    let (server, home, mut offer) = fetched();
    let path = home.path().join("incoming/state.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE t SET b = 'forged' WHERE a = 7", []).unwrap();
    connection.close().unwrap();
    offer.bytes = fs::metadata(&path).unwrap().len();
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("root")), "{outcome:?}");
    assert!(!home.path().join("incoming").exists());
    let same = Server::open(home);
    assert_eq!(same.state.applied().height, Height(0));
}

#[test]
fn a_snapshot_of_another_root_than_is_proven_is_refused() {
    let (server, home, mut offer) = fetched();
    offer.applied.root = StateRoot([7; 32]);
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[test]
fn an_index_that_lies_is_found() {
    let (server, home, mut offer) = fetched();
    let path = home.path().join("incoming/state.db");
    let connection = Connection::open(&path).unwrap();
    // An entry of the index moves to a row that does not have it.
    let find = "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_t_1'";
    let page: i64 = connection.query_row(find, [], |row| row.get(0)).unwrap();
    connection.close().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let page = usize::try_from(page - 1).unwrap() * 4096;
    let at = bytes[page..page + 4096].windows(6).position(|six| six == b"row 17").unwrap();
    bytes[page + at + 5] = b'x';
    fs::write(&path, &bytes).unwrap();
    offer.bytes = bytes.len() as u64;
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert!(matches!(&outcome, Outcome::Refused(why) if why.contains("index")), "{outcome:?}");
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_files_or_the_new_ones() {
    for killed_after in 0..5 {
        let (server, home, offer) = fetched();
        let genesis = &server.genesis;
        let (path, incoming) = (home.path(), home.path().join("incoming"));
        let restored = path.join("restored");
        let steps: [&dyn Fn(); 5] = [
            &|| swap::verify(&incoming, genesis, &offer).unwrap(),
            &|| swap::prepare(path, genesis, &offer).unwrap(),
            &|| swap::decide(path).unwrap(),
            &|| swap::replace(path, &restored, STATE_FILE).unwrap(),
            &|| swap::replace(path, &restored, crate::chain_db::FILE).unwrap(),
        ];
        for step in &steps[..=killed_after] {
            step();
        }
        // The next start.
        let height = Server::open(home);
        let (state, log) = (height.state.applied().height, height.chain.height());
        let expected = if killed_after < 2 { Height(0) } else { offer.applied.height };
        assert_eq!((state, log), (expected, expected), "after step {killed_after}");
    }
}

#[test]
fn an_old_write_ahead_log_is_not_played_into_the_new_database() {
    let (server, home, offer) = fetched();
    // The old server was killed: its logs are still there.
    let mut old = ChainDb::open(home.path(), &server.genesis).unwrap();
    let first = block(
        server.genesis.chain_id(),
        &Block::genesis(&server.genesis),
        Applied::default(),
        "CREATE TABLE other(x)",
    );
    let mut state = StateDb::open(home.path(), &server.genesis).unwrap();
    old.append(&[finalized(server.genesis.chain_id(), &first)]).unwrap();
    state.apply(&first).unwrap();
    let log = fs::read(home.path().join("state.db-wal")).unwrap();
    assert!(!log.is_empty());
    drop((old, state));
    fs::write(home.path().join("state.db-wal"), log).unwrap();
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert_eq!(outcome, Outcome::Taken);
    let mut restored = Server::open(home);
    assert_eq!(restored.state.rescan().unwrap().root, offer.applied.root);
}

#[test]
fn a_log_that_vanished_while_the_server_ran_is_known_to_be_lost() {
    let (server, home, offer) = fetched();
    fs::remove_file(home.path().join(crate::chain_db::FILE)).unwrap();
    swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    let chain = ChainDb::open_existing(home.path(), &server.genesis).unwrap();
    assert!(chain.is_wiped().unwrap(), "it has forgotten its votes");
}

#[test]
fn nobody_is_blamed_for_this_machines_trouble() {
    let (server, home, offer) = fetched();
    // SQLite cannot open its write-ahead log here.
    let log = home.path().join("incoming/state.db-wal");
    fs::create_dir(&log).unwrap();
    let fault = swap::take_over(home.path(), &server.genesis, &offer).unwrap_err();
    assert!(matches!(fault, Fault::Storage { .. }), "{fault}");
    fs::remove_dir(&log).unwrap();
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert_eq!(outcome, Outcome::Taken);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let (server, home, offer) = fetched();
    let path = home.path().join("incoming/state.db");
    fs::write(&path, vec![7; usize::try_from(offer.bytes).unwrap()]).unwrap();
    let outcome = swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

#[test]
fn own_votes_for_later_slots_are_kept_and_so_is_that_the_log_was_lost() {
    let (server, home, offer) = fetched();
    let id = server.genesis.chain_id();
    fs::remove_file(home.path().join(crate::chain_db::FILE)).unwrap();
    let mut chain = ChainDb::open_existing(home.path(), &server.genesis).unwrap();
    assert!(chain.recover().unwrap().is_wiped);
    let certificate = |slot| Certificate {
        epoch: Epoch(0),
        slot: Slot(slot),
        choice: Choice::Nullify,
        votes: Vec::new(),
    };
    chain.append(&[Record::Entered(certificate(20)), Record::Entered(certificate(40))]).unwrap();
    let later = block(id, &server.parent, Applied::default(), "SELECT 1");
    chain.append(&[Record::Fetched(later.clone())]).unwrap();
    drop(chain);
    swap::take_over(home.path(), &server.genesis, &offer).unwrap();
    let chain = ChainDb::open_existing(home.path(), &server.genesis).unwrap().recover().unwrap();
    assert_eq!(chain.tail, [Record::Entered(certificate(40)), Record::Fetched(later)]);
    assert!(chain.is_wiped);
}

#[test]
fn going_back_undoes_blocks_and_tells_which_transactions_and_where_they_stand_again() {
    let mut server = Server::new();
    server.up_to(34);
    let root = server.named;
    server.snapshots.forget(Height(30));
    let undone = server.chain.rewind(Height(31)).unwrap();
    assert_eq!((undone.height, undone.transactions), (Height(31), 3));
    assert_eq!(server.chain.rewinding().unwrap(), Some(Height(31)));
    let Server { home, genesis, chain, state, snapshots, .. } = server;
    drop((chain, state));
    assert!(swap::go_back(home.path(), &snapshots, (Height(0), Height(31))).unwrap());
    drop(snapshots);
    let mut server = Server::open(home);
    assert_eq!(server.state.applied().height, Height(20));
    server.chain.is_back().unwrap();
    assert_eq!(server.chain.rewinding().unwrap(), None);
    while server.state.applied().height < Height(31) {
        let next = server.state.applied().height.next();
        let block = server.chain.final_block(next).unwrap().unwrap();
        server.named = server.state.apply(&block).unwrap().applied;
    }
    assert_eq!(count(&server.state), 30);
    // One of the three stands in a block again.
    let again = block(
        genesis.chain_id(),
        &server.parent,
        server.named,
        "INSERT INTO t VALUES (32, 'row 32')",
    );
    let waiting = server.chain.recover().unwrap().waiting;
    assert_eq!((waiting.len(), &again.body.envelopes[0]), (3, &waiting[0]));
    server.write("INSERT INTO t VALUES (32, 'row 32')");
    server.write("INSERT INTO t VALUES (100, 'new')");
    assert_eq!(server.chain.recover().unwrap().waiting, waiting[1..], "one is there again");
    drop(server.chain);
    let log = Connection::open(server.home.path().join(crate::chain_db::FILE)).unwrap();
    let sql = "SELECT group_concat(height || ' ' || position || ' ' || ifnull(again, '-'), ', ')
        FROM undone ORDER BY height";
    let told: String = log.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(told, "32 0 32, 33 0 -, 34 0 -");
    assert_ne!(server.named, root);
}

#[test]
fn where_too_much_is_deleted_nothing_is_undone() {
    let mut server = Server::new();
    server.chain.keep_blocks(5);
    server.up_to(45);
    assert_eq!(server.chain.lowest(), Height(30));
    assert_eq!(server.chain.recover().unwrap().goes_back_to, Height(30));
    let Server { home, genesis, chain, state, snapshots, .. } = server;
    drop((chain, state, snapshots));
    let undone = files::undo(home.path(), &genesis, Height(29)).unwrap();
    assert_eq!((undone.height, undone.too_deep_below), (Height(45), Some(Height(30))));
    let undone = files::undo(home.path(), &genesis, Height(31)).unwrap();
    assert_eq!((undone.height, undone.too_deep_below), (Height(31), None));
    assert_eq!(undone.transactions, 14);
    // Killed now or later, as often as it likes: what was undone is not lost.
    for _ in 0..2 {
        let Files { state, mut chain, .. } = Files::open(home.path(), &genesis).unwrap();
        assert_eq!(state.applied().height, Height(30));
        assert_eq!(chain.recover().unwrap().waiting.len(), 14);
    }
}

#[test]
fn what_stood_in_blocks_on_their_way_is_given_back_as_well() {
    let mut server = Server::new();
    server.up_to(5);
    let id = server.genesis.chain_id();
    let later = block(id, &server.parent, Applied::default(), "INSERT INTO t VALUES (6, 'six')");
    let proof = WorkProof::new(HeaderHash::default(), later.id(id), 1, 0x207f_ffff, 0);
    server.chain.append(&[Record::Connected { proof, block: later.clone() }]).unwrap();
    let undone = server.chain.rewind(Height(4)).unwrap();
    assert_eq!(undone.transactions, 2);
    let waiting = server.chain.recover().unwrap().waiting;
    assert_eq!((waiting.len(), &waiting[1]), (2, &later.body.envelopes[0]));
}

#[test]
fn without_an_older_snapshot_everything_is_executed_again() {
    let mut server = Server::new();
    server.up_to(9);
    server.chain.rewind(Height(3)).unwrap();
    let Server { home, chain, state, snapshots, .. } = server;
    drop((chain, state));
    assert!(swap::go_back(home.path(), &snapshots, (Height(0), Height(3))).unwrap());
    assert!(!swap::go_back(home.path(), &snapshots, (Height(2), Height(3))).unwrap());
    assert_eq!(Server::open(home).state.applied().height, Height(0));
}

/// What is in the log of a height.
fn rows_at(server: &Server, height: u64) -> i64 {
    let log = Connection::open(server.home.path().join(crate::chain_db::FILE)).unwrap();
    let tables = ["blocks", "rota_certificates", "receipts", "rota_messages"];
    let counts = tables.map(|table| {
        let sql = format!("SELECT count(*) FROM {table} WHERE height = {height}");
        log.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
    });
    counts.iter().sum()
}

#[test]
fn old_blocks_are_pruned_but_never_what_comes_after_the_older_of_two_certified_snapshots() {
    let mut server = Server::new();
    server.chain.keep_blocks(5);
    server.up_to(19);
    assert_eq!(server.chain.lowest(), Height(1), "there are no two snapshots yet");
    server.up_to(45);
    assert_eq!(server.chain.lowest(), Height(30), "though only five are wanted");
    assert_eq!((rows_at(&server, 29), rows_at(&server, 30)), (0, 3));
    // One that lags is offered the newest, and finds what comes next.
    assert_eq!(server.offer().applied.height, Height(40));
    let next = server.chain.serve(&Fetch::FinalAfter(Height(30))).unwrap();
    assert!(matches!(next, Some(Message::Final(_))));
    let mut server = server.reopen();
    assert_eq!((server.chain.lowest(), server.chain.height()), (Height(30), Height(45)));
    server.up_to(60);
    assert_eq!(server.chain.lowest(), Height(30), "it was told to keep all this time");
}

#[test]
fn what_pruning_frees_is_given_back_to_the_disk() {
    let mut server = Server::new();
    server.write("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)");
    for _ in 0..45 {
        let blob = "x".repeat(400_000);
        server.write(&format!("INSERT INTO t(b) VALUES ('{blob}')"));
    }
    let file = server.home.path().join(crate::chain_db::FILE);
    let mut server = server.reopen();
    let before = fs::metadata(&file).unwrap().len();
    server.chain.keep_blocks(1);
    while server.parent.header.height < Height(100) {
        server.write("SELECT 1");
    }
    let server = server.reopen();
    let after = fs::metadata(&file).unwrap().len();
    assert!(before > 17 << 20 && after < 6 << 20, "{before} bytes before, {after} after");
    assert_eq!(server.chain.lowest(), Height(80));
}
