//! `rota status`: where servers stand, and whether their copies are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rota_core::types::StateRoot;
use rota_node::status::{ServerStatus, State};
use serde_json::json;

use crate::address::Address;
use crate::args::Status;
use crate::failure::{Failure, Kind};
use crate::http::Web;
use crate::print::{Align, columns, out, thousands};
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
    let heading = ["server", "at", "state", "height", "root", "leader", "lag", "peers", "process"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for (address, answer) in servers.iter().zip(answers) {
        rows.push(match answer {
            Ok(status) => row(address, status),
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
    use Align::{Left, Right};
    let mut text =
        columns(&rows, &[Left, Left, Left, Right, Left, Left, Right, Right, Right]) + "\n";
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

fn row(address: &Address, status: &ServerStatus) -> Vec<String> {
    let state = match status.state {
        State::Ready => "ready",
        State::CatchingUp => "catching up",
        State::NoQuorum => "no quorum",
        State::Diverged => "DIVERGED",
    };
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    vec![
        status.name.clone(),
        address.to_string(),
        state.into(),
        thousands(status.applied.height),
        short(&status.applied.root),
        status.leader.as_ref().map_or_else(|| "?".into(), |leader| leader.name.clone()),
        thousands(status.lag),
        format!("{connected}/{}", status.peers.len()),
        status.pid.to_string(),
    ]
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
    use rota_node::status::HeightRoot;

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
