//! Licence expressions: `MIT OR (Apache-2.0 AND ISC)`, as in SPDX, and the older `MIT/Apache-2.0`.

/// Whether the allowed licences suffice to satisfy the expression. What cannot be read is not
/// satisfied.
pub fn satisfied(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    any(&mut words, allowed) == Some(true) && words.is_empty()
}

/// `a OR b OR c`; `words` has the next word last.
fn any(words: &mut Vec<&str>, allowed: &[String]) -> Option<bool> {
    let mut satisfied = all(words, allowed)?;
    while words.last() == Some(&"OR") {
        words.pop();
        satisfied |= all(words, allowed)?;
    }
    Some(satisfied)
}

/// `a AND b`, which binds closer than OR.
fn all(words: &mut Vec<&str>, allowed: &[String]) -> Option<bool> {
    let mut satisfied = one(words, allowed)?;
    while words.last() == Some(&"AND") {
        words.pop();
        satisfied &= one(words, allowed)?;
    }
    Some(satisfied)
}

/// A licence, one WITH an exception, or an expression in parentheses.
fn one(words: &mut Vec<&str>, allowed: &[String]) -> Option<bool> {
    let word = words.pop()?;
    if word == "(" {
        let satisfied = any(words, allowed)?;
        return (words.pop()? == ")").then_some(satisfied);
    }
    if word == ")" {
        return None;
    }
    if words.last() != Some(&"WITH") {
        return Some(allowed.iter().any(|licence| licence == word));
    }
    words.pop();
    let licence = format!("{word} WITH {}", words.pop()?);
    Some(allowed.contains(&licence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn one_of_many_is_enough_and_all_of_many_are_needed() {
        check("MIT", true);
        check("GPL-3.0-only", false);
        check("GPL-3.0-only OR MIT", true);
        check("GPL-3.0-only/MIT", true);
        check("GPL-3.0-only AND MIT", false);
        check("(GPL-3.0-only OR MIT) AND ISC", true);
        check("ISC AND (GPL-3.0-only OR LGPL-3.0-only)", false);
        check("MIT OR ISC AND GPL-3.0-only", true);
        check("Apache-2.0 WITH LLVM-exception", true);
        check("Apache-2.0", false);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for expression in ["", "(MIT", "MIT)", "MIT OR", "MIT ISC", "AND MIT"] {
            check(expression, false);
        }
    }
}
