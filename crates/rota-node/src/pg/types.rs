//! Types: from the one that a column was declared with to the one that PostgreSQL's drivers are
//! told. They believe it: a driver that is told int8 reads eight bytes, or gives a string.
//!
//! | declared                                       | announced                       |
//! |------------------------------------------------|---------------------------------|
//! | `SMALLINT` `INT` `BIGINT` and their other names| int2, int4, int8                |
//! | `REAL`; `FLOAT` `DOUBLE PRECISION`             | float4; float8                  |
//! | `NUMERIC(p, s)` `DECIMAL`                      | numeric, with so many decimals  |
//! | `BOOLEAN` `UUID` `JSON` `JSONB` `BYTEA`        | the same; `BLOB` is bytea       |
//! | `DATE` `TIME` `TIMESTAMP` `TIMESTAMPTZ`        | the same; `DATETIME` timestamp  |
//! | `VARCHAR(n)` `CHAR(n)` `TEXT`                  | the same                        |
//! | `TEXT[]` and other arrays                      | the array                       |
//! | what SQLite takes for INT, REAL, BLOB; the rest| int8, float8, bytea; text       |
//!
//! How values of them look on the wire is in [`encode`](super::encode) and
//! [`parameter`](self::parameter), by families: numbers, moments, arrays. Steps 1 and 9.

pub(crate) mod array;
pub(crate) mod moment;
pub(crate) mod number;
pub(crate) mod parameter;

/// A type's number in PostgreSQL's catalog.
pub(crate) type Oid = u32;

/// PostgreSQL's numbers (pg_type.dat).
pub(crate) mod oid {
    use super::Oid;

    /// Not said.
    pub(crate) const UNSPECIFIED: Oid = 0;
    pub(crate) const BOOL: Oid = 16;
    pub(crate) const BYTEA: Oid = 17;
    /// `"char"`: one byte, in the catalog.
    pub(crate) const CHAR: Oid = 18;
    pub(crate) const NAME: Oid = 19;
    pub(crate) const INT8: Oid = 20;
    pub(crate) const INT2: Oid = 21;
    pub(crate) const INT4: Oid = 23;
    pub(crate) const TEXT: Oid = 25;
    pub(crate) const OID: Oid = 26;
    pub(crate) const JSON: Oid = 114;
    pub(crate) const FLOAT4: Oid = 700;
    pub(crate) const FLOAT8: Oid = 701;
    /// A string literal whose type nobody said.
    pub(crate) const UNKNOWN: Oid = 705;
    /// `CHAR(n)`: blanks at the end do not count.
    pub(crate) const BPCHAR: Oid = 1042;
    pub(crate) const VARCHAR: Oid = 1043;
    pub(crate) const DATE: Oid = 1082;
    pub(crate) const TIME: Oid = 1083;
    pub(crate) const TIMESTAMP: Oid = 1114;
    pub(crate) const TIMESTAMPTZ: Oid = 1184;
    pub(crate) const NUMERIC: Oid = 1700;
    pub(crate) const UUID: Oid = 2950;
    pub(crate) const JSONB: Oid = 3802;
}

/// What PostgreSQL adds to the length of `VARCHAR(n)`, and to precision and scale.
const MODIFIER_OFFSET: i32 = 4;

/// No length, no precision.
const NO_MODIFIER: i32 = -1;

/// The longest name of a type that has to be recognised.
const MAX_NAME: usize = 40;

/// A type with what stands in its parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) oid: Oid,
    /// PostgreSQL's typmod.
    pub(crate) modifier: i32,
}

impl From<Oid> for Type {
    fn from(oid: Oid) -> Self {
        Self { oid, modifier: NO_MODIFIER }
    }
}

impl PartialEq<Oid> for Type {
    fn eq(&self, oid: &Oid) -> bool {
        self.oid == *oid
    }
}

impl Type {
    /// A type's fixed width in bytes, −1 where it varies.
    pub(crate) fn width(self) -> i16 {
        match self.oid {
            oid::BOOL | oid::CHAR => 1,
            oid::INT2 => 2,
            oid::INT4 | oid::FLOAT4 | oid::DATE | oid::OID => 4,
            oid::INT8 | oid::FLOAT8 | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ => 8,
            oid::UUID => 16,
            oid::NAME => 64,
            _ => -1,
        }
    }

    /// How many decimals a numeric shows, where that was declared.
    pub(crate) fn scale(self) -> Option<usize> {
        let declared = self.oid == oid::NUMERIC && self.modifier >= MODIFIER_OFFSET;
        // The lower eleven bits, as in PostgreSQL's numeric.c.
        declared.then(|| usize::try_from((self.modifier - MODIFIER_OFFSET) & 0x7ff).unwrap_or(0))
    }

    /// How many characters a `CHAR(n)` is filled up to.
    pub(crate) fn padding(self) -> Option<usize> {
        let declared = self.oid == oid::BPCHAR && self.modifier > MODIFIER_OFFSET;
        declared.then(|| usize::try_from(self.modifier - MODIFIER_OFFSET).unwrap_or(0))
    }
}

/// The type to announce for a declared one.
pub(crate) fn declared_type(declared: &str) -> Type {
    let declared = declared.trim();
    if let Some(element) = declared.strip_suffix("[]") {
        let element = declared_type(element);
        return array::of(element.oid).unwrap_or(oid::TEXT).into();
    }
    let (name, rest) = declared.split_once('(').unwrap_or((declared, ""));
    let (inside, suffix) = rest.split_once(')').unwrap_or((rest, ""));
    let mut arguments = inside.split(',').map(|number| number.trim().parse::<u16>().ok());
    let first = arguments.next().flatten().map(i32::from);
    let second = arguments.next().flatten().map(i32::from);
    let mut lower = [0_u8; MAX_NAME];
    let known = lower_case(&mut lower, name.trim(), suffix.trim()).and_then(|name| {
        // `DATE TEXT`: a date for us, text for SQLite.
        by_name(name.strip_suffix(" text").unwrap_or(name))
    });
    let oid = known.unwrap_or_else(|| by_affinity(declared));
    let modifier = match (oid, first) {
        (oid::VARCHAR, Some(length)) => length + MODIFIER_OFFSET,
        (oid::BPCHAR, Some(length)) => length + MODIFIER_OFFSET,
        // PostgreSQL's CHAR is CHAR(1); nothing is filled up to that.
        (oid::NUMERIC, Some(precision)) => {
            ((precision << 16) | (second.unwrap_or(0) & 0x7ff)) + MODIFIER_OFFSET
        }
        // A precision that a double has and a real has not.
        (oid::FLOAT8, Some(1..=24)) if name.trim().eq_ignore_ascii_case("float") => {
            return oid::FLOAT4.into();
        }
        _ => NO_MODIFIER,
    };
    Type { oid, modifier }
}

/// Two words in lower case with one blank between them, without allocating: this runs for every
/// column of every result.
fn lower_case<'a>(into: &'a mut [u8; MAX_NAME], name: &str, suffix: &str) -> Option<&'a str> {
    let words = name.split_ascii_whitespace().chain(suffix.split_ascii_whitespace());
    let mut length = 0_usize;
    for (place, word) in words.enumerate() {
        for byte in (place > 0).then_some(b' ').into_iter().chain(word.bytes()) {
            *into.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    std::str::from_utf8(into.get(..length)?).ok()
}

fn by_name(name: &str) -> Option<Oid> {
    Some(match name {
        "int2" | "smallint" | "smallserial" | "serial2" | "tinyint" => oid::INT2,
        "int4" | "int" | "integer" | "serial" | "serial4" | "mediumint" => oid::INT4,
        "int8" | "bigint" | "bigserial" | "serial8" => oid::INT8,
        "bool" | "boolean" => oid::BOOL,
        "real" | "float4" => oid::FLOAT4,
        "float8" | "float" | "double" | "double precision" => oid::FLOAT8,
        "numeric" | "decimal" | "dec" => oid::NUMERIC,
        "varchar" | "character varying" | "char varying" => oid::VARCHAR,
        "char" | "character" | "bpchar" => oid::BPCHAR,
        "\"char\"" => oid::CHAR,
        "text" | "citext" | "interval" => oid::TEXT,
        "name" => oid::NAME,
        "bytea" | "blob" => oid::BYTEA,
        "date" => oid::DATE,
        "time" | "time without time zone" => oid::TIME,
        "timestamp" | "timestamp without time zone" | "datetime" => oid::TIMESTAMP,
        "timestamptz" | "timestamp with time zone" => oid::TIMESTAMPTZ,
        "uuid" => oid::UUID,
        "json" => oid::JSON,
        "jsonb" => oid::JSONB,
        "oid" => oid::OID,
        "int2vector" => array::INT2VECTOR,
        "oidvector" => array::OIDVECTOR,
        _ => return None,
    })
}

/// What SQLite makes of a type that PostgreSQL has not.
fn by_affinity(declared: &str) -> Oid {
    let declared = declared.to_ascii_uppercase();
    let has = |parts: &[&str]| parts.iter().any(|part| declared.contains(part));
    if has(&["BOOL"]) {
        oid::BOOL
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        oid::TEXT
    } else if has(&["INT"]) && !has(&["INTERVAL", "POINT"]) {
        oid::INT8
    } else if has(&["BLOB"]) {
        oid::BYTEA
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        oid::FLOAT8
    } else {
        oid::TEXT
    }
}

/// A type's name in messages, as PostgreSQL says it.
pub(crate) fn name(said: Oid) -> &'static str {
    match said {
        oid::BOOL => "boolean",
        oid::BYTEA => "bytea",
        oid::INT2 => "smallint",
        oid::INT4 => "integer",
        oid::INT8 => "bigint",
        oid::OID => "oid",
        oid::FLOAT4 => "real",
        oid::FLOAT8 => "double precision",
        oid::NUMERIC => "numeric",
        oid::DATE => "date",
        oid::TIME => "time",
        oid::TIMESTAMP => "timestamp",
        oid::TIMESTAMPTZ => "timestamp with time zone",
        oid::UUID => "uuid",
        oid::JSON => "json",
        oid::JSONB => "jsonb",
        oid::CHAR => "\"char\"",
        _ if array::element(said).is_some() => "array",
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_announced_as_what_it_was_declared() {
        for (declared, want) in [
            ("smallint", oid::INT2),
            ("INT2", oid::INT2),
            ("INTEGER", oid::INT4),
            ("int", oid::INT4),
            ("BigInt", oid::INT8),
            ("UNSIGNED BIG INT", oid::INT8),
            ("boolean", oid::BOOL),
            ("REAL", oid::FLOAT4),
            ("float(24)", oid::FLOAT4),
            ("float(25)", oid::FLOAT8),
            ("double  precision", oid::FLOAT8),
            ("numeric", oid::NUMERIC),
            ("timestamp", oid::TIMESTAMP),
            ("timestamp(3) with time zone", oid::TIMESTAMPTZ),
            ("TIMESTAMP WITH TIME ZONE", oid::TIMESTAMPTZ),
            ("DATETIME", oid::TIMESTAMP),
            ("interval", oid::TEXT),
            ("point", oid::TEXT),
            ("LONGBLOB", oid::BYTEA),
            ("NVARCHAR(20)", oid::TEXT),
            ("\"char\"", oid::CHAR),
            ("DATE TEXT", oid::DATE),
            ("TIMESTAMP WITH TIME ZONE TEXT", oid::TIMESTAMPTZ),
            ("TEXT[]", 1009),
            ("int2[]", 1005),
            ("varchar(10)[]", 1015),
            ("a name that is longer than any name of a type that there is", oid::TEXT),
            ("", oid::TEXT),
        ] {
            assert_eq!(declared_type(declared).oid, want, "{declared}");
        }
    }

    #[test]
    fn what_stands_in_parentheses_is_told_as_postgresql_tells_it() {
        for (declared, modifier) in [
            ("varchar(20)", 24),
            ("character varying (20)", 24),
            ("char(3)", 7),
            ("numeric(10,2)", 655_366),
            ("numeric(10)", 655_364),
            ("numeric", -1),
            ("text", -1),
            ("timestamp(3)", -1),
        ] {
            assert_eq!(declared_type(declared).modifier, modifier, "{declared}");
        }
        assert_eq!(declared_type("numeric(10,2)").scale(), Some(2));
        assert_eq!(declared_type("numeric").scale(), None);
        assert_eq!(declared_type("char(3)").padding(), Some(3));
        assert_eq!(declared_type("varchar(3)").padding(), None);
    }
}
