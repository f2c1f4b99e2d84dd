//! What the store does not read, made lines of: COPY's binary format (step 1), and arrays, which
//! PostgreSQL writes as `{1,2}` and the database keeps as JSON.
//!
//! ```text
//!   signature(11) flags(4) extension(4 + n)   tuple: fields(2) { length(4) bytes } …   -1(2)
//! ```
//!
//! (<https://www.postgresql.org/docs/15/sql-copy.html>, "Binary Format".)

use bytes::{Buf, BufMut, BytesMut};
use rota_core::error::{Refusal, sqlstate};
use rota_core::transaction::Value;
use rota_store::copy::{Column, Copy, Format, Options, Records, Splitter, put_field};

use crate::pg::encode::{self, Type, declared_type};
use crate::pg::types::array;

/// What the binary format begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Flags that a reader must know (bits 16 to 31).
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// Signature, no flags, no extension.
pub(super) fn header() -> BytesMut {
    let mut header = BytesMut::from(SIGNATURE);
    header.put_u64(0);
    header
}

/// Makes lines in text format of what comes.
pub(super) struct Translator {
    /// The client's statement.
    copy: Copy,
    types: Vec<Type>,
    /// The columns as text, to take lines apart.
    texts: Vec<Column>,
    input: Source,
}

enum Source {
    Binary { bytes: BytesMut, begun: bool, ended: bool, row: u64 },
    Lines(Splitter),
}

impl Translator {
    /// `None` if the store reads the lines itself.
    pub(super) fn new(copy: &Copy, columns: &[Column]) -> Option<Self> {
        let types: Vec<Type> =
            columns.iter().map(|column| declared_type(&column.declared)).collect();
        let arrays = types.iter().any(|kind| array::element(kind.oid).is_some());
        let input = match copy.options.format {
            Format::Binary => {
                Source::Binary { bytes: BytesMut::new(), begun: false, ended: false, row: 0 }
            }
            _ if arrays => Source::Lines(Splitter::new(&copy.options)),
            _ => return None,
        };
        let texts = columns.iter().map(|column| Column::new(&*column.name, "TEXT", false));
        Some(Self { copy: copy.clone(), types, texts: texts.collect(), input })
    }

    /// The statement for the lines that are made.
    pub(super) fn copy(&self) -> Copy {
        Copy { options: Options::of(Format::Text), ..self.copy.clone() }
    }

    /// The lines that are whole now. Refuses a row of more than `most` bytes.
    pub(super) fn push(&mut self, data: &[u8], most: usize) -> Result<Vec<u8>, Refusal> {
        let mut lines = Vec::new();
        match &mut self.input {
            Source::Binary { bytes, begun, ended, row } => {
                if *ended {
                    return Ok(lines);
                }
                bytes.extend_from_slice(data);
                *begun = *begun || take_header(bytes)?;
                while *begun && !*ended {
                    let Some(length) = tuple_length(bytes, self.types.len(), *row)? else { break };
                    let tuple = bytes.split_to(length);
                    *ended = length == 2;
                    if !*ended {
                        *row += 1;
                        put_tuple(&mut lines, tuple, &self.types).map_err(|refusal| {
                            let (table, message) = (self.copy.table(), refusal.message);
                            Refusal {
                                message: format!("{message} (COPY {table}, line {row})"),
                                ..refusal
                            }
                        })?;
                    }
                }
                if bytes.len() > most {
                    return Err(Refusal::new(
                        sqlstate::TOO_COMPLEX,
                        format!("row {} is longer than {most} bytes", *row + 1),
                    ));
                }
            }
            Source::Lines(splitter) => {
                splitter.push(data);
                while let Some(found) = splitter.full(most, u64::MAX)? {
                    self.copy.options.first_line = found.first_line;
                    put_lines(&mut lines, &mut self.copy, &self.texts, &self.types, &found.lines)?;
                }
            }
        }
        Ok(lines)
    }

    /// The lines that are left at the end of the data.
    pub(super) fn end(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut lines = Vec::new();
        match &mut self.input {
            Source::Binary { ended: true, .. } => {}
            // PostgreSQL takes the data's end between rows for the trailer, which some leave out.
            Source::Binary { bytes, begun: true, .. } if bytes.is_empty() => {}
            Source::Binary { .. } => return Err(bad_format("unexpected EOF in COPY data")),
            Source::Lines(splitter) => {
                if let Some(found) = splitter.rest() {
                    self.copy.options.first_line = found.first_line;
                    put_lines(&mut lines, &mut self.copy, &self.texts, &self.types, &found.lines)?;
                }
            }
        }
        Ok(lines)
    }
}

/// Takes signature, flags and extension off, if they are all there.
fn take_header(bytes: &mut BytesMut) -> Result<bool, Refusal> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes.get(..known) != SIGNATURE.get(..known) {
        return Err(bad_format("COPY file signature not recognized"));
    }
    let Some(mut rest) = bytes.get(SIGNATURE.len()..).filter(|rest| rest.len() >= 8) else {
        return Ok(false);
    };
    let (flags, extension) = (rest.get_u32(), rest.get_u32() as usize);
    if flags & CRITICAL_FLAGS != 0 {
        return Err(bad_format("unrecognized critical flags in COPY file header"));
    }
    if extension > SIGNATURE.len() {
        return Err(bad_format("the COPY file's header is too long"));
    }
    if rest.len() < extension {
        return Ok(false);
    }
    bytes.advance(SIGNATURE.len() + 8 + extension);
    Ok(true)
}

/// The bytes of the first tuple if it is whole; 2 for the end of the data.
fn tuple_length(bytes: &[u8], columns: usize, row: u64) -> Result<Option<usize>, Refusal> {
    let mut rest = bytes;
    let Ok(fields) = rest.try_get_i16() else { return Ok(None) };
    if fields == -1 {
        return Ok(Some(2));
    }
    if usize::try_from(fields).ok() != Some(columns) {
        let message =
            format!("row {} field count is {fields}, expected {columns}", row.saturating_add(1));
        return Err(bad_format(message));
    }
    for _ in 0..columns {
        let Ok(length) = rest.try_get_i32() else { return Ok(None) };
        if length == -1 {
            continue;
        }
        let length = usize::try_from(length).map_err(|_| bad_format("invalid field size"))?;
        match rest.get(length..) {
            Some(tail) => rest = tail,
            None => return Ok(None),
        }
    }
    Ok(Some(bytes.len().saturating_sub(rest.len())))
}

/// Appends a whole tuple as a line.
fn put_tuple(lines: &mut Vec<u8>, mut tuple: BytesMut, types: &[Type]) -> Result<(), Refusal> {
    let short = |_| bad_format("unexpected EOF in COPY data");
    tuple.try_get_i16().map_err(short)?;
    let mut values = Vec::with_capacity(types.len());
    for kind in types {
        let length = tuple.try_get_i32().map_err(short)?;
        let Ok(length) = usize::try_from(length) else {
            values.push(Value::Null);
            continue;
        };
        let bytes = tuple.split_to(length.min(tuple.len()));
        values.push(encode::parameter(&bytes, kind.oid, true)?);
    }
    put_values(lines, &values, types);
    Ok(())
}

/// Appends lines of the client's as lines whose arrays are JSON.
fn put_lines(
    lines: &mut Vec<u8>,
    copy: &mut Copy,
    columns: &[Column],
    types: &[Type],
    found: &[u8],
) -> Result<(), Refusal> {
    let mut records = Records::new(copy, columns, found);
    while let Some((line, mut row)) = records.row()? {
        for (value, kind) in row.iter_mut().zip(types) {
            if let Value::Text(text) = value {
                let typed = encode::parameter(text.as_bytes(), kind.oid, false);
                *value = typed.map_err(|refusal| records.in_line(refusal, line))?;
            }
        }
        put_values(lines, &row, types);
    }
    copy.options.header = rota_store::copy::Header::None;
    Ok(())
}

/// Appends values that are stored as a line in text format.
fn put_values(lines: &mut Vec<u8>, values: &[Value], types: &[Type]) {
    let options = Options::of(Format::Text);
    for (place, (value, kind)) in values.iter().zip(types).enumerate() {
        if place > 0 {
            lines.push(options.delimiter);
        }
        let mut text = BytesMut::new();
        let field = match value {
            Value::Null => None,
            // As it is stored: arrays are JSON there.
            Value::Text(text) => Some(text.as_str()),
            value => {
                encode::text(&mut text, value, kind.oid.into());
                std::str::from_utf8(&text).ok()
            }
        };
        put_field(lines, field, &options, false, false);
    }
    lines.push(b'\n');
}

fn bad_format(message: impl Into<String>) -> Refusal {
    Refusal::new("22P04", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(data: &[u8], piece: usize) -> Result<String, String> {
        let copy = Copy::parse("COPY t FROM STDIN (FORMAT binary)").unwrap();
        let columns = [Column::new("a", "INT4", false), Column::new("b", "TEXT[]", false)];
        let mut translator = Translator::new(&copy, &columns).unwrap();
        let mut lines = Vec::new();
        for piece in data.chunks(piece) {
            let pushed = translator.push(piece, 1_000);
            lines.extend(pushed.map_err(|refusal| refusal.code().to_owned())?);
        }
        lines.extend(translator.end().map_err(|refusal| refusal.code().to_owned())?);
        Ok(String::from_utf8(lines).unwrap())
    }

    fn data() -> Vec<u8> {
        let mut data = header().to_vec();
        data.extend_from_slice(b"\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\xff\xff");
        data
    }

    #[test]
    fn binary_rows_become_lines_wherever_the_pieces_end() {
        for piece in 1..data().len() {
            assert_eq!(translated(&data(), piece), Ok("7\t\\N\n".into()), "{piece}");
        }
    }

    #[test]
    fn binary_that_lies_is_refused_and_never_more() {
        for place in 0..data().len() {
            for flip in [1, 0x80, 0xff] {
                let mut changed = data();
                changed[place] ^= flip;
                let _ = translated(&changed, changed.len());
            }
            let _ = translated(&data()[..place], 5);
        }
        assert_eq!(translated(b"1\tx\n", 4), Err("22P04".into()));
        let mut endless = header().to_vec();
        endless.extend_from_slice(b"\0\x02\x7f\xff\xff\xff");
        endless.extend_from_slice(&[0; 2_000]);
        assert_eq!(translated(&endless, 100), Err("54000".into()));
    }
}
