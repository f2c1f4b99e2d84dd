//! What PostgreSQL gives: the types of functions' results, of arithmetic and of literals.

use super::{Guess, known};
use crate::pg::encode::{Oid, Type, oid};
use crate::pg::lexer::{Kind, Token};

/// Words between operands that make a condition of them.
const CONDITIONS: [&str; 11] =
    ["is", "isnull", "notnull", "and", "or", "not", "like", "in", "between", "exists", "glob"];

pub(super) fn is_condition(token: &Token<'_>) -> bool {
    CONDITIONS.iter().any(|word| token.is(word)) || token.is("regexp") || token.is("match")
}

/// Words that stand between or before operands, and so are none.
pub(super) fn is_operator(token: &Token<'_>) -> bool {
    let others = ["case", "when", "then", "else", "collate", "distinct", "all", "escape", "over"];
    is_condition(token) || others.iter().any(|word| token.is(word))
}

/// Words that are values.
pub(super) fn constant(token: &Token<'_>) -> Option<Oid> {
    if token.kind != Kind::Word {
        return None;
    }
    [
        ("true", oid::BOOL),
        ("false", oid::BOOL),
        ("current_timestamp", oid::TIMESTAMPTZ),
        ("current_date", oid::DATE),
        ("current_time", oid::TIME),
        ("null", oid::TEXT),
    ]
    .iter()
    .find(|(word, _)| token.is(word))
    .map(|(_, oid)| *oid)
}

/// A literal: int4 while it fits, else int8, else numeric; numeric with decimals.
pub(super) fn number(text: &str) -> Guess {
    let hexadecimal = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    known(if text.parse::<i32>().is_ok() {
        oid::INT4
    } else if text.parse::<i64>().is_ok() || hexadecimal {
        oid::INT8
    } else {
        oid::NUMERIC
    })
}

/// The type of what a function gives, where it does not depend on what it takes.
pub(super) fn result(name: &str) -> Option<Oid> {
    Some(match name {
        "count" | "rank" | "dense_rank" | "row_number" | "changes" | "last_insert_rowid"
        | "random" | "unixepoch" | "rota_nextval" | "rota_transfer" => oid::INT8,
        "length" | "char_length" | "character_length" | "octet_length" | "bit_length"
        | "strpos" | "ascii" | "ntile" | "instr" | "unicode" | "sign" | "json_array_length"
        | "width_bucket" | "pg_backend_pid" => oid::INT4,
        "total" | "julianday" | "sqrt" | "power" | "pow" | "date_part" | "percent_rank"
        | "cume_dist" => oid::FLOAT8,
        "extract" => oid::NUMERIC,
        "lower" | "upper" | "trim" | "ltrim" | "rtrim" | "btrim" | "substr" | "substring"
        | "replace" | "hex" | "quote" | "printf" | "format" | "typeof" | "group_concat"
        | "string_agg" | "datetime" | "strftime" | "version" | "concat" | "concat_ws" | "char"
        | "rota_transaction" | "left" | "right" | "lpad" | "rpad" | "split_part" | "repeat"
        | "reverse" | "initcap" | "md5" | "chr" | "translate" | "overlay" | "to_hex"
        | "quote_ident" | "quote_literal" | "quote_nullable" | "regexp_replace" | "to_char"
        | "json_typeof" | "jsonb_typeof" | "current_setting" => oid::TEXT,
        "current_database" | "current_schema" | "current_user" | "session_user"
        | "pg_get_userbyid" => oid::NAME,
        "now" | "to_timestamp" | "rota_timestamptz" => oid::TIMESTAMPTZ,
        "make_timestamp" | "rota_timestamp" | "timezone" => oid::TIMESTAMP,
        "date" | "to_date" | "make_date" | "rota_date" => oid::DATE,
        "time" | "rota_time" => oid::TIME,
        "gen_random_uuid" | "uuid_generate_v4" | "rota_uuid" => oid::UUID,
        "json" | "json_object" | "json_array" | "json_build_object" | "json_build_array"
        | "json_agg" | "json_object_agg" | "json_group_object" | "to_json" | "json_set"
        | "json_insert" | "json_replace" | "json_remove" | "json_patch" => oid::JSON,
        "jsonb_build_object" | "jsonb_build_array" | "jsonb_agg" | "jsonb_object_agg"
        | "to_jsonb" => oid::JSONB,
        "bool_and" | "bool_or" | "every" | "starts_with" | "json_valid" | "regexp"
        | "regexp_like" | "rota_boolean" | "pg_is_in_recovery" | "pg_has_role" => oid::BOOL,
        "randomblob" | "zeroblob" | "unhex" => oid::BYTEA,
        "regexp_match" => TEXT_ARRAY,
        _ if name.ends_with("_privilege") || name.ends_with("_is_visible") => oid::BOOL,
        "rota_text_array" => TEXT_ARRAY,
        "rota_int_array" => 1007,
        "rota_bool_array" => 1000,
        "rota_oid_array" => 1028,
        _ => return None,
    })
}

const TEXT_ARRAY: Oid = 1009;

/// Numbers from the narrowest to the widest: what two of them give is the wider one.
const NUMBERS: [Oid; 6] = [oid::INT2, oid::INT4, oid::INT8, oid::NUMERIC, oid::FLOAT4, oid::FLOAT8];

pub(super) fn is_number(oid: Oid) -> bool {
    NUMBERS.contains(&oid)
}

/// What an operator gives of two numbers.
pub(super) fn promoted(one: Guess, other: Guess) -> Guess {
    let (Guess::Known(a), Guess::Known(b)) = (one, other) else {
        let asks = one == Guess::Asks || other == Guess::Asks;
        return if asks { Guess::Asks } else { Guess::Number };
    };
    let rank = |kind: Type| NUMBERS.iter().position(|number| *number == kind.oid);
    match (rank(a), rank(b)) {
        // A numeric keeps its decimals where both have as many.
        (Some(one), Some(other)) if one == other && a.modifier != b.modifier => known(a.oid),
        (Some(one), Some(other)) => Guess::Known(if one >= other { a } else { b }),
        _ => Guess::Number,
    }
}

/// sum: of int2 and int4 int8, of int8 numeric, of anything else the same.
pub(super) fn sum(argument: Guess) -> Guess {
    match argument {
        Guess::Known(kind) => match kind.oid {
            oid::INT2 | oid::INT4 => known(oid::INT8),
            oid::INT8 => known(oid::NUMERIC),
            oid::NUMERIC | oid::FLOAT4 | oid::FLOAT8 => argument,
            _ => Guess::Number,
        },
        Guess::Asks => Guess::Asks,
        Guess::Number | Guess::Open => Guess::Number,
    }
}

/// avg: numeric, but of floats a float8.
pub(super) fn average(argument: Guess) -> Guess {
    match argument {
        Guess::Known(kind) if matches!(kind.oid, oid::FLOAT4 | oid::FLOAT8) => known(oid::FLOAT8),
        Guess::Known(kind) if is_number(kind.oid) => known(oid::NUMERIC),
        Guess::Asks => Guess::Asks,
        _ => Guess::Number,
    }
}

/// round and its like: a numeric stays one, integers and floats are float8.
pub(super) fn rounded(argument: Guess) -> Guess {
    match argument {
        Guess::Known(kind) if kind.oid == oid::NUMERIC => known(oid::NUMERIC),
        Guess::Known(kind) if is_number(kind.oid) => known(oid::FLOAT8),
        Guess::Asks => Guess::Asks,
        _ => Guess::Number,
    }
}

/// date_trunc and date_add: timestamps keep their type, what may be a date becomes a timestamp.
pub(super) fn moment(argument: Guess) -> Guess {
    match argument {
        Guess::Known(kind) if matches!(kind.oid, oid::TIMESTAMP | oid::TIMESTAMPTZ) => argument,
        Guess::Asks => Guess::Asks,
        _ => known(oid::TIMESTAMP),
    }
}
