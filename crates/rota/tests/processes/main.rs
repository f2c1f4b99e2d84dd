//! Real servers as real processes: what a user of `rota dev` sees, and what survives `kill -9`.

mod cluster;
mod secured;
mod transactions;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Output, Stdio};

use cluster::{Cluster, free_ports, rota, until};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number of rows in `notes` as a server shows it.
fn count(cluster: &Cluster, server: u16) -> String {
    cluster.value(server, "SELECT count(*) FROM notes")
}

fn until_counted(cluster: &Cluster, servers: &[u16], rows: usize) {
    for &server in servers {
        until(&format!("server {server} shows {rows} rows"), || {
            count(cluster, server) == rows.to_string()
        });
    }
}

const TABLE: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

#[test]
fn what_one_server_takes_all_servers_show_and_keep() {
    let mut cluster = Cluster::start();
    cluster.write(1, TABLE);
    for server in 1..=4 {
        until("the table is there", || cluster.sql(server, "SELECT 1 FROM notes").status.success());
        cluster.write(server, &format!("INSERT INTO notes (text) VALUES ('through {server}')"));
    }
    until_counted(&cluster, &[1, 2, 3, 4], 4);
    let compared = cluster.compare(&[1, 2, 3, 4]);
    assert!(compared.status.success(), "{}", text(&compared.stderr));
    assert!(text(&compared.stdout).contains("one root for height"), "{}", text(&compared.stdout));

    let pids: Vec<String> =
        (1..=4).map(|i| cluster.status(i).expect("up")["pid"].to_string()).collect();
    assert!(cluster.ctrl_c(), "stopped in order:\n{}", cluster.printed());
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} outlived Ctrl-C");
    }

    cluster.restart();
    assert!(cluster.printed().contains("carrying on"), "{}", cluster.printed());
    until_counted(&cluster, &[1, 2, 3, 4], 4);
    cluster.write(3, "INSERT INTO notes (text) VALUES ('after the restart')");
}

#[test]
fn one_of_four_may_be_killed_and_comes_back_from_another_terminal() {
    let mut cluster = Cluster::start();
    cluster.write(1, TABLE);
    cluster.kill(3);
    for i in 0..8 {
        cluster.write(1, &format!("INSERT INTO notes (text) VALUES ('without 3: {i}')"));
    }
    until("the live line says so", || cluster.printed().contains("DOWN 3"));
    let missing = cluster.compare(&[1, 2, 3, 4]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stdout).contains("unreachable"), "{}", text(&missing.stdout));

    cluster.start_elsewhere(3);
    until_ready_and_counted(&cluster);
    until("the live line sees it", || cluster.printed().contains("server 3 is back"));
    for what in [
        "datetime('now', 'localtime')",
        "CURRENT_TIMESTAMP || now()",
        "random() || hex(randomblob(4))",
        "upper('i') || lower('I') || 1.5",
        "strftime('%c %x %A %B', 'now', 'localtime')",
    ] {
        cluster.sql(1, &format!("INSERT INTO notes (text) SELECT {what}"));
    }
    let rows = count(&cluster, 1).parse().expect("a number");
    assert!(rows >= 8 + 4, "most of these are allowed: {rows} rows");
    until_counted(&cluster, &[1, 2, 3, 4], rows);
    let compared = cluster.compare(&[1, 2, 3, 4]);
    assert!(compared.status.success(), "{}", text(&compared.stderr));

    assert!(cluster.ctrl_c());
    assert!(cluster.printed().contains("server 3 was started elsewhere and still runs"));
    assert!(cluster.status(3).is_some(), "`rota dev` stops only what it started");
    let again = cluster.refused_dev();
    assert!(again.contains("server 3: process") && again.contains("kill"), "{again}");
}

fn until_ready_and_counted(cluster: &Cluster) {
    cluster.until_ready(&[3]);
    until_counted(cluster, &[1, 2, 3, 4], 8);
}

#[test]
fn without_a_quorum_reads_are_answered_and_writes_refused() {
    let mut cluster = Cluster::start();
    cluster.write(1, TABLE);
    cluster.write(1, "INSERT INTO notes (text) VALUES ('before')");
    cluster.kill(3);
    cluster.kill(4);
    until("server 1 notices", || cluster.state(1) == "no quorum");
    assert_eq!(count(&cluster, 1), "1");
    let refused = cluster.sql(1, "INSERT INTO notes (text) VALUES ('too few')");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("57P03"), "{}", text(&refused.stderr));

    cluster.start_elsewhere(4);
    cluster.until_ready(&[1, 4]);
    cluster.write(1, "INSERT INTO notes (text) VALUES ('after')");
    until_counted(&cluster, &[1, 2, 4], 2);
}

#[test]
fn rows_survive_when_all_are_killed_at_once() {
    let mut cluster = Cluster::start();
    cluster.write(2, TABLE);
    for i in 0..8 {
        cluster.write(1 + i % 4, &format!("INSERT INTO notes (text) VALUES ('note {i}')"));
    }
    (1..=4).for_each(|server| cluster.kill(server));
    cluster.kill_dev();
    cluster.restart();
    until_counted(&cluster, &[1, 2, 3, 4], 8);
    cluster.write(4, "INSERT INTO notes (text) VALUES ('one more')");
    until_counted(&cluster, &[1, 2, 3, 4], 9);
    assert!(cluster.compare(&[1, 2, 3, 4]).status.success());
}

#[test]
fn no_server_outlives_the_command_that_started_it() {
    let mut cluster = Cluster::start();
    cluster.kill_dev();
    for server in 1..=4 {
        until("it stops", || cluster.status(server).is_none());
    }
}

#[test]
fn the_shell_reads_scripts_and_the_benchmark_counts_what_it_wrote() {
    let cluster = Cluster::start();
    let script = "CREATE TABLE t (n INTEGER, s TEXT); -- two columns;\n\
                  INSERT INTO t VALUES (1, 'a;''b'),\n (NULL, '');\n.mode json\nSELECT * FROM t;\n";
    let worked = piped(&cluster, script);
    assert!(worked.status.success(), "{}", text(&worked.stderr));
    let shown = text(&worked.stdout);
    let json = shown.get(shown.find('[').expect("JSON")..).expect("JSON");
    let rows: serde_json::Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(rows, serde_json::json!([{"n": 1, "s": "a;'b"}, {"n": null, "s": ""}]));

    let failed =
        piped(&cluster, "SELECT 1;\nSELECT * FROM missing;\nINSERT INTO t VALUES (3, '');");
    assert_eq!(failed.status.code(), Some(1));
    let errors = text(&failed.stderr);
    assert!(errors.contains("line 2") && errors.contains("42P01"), "{errors}");
    assert_eq!(cluster.value(1, "SELECT count(*) FROM t"), "2", "nothing runs after an error");

    let bench = rota()
        .args(["bench", &cluster.postgres(1), &cluster.http(2), "--seconds", "1", "--connections"])
        .args(["4", "--workload", "insert,mixed"])
        .output()
        .expect("rota bench runs");
    let figures = text(&bench.stdout);
    assert!(bench.status.success(), "{figures}{}", text(&bench.stderr));
    assert!(figures.contains("every acknowledged row is there"), "{figures}");
    assert!(figures.contains("fsyncs per block"), "{figures}");
}

#[test]
fn transfers_on_all_servers_make_and_lose_no_money() {
    let cluster = Cluster::start();
    let bench = rota()
        .args(["bench", "--connections", "8", "--workload", "transfer", "--count", "400"])
        .args((1..=4).map(|server| cluster.postgres(server)))
        .arg("--json")
        .output()
        .expect("rota bench runs");
    assert!(bench.status.success(), "{}", text(&bench.stderr));
    let figures: serde_json::Value = serde_json::from_slice(&bench.stdout).expect("JSON");
    let transfers = &figures["workloads"][0];
    assert_eq!(figures["acknowledged_transfers_found"], 400);
    assert_eq!(transfers["errors"], serde_json::json!({}), "nothing but conflicts");
    assert!(transfers["retries"].as_u64().is_some_and(|retries| retries > 0), "{transfers}");
    let compared = cluster.compare(&[1, 2, 3, 4]);
    assert!(compared.status.success(), "{}", text(&compared.stderr));
}

/// `rota sql` with a script on its standard input.
fn piped(cluster: &Cluster, script: &str) -> Output {
    let shell = rota()
        .args(["sql", &cluster.postgres(1)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut shell = shell.expect("rota sql runs");
    let mut stdin = shell.stdin.take().expect("a pipe");
    // A script that fails early is not read to its end.
    let _ = stdin.write_all(script.as_bytes());
    drop(stdin);
    shell.wait_with_output().expect("rota sql ends")
}

#[test]
fn a_taken_port_is_named_with_what_to_do() {
    let offset = free_ports();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 4002 + offset)).expect("a free port");
    let folder = tempfile::tempdir().expect("a folder");
    let dev = rota()
        .args(["dev", "--port-offset", &offset.to_string(), "--home"])
        .arg(folder.path().join("dev"))
        .output()
        .expect("rota dev runs");
    let errors = text(&dev.stderr);
    assert_eq!(dev.status.code(), Some(1), "{errors}");
    assert!(errors.contains(&format!("TCP port {} (HTTP of server 2)", 4002 + offset)), "{errors}");
    assert!(errors.contains("--port-offset"), "{errors}");
}

#[test]
fn exit_codes_tell_a_failure_from_a_mistake() {
    let code = |arguments: &[&str]| {
        rota().args(arguments).output().expect("rota runs").status.code().unwrap_or(-1)
    };
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["dev", "--help"]), 0);
    assert_eq!(code(&["status", "http://127.0.0.1:1"]), 1);
    assert_eq!(code(&["sql", "127.0.0.1:1", "-c", "SELECT 1"]), 1);
    assert_eq!(code(&["start", "--home", "/nonexistent"]), 1);
    assert_eq!(code(&[]), 2);
    assert_eq!(code(&["sql"]), 2);
    assert_eq!(code(&["status", "https://127.0.0.1"]), 2);
    assert_eq!(code(&["sql", "postgres://127.0.0.1:1?sslmode=sometimes"]), 2);
}

fn mode_of(path: &std::path::Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn homes_for_real_machines_are_written_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("cluster");
    let init = |out: &std::path::Path| {
        let servers = "db1.example.org,db2.example.org,10.0.0.3,10.0.0.4";
        rota()
            .args(["init", "--servers", servers, "--out"])
            .arg(out)
            .output()
            .expect("rota init runs")
    };
    let written = init(&out);
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert!(text(&written.stdout).contains("Writes need 3 of the 4 servers"));
    for i in 1..=4 {
        for (file, mode) in
            [("genesis.json", 0o600), ("key", 0o600), ("tls.key", 0o600), ("tls.crt", 0o644)]
        {
            assert_eq!(mode_of(&out.join(format!("server-{i}/{file}"))), mode, "server-{i}/{file}");
        }
        assert_eq!(mode_of(&out.join(format!("server-{i}"))), 0o700);
    }
    for file in ["ca.key", "administrator.key", "administrator.password"] {
        assert_eq!(mode_of(&out.join(file)), 0o600, "{file}");
    }
    assert_eq!(init(&out).status.code(), Some(1), "keys are never overwritten");
}
