//! The words of CREATE USER, ALTER USER, DROP USER, GRANT and REVOKE: PostgreSQL's, with KEY,
//! SERVERS and ADMINISTRATOR beside them. Read at the door, where passwords become verifiers (step
//! 1), and at apply (step 8).

use std::collections::BTreeSet;
use std::fmt;

use rota_core::error::{Refusal, sqlstate};
use rota_core::types::PublicKey;

use super::rights::{Privilege, Privileges};
use super::verifier::Verifier;
use crate::accounts;
use crate::sql::{Lexer, Token};
use crate::value::StatementKind;

/// The longest name of a user, in bytes (PostgreSQL's).
const MAX_NAME: usize = 63;

/// The longest password, in bytes.
const MAX_PASSWORD: usize = 1_024;

/// The most names in one statement.
const MOST_NAMES: usize = 100;

/// What stands for everybody.
pub const PUBLIC: &str = "public";

/// What a key's text begins with.
pub const KEY_SCHEME: &str = "ed25519:";

/// A change of users or grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// CREATE USER, CREATE ROLE.
    Create(String, Options),
    /// ALTER USER.
    Alter(String, Options),
    /// ALTER USER … RENAME TO.
    Rename(String, String),
    /// DROP USER [IF EXISTS].
    Drop(Vec<String>, bool),
    /// GRANT … ON … TO.
    Grant(Privileges, Objects, Vec<String>),
    /// REVOKE … ON … FROM.
    Revoke(Privileges, Objects, Vec<String>),
    /// GRANT role TO user.
    Join(Vec<String>, Vec<String>),
    /// REVOKE role FROM user.
    Leave(Vec<String>, Vec<String>),
}

/// What is said of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// PASSWORD; inner `None`: NULL, there is none from now on.
    pub password: Option<Option<Password>>,
    /// KEY; inner `None`: NULL.
    pub key: Option<Option<PublicKey>>,
    /// SERVERS.
    pub servers: Option<Servers>,
    /// ADMINISTRATOR, NOADMINISTRATOR.
    pub administrator: Option<bool>,
    /// LOGIN, NOLOGIN.
    pub login: Option<bool>,
}

/// A password, or what is kept of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// As somebody typed it: never signed, never stored.
    Plain(String),
    /// What is.
    Verifier(Verifier),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// Which servers may sign for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// Every member.
    All,
    /// These.
    Named(BTreeSet<PublicKey>),
}

impl Servers {
    /// Whether a server is one of them.
    pub fn include(&self, server: &PublicKey) -> bool {
        match self {
            Self::All => true,
            Self::Named(named) => named.contains(server),
        }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::Named(named) if named.is_empty() => f.write_str("NONE"),
            Self::Named(named) => {
                let keys: Vec<String> =
                    named.iter().map(|key| format!("'{}'", text_of(key))).collect();
                f.write_str(&keys.join(", "))
            }
        }
    }
}

/// What is granted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// All tables, those to come included.
    All,
    /// These tables and views.
    Tables(Vec<String>),
}

/// A key as users write it.
pub fn text_of(key: &PublicKey) -> String {
    format!("{KEY_SCHEME}{}", hex::encode(key.0))
}

/// The key of such a text.
pub fn key_of(text: &str) -> Option<PublicKey> {
    let mut key = [0; 32];
    hex::decode_to_slice(text.strip_prefix(KEY_SCHEME)?, &mut key).ok()?;
    Some(PublicKey(key))
}

/// Whether a statement is about users or grants.
pub fn is_about(sql: &str) -> bool {
    kind_of(sql).is_some()
}

/// What such a statement is, by its first words.
pub fn kind_of(sql: &str) -> Option<StatementKind> {
    let mut tokens = Lexer::new(sql).map(|(_, token)| token);
    let first = tokens.find(|token| *token != Token::Symbol(';'))?;
    let second = tokens.next();
    let role = || second.is_some_and(|token| token.is_any(&["USER", "ROLE"]));
    match first {
        token if token.is("GRANT") => Some(StatementKind::Grant),
        token if token.is("REVOKE") => Some(StatementKind::Revoke),
        token if token.is("CREATE") && role() => Some(StatementKind::CreateUser),
        token if token.is("ALTER") && role() => Some(StatementKind::AlterUser),
        token if token.is("DROP") && role() => Some(StatementKind::DropUser),
        _ => None,
    }
}

impl Change {
    /// Understands a statement for which [`is_about`] is true. Its errors repeat no password.
    pub fn parse(sql: &str) -> Result<Self, Refusal> {
        let mut words = Words::new(sql);
        let change = match words.word()?.to_ascii_uppercase().as_str() {
            "CREATE" => {
                let user = words.word()?.eq_ignore_ascii_case("USER");
                let name = words.name("role")?;
                let mut options = words.options()?;
                options.login.get_or_insert(user);
                Self::Create(name, options)
            }
            "ALTER" => {
                words.word()?;
                let name = words.name("role")?;
                if words.takes("RENAME") {
                    words.expect("TO")?;
                    Self::Rename(name, words.name("role")?)
                } else {
                    Self::Alter(name, words.options()?)
                }
            }
            "DROP" => {
                words.word()?;
                let if_exists = words.takes("IF");
                if if_exists {
                    words.expect("EXISTS")?;
                }
                Self::Drop(words.names("role")?, if_exists)
            }
            "GRANT" => words.grant(true)?,
            _ => words.grant(false)?,
        };
        words.end()?;
        Ok(change)
    }

    /// The password in it.
    pub fn password_mut(&mut self) -> Option<&mut Password> {
        match self {
            Self::Create(_, options) | Self::Alter(_, options) => {
                options.password.as_mut()?.as_mut()
            }
            _ => None,
        }
    }
}

/// The canonical text, which [`Change::parse`] takes for the same. Only for what has a verifier in
/// place of its password; a plain one shows as stars.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name, options) => write!(f, "CREATE ROLE {}{options}", quoted(name)),
            Self::Alter(name, options) => write!(f, "ALTER ROLE {}{options}", quoted(name)),
            Self::Rename(name, to) => {
                write!(f, "ALTER ROLE {} RENAME TO {}", quoted(name), quoted(to))
            }
            Self::Drop(names, true) => write!(f, "DROP ROLE IF EXISTS {}", list(names)),
            Self::Drop(names, false) => write!(f, "DROP ROLE {}", list(names)),
            Self::Grant(what, on, to) => write!(f, "GRANT {what} ON {on} TO {}", list(to)),
            Self::Revoke(what, on, from) => write!(f, "REVOKE {what} ON {on} FROM {}", list(from)),
            Self::Join(roles, to) => write!(f, "GRANT {} TO {}", list(roles), list(to)),
            Self::Leave(roles, from) => write!(f, "REVOKE {} FROM {}", list(roles), list(from)),
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.password {
            None => {}
            Some(None) => f.write_str(" PASSWORD NULL")?,
            Some(Some(Password::Plain(_))) => f.write_str(" PASSWORD '********'")?,
            Some(Some(Password::Verifier(verifier))) => write!(f, " PASSWORD '{verifier}'")?,
        }
        match &self.key {
            None => {}
            Some(None) => f.write_str(" KEY NULL")?,
            Some(Some(key)) => write!(f, " KEY '{}'", text_of(key))?,
        }
        if let Some(servers) = &self.servers {
            write!(f, " SERVERS {servers}")?;
        }
        match self.administrator {
            None => {}
            Some(true) => f.write_str(" ADMINISTRATOR")?,
            Some(false) => f.write_str(" NOADMINISTRATOR")?,
        }
        match self.login {
            None => Ok(()),
            Some(true) => f.write_str(" LOGIN"),
            Some(false) => f.write_str(" NOLOGIN"),
        }
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::Tables(tables) => f.write_str(&list(tables)),
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ")
}

/// A statement's tokens, taken one by one.
struct Words<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'a>>>,
}

impl<'a> Words<'a> {
    fn new(sql: &'a str) -> Self {
        let tokens = Lexer::new(sql).map(|(_, token)| token);
        let tokens = tokens.skip_while(|token| *token == Token::Symbol(';'));
        Self { tokens: tokens.collect::<Vec<_>>().into_iter().peekable() }
    }

    fn word(&mut self) -> Result<&'a str, Refusal> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(unexpected(other)),
        }
    }

    fn is_next(&mut self, keyword: &str) -> bool {
        self.tokens.peek().is_some_and(|token| token.is(keyword))
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let is_next = self.is_next(keyword);
        if is_next {
            self.tokens.next();
        }
        is_next
    }

    fn takes_symbol(&mut self, symbol: char) -> bool {
        let is_next = self.tokens.peek() == Some(&Token::Symbol(symbol));
        if is_next {
            self.tokens.next();
        }
        is_next
    }

    fn expect(&mut self, keyword: &str) -> Result<(), Refusal> {
        if self.takes(keyword) { Ok(()) } else { Err(unexpected(self.tokens.next())) }
    }

    fn end(mut self) -> Result<(), Refusal> {
        while self.takes_symbol(';') {}
        self.tokens.next().map_or(Ok(()), |token| Err(unexpected(Some(token))))
    }

    /// A name: without quotes in lower case, as PostgreSQL has it.
    fn name(&mut self, what: &str) -> Result<String, Refusal> {
        let name = match self.tokens.next() {
            Some(Token::Word(word)) if !word.starts_with(|c: char| c.is_ascii_digit()) => {
                word.to_ascii_lowercase()
            }
            Some(Token::Quoted(text)) => unquoted(text),
            other => return Err(unexpected(other)),
        };
        let longest = if what == "role" { MAX_NAME } else { 1_000 };
        let is_long = name.len() > longest && accounts::key_of_account(&name).is_none();
        if name.is_empty() || is_long || name.contains('\0') {
            let message = format!("a {what} name has from 1 to {longest} bytes");
            return Err(Refusal::new("42602", message));
        }
        Ok(name)
    }

    fn names(&mut self, what: &str) -> Result<Vec<String>, Refusal> {
        let mut names = vec![self.name(what)?];
        while self.takes_symbol(',') {
            if names.len() >= MOST_NAMES {
                return Err(syntax(format!("more than {MOST_NAMES} names")));
            }
            names.push(self.name(what)?);
        }
        Ok(names)
    }

    /// A string in single quotes.
    fn string(&mut self) -> Result<String, Refusal> {
        match self.tokens.next() {
            Some(Token::Text(text)) => {
                let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                let inner = inner.filter(|_| text.len() >= 2);
                inner.map(|text| text.replace("''", "'")).ok_or_else(|| unexpected(None))
            }
            _ => Err(syntax("a string in single quotes is expected")),
        }
    }

    fn options(&mut self) -> Result<Options, Refusal> {
        let mut options = Options::default();
        self.takes("WITH");
        while let Some(&Token::Word(word)) = self.tokens.peek() {
            self.tokens.next();
            let word = word.to_ascii_uppercase();
            let is_said_twice = match word.as_str() {
                "ENCRYPTED" if self.is_next("PASSWORD") => false,
                "PASSWORD" => options.password.replace(self.password()?).is_some(),
                "KEY" => options.key.replace(self.key()?).is_some(),
                "SERVERS" => options.servers.replace(self.servers()?).is_some(),
                "ADMINISTRATOR" | "SUPERUSER" => options.administrator.replace(true).is_some(),
                "NOADMINISTRATOR" | "NOSUPERUSER" => options.administrator.replace(false).is_some(),
                "LOGIN" => options.login.replace(true).is_some(),
                "NOLOGIN" => options.login.replace(false).is_some(),
                // There is nothing of the kind, so nobody may it.
                "CREATEDB" | "NOCREATEDB" | "CREATEROLE" | "NOCREATEROLE" | "INHERIT"
                | "REPLICATION" | "NOREPLICATION" | "BYPASSRLS" | "NOBYPASSRLS" => false,
                "VALID" | "CONNECTION" | "IN" | "ROLE" | "ADMIN" | "NOINHERIT" | "SET"
                | "RESET" | "USER" | "GROUP" | "SYSID" => {
                    let message = format!("{word} is not supported for a role");
                    return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
                }
                _ => return Err(syntax(format!("syntax error at or near \"{word}\""))),
            };
            if is_said_twice {
                return Err(syntax("conflicting or redundant options"));
            }
        }
        Ok(options)
    }

    fn password(&mut self) -> Result<Option<Password>, Refusal> {
        if self.takes("NULL") {
            return Ok(None);
        }
        let text = self.string()?;
        if let Ok(verifier) = text.parse() {
            return Ok(Some(Password::Verifier(verifier)));
        }
        if text.is_empty() || text.len() > MAX_PASSWORD {
            let message = format!("a password has from 1 to {MAX_PASSWORD} bytes");
            return Err(Refusal::new(sqlstate::INVALID_PARAMETER, message));
        }
        Ok(Some(Password::Plain(text)))
    }

    fn key(&mut self) -> Result<Option<PublicKey>, Refusal> {
        if self.takes("NULL") { Ok(None) } else { self.one_key().map(Some) }
    }

    fn one_key(&mut self) -> Result<PublicKey, Refusal> {
        let text = self.string()?;
        key_of(&text).ok_or_else(|| {
            let message = "a key is 'ed25519:' and 64 hex digits: see `rota keys`";
            Refusal::new(sqlstate::INVALID_PARAMETER, message)
        })
    }

    fn servers(&mut self) -> Result<Servers, Refusal> {
        if self.takes("ALL") {
            return Ok(Servers::All);
        }
        if self.takes("NONE") {
            return Ok(Servers::Named(BTreeSet::new()));
        }
        let mut named = BTreeSet::from([self.one_key()?]);
        while self.takes_symbol(',') {
            named.insert(self.one_key()?);
            if named.len() > MOST_NAMES {
                return Err(syntax(format!("more than {MOST_NAMES} servers")));
            }
        }
        Ok(Servers::Named(named))
    }

    /// After GRANT, or REVOKE: privileges on tables, or roles.
    fn grant(&mut self, is_grant: bool) -> Result<Change, Refusal> {
        let other_end = if is_grant { "TO" } else { "FROM" };
        let mut privileges = Privileges::default();
        let mut roles = Vec::new();
        loop {
            if roles.len() >= MOST_NAMES {
                return Err(syntax(format!("more than {MOST_NAMES} names")));
            }
            let word = match self.tokens.peek() {
                Some(&Token::Word(word)) => word,
                _ => "",
            };
            if word.eq_ignore_ascii_case("ALL") {
                self.tokens.next();
                self.takes("PRIVILEGES");
                privileges = Privileges::ALL;
            } else {
                if let Some(privilege) = Privilege::of_word(word) {
                    privileges.insert(privilege);
                }
                roles.push(self.name("role")?);
            }
            if !self.takes_symbol(',') {
                break;
            }
        }
        if self.takes("ON") {
            if roles.iter().any(|word| Privilege::of_word(word).is_none()) {
                let message = "privileges are SELECT, INSERT, UPDATE, DELETE and CREATE, or ALL; \
                               not of single columns";
                return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
            }
            let objects = self.objects()?;
            self.expect(other_end)?;
            let whom = self.grantees(true)?;
            return Ok(match is_grant {
                true => Change::Grant(privileges, objects, whom),
                false => Change::Revoke(privileges, objects, whom),
            });
        }
        if privileges == Privileges::ALL {
            return Err(unexpected(self.tokens.next()));
        }
        self.expect(other_end)?;
        let whom = self.grantees(false)?;
        Ok(if is_grant { Change::Join(roles, whom) } else { Change::Leave(roles, whom) })
    }

    fn grantees(&mut self, public: bool) -> Result<Vec<String>, Refusal> {
        let whom = self.names("role")?;
        if !public && whom.iter().any(|name| name == PUBLIC) {
            return Err(syntax("roles are for users, not for PUBLIC"));
        }
        if self.takes("WITH") {
            let message = "WITH GRANT OPTION and WITH ADMIN OPTION are not supported: \
                           administrators grant, and who has CREATE ON a table, on that table";
            return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
        }
        let _ = self.takes("CASCADE") || self.takes("RESTRICT");
        Ok(whom)
    }

    fn objects(&mut self) -> Result<Objects, Refusal> {
        if self.takes("ALL") {
            if self.takes("TABLES") && self.takes("IN") {
                self.expect("SCHEMA")?;
                self.name("schema")?;
            }
            return Ok(Objects::All);
        }
        self.takes("TABLE");
        for other in ["SCHEMA", "DATABASE", "SEQUENCE", "FUNCTION", "LANGUAGE", "TYPE", "DOMAIN"] {
            if self.is_next(other) {
                let message = format!("there are no privileges on a {}", other.to_lowercase());
                return Err(Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
            }
        }
        let mut tables = Vec::new();
        loop {
            let mut name = self.name("table")?;
            if self.takes_symbol('.') {
                if !["public", "main"].contains(&name.as_str()) {
                    let message = format!("schema \"{name}\" does not exist");
                    return Err(Refusal::new("3F000", message));
                }
                name = self.name("table")?;
            }
            tables.push(name.to_ascii_lowercase());
            if tables.len() > MOST_NAMES {
                return Err(syntax(format!("more than {MOST_NAMES} names")));
            }
            if !self.takes_symbol(',') {
                return Ok(Objects::Tables(tables));
            }
        }
    }
}

/// The table that a token names, in lower case.
pub(crate) fn table_of(token: Token<'_>) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.to_ascii_lowercase()),
        Token::Quoted(text) | Token::Text(text) => Some(bare(text)),
        Token::Parameter(_) | Token::Symbol(_) => None,
    }
}

/// A quoted name's text in lower case, single quotes included: SQLite takes them for names too.
fn bare(text: &str) -> String {
    let text = match text.strip_prefix('\'') {
        Some(inner) => inner.strip_suffix('\'').unwrap_or(inner).replace("''", "'"),
        None => unquoted(text),
    };
    text.to_ascii_lowercase()
}

/// A quoted name's text.
fn unquoted(text: &str) -> String {
    let mut inner = text.chars();
    let open = inner.next();
    inner.next_back();
    match open {
        Some('"') => inner.as_str().replace("\"\"", "\""),
        Some('`') => inner.as_str().replace("``", "`"),
        _ => inner.as_str().to_owned(),
    }
}

fn syntax(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, message)
}

/// Texts in quotes are not repeated: one may be a password.
fn unexpected(token: Option<Token<'_>>) -> Refusal {
    match token {
        None => syntax("syntax error at end of input"),
        Some(Token::Word(word)) => {
            let short: String = word.chars().take(MAX_NAME).collect();
            syntax(format!("syntax error at or near \"{short}\""))
        }
        Some(Token::Symbol(symbol)) => syntax(format!("syntax error at or near \"{symbol}\"")),
        Some(_) => syntax("syntax error at or near a text in quotes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn the_canonical_text_means_the_same() {
        let key = format!("'ed25519:{}'", "0a".repeat(32));
        let (some, user) = (format!("SERVERS {key}"), format!("PASSWORD '{VERIFIER}' KEY {key}"));
        for sql in [
            "CREATE USER alice".to_owned(),
            "create role Readers nologin".into(),
            format!("CREATE USER \"A\"\"b\" WITH ENCRYPTED {user} {some} SUPERUSER;"),
            "ALTER USER alice PASSWORD NULL KEY NULL SERVERS ALL NOADMINISTRATOR".into(),
            "ALTER ROLE a SERVERS NONE".into(),
            "ALTER USER a RENAME TO b".into(),
            "DROP USER IF EXISTS a, \"B\"".into(),
            "DROP ROLE a".into(),
            "GRANT SELECT, insert ON TABLE t, public.\"U v\" TO alice, PUBLIC".into(),
            "GRANT ALL PRIVILEGES ON ALL TABLES IN SCHEMA public TO alice".into(),
            "REVOKE ALL ON t FROM alice CASCADE".into(),
            "GRANT readers, writers TO alice".into(),
            "REVOKE readers FROM alice, bob".into(),
        ] {
            let change = Change::parse(&sql).unwrap();
            let text = change.to_string();
            assert_eq!(Change::parse(&text), Ok(change), "{text}");
            assert_eq!(kind_of(&text), kind_of(&sql), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong_and_no_password() {
        for (sql, code) in [
            ("CREATE USER", "42601"),
            ("CREATE USER ''", "42601"),
            ("CREATE USER \"\"", "42602"),
            ("CREATE USER a PASSWORD secret", "42601"),
            ("CREATE USER a 'secret'", "42601"),
            ("CREATE USER a PASSWORD 'secret' PASSWORD 'secret'", "42601"),
            ("CREATE USER a PASSWORD 'secret", "42601"),
            ("CREATE USER a VALID UNTIL 'tomorrow'", "0A000"),
            ("CREATE USER a KEY 'ed25519:00'", "22023"),
            ("CREATE USER a; DROP USER b", "42601"),
            ("ALTER USER a RENAME b", "42601"),
            ("GRANT SELECT (a) ON t TO b", "42601"),
            ("GRANT USAGE ON t TO b", "0A000"),
            ("GRANT SELECT ON SCHEMA public TO b", "0A000"),
            ("GRANT SELECT ON other.t TO b", "3F000"),
            ("GRANT SELECT ON t TO b WITH GRANT OPTION", "0A000"),
            ("GRANT a TO PUBLIC", "42601"),
            ("GRANT ALL TO b", "42601"),
            ("REVOKE SELECT ON t TO b", "42601"),
        ] {
            let refusal = Change::parse(sql).unwrap_err();
            assert_eq!(refusal.code(), code, "{sql}: {refusal}");
            assert!(!refusal.message.contains("secret"), "{refusal}");
        }
        assert!(!is_about("CREATE TEMP USER a") && !is_about("CREATE TABLE user(a)"));
    }

    #[test]
    fn a_plain_password_is_never_shown() {
        let mut change = Change::parse("CREATE USER a PASSWORD 'it''s secret'").unwrap();
        assert_eq!(change.password_mut(), Some(&mut Password::Plain("it's secret".into())));
        assert!(!format!("{change} {change:?}").contains("secret"));
    }
}
