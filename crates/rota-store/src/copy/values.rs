//! A field of COPY as the value that is stored: what an INSERT of the same text through the
//! PostgreSQL door would have put there (step 8).

use std::borrow::Cow;

use rota_core::error::Refusal;
use rota_core::transaction::Value;

use crate::datetime::{Wrong, parse_date, parse_time, parse_timestamp, parse_timestamptz};

/// A column that fields are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type that it was declared with.
    pub declared: String,
    /// What its values are.
    pub meaning: Meaning,
    /// Whether it is computed from others.
    pub generated: bool,
}

/// What the values of a column are, by its declared type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// 0 or 1.
    Boolean,
    /// A blob.
    Bytes,
    /// An integer.
    Integer,
    /// A real, or the text NaN.
    Real,
    /// A number: an integer where it is one, else a real, or the text NaN.
    Number,
    /// A day, as text.
    Date,
    /// A time of day, as text.
    Time,
    /// A day and a time, as text.
    Timestamp,
    /// The same in UTC, whatever zone it was written in.
    Timestamptz,
    /// 36 characters.
    Uuid,
    /// `CHAR(n)`: blanks at the end do not count.
    Padded,
    /// Any text.
    Text,
}

impl Meaning {
    /// Of a declared type: by PostgreSQL's names, else by SQLite's affinity ("Datatypes In SQLite",
    /// section 3.1).
    pub fn of(declared: &str) -> Self {
        let (name, rest) = declared.split_once('(').unwrap_or((declared, ""));
        let suffix = rest.split_once(')').map_or("", |(_, suffix)| suffix);
        let words: Vec<&str> = name.split_whitespace().chain(suffix.split_whitespace()).collect();
        match words.join(" ").to_ascii_lowercase().as_str() {
            "numeric" | "decimal" | "dec" => Self::Number,
            "bytea" | "blob" => Self::Bytes,
            "date" => Self::Date,
            "time" | "time without time zone" => Self::Time,
            "timestamp" | "timestamp without time zone" | "datetime" => Self::Timestamp,
            "timestamptz" | "timestamp with time zone" => Self::Timestamptz,
            "uuid" => Self::Uuid,
            "char" | "character" | "bpchar" => Self::Padded,
            "bigserial" | "serial" | "smallserial" | "oid" => Self::Integer,
            name if name.ends_with("[]") || name.ends_with("vector") => Self::Text,
            name => Self::by_affinity(name),
        }
    }

    fn by_affinity(name: &str) -> Self {
        let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if has(&["bool"]) {
            Self::Boolean
        } else if has(&["char", "clob", "text"]) {
            Self::Text
        } else if has(&["int"]) && !has(&["interval", "point"]) {
            Self::Integer
        } else if has(&["blob"]) {
            Self::Bytes
        } else if has(&["real", "floa", "doub"]) {
            Self::Real
        } else {
            Self::Text
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Bytes => "bytea",
            Self::Integer => "bigint",
            Self::Real => "double precision",
            Self::Number => "numeric",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamp with time zone",
            Self::Uuid => "uuid",
            Self::Padded => "character",
            Self::Text => "text",
        }
    }
}

impl Column {
    /// Of a table's column with its declared type.
    pub fn new(name: impl Into<String>, declared: &str, generated: bool) -> Self {
        let (meaning, declared) = (Meaning::of(declared), declared.to_owned());
        Self { name: name.into(), declared, meaning, generated }
    }

    /// The value to store for a field; 22P02 and its kin if it is none of the column's type.
    pub fn value(&self, field: Option<Cow<'_, str>>) -> Result<Value, Refusal> {
        let Some(text) = field else { return Ok(Value::Null) };
        let trimmed = text.trim();
        let value = match self.meaning {
            Meaning::Text => return Ok(Value::Text(text.into_owned())),
            Meaning::Padded => return Ok(Value::Text(text.trim_end_matches(' ').to_owned())),
            Meaning::Boolean => boolean(trimmed).map(|truth| Value::Integer(truth.into())),
            Meaning::Bytes => bytea(&text).map(Value::Blob),
            Meaning::Integer => match trimmed.parse() {
                Ok(number) => Some(Value::Integer(number)),
                Err(_) if is_integer(trimmed) => {
                    let message = "is out of range for type bigint";
                    return Err(self.wrong("22003", "value", message, &text));
                }
                Err(_) => None,
            },
            Meaning::Real => trimmed.parse().ok().map(real),
            Meaning::Number => number(trimmed),
            Meaning::Date => return self.moment(&text, parse_date(&text)),
            Meaning::Time => return self.moment(&text, parse_time(&text)),
            Meaning::Timestamp => return self.moment(&text, parse_timestamp(&text)),
            Meaning::Timestamptz => return self.moment(&text, parse_timestamptz(&text)),
            Meaning::Uuid => uuid(trimmed).map(Value::Text),
        };
        value.ok_or_else(|| self.not_of_type("22P02", &text))
    }

    fn moment(&self, text: &str, read: Result<impl ToString, Wrong>) -> Result<Value, Refusal> {
        read.map(|moment| Value::Text(moment.to_string())).map_err(|wrong| match wrong {
            Wrong::Syntax => self.not_of_type("22007", text),
            Wrong::Range => self.wrong("22008", "date/time field value", "is out of range", text),
        })
    }

    fn not_of_type(&self, code: &'static str, text: &str) -> Refusal {
        let what = format!("invalid input syntax for type {}:", self.meaning.name());
        self.wrong(code, &what, "", text)
    }

    fn wrong(&self, code: &'static str, what: &str, message: &str, text: &str) -> Refusal {
        let (blank, name) = (if message.is_empty() { "" } else { " " }, &self.name);
        let message = format!("{what} \"{}\"{blank}{message}, column \"{name}\"", cut(text.trim()));
        Refusal::new(code, message)
    }
}

/// A REAL cannot be NaN; as text it stays what it is.
fn real(number: f64) -> Value {
    if number.is_nan() { Value::Text("NaN".into()) } else { Value::real(number) }
}

/// A decimal as SQLite's NUMERIC affinity would keep it.
fn number(text: &str) -> Option<Value> {
    if let Ok(number) = text.parse() {
        return Some(Value::Integer(number));
    }
    let number: f64 = text.parse().ok()?;
    let says_so = text.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
    (number.is_finite() || number.is_nan() || says_so).then(|| real(number))
}

/// In lower case, with its hyphens, however PostgreSQL lets it be written.
fn uuid(text: &str) -> Option<String> {
    let inner = text.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(text);
    let digits: Vec<u8> = inner.bytes().filter(|&byte| byte != b'-').collect();
    let even = inner.split('-').all(|group| !group.is_empty() && group.len() % 4 == 0);
    if !even || digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut uuid = String::with_capacity(36);
    for (place, &digit) in digits.iter().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            uuid.push('-');
        }
        uuid.push(char::from(digit.to_ascii_lowercase()));
    }
    Some(uuid)
}

/// PostgreSQL's spellings of a boolean: any beginning of the words that is not that of another.
pub fn boolean(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    match text.as_str() {
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        "" | "o" => None,
        text if "true".starts_with(text) || "yes".starts_with(text) => Some(true),
        text if "false".starts_with(text) || "no".starts_with(text) => Some(false),
        _ => None,
    }
}

/// bytea's two text formats: `\x` and hexadecimal digits, or bytes with `\ooo` and `\\` among them.
pub fn bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("\\x") {
        let digits: String = digits.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        return hex::decode(digits).ok();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            (b'\\', _) => return None,
            _ => bytes.push(byte),
        }
    }
    Some(bytes)
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// As much of a value as belongs into a message.
fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(100).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or(text)
}
