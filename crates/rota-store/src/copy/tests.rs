//! COPY's statement, its lines and its values, as PostgreSQL has them.

use super::*;

fn canonical(sql: &str) -> String {
    let copy = Copy::parse(sql).unwrap();
    let text = copy.to_sql();
    assert_eq!(Copy::parse(&text), Ok(copy), "{text}");
    text
}

#[test]
fn all_spellings_of_a_statement_have_one_text() {
    for (sql, want) in [
        ("copy t from stdin", r#"COPY "t" FROM STDIN"#),
        ("COPY public.T (A, \"b c\") FROM STDIN;", r#"COPY "t" ("a", "b c") FROM STDIN"#),
        (
            "copy pgbench_accounts from stdin with (freeze on)",
            r#"COPY "pgbench_accounts" FROM STDIN"#,
        ),
        ("COPY t FROM STDIN WITH CSV HEADER", r#"COPY "t" FROM STDIN (FORMAT csv, HEADER true)"#),
        (
            "COPY t FROM STDIN (FORMAT 'csv', HEADER match, DELIMITER ';')",
            r#"COPY "t" FROM STDIN (FORMAT csv, DELIMITER ';', HEADER match)"#,
        ),
        (
            "COPY t FROM STDIN DELIMITER AS '|' NULL AS ''",
            r#"COPY "t" FROM STDIN (DELIMITER '|', NULL '')"#,
        ),
        ("COPY t FROM STDIN USING DELIMITERS ','", r#"COPY "t" FROM STDIN (DELIMITER ',')"#),
        (
            "COPY t FROM STDIN CSV QUOTE '''' FORCE NOT NULL a, b",
            r#"COPY "t" FROM STDIN (FORMAT csv, QUOTE '''', FORCE_NOT_NULL ("a", "b"))"#,
        ),
        ("COPY BINARY t TO STDOUT", r#"COPY "t" TO STDOUT (FORMAT binary)"#),
        (
            "COPY (SELECT ')' FROM (SELECT 1)) TO STDOUT (FORMAT csv, FORCE_QUOTE *)",
            r#"COPY (SELECT ')' FROM (SELECT 1)) TO STDOUT (FORMAT csv, FORCE_QUOTE *)"#,
        ),
        ("COPY s.t TO STDOUT (ENCODING 'utf-8')", r#"COPY "s"."t" TO STDOUT"#),
        ("COPY t FROM STDIN (FIRST_LINE 7)", r#"COPY "t" FROM STDIN (FIRST_LINE 7)"#),
    ] {
        assert_eq!(canonical(sql), want, "{sql}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (sql, code) in [
        ("COPY t FROM '/etc/passwd'", "42501"),
        ("COPY t TO PROGRAM 'true'", "42501"),
        ("COPY (SELECT 1) FROM STDIN", "42601"),
        ("COPY t FROM STDIN (FORMAT xml)", "22023"),
        ("COPY t FROM STDIN (NONSENSE)", "42601"),
        ("COPY t FROM STDIN (NULL 'a', NULL 'b')", "42601"),
        ("COPY t FROM STDIN (QUOTE '\"')", "0A000"),
        ("COPY t FROM STDIN (DELIMITER 'ab')", "0A000"),
        ("COPY t FROM STDIN (DELIMITER 'ü')", "0A000"),
        ("COPY t FROM STDIN (DELIMITER 'a')", "22023"),
        ("COPY t FROM STDIN CSV QUOTE ','", "22023"),
        ("COPY t FROM STDIN CSV NULL '\"'", "0A000"),
        ("COPY t FROM STDIN (ENCODING 'latin1')", "0A000"),
        ("COPY t FROM STDIN WHERE a > 1", "0A000"),
        ("COPY t TO STDOUT (HEADER match)", "0A000"),
        ("COPY t FROM STDIN WITH", "42601"),
        ("COPY t", "42601"),
        ("COPY", "42601"),
        ("COPY (SELECT 1 TO STDOUT", "42601"),
    ] {
        assert_eq!(Copy::parse(sql).unwrap_err().code(), code, "{sql}");
    }
}

/// The rows of some lines for the columns `a` and `b`, both text; NULL as `~`.
fn rows(options: &str, lines: &[u8]) -> Result<Vec<Vec<String>>, Refusal> {
    let copy = Copy::parse(&format!("COPY t FROM STDIN {options}")).unwrap();
    let columns = ["a", "b"].map(|name| Column::new(name, "TEXT", false));
    let mut records = Records::new(&copy, &columns, lines);
    let mut rows = Vec::new();
    while let Some((_, values)) = records.row()? {
        let text = values.into_iter().map(|value| match value {
            Value::Text(text) => text,
            _ => "~".into(),
        });
        rows.push(text.collect());
    }
    Ok(rows)
}

#[test]
fn text_lines_become_fields() {
    for (options, lines, want) in [
        ("", &b"1\tx\n2\ty\n"[..], &[["1", "x"], ["2", "y"]][..]),
        ("", b"1\tx\r\n2\ty", &[["1", "x"], ["2", "y"]]),
        ("", b"1\tx\r2\ty\r", &[["1", "x"], ["2", "y"]]),
        ("", b"\\N\t\n", &[["~", ""]]),
        ("", b"\\\\N\t\\x41\\102\\x\n", &[["\\N", "ABx"]]),
        ("", b"a\\tb\\nc\\\td\te\\\nf\n", &[["a\tb\nc\td", "e\nf"]]),
        ("", b"1\tx\n\\.\nnot a row\n", &[["1", "x"]]),
        ("", b"gr\xc3\xb6\xc3\x9fe\t\\303\\266\n", &[["größe", "ö"]]),
        ("(DELIMITER '|', NULL '')", b"|x\\|y\n", &[["~", "x|y"]]),
        ("(HEADER true)", b"names\n1\t2\n", &[["1", "2"]]),
        ("(HEADER match)", b"a\tb\n1\t2\n", &[["1", "2"]]),
        ("", b"", &[]),
    ] {
        assert_eq!(rows(options, lines).unwrap(), want, "{:?}", lines.escape_ascii().to_string());
    }
}

#[test]
fn csv_lines_become_fields() {
    for (options, lines, want) in [
        ("", &b"1,x\n2,y\n"[..], &[["1", "x"], ["2", "y"]][..]),
        ("", b"\"a,\"\"b\",\"c\r\nd\"\r\n1,\r\n", &[["a,\"b", "c\r\nd"], ["1", "~"]]),
        ("", b"\"\",\n", &[["", "~"]]),
        ("", b"a\"b,\"c,d\n", &[["ab,c", "d"]]),
        ("", b" x , y \n", &[[" x ", " y "]]),
        ("", b"1,\\.\n\\.\n2,x\n", &[["1", "\\."]]),
        ("NULL 'none'", b"none,\"none\"\n", &[["~", "none"]]),
        ("FORCE NULL b", b"\"\",\"\"\n", &[["", "~"]]),
        ("FORCE NOT NULL a", b",\n", &[["", "~"]]),
        ("QUOTE '''' ESCAPE '\\'", b"'it\\'s',x\n", &[["it's", "x"]]),
        ("DELIMITER ';'", b"1;2\n", &[["1", "2"]]),
    ] {
        let text = lines.escape_ascii().to_string();
        assert_eq!(rows(&format!("CSV {options}"), lines).unwrap(), want, "{text}");
    }
}

#[test]
fn lines_that_are_wrong_are_named() {
    for (options, lines, code, says) in [
        ("", &b"1\t2\n1\n"[..], "22P04", "missing data for column \"b\" (COPY t, line 2)"),
        ("", b"1\t2\t3\n", "22P04", "extra data after last expected column (COPY t, line 1)"),
        ("(FIRST_LINE 41)", b"1\t2\n\n", "22P04", "line 42)"),
        ("", b"1\t2\r\n", "", ""),
        ("", b"1\t2\n1\t2\r\n", "22P04", "literal carriage return"),
        ("", b"1\\.\t2\n", "22P04", "end-of-copy marker"),
        ("", b"\xff\t2\n", "22021", "line 1"),
        ("", b"\\xff\t2\n", "22021", "line 1"),
        ("", b"\\0\t2\n", "22021", "line 1"),
        ("", b"a\0\t2\n", "22021", "0x00"),
        (
            "CSV",
            b"\"a\nb\",2\n\"open,\n",
            "22P04",
            "unterminated CSV quoted field (COPY t, line 3)",
        ),
        ("(HEADER match)", b"a\tc\n", "22P04", "got \"c\", expected \"b\""),
        ("(HEADER match)", b"a\n", "22P04", "field count is 1, expected 2"),
    ] {
        let got = rows(options, lines);
        let Err(refusal) = got else {
            assert_eq!(code, "", "{:?}", lines.escape_ascii().to_string());
            continue;
        };
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(refusal.message.contains(says), "{refusal}");
    }
}

#[test]
fn fields_are_stored_as_their_columns_have_them() {
    for (declared, text, want) in [
        ("BOOLEAN", "t", Ok(Value::Integer(1))),
        ("BOOLEAN", " FALSE", Ok(Value::Integer(0))),
        ("BOOLEAN", "2", Err("22P02")),
        ("BYTEA", "\\x00ff", Ok(Value::Blob(vec![0, 255]))),
        ("BYTEA", "a\\000\\\\", Ok(Value::Blob(vec![b'a', 0, b'\\']))),
        ("BYTEA", "\\x0", Err("22P02")),
        ("INT4", " 007 ", Ok(Value::Integer(7))),
        ("BIGINT", "", Err("22P02")),
        ("BIGINT", "9223372036854775808", Err("22003")),
        ("DOUBLE PRECISION", "1e3", Ok(Value::real(1000.0))),
        ("REAL", "one", Err("22P02")),
        ("REAL", "NaN", Ok(Value::Text("NaN".into()))),
        ("NUMERIC(10,2)", "12.50", Ok(Value::real(12.5))),
        ("NUMERIC", "12", Ok(Value::Integer(12))),
        ("DECIMAL", "x", Err("22P02")),
        ("CHAR(3)", " a ", Ok(Value::Text(" a".into()))),
        ("DATE", "2026-1-2", Ok(Value::Text("2026-01-02".into()))),
        ("DATE", "2026-02-30", Err("22008")),
        ("TIME", "1:02", Ok(Value::Text("01:02:00".into()))),
        ("TIMESTAMP(3)", "2026-01-02T03:04", Ok(Value::Text("2026-01-02 03:04:00".into()))),
        (
            "timestamp with time zone",
            "2026-01-02 03:04+02",
            Ok(Value::Text("2026-01-02 01:04:00".into())),
        ),
        ("TIMESTAMPTZ", "soon", Err("22007")),
        (
            "UUID",
            "{A0EEBC99-9c0b4ef8-bb6d-6bb9bd380a11}",
            Ok(Value::Text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11".into())),
        ),
        ("UUID", "a0eebc99", Err("22P02")),
        ("TEXT[]", "[1]", Ok(Value::Text("[1]".into()))),
        ("POINT", "1", Ok(Value::Text("1".into()))),
        ("VARCHAR(3)", " a ", Ok(Value::Text(" a ".into()))),
    ] {
        let got = Column::new("c", declared, false).value(Some(text.into()));
        assert_eq!(got.as_ref().map_err(|refusal| refusal.code()), want.as_ref().map_err(|c| *c));
    }
}

/// What the splitter finds in the bytes, however they come.
fn split(options: &str, data: &[u8], piece: usize, bytes: usize, rows: u64) -> Vec<(String, u64)> {
    let copy = Copy::parse(&format!("COPY t FROM STDIN {options}")).unwrap();
    let mut splitter = Splitter::new(&copy.options);
    let mut found = Vec::new();
    for piece in data.chunks(piece) {
        splitter.push(piece);
        while let Some(chunk) = splitter.full(bytes, rows).unwrap() {
            found.push(chunk);
        }
    }
    found.extend(splitter.rest());
    found
        .into_iter()
        .map(|chunk| (String::from_utf8(chunk.lines).unwrap(), chunk.first_line))
        .collect()
}

#[test]
fn chunks_are_whole_lines_wherever_the_pieces_end() {
    let text = b"one\ntwo\\\nmore\nthree\nfour";
    let csv = b"a,\"x\ny\"\r\nb,\"\"\"\"\r\nc,d\r\n";
    for piece in 1..text.len() {
        let found = split("", text, piece, 13, u64::MAX);
        let want = [("one\n", 1), ("two\\\nmore\n", 2), ("three\nfour", 3)];
        assert_eq!(found, want.map(|(text, line)| (text.to_owned(), line)), "{piece}");
        let found = split("CSV", csv, piece, 100, 1);
        let want = [("a,\"x\ny\"\r\n", 1), ("b,\"\"\"\"\r\n", 3), ("c,d\r\n", 4)];
        assert_eq!(found, want.map(|(text, line)| (text.to_owned(), line)), "{piece}");
        let found = split("", b"a\n\\.\nb\n", piece, 100, 100);
        assert_eq!(found, [("a\n".to_owned(), 1)], "{piece}");
    }
}

#[test]
fn a_line_longer_than_a_chunk_is_refused_before_it_is_whole() {
    let mut splitter = Splitter::new(&Options::of(Format::Csv));
    splitter.push(b"a,b\n\"");
    splitter.push(&[b'x'; 100]);
    assert_eq!(splitter.full(50, 10).unwrap_err().code(), "54000");
}

#[test]
fn what_is_written_is_read_again() {
    let all: String = (1..=127u8).map(char::from).chain("größe\\N\\.".chars()).collect();
    let fields = [Some(all.as_str()), None, Some(""), Some("\\N"), Some("\\."), Some("a,b\"c")];
    for options in ["", "(DELIMITER '|')", "CSV", "CSV QUOTE '''' ESCAPE '\\'", "CSV NULL '\\N'"] {
        let sql = format!("COPY t FROM STDIN {options}");
        let copy = Copy::parse(&sql).unwrap();
        let mut lines = Vec::new();
        for field in fields {
            put_field(&mut lines, field, &copy.options, false, false);
            lines.push(copy.options.delimiter);
            put_field(&mut lines, field, &copy.options, true, false);
            lines.push(b'\n');
        }
        let want: Vec<Vec<String>> =
            fields.iter().map(|field| vec![field.unwrap_or("~").to_owned(); 2]).collect();
        let got = rows(options, &lines).unwrap();
        assert_eq!(got, want, "{options}");
    }
}
