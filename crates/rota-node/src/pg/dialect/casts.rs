//! Types: `x::type`, `CAST(x AS type)`, `DATE '2020-01-01'`. Step 1.
//!
//! SQLite's CAST knows affinities only, so what has a form of its own in the database is brought
//! into it by a function: `x::date` is `rota_date(x)`.

use rota_core::error::Refusal;
use rota_store::datetime::{self, Wrong};

use super::Oid;
use super::lexer::{Kind, Token};
use super::{Piece, Shape, Translation, join, strings};

/// What a type is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Bool,
    Integer,
    /// `real`, `double precision`, `numeric`.
    Number,
    /// What a string is already.
    Text,
    /// `varchar(n)`: a cast cuts.
    Cut,
    Bytes,
    Date,
    Time,
    /// `timestamp`.
    Zoneless,
    /// `timestamptz`.
    Zoned,
    Interval,
    Json,
    Uuid,
    /// Names of what is in the catalog: the function that finds its number.
    Catalog(&'static str),
    /// Numbers of what is in the catalog.
    Number32,
}

/// Names, SQLite's type or function, PostgreSQL's number of it and of its array, and the family.
type Row = (&'static [&'static str], &'static str, Oid, Oid, Family);

#[rustfmt::skip]
const TYPES: [Row; 30] = [
    (&["int", "integer", "int4", "serial", "serial4"], "INT4", 23, 1007, Family::Integer),
    (&["bigint", "int8", "bigserial", "serial8"], "BIGINT", 20, 1016, Family::Integer),
    (&["smallint", "int2", "smallserial", "serial2"], "INT2", 21, 1005, Family::Integer),
    (&["text", "citext"], "TEXT", 25, 1009, Family::Text),
    (&["varchar", "character varying"], "VARCHAR", 1043, 1015, Family::Cut),
    (&["bool", "boolean"], "rota_boolean", 16, 1000, Family::Bool),
    (&["float8", "float", "double precision"], "DOUBLE PRECISION", 701, 1022, Family::Number),
    (&["real", "float4"], "REAL", 700, 1021, Family::Number),
    (&["numeric", "decimal", "dec", "money"], "NUMERIC", 1700, 1231, Family::Number),
    (&["timestamptz", "timestamp with time zone"], "rota_timestamptz", 1184, 1185, Family::Zoned),
    (&["timestamp", "timestamp without time zone"], "rota_timestamp", 1114, 1115, Family::Zoneless),
    (&["date"], "rota_date", 1082, 1182, Family::Date),
    (&["time", "time without time zone"], "rota_time", 1083, 1183, Family::Time),
    (&["timetz", "time with time zone"], "TEXT", 1266, 1270, Family::Text),
    (&["interval"], "TEXT", 25, 1009, Family::Interval),
    (&["bytea", "blob"], "BLOB", 17, 1001, Family::Bytes),
    (&["uuid"], "rota_uuid", 2950, 2951, Family::Uuid),
    (&["json"], "json", 114, 199, Family::Json),
    (&["jsonb"], "json", 3802, 3807, Family::Json),
    (&["char", "character", "bpchar"], "CHAR", 1042, 1014, Family::Cut),
    (&["name"], "TEXT", 19, 1003, Family::Text),
    (&["unknown", "cstring", "inet", "cidr", "macaddr", "xml"], "TEXT", 25, 1009, Family::Text),
    (&["regclass"], "", 25, 1009, Family::Catalog("to_regclass")),
    (&["regtype"], "", 25, 1009, Family::Catalog("to_regtype")),
    (&["regproc", "regprocedure"], "", 25, 1009, Family::Catalog("to_regproc")),
    (&["regnamespace"], "", 25, 1009, Family::Catalog("to_regnamespace")),
    (&["regrole"], "", 25, 1009, Family::Catalog("to_regrole")),
    (&["oid", "xid", "cid"], "", 26, 1028, Family::Number32),
    (&["int2vector"], "", 25, 1009, Family::Text),
    (&["oidvector"], "", 25, 1009, Family::Text),
];

/// The type of a cast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type {
    row: &'static Row,
    /// What stood in parentheses: a length, or precision and scale.
    first: Option<u16>,
    second: Option<u16>,
    /// Whether it is an array of it.
    array: bool,
}

impl Type {
    fn family(&self) -> Family {
        self.row.4
    }

    /// PostgreSQL's number for an array of it.
    pub(super) fn array_oid(&self) -> Oid {
        self.row.3
    }

    /// Whether its values are numbers.
    pub(super) fn is_number(&self) -> bool {
        matches!(self.family(), Family::Integer | Family::Number | Family::Number32)
    }

    /// Whether values are brought into their form by a function.
    fn is_function(&self) -> bool {
        self.row.1.starts_with(|c: char| c.is_ascii_lowercase())
    }

    /// Whether a column of such texts may become one of others: lengths are not enforced anyway.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.family(), Family::Text | Family::Cut) && !self.array
    }

    fn sqlite(&self) -> String {
        match (self.row.1, self.first, self.second) {
            (name @ ("NUMERIC" | "VARCHAR" | "CHAR"), Some(first), None) => {
                format!("{name}({first})")
            }
            (name @ "NUMERIC", Some(first), Some(second)) => format!("{name}({first}, {second})"),
            (name, ..) => name.to_owned(),
        }
    }
}

/// Words that are values of their own: PostgreSQL's without parentheses.
pub(super) fn bare_value(word: &str) -> Option<&'static str> {
    Some(match word {
        "current_user" | "current_role" | "user" => "current_user()",
        "session_user" => "session_user()",
        "current_catalog" => "'rota'",
        "current_schema" => "'public'",
        "current_timestamp" | "localtimestamp" => "now()",
        _ => return None,
    })
}

impl<'a> Translation<'a> {
    /// A type's name with all that belongs to it.
    pub(super) fn type_name(&mut self) -> Result<Type, Refusal> {
        self.accept(&["pg_catalog", "."]);
        let quoted = self.peek().is_some_and(|token| token.kind == Kind::Quoted);
        let Some(mut name) = self.peek().and_then(Token::name) else {
            return Err(super::syntax("a type is missing"));
        };
        self.skip(1);
        if !quoted && self.peek_is("(") {
            let arguments = self.arguments();
            let mut found = self.type_named(name, quoted)?;
            (found.first, found.second) = arguments;
            found.array = self.array_suffix();
            return Ok(found);
        }
        const SECOND_WORDS: [&str; 2] = ["precision", "varying"];
        if let Some(word) = SECOND_WORDS.iter().find(|word| self.comes(&[word])) {
            name = format!("{name} {word}");
            self.skip(1);
        }
        let mut found = self.type_named(name, quoted)?;
        if self.peek_is("(") {
            (found.first, found.second) = self.arguments();
        }
        found.array = self.array_suffix();
        Ok(found)
    }

    /// The type of a name, and of WITH or WITHOUT TIME ZONE after it.
    fn type_named(&mut self, mut name: String, quoted: bool) -> Result<Type, Refusal> {
        if self.accept(&["with", "time", "zone"]) || self.accept(&["with", "local", "time", "zone"])
        {
            name.push_str(" with time zone");
        } else if self.accept(&["without", "time", "zone"]) {
            name.push_str(" without time zone");
        }
        let (found, array) = match name.strip_prefix('_') {
            Some(element) if row(element).is_some() => (row(element), true),
            _ => (row(&name), false),
        };
        // `"char"` in quotes is the catalog's one byte.
        let found = if quoted && name == "char" { row("text") } else { found };
        let Some(row) = found else {
            return Err(Refusal::new("42704", format!("type \"{name}\" does not exist")));
        };
        Ok(Type { row, first: None, second: None, array })
    }

    /// `(10, 2)`.
    fn arguments(&mut self) -> (Option<u16>, Option<u16>) {
        let mut numbers = [None, None];
        let mut place = 0usize;
        self.skip(1);
        while let Some(token) = self.take().filter(|token| token.text != ")") {
            match token.kind {
                Kind::Symbol(',') => place += 1,
                Kind::Number => {
                    if let Some(number) = numbers.get_mut(place) {
                        *number = token.text.parse().ok();
                    }
                }
                _ => {}
            }
        }
        let [first, second] = numbers;
        (first, second)
    }

    /// `expression::type`: the expression is what was last put out.
    pub(super) fn cast(&mut self) -> Result<(), Refusal> {
        let target = self.type_name()?;
        let operand = self.pop_operand();
        if operand.is_empty() {
            return Err(super::syntax("syntax error at or near \"::\""));
        }
        self.cast_to(operand, &target)
    }

    /// `CAST(expression AS type)`, its parenthesis still to come.
    pub(super) fn cast_call(&mut self) -> Result<(), Refusal> {
        self.skip(1);
        self.deeper()?;
        let mut operand = self.pieces_until(|token| token.is("as"))?;
        self.depth -= 1;
        self.expect("as")?;
        let target = self.type_name()?;
        self.expect(")")?;
        operand.retain(|piece| piece.shape != Shape::Space || piece.text.len() == 1);
        while operand.last().is_some_and(|piece| piece.shape == Shape::Space) {
            operand.pop();
        }
        self.cast_to(operand, &target)
    }

    /// `DATE '2020-01-01'`; the word has been taken, a string comes.
    pub(super) fn typed_literal(&mut self, word: &str) -> Result<bool, Refusal> {
        if self.after_operand() || row(word).is_none() {
            return Ok(false);
        }
        let target = self.type_named(word.to_owned(), false)?;
        let Some(token) = self.take() else { return Ok(false) };
        self.cast_to(vec![Piece { shape: Shape::Text, text: token.text.into() }], &target)?;
        Ok(true)
    }

    /// `TIMESTAMP WITH TIME ZONE '…'`: the first word has been taken.
    pub(super) fn long_typed_literal(&mut self, word: &str) -> Result<bool, Refusal> {
        let zone =
            self.comes(&["with", "time", "zone"]) || self.comes(&["without", "time", "zone"]);
        let literal = self.ahead(3).is_some_and(|token| token.kind == Kind::Text);
        if !(zone && literal) {
            return Ok(false);
        }
        let target = self.type_named(word.to_owned(), false)?;
        let Some(token) = self.take() else { return Ok(false) };
        self.cast_to(vec![Piece { shape: Shape::Text, text: token.text.into() }], &target)?;
        Ok(true)
    }

    fn cast_to(&mut self, operand: Vec<Piece<'a>>, target: &Type) -> Result<(), Refusal> {
        if target.array {
            return self.cast_to_array(operand, target);
        }
        let text = join(&operand);
        let lone = match operand.as_slice() {
            [Piece { shape: Shape::Text, text }] => Some(Ok(text.as_ref())),
            [Piece { shape: Shape::Parameter(number), .. }] => Some(Err(*number)),
            _ => None,
        };
        if let Some(Err(number)) = lone {
            self.seen.casts.push((number, target.row.2));
        }
        if let Some(Ok(literal)) = lone
            && let Some((shape, spelled)) = cast_literal(literal, target, self.plain)?
        {
            self.push(shape, spelled);
            return Ok(());
        }
        if target.family() == Family::Interval {
            return self.interval(text);
        }
        let cast = |text: &str| format!("CAST({text} AS {})", target.sqlite());
        let spelled = match (target.family(), target.first) {
            // Of a name it is the number, of a number the name.
            (Family::Catalog(function), _) => format!("{function}({text})"),
            _ if target.row.1.is_empty() => text,
            _ if target.is_function() => format!("{}({text})", target.row.1),
            (Family::Cut, Some(length)) => cast(&format!("substr({text}, 1, {length})")),
            (Family::Number, Some(_)) if target.row.1 == "NUMERIC" => {
                cast(&format!("round({text}, {})", target.second.unwrap_or(0)))
            }
            _ => cast(&text),
        };
        // Whole: another cast may follow, and it must not be taken apart.
        self.push(Shape::Whole, spelled);
        Ok(())
    }
}

fn row(name: &str) -> Option<&'static Row> {
    TYPES.iter().find(|(names, ..)| names.contains(&name))
}

/// A string cast to a type, where that can be said without a cast. `plain`: what stands alone is of
/// the type anyway.
pub(super) fn cast_literal(
    literal: &str,
    target: &Type,
    plain: bool,
) -> Result<Option<(Shape, String)>, Refusal> {
    let Some(value) = strings::value(literal) else { return Ok(None) };
    let wrong = |code: &'static str, what: &str| {
        let message = format!("invalid input syntax for type {what}: \"{value}\"");
        Refusal::new(code, message)
    };
    let moment = |error: Wrong, what: &str| match error {
        Wrong::Syntax => wrong("22007", what),
        Wrong::Range => {
            Refusal::new("22008", format!("date/time field value out of range: \"{value}\""))
        }
    };
    let text = |value: String| Some((Shape::Text, strings::quoted(&value)));
    Ok(match target.family() {
        Family::Bool => match value.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Some((Shape::Whole, "TRUE".into())),
            "f" | "false" | "n" | "no" | "off" | "0" => Some((Shape::Whole, "FALSE".into())),
            _ => return Err(wrong("22P02", "boolean")),
        },
        Family::Bytes => match value.strip_prefix("\\x").map(|hex| (hex, hex::decode(hex))) {
            Some((digits, Ok(_))) => Some((Shape::Literal, format!("x'{digits}'"))),
            Some((_, Err(_))) => return Err(wrong("22P02", "bytea")),
            None => None,
        },
        Family::Text => text(value),
        Family::Cut if target.first.is_none() => text(value),
        Family::Date | Family::Zoneless | Family::Zoned if special(&value).is_some() => {
            let word = special(&value).unwrap_or_default();
            Some((Shape::Whole, format!("{}({word})", target.row.1)))
        }
        Family::Date if plain => {
            text(datetime::parse_date(&value).map_err(|error| moment(error, "date"))?.to_string())
        }
        Family::Time if plain => {
            text(datetime::parse_time(&value).map_err(|error| moment(error, "time"))?.to_string())
        }
        Family::Zoneless if plain => {
            let parsed = datetime::parse_timestamp(&value);
            text(parsed.map_err(|error| moment(error, "timestamp"))?.to_string())
        }
        Family::Zoned if plain => {
            let parsed = datetime::parse_timestamptz(&value);
            text(parsed.map_err(|error| moment(error, "timestamp with time zone"))?.to_string())
        }
        Family::Integer | Family::Number if plain && value.trim().parse::<f64>().is_ok() => {
            Some((Shape::Literal, value.trim().to_owned()))
        }
        Family::Json if plain => text(value),
        Family::Catalog(_) | Family::Number32 if value.parse::<u32>().is_ok() => {
            Some((Shape::Literal, value))
        }
        _ => None,
    })
}

/// `'now'::timestamp` and its like.
fn special(value: &str) -> Option<&'static str> {
    match value.trim().to_ascii_lowercase().as_str() {
        "now" => Some("now()"),
        "today" => Some("rota_date(now())"),
        _ => None,
    }
}
