//! A field of COPY as the value that is stored: what an INSERT of the same text through the
//! PostgreSQL door would have put there (step 8).

use std::borrow::Cow;

use rota_core::error::Refusal;
use rota_core::transaction::Value;

/// A column that fields are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
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
    /// A real.
    Real,
    /// A number: an integer where it is one, else a real.
    Number,
    /// Text, dates included.
    Text,
}

impl Meaning {
    /// Of a declared type.
    pub fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if has("BOOL") {
            Self::Boolean
        } else if has("INT") && !has("INTERVAL") && !has("POINT") || has("SERIAL") {
            Self::Integer
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else if has("NUMERIC") || has("DECIMAL") {
            Self::Number
        } else if has("BLOB") || has("BYTEA") {
            Self::Bytes
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
            Self::Text => "text",
        }
    }
}

impl Column {
    /// Of a table's column with its declared type.
    pub fn new(name: impl Into<String>, declared: &str, generated: bool) -> Self {
        Self { name: name.into(), meaning: Meaning::of(declared), generated }
    }

    /// The value to store for a field; 22P02 if it is none of the column's type.
    pub fn value(&self, field: Option<Cow<'_, str>>) -> Result<Value, Refusal> {
        let Some(text) = field else { return Ok(Value::Null) };
        let trimmed = text.trim();
        let value = match self.meaning {
            Meaning::Text => return Ok(Value::Text(text.into_owned())),
            Meaning::Boolean => boolean(trimmed).map(|truth| Value::Integer(truth.into())),
            Meaning::Bytes => bytes(&text).map(Value::Blob),
            Meaning::Integer => match trimmed.parse() {
                Ok(number) => Some(Value::Integer(number)),
                Err(_) if is_integer(trimmed) => {
                    let message =
                        format!("value \"{}\" is out of range for type bigint", cut(trimmed));
                    return Err(Refusal::new("22003", self.named(message)));
                }
                Err(_) => None,
            },
            Meaning::Real => trimmed.parse().ok().map(Value::real),
            // The column's affinity makes a number of it, as it does of a literal.
            Meaning::Number => {
                trimmed.parse::<f64>().is_ok().then(|| Value::Text(trimmed.to_owned()))
            }
        };
        value.ok_or_else(|| {
            let (name, text) = (self.meaning.name(), cut(&text));
            let message = format!("invalid input syntax for type {name}: \"{text}\"");
            Refusal::new("22P02", self.named(message))
        })
    }

    fn named(&self, message: String) -> String {
        format!("{message}, column \"{}\"", self.name)
    }
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
fn bytes(text: &str) -> Option<Vec<u8>> {
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
