//! `rota tx`: a transaction signed with its user's own key: on this machine, which tells the key to
//! nobody, and sent to any server.
//!
//! ```text
//!  SQL ──► passwords become verifiers ──► envelope, signed ──► POST /chain/transactions
//!                                             │  ▲
//!                              --sign-only ───┘  └─── --send: by another machine, later
//! ```
//! The envelope is sent again until there is an answer or it has expired: its transaction has one
//! id, and is executed once.

use std::fmt::Display;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use rota_core::codec::{decode, encode};
use rota_core::genesis::FORMAT;
use rota_core::time::Time;
use rota_core::transaction::{
    Envelope, Expiry, MAX_ENVELOPE_BYTES, Parameters, Settings, Statement, Transaction, Value,
};
use rota_core::types::{ChainId, Height};
use rota_node::auth::seal;
use rota_store::access::text_of;
use rota_store::sql::{Access, classify, split};
use serde::Deserialize;
use serde_json::Value as Json;

use super::keys::load;
use super::sql::show::{Kind, Printer};
use crate::address::Address;
use crate::args::{Mode, Tx};
use crate::failure::{self, Failure};
use crate::http::Web;
use crate::print::out;
use crate::trust::Trust;

/// The longest that a file with an envelope in it may be: two hexadecimal digits a byte.
const MAX_FILE_BYTES: u64 = 2 * MAX_ENVELOPE_BYTES as u64 + 16;

/// How many blocks an envelope lives at the most: more than are made in the hour that it may live,
/// so that the time is what counts.
const EXPIRY_BLOCKS: u64 = 900_000;

/// How long an envelope lives, unless it is said, or blocks take longer.
const LIVES: Duration = Duration::from_secs(60);

/// How much longer a server may take for an answer than it waits for a transaction itself.
const LATE: Duration = Duration::from_secs(5);

/// Between two attempts to get an answer.
const PAUSE: Duration = Duration::from_millis(500);

/// What a server says of its chain, `GET /chain`; in a file for a machine without a network.
#[derive(Deserialize)]
struct Chain {
    chain: ChainId,
    format: u16,
    height: u64,
    chain_time: u64,
    /// How long the server waits until a transaction is final, in milliseconds. An envelope is
    /// final that much later than the last block that may hold it was proposed, or never.
    patience_ms: u64,
    /// Whose key was asked about.
    #[serde(default)]
    user: Option<String>,
}

/// An answer to `POST /chain/transactions`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Told { transactions: Vec<Told> },
    Refused { error: String, sqlstate: String },
}

/// What became of a transaction.
#[derive(Deserialize)]
struct Told {
    outcome: String,
    #[serde(default)]
    height: u64,
    #[serde(default)]
    index: u32,
    /// Where depth makes it final (`pow`).
    depth: Option<u32>,
    #[serde(default)]
    results: Vec<Done>,
    #[serde(default)]
    sqlstate: String,
    #[serde(default)]
    message: String,
}

/// What became of a statement.
#[derive(Deserialize)]
struct Done {
    rows_affected: u64,
    #[serde(default)]
    columns: Option<Vec<String>>,
    #[serde(default)]
    rows: Vec<Vec<Json>>,
}

/// Signs and sends, or one of the two.
pub async fn run(asked: Tx) -> Result<(), Failure> {
    let trust = Trust::new(&asked.authority);
    if let Some(file) = &asked.send {
        let [server] = asked.words.as_slice() else {
            return Err(Failure::new("--send FILE takes one URL, and nothing else"));
        };
        let envelope = read_envelope(file)?;
        let web = web(server, &trust).await?;
        let chain = about(&web, &envelope.signer).await?;
        let left = Time(envelope.expiry.time.0).since(Time(chain.chain_time));
        return send(&web, &envelope, &chain, left, asked.mode).await;
    }
    let key = load(asked.key.as_deref().ok_or_else(|| Failure::new("--key FILE is missing"))?)?;
    let mut words = asked.words.iter();
    let (chain, web) = match &asked.chain {
        Some(file) => (read_chain(file)?, None),
        None => {
            let server = words.next().ok_or_else(|| Failure::new("the server's URL is missing"))?;
            let web = web(server, &trust).await?;
            (about(&web, &key.public()).await?, Some(web))
        }
    };
    let statements = statements(words.chain(&asked.command), &asked.param)?;
    let user = user(&chain, asked.user.as_deref(), &text_of(&key.public()))?;
    let usual = LIVES.max(Duration::from_millis(chain.patience_ms));
    let lives = asked.expires.map_or(usual, Duration::from_secs);
    let expiry = Expiry {
        height: Height(chain.height.saturating_add(EXPIRY_BLOCKS)),
        time: Time(chain.chain_time).plus(lives),
    };
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(Failure::doing("asking for randomness"))?;
    let settings = Settings::default();
    let transaction = Transaction { salt, user, statements, settings, interactive: None };
    let envelope = Envelope::sign(chain.chain, &key, expiry, vec![transaction]);
    let size = encode(&envelope).len();
    if size > MAX_ENVELOPE_BYTES {
        let message = format!("{size} bytes; a transaction may have {MAX_ENVELOPE_BYTES}");
        return Err(Failure::new(message));
    }
    match (&asked.output, web) {
        (Some(file), _) => write_envelope(file, &envelope, chain.chain),
        (None, Some(web)) => send(&web, &envelope, &chain, lives, asked.mode).await,
        (None, None) => Err(Failure::new("--chain FILE needs --sign-only -o FILE")),
    }
}

async fn web(server: &str, trust: &Trust) -> Result<Web, Failure> {
    let address: Address = server.parse().map_err(Failure::new)?;
    // What is signed needs no login; only asking for the HTTP port over PostgreSQL's protocol does.
    address.http(&trust.unasked()).await.map_err(|failure| match failure.kind() {
        failure::Kind::NoLogin => Failure::new(format!(
            "{failure}; or give the server's HTTP address: with that, `rota tx` needs no login"
        )),
        _ => failure,
    })
}

/// In whose name to sign.
fn user(chain: &Chain, given: Option<&str>, key: &str) -> Result<String, Failure> {
    match (given, &chain.user) {
        (Some(given), Some(known)) if given != known => {
            Err(Failure::new(format!("the key is that of user {known}, not of {given}")))
        }
        (Some(user), _) => Ok(user.to_owned()),
        (None, Some(user)) => Ok(user.clone()),
        (None, None) => Err(Failure::new(format!(
            "no user has the key {key}: an administrator gives it to one with ALTER USER … KEY \
             '{key}'; or say whose it is with --user"
        ))),
    }
}

/// What is to be signed, with verifiers for passwords.
fn statements<'a>(
    given: impl Iterator<Item = &'a String>,
    parameters: &[String],
) -> Result<Vec<Statement>, Failure> {
    let mut texts: Vec<String> = given.cloned().collect();
    if texts.is_empty() {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new("there is no SQL: give it as an argument, or by a pipe"));
        }
        let mut text = String::new();
        let input = std::io::stdin().lock();
        let read = input.take(MAX_FILE_BYTES).read_to_string(&mut text);
        read.map_err(Failure::doing("reading standard input"))?;
        texts.push(text);
    }
    let mut statements = Vec::new();
    for sql in texts.iter().flat_map(|text| split(text)) {
        match classify(sql).access {
            Access::Empty => continue,
            Access::Session => {
                return Err(Failure::new(
                    "BEGIN, COMMIT, SET and their like are not signed: all statements of one \
                     `rota tx` are one transaction",
                ));
            }
            Access::Read | Access::Write => {}
        }
        let sealed = seal(sql).map_err(|refusal| Failure::new(refusal.message))?;
        let sql = sealed.unwrap_or_else(|| sql.to_owned());
        statements.push(Statement { sql, parameters: Parameters::Positional(Vec::new()) });
    }
    if !parameters.is_empty() {
        let [statement] = statements.as_mut_slice() else {
            return Err(Failure::new("--param is for one statement; there are several, or none"));
        };
        let values = parameters.iter().map(|text| value(text)).collect();
        statement.parameters = Parameters::Positional(values);
    }
    if statements.is_empty() {
        return Err(Failure::new("there is no SQL: give it as an argument, or by a pipe"));
    }
    Ok(statements)
}

/// A parameter as it was typed: NULL, a number, `x'00ff'`, and anything else text; `'…'` is text
/// too.
fn value(text: &str) -> Value {
    let quoted = |text: &str| text.strip_prefix('\'')?.strip_suffix('\'').map(str::to_owned);
    if text.eq_ignore_ascii_case("null") {
        return Value::Null;
    }
    if let Some(bytes) = text.strip_prefix(['x', 'X']).and_then(quoted).and_then(|hex| bytes(&hex))
    {
        return Value::Blob(bytes);
    }
    if let Some(inner) = quoted(text) {
        return Value::Text(inner.replace("''", "'"));
    }
    if let Ok(number) = text.parse() {
        return Value::Integer(number);
    }
    let looks_real = text.contains(['.', 'e', 'E']) && text.ends_with(|c: char| c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if looks_real && number.is_finite() => Value::real(number),
        _ => Value::Text(text.to_owned()),
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    digits.chunks(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a server says of its chain and of a key.
async fn about(web: &Web, key: &rota_core::types::PublicKey) -> Result<Chain, Failure> {
    let path = format!("/chain?key={}", text_of(key));
    let (code, body) = web.get(&path).await?;
    if !code.is_success() {
        return Err(Failure::new(format!(
            "{}: {}",
            web.url("/chain"),
            refusal(&body, code.as_str())
        )));
    }
    chain_of(&body, web.url("/chain"))
}

/// What is wrong with a text is not said: it may be a key that was named by mistake.
fn chain_of(text: &[u8], from: impl Display) -> Result<Chain, Failure> {
    let wrong = |_| Failure::new(format!("{from}: not what GET /chain of a server answers"));
    let chain: Chain = serde_json::from_slice(text).map_err(wrong)?;
    if chain.format != FORMAT {
        return Err(Failure::new(format!(
            "that chain has format {}, this program signs format {FORMAT}: use the server's",
            chain.format
        )));
    }
    Ok(chain)
}

/// What a body says is wrong, if it is JSON of ours.
fn refusal(body: &[u8], otherwise: &str) -> String {
    match serde_json::from_slice(body) {
        Ok(Answer::Refused { error, sqlstate }) => format!("ERROR {sqlstate}: {error}"),
        _ => otherwise.to_owned(),
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    let doing = |error| Failure::new(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(doing)?;
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(doing)?;
    Ok(text)
}

fn read_chain(path: &Path) -> Result<Chain, Failure> {
    chain_of(read_file(path)?.as_bytes(), path.display())
}

fn read_envelope(path: &Path) -> Result<Envelope, Failure> {
    let wrong = || Failure::new(format!("{}: not what --sign-only wrote", path.display()));
    let bytes = bytes(read_file(path)?.trim()).ok_or_else(wrong)?;
    decode(&bytes, MAX_ENVELOPE_BYTES).map_err(|_| wrong())
}

fn write_envelope(path: &Path, envelope: &Envelope, chain: ChainId) -> Result<(), Failure> {
    let text = hex(&encode(envelope)) + "\n";
    if path == Path::new("-") {
        return out(&text);
    }
    let doing = |error| Failure::new(format!("{}: {error}", path.display()));
    let mut options = std::fs::OpenOptions::new();
    // What is to be done is nobody else's business yet.
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(doing)?;
    for transaction in &envelope.transactions {
        eprintln!("signed: transaction {}", transaction.id(chain, envelope.signer));
    }
    Ok(())
}

/// Sends an envelope until there is an answer, no longer than it `lives`.
async fn send(
    web: &Web,
    envelope: &Envelope,
    chain: &Chain,
    lives: Duration,
    mode: Mode,
) -> Result<(), Failure> {
    let body = Bytes::from(encode(envelope));
    let patience = Duration::from_millis(chain.patience_ms);
    let until = Instant::now() + lives + patience;
    let mut silent = false;
    loop {
        let said = match post(web, body.clone(), patience + LATE).await {
            Ok((code, body)) => match serde_json::from_slice(&body) {
                Ok(Answer::Told { transactions }) => match told(&transactions, mode)? {
                    true => return Ok(()),
                    false => "it is not final yet".to_owned(),
                },
                _ if code == StatusCode::SERVICE_UNAVAILABLE => refusal(&body, "busy"),
                _ => return Err(Failure::new(refusal(&body, code.as_str()))),
            },
            Err(failure) => failure.to_string(),
        };
        if !silent {
            eprintln!("{said}; asking again: it is executed once at the most");
            silent = true;
        }
        if Instant::now() >= until {
            let ids = envelope.transactions.iter().map(|t| t.id(chain.chain, envelope.signer));
            let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
            return Err(Failure::new(format!(
                "outcome unknown: {said}; it was executed once or never will be: ask any server \
                 with SELECT rota_transaction('{}')",
                ids.join("'), rota_transaction('")
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn post(web: &Web, body: Bytes, patience: Duration) -> Result<(StatusCode, Bytes), Failure> {
    let path = "/chain/transactions";
    let binary = Some("application/octet-stream");
    let answer = web.send(Method::POST, path, binary, body, patience).await?;
    let code = answer.status();
    let body = tokio::time::timeout(patience, answer.into_body().collect()).await;
    let late = |_| Failure::new(format!("{}: no whole answer", web.url(path)));
    let body = body.map_err(late)?.map_err(Failure::doing(web.url(path)))?;
    Ok((code, body.to_bytes()))
}

/// Prints what became of transactions. False: that is not known yet.
fn told(transactions: &[Told], mode: Mode) -> Result<bool, Failure> {
    let busy = |told: &Told| matches!(told.sqlstate.as_str(), "53000" | "57P03");
    if transactions.iter().any(|told| told.outcome == "unknown" || busy(told)) {
        return Ok(false);
    }
    for told in transactions {
        if told.outcome != "final" {
            return Err(Failure::new(format!("ERROR {}: {}", told.sqlstate, told.message)));
        }
        for done in &told.results {
            print(done, mode)?;
        }
        let deep = told.depth.map(|depth| format!(", {depth} blocks deep")).unwrap_or_default();
        eprintln!("final at ({}, {}){deep}", told.height, told.index);
    }
    Ok(true)
}

fn print(done: &Done, mode: Mode) -> Result<(), Failure> {
    let kind = |value: &Json| if value.is_number() { Kind::Number } else { Kind::Text };
    let kinds = done.rows.first().map(|row| row.iter().map(kind).collect());
    let mut printer = Printer::new(mode, kinds.unwrap_or_default());
    let Some(columns) = &done.columns else { return out(&printer.end(done.rows_affected)) };
    let mut text = printer.begin(columns.clone());
    for row in &done.rows {
        let shown: Vec<Option<String>> = row.iter().map(cell).collect();
        text += &printer.row(shown.iter().map(Option::as_deref).collect());
    }
    out(&(text + &printer.end(done.rows_affected)))
}

fn cell(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        Json::Object(bytes) => {
            let hex = bytes.get("blob").and_then(Json::as_str).unwrap_or_default();
            Some(format!("\\x{hex}"))
        }
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_what_they_look_like() {
        for (text, want) in [
            ("1", Value::Integer(1)),
            ("-9223372036854775808", Value::Integer(i64::MIN)),
            ("1.5", Value::real(1.5)),
            ("1e3", Value::real(1000.0)),
            ("NULL", Value::Null),
            ("x'00fF'", Value::Blob(vec![0, 255])),
            ("x'0'", Value::Text("x'0'".into())),
            ("'1'", Value::Text("1".into())),
            ("it's", Value::Text("it's".into())),
            ("inf", Value::Text("inf".into())),
            ("", Value::Text(String::new())),
        ] {
            assert_eq!(value(text), want, "{text}");
        }
    }

    #[test]
    fn passwords_become_verifiers_before_anything_is_signed() {
        let given = ["CREATE USER bob PASSWORD 'secret'; INSERT INTO t VALUES (1)".to_owned()];
        let signed = statements(given.iter(), &[]).unwrap();
        assert_eq!(signed.len(), 2);
        assert!(signed[0].sql.contains("SCRAM-SHA-256$"), "{}", signed[0].sql);
        assert!(!signed[0].sql.contains("secret"));
        assert_eq!(signed[1].sql, "INSERT INTO t VALUES (1)");
    }

    #[test]
    fn what_cannot_be_signed_is_refused_before() {
        for sql in ["BEGIN", "INSERT INTO t VALUES (1); COMMIT", "-- nothing"] {
            assert!(statements([sql.to_owned()].iter(), &[]).is_err(), "{sql}");
        }
        let two = ["SELECT ?; SELECT ?".to_owned()];
        assert!(statements(two.iter(), &["1".to_owned()]).is_err());
        let chain = |user: Option<&str>| Chain {
            chain: ChainId::default(),
            format: FORMAT,
            height: 1,
            chain_time: 1,
            patience_ms: 10_000,
            user: user.map(str::to_owned),
        };
        assert!(user(&chain(Some("alice")), Some("bob"), "key").is_err());
        assert!(user(&chain(None), None, "key").is_err());
        assert_eq!(user(&chain(Some("alice")), None, "key").unwrap(), "alice");
    }

    #[test]
    fn a_signed_envelope_is_carried_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("one.tx");
        let key = rota_core::crypto::SecretKey::from_bytes([7; 32]);
        let transaction = Transaction {
            salt: [1; 16],
            user: "alice".into(),
            statements: statements(["DELETE FROM t".to_owned()].iter(), &[]).unwrap(),
            settings: Settings::default(),
            interactive: None,
        };
        let expiry = Expiry { height: Height(10), time: Time(20) };
        let envelope = Envelope::sign(ChainId::default(), &key, expiry, vec![transaction]);
        write_envelope(&file, &envelope, ChainId::default()).unwrap();
        assert_eq!(read_envelope(&file).unwrap(), envelope);
        assert!(write_envelope(&file, &envelope, ChainId::default()).is_err(), "overwritten");
        std::fs::write(&file, "00ff").unwrap();
        assert!(read_envelope(&file).is_err());
    }

    #[test]
    fn a_wrong_file_is_named_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alice.key");
        for secret in ["1234567890", "\"1234567890\"", "{\"chain\": 1234567890}"] {
            std::fs::write(&file, secret).unwrap();
            let said = read_chain(&file).map(drop).unwrap_err().to_string();
            assert!(said.contains("alice.key") && !said.contains("1234567890"), "{said}");
        }
    }
}
