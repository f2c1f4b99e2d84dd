//! A server of `rota init`: its certificate, its first user, and what our own tools believe.

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use tempfile::TempDir;

use crate::cluster::{free_ports, rota, until};
use crate::text;

/// One server and what `rota init` wrote, gone with this.
struct Server {
    folder: TempDir,
    offset: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (out, offset) = (folder.path().join("cluster"), free_ports());
        let port = |base: u16| (base + offset).to_string();
        let written = rota()
            .args(["init", "--servers", "localhost", "--peer-port", &port(7001)])
            .args(["--postgres-port", &port(5441), "--http-port", &port(4001), "--out"])
            .arg(&out)
            .output()
            .expect("rota init runs");
        assert!(written.status.success(), "{}", text(&written.stderr));
        let child = rota()
            .args(["start", "--stop-with-stdin", "--home"])
            .arg(out.join("server-1"))
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("rota start runs");
        let server = Self { folder, offset, child };
        let ready = || server.ask(&server.password(), &["status", &server.http()]);
        until("the server is ready", || text(&ready().stdout).contains("ready"));
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("cluster").join(name)
    }

    fn password(&self) -> String {
        let read = std::fs::read_to_string(self.path("administrator.password"));
        read.expect("a password").trim().to_owned()
    }

    fn http(&self) -> String {
        format!("https://rota@localhost:{}", 4001 + self.offset)
    }

    fn postgres(&self, user: &str) -> String {
        format!("postgres://{user}@localhost:{}/rota", 5441 + self.offset)
    }

    /// Runs `rota` with this password and the cluster's authority.
    fn ask(&self, password: &str, arguments: &[&str]) -> Output {
        rota()
            .args(arguments)
            .env("ROTA_PASSWORD", password)
            .env("ROTA_CA", self.path("ca.crt"))
            .stdin(Stdio::null())
            .output()
            .expect("rota runs")
    }

    /// What one statement prints, or why it failed.
    fn sql(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let server = self.postgres(user);
        let asked = self.ask(password, &["sql", &server, "--mode", "csv", "-c", sql]);
        match asked.status.success() {
            true => Ok(text(&asked.stdout)),
            false => Err(text(&asked.stderr)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn holds(folder: &Path, secret: &str) -> bool {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files
        .filter_map(|file| std::fs::read(file.path()).ok())
        .any(|bytes| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
}

#[test]
fn the_first_user_has_a_password_to_log_in_and_a_key_to_make_others() {
    let server = Server::start();
    let own = server.password();
    assert_eq!(server.sql("rota", &own, "SELECT 1 AS one"), Ok("one\n1\n".into()));
    let wrong = server.sql("rota", "wrong", "SELECT 1").unwrap_err();
    assert!(wrong.contains("28P01"), "{wrong}");
    for address in [server.http(), server.postgres("rota")] {
        let locked = server.ask("wrong", &["status", &address]);
        assert!(text(&locked.stdout).contains("no login"), "{}", text(&locked.stdout));
    }
    assert_eq!(wrong.replace("rota", "?"), {
        let nobody = server.sql("nobody", "wrong", "SELECT 1").unwrap_err();
        nobody.replace("nobody", "?").replace("rota", "?")
    });
    let create = "CREATE USER ada PASSWORD 'a long secret' SERVERS ALL";
    let refused = server.sql("rota", &own, create).unwrap_err();
    assert!(refused.contains("42501"), "servers are not trusted with users: {refused}");
    let key = server.path("administrator.key");
    let key = key.to_str().expect("a path");
    let signed = server.ask(&own, &["tx", "--key", key, &server.http(), create]);
    assert!(signed.status.success(), "{}", text(&signed.stderr));
    assert_eq!(server.sql("ada", "a long secret", "SELECT 1 AS one"), Ok("one\n1\n".into()));
    assert!(!holds(&server.path("server-1"), "a long secret"), "a password is in a file");
}

#[test]
fn a_server_is_believed_by_its_authority_only() {
    let server = Server::start();
    let other = server.folder.path().join("other");
    let made = ["init", "--servers", "localhost", "--out", other.to_str().expect("a path")];
    assert!(rota().args(made).output().expect("rota init runs").status.success());
    let other = other.join("ca.crt");
    let other = other.to_str().expect("a path");
    for address in [server.http(), server.postgres("rota")] {
        let asked = server.ask(&server.password(), &["status", "--ca", other, &address]);
        assert!(!asked.status.success());
        let said = text(&asked.stderr);
        assert!(said.contains("not signed by a known authority"), "{said}");
        assert!(text(&asked.stdout).contains("not trusted"), "{}", text(&asked.stdout));
    }
}

#[test]
fn a_renewed_certificate_has_the_names_of_the_old_one() {
    let server = Server::start();
    let (ca, home) = (server.path(""), server.path("server-1"));
    let before = std::fs::read(home.join("tls.crt")).expect("a certificate");
    let renewed = rota().args(["certificate", "--ca"]).arg(&ca).arg("--home").arg(&home).output();
    let renewed = renewed.expect("rota certificate runs");
    assert!(text(&renewed.stdout).contains("for localhost, 127.0.0.1, ::1, valid until"));
    assert_ne!(std::fs::read(home.join("tls.crt")).expect("a certificate"), before);
    let unknown = rota().args(["certificate", "--ca"]).arg(&home).arg("--home").arg(&home).output();
    assert!(!unknown.expect("rota certificate runs").status.success(), "no ca.key is there");
}
