//! Regular expressions: `~` and its kin, which `dialect` respells as REGEXP. The `regex` crate
//! takes time that grows with pattern times text and never more, which is why it has neither
//! references back nor looking around; PostgreSQL's other spellings are the same.

use std::cell::RefCell;

use regex::{Regex, RegexBuilder};
use rusqlite::Result;
use rusqlite::functions::Context;
use rusqlite::types::{Value, ValueRef};

use super::{ANY, Arguments, FIXED, Given, fail, most, too_long, truth};

/// The longest pattern, as for LIKE.
const MAX_PATTERN: usize = 1_000;

/// The longest text that is searched: with a pattern's size, what bounds the time of a search.
const MAX_TEXT: usize = 100_000;

/// How large a compiled pattern may be: `\w` alone is some 20 KB.
const MAX_COMPILED: usize = 256 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn register(connection: &super::Metered<'_>) -> Result<()> {
    // `text REGEXP pattern` is regexp(pattern, text).
    connection.create_scalar_function("regexp", 2, FIXED, |call| search(call, 0, 1))?;
    connection.create_scalar_function("regexp_like", 2, FIXED, |call| search(call, 1, 0))?;
    connection.create_scalar_function("regexp_match", 2, FIXED, {
        let kept = RefCell::new(Kept::default());
        move |call| first_match(call, &mut kept.borrow_mut())
    })?;
    let kept = RefCell::new(Kept::default());
    connection.create_scalar_function("regexp_replace", ANY, FIXED, move |call| {
        let arguments = Arguments(call);
        if !(3..=4).contains(&arguments.len()) {
            return Err(fail("wrong number of arguments to function regexp_replace()"));
        }
        if arguments.any_null() {
            Ok(Value::Null)
        } else {
            replace(&arguments, &mut kept.borrow_mut())
        }
    })
}

/// How many compiled patterns a connection keeps, beside those that SQLite keeps with a statement.
const MOST_KEPT: usize = 16;

/// Compiled patterns by text and flags, the last used at the end.
#[derive(Default)]
struct Kept(Vec<((String, String), Regex)>);

impl Kept {
    fn compiled(&mut self, pattern: String, flags: &str) -> Result<Regex> {
        let key = (pattern, flags.to_owned());
        if let Some(place) = self.0.iter().position(|(known, _)| *known == key) {
            let known = self.0.remove(place);
            let compiled = known.1.clone();
            self.0.push(known);
            return Ok(compiled);
        }
        let compiled = compile(&key.0, flags).map_err(rusqlite::Error::UserFunctionError)?;
        if self.0.len() >= MOST_KEPT {
            self.0.remove(0);
        }
        self.0.push((key, compiled.clone()));
        Ok(compiled)
    }
}

/// A pattern, compiled. `(?i)` in front makes it blind to case.
fn compile(pattern: &str, flags: &str) -> std::result::Result<Regex, Failure> {
    if pattern.len() > MAX_PATTERN {
        return Err("invalid regular expression: regular expression is too complex".into());
    }
    // PostgreSQL's `^` and `$` are the text's ends, its `.` takes line ends too.
    RegexBuilder::new(pattern)
        .dot_matches_new_line(!flags.contains('n'))
        .multi_line(flags.contains('n'))
        .case_insensitive(flags.contains('i'))
        .ignore_whitespace(flags.contains('x'))
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .nest_limit(50)
        .build()
        .map_err(|error| {
            let reason = match error {
                regex::Error::CompiledTooBig(_) => "regular expression is too complex".to_owned(),
                other => {
                    let shown = other.to_string();
                    let last = shown.lines().last().unwrap_or_default().trim();
                    last.trim_start_matches("error: ").to_owned()
                }
            };
            format!("invalid regular expression: {reason}").into()
        })
}

fn searchable(text: String) -> Result<String> {
    if text.len() > MAX_TEXT {
        return Err(fail("text too big for a regular expression"));
    }
    Ok(text)
}

fn search(call: &Context<'_>, pattern: usize, text: usize) -> Result<Value> {
    let arguments = Arguments(call);
    if arguments.any_null() {
        return Ok(Value::Null);
    }
    let text = searchable(arguments.text(text)?)?;
    let compiled = call.get_or_create_aux(
        i32::try_from(pattern).unwrap_or(0),
        |value: ValueRef<'_>| -> std::result::Result<Regex, Failure> {
            compile(&super::text_of(value)?, "")
        },
    )?;
    Ok(truth(compiled.is_match(&text)))
}

/// The groups of the first match as an array, or the whole match where there are none.
fn first_match(call: &Context<'_>, kept: &mut Kept) -> Result<Value> {
    let arguments = Arguments(call);
    if arguments.any_null() {
        return Ok(Value::Null);
    }
    let text = searchable(arguments.text(0)?)?;
    let pattern = kept.compiled(arguments.text(1)?, "")?;
    let Some(found) = pattern.captures(&text) else { return Ok(Value::Null) };
    let skipped = usize::from(found.len() > 1);
    let groups = found.iter().skip(skipped);
    let groups: Vec<String> = groups
        .map(|group| group.map_or("null".into(), |group| super::json::quoted(group.as_str())))
        .collect();
    Ok(Value::Text(format!("[{}]", groups.join(","))))
}

fn replace(call: &Arguments<'_, '_>, kept: &mut Kept) -> Given {
    let text = searchable(call.text(0)?)?;
    let flags = if call.len() > 3 { call.text(3)? } else { String::new() };
    if let Some(unknown) = flags.chars().find(|flag| !"ginx".contains(*flag)) {
        return Err(fail(format!("invalid regular expression option: \"{unknown}\"")));
    }
    let pattern = kept.compiled(call.text(1)?, &flags)?;
    let replacement = call.text(2)?;
    let mut result = String::with_capacity(text.len());
    let mut end = 0;
    for found in pattern.captures_iter(&text) {
        let Some(whole) = found.get(0) else { continue };
        result.push_str(text.get(end..whole.start()).unwrap_or_default());
        expand(&mut result, &replacement, &found);
        if result.len() > most() {
            return Err(too_long());
        }
        end = whole.end();
        if !flags.contains('g') {
            break;
        }
    }
    result.push_str(text.get(end..).unwrap_or_default());
    Ok(Value::Text(result))
}

/// `\1` to `\9` are groups, `\&` the whole match.
fn expand(result: &mut String, replacement: &str, found: &regex::Captures<'_>) {
    let mut characters = replacement.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            result.push(character);
            continue;
        }
        match characters.next() {
            Some('&') => result.push_str(found.get(0).map_or("", |group| group.as_str())),
            Some(digit @ '1'..='9') => {
                let group =
                    digit.to_digit(10).and_then(|digit| found.get(usize::try_from(digit).ok()?));
                result.push_str(group.map_or("", |group| group.as_str()));
            }
            Some(other) => result.push(other),
            None => result.push('\\'),
        }
    }
}
