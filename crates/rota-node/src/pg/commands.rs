//! What a session answers itself, by its words: BEGIN and COMMIT, SET and SHOW, PREPARE, cursors.
//! Step 1 only: none of this is SQLite's.
//!
//! ```text
//!  text ─► first word ─┬─► SELECT, INSERT, …   not ours: nothing more is looked at
//!                      └─► words ─► Command    run by `context`
//! ```

use rota_core::error::{Refusal, sqlstate};

use super::lexer::{Kind, Token, tokens};

/// A statement for the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// BEGIN or START TRANSACTION, with its tag.
    Begin(&'static str, Modes),
    /// COMMIT or END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT, without TO.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint(String),
    /// RELEASE.
    Release(String),
    /// ROLLBACK TO.
    RollbackTo(String),
    /// SET TRANSACTION.
    SetTransaction(Modes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION.
    SetCharacteristics(Modes),
    /// SET: name, value or `None` for DEFAULT, LOCAL.
    Set(String, Option<String>, bool),
    /// RESET one or all.
    Reset(Option<String>),
    /// SHOW one or all.
    Show(Option<String>),
    /// SELECT set_config(name, value, is_local).
    SetConfig(String, String, bool),
    /// SELECT current_setting(name, missing_ok).
    CurrentSetting(String, bool),
    /// PREPARE: name, types, the statement's text.
    Prepare(String, Vec<String>, String),
    /// EXECUTE: name, and the text of each argument.
    Execute(String, Vec<String>),
    /// DEALLOCATE one or all.
    Deallocate(Option<String>),
    /// DECLARE … CURSOR.
    Declare(Declare),
    /// FETCH, or MOVE.
    Fetch(Fetch),
    /// CLOSE one or all.
    Close(Option<String>),
    /// DISCARD ALL, PLANS, SEQUENCES or TEMP.
    Discard(&'static str),
    /// LOCK TABLE: there is nothing to lock, but it must stand in a transaction.
    Lock,
    /// What is fine and does nothing.
    Nothing(&'static str),
    /// SELECT of a function that does nothing and gives nothing.
    NothingSelected(&'static str),
}

/// What BEGIN and SET TRANSACTION say of a transaction. Of isolation levels there is one, whatever
/// is asked for: the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modes {
    /// READ ONLY or READ WRITE, if either is said.
    pub(crate) read_only: Option<bool>,
}

/// DECLARE name CURSOR FOR query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declare {
    pub(crate) name: String,
    /// WITH HOLD: it outlives its transaction.
    pub(crate) hold: bool,
    /// NO SCROLL: forwards only.
    pub(crate) no_scroll: bool,
    /// The query's text.
    pub(crate) query: String,
}

/// FETCH direction FROM name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) name: String,
    pub(crate) direction: Direction,
    /// MOVE: without giving rows.
    pub(crate) only_move: bool,
}

/// Which rows FETCH gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// So many rows from here on, backwards if negative; `i64::MAX` is ALL. 0 is this row again.
    Rows(i64),
    /// The row with this number, from the end if negative.
    Absolute(i64),
    /// The row so far from here.
    Relative(i64),
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
        const SELECTED: [&str; 3] = ["set_config", "current_setting", "pg_advisory_unlock_all"];
        if select && !SELECTED.iter().any(|function| sql.contains(function)) {
            return None;
        }
        let all = tokens(sql);
        let tokens = all.into_iter().filter(|token| token.kind != Kind::Space && token.text != ";");
        let mut words = Words { tokens: tokens.collect(), next: 0, sql };
        if select { select_command(&words.tokens).map(Ok) } else { words.command().transpose() }
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
        [function, open, name, comma, value, second_comma, local, close]
            if function.is("set_config")
                && [open.text, comma.text, second_comma.text, close.text]
                    == ["(", ",", ",", ")"] =>
        {
            let local = literal(local)?.to_ascii_lowercase();
            let local = super::variables::switch(&local)?;
            Some(Command::SetConfig(literal(name)?, literal(value)?, local))
        }
        [function, open, name, rest @ .., close]
            if function.is("current_setting") && [open.text, close.text] == ["(", ")"] =>
        {
            let missing = match rest {
                [] => false,
                [comma, missing] if comma.text == "," => missing.is("true"),
                _ => return None,
            };
            Some(Command::CurrentSetting(literal(name)?, missing))
        }
        [function, _, _] if function.is("pg_advisory_unlock_all") => {
            Some(Command::NothingSelected("pg_advisory_unlock_all"))
        }
        _ => None,
    }
}

/// A statement's words, read from left to right.
struct Words<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    sql: &'a str,
}

impl<'a> Words<'a> {
    /// `None`: a statement that is not the session's.
    fn command(&mut self) -> Result<Option<Command>, Refusal> {
        let Some(first) = self.tokens.first().filter(|token| token.kind == Kind::Word) else {
            return Ok(None);
        };
        let keyword = first.text.to_ascii_lowercase();
        self.next = 1;
        let command = match keyword.as_str() {
            "begin" => {
                let _ = self.eat("transaction") || self.eat("work");
                Command::Begin("BEGIN", self.modes()?)
            }
            "start" => {
                self.expect("transaction")?;
                Command::Begin("START TRANSACTION", self.modes()?)
            }
            "commit" | "end" | "rollback" | "abort" => self.ending(&keyword)?,
            "savepoint" => Command::Savepoint(self.name()?),
            "release" => {
                let _ = self.eat("savepoint");
                Command::Release(self.name()?)
            }
            "prepare" if self.eat("transaction") => {
                return Err(unsupported(
                    "PREPARE TRANSACTION is not supported: a COMMIT is agreed between the servers \
                     in any case",
                ));
            }
            "prepare" => return self.prepare().map(Some),
            "execute" => return self.execute().map(Some),
            "declare" => return self.declare().map(Some),
            "fetch" => self.fetch(false)?,
            "move" => self.fetch(true)?,
            "close" if self.eat("all") => Command::Close(None),
            "close" => Command::Close(Some(self.name()?)),
            "set" => return self.set().map(Some),
            "reset" => self.reset()?,
            "show" => Command::Show(self.setting()?.filter(|name| name != "all")),
            "discard" => self.discard()?,
            "deallocate" => {
                let _ = self.eat("prepare");
                let all = self.eat("all");
                Command::Deallocate(if all { None } else { Some(self.name()?) })
            }
            "lock" => {
                self.next = self.tokens.len();
                Command::Lock
            }
            "unlisten" => {
                self.next = self.tokens.len();
                Command::Nothing("UNLISTEN")
            }
            "listen" | "notify" => {
                return Err(unsupported(format!(
                    "{} is not supported: a server tells its clients nothing unasked",
                    keyword.to_uppercase()
                )));
            }
            "do" | "call" | "cluster" => {
                return Err(unsupported(format!("{} is not supported", keyword.to_uppercase())));
            }
            _ => return Ok(None),
        };
        self.done()?;
        Ok(Some(command))
    }

    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.next)
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(word));
        self.next += usize::from(found);
        found
    }

    fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.text == symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), Refusal> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn done(&self) -> Result<(), Refusal> {
        if self.next >= self.tokens.len() { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Refusal {
        match self.peek() {
            Some(token) => syntax(format!("syntax error at or near \"{}\"", token.text)),
            None => syntax("syntax error at end of input"),
        }
    }

    fn name(&mut self) -> Result<String, Refusal> {
        let name = self.peek().and_then(Token::name).ok_or_else(|| self.unexpected())?;
        self.next += 1;
        Ok(name)
    }

    /// Where the next token begins in the statement's text.
    fn place(&self) -> usize {
        let Some(token) = self.peek() else { return self.sql.len() };
        // Tokens are slices of the statement's text.
        (token.text.as_ptr() as usize).saturating_sub(self.sql.as_ptr() as usize)
    }

    /// The text from the next token to the statement's end.
    fn rest(&self) -> &'a str {
        self.sql.get(self.place()..).unwrap_or("")
    }

    /// Transaction modes, with or without commas between them.
    fn modes(&mut self) -> Result<Modes, Refusal> {
        let mut modes = Modes::default();
        while self.peek().is_some() {
            if self.eat("isolation") {
                self.expect("level")?;
                let known = self.eat("serializable")
                    || (self.eat("repeatable") && self.eat("read"))
                    || (self.eat("read") && (self.eat("committed") || self.eat("uncommitted")));
                if !known {
                    return Err(self.unexpected());
                }
            } else if self.eat("read") {
                let only = self.eat("only");
                if !only {
                    self.expect("write")?;
                }
                modes.read_only = Some(only);
            } else {
                let _ = self.eat("not");
                self.expect("deferrable")?;
            }
            let comma = self.eat_symbol(",");
            if comma && self.peek().is_none() {
                return Err(self.unexpected());
            }
        }
        Ok(modes)
    }

    /// COMMIT, ROLLBACK and their like.
    fn ending(&mut self, keyword: &str) -> Result<Command, Refusal> {
        let commit = matches!(keyword, "commit" | "end");
        if self.eat("prepared") {
            return Err(unsupported("there are no prepared transactions"));
        }
        let _ = self.eat("transaction") || self.eat("work");
        if keyword == "rollback" && self.eat("to") {
            let _ = self.eat("savepoint");
            return Ok(Command::RollbackTo(self.name()?));
        }
        let mut chain = false;
        if self.eat("and") {
            chain = !self.eat("no");
            self.expect("chain")?;
        }
        Ok(if commit { Command::Commit { chain } } else { Command::Rollback { chain } })
    }

    fn discard(&mut self) -> Result<Command, Refusal> {
        for (word, tag) in [
            ("all", "DISCARD ALL"),
            ("plans", "DISCARD PLANS"),
            ("sequences", "DISCARD SEQUENCES"),
            ("temp", "DISCARD TEMP"),
            ("temporary", "DISCARD TEMP"),
        ] {
            if self.eat(word) {
                return Ok(Command::Discard(tag));
            }
        }
        Err(self.unexpected())
    }

    fn reset(&mut self) -> Result<Command, Refusal> {
        if self.eat("session") {
            self.expect("authorization")?;
            return Ok(Command::Reset(Some("session_authorization".into())));
        }
        let name = self.setting()?.ok_or_else(|| self.unexpected())?;
        Ok(Command::Reset(Some(name).filter(|name| name != "all")))
    }

    fn set(&mut self) -> Result<Command, Refusal> {
        let local = self.eat("local");
        if !local && self.eat("session") {
            if self.eat("characteristics") {
                self.expect("as")?;
                self.expect("transaction")?;
                return Ok(Command::SetCharacteristics(self.modes()?));
            }
            if self.eat("authorization") {
                return self.oneself("session_authorization", "default", false);
            }
        }
        if self.eat("transaction") {
            if self.eat("snapshot") {
                return Err(unsupported("SET TRANSACTION SNAPSHOT is not supported"));
            }
            return Ok(Command::SetTransaction(self.modes()?));
        }
        if self.eat("role") {
            return self.oneself("role", "none", local);
        }
        if self.eat("constraints") {
            return Err(unsupported("SET CONSTRAINTS is not supported"));
        }
        if self.eat("time") {
            self.expect("zone")?;
            let value = self.values()?.filter(|value| value != "local");
            return Ok(Command::Set("timezone".into(), value, local));
        }
        if self.eat("names") {
            return Ok(Command::Set("client_encoding".into(), self.values()?, local));
        }
        let name = self.setting()?.ok_or_else(|| self.unexpected())?;
        if !self.eat_symbol("=") {
            self.expect("to")?;
        }
        Ok(Command::Set(name, self.values()?, local))
    }

    /// SET ROLE, SET SESSION AUTHORIZATION: a name, or the word for who one is anyway.
    fn oneself(&mut self, setting: &str, nobody: &str, local: bool) -> Result<Command, Refusal> {
        let token = self.peek().ok_or_else(|| self.unexpected())?;
        let is_own = token.is(nobody) || token.is("default");
        let name = token.name().or_else(|| literal(token)).ok_or_else(|| self.unexpected())?;
        self.next += 1;
        self.done()?;
        Ok(Command::Set(setting.into(), Some(name).filter(|_| !is_own), local))
    }

    /// The rest as a setting's value; `None` for DEFAULT.
    fn values(&mut self) -> Result<Option<String>, Refusal> {
        let rest = self.tokens.get(self.next..).unwrap_or_default();
        if let [token] = rest
            && token.is("default")
        {
            self.next = self.tokens.len();
            return Ok(None);
        }
        let mut value = String::new();
        let mut sign = false;
        let mut separate = true;
        for token in rest {
            if token.text == "," && !separate {
                separate = true;
                continue;
            }
            let text = literal(token).filter(|_| separate || sign);
            let text =
                text.ok_or_else(|| syntax(format!("syntax error at or near \"{}\"", token.text)))?;
            if !value.is_empty() && !sign {
                value.push_str(", ");
            }
            value.push_str(&text);
            sign = matches!(token.kind, Kind::Symbol(_));
            separate = false;
        }
        if separate {
            return Err(syntax("syntax error at end of input"));
        }
        self.next = self.tokens.len();
        Ok(Some(value))
    }

    /// A name, perhaps with dots: `rota.last`; `TRANSACTION ISOLATION LEVEL` is one too.
    fn setting(&mut self) -> Result<Option<String>, Refusal> {
        if self.peek().is_none() {
            return Ok(None);
        }
        let mut name = self.name()?;
        match name.as_str() {
            "time" if self.eat("zone") => return Ok(Some("timezone".into())),
            "session" if self.eat("authorization") => {
                return Ok(Some("session_authorization".into()));
            }
            "transaction" if self.eat("isolation") => {
                self.expect("level")?;
                return Ok(Some("transaction_isolation".into()));
            }
            _ => {}
        }
        while self.eat_symbol(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(Some(name))
    }

    fn prepare(&mut self) -> Result<Command, Refusal> {
        let name = self.name()?;
        let types = if self.eat_symbol("(") { self.list()? } else { Vec::new() };
        self.expect("as")?;
        if self.peek().is_none() {
            return Err(self.unexpected());
        }
        Ok(Command::Prepare(name, types, self.rest().to_owned()))
    }

    fn execute(&mut self) -> Result<Command, Refusal> {
        let name = self.name()?;
        let arguments = if self.eat_symbol("(") { self.list()? } else { Vec::new() };
        self.done()?;
        Ok(Command::Execute(name, arguments))
    }

    /// Texts between commas, up to the parenthesis that closes.
    fn list(&mut self) -> Result<Vec<String>, Refusal> {
        let mut items = Vec::new();
        let mut depth = 0_usize;
        let mut start = self.place();
        while let Some(token) = self.peek().copied() {
            let end = self.place();
            self.next += 1;
            match token.text {
                ")" | "," if depth == 0 => {
                    let item = self.sql.get(start..end).unwrap_or("").trim();
                    if item.is_empty() {
                        return Err(syntax(format!("syntax error at or near \"{}\"", token.text)));
                    }
                    items.push(item.to_owned());
                    if token.text == ")" {
                        return Ok(items);
                    }
                    start = self.place();
                }
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        Err(self.unexpected())
    }

    fn declare(&mut self) -> Result<Command, Refusal> {
        let name = self.name()?;
        let mut no_scroll = false;
        loop {
            if self.eat("no") {
                self.expect("scroll")?;
                no_scroll = true;
            } else if self.eat("binary") {
                return Err(unsupported(
                    "binary cursors are not supported: ask for the result in \
                                        binary with the extended protocol",
                ));
            } else if !(self.eat("insensitive") || self.eat("asensitive") || self.eat("scroll")) {
                break;
            }
        }
        self.expect("cursor")?;
        let mut hold = false;
        if self.eat("with") {
            self.expect("hold")?;
            hold = true;
        } else if self.eat("without") {
            self.expect("hold")?;
        }
        self.expect("for")?;
        if self.peek().is_none() {
            return Err(self.unexpected());
        }
        let query = self.rest().to_owned();
        Ok(Command::Declare(Declare { name, hold, no_scroll, query }))
    }

    fn fetch(&mut self, only_move: bool) -> Result<Command, Refusal> {
        let direction = self.direction()?;
        let _ = self.eat("from") || self.eat("in");
        let name = self.name()?;
        Ok(Command::Fetch(Fetch { name, direction, only_move }))
    }

    fn direction(&mut self) -> Result<Direction, Refusal> {
        // A cursor may be called as a direction is: then nothing follows.
        if self.next + 1 >= self.tokens.len() {
            return Ok(Direction::Rows(1));
        }
        Ok(if self.eat("next") {
            Direction::Rows(1)
        } else if self.eat("prior") {
            Direction::Rows(-1)
        } else if self.eat("first") {
            Direction::Absolute(1)
        } else if self.eat("last") {
            Direction::Absolute(-1)
        } else if self.eat("absolute") {
            Direction::Absolute(self.integer()?.ok_or_else(|| self.unexpected())?)
        } else if self.eat("relative") {
            Direction::Relative(self.integer()?.ok_or_else(|| self.unexpected())?)
        } else if self.eat("forward") {
            Direction::Rows(self.count()?)
        } else if self.eat("backward") {
            Direction::Rows(self.count()?.saturating_neg())
        } else {
            Direction::Rows(self.count()?)
        })
    }

    /// How many rows: ALL, a number, or one.
    fn count(&mut self) -> Result<i64, Refusal> {
        if self.eat("all") {
            return Ok(i64::MAX);
        }
        Ok(self.integer()?.unwrap_or(1))
    }

    fn integer(&mut self) -> Result<Option<i64>, Refusal> {
        let minus = self.eat_symbol("-");
        let plus = !minus && self.eat_symbol("+");
        let Some(number) = self.peek().filter(|token| token.kind == Kind::Number) else {
            return if minus || plus { Err(self.unexpected()) } else { Ok(None) };
        };
        let number: i32 = number.text.parse().map_err(|_| self.unexpected())?;
        self.next += 1;
        Ok(Some(if minus { -i64::from(number) } else { i64::from(number) }))
    }
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

fn syntax(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::SYNTAX_ERROR, message)
}

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(sql: &str) -> Command {
        Command::parse(sql).unwrap_or_else(|| panic!("{sql} is a command")).unwrap()
    }

    #[test]
    fn settings_are_recognised_however_they_are_written() {
        let set = |name: &str, value: &str| Command::Set(name.into(), Some(value.into()), false);
        for (sql, want) in [
            ("SET client_encoding TO 'UTF8'", set("client_encoding", "UTF8")),
            ("set session \"application_name\" = 'a''b';", set("application_name", "a'b")),
            ("SET search_path = public, x", set("search_path", "public, x")),
            ("SET LOCAL a.b = -1", Command::Set("a.b".into(), Some("-1".into()), true)),
            ("SET TIME ZONE 'UTC'", set("timezone", "UTC")),
            (
                "SET extra_float_digits = DEFAULT",
                Command::Set("extra_float_digits".into(), None, false),
            ),
            ("SET rota.read = local", set("rota.read", "local")),
            (
                "SET SESSION AUTHORIZATION DEFAULT",
                Command::Set("session_authorization".into(), None, false),
            ),
            ("SET ROLE NONE", Command::Set("role".into(), None, false)),
            ("SET LOCAL ROLE \"None\"", Command::Set("role".into(), Some("None".into()), true)),
            ("SET SESSION AUTHORIZATION 'a'", set("session_authorization", "a")),
            ("RESET SESSION AUTHORIZATION", Command::Reset(Some("session_authorization".into()))),
            ("/* a */ SHOW rota.last -- b", Command::Show(Some("rota.last".into()))),
            (
                "SHOW TRANSACTION ISOLATION LEVEL",
                Command::Show(Some("transaction_isolation".into())),
            ),
            ("SHOW ALL", Command::Show(None)),
            ("RESET ALL", Command::Reset(None)),
            (
                "SELECT current_setting('app.name', true)",
                Command::CurrentSetting("app.name".into(), true),
            ),
            (
                "SELECT pg_catalog.set_config('search_path', '', false)",
                Command::SetConfig("search_path".into(), String::new(), false),
            ),
        ] {
            assert_eq!(parsed(sql), want, "{sql}");
        }
    }

    #[test]
    fn transactions_are_recognised_however_they_are_written() {
        let modes = |read_only| Modes { read_only };
        for (sql, want) in [
            ("BEGIN", Command::Begin("BEGIN", modes(None))),
            (
                "begin work isolation level read committed, read only",
                Command::Begin("BEGIN", modes(Some(true))),
            ),
            (
                "START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ WRITE NOT DEFERRABLE",
                Command::Begin("START TRANSACTION", modes(Some(false))),
            ),
            ("END", Command::Commit { chain: false }),
            ("COMMIT TRANSACTION AND CHAIN", Command::Commit { chain: true }),
            ("ABORT AND NO CHAIN", Command::Rollback { chain: false }),
            ("ROLLBACK WORK TO SAVEPOINT \"A\"", Command::RollbackTo("A".into())),
            ("RELEASE A", Command::Release("a".into())),
            ("SET TRANSACTION READ ONLY", Command::SetTransaction(modes(Some(true)))),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
                Command::SetCharacteristics(modes(None)),
            ),
            ("LOCK TABLE t IN EXCLUSIVE MODE", Command::Lock),
        ] {
            assert_eq!(parsed(sql), want, "{sql}");
        }
    }

    #[test]
    fn cursors_and_prepared_statements_are_recognised() {
        let fetch =
            |direction| Command::Fetch(Fetch { name: "c".into(), direction, only_move: false });
        for (sql, want) in [
            ("FETCH c", fetch(Direction::Rows(1))),
            ("FETCH NEXT FROM c", fetch(Direction::Rows(1))),
            ("FETCH -2 IN c", fetch(Direction::Rows(-2))),
            ("FETCH FORWARD ALL FROM c", fetch(Direction::Rows(i64::MAX))),
            ("FETCH BACKWARD 3 c", fetch(Direction::Rows(-3))),
            ("FETCH LAST c", fetch(Direction::Absolute(-1))),
            ("FETCH RELATIVE -1 FROM c", fetch(Direction::Relative(-1))),
            (
                "MOVE next",
                Command::Fetch(Fetch {
                    name: "next".into(),
                    direction: Direction::Rows(1),
                    only_move: true,
                }),
            ),
            (
                "DECLARE c INSENSITIVE NO SCROLL CURSOR WITH HOLD FOR SELECT ';' -- x",
                Command::Declare(Declare {
                    name: "c".into(),
                    hold: true,
                    no_scroll: true,
                    query: "SELECT ';' -- x".into(),
                }),
            ),
            ("CLOSE ALL", Command::Close(None)),
            (
                "PREPARE p (int, character varying(3)) AS INSERT INTO t VALUES($1, $2)",
                Command::Prepare(
                    "p".into(),
                    vec!["int".into(), "character varying(3)".into()],
                    "INSERT INTO t VALUES($1, $2)".into(),
                ),
            ),
            (
                "EXECUTE p(f(1, 2), 'a,b'||x)",
                Command::Execute("p".into(), vec!["f(1, 2)".into(), "'a,b'||x".into()]),
            ),
            ("DEALLOCATE PREPARE \"A\"", Command::Deallocate(Some("A".into()))),
            ("DISCARD TEMPORARY", Command::Discard("DISCARD TEMP")),
            ("UNLISTEN *", Command::Nothing("UNLISTEN")),
        ] {
            assert_eq!(parsed(sql), want, "{sql}");
        }
    }

    #[test]
    fn other_statements_are_not_the_sessions() {
        for sql in ["SELECT 1", "", "-- SET a = b", "insert into t values ('SET')", "VALUES (1)"] {
            assert_eq!(Command::parse(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_a_code() {
        for (sql, code) in [
            ("PREPARE TRANSACTION 'a'", "0A000"),
            ("COMMIT PREPARED 'a'", "0A000"),
            ("SET ROLE a b", "42601"),
            ("LISTEN a", "0A000"),
            ("NOTIFY a, 'b'", "0A000"),
            ("BEGIN READ", "42601"),
            ("BEGIN ISOLATION LEVEL SERIALISABLE", "42601"),
            ("COMMIT x", "42601"),
            ("SAVEPOINT", "42601"),
            ("SET", "42601"),
            ("SET a = b c", "42601"),
            ("FETCH", "42601"),
            ("DEALLOCATE", "42601"),
            ("EXECUTE p(1", "42601"),
        ] {
            assert_eq!(Command::parse(sql).unwrap().unwrap_err().code(), code, "{sql}");
        }
    }
}
