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
use crate::print::{out, thousands};

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

struct Server {
    number: usize,
    web: Web,
    home: String,
    seen: Option<ServerStatus>,
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
            let answers = self.servers.iter().map(|server| server.web.status());
            let answers = futures::future::join_all(answers).await;
            let mut news = Vec::new();
            for (server, answer) in self.servers.iter_mut().zip(answers) {
                let child = children.get_mut(server.number - 1);
                news.extend(server.reap(child)?);
                news.extend(server.hear(answer.ok()));
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
        let Some(newest) = seen().max_by_key(|status| status.height) else {
            return "waiting for the servers".into();
        };
        let leader = newest.leader.as_ref().map_or_else(|| "?".into(), |l| l.number.to_string());
        let per_second = self.servers.iter().map(|server| server.per_second).fold(0.0, f64::max);
        let mut line = format!(
            "height {}   leader {leader}   {} tx/s",
            thousands(newest.height),
            thousands(per_second.round() as u64)
        );
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

impl Server {
    fn word(&self) -> &'static str {
        match &self.seen {
            Some(status) => match status.state {
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
    fn hear(&mut self, answer: Option<ServerStatus>) -> Option<String> {
        let news = match (&self.seen, &answer) {
            (None, Some(status)) if self.ended => {
                Some(format!("server {} is back (process {})", self.number, status.pid))
            }
            (Some(_), None) if self.ended => Some(format!("server {} is down again", self.number)),
            _ => None,
        };
        let now = Instant::now();
        self.per_second = 0.0;
        if let (Some((pid, count, at)), Some(status)) = (self.before, &answer)
            && pid == status.pid
        {
            let more = status.transactions.saturating_sub(count);
            self.per_second = more as f64 / now.duration_since(at).as_secs_f64().max(0.001);
        }
        self.before = answer.as_ref().map(|status| (status.pid, status.transactions, now));
        self.ever |= answer.is_some();
        self.seen = answer;
        news
    }
}
