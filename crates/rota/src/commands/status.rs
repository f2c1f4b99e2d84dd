//! `rota status`: where servers stand, and whether their copies are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rota_core::genesis::Method;
use rota_core::types::StateRoot;
use rota_node::status::{Reversal, ServerStatus, State};
use serde_json::json;

use crate::address::Address;
use crate::args::Status;
use crate::failure::{Failure, Kind};
use crate::http::Web;
use crate::print::{Align, columns, hashes, log2, out, thousands};
use crate::trust::Trust;

/// How long to look for a height that all servers have reached. Each tells its newest 256 roots, so
/// only a server that is far behind, or was just restarted, shares none at once.
const COMMON_HEIGHT: Duration = Duration::from_secs(5);

/// How long to wait before asking again for one.
const AGAIN: Duration = Duration::from_millis(200);

/// What comparing the roots came to.
enum Verdict {
    /// One root for one height.
    Equal(u64, StateRoot),
    /// Several roots for one height, each with the servers that have it.
    Different(u64, BTreeMap<StateRoot, Vec<String>>),
    /// The servers are of several databases.
    Strangers,
    /// No height that all have told the root of.
    Unknown,
}

/// One server's answer, or why there is none.
type Answer = Result<ServerStatus, Failure>;

/// Asks, prints, compares.
pub async fn run(asked: Status) -> Result<(), Failure> {
    let trust = Trust::new(&asked.authority);
    let doors = asked.servers.iter().map(|server| server.http(&trust));
    let doors: Vec<Result<Web, Failure>> = futures::future::join_all(doors).await;
    let (answers, verdict) = ask(&doors).await;
    let shown = match asked.json {
        true => as_json(&asked.servers, &answers, &verdict),
        false => as_text(&asked.servers, &answers, &verdict),
    };
    out(&shown)?;
    failure(&asked.servers, &answers, &verdict).map_or(Ok(()), Err)
}

/// Asks all servers, again and again until they can be compared.
async fn ask(doors: &[Result<Web, Failure>]) -> (Vec<Answer>, Verdict) {
    let begun = Instant::now();
    loop {
        let asked = doors.iter().map(|door| async move {
            match door {
                Ok(door) => door.status().await,
                Err(failure) => Err(failure.clone()),
            }
        });
        let answers: Vec<Answer> = futures::future::join_all(asked).await;
        let verdict = compare(&answers.iter().flatten().collect::<Vec<_>>());
        // A password is not tried twice.
        let is_final = answers
            .iter()
            .any(|answer| answer.as_ref().is_err_and(|failure| failure.kind() != Kind::Other));
        let known = !matches!(verdict, Verdict::Unknown);
        if known || is_final || begun.elapsed() > COMMON_HEIGHT {
            return (answers, verdict);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn compare(servers: &[&ServerStatus]) -> Verdict {
    if servers.iter().map(|server| &server.chain).collect::<BTreeSet<_>>().len() > 1 {
        return Verdict::Strangers;
    }
    let told = servers.iter().map(|server| {
        server.roots.iter().map(|at| (at.height, at.root)).collect::<BTreeMap<_, _>>()
    });
    let told: Vec<BTreeMap<u64, StateRoot>> = told.collect();
    let common = told.first().and_then(|first| {
        first.keys().rev().find(|height| told.iter().all(|roots| roots.contains_key(height)))
    });
    let Some(&height) = common else { return Verdict::Unknown };
    let mut holders: BTreeMap<StateRoot, Vec<String>> = BTreeMap::new();
    for (server, roots) in servers.iter().zip(&told) {
        if let Some(root) = roots.get(&height) {
            holders.entry(*root).or_default().push(server.name.clone());
        }
    }
    match holders.keys().copied().collect::<Vec<_>>()[..] {
        [root] => Verdict::Equal(height, root),
        _ => Verdict::Different(height, holders),
    }
}

fn as_text(servers: &[Address], answers: &[Answer], verdict: &Verdict) -> String {
    // Servers of one database; of several, the first one's method is as good as any.
    let method = answers.iter().flatten().next().map_or(Method::Poa, |status| status.method);
    let (heading, align) = heading(method);
    let mut rows = vec![heading];
    for (address, answer) in servers.iter().zip(answers) {
        rows.push(match answer {
            Ok(status) => row(method, address, status),
            Err(failure) => {
                let state = match failure.kind() {
                    Kind::NoLogin => "no login",
                    Kind::NotTrusted => "not trusted",
                    Kind::Other => "unreachable",
                };
                vec!["?".into(), address.to_string(), state.into()]
            }
        });
    }
    let mut text = columns(&rows, &align) + "\n";
    text.push_str(&about_work(answers));
    for (name, times) in listed_twice(answers) {
        text.push_str(&format!("{name} is listed {times} times, and counts once\n"));
    }
    let diverged = answers.iter().flatten().any(|server| server.state == State::Diverged);
    if let Verdict::Equal(height, root) = verdict
        && !diverged
    {
        let count =
            answers.iter().flatten().map(|server| server.key).collect::<BTreeSet<_>>().len();
        text.push_str(&match count {
            1 => format!("height {}: root {root}\n", thousands(*height)),
            _ => format!(
                "equal: one root for height {} on {count} servers\n  {root}\n",
                thousands(*height)
            ),
        });
    }
    text
}

/// The servers that answer at several of the addresses, and at how many.
fn listed_twice(answers: &[Answer]) -> Vec<(String, usize)> {
    let mut times = BTreeMap::new();
    for server in answers.iter().flatten() {
        let (_, count) = times.entry(server.key).or_insert_with(|| (server.name.clone(), 0));
        *count += 1;
    }
    times.into_values().filter(|(_, count)| *count > 1).collect()
}

/// The columns of a method: those of all, and between them its own.
fn heading(method: Method) -> (Vec<String>, Vec<Align>) {
    use Align::{Left, Right};
    let own: &[(&str, Align)] = match method {
        Method::Poa => &[("slot", Right), ("leader", Left)],
        Method::Raft => &[("term", Right), ("role", Left), ("leader", Left)],
        Method::Pow => &[("head", Right), ("work", Left), ("hashes/s", Right), ("stale", Right)],
    };
    let before =
        [("server", Left), ("at", Left), ("state", Left), ("height", Right), ("root", Left)];
    let after = [("lag", Right), ("peers", Right), ("process", Right)];
    before.iter().chain(own).chain(&after).map(|(name, align)| ((*name).to_owned(), *align)).unzip()
}

/// What a method's own columns say of a server.
fn own_columns(method: Method, status: &ServerStatus) -> Vec<String> {
    let leader = || status.leader.as_ref().map_or_else(|| "?".into(), |l| l.name.clone());
    let unknown = || "?".to_owned();
    match method {
        Method::Poa => vec![thousands(status.slot), leader()],
        Method::Raft => {
            vec![status.term.map_or_else(unknown, thousands), status.role.clone(), leader()]
        }
        Method::Pow => match &status.work {
            None => vec![unknown(), unknown(), unknown(), unknown()],
            Some(work) => vec![
                thousands(work.head),
                format!("2^{:.2}", log2(&work.work)),
                match work.mine_threads {
                    0 => "–".into(),
                    _ => hashes(work.own_hash_rate).trim_end().to_owned(),
                },
                thousands(work.stale),
            ],
        },
    }
}

/// What the chain is worth under `pow`, in a line, and who acknowledges nothing.
fn about_work(answers: &[Answer]) -> String {
    let servers = || answers.iter().flatten();
    let Some(work) = servers().filter_map(|server| server.work.as_ref()).max_by_key(|w| w.head)
    else {
        return String::new();
    };
    let own: u64 = servers().filter_map(|server| Some(server.work.as_ref()?.own_hash_rate)).sum();
    let bounds = work.reversal.iter().map(|Reversal { share, bound }| {
        format!("{} by {:.0} % of the work", percent(*bound), share * 100.0)
    });
    let mut text = format!(
        "final {} deep: undone with probability {}\n{}hashes/s by the pace of blocks, {} measured \
         here; bits {}\n",
        work.depth,
        bounds.collect::<Vec<_>>().join(", "),
        hashes(work.hash_rate),
        hashes(own).trim_end(),
        work.bits,
    );
    for server in servers() {
        let Some(work) = &server.work else { continue };
        if server.state == State::CatchingUp {
            text.push_str(&format!(
                "{} is catching up: headers {} of about {}, blocks {}\n",
                server.name,
                thousands(work.headers),
                thousands(work.due),
                thousands(work.head)
            ));
        }
        if let Some(why) = &work.paused {
            text.push_str(&format!("{} acknowledges nothing now: {why}\n", server.name));
        }
        if !server.peers.iter().any(|peer| peer.connected) {
            text.push_str(&format!(
                "{} is connected to nobody: what it finds and takes may all be abandoned\n",
                server.name
            ));
        }
    }
    text
}

/// With as many digits as tell it from nothing.
fn percent(probability: f64) -> String {
    let percent = probability * 100.0;
    match percent {
        0.01.. => format!("{percent:.2} %"),
        _ => format!("{percent:.1e} %"),
    }
}

fn row(method: Method, address: &Address, status: &ServerStatus) -> Vec<String> {
    let state = match status.state {
        State::Ready => "ready",
        State::CatchingUp => "catching up",
        State::NoQuorum => "no quorum",
        State::Diverged => "DIVERGED",
    };
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    let mut row = vec![
        status.name.clone(),
        address.to_string(),
        state.into(),
        thousands(status.applied.height),
        short(&status.applied.root),
    ];
    row.extend(own_columns(method, status));
    row.extend([
        thousands(status.lag),
        format!("{connected}/{}", status.peers.len()),
        status.pid.to_string(),
    ]);
    row
}

/// Enough of a root to tell two apart.
fn short(root: &StateRoot) -> String {
    root.to_string().chars().take(12).collect()
}

fn as_json(servers: &[Address], answers: &[Answer], verdict: &Verdict) -> String {
    let servers = servers.iter().zip(answers).map(|(address, answer)| match answer {
        Ok(status) => json!({ "at": address.to_string(), "reachable": true, "status": status }),
        Err(why) => {
            json!({ "at": address.to_string(), "reachable": false, "why": why.to_string() })
        }
    });
    let servers: Vec<_> = servers.collect();
    let (equal, height, root) = match verdict {
        Verdict::Equal(height, root) => (Some(true), Some(*height), Some(root.to_string())),
        Verdict::Different(height, _) => (Some(false), Some(*height), None),
        Verdict::Strangers => (Some(false), None, None),
        Verdict::Unknown => (None, None, None),
    };
    let all = json!({ "equal": equal, "height": height, "root": root, "servers": servers });
    format!("{all:#}\n")
}

fn failure(servers: &[Address], answers: &[Answer], verdict: &Verdict) -> Option<Failure> {
    let different = match verdict {
        Verdict::Different(height, holders) => {
            let each = holders
                .iter()
                .map(|(root, names)| format!("\n  {} on {}", short(root), names.join(", ")));
            Some(format!(
                "the copies differ: several roots for height {height}:{}\n  \
                 the log of the one that is alone names the table and row; do not use it",
                each.collect::<String>()
            ))
        }
        Verdict::Strangers => Some("these servers belong to different databases".into()),
        Verdict::Unknown if answers.iter().any(Result::is_ok) => Some(
            "no height whose root all servers tell: one is far behind; ask again when its lag \
             is small"
                .into(),
        ),
        _ => None,
    };
    let silent = servers.iter().zip(answers).filter_map(|(address, answer)| {
        answer.as_ref().err().map(|why| format!("{address} does not answer as it should: {why}"))
    });
    let diverged = answers.iter().flatten().filter(|status| status.state == State::Diverged);
    let diverged =
        diverged.map(|status| format!("{} has diverged and serves nothing", status.name));
    let all: Vec<String> = silent.chain(diverged).chain(different).collect();
    (!all.is_empty()).then(|| Failure::new(all.join("\nrota: ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rota_node::status::{HeightRoot, WorkStatus};

    fn server(name: &str, chain: &str, roots: &[(u64, u8)]) -> ServerStatus {
        let roots: Vec<HeightRoot> = roots
            .iter()
            .map(|&(height, root)| HeightRoot { height, root: StateRoot([root; 32]) })
            .collect();
        let last = roots.last().copied().unwrap_or_default();
        ServerStatus {
            name: name.into(),
            key: Default::default(),
            version: String::new(),
            pid: 1,
            pg: ([127, 0, 0, 1], 5441).into(),
            http: ([127, 0, 0, 1], 4001).into(),
            chain: chain.into(),
            state: State::Ready,
            method: Method::Poa,
            role: "member".into(),
            term: None,
            work: None,
            height: last.height,
            slot: 0,
            epoch: 0,
            leader: None,
            applied: last,
            agreed: last,
            block_time: 0,
            chain_time: 0,
            lag: 0,
            pending: 0,
            peers: vec![],
            transactions: 0,
            blocks: 0,
            fsyncs: 0,
            dropped: 0,
            roots,
        }
    }

    #[test]
    fn roots_are_compared_at_the_newest_common_height() {
        let a = server("a", "x", &[(4, 4), (5, 5), (6, 6)]);
        let b = server("b", "x", &[(3, 3), (4, 4), (5, 5)]);
        let odd = server("odd", "x", &[(5, 9)]);
        let behind = server("behind", "x", &[(1, 1)]);
        let stranger = server("stranger", "y", &[(5, 5)]);
        assert!(matches!(compare(&[&a, &b]), Verdict::Equal(5, StateRoot([5, ..]))));
        assert!(
            matches!(compare(&[&a, &b, &odd]), Verdict::Different(5, holders) if holders.len() == 2)
        );
        assert!(matches!(compare(&[&a, &behind]), Verdict::Unknown));
        assert!(matches!(compare(&[&a, &stranger]), Verdict::Strangers));
        assert!(matches!(compare(&[]), Verdict::Unknown));
    }

    #[test]
    fn what_matters_for_the_method_is_shown() {
        let at = ["127.0.0.1:1".parse().unwrap()];
        let shown = |status| as_text(&at, &[Ok(status)], &Verdict::Unknown);
        let mut raft = server("a", "x", &[(1, 1)]);
        (raft.method, raft.term, raft.role) = (Method::Raft, Some(7), "leader".into());
        let text = shown(raft);
        assert!(text.contains("term  role") && text.contains("   7  leader"), "{text}");
        let mut pow = server("a", "x", &[(1, 1)]);
        (pow.method, pow.state) = (Method::Pow, State::CatchingUp);
        pow.work = Some(WorkStatus {
            head: 1_007,
            hash: "00".into(),
            depth: 6,
            work: "0400000000".into(),
            bits: "1e040000".into(),
            hash_rate: 2_000_000,
            own_hash_rate: 1_000_000,
            mine_threads: 1,
            mine_share: 10,
            stale: 3,
            reorganisations: 0,
            deepest: 0,
            headers: 50_000,
            due: 51_000,
            paused: Some("no block for 15 s".into()),
            reversal: vec![Reversal { share: 0.1, bound: 0.000_242_8 }],
        });
        let text = shown(pow);
        for part in [
            "1,007",
            "2^34.00",
            "1.0 M",
            "0.02 % by 10 %",
            "a acknowledges nothing now",
            "a is catching up: headers 50,000 of about 51,000, blocks 1,007",
            "a is connected to nobody",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = shown(server("a", "x", &[(1, 1)]));
        assert!(text.contains("slot  leader") && !text.contains("term"), "{text}");
    }

    #[test]
    fn silence_and_difference_fail() {
        let at = ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        let ok = || Ok(server("a", "x", &[(1, 1)]));
        let judge = |answers: Vec<Answer>| {
            let verdict = compare(&answers.iter().flatten().collect::<Vec<_>>());
            failure(&at, &answers, &verdict).is_some()
        };
        assert!(!judge(vec![ok(), ok()]));
        assert_eq!(listed_twice(&[ok(), ok()]), [("a".to_owned(), 2)]);
        let twice = [ok(), ok()];
        let verdict = compare(&twice.iter().flatten().collect::<Vec<_>>());
        let shown = as_text(&at, &twice, &verdict);
        assert!(!shown.contains("equal") && shown.contains("counts once"), "{shown}");
        let locked = [Err(Failure::of(Kind::NoLogin, "wrong password"))];
        assert!(as_text(&at, &locked, &Verdict::Unknown).contains("no login"));
        assert!(judge(vec![ok(), Err(Failure::new("refused"))]));
        assert!(judge(vec![ok(), Ok(server("b", "x", &[(1, 2)]))]));
    }
}
