//! What a session answers itself: SET, SHOW, COMMIT outside a transaction, DEALLOCATE and the like.
//! Step 1 only: none of this reaches the database.

use std::collections::BTreeMap;

use rota_core::error::{Refusal, sqlstate};

use super::lexer::{Kind, Token, tokens};

/// The version that clients are told: a PostgreSQL that drivers and ORMs know and support.
pub(crate) const SERVER_VERSION: &str = "16.0";

/// How many settings of its own (`a.b`) a session may have.
const MAX_CUSTOM_SETTINGS: usize = 64;

/// The longest value of a setting.
const MAX_SETTING_BYTES: usize = 4096;

/// A statement for the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// COMMIT or ROLLBACK without a transaction: its tag, and a warning.
    EndNothing(&'static str),
    /// SET.
    Set(String, String),
    /// RESET one or all.
    Reset(Option<String>),
    /// SHOW one or all.
    Show(Option<String>),
    /// SELECT set_config(name, value, …).
    SetConfig(String, String),
    /// DEALLOCATE one or all.
    Deallocate(Option<String>),
    /// DISCARD.
    Discard(&'static str),
    /// What is fine and does nothing.
    Nothing(&'static str),
    /// SELECT of a function that does nothing and gives nothing.
    NothingSelected(&'static str),
}

impl Command {
    /// Recognises a session's statement by its first word.
    pub(crate) fn parse(sql: &str) -> Option<Result<Self, Refusal>> {
        let first = first_word(sql);
        // The statements that matter most are told apart without a list of tokens.
        const OTHERS: [&str; 5] = ["insert", "update", "delete", "create", "with"];
        if OTHERS.iter().any(|word| first.eq_ignore_ascii_case(word)) {
            return None;
        }
        let select = first.eq_ignore_ascii_case("select");
        if select && !sql.contains("set_config") && !sql.contains("pg_advisory_unlock_all") {
            return None;
        }
        let all = tokens(sql);
        let words: Vec<Token<'_>> = all
            .into_iter()
            .filter(|token| token.kind != Kind::Space && token.text != ";")
            .collect();
        if select { select_command(&words).map(Ok) } else { command(&words) }
    }
}

/// The first word after white space and comments, or nothing.
pub(crate) fn first_word(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let skipped = if rest.starts_with("--") {
            rest.split_once('\n').map_or("", |(_, tail)| tail)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, tail)| tail)
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            return rest.get(..end.unwrap_or(rest.len())).unwrap_or("");
        };
        rest = skipped.trim_start();
    }
}

fn command(words: &[Token<'_>]) -> Option<Result<Command, Refusal>> {
    let (first, rest) = words.split_first()?;
    let keyword = first.name().filter(|_| first.kind == Kind::Word)?;
    let second = rest.first();
    let second_is = |word: &str| second.is_some_and(|token| token.is(word));
    Some(match keyword.as_str() {
        "begin" | "start" => Err(no_transactions()),
        "commit" | "end" => Ok(Command::EndNothing("COMMIT")),
        "rollback" if rest.iter().any(|token| token.is("to")) => Err(outside("ROLLBACK TO")),
        "rollback" | "abort" => Ok(Command::EndNothing("ROLLBACK")),
        "savepoint" => Err(outside("SAVEPOINT")),
        "release" => Err(outside("RELEASE SAVEPOINT")),
        "set" => set(rest),
        "reset" => setting_name(rest).map(|name| Command::Reset(name.filter(|n| n != "all"))),
        "show" => setting_name(rest).map(|name| Command::Show(name.filter(|n| n != "all"))),
        "discard" if second_is("all") => Ok(Command::Discard("DISCARD ALL")),
        "discard" => Ok(Command::Nothing("DISCARD")),
        "deallocate" => {
            let name = rest.iter().rfind(|token| !token.is("prepare"));
            match name {
                None => Err(syntax("DEALLOCATE needs a name or ALL")),
                Some(name) if name.is("all") => Ok(Command::Deallocate(None)),
                Some(name) => Ok(Command::Deallocate(name.name())),
            }
        }
        "close" if second_is("all") => Ok(Command::Nothing("CLOSE CURSOR ALL")),
        "unlisten" => Ok(Command::Nothing("UNLISTEN")),
        "listen" | "notify" | "copy" | "prepare" | "execute" | "declare" | "fetch" | "move"
        | "close" | "lock" | "grant" | "revoke" | "do" | "call" | "cluster" => {
            Err(unsupported(format!("{} is not supported", keyword.to_uppercase())))
        }
        _ => return None,
    })
}

/// `SELECT set_config('name', 'value', false)`, as Django sends it; `SELECT
/// pg_advisory_unlock_all()`, as asyncpg does.
fn select_command(words: &[Token<'_>]) -> Option<Command> {
    let mut words = words.get(1..)?;
    if let [schema, dot, rest @ ..] = words
        && schema.is("pg_catalog")
        && dot.text == "."
    {
        words = rest;
    }
    match words {
        [function, open, name, comma, value, second_comma, _, close]
            if function.is("set_config")
                && [open.text, comma.text, second_comma.text, close.text]
                    == ["(", ",", ",", ")"] =>
        {
            Some(Command::SetConfig(literal(name)?, literal(value)?))
        }
        [function, _, _] if function.is("pg_advisory_unlock_all") => {
            Some(Command::NothingSelected("pg_advisory_unlock_all"))
        }
        _ => None,
    }
}

fn set(words: &[Token<'_>]) -> Result<Command, Refusal> {
    let mut words = words;
    if let [scope, rest @ ..] = words
        && (scope.is("session") || scope.is("local"))
    {
        words = rest;
    }
    match words {
        [first, ..] if first.is("transaction") || first.is("characteristics") => {
            Ok(Command::Nothing("SET"))
        }
        [time, zone, value] if time.is("time") && zone.is("zone") => {
            Ok(Command::Set("timezone".into(), literal(value).unwrap_or_default()))
        }
        [names, value] if names.is("names") => {
            Ok(Command::Set("client_encoding".into(), literal(value).unwrap_or_default()))
        }
        _ => {
            let place = words.iter().position(|token| token.text == "=" || token.is("to"));
            let split = place.and_then(|place| words.split_at_checked(place));
            let (name, value) = split.ok_or_else(|| syntax("SET needs `name = value`"))?;
            let name = setting_name(name)?.ok_or_else(|| syntax("SET needs a name"))?;
            let values: Vec<String> = value
                .iter()
                .skip(1)
                .filter(|token| token.text != ",")
                .filter_map(literal)
                .collect();
            Ok(Command::Set(name, values.join(", ")))
        }
    }
}

/// A name, perhaps with dots: `rota.last`; `TRANSACTION ISOLATION LEVEL` is one too.
fn setting_name(words: &[Token<'_>]) -> Result<Option<String>, Refusal> {
    let separate = words.iter().filter(|token| token.text != ".").count();
    let dots = words.len().saturating_sub(separate);
    let names: Vec<String> = words.iter().filter_map(Token::name).collect();
    if names.len() != separate {
        return Err(syntax("this is not the name of a setting"));
    }
    Ok(match names.as_slice() {
        [] => None,
        [time, zone] if time == "time" && zone == "zone" => Some("timezone".into()),
        [first, ..] if first == "transaction" && dots == 0 => Some("transaction_isolation".into()),
        names if dots + 1 == names.len() => Some(names.join(".")),
        _ => return Err(syntax("this is not the name of a setting")),
    })
}

fn literal(token: &Token<'_>) -> Option<String> {
    match token.kind {
        Kind::Text => {
            let inner = token.text.strip_prefix('\'')?.strip_suffix('\'')?;
            Some(inner.replace("''", "'"))
        }
        Kind::Number | Kind::Symbol('-' | '+') => Some(token.text.into()),
        Kind::Quoted => token.name(),
        Kind::Word => Some(token.text.into()),
        _ => None,
    }
}

/// The settings of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

/// Settings that are known, and their values from the start. Those that only say how PostgreSQL
/// plans, logs or waits are taken and have no effect.
const KNOWN: [(&str, &str); 31] = [
    ("application_name", ""),
    ("backslash_quote", "safe_encoding"),
    ("bytea_output", "hex"),
    ("check_function_bodies", "on"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "off"),
    ("enable_seqscan", "on"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("row_security", "off"),
    ("rota.read", "local"),
    ("rota.wait", "final"),
    ("search_path", "public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160000"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "UTC"),
    ("transaction_isolation", "serializable"),
];

/// Settings that cannot be anything else as yet: the values that they may be set to, in lower case.
const FIXED: [(&str, &[&str]); 14] = [
    ("client_encoding", &["utf8", "utf-8", "unicode", "default"]),
    ("timezone", &["utc", "gmt", "etc/utc", "default", "0"]),
    ("standard_conforming_strings", &["on", "true", "default"]),
    ("integer_datetimes", &["on"]),
    ("bytea_output", &["hex", "default"]),
    ("rota.read", &["local", "default"]),
    ("rota.wait", &["final", "default"]),
    ("default_transaction_read_only", &["off", "false", "default"]),
    ("server_version", &[]),
    ("server_version_num", &[]),
    ("server_encoding", &[]),
    ("is_superuser", &[]),
    ("in_hot_standby", &[]),
    ("lc_collate", &[]),
];

impl Variables {
    /// Sets one; the new value.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let name = name.to_ascii_lowercase();
        if name == "rota.last" {
            return Err(invalid(
                "rota.last is the position of the last write: it can only be shown",
            ));
        }
        let known = KNOWN.iter().any(|(known, _)| *known == name);
        if !known && !name.contains('.') {
            return Err(unknown(&name));
        }
        if value.len() > MAX_SETTING_BYTES {
            return Err(invalid("the value of a setting is too long"));
        }
        if let Some((_, allowed)) = FIXED.iter().find(|(fixed, _)| *fixed == name) {
            if allowed.iter().any(|allowed| value.eq_ignore_ascii_case(allowed)) {
                return Ok(());
            }
            let is = self.get(&name).unwrap_or_default();
            return Err(unsupported(format!("{name} can only be {is}, not {value:?}")));
        }
        if value.eq_ignore_ascii_case("default") {
            self.0.remove(&name);
            return Ok(());
        }
        if !known && self.0.len() >= MAX_CUSTOM_SETTINGS {
            return Err(invalid("too many settings of one's own"));
        }
        self.0.insert(name, value.to_owned());
        Ok(())
    }

    /// Back to the start, one or all.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), Refusal> {
        match name {
            None => self.0.clear(),
            Some(name) => {
                self.get(name)?;
                self.0.remove(name);
            }
        }
        Ok(())
    }

    /// One's value.
    pub(crate) fn get(&self, name: &str) -> Result<String, Refusal> {
        if let Some(value) = self.0.get(name) {
            return Ok(value.clone());
        }
        let known = KNOWN.iter().find(|(known, _)| *known == name);
        known.map(|(_, value)| (*value).to_owned()).ok_or_else(|| unknown(name))
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> =
            KNOWN.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        all.extend(self.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        all.into_iter().collect()
    }
}

fn no_transactions() -> Refusal {
    unsupported(
        "interactive transactions (BEGIN … COMMIT) come in a later version: every statement is a \
         transaction of its own; switch your driver to autocommit (psycopg: autocommit=True), or \
         send \
         several statements as one transaction over HTTP (/db/execute?transaction)",
    )
}

fn outside(what: &str) -> Refusal {
    Refusal::new("25P01", format!("{what} can only be used in transaction blocks"))
}

fn unknown(name: &str) -> Refusal {
    Refusal::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(sqlstate::INVALID_PARAMETER, message)
}

fn syntax(message: &str) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, message)
}

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_recognised_however_they_are_written() {
        let set = |name: &str, value: &str| Command::Set(name.into(), value.into());
        for (sql, want) in [
            ("SET client_encoding TO 'UTF8'", set("client_encoding", "UTF8")),
            ("set session \"application_name\" = 'a''b';", set("application_name", "a'b")),
            ("SET search_path = public, x", set("search_path", "public, x")),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            ("SET extra_float_digits = 3", set("extra_float_digits", "3")),
            ("SET rota.read = local", set("rota.read", "local")),
            ("/* a */ SHOW rota.last -- b", Command::Show(Some("rota.last".into()))),
            (
                "SHOW TRANSACTION ISOLATION LEVEL",
                Command::Show(Some("transaction_isolation".into())),
            ),
            ("SHOW ALL", Command::Show(None)),
            ("RESET ALL", Command::Reset(None)),
            ("DISCARD ALL", Command::Discard("DISCARD ALL")),
            ("DEALLOCATE ALL", Command::Deallocate(None)),
            ("DEALLOCATE PREPARE \"A\"", Command::Deallocate(Some("A".into()))),
            ("COMMIT", Command::EndNothing("COMMIT")),
            ("ROLLBACK WORK", Command::EndNothing("ROLLBACK")),
            ("UNLISTEN *", Command::Nothing("UNLISTEN")),
            (
                "SELECT pg_catalog.set_config('search_path', '', false)",
                Command::SetConfig("search_path".into(), String::new()),
            ),
        ] {
            assert_eq!(Command::parse(sql), Some(Ok(want)), "{sql}");
        }
        for sql in ["SELECT 1", "", "-- SET a = b", "insert into t values ('SET')", "VALUES (1)"] {
            assert_eq!(Command::parse(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_a_code() {
        for (sql, code) in [
            ("BEGIN", "0A000"),
            ("START TRANSACTION READ ONLY", "0A000"),
            ("SAVEPOINT a", "25P01"),
            ("ROLLBACK TO a", "25P01"),
            ("LISTEN a", "0A000"),
            ("SET", "42601"),
            ("DEALLOCATE", "42601"),
        ] {
            assert_eq!(Command::parse(sql).unwrap().unwrap_err().code(), code, "{sql}");
        }
    }

    #[test]
    fn settings_that_would_change_meaning_are_refused_and_others_kept() {
        let mut variables = Variables::default();
        for (name, value, code) in [
            ("timezone", "Europe/Berlin", "0A000"),
            ("client_encoding", "LATIN1", "0A000"),
            ("standard_conforming_strings", "off", "0A000"),
            ("rota.read", "linearizable", "0A000"),
            ("rota.last", "1", "22023"),
            ("nonsense", "1", "42704"),
        ] {
            assert_eq!(variables.set(name, value).unwrap_err().code(), code, "{name}");
        }
        variables.set("application_name", "x").unwrap();
        variables.set("app.user", "y").unwrap();
        assert_eq!(variables.get("application_name"), Ok("x".into()));
        assert_eq!(variables.get("app.user"), Ok("y".into()));
        variables.reset(None).unwrap();
        assert_eq!(variables.get("application_name"), Ok(String::new()));
        assert!(variables.get("app.user").is_err());
    }
}
