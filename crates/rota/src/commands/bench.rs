//! `rota bench`: how many transactions a cluster takes, how fast it answers, and whether it kept
//! what it acknowledged.
//!
//! Every connection has one statement under way at a time, prepared once. Latency is from sending a
//! statement to having its whole answer; for writes that is: final and on disk on more than two
//! thirds of the servers. For transactions it is from BEGIN to COMMIT's answer, attempts that ended
//! in a conflict included.

mod accounts;
mod machine;
mod measure;
mod rows;
mod work;

use std::time::Duration;

use rota_node::status::ServerStatus;
use serde_json::{Value, json};

use crate::address::{HostPort, http_of};
use crate::args::{Bench, Workload};
use crate::failure::Failure;
use crate::http::Web;
use crate::postgres::Postgres;
use crate::print::{Align, columns, out};
use crate::trust::Trust;
use measure::Measured;
use work::Extent;

/// Longer than a server takes to answer that it does not know, where it does not tell for how long
/// a write waits.
const LAST_ANSWERS: Duration = Duration::from_secs(30);

/// A server to load.
pub struct Target {
    config: Postgres,
    at: HostPort,
    /// Where to ask for blocks and flushes; servers that do not tell are loaded all the same.
    http: Option<Web>,
}

/// Measures one workload after the other.
pub async fn run(asked: Bench) -> Result<(), Failure> {
    let mut targets = Vec::new();
    let trust = Trust::new(&asked.authority);
    for server in &asked.servers {
        let (config, client) = server.postgres(&trust).await?;
        let at = config.at();
        let http = http_of(&config, &client, server.ca(), &trust).await.ok();
        targets.push(Target { config, at, http });
    }
    let configs: Vec<Postgres> = targets.iter().map(|target| target.config.clone()).collect();
    let run = rows::prepare(&configs, &asked.workload).await?;
    if asked.workload.contains(&Workload::Transfer) {
        accounts::prepare(&configs, run.mark).await?;
    }
    let extent = match asked.count {
        Some(count) => Extent::Count(count),
        None => Extent::Time(Duration::from_secs(asked.seconds)),
    };
    let last_answers = patience(&targets).await;
    let mut results = Vec::new();
    for &workload in &asked.workload {
        let before = statuses(&targets).await;
        let measured =
            work::load(workload, &configs, asked.connections, (extent, last_answers), run).await?;
        let after = statuses(&targets).await;
        results.push((workload, measured, servers(&before, &after)));
    }
    let checked = Checked {
        kept: rows::check(&targets, &results, run).await,
        balanced: accounts::check(&targets, &results, run).await,
    };
    out(&match asked.json {
        true => as_json(&asked, &results, &checked),
        false => as_text(&asked, &results, &checked),
    })?;
    checked.kept?;
    checked.balanced?;
    match results.iter().find(|(_, measured, _)| measured.latency.is_empty()) {
        Some((workload, ..)) => {
            Err(Failure::new(format!("no {} worked; see the errors above", workload.name())))
        }
        None => Ok(()),
    }
}

impl Workload {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Read => "read",
            Self::Mixed => "mixed",
            Self::Transaction => "transaction",
            Self::Transfer => "transfer",
        }
    }
}

/// What one server did meanwhile.
struct Server {
    name: String,
    blocks: u64,
    transactions: u64,
    fsyncs: u64,
}

/// How long after its end a workload waits for the last answers: twice as long as the servers let a
/// write wait, which under `pow` is some spacings.
async fn patience(targets: &[Target]) -> Duration {
    let mut longest = LAST_ANSWERS;
    for web in targets.iter().filter_map(|target| target.http.as_ref()) {
        if let Ok((_, body)) = web.get("/chain").await {
            longest = longest.max(last_answers(&body));
        }
    }
    longest
}

/// The same by one server's answer to `GET /chain`.
fn last_answers(body: &[u8]) -> Duration {
    let told: Option<Value> = serde_json::from_slice(body).ok();
    let patience = told.and_then(|told| told.get("patience_ms")?.as_u64());
    Duration::from_millis(patience.unwrap_or_default()).saturating_mul(2)
}

async fn statuses(targets: &[Target]) -> Vec<Option<ServerStatus>> {
    let asked = targets.iter().map(|target| async {
        match &target.http {
            Some(web) => web.status().await.ok(),
            None => None,
        }
    });
    futures::future::join_all(asked).await
}

/// Differences between two answers of the same process: a server that was restarted meanwhile has
/// none.
fn servers(before: &[Option<ServerStatus>], after: &[Option<ServerStatus>]) -> Vec<Server> {
    let both = before.iter().flatten().zip(after.iter().flatten());
    both.filter(|(before, after)| before.pid == after.pid && before.key == after.key)
        .map(|(before, after)| Server {
            name: after.name.clone(),
            blocks: after.blocks.saturating_sub(before.blocks),
            transactions: after.transactions.saturating_sub(before.transactions),
            fsyncs: after.fsyncs.saturating_sub(before.fsyncs),
        })
        .collect()
}

type Results = [(Workload, Measured, Vec<Server>)];

/// What was looked for on all servers afterwards.
struct Checked {
    kept: Result<rows::Kept, Failure>,
    balanced: Result<Option<accounts::Balanced>, Failure>,
}

/// What is said of each workload: the first row of the table.
const HEADING: [&str; 8] =
    ["workload", "per second", "p50 ms", "p95 ms", "p99 ms", "max ms", "retries", "errors"];

fn as_text(asked: &Bench, results: &Results, checked: &Checked) -> String {
    let mut rows = vec![HEADING.map(String::from).to_vec()];
    for (workload, measured, _) in results {
        let ms = |quantile| format!("{:.2}", measured.milliseconds(quantile));
        rows.push(vec![
            workload.name().into(),
            format!("{:.0}", measured.per_second()),
            ms(0.5),
            ms(0.95),
            ms(0.99),
            ms(1.0),
            measured.retries.to_string(),
            measured.errors.values().sum::<u64>().to_string(),
        ]);
    }
    let mut align = [Align::Right; HEADING.len()];
    align[0] = Align::Left;
    let mut text = format!("\n{}\n", columns(&rows, &align));
    if let Some(share) = transaction_share(results) {
        text.push_str(&format!("transaction: {:.0} % of insert's rate\n", share * 100.0));
    }
    for (workload, measured, servers) in results {
        if matches!(workload, Workload::Read) {
            continue;
        }
        text.push_str(&format!(
            "{}: longest time without an answer {:.0} ms\n",
            workload.name(),
            measured.longest_gap.as_secs_f64() * 1000.0
        ));
        for server in servers {
            text.push_str(&format!("  {}\n", server.shown(measured)));
        }
    }
    for (workload, measured, _) in results {
        for (error, count) in &measured.errors {
            text.push_str(&format!("{}: {count} × {error}\n", workload.name()));
        }
    }
    if let Some(kept) = checked.kept.as_ref().ok().filter(|kept| kept.acknowledged > 0) {
        text.push_str(&format!(
            "every acknowledged row is there: {} on each of {} servers\n",
            kept.acknowledged, kept.servers
        ));
    }
    if let Ok(Some(balanced)) = &checked.balanced {
        text.push_str(&format!(
            "no money made or lost: {} transfers and a sum of {} on each of {} servers\n",
            balanced.acknowledged, balanced.sum, balanced.servers
        ));
    }
    let extent = match asked.count {
        Some(count) => format!("{count} answers"),
        None => format!("{} s", asked.seconds),
    };
    text.push_str(&format!(
        "{} connections to {} servers, {extent} each; {}\n",
        asked.connections,
        asked.servers.len(),
        machine::described()
    ));
    text
}

/// How much of the autocommitted INSERT's rate BEGIN … COMMIT around one comes to; on average, if
/// they took turns.
fn transaction_share(results: &Results) -> Option<f64> {
    let rate = |wanted| {
        let of = results.iter().filter(|(workload, ..)| *workload == wanted);
        let rates: Vec<f64> = of.map(|(_, measured, _)| measured.per_second()).collect();
        let sum: f64 = rates.iter().sum();
        (sum > 0.0).then(|| sum / rates.len() as f64)
    };
    Some(rate(Workload::Transaction)? / rate(Workload::Insert)?)
}

impl Server {
    fn shown(&self, measured: &Measured) -> String {
        let seconds = measured.lasted.as_secs_f64();
        let blocks = self.blocks.max(1) as f64;
        format!(
            "{}: {:.1} blocks/s, {:.1} transactions and {:.2} fsyncs per block",
            self.name,
            self.blocks as f64 / seconds,
            self.transactions as f64 / blocks,
            self.fsyncs as f64 / blocks
        )
    }
}

fn as_json(asked: &Bench, results: &Results, checked: &Checked) -> String {
    let workloads = results.iter().map(|(workload, measured, servers)| {
        let servers = servers.iter().map(|server| {
            json!({
                "name": server.name, "blocks": server.blocks,
                "transactions": server.transactions, "fsyncs": server.fsyncs,
            })
        });
        json!({
            "workload": workload.name(),
            "per_second": measured.per_second(),
            "p50_ms": measured.milliseconds(0.5),
            "p95_ms": measured.milliseconds(0.95),
            "p99_ms": measured.milliseconds(0.99),
            "max_ms": measured.milliseconds(1.0),
            "longest_gap_ms": measured.longest_gap.as_secs_f64() * 1000.0,
            "retries": measured.retries,
            "errors": measured.errors,
            "servers": servers.collect::<Vec<Value>>(),
        })
    });
    let balanced = checked.balanced.as_ref().ok().and_then(Option::as_ref);
    let all = json!({
        "connections": asked.connections,
        "seconds": asked.count.is_none().then_some(asked.seconds),
        "count": asked.count,
        "machine": machine::described(),
        "acknowledged_rows_found": checked.kept.as_ref().ok().map(|kept| kept.acknowledged),
        "acknowledged_transfers_found": balanced.map(|balanced| balanced.acknowledged),
        "sum_of_balances": balanced.map(|balanced| balanced.sum),
        "workloads": workloads.collect::<Vec<Value>>(),
    });
    format!("{all:#}\n")
}
