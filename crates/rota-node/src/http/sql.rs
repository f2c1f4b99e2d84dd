//! `/db/sql`: what of a statement is agreed, if it is not the statement itself. Step 1 of a
//! transaction's life.
//!
//! rqlite evaluates `random()` and `'now'` before it writes a statement to its log. Rota has no
//! need to: both mean the same on every server (`rota-store/src/determinism.rs`), and every
//! statement is agreed as it was written.

use std::fmt::Write;

use super::asked::Asked;
use super::go;

/// The answer to a request: every statement, and again.
pub(crate) fn json(asked: &[Asked]) -> String {
    let mut out = String::from("{\"results\":[");
    for (place, Asked { sql, .. }) in asked.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        let mut text = String::new();
        go::string(&mut text, sql);
        let _ = write!(out, "{{\"original\":{text},\"rewritten\":{text}}}");
    }
    out.push_str("]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_agreed_as_it_was_written() {
        let asked = Asked::sql("INSERT INTO foo(v) VALUES(\"a\")".into());
        let want = concat!(
            r#"{"results":[{"original":"INSERT INTO foo(v) VALUES(\"a\")","#,
            r#""rewritten":"INSERT INTO foo(v) VALUES(\"a\")"}]}"#
        );
        assert_eq!(json(&[asked]), want);
        assert_eq!(json(&[]), r#"{"results":[]}"#);
    }
}
