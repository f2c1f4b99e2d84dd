//! Rows as PostgreSQL writes them, in text and CSV: where a line ends, and what its fields are
//! (steps 1 and 8). The rules are those of PostgreSQL 15's `copyfromparse.c`.

use std::borrow::Cow;

use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;

use super::{Column, Copy, Format, Header, Options};

/// What a line ends with. All lines of a COPY end alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Newline,
    Return,
    Both,
}

/// Finds where lines end: not in CSV's quotes, not after a backslash in text.
#[derive(Clone, Debug)]
struct Ends {
    csv: bool,
    quote: u8,
    /// 0 if it is the quote itself: two quotes close and open again.
    escape: u8,
    ending: Option<Ending>,
    in_quote: bool,
    escaped: bool,
    /// Line ends inside quotes since the last call that found an end.
    inside: u64,
}

impl Ends {
    fn new(options: &Options) -> Self {
        let csv = options.format == Format::Csv;
        let escape = if options.escape == options.quote { 0 } else { options.escape };
        Self {
            csv,
            quote: options.quote,
            escape,
            ending: None,
            in_quote: false,
            escaped: false,
            inside: 0,
        }
    }

    /// Looks on from `at`, which it moves; the place after the line's end, and the length of that
    /// end. `None`: there is none in these bytes, and what was seen is remembered.
    fn find(&mut self, bytes: &[u8], at: &mut usize) -> Option<(usize, usize)> {
        while let Some(&byte) = bytes.get(*at) {
            if self.csv && self.csv_byte(byte) {
                *at += 1;
                continue;
            }
            let next = bytes.get(*at + 1);
            match (byte, self.ending) {
                (b'\\', _) if !self.csv => {
                    // What follows belongs to it, whatever it is.
                    next?;
                    *at += 2;
                }
                (b'\n', None | Some(Ending::Newline | Ending::Both)) => {
                    self.ending.get_or_insert(Ending::Newline);
                    *at += 1;
                    let both = self.ending == Some(Ending::Both);
                    return Some((*at, if both { 2 } else { 1 }));
                }
                (b'\r', None) => {
                    let both = *next? == b'\n';
                    self.ending = Some(if both { Ending::Both } else { Ending::Return });
                }
                (b'\r', Some(Ending::Return)) => {
                    *at += 1;
                    return Some((*at, 1));
                }
                _ => *at += 1,
            }
        }
        None
    }

    /// Whether a byte of CSV is inside quotes, or one of them.
    fn csv_byte(&mut self, byte: u8) -> bool {
        if self.in_quote && self.escape != 0 && byte == self.escape {
            self.escaped = !self.escaped;
        }
        let quote = byte == self.quote && !self.escaped;
        if quote {
            self.in_quote = !self.in_quote;
        }
        if byte != self.escape || self.escape == 0 {
            self.escaped = false;
        }
        let ending = if self.ending == Some(Ending::Return) { b'\r' } else { b'\n' };
        self.inside += u64::from(self.in_quote && byte == ending);
        quote || self.in_quote
    }
}

/// A line that says that there is nothing after it.
const END_OF_DATA: &[u8] = b"\\.";

/// Whole lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The lines.
    pub lines: Vec<u8>,
    /// The number of the first one, from 1.
    pub first_line: u64,
    /// How many rows they are; a header is counted as one.
    pub rows: u64,
}

/// Cuts what comes in pieces into chunks of whole lines. Holds a chunk and a piece at most.
#[derive(Debug)]
pub struct Splitter {
    ends: Ends,
    buffer: Vec<u8>,
    /// How far the buffer was looked through.
    at: usize,
    /// Where the line begins in which that is.
    line_start: usize,
    /// What was found in the buffer up to there.
    rows: u64,
    lines: u64,
    /// The number of the buffer's first line.
    first_line: u64,
    ended: bool,
}

impl Splitter {
    /// For the lines of a COPY.
    pub fn new(options: &Options) -> Self {
        Self {
            ends: Ends::new(options),
            buffer: Vec::new(),
            at: 0,
            line_start: 0,
            rows: 0,
            lines: 0,
            first_line: options.first_line,
            ended: false,
        }
    }

    /// Takes what came. After the line `\.` all is ignored, as PostgreSQL does.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.ended {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next chunk if one is full: as many lines as fit in so many bytes, and so many rows at
    /// most. Refuses a line that is longer than that.
    pub fn full(&mut self, bytes: usize, rows: u64) -> Result<Option<Found>, Refusal> {
        while !self.ended {
            let Some((end, length)) = self.ends.find(&self.buffer, &mut self.at) else {
                let open = self.buffer.len().saturating_sub(self.line_start);
                return if open > bytes { Err(self.too_long(bytes)) } else { Ok(None) };
            };
            let line = self.buffer.get(self.line_start..end.saturating_sub(length));
            if line == Some(END_OF_DATA) {
                self.ended = true;
                let whole = self.line_start;
                let found = self.cut(whole);
                self.buffer.clear();
                return Ok(found);
            }
            if end > bytes {
                if self.line_start == 0 {
                    return Err(self.too_long(bytes));
                }
                let whole = self.line_start;
                // The line at hand is looked through again.
                self.ends.inside = 0;
                return Ok(self.cut(whole));
            }
            self.line_start = end;
            self.rows += 1;
            self.lines += 1 + std::mem::take(&mut self.ends.inside);
            if self.rows >= rows {
                return Ok(self.cut(end));
            }
        }
        Ok(None)
    }

    /// What is left, after [`Splitter::full`] has found nothing more: the last line may lack its
    /// end.
    pub fn rest(&mut self) -> Option<Found> {
        let open = self.buffer.get(self.line_start..).unwrap_or_default();
        if open == END_OF_DATA || open == b"\\.\r" {
            let whole = self.line_start;
            self.ended = true;
            return self.cut(whole);
        }
        self.rows += u64::from(!open.is_empty());
        self.cut(self.buffer.len())
    }

    /// Whether nothing more can come.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Takes the first bytes of the buffer as a chunk.
    fn cut(&mut self, whole: usize) -> Option<Found> {
        let rest = self.buffer.split_off(whole.min(self.buffer.len()));
        let lines = std::mem::replace(&mut self.buffer, rest);
        let found = Found { lines, first_line: self.first_line, rows: self.rows };
        self.first_line += self.lines;
        (self.at, self.line_start, self.rows, self.lines) = (0, 0, 0, 0);
        (!found.lines.is_empty()).then_some(found)
    }

    fn too_long(&self, bytes: usize) -> Refusal {
        let line = self.first_line + self.lines;
        Refusal::new(
            sqlstate::TOO_COMPLEX,
            format!("line {line} is longer than {bytes} bytes (or a quote is not closed)"),
        )
    }
}

/// The rows of a chunk of whole lines, as values for the columns.
pub struct Records<'a> {
    copy: &'a Copy,
    columns: &'a [Column],
    /// For each column: FORCE_NULL and FORCE_NOT_NULL.
    forced: Vec<(bool, bool)>,
    ends: Ends,
    data: &'a [u8],
    at: usize,
    line: u64,
    header: Header,
}

impl<'a> Records<'a> {
    /// Of a chunk.
    pub fn new(copy: &'a Copy, columns: &'a [Column], data: &'a [u8]) -> Self {
        let options = &copy.options;
        let forced = columns.iter().map(|column| {
            let name = &column.name;
            (options.force_null.has(name), options.force_not_null.has(name))
        });
        Self {
            copy,
            columns,
            forced: forced.collect(),
            ends: Ends::new(options),
            data,
            at: 0,
            line: options.first_line,
            header: options.header,
        }
    }

    /// The next row and its line's number; `None` at the end.
    pub fn row(&mut self) -> Result<Option<(u64, Vec<Value>)>, Refusal> {
        loop {
            let line = self.line;
            let Some(text) = self.line() else { return Ok(None) };
            if text == END_OF_DATA {
                return Ok(None);
            }
            let values = self.values(text).map_err(|refusal| self.in_line(refusal, line))?;
            match values {
                Some(values) => return Ok(Some((line, values))),
                // A header.
                None => self.header = Header::None,
            }
        }
    }

    /// What is wrong, and in which line.
    pub fn in_line(&self, refusal: Refusal, line: u64) -> Refusal {
        let message = format!("{} (COPY {}, line {line})", refusal.message, self.copy.table());
        Refusal { message, ..refusal }
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        if start >= self.data.len() {
            return None;
        }
        let end = match self.ends.find(self.data, &mut self.at) {
            Some((end, length)) => end.saturating_sub(length),
            None => {
                self.at = self.data.len();
                // The only line, which ends with what might have been half of an end.
                let half = self.ends.ending.is_none() && self.data.ends_with(b"\r");
                self.data.len() - usize::from(half)
            }
        };
        self.line += 1 + std::mem::take(&mut self.ends.inside);
        self.data.get(start..end)
    }

    fn values(&self, line: &[u8]) -> Result<Option<Vec<Value>>, Refusal> {
        let line = std::str::from_utf8(line).map_err(|_| not_utf8())?;
        if line.contains('\0') {
            return Err(Refusal::new("22021", "invalid byte for encoding \"UTF8\": 0x00"));
        }
        let fields = match self.copy.options.format {
            Format::Csv => self.csv(line)?,
            _ => self.text(line)?,
        };
        if self.header != Header::None {
            self.check_header(&fields)?;
            return Ok(None);
        }
        if let Some(missing) = self.columns.get(fields.len()) {
            return Err(bad_format(format!("missing data for column \"{}\"", missing.name)));
        }
        if fields.len() > self.columns.len() {
            return Err(bad_format("extra data after last expected column"));
        }
        let values = self.columns.iter().zip(fields).map(|(column, field)| column.value(field));
        values.collect::<Result<_, _>>().map(Some)
    }

    fn check_header(&self, fields: &[Option<Cow<'_, str>>]) -> Result<(), Refusal> {
        if self.header != Header::Match {
            return Ok(());
        }
        let (got, expected) = (fields.len(), self.columns.len());
        if got != expected {
            return Err(bad_format(format!(
                "wrong number of fields in header line: field count is {got}, expected {expected}"
            )));
        }
        for (place, (field, column)) in (1..).zip(fields.iter().zip(self.columns)) {
            let got = field.as_deref().unwrap_or(&self.copy.options.null);
            if got != column.name {
                return Err(bad_format(format!(
                    "column name mismatch in header line field {place}: got \"{got}\", expected \
                     \"{}\"",
                    column.name
                )));
            }
        }
        Ok(())
    }

    /// The fields of a line in text format. `None` is NULL.
    fn text<'l>(&self, line: &'l str) -> Result<Vec<Option<Cow<'l, str>>>, Refusal> {
        let options = &self.copy.options;
        let bytes = line.as_bytes();
        let mut fields = Vec::with_capacity(self.columns.len());
        let (mut start, mut at, mut plain) = (0, 0, true);
        loop {
            match bytes.get(at) {
                Some(b'\\') => {
                    (at, plain) = (at + 2, false);
                    continue;
                }
                Some(b'\n') => return Err(bad_format("literal newline found in data")),
                Some(b'\r') => return Err(bad_format("literal carriage return found in data")),
                Some(&byte) if byte != options.delimiter => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let raw = line.get(start..at.min(line.len())).ok_or_else(not_utf8)?;
            fields.push(if raw == options.null {
                None
            } else if plain {
                Some(Cow::Borrowed(raw))
            } else {
                Some(Cow::Owned(without_backslashes(raw)?))
            });
            if at >= bytes.len() {
                return Ok(fields);
            }
            at += 1;
            (start, plain) = (at, true);
        }
    }

    /// The fields of a line in CSV. `None` is NULL.
    fn csv<'l>(&self, line: &'l str) -> Result<Vec<Option<Cow<'l, str>>>, Refusal> {
        let options = &self.copy.options;
        let mut fields = Vec::with_capacity(self.columns.len());
        let mut rest = line;
        loop {
            let (field, quoted, tail) = csv_field(rest, options)?;
            let (force_null, force_not_null) =
                self.forced.get(fields.len()).copied().unwrap_or_default();
            let is_null = field == options.null;
            let null = if quoted { is_null && force_null } else { is_null && !force_not_null };
            fields.push((!null).then_some(field));
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(fields),
            }
        }
    }
}

/// The first field of what is left of a line, whether any of it was in quotes, and what comes after
/// its delimiter.
fn csv_field<'l>(
    rest: &'l str,
    options: &Options,
) -> Result<(Cow<'l, str>, bool, Option<&'l str>), Refusal> {
    let bytes = rest.as_bytes();
    let plain = bytes
        .iter()
        .position(|byte| *byte == options.delimiter || *byte == options.quote)
        .unwrap_or(bytes.len());
    let mut field: Vec<u8> = Vec::new();
    let (mut at, mut quoted, mut inside) = (plain, false, false);
    field.extend_from_slice(bytes.get(..plain).unwrap_or_default());
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        at += 1;
        match byte {
            _ if inside && byte == options.escape => match next {
                Some(next) if next == options.escape || next == options.quote => {
                    field.push(next);
                    at += 1;
                }
                _ if byte == options.quote => inside = false,
                _ => field.push(byte),
            },
            _ if byte == options.quote => {
                inside = !inside;
                quoted = true;
            }
            _ if byte == options.delimiter && !inside => {
                at -= 1;
                break;
            }
            _ => field.push(byte),
        }
    }
    if inside {
        return Err(bad_format("unterminated CSV quoted field"));
    }
    let unquoted = bytes.get(..plain).unwrap_or_default();
    if !quoted && unquoted.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
        return Err(bad_format("unquoted carriage return or newline found in data"));
    }
    let tail = if at < bytes.len() { rest.get(at + 1..) } else { None };
    let field = if quoted {
        Cow::Owned(String::from_utf8(field).map_err(|_| not_utf8())?)
    } else {
        Cow::Borrowed(rest.get(..at).unwrap_or_default())
    };
    Ok((field, quoted, tail))
}

/// Text format's escapes: control characters by letter, bytes by octal or hexadecimal number, and
/// anything else as itself.
fn without_backslashes(raw: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        // A backslash at the very end stands for nothing.
        let Some((&letter, after)) = rest.split_first() else { break };
        rest = after;
        bytes.push(match letter {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'.' => return Err(bad_format("end-of-copy marker corrupt")),
            b'0'..=b'7' => digits(letter - b'0', &mut rest, 8, 2),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => digits(0, &mut rest, 16, 2),
            other => other,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(not_utf8()),
    }
}

/// A byte by its number, of which at most `most` more digits are read.
fn digits(first: u8, rest: &mut &[u8], base: u32, most: usize) -> u8 {
    let mut number = u32::from(first);
    for _ in 0..most {
        let Some((&byte, after)) = rest.split_first() else { break };
        let Some(digit) = char::from(byte).to_digit(base) else { break };
        number = number * base + digit;
        *rest = after;
    }
    // PostgreSQL keeps the lowest eight bits of \777 too.
    u8::try_from(number & 0xff).unwrap_or_default()
}

/// Puts a field of a row into a line (COPY TO); delimiters and the line's end are the caller's.
/// `alone`: the row has no other column.
pub fn put_field(
    output: &mut Vec<u8>,
    field: Option<&str>,
    options: &Options,
    force: bool,
    alone: bool,
) {
    let Some(text) = field else {
        output.extend_from_slice(options.null.as_bytes());
        return;
    };
    if options.format != Format::Csv {
        return put_text(output, text, options.delimiter);
    }
    let special = |byte: &u8| {
        *byte == options.delimiter || *byte == options.quote || matches!(byte, b'\n' | b'\r')
    };
    let quote = force
        || text == options.null
        || (alone && text.as_bytes() == END_OF_DATA)
        || text.as_bytes().iter().any(special);
    if !quote {
        output.extend_from_slice(text.as_bytes());
        return;
    }
    output.push(options.quote);
    for &byte in text.as_bytes() {
        if byte == options.quote || byte == options.escape {
            output.push(options.escape);
        }
        output.push(byte);
    }
    output.push(options.quote);
}

fn put_text(output: &mut Vec<u8>, text: &str, delimiter: u8) {
    for &byte in text.as_bytes() {
        let letter = match byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            _ if byte == delimiter => byte,
            _ => {
                output.push(byte);
                continue;
            }
        };
        output.extend_from_slice(&[b'\\', letter]);
    }
}

/// Lines that are not what the format asks for.
fn bad_format(message: impl Into<String>) -> Refusal {
    Refusal::new("22P04", message)
}

fn not_utf8() -> Refusal {
    Refusal::new("22021", "invalid byte sequence for encoding \"UTF8\"")
}
