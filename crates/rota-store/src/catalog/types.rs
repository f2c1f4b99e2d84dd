//! Declared types as PostgreSQL's catalog tells them: a number, a modifier, and the name that
//! `format_type` gives them. For step 1, where tools ask what a column is.

/// A type of the catalog: its number and its modifier, −1 where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeclaredType {
    pub(super) oid: i64,
    pub(super) modifier: i64,
    /// How many dimensions: one for `integer[]`.
    pub(super) dimensions: i64,
}

/// What `varchar(n)` and `char(n)` add to n: the length word of the value (`VARHDRSZ`).
const LENGTH_WORD: i64 = 4;

/// A type's number, its array's number, the name that `format_type` gives it, other names.
type Names = (i64, i64, &'static str, &'static [&'static str]);

/// Types that a column can be declared as, or a cast can name.
const TYPES: [Names; 45] = [
    (16, 1000, "boolean", &["bool"]),
    (17, 1001, "bytea", &["blob", "varbinary", "binary", "longblob"]),
    (18, 1002, "\"char\"", &[]),
    (19, 1003, "name", &[]),
    (20, 1016, "bigint", &["int8", "bigserial", "serial8"]),
    (21, 1005, "smallint", &["int2", "smallserial", "serial2", "tinyint"]),
    (22, 1006, "int2vector", &[]),
    (23, 1007, "integer", &["int4", "int", "serial", "serial4", "mediumint"]),
    (24, 1008, "regproc", &[]),
    (25, 1009, "text", &["clob", "string", "mediumtext", "longtext", "tinytext"]),
    (26, 1028, "oid", &[]),
    (28, 1011, "xid", &[]),
    (114, 199, "json", &[]),
    (142, 143, "xml", &[]),
    (194, 0, "pg_node_tree", &[]),
    (600, 1017, "point", &[]),
    (650, 651, "cidr", &[]),
    (700, 1021, "real", &["float4"]),
    (701, 1022, "double precision", &["float8", "float", "double"]),
    (705, 0, "unknown", &[]),
    (790, 791, "money", &[]),
    (829, 1040, "macaddr", &[]),
    (869, 1041, "inet", &[]),
    (1033, 1034, "aclitem", &[]),
    (1042, 1014, "character", &["bpchar", "char", "nchar"]),
    (1043, 1015, "character varying", &["varchar", "nvarchar"]),
    (1082, 1182, "date", &[]),
    (1083, 1183, "time without time zone", &["time"]),
    (1114, 1115, "timestamp without time zone", &["timestamp", "datetime"]),
    (1184, 1185, "timestamp with time zone", &["timestamptz"]),
    (1186, 1187, "interval", &[]),
    (1266, 1270, "time with time zone", &["timetz"]),
    (1560, 1561, "bit", &[]),
    (1562, 1563, "bit varying", &["varbit"]),
    (1700, 1231, "numeric", &["decimal", "dec", "number"]),
    (2202, 2207, "regprocedure", &[]),
    (2205, 2210, "regclass", &[]),
    (2206, 2211, "regtype", &[]),
    (2249, 2287, "record", &[]),
    (2278, 0, "void", &[]),
    (2950, 2951, "uuid", &[]),
    (3614, 3643, "tsvector", &[]),
    (3802, 3807, "jsonb", &[]),
    (4089, 4090, "regnamespace", &[]),
    (4096, 4097, "regrole", &[]),
];

/// Of a column's declared type; what nobody knows is what SQLite makes of it.
pub(super) fn declared_type(declared: &str) -> DeclaredType {
    named(declared).unwrap_or_else(|| {
        let upper = declared.to_ascii_uppercase();
        let has = |part: &str| upper.contains(part);
        let oid = if has("INT") {
            20
        } else if upper.is_empty() || has("CHAR") || has("CLOB") || has("TEXT") {
            25
        } else if has("BLOB") {
            17
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            701
        } else {
            1700
        };
        DeclaredType { oid, modifier: -1, dimensions: 0 }
    })
}

/// The type of a name with its modifier, as in `varchar(20)` or `pg_catalog.int4[]`.
pub(super) fn named(text: &str) -> Option<DeclaredType> {
    let text = text.trim();
    let (text, array) = match text.strip_suffix(']') {
        Some(rest) => {
            (rest.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('[')?, true)
        }
        None => (text, false),
    };
    let (name, arguments) = split_arguments(text.trim());
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    let (name, array) = match name.strip_prefix('_') {
        Some(element) => (element, true),
        None => (name, array),
    };
    let found =
        TYPES.iter().find(|(_, _, format, others)| name == *format || others.contains(&name))?;
    let (oid, array_oid, ..) = *found;
    let oid_told = if array { array_oid } else { oid };
    let modifier = modifier(oid, &arguments);
    Some(DeclaredType { oid: oid_told, modifier, dimensions: array.into() })
}

/// `character varying (20)` is a name and its arguments; words after them belong to the name.
fn split_arguments(text: &str) -> (String, Vec<i64>) {
    let (before, arguments, after) = match (text.find('('), text.rfind(')')) {
        (Some(open), Some(close)) if open < close => (
            text.get(..open).unwrap_or_default(),
            text.get(open + 1..close).unwrap_or_default(),
            text.get(close + 1..).unwrap_or_default(),
        ),
        _ => (text, "", ""),
    };
    let words: Vec<String> = before
        .split_whitespace()
        .chain(after.split_whitespace())
        .map(str::to_ascii_lowercase)
        .collect();
    (words.join(" "), arguments.split(',').filter_map(|part| part.trim().parse().ok()).collect())
}

fn modifier(oid: i64, arguments: &[i64]) -> i64 {
    match (oid, arguments) {
        (1042 | 1043, [length]) => length.saturating_add(LENGTH_WORD),
        (1042, []) => 1 + LENGTH_WORD,
        (1700, [precision]) => (precision.clamp(&0, &1_000) << 16) + LENGTH_WORD,
        (1700, [precision, scale]) => {
            ((precision.clamp(&0, &1_000) << 16) | (scale & 0x7ff)) + LENGTH_WORD
        }
        (1083 | 1114 | 1184 | 1266, [digits]) => *digits,
        (1560 | 1562, [bits]) => *bits,
        _ => -1,
    }
}

/// PostgreSQL's name of a type; `None` where there is no such number.
pub(super) fn format_type(oid: i64, modifier: Option<i64>) -> Option<String> {
    if oid == 0 {
        return Some("-".into());
    }
    if let Some((element, ..)) = TYPES.iter().find(|(_, array, ..)| *array == oid) {
        return format_type(*element, modifier).map(|name| name + "[]");
    }
    let (_, _, name, _) = TYPES.iter().find(|(number, ..)| *number == oid)?;
    let modifier = modifier.filter(|modifier| *modifier >= 0);
    Some(match (oid, modifier) {
        // Without a modifier, `character` would be one character long.
        (1042, None) => "bpchar".into(),
        (1042 | 1043, Some(modifier)) => format!("{name}({})", modifier - LENGTH_WORD),
        (1700, Some(modifier)) => {
            let packed = modifier - LENGTH_WORD;
            format!("{name}({},{})", packed >> 16, packed & 0x7ff)
        }
        (1083 | 1114 | 1184 | 1266, Some(digits)) => match name.split_once(' ') {
            Some((first, rest)) => format!("{first}({digits}) {rest}"),
            None => format!("{name}({digits})"),
        },
        (1560 | 1562, Some(bits)) => format!("{name}({bits})"),
        _ => (*name).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_type_is_told_by_postgresqls_name() {
        for (declared, want) in [
            ("INT", "integer"),
            ("BIGINT", "bigint"),
            ("varchar( 80 )", "character varying(80)"),
            ("VARCHAR", "character varying"),
            ("character varying (8)", "character varying(8)"),
            ("CHAR", "character(1)"),
            ("bpchar(3)", "character(3)"),
            ("DECIMAL(10, 2)", "numeric(10,2)"),
            ("numeric(5)", "numeric(5,0)"),
            ("DOUBLE PRECISION", "double precision"),
            ("timestamp(3) with time zone", "timestamp(3) with time zone"),
            ("TIMESTAMPTZ", "timestamp with time zone"),
            ("int[]", "integer[]"),
            ("_text", "text[]"),
            ("UNSIGNED BIG INT", "bigint"),
            ("", "text"),
            ("whatever", "numeric"),
        ] {
            let found = declared_type(declared);
            let told = format_type(found.oid, Some(found.modifier));
            assert_eq!(told.as_deref(), Some(want), "{declared}");
        }
    }
}
