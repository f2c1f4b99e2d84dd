//! SQL as tokens, so that nothing is ever replaced inside a string, a quoted name or a comment.
//!
//! Knows SQLite's tokens and PostgreSQL's: `E'…'`, `$tag$…$tag$`, `$1`, `::`. Never fails: what is
//! not closed runs to the end, and SQLite says what is wrong with it.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// White space or a comment.
    Space,
    /// A keyword or a bare name.
    Word,
    /// `"name"`, `` `name` ``, `[name]`.
    Quoted,
    /// `'text'`.
    Text,
    /// `E'text'`.
    Escaped,
    /// `U&'text'`.
    Unicode,
    /// `$tag$text$tag$`.
    Dollar,
    /// `x'00'`.
    Blob,
    /// A number without sign.
    Number,
    /// `$1`.
    Numbered(usize),
    /// `?` or `?1`.
    Question(Option<usize>),
    /// `:name`, `@name`, `$name`.
    Named,
    /// `::`.
    Cast,
    /// Any other character.
    Symbol(char),
}

/// A piece of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
}

impl Token<'_> {
    /// Whether this is the given word, whatever its case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// A bare or quoted name without its quotes; bare ones in lower case, as PostgreSQL has them.
    pub(crate) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_ascii_lowercase()),
            Kind::Quoted => {
                let inner = self.text.get(1..self.text.len().saturating_sub(1))?;
                Some(inner.replace("\"\"", "\"").replace("``", "`"))
            }
            _ => None,
        }
    }
}

/// All tokens of a text, in order; together they are the text.
pub(crate) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = Vec::with_capacity(sql.len() / 4 + 1);
    let mut rest = sql;
    let mut brackets = 0usize;
    while let Some(first) = rest.chars().next() {
        let opens = first == '[' && (brackets > 0 || has_elements(&found));
        let (kind, length) = match first {
            '[' if opens => (Kind::Symbol('['), 1),
            _ => measure(rest, first),
        };
        brackets += usize::from(opens);
        brackets -= usize::from(kind == Kind::Symbol(']') && brackets > 0);
        let (text, tail) = rest.split_at_checked(length).unwrap_or((rest, ""));
        found.push(Token { kind, text });
        rest = tail;
    }
    found
}

/// Whether a bracket here opens an array or picks out of one (`ARRAY[1]`, `text[]`, `a[1]`), where
/// SQLite, as in ` [name]`, would see a quoted name.
fn has_elements(before: &[Token<'_>]) -> bool {
    match before {
        [.., word, space] if space.kind == Kind::Space => word.is("array"),
        [.., last] => matches!(
            last.kind,
            Kind::Word | Kind::Quoted | Kind::Numbered(_) | Kind::Symbol(')' | ']')
        ),
        [] => false,
    }
}

/// The first token's kind and length in bytes, at least one.
fn measure(rest: &str, first: char) -> (Kind, usize) {
    match first {
        '\'' => (Kind::Text, quoted(rest, '\'')),
        '"' | '`' => (Kind::Quoted, quoted(rest, first)),
        '[' => (Kind::Quoted, rest.find(']').map_or(rest.len(), |end| end + 1)),
        '-' if rest.starts_with("--") => (Kind::Space, rest.find('\n').unwrap_or(rest.len())),
        '/' if rest.starts_with("/*") => {
            let end = rest.get(2..).and_then(|inner| inner.find("*/"));
            (Kind::Space, end.map_or(rest.len(), |end| end + 4))
        }
        '$' => dollar(rest),
        '?' => {
            let digits = run(rest, 1, |c| c.is_ascii_digit());
            (Kind::Question(rest.get(1..digits).and_then(|n| n.parse().ok())), digits)
        }
        ':' if rest.starts_with("::") => (Kind::Cast, 2),
        ':' | '@' | '#' => match run(rest, 1, is_word) {
            1 => (Kind::Symbol(first), 1),
            length => (Kind::Named, length),
        },
        _ if first.is_whitespace() => (Kind::Space, run(rest, 0, char::is_whitespace)),
        _ if first.is_ascii_digit() => (Kind::Number, number(rest)),
        '.' if rest.get(1..).is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit())) => {
            (Kind::Number, number(rest))
        }
        _ if is_word(first) => word(rest),
        _ => (Kind::Symbol(first), first.len_utf8()),
    }
}

fn word(rest: &str) -> (Kind, usize) {
    let length = run(rest, 0, is_word);
    match rest.as_bytes() {
        [b'e' | b'E', b'\'', ..] => (Kind::Escaped, 1 + escaped(rest.get(1..).unwrap_or(""))),
        [b'x' | b'X', b'\'', ..] => (Kind::Blob, 1 + quoted(rest.get(1..).unwrap_or(""), '\'')),
        [b'u' | b'U', b'&', b'\'', ..] => {
            (Kind::Unicode, 2 + quoted(rest.get(2..).unwrap_or(""), '\''))
        }
        _ => (Kind::Word, length),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// The length of `rest` up to the first character from `start` on that does not belong.
fn run(rest: &str, start: usize, belongs: impl Fn(char) -> bool) -> usize {
    let tail = rest.get(start..).unwrap_or("");
    tail.find(|c| !belongs(c)).map_or(rest.len(), |end| start + end)
}

/// The length of a string that doubles its quote inside.
fn quoted(rest: &str, quote: char) -> usize {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((place, character)) = characters.next() {
        if character == quote && characters.next_if(|&(_, next)| next == quote).is_none() {
            return place + 1;
        }
    }
    rest.len()
}

/// The same, with backslashes that protect what follows.
fn escaped(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((place, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == '\'' && characters.next_if(|&(_, next)| next == '\'').is_none() {
            return place + 1;
        }
    }
    rest.len()
}

fn number(rest: &str) -> usize {
    let length = run(rest, 0, |c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
    let seen = rest.get(..length).unwrap_or("");
    let exponent = seen.ends_with(['e', 'E']) && !seen.starts_with("0x");
    if exponent && rest.get(length..).is_some_and(|next| next.starts_with(['+', '-'])) {
        return run(rest, length + 1, |c| c.is_ascii_digit());
    }
    length
}

fn dollar(rest: &str) -> (Kind, usize) {
    let digits = run(rest, 1, |c| c.is_ascii_digit());
    if digits > 1 {
        let number = rest.get(1..digits).and_then(|number| number.parse().ok());
        return (Kind::Numbered(number.unwrap_or(usize::MAX)), digits);
    }
    let tag = run(rest, 1, |c| is_word(c) && c != '$');
    if rest.get(tag..).is_some_and(|next| next.starts_with('$')) {
        let tag = rest.get(..tag + 1).unwrap_or("$$");
        let body = rest.get(tag.len()..).unwrap_or("");
        if let Some(end) = body.find(tag) {
            return (Kind::Dollar, end + 2 * tag.len());
        }
    }
    if tag > 1 { (Kind::Named, tag) } else { (Kind::Symbol('$'), 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sql: &str) -> Vec<Kind> {
        tokens(sql).iter().map(|token| token.kind).collect()
    }

    #[test]
    fn tokens_are_told_apart() {
        for (sql, want) in [
            ("'it''s $1'", Kind::Text),
            ("\"a\"\"$1\"", Kind::Quoted),
            ("[a::b]", Kind::Quoted),
            ("-- $1::int", Kind::Space),
            ("/* $1 */", Kind::Space),
            (r"E'it\'s $1'", Kind::Escaped),
            (r"U&'\0061''$1'", Kind::Unicode),
            ("$$it's $1$$", Kind::Dollar),
            ("$a$ $b$ $a$", Kind::Dollar),
            ("x'00ff'", Kind::Blob),
            ("1.5e-3", Kind::Number),
            (".5", Kind::Number),
            ("0x1e", Kind::Number),
            ("$12", Kind::Numbered(12)),
            ("?", Kind::Question(None)),
            ("?3", Kind::Question(Some(3))),
            (":name", Kind::Named),
            ("::", Kind::Cast),
            ("größe", Kind::Word),
            ("'open", Kind::Text),
            ("/* open", Kind::Space),
            ("$$open", Kind::Symbol('$')),
        ] {
            assert_eq!(kinds(sql).first(), Some(&want), "{sql}");
            if !sql.contains("open") {
                assert_eq!(kinds(sql).len(), 1, "{sql}");
            }
        }
    }

    #[test]
    fn brackets_of_arrays_are_not_quotes() {
        for (sql, brackets) in [
            ("ARRAY[1, [2]]", 4),
            ("array ['a]']", 2),
            ("int[]", 2),
            ("a[1][2]", 4),
            ("SELECT [a]", 0),
        ] {
            let found = kinds(sql);
            let found = found.iter().filter(|kind| matches!(kind, Kind::Symbol('[' | ']')));
            assert_eq!(found.count(), brackets, "{sql}");
        }
    }

    #[test]
    fn tokens_put_together_are_the_text() {
        for sql in
            ["SELECT a::text, 'ü''', $$x$$ FROM \"t\" -- end", "''''", "'", "$", ":", "e'\\", "/*"]
        {
            let again: String = tokens(sql).iter().map(|token| token.text).collect();
            assert_eq!(again, sql);
        }
    }
}
