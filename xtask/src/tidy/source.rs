//! Just enough of Rust's lexer to tell code from comments, strings and tests.
//!
//! ```text
//!   let x = "unsafe"; // HashMap        the text
//!   let x = "      ";                   its code: as long, line for line
//! ```

/// The text with everything in comments, strings and character literals blanked out, line for line
/// as long.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_blank(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Where the comment, string or character literal that starts at `at` ends; `at` itself if none
/// starts there.
fn end_of_blank(chars: &[char], at: usize) -> usize {
    let next = |ahead: usize| chars.get(at + ahead).copied();
    match (chars[at], next(1)) {
        ('/', Some('/')) => line_end(chars, at),
        ('/', Some('*')) => block_comment_end(chars, at),
        ('"', _) => string_end(chars, at + 1),
        ('r', Some('"' | '#')) if starts_raw_string(chars, at) => raw_string_end(chars, at + 1),
        ('\'', Some('\\')) => 1 + position(chars, at + 3, |&c| c == '\''),
        ('\'', Some(_)) if next(2) == Some('\'') => at + 3,
        _ => at,
    }
}

fn position(chars: &[char], from: usize, is_it: impl Fn(&char) -> bool) -> usize {
    let rest = chars.get(from..).unwrap_or_default();
    rest.iter().position(is_it).map_or(chars.len() - 1, |found| from + found)
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars[from..].iter().position(|&c| c == '\n').map_or(chars.len(), |found| from + found)
}

/// Block comments nest.
fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0_usize);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"`, `r#"`, and after `b` or `c`; neither `r#type` nor the end of a longer name.
fn starts_raw_string(chars: &[char], at: usize) -> bool {
    let before = at.checked_sub(1).map(|index| chars[index]);
    let starts_word = before.is_none_or(|c| !is_word(c) || c == 'b' || c == 'c');
    let quote = chars[at + 1..].iter().find(|&&c| c != '#');
    starts_word && quote == Some(&'"')
}

fn raw_string_end(chars: &[char], from: usize) -> usize {
    let hashes = chars[from..].iter().take_while(|&&c| c == '#').count();
    let mut at = from + hashes + 1;
    while at < chars.len() {
        let closing = chars[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count();
        if chars[at] == '"' && closing == hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

/// For each line of the code, whether it belongs to a test: all of a file of tests, and what
/// follows `#[cfg(test)]`.
pub fn test_lines(path: &str, code: &str) -> Vec<bool> {
    let count = code.lines().count();
    if path.contains("/tests/") || path.ends_with("/tests.rs") {
        return vec![true; count];
    }
    let mut tests = vec![false; count];
    let mut rest = 0;
    while let Some(found) = code[rest..].find("#[cfg(test)]") {
        let start = rest + found;
        let end = item_end(code, start);
        let first = code[..start].matches('\n').count();
        let last = code[..end].matches('\n').count();
        tests[first..=last.min(count - 1)].fill(true);
        rest = end;
    }
    tests
}

/// Where the item from `start` on ends: at a `;` before any brace, or at the brace that closes the
/// first one.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[start..].char_indices() {
        match c {
            ';' if depth == 0 => return start + offset + 1,
            '{' => depth += 1,
            '}' if depth <= 1 => return start + offset + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Whether this can be part of a name.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names, keywords and numbers of some code, each with what stands before and after it.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |found| start + found);
        at = end;
        Some((start, &code[start..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(code(text), expected);
    }

    #[test]
    fn comments_and_literals_are_blank_and_all_else_stays() {
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("a\"b", c)"#, "f(      , c)");
        check("f(r#\"a\"b\"#, c)", "f(        , c)");
        check("f(br\"a\\\", c)", "f(b     , c)");
        check("r#type = x", "r#type = x");
        check("'a' + '\\'' + '\\u{1F600}'", "    +      +            ");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("\"open", "     ");
    }

    #[test]
    fn tests_are_told_from_what_they_test() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { c() }\n}\nfn d() {}\n";
        assert_eq!(test_lines("x.rs", code), [false, true, true, true, true, false]);
        assert_eq!(test_lines("x.rs", "#[cfg(test)]\nmod tests;\nfn a() {}"), [true, true, false]);
        assert_eq!(test_lines("crates/a/tests/b.rs", "fn a() {}\n"), [true]);
    }

    #[test]
    fn words_are_whole_names() {
        let found: Vec<&str> =
            words("unsafe_code = Hash::<u8>::x9").map(|(_, word)| word).collect();
        assert_eq!(found, ["unsafe_code", "Hash", "u8", "x9"]);
    }
}
