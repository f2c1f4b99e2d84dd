//! The live line of `rota dev`, and what happens to the servers while it is shown.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use rota_node::status::{ServerStatus, State};
use tokio::process::Child;
use tokio::time::MissedTickBehavior;

use super::home::Home;
use crate::cluster::Place;
use crate::failure::Failure;
use crate::http::Web;
use crate::print::{hashes, log2, out, thousands};

/// How often the servers are asked where they stand.
const EVERY: Duration = Duration::from_secs(1);

/// Where nobody watches the line change (a log, a pipe), a new height alone is worth a line this
/// often only.
const QUIET: Duration = Duration::from_secs(10);

/// What is known of the servers.
pub struct Live {
    servers: Vec<Server>,
    terminal: bool,
    printed: (String, Instant),
    started: bool,
}

/// What a server answers.
struct Seen {
    state: State,
    /// Where it stands; not told without a login, once user `rota` has a password.
    status: Option<ServerStatus>,
}

struct Server {
    number: usize,
    web: Web,
    home: String,
    seen: Option<Seen>,
    ever: bool,
    ended: bool,
    /// The transactions that this process had executed when it was first asked, and when.
    before: Option<(u32, u64, Instant)>,
    per_second: f64,
}

/// How this program was called, for commands to copy.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "rota".into())
}

impl Live {
    /// Knows nothing yet.
    pub fn new(home: &Home, places: &[Place]) -> Self {
        let servers = (1..).zip(places).map(|(number, place)| Server {
            number,
            web: Web::open(place.http.into()),
            home: home.server(number).display().to_string(),
            seen: None,
            ever: false,
            ended: false,
            before: None,
            per_second: 0.0,
        });
        Self {
            servers: servers.collect(),
            terminal: std::io::stdout().is_terminal(),
            printed: (String::new(), Instant::now()),
            started: false,
        }
    }

    /// Watches and prints. Ends only in failure: when no server ever came up.
    pub async fn run(&mut self, children: &mut [Option<Child>]) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let answers = self.servers.iter().map(|server| ask(&server.web));
            let answers = futures::future::join_all(answers).await;
            let mut news = Vec::new();
            for (server, answer) in self.servers.iter_mut().zip(answers) {
                let child = children.get_mut(server.number - 1);
                news.extend(server.reap(child)?);
                news.extend(server.hear(answer));
            }
            if self.servers.iter().all(|server| server.ended && !server.ever) {
                self.tell(&news)?;
                return Err(Failure::new("no server came up; their logs say why"));
            }
            if !self.started && self.servers.iter().all(|server| server.seen.is_some()) {
                self.started = true;
                news.push("all servers are up".into());
            }
            self.tell(&news)?;
            self.show(!news.is_empty())?;
        }
    }

    /// Leaves the live line standing.
    pub fn end(&self) {
        if self.terminal {
            let _ = out("\n");
        }
    }

    /// The servers that are up and not ours to stop.
    pub fn elsewhere(&self, children: &[Option<Child>]) -> Vec<usize> {
        let ours = |server: &Server| children.get(server.number - 1).is_some_and(Option::is_some);
        let running = self.servers.iter().filter(|server| server.seen.is_some() && !ours(server));
        running.map(|server| server.number).collect()
    }

    fn tell(&self, news: &[String]) -> Result<(), Failure> {
        for line in news {
            out(&if self.terminal { format!("\r\x1b[2K{line}\n") } else { format!("{line}\n") })?;
        }
        Ok(())
    }

    fn show(&mut self, news: bool) -> Result<(), Failure> {
        let line = self.line();
        let (printed, at) = &self.printed;
        if self.terminal {
            out(&format!("\r\x1b[2K{line}"))?;
            std::io::stdout().flush().map_err(Failure::doing("writing"))?;
        } else if (news || at.elapsed() >= QUIET) && *printed != line {
            out(&format!("{line}\n"))?;
            self.printed = (line, Instant::now());
        }
        Ok(())
    }

    fn line(&self) -> String {
        let seen = || self.servers.iter().filter_map(|server| server.seen.as_ref());
        let newest = seen().filter_map(|seen| seen.status.as_ref()).max_by_key(|s| s.height);
        let per_second = self.servers.iter().map(|server| server.per_second).fold(0.0, f64::max);
        let mut line = match newest {
            Some(newest) => {
                let own = seen().filter_map(|seen| seen.status.as_ref()?.work.as_ref());
                let own = own.map(|work| work.own_hash_rate).sum();
                let tx = thousands(per_second.round() as u64);
                format!("{}   {tx} tx/s", standing(newest, own))
            }
            None if seen().next().is_some() => "heights need ROTA_PASSWORD".into(),
            None => return "waiting for the servers".into(),
        };
        let words = ["up", "catching up", "without quorum", "DIVERGED", "starting", "DOWN"];
        for word in words {
            let same = self.servers.iter().filter(|server| server.word() == word);
            let numbers: Vec<String> = same.map(|server| server.number.to_string()).collect();
            if !numbers.is_empty() {
                line.push_str(&format!("   {word} {}", numbers.join(" ")));
            }
        }
        line
    }
}

/// What matters for the method; `own` is what all of these servers hash in a second.
fn standing(status: &ServerStatus, own: u64) -> String {
    let leader = status.leader.as_ref().map_or_else(|| "?".into(), |l| l.number.to_string());
    let height = thousands(status.height);
    match (&status.work, status.term) {
        (Some(work), _) => {
            let paused = match &work.paused {
                Some(why) => format!("   PAUSED: {why}"),
                None => String::new(),
            };
            format!(
                "head {}   final {height}   depth {}   work 2^{:.1}   {}H/s   stale {}{paused}",
                thousands(work.head),
                work.depth,
                log2(&work.work),
                hashes(own),
                thousands(work.stale),
            )
        }
        (None, Some(term)) => format!("height {height}   term {term}   leader {leader}"),
        (None, None) => {
            format!("height {height}   slot {}   leader {leader}", thousands(status.slot))
        }
    }
}

/// Asks a server where it stands; or, where that is not told, whether it is usable, which
/// everybody is told.
async fn ask(web: &Web) -> Option<Seen> {
    match web.status().await {
        Ok(status) => Some(Seen { state: status.state, status: Some(status) }),
        Err(_) => {
            let (code, words) = web.get("/readyz").await.ok()?;
            let state = match code.is_success() {
                true => State::Ready,
                false => state_of(&String::from_utf8_lossy(&words)),
            };
            Some(Seen { state, status: None })
        }
    }
}

/// Why a server is not usable, by what `/readyz` says.
fn state_of(words: &str) -> State {
    match words {
        words if words.contains("leader does not exist") => State::NoQuorum,
        words if words.contains("diverged") => State::Diverged,
        _ => State::CatchingUp,
    }
}

impl Server {
    fn word(&self) -> &'static str {
        match &self.seen {
            Some(seen) => match seen.state {
                State::Ready => "up",
                State::CatchingUp => "catching up",
                State::NoQuorum => "without quorum",
                State::Diverged => "DIVERGED",
            },
            None if !self.ever && !self.ended => "starting",
            None => "DOWN",
        }
    }

    /// Notices that our own child has ended.
    fn reap(&mut self, child: Option<&mut Option<Child>>) -> Result<Option<String>, Failure> {
        let Some(slot) = child else { return Ok(None) };
        let Some(running) = slot.as_mut() else { return Ok(None) };
        let Some(status) = running.try_wait().map_err(Failure::doing("looking after a server"))?
        else {
            return Ok(None);
        };
        *slot = None;
        self.ended = true;
        self.seen = None;
        let said = std::fs::read_to_string(format!("{}/log", self.home)).unwrap_or_default();
        let said = match (self.ever, said.lines().last()) {
            (false, Some(line)) => format!("\n  {line}"),
            _ => String::new(),
        };
        Ok(Some(format!(
            "server {} is down ({status}). Bring it back from another terminal:\n  \
             {} start --home {}{said}",
            self.number,
            program(),
            self.home
        )))
    }

    /// Takes an answer, or that there was none.
    fn hear(&mut self, answer: Option<Seen>) -> Option<String> {
        let news = match (&self.seen, &answer) {
            (None, Some(seen)) if self.ended => {
                let pid = seen.status.as_ref().map(|status| format!(" (process {})", status.pid));
                Some(format!("server {} is back{}", self.number, pid.unwrap_or_default()))
            }
            (Some(_), None) if self.ended => Some(format!("server {} is down again", self.number)),
            _ => None,
        };
        let now = Instant::now();
        let status = answer.as_ref().and_then(|seen| seen.status.as_ref());
        self.per_second = 0.0;
        if let (Some((pid, count, at)), Some(status)) = (self.before, status)
            && pid == status.pid
        {
            let more = status.transactions.saturating_sub(count);
            self.per_second = more as f64 / now.duration_since(at).as_secs_f64().max(0.001);
        }
        self.before = status.map(|status| (status.pid, status.transactions, now));
        self.ever |= answer.is_some();
        self.seen = answer;
        news
    }
}
