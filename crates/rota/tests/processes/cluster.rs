//! A real cluster for tests: `rota dev` with its server processes, on ports of its own, in a folder
//! that goes away.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// How long anything may take before a test gives up. Far longer than it takes on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(20);

/// The program under test.
pub fn rota() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rota"))
}

/// Waits until something is so that another process does: it cannot tell this one, so look again
/// and again.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::park_timeout(LOOK);
    }
}

/// `rota dev` with four servers.
pub struct Cluster {
    folder: TempDir,
    offset: u16,
    dev: Option<Child>,
    elsewhere: Vec<Child>,
    /// Processes under SIGSTOP, to be woken before they are ended.
    paused: Vec<String>,
}

impl Cluster {
    /// Starts one and waits until all servers are ready.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let offset = free_ports();
        let (elsewhere, paused) = (Vec::new(), Vec::new());
        let mut cluster = Self { folder, offset, dev: None, elsewhere, paused };
        cluster.restart();
        cluster
    }

    /// Starts `rota dev` on the same home.
    pub fn restart(&mut self) {
        let printed = File::create(self.folder.path().join("printed")).expect("a file");
        let dev = rota()
            .args(["dev", "--port-offset", &self.offset.to_string(), "--home"])
            .arg(self.home())
            .stdin(Stdio::null())
            .stdout(printed.try_clone().expect("a file"))
            .stderr(printed)
            .process_group(0)
            .spawn()
            .expect("rota starts");
        self.dev = Some(dev);
        self.until_ready(&[1, 2, 3, 4]);
    }

    /// Waits until these servers can be written to and have applied what is final.
    pub fn until_ready(&self, servers: &[u16]) {
        for &server in servers {
            until(&format!("server {server} is ready\n{}", self.printed()), || {
                self.state(server) == "ready"
            });
        }
    }

    /// Where the servers' homes are.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("dev")
    }

    /// All that `rota dev` has printed.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("printed")).unwrap_or_default()
    }

    /// Where servers write that were started elsewhere.
    fn said_elsewhere(&self) -> PathBuf {
        self.folder.path().join("elsewhere")
    }

    /// What a server says of itself; nothing if it is down.
    pub fn status(&self, server: u16) -> Option<Value> {
        let body = get(4000 + server + self.offset, "/status")?;
        let all: Value = serde_json::from_str(&body).ok()?;
        Some(all.get("rota").cloned().unwrap_or(all))
    }

    /// In one word where a server stands; `down` if it does not answer.
    pub fn state(&self, server: u16) -> String {
        let status = self.status(server);
        let state = status.as_ref().and_then(|status| status["state"].as_str());
        state.unwrap_or("down").to_owned()
    }

    /// Runs SQL on a server by `rota sql`; rows are CSV.
    pub fn sql(&self, server: u16, sql: &str) -> Output {
        let mut shell = rota();
        shell.args(["sql", &self.postgres(server), "--mode", "csv", "-c", sql]);
        shell.stdin(Stdio::null()).output().expect("rota sql runs")
    }

    /// The first value that a query gives; panics with the error if there is one.
    pub fn value(&self, server: u16, sql: &str) -> String {
        let answer = self.sql(server, sql);
        let errors = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.status.success(), "server {server}, {sql}: {errors}");
        let rows = String::from_utf8_lossy(&answer.stdout);
        rows.lines().nth(1).unwrap_or_default().to_owned()
    }

    /// Runs a statement that must work.
    pub fn write(&self, server: u16, sql: &str) {
        self.value(server, sql);
    }

    /// A server's PostgreSQL address.
    pub fn postgres(&self, server: u16) -> String {
        format!("postgres://rota@127.0.0.1:{}/rota", 5440 + server + self.offset)
    }

    /// A server's HTTP address.
    pub fn http(&self, server: u16) -> String {
        format!("http://127.0.0.1:{}", 4000 + server + self.offset)
    }

    /// `rota status` of some servers.
    pub fn compare(&self, servers: &[u16]) -> Output {
        let mut status = rota();
        status.arg("status").args(servers.iter().map(|server| self.http(*server)));
        status.output().expect("rota status runs")
    }

    /// `kill -9` of a server's process.
    pub fn kill(&self, server: u16) {
        let status = self.status(server).expect("a server that runs");
        signal("-KILL", &status["pid"].to_string());
        until("it is dead", || self.status(server).is_none());
    }

    /// Stops these servers' processes where they stand: to the others they are only silent, as if
    /// the network to them were slow.
    pub fn pause(&mut self, servers: &[u16]) {
        let pid =
            |server: &u16| self.status(*server).expect("a server that runs")["pid"].to_string();
        let pids: Vec<String> = servers.iter().map(pid).collect();
        pids.iter().for_each(|pid| signal("-STOP", pid));
        self.paused.extend(pids);
    }

    /// Lets all go on that are paused.
    pub fn resume(&mut self) {
        self.paused.drain(..).for_each(|pid| signal("-CONT", &pid));
    }

    /// A connection of its own; another thread moves its bytes.
    pub async fn connect(&self, server: u16) -> Client {
        let connected = tokio_postgres::connect(&self.postgres(server), NoTls).await;
        let (client, connection) = connected.expect("the server takes connections");
        tokio::spawn(connection);
        client
    }

    /// `rota start` of a server that is down, as if in another terminal: in another folder, time
    /// zone and language, none of which may make its copy another.
    pub fn start_elsewhere(&mut self, server: u16) {
        let said = File::options().create(true).append(true).open(self.said_elsewhere());
        let child = rota()
            .args(["start", "--home"])
            .arg(self.home().join(format!("server-{server}")))
            .current_dir("/")
            .envs([("TZ", "Asia/Kolkata"), ("LC_ALL", "tr_TR.UTF-8")])
            .stdin(Stdio::null())
            .stderr(said.expect("a file"))
            .spawn()
            .expect("rota start runs");
        self.elsewhere.push(child);
    }

    /// Ctrl-C in the terminal of `rota dev`: the signal goes to its whole process group. Waits for
    /// its end; whether that was in order.
    pub fn ctrl_c(&mut self) -> bool {
        let Some(mut dev) = self.dev.take() else { return false };
        signal("-INT", &format!("-{}", dev.id()));
        dev.wait().expect("rota dev ends").success()
    }

    /// What `rota dev` on the same home says that cannot start.
    pub fn refused_dev(&self) -> String {
        let dev = rota()
            .args(["dev", "--port-offset", &self.offset.to_string(), "--home"])
            .arg(self.home())
            .stdin(Stdio::null())
            .output()
            .expect("rota dev runs");
        assert_eq!(dev.status.code(), Some(1));
        String::from_utf8_lossy(&dev.stderr).into_owned()
    }

    /// `kill -9` of `rota dev` itself.
    pub fn kill_dev(&mut self) {
        let Some(mut dev) = self.dev.take() else { return };
        dev.kill().expect("rota dev is killed");
        dev.wait().expect("rota dev ends");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rota dev printed:\n{}", self.printed());
            for server in 1..=4 {
                let log = self.home().join(format!("server-{server}/log"));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(15).collect();
                eprintln!("server {server} logged:");
                last.iter().rev().for_each(|line| eprintln!("  {line}"));
            }
            let elsewhere = std::fs::read_to_string(self.said_elsewhere()).unwrap_or_default();
            eprintln!("started elsewhere:\n{elsewhere}");
        }
        self.resume();
        self.ctrl_c();
        for child in &mut self.elsewhere {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(which: &str, whom: &str) {
    let sent = Command::new("kill").args([which, "--", whom]).status().expect("kill runs");
    assert!(sent.success(), "kill {which} {whom}");
}

/// An HTTP/1.0 GET: the answer's body, or nothing.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// An offset at which all ports of four servers are free now. Below the ports that Linux gives to
/// outgoing connections (from 32768 on), and other for every cluster of every test process.
pub fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 8_000;
    const CHOICES: u16 = 1_700;
    const APART: u16 = 10;
    let start = u16::try_from(std::process::id() * 37 % u32::from(CHOICES)).expect("small");
    for _ in 0..CHOICES {
        let choice = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % CHOICES;
        let offset = FIRST + choice * APART;
        let free = (1..=4).all(|i| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 5440 + i + offset)).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, 4000 + i + offset)).is_ok()
                && UdpSocket::bind((Ipv4Addr::LOCALHOST, 7000 + i + offset)).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, 7000 + i + offset)).is_ok()
        });
        if free {
            return offset;
        }
    }
    panic!("no free ports");
}
