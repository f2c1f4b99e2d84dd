//! A client's savepoints, inside the one that its whole transaction is (step 8), or inside a draft
//! (step 1). They get names of ours, so that no client's name can meet another's.

use rota_core::error::{Refusal, sqlstate};

use crate::sql::{Lexer, Token};
use crate::value::StatementKind;

/// How many may be open at once: each costs every change a look.
const MOST: usize = 200;

/// The names of those that are open, the oldest first.
#[derive(Default)]
pub(crate) struct Savepoints(Vec<String>);

/// What a savepoint statement comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A new one with this number.
    Set(usize),
    /// Back to this one, which stays.
    Back(usize),
    /// This one and those after it are forgotten, their changes stay.
    Release(usize),
}

impl Step {
    /// In SQLite's words.
    pub(crate) fn sql(self) -> String {
        match self {
            Self::Set(number) => format!("SAVEPOINT rota_{number}"),
            Self::Back(number) => format!("ROLLBACK TO rota_{number}"),
            Self::Release(number) => format!("RELEASE rota_{number}"),
        }
    }
}

impl Savepoints {
    /// Whether a statement is about savepoints.
    pub(crate) fn concerns(kind: StatementKind) -> bool {
        matches!(
            kind,
            StatementKind::Savepoint | StatementKind::RollbackTo | StatementKind::Release
        )
    }

    /// What `SAVEPOINT a`, `ROLLBACK TO [SAVEPOINT] a` or `RELEASE [SAVEPOINT] a` comes to. 3B001:
    /// there is none of that name.
    pub(crate) fn step(&mut self, sql: &str, kind: StatementKind) -> Result<Step, Refusal> {
        let name = name(sql).ok_or_else(|| {
            Refusal::new(sqlstate::SYNTAX_ERROR, "a savepoint needs a name, and nothing after it")
        })?;
        if kind == StatementKind::Savepoint {
            if self.0.len() >= MOST {
                let message = format!("more than {MOST} savepoints are open; release some");
                return Err(Refusal::new(sqlstate::TOO_COMPLEX, message));
            }
            self.0.push(name);
            return Ok(Step::Set(self.0.len() - 1));
        }
        let number =
            self.0.iter().rposition(|open| *open == name).ok_or_else(|| {
                Refusal::new("3B001", format!("savepoint \"{name}\" does not exist"))
            })?;
        if kind == StatementKind::RollbackTo {
            self.0.truncate(number + 1);
            return Ok(Step::Back(number));
        }
        self.0.truncate(number);
        Ok(Step::Release(number))
    }
}

/// The savepoint's name: the last word. Folded to lower case unless it is in quotes.
fn name(sql: &str) -> Option<String> {
    let noise = ["SAVEPOINT", "RELEASE", "ROLLBACK", "ABORT", "WORK", "TRANSACTION", "TO"];
    let mut tokens: Vec<Token<'_>> = Lexer::new(sql).map(|(_, token)| token).collect();
    while tokens.last() == Some(&Token::Symbol(';')) {
        tokens.pop();
    }
    let (last, before) = tokens.split_last()?;
    let keywords_only = before.iter().all(|token| {
        matches!(token, Token::Word(word) if noise.iter().any(|n| n.eq_ignore_ascii_case(word)))
    });
    if before.is_empty() || !keywords_only {
        return None;
    }
    match last {
        Token::Word(word) => Some(word.to_lowercase()),
        Token::Quoted(quoted) => {
            let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
            Some(inner.replace("\"\"", "\""))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::classify;

    fn step(savepoints: &mut Savepoints, sql: &str) -> Result<Step, String> {
        let stepped = savepoints.step(sql, classify(sql).kind);
        stepped.map_err(|refusal| refusal.code().to_owned())
    }

    #[test]
    fn savepoints_nest_and_shadow_each_other() {
        let mut open = Savepoints::default();
        for (sql, want) in [
            ("SAVEPOINT a", Ok(Step::Set(0))),
            ("savepoint \"B\"", Ok(Step::Set(1))),
            ("SAVEPOINT A;", Ok(Step::Set(2))),
            ("ROLLBACK TO SAVEPOINT a", Ok(Step::Back(2))),
            ("RELEASE a", Ok(Step::Release(2))),
            ("ROLLBACK WORK TO a", Ok(Step::Back(0))),
            ("RELEASE SAVEPOINT \"B\"", Err("3B001".into())),
            ("ROLLBACK TO b", Err("3B001".into())),
            ("SAVEPOINT", Err("42601".into())),
            ("SAVEPOINT a b", Err("42601".into())),
            ("SAVEPOINT 'a'", Err("42601".into())),
        ] {
            assert_eq!(step(&mut open, sql), want, "{sql}");
        }
    }
}
