//! The functions of PostgreSQL's catalog, for reads (step 1): what tools call beside the tables.
//! Those that need no tables are registered once, those that look something up in the users' schema
//! each time that it has changed.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result};

use super::fill::qualified;
use super::model::{Model, quoted};
use super::roles::Roles;
use super::{privileges, types};
use crate::access::Caller;

pub(super) const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8
    .union(FunctionFlags::SQLITE_DETERMINISTIC)
    .union(FunctionFlags::SQLITE_INNOCUOUS);

/// Any number of arguments: PostgreSQL has several functions of most names.
pub(super) const ANY: i32 = -1;

/// What is so of all that there is.
const TRUE: [&str; 13] = [
    "pg_table_is_visible",
    "pg_type_is_visible",
    "pg_function_is_visible",
    "pg_operator_is_visible",
    "pg_opclass_is_visible",
    "pg_opfamily_is_visible",
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
];

/// What there is none of.
const FALSE: [&str; 6] = [
    "pg_is_in_recovery",
    "pg_is_other_temp_schema",
    "pg_my_temp_schema",
    "pg_relation_is_publishable",
    "pg_is_wal_replay_paused",
    "pg_relation_is_updatable",
];

/// What nobody knows here: comments, triggers' words, functions' words.
const NOTHING: [&str; 23] = [
    "obj_description",
    "col_description",
    "shobj_description",
    "pg_get_functiondef",
    "pg_get_function_result",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_sqlbody",
    "pg_get_ruledef",
    "pg_get_partkeydef",
    "pg_get_partition_constraintdef",
    "pg_get_statisticsobjdef",
    "pg_get_statisticsobjdef_columns",
    "pg_tablespace_location",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_sequence_last_value",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "pg_get_object_address",
];

/// Sizes: what is on disk is not counted table by table.
const ZERO: [&str; 9] = [
    "pg_relation_size",
    "pg_total_relation_size",
    "pg_table_size",
    "pg_indexes_size",
    "pg_database_size",
    "pg_tablespace_size",
    "pg_stat_get_numscans",
    "pg_stat_get_live_tuples",
    "pg_backend_memory",
];

pub(super) fn register(connection: &Connection) -> Result<()> {
    for (names, value) in [
        (&TRUE[..], Value::Integer(1)),
        (&FALSE[..], Value::Integer(0)),
        (&NOTHING[..], Value::Null),
        (&ZERO[..], Value::Integer(0)),
        (&["pg_encoding_to_char", "getdatabaseencoding"][..], Value::Text("UTF8".into())),
        (&["pg_char_to_encoding"][..], Value::Integer(UTF8)),
        (&["pg_client_encoding"][..], Value::Text("UTF8".into())),
    ] {
        for name in names {
            let value = value.clone();
            connection.create_scalar_function(*name, ANY, FLAGS, move |_| Ok(value.clone()))?;
        }
    }
    connection.create_scalar_function("format_type", ANY, FLAGS, |call| {
        let modifier = if call.len() > 1 { integer(call, 1) } else { None };
        let told = integer(call, 0).map(|oid| types::format_type(oid, modifier));
        Ok(told.map(|told| told.unwrap_or_else(|| "???".into())))
    })?;
    // They say only what is in the array that they get, for whoever describes the answer.
    for name in ["rota_text_array", "rota_oid_array", "rota_int_array", "rota_bool_array"] {
        connection.create_scalar_function(name, 1, FLAGS, first)?;
    }
    // What is stored is not a tree but its words.
    connection.create_scalar_function("pg_get_expr", ANY, FLAGS, first)?;
    // A table has no partitions: it is its only ancestor.
    connection.create_scalar_function("pg_partition_ancestors", 1, FLAGS, first)?;
    connection.create_scalar_function("pg_size_pretty", 1, FLAGS, |call| {
        Ok(integer(call, 0).map(size_in_words))
    })?;
    connection.create_scalar_function("current_schemas", 1, FLAGS, |call| {
        let implicit = integer(call, 0).is_some_and(|implicit| implicit != 0);
        Ok(if implicit { r#"["pg_catalog","public"]"# } else { r#"["public"]"# })
    })?;
    for arguments in [1, 2] {
        connection.create_scalar_function("current_setting", arguments, FLAGS, setting)?;
    }
    connection.create_scalar_function("set_config", 3, FLAGS, |call| {
        let name = text(call, 0).unwrap_or_default();
        // asyncpg switches it off and on again around its questions.
        if name == "jit" {
            return Ok(text(call, 1));
        }
        let message = "set_config() is understood as the only thing that is selected";
        Err(rusqlite::Error::UserFunctionError(message.into()))
    })?;
    let started = crate::determinism::timestamp(unix_ms());
    connection.create_scalar_function("pg_postmaster_start_time", 0, FLAGS, move |_| {
        Ok(started.clone())
    })?;
    connection.create_scalar_function("to_regtype", 1, FLAGS, |call| {
        Ok(match (number(call, 0), text(call, 0)) {
            (Some(oid), _) => types::format_type(oid, None).map(Value::Text),
            (None, Some(name)) => types::named(&name).map(|found| Value::Integer(found.oid)),
            _ => None,
        })
    })?;
    connection.create_scalar_function("to_regnamespace", 1, FLAGS, |call| {
        Ok(other_name(call, &NAMESPACES))
    })?;
    for name in ["to_regproc", "to_regprocedure", "to_regoper", "to_regoperator"] {
        connection.create_scalar_function(name, 1, FLAGS, first)?;
    }
    Ok(())
}

/// PostgreSQL's number of its encoding UTF8.
const UTF8: i64 = 6;

const NAMESPACES: [(i64, &str); 4] =
    [(11, "pg_catalog"), (99, "pg_toast"), (2_200, "public"), (13_207, "information_schema")];

/// What `current_setting` tells beside what sessions set; theirs they tell by SHOW.
const SETTINGS: [(&str, &str); 13] = [
    ("block_size", "4096"),
    ("client_encoding", "UTF8"),
    ("default_table_access_method", "heap"),
    ("integer_datetimes", "on"),
    ("jit", "off"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", "16.0"),
    ("server_version_num", "160000"),
    ("standard_conforming_strings", "on"),
    ("timezone", "UTC"),
];

fn setting(call: &Context<'_>) -> Result<Option<&'static str>> {
    let Some(name) = text(call, 0) else { return Ok(None) };
    let found = SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
    let may_lack = call.len() > 1 && integer(call, 1) == Some(1);
    match found {
        Some((_, value)) => Ok(Some(value)),
        None if may_lack => Ok(None),
        None => {
            let message = format!("unrecognized configuration parameter \"{name}\"");
            Err(rusqlite::Error::UserFunctionError(message.into()))
        }
    }
}

/// What the functions know of the users' schema.
#[derive(Default)]
pub(super) struct Names {
    /// Of relations and indexes, as they are written.
    oids: HashMap<String, i64>,
    names: HashMap<i64, String>,
    definitions: HashMap<i64, String>,
    /// Of an index's columns, in order.
    items: HashMap<i64, Vec<String>>,
    /// By table and column.
    sequences: HashMap<(i64, String), String>,
}

/// The schema that the functions know.
pub(super) fn told(connection: &Connection) -> Option<String> {
    connection.query_row("SELECT rota_catalog_told()", [], |row| row.get(0)).ok()
}

/// Lets the functions know the users' schema.
pub(super) fn tell(
    connection: &Connection,
    caller: &Caller,
    model: &Model,
    roles: Roles,
    fingerprint: &str,
) -> Result<()> {
    let names = Arc::new(names(connection, model)?);
    privileges::tell(connection, caller, &names, roles)?;
    let fingerprint = fingerprint.to_owned();
    connection
        .create_scalar_function("rota_catalog_told", 0, FLAGS, move |_| Ok(fingerprint.clone()))?;
    let known = Arc::clone(&names);
    connection.create_scalar_function("to_regclass", 1, FLAGS, move |call| {
        Ok(match (number(call, 0), text(call, 0)) {
            (Some(oid), _) => known.names.get(&oid).map(|name| Value::Text(quoted(name))),
            (None, Some(name)) => known.find(&name).map(Value::Integer),
            _ => None,
        })
    })?;
    for name in ["pg_get_constraintdef", "pg_get_viewdef", "pg_get_triggerdef"] {
        let known = Arc::clone(&names);
        connection.create_scalar_function(name, ANY, FLAGS, move |call| {
            let oid = integer(call, 0).or_else(|| known.find(&text(call, 0)?));
            Ok(oid.and_then(|oid| known.definitions.get(&oid).cloned()))
        })?;
    }
    let known = Arc::clone(&names);
    connection.create_scalar_function("pg_get_indexdef", ANY, FLAGS, move |call| {
        let Some(oid) = integer(call, 0) else { return Ok(None) };
        let column = if call.len() > 1 { integer(call, 1).unwrap_or_default() } else { 0 };
        Ok(match usize::try_from(column).unwrap_or_default().checked_sub(1) {
            // To be read by people, PostgreSQL leaves out the schema.
            None if call.len() > 2 && integer(call, 2) == Some(1) => {
                let words = known.definitions.get(&oid);
                words.map(|words| words.replacen(" ON public.", " ON ", 1))
            }
            None => known.definitions.get(&oid).cloned(),
            Some(place) => known.items.get(&oid).and_then(|items| items.get(place)).cloned(),
        })
    })?;
    connection.create_scalar_function("pg_get_serial_sequence", 2, FLAGS, move |call| {
        let (Some(table), Some(column)) = (text(call, 0), text(call, 1)) else { return Ok(None) };
        let table = names.find(&table);
        Ok(table.and_then(|table| names.sequences.get(&(table, column)).cloned()))
    })
}

fn names(connection: &Connection, model: &Model) -> Result<Names> {
    let mut names = Names::default();
    let mut statement =
        connection.prepare("SELECT oid, relname FROM pg_catalog.pg_class ORDER BY oid DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (oid, name): (i64, String) = (row.get(0)?, row.get(1)?);
        names.oids.insert(name.clone(), oid);
        names.names.insert(oid, name);
    }
    for index in &model.indexes {
        names.definitions.insert(index.oid, index.definition.clone());
        names.items.insert(index.oid, index.items.clone());
    }
    for trigger in &model.triggers {
        names.definitions.insert(trigger.oid, trigger.definition.clone());
    }
    for constraint in &model.constraints {
        names.definitions.insert(constraint.oid, constraint.definition.clone());
    }
    for relation in &model.relations {
        if let Some(definition) = &relation.definition {
            names.definitions.insert(relation.oid, definition.clone());
        }
    }
    for sequence in &model.sequences {
        let table = model.relations.iter().find(|relation| relation.oid == sequence.table);
        let column = table.and_then(|table| table.columns.get(sequence.column.checked_sub(1)?));
        if let Some(column) = column {
            let key = (sequence.table, column.name.clone());
            names.sequences.insert(key, qualified(&sequence.name));
        }
    }
    Ok(names)
}

impl Names {
    /// The name of a number, with that.
    pub(super) fn name(&self, oid: i64) -> Option<(i64, &str)> {
        self.names.get(&oid).map(|name| (oid, name.as_str()))
    }

    /// The number of a relation's name as SQL writes it, perhaps with its schema; SQLite does not
    /// tell small letters from capitals, so neither does this where nothing else fits.
    pub(super) fn find(&self, written: &str) -> Option<i64> {
        let name = last_part(written.trim());
        let same = |found: &&String| found.eq_ignore_ascii_case(&name);
        self.oids
            .get(&name)
            .or_else(|| self.oids.get(self.oids.keys().find(same)?))
            .copied()
            .or_else(|| written.trim().parse().ok())
    }
}

/// `t` of `public."t"`.
fn last_part(written: &str) -> String {
    match written.strip_suffix('"') {
        Some(inner) => {
            let start = inner.rfind('"').map_or(0, |place| place + 1);
            inner.get(start..).unwrap_or_default().to_owned()
        }
        None => {
            let name = written.rsplit('.').next().unwrap_or_default();
            name.to_ascii_lowercase()
        }
    }
}

fn first(call: &Context<'_>) -> Result<Value> {
    if call.is_empty() { Ok(Value::Null) } else { call.get(0) }
}

/// The number of a name, or the name of a number.
fn other_name(call: &Context<'_>, known: &[(i64, &str)]) -> Option<Value> {
    let (oid, name) = (number(call, 0), text(call, 0));
    known.iter().find_map(|(found, called)| match (oid, &name) {
        (Some(oid), _) if oid == *found => Some(Value::Text((*called).into())),
        (None, Some(name)) if last_part(name) == *called => Some(Value::Integer(*found)),
        _ => None,
    })
}

/// An integer, also one in a string: psql writes `'16384'`.
pub(super) fn integer(call: &Context<'_>, place: usize) -> Option<i64> {
    number(call, place).or_else(|| text(call, place)?.trim().parse().ok())
}

/// An integer that is one.
pub(super) fn number(call: &Context<'_>, place: usize) -> Option<i64> {
    match argument(call, place)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    }
}

pub(super) fn text(call: &Context<'_>, place: usize) -> Option<String> {
    match argument(call, place)? {
        ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

fn argument<'a>(call: &'a Context<'_>, place: usize) -> Option<ValueRef<'a>> {
    (place < call.len()).then(|| call.get_raw(place))
}

/// As PostgreSQL says it: `8192 bytes`, `16 kB`.
fn size_in_words(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        // It changes to the next unit at ten thousand and some.
        if size.unsigned_abs() < 10 * 1_024 {
            return format!("{size} {unit}");
        }
        size = size.saturating_add(512) / 1_024;
    }
    format!("{size} TB")
}

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
