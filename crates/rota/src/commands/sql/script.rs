//! Cutting what comes in, line by line, into statements.

use rota_store::sql::split;

/// What has come in and is no whole statement yet.
#[derive(Default)]
pub struct Script {
    text: String,
}

/// Put behind the text to see whether it would be a statement of its own: it is not inside a string
/// or comment.
const PROBE: &str = "x";

impl Script {
    /// Adds a line; returns the statements that it completes.
    pub fn push(&mut self, line: &str) -> Vec<String> {
        self.text.push_str(line);
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        // Only a semicolon completes anything: long statements are not cut anew with every line.
        if !line.contains(';') && !self.is_comment() {
            return Vec::new();
        }
        let probed = format!("{}{PROBE}", self.text);
        let mut statements = split(&probed);
        let end = |piece: &str| piece.as_ptr() as usize - probed.as_ptr() as usize + piece.len();
        // The last piece holds the probe, unless that fell into a comment: then there is no such
        // piece.
        let unfinished = statements.pop_if(|last| end(last) == probed.len());
        let rest = match (unfinished, statements.last()) {
            (Some(last), _) => last.strip_suffix(PROBE).unwrap_or_default(),
            (None, Some(last)) => self.text.get(end(last)..).unwrap_or_default(),
            (None, None) => &self.text,
        };
        let rest = rest.trim_start_matches(|c: char| c == ';' || c.is_whitespace());
        let complete = statements.into_iter().map(str::to_owned).collect();
        self.text = if blank(rest) { String::new() } else { rest.to_owned() };
        complete
    }

    /// What is left at the end of the input: a last statement does not need its semicolon.
    pub fn rest(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.text);
        (!text.trim().is_empty()).then_some(text)
    }

    /// Forgets what has come in.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// Whether the next line begins a statement.
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// All statements of a whole text.
    pub fn whole(text: &str) -> Vec<String> {
        split(text).into_iter().map(str::to_owned).collect()
    }

    fn is_comment(&self) -> bool {
        let text = self.text.trim_start();
        text.is_empty() || text.starts_with("--") || text.starts_with("/*")
    }
}

/// Whether there is nothing but white space and finished comments.
fn blank(text: &str) -> bool {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            match comment.split_once("*/") {
                Some((_, after)) => after,
                None => return false,
            }
        } else {
            return rest.is_empty();
        }
        .trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds lines; returns the statements and what is left.
    fn feed(lines: &[&str]) -> (Vec<String>, Option<String>) {
        let mut script = Script::default();
        let statements = lines.iter().flat_map(|line| script.push(line)).collect::<Vec<_>>();
        let trimmed = |s: String| s.trim().trim_end_matches(';').trim().to_owned();
        (statements.into_iter().map(trimmed).collect(), script.rest().map(trimmed))
    }

    #[test]
    fn statements_end_at_their_semicolon_and_nowhere_else() {
        let case = |lines: &[&str], statements: &[&str], rest: Option<&str>| {
            let expected = statements.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(feed(lines), (expected, rest.map(str::to_owned)), "{lines:?}");
        };
        case(&["SELECT 1;"], &["SELECT 1"], None);
        case(&["SELECT", "1;"], &["SELECT\n1"], None);
        case(&["SELECT 1; SELECT 2; SELECT"], &["SELECT 1", "SELECT 2"], Some("SELECT"));
        case(&["SELECT ';", "';"], &["SELECT ';\n'"], None);
        case(&["SELECT 1; -- done;"], &["SELECT 1"], None);
        case(&["-- first", "SELECT 1;"], &["SELECT 1"], None);
        case(&["/* a;", "b */ SELECT 1;"], &["SELECT 1"], None);
        case(&["SELECT 1"], &[], Some("SELECT 1"));
        case(&[""], &[], None);
    }

    #[test]
    fn a_trigger_is_one_statement() {
        let lines = ["CREATE TRIGGER t AFTER INSERT ON a BEGIN", " DELETE FROM b;", "END;"];
        let (statements, rest) = feed(&lines);
        assert_eq!((statements.len(), rest), (1, None));
    }
}
