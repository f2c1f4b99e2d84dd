//! What PostgreSQL's statements about users and grants are here: step 1, before `dialect`, which
//! has no part in them.
//!
//! Most are `rota_store`'s own (`access::Change`) and go to every server as they are. What tools
//! send beside those is respelled, where it means the same:
//!
//! ```text
//!   CREATE GROUP g                           CREATE ROLE g
//!   ALTER GROUP g ADD USER u                 GRANT g TO u
//!   CREATE ROLE u … IN ROLE g                CREATE ROLE u …; GRANT g TO u
//!   GRANT TRUNCATE, REFERENCES ON t TO u     GRANT DELETE ON t TO u
//!   … CONNECTION LIMIT -1, VALID UNTIL 'infinity', GRANTED BY u    left out
//! ```
//! What is so anyway, as USAGE of the schema, is answered with PostgreSQL's warning that nothing
//! was granted. What would have another meaning than its words say is refused.
//!
//! A text may hold a password: none is repeated in an error, logged or remembered.

use rota_core::error::{Refusal, sqlstate};
use rota_store::access::is_about;

use super::commands::first_word;
use super::lexer::{Kind, Token, tokens};

/// What such a statement comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// These statements, one after the other, with the whole's tag where it is not the last one's.
    Change(Vec<String>, Option<&'static str>),
    /// Nothing at all: the tag, and a warning.
    Nothing(&'static str, Warning),
}

/// A warning's code and words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Names that stand for whoever says them.
const ONESELF: [&str; 3] = ["current_user", "session_user", "current_role"];

/// What a statement about users or grants comes to; `None` for all others.
pub(super) fn asked(text: &str) -> Result<Option<Asked>, Refusal> {
    const FIRST: [&str; 6] = ["create", "alter", "drop", "grant", "revoke", "reassign"];
    let first = first_word(text);
    if !FIRST.iter().any(|word| first.eq_ignore_ascii_case(word)) {
        return Ok(None);
    }
    let tokens = tokens(text).into_iter();
    let tokens = tokens.filter(|token| token.kind != Kind::Space && token.text != ";");
    let words = Words(tokens.collect());
    match (words.word(0).as_str(), words.word(1).as_str()) {
        ("create", "role" | "user" | "group") => words.create().map(Some),
        ("alter", "role" | "user") => Ok(Some(words.alter())),
        ("alter", "group") => words.alter_group().map(Some),
        ("alter", "default") if words.is(2, "privileges") => Err(unsupported(
            "ALTER DEFAULT PRIVILEGES is not supported: GRANT … ON ALL TO … is about tables to \
             come as well",
        )),
        ("drop", "role" | "user" | "group") => Ok(Some(change(words.with_role(1)))),
        ("drop", "owned") => Err(unsupported(
            "DROP OWNED is not supported: DROP TABLE what is not wanted; DROP USER takes its \
             grants away",
        )),
        ("reassign", _) => Err(unsupported(
            "REASSIGN OWNED is not supported: who has CREATE ON a table may change it, so GRANT \
             ALL ON it to whoever is to have it",
        )),
        ("grant" | "revoke", _) => words.grant().map(Some),
        _ => Ok(None),
    }
}

/// The statement with the session's user in place of CURRENT_USER.
pub(super) fn with_user(sql: &str, user: &str) -> String {
    let is_oneself = |token: &Token<'_>| ONESELF.iter().any(|word| token.is(word));
    let all = tokens(sql);
    if !is_about(sql) || !all.iter().any(is_oneself) {
        return sql.to_owned();
    }
    let quoted = format!("\"{}\"", user.replace('"', "\"\""));
    let texts = all.iter().map(|token| if is_oneself(token) { &quoted } else { token.text });
    texts.collect()
}

fn change(sql: String) -> Asked {
    Asked::Change(vec![sql], None)
}

fn unsupported(message: &str) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

/// A statement's words: what is neither space nor a comment.
struct Words<'a>(Vec<Token<'a>>);

impl Words<'_> {
    fn is(&self, place: usize, word: &str) -> bool {
        self.0.get(place).is_some_and(|token| token.is(word))
    }

    fn symbol(&self, place: usize, symbol: &str) -> bool {
        self.0.get(place).is_some_and(|token| token.text == symbol)
    }

    fn comes(&self, place: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(nth, word)| self.is(place + nth, word))
    }

    /// A keyword in lower case; nothing for what is none.
    fn word(&self, place: usize) -> String {
        let found = self.0.get(place).filter(|token| token.kind == Kind::Word);
        found.map_or_else(String::new, |token| token.text.to_ascii_lowercase())
    }

    fn find(&self, from: usize, word: &str) -> Option<usize> {
        (from..self.0.len()).find(|place| self.is(*place, word))
    }

    /// The words from and up to a place, with a space between them.
    fn text(&self, from: usize, to: usize) -> String {
        let words = self.0.get(from..to.min(self.0.len())).unwrap_or_default();
        words.iter().map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    /// All of them, one replaced by ROLE.
    fn with_role(&self, place: usize) -> String {
        format!("{} ROLE {}", self.text(0, place), self.text(place + 1, self.0.len()))
    }

    /// The place after a list of names with commas.
    fn after_names(&self, from: usize) -> usize {
        let mut place = from + 1;
        while self.symbol(place, ",") {
            place += 2;
        }
        place
    }

    fn create(&self) -> Result<Asked, Refusal> {
        let name = self.text(2, 3);
        let kind = if self.is(1, "user") { "USER" } else { "ROLE" };
        let mut kept = vec![format!("CREATE {kind} {name}")];
        let mut grants = Vec::new();
        let mut place = 3;
        while place < self.0.len() {
            let next = if self.comes(place, &["in", "role"]) || self.comes(place, &["in", "group"])
            {
                let end = self.after_names(place + 2);
                grants.push(format!("GRANT {} TO {name}", self.text(place + 2, end)));
                end
            } else if self.is(place, "role") || self.is(place, "user") {
                let end = self.after_names(place + 1);
                grants.push(format!("GRANT {name} TO {}", self.text(place + 1, end)));
                end
            } else {
                self.option(place, &mut kept)
            };
            place = next;
        }
        let mut statements = vec![kept.join(" ")];
        let tag = (!grants.is_empty()).then_some("CREATE ROLE");
        statements.append(&mut grants);
        Ok(Asked::Change(statements, tag))
    }

    /// Keeps an option of a user, unless it is one that says what is so anyway. The next one's
    /// place.
    fn option(&self, place: usize, kept: &mut Vec<String>) -> usize {
        if self.comes(place, &["connection", "limit"])
            && self.symbol(place + 2, "-")
            && self.symbol(place + 3, "1")
        {
            return place + 4;
        }
        if self.comes(place, &["valid", "until"]) && self.symbol(place + 2, "'infinity'") {
            return place + 3;
        }
        kept.push(self.text(place, place + 1));
        place + 1
    }

    fn alter(&self) -> Asked {
        let in_database = if self.comes(3, &["in", "database"]) { 3 } else { 0 };
        if self.is(3 + in_database, "set") || self.is(3 + in_database, "reset") {
            let message = "settings of users are not kept: they are set by the client, as by \
                           options=-c in its connection string";
            return Asked::Nothing(
                "ALTER ROLE",
                Warning { code: "01000", message: message.into() },
            );
        }
        let mut kept = vec![self.text(0, 3)];
        let mut place = 3;
        while place < self.0.len() {
            place = self.option(place, &mut kept);
        }
        change(kept.join(" "))
    }

    fn alter_group(&self) -> Result<Asked, Refusal> {
        let (group, names) = (self.text(2, 3), self.text(5, self.0.len()));
        let tag = Some("ALTER ROLE");
        if self.comes(3, &["add", "user"]) {
            return Ok(Asked::Change(vec![format!("GRANT {group} TO {names}")], tag));
        }
        if self.comes(3, &["drop", "user"]) {
            return Ok(Asked::Change(vec![format!("REVOKE {group} FROM {names}")], tag));
        }
        Ok(change(self.with_role(1)))
    }

    fn grant(&self) -> Result<Asked, Refusal> {
        let is_grant = self.is(0, "grant");
        let first = if self.comes(1, &["grant", "option", "for"])
            || self.comes(1, &["admin", "option", "for"])
        {
            return Err(unsupported(
                "there are no grant options: administrators grant, and who has CREATE ON a table, \
                 on that table",
            ));
        } else {
            1
        };
        let Some(on) = self.find(first, "on") else {
            return Ok(change(self.kept(0, self.0.len())));
        };
        if let Some(what) = self.without_effect(on + 1) {
            return self.elsewhere(is_grant, what, first, on);
        }
        let (privileges, left_out) = self.privileges(first, on);
        if privileges.is_empty() && left_out {
            let message = "no privileges were granted: REFERENCES needs none";
            return Ok(nothing(is_grant, message));
        }
        let verb = self.text(0, 1);
        Ok(change(format!("{verb} {} {}", privileges.join(", "), self.kept(on, self.0.len()))))
    }

    /// What is granted on, if it is not tables.
    fn without_effect(&self, place: usize) -> Option<&'static str> {
        let what = self.word(place);
        let what = if what == "all" { self.word(place + 1) } else { what };
        Some(match what.as_str() {
            "schema" => "schema",
            "database" => "database",
            "sequence" | "sequences" => "sequence",
            "function" | "functions" | "procedure" | "procedures" | "routine" | "routines" => {
                "function"
            }
            "language" => "language",
            "type" | "domain" => "type",
            "tablespace" => "tablespace",
            _ => return None,
        })
    }

    /// Privileges on what is not a table: there are none, and nothing that could be done without
    /// them is forbidden, but for making tables.
    fn elsewhere(
        &self,
        is_grant: bool,
        what: &str,
        first: usize,
        on: usize,
    ) -> Result<Asked, Refusal> {
        let makes = |place: usize| self.is(place, "create") || self.is(place, "all");
        if what == "schema" && is_grant && (first..on).any(makes) {
            return Err(unsupported(
                "there are no privileges on a schema: GRANT CREATE ON ALL TO … lets users make \
                 tables, and change and drop all there are",
            ));
        }
        let message = match (is_grant, what) {
            (true, "sequence") => "a sequence is for whoever may INSERT into its table",
            (true, _) => "everybody may use it who may log in",
            (false, "database") => "who may log in may connect: ALTER USER … NOLOGIN",
            (false, _) => "there are privileges on tables only",
        };
        let verb = if is_grant { "were granted" } else { "could be revoked" };
        Ok(nothing(is_grant, &format!("no privileges {verb} for a {what}: {message}")))
    }

    /// Privileges in Rota's words, and whether one was left out.
    fn privileges(&self, first: usize, on: usize) -> (Vec<String>, bool) {
        let mut privileges = Vec::new();
        let mut left_out = false;
        for list in self.0.get(first..on).unwrap_or_default().split(|token| token.text == ",") {
            match list {
                [one] if one.is("references") => left_out = true,
                [one] if one.is("truncate") => privileges.push("DELETE".to_owned()),
                list => {
                    let words: Vec<&str> = list.iter().map(|token| token.text).collect();
                    privileges.push(words.join(" "));
                }
            }
        }
        (privileges, left_out)
    }

    /// The words without GROUP in front of a grantee and without GRANTED BY.
    fn kept(&self, from: usize, to: usize) -> String {
        let to = self.find(from, "granted").filter(|by| self.is(by + 1, "by")).unwrap_or(to);
        let names = self.find(from, "to").or_else(|| self.find(from, "from")).unwrap_or(to);
        let words = (from..to).filter(|place| {
            let is_prefix = self.is(*place, "group")
                && self
                    .0
                    .get(place + 1)
                    .is_some_and(|next| matches!(next.kind, Kind::Word | Kind::Quoted));
            !(*place > names && is_prefix)
        });
        let words = words.filter_map(|place| self.0.get(place).map(|token| token.text));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// PostgreSQL's warnings, by its codes, that nothing has changed.
fn nothing(is_grant: bool, message: &str) -> Asked {
    let (tag, code) = if is_grant { ("GRANT", "01007") } else { ("REVOKE", "01006") };
    Asked::Nothing(tag, Warning { code, message: message.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(sql: &str) -> String {
        match asked(sql).unwrap() {
            Some(Asked::Change(statements, _)) => statements.join("; "),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn what_other_statements_are_is_not_looked_at() {
        for sql in ["SELECT 1", "CREATE TABLE role(a)", "ALTER TABLE t ADD a", "DROP TABLE user"] {
            assert_eq!(asked(sql), Ok(None), "{sql}");
        }
    }

    #[test]
    fn what_tools_send_is_respelled_where_it_means_the_same() {
        for (sql, want) in [
            (
                "CREATE ROLE \"a b\" WITH LOGIN NOSUPERUSER INHERIT CONNECTION LIMIT -1 \
                 PASSWORD 'it''s'",
                "CREATE ROLE \"a b\" WITH LOGIN NOSUPERUSER INHERIT PASSWORD 'it''s'",
            ),
            ("CREATE USER a", "CREATE USER a"),
            ("create group g;", "CREATE ROLE g"),
            (
                "CREATE USER a VALID UNTIL 'infinity' IN ROLE g, h PASSWORD 'x'",
                "CREATE USER a PASSWORD 'x'; GRANT g , h TO a",
            ),
            ("ALTER GROUP g ADD USER a, b", "GRANT g TO a , b"),
            ("ALTER GROUP g DROP USER a", "REVOKE g FROM a"),
            ("DROP GROUP g", "DROP ROLE g"),
            ("ALTER USER \"a\" PASSWORD 'SCRAM-SHA-256$4096:x'", ""),
            (
                "GRANT SELECT, TRUNCATE, REFERENCES ON t TO GROUP a GRANTED BY b",
                "GRANT SELECT, DELETE ON t TO a",
            ),
            ("GRANT ALL PRIVILEGES ON ALL TABLES IN SCHEMA public TO a", ""),
            ("GRANT g TO a", ""),
            ("REVOKE g FROM a CASCADE", ""),
        ] {
            let want = if want.is_empty() { sql } else { want };
            assert_eq!(changes(sql), want);
        }
    }

    #[test]
    fn what_is_so_anyway_is_answered_with_postgresqls_warning() {
        for (sql, tag, code) in [
            ("GRANT USAGE ON SCHEMA public TO a", "GRANT", "01007"),
            ("GRANT ALL PRIVILEGES ON DATABASE rota TO a", "GRANT", "01007"),
            ("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO a", "GRANT", "01007"),
            ("GRANT REFERENCES ON t TO a", "GRANT", "01007"),
            ("REVOKE ALL ON SCHEMA public FROM PUBLIC", "REVOKE", "01006"),
            ("ALTER ROLE a SET client_encoding TO 'utf8'", "ALTER ROLE", "01000"),
            ("ALTER ROLE a IN DATABASE rota SET jit = off", "ALTER ROLE", "01000"),
        ] {
            let Some(Asked::Nothing(told, warning)) = asked(sql).unwrap() else { panic!("{sql}") };
            assert_eq!((told, warning.code), (tag, code), "{sql}");
        }
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        for sql in [
            "GRANT CREATE ON SCHEMA public TO a",
            "GRANT ALL ON SCHEMA public TO a",
            "REVOKE GRANT OPTION FOR SELECT ON t FROM a",
            "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO a",
            "REASSIGN OWNED BY a TO b",
            "DROP OWNED BY a",
        ] {
            assert_eq!(asked(sql).unwrap_err().code(), "0A000", "{sql}");
        }
    }

    #[test]
    fn current_user_is_whoever_says_it_but_not_in_a_string() {
        assert_eq!(
            with_user("GRANT SELECT ON t TO CURRENT_USER", "a\"b"),
            "GRANT SELECT ON t TO \"a\"\"b\""
        );
        let sql = "ALTER USER a PASSWORD 'current_user'";
        assert_eq!(with_user(sql, "b"), sql);
        assert_eq!(with_user("SELECT current_user", "b"), "SELECT current_user");
    }
}
