//! `rota dev`: a whole cluster on this machine.
//!
//! ```text
//!   rota dev ──stdin pipe──► rota start --home rota-dev/server-1   (own process group)
//!        │   ──stdin pipe──► rota start --home rota-dev/server-2
//!        └── GET /status, once a second ──► whoever answers on the ports of server i
//! ```
//!
//! A server stops when its pipe closes. So Ctrl-C stops all of them in an orderly way, and none
//! outlives this process, not even when it is killed. A server that was started by hand in place of
//! a dead one is seen over HTTP like the others, and left alone.

mod home;
mod live;

use std::fs::OpenOptions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rota_core::genesis::Method;
use rota_node::config::{ConfigError, HomeLock, LOCK_PATIENCE};
use rota_node::transport;
use tokio::process::{Child, Command};

use crate::args::Dev;
use crate::cluster::Place;
use crate::failure::Failure;
use crate::print::{Align, columns, out};
use crate::stop::Stop;
use home::Home;
use live::Live;

/// How long a server may take to stop before it is killed. It has nothing to save but what it is
/// doing: everything acknowledged is on disk already.
const STOPPING: Duration = Duration::from_secs(10);

/// A server's log from earlier runs is set aside (replacing the one before) when it is larger.
const LOG_BYTES: u64 = 16 << 20;

/// Server `i` listens on these plus `i`.
const PORTS: Ports = Ports { pg: 5440, http: 4000, peer: 7000 };

struct Ports {
    pg: u16,
    http: u16,
    peer: u16,
}

/// Runs until Ctrl-C.
pub async fn run(asked: Dev) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let (home, servers) = Home::open(&asked)?;
    let places = places(servers, asked.port_offset)?;
    check_homes(&home, places.len())?;
    check_ports(home.method, &places, asked.port_offset)?;
    let carried_on = home.prepare(&places)?;
    let mut children = Vec::new();
    for number in 1..=places.len() {
        children.push(Some(spawn(&home.server(number))?));
    }
    out(&introduction(&home, &places, &children, carried_on))?;
    let mut live = Live::new(&home, &places);
    let outcome = tokio::select! {
        outcome = live.run(&mut children) => outcome,
        () = stop.asked() => Ok(()),
    };
    live.end();
    let elsewhere = live.elsewhere(&children);
    // A second Ctrl-C does not wait: dropping the children kills them.
    tokio::select! {
        () = stop_all(children) => {}
        () = stop.asked() => {}
    }
    for number in elsewhere {
        out(&format!("server {number} was started elsewhere and still runs\n"))?;
    }
    outcome?;
    out(&format!("stopped; `{}` carries on from here\n", home.again(&asked)))
}

fn places(servers: u16, offset: u16) -> Result<Vec<Place>, Failure> {
    let localhost = |base: u16, number: u16| {
        let port = base.checked_add(number).and_then(|port| port.checked_add(offset));
        port.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).ok_or_else(|| {
            Failure::new(format!(
                "--port-offset {offset} is too large: ports end at 65535, so {} is the most",
                u16::MAX - PORTS.peer - servers
            ))
        })
    };
    (1..=servers)
        .map(|number| {
            let peer = localhost(PORTS.peer, number)?;
            Ok(Place {
                name: format!("server-{number}"),
                pg: localhost(PORTS.pg, number)?,
                http: localhost(PORTS.http, number)?,
                peer,
                dialled: peer.to_string(),
            })
        })
        .collect()
}

/// Names every server of this home that runs already: one that `rota start` brought back outlives
/// the `rota dev` that it came back to.
fn check_homes(home: &Home, servers: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    let running = (1..=servers).filter_map(|number| {
        let folder = home.server(number);
        match folder.exists().then(|| HomeLock::take_by(&folder, deadline))? {
            Err(ConfigError::InUse { pid, .. }) => Some((number, pid)),
            _ => None,
        }
    });
    let running: Vec<(usize, String)> = running.collect();
    if running.is_empty() {
        return Ok(());
    }
    let lines = running.iter().map(|(number, pid)| format!("  server {number}: process {pid}"));
    let pids: Vec<&str> = running.iter().map(|(_, pid)| pid.as_str()).collect();
    Err(Failure::new(format!(
        "servers of {} run already:\n{}\nStop them first: kill {}",
        home.folder().display(),
        lines.collect::<Vec<_>>().join("\n"),
        pids.join(" ")
    )))
}

/// Names every port that is taken, before anything is started.
fn check_ports(method: Method, places: &[Place], offset: u16) -> Result<(), Failure> {
    let mut taken = Vec::new();
    for (number, place) in (1..).zip(places) {
        for (what, address) in [("PostgreSQL", place.pg), ("HTTP", place.http)] {
            if let Err(error) = TcpListener::bind(address) {
                taken.push(format!(
                    "  TCP port {} ({what} of server {number}): {error}",
                    address.port()
                ));
            }
        }
        let bound = match method.is_closed() {
            true => TcpListener::bind(place.peer).map(drop),
            false => UdpSocket::bind(place.peer).map(drop),
        };
        if let Err(error) = bound {
            taken.push(format!(
                "  {} port {} (peers of server {number}): {error}",
                transport::ports(method),
                place.peer.port()
            ));
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "these ports cannot be had:\n{}\nStop what uses them (another `rota dev`?), or move all \
         ports: rota dev --port-offset {}",
        taken.join("\n"),
        offset.saturating_add(100)
    )))
}

fn spawn(home: &Path) -> Result<Child, Failure> {
    let log = home.join("log");
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > LOG_BYTES) {
        let aside = std::fs::rename(&log, home.join("log.old"));
        aside.map_err(Failure::doing(log.display()))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(&log);
    let file = file.map_err(Failure::doing(log.display()))?;
    let same = file.try_clone().map_err(Failure::doing(log.display()))?;
    let program = std::env::current_exe().map_err(Failure::doing("looking for this program"))?;
    Command::new(program)
        .args(["start", "--stop-with-stdin", "--home"])
        .arg(home)
        .stdin(Stdio::piped())
        .stdout(file)
        .stderr(same)
        // Ctrl-C in the terminal reaches `rota dev` only, which then stops its servers itself.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::doing("starting a server"))
}

/// Closes the pipes, waits, and kills what has not stopped by then.
async fn stop_all(children: Vec<Option<Child>>) {
    let stopping = children.into_iter().flatten().map(|mut child| async move {
        drop(child.stdin.take());
        if tokio::time::timeout(STOPPING, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    });
    futures::future::join_all(stopping).await;
}

fn introduction(
    home: &Home,
    places: &[Place],
    children: &[Option<Child>],
    carried_on: bool,
) -> String {
    let peers = format!("peers ({})", transport::ports(home.method));
    let heading = ["server", "PostgreSQL", "HTTP", &peers, "process", "home"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for (number, (place, child)) in (1..).zip(places.iter().zip(children)) {
        rows.push(vec![
            number.to_string(),
            place.pg.to_string(),
            format!("http://{}", place.http),
            place.peer.to_string(),
            child.as_ref().and_then(Child::id).map_or_else(String::new, |pid| pid.to_string()),
            home.server(number).display().to_string(),
        ]);
    }
    let align = [Align::Right, Align::Left, Align::Left, Align::Left, Align::Right, Align::Left];
    let again = if carried_on { ", carrying on where they stopped" } else { ", new" };
    let (pg, http) = match places {
        [first, ..] => (first.pg, first.http),
        [] => return String::new(),
    };
    let program = live::program();
    format!(
        "{} servers ({}) in {}{again}\n\n{}\n  psql postgres://rota@{pg}/rota\n  \
         {program} sql postgres://rota@{pg}/rota\n  \
         curl -G 'http://{http}/db/query?pretty' --data-urlencode 'q=SELECT 1'\n\n\
         Ctrl-C stops them all.\n\n",
        places.len(),
        home.method.name(),
        home.folder().display(),
        columns(&rows, &align),
    )
}
