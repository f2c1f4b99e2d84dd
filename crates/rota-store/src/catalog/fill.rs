//! Rows of the catalog's tables for what users made: the model, written down. Step 1.

use std::collections::HashMap;

use rusqlite::{Connection, ToSql, params};

use super::model::{Column, Constraint, Index, Model, Relation, quoted};
use super::roles::{self, Acl, FIRST_ADMINISTRATOR, Roles};

/// The number of the schema `public`.
const PUBLIC: i64 = 2_200;

/// The catalog's own numbers of `pg_class`, `pg_constraint` and `pg_attrdef`.
const CLASS: i64 = 1_259;
const CONSTRAINT: i64 = 2_606;
const DEFAULT: i64 = 2_604;

/// The operator class that is told of every index's columns.
const INT4_OPS: i64 = 1_978;

/// Takes away what users and their schema put in.
const CLEAR: &str = "
DELETE FROM pg_catalog.pg_class WHERE relnamespace = 2200;
DELETE FROM pg_catalog.pg_type WHERE typnamespace = 2200;
DELETE FROM pg_catalog.pg_attribute;
DELETE FROM pg_catalog.pg_attrdef;
DELETE FROM pg_catalog.pg_index;
DELETE FROM pg_catalog.pg_constraint;
DELETE FROM pg_catalog.pg_depend;
DELETE FROM pg_catalog.pg_sequence;
DELETE FROM pg_catalog.pg_trigger;
DELETE FROM pg_catalog.rota_definition;
DELETE FROM pg_catalog.rota_key;
DELETE FROM pg_catalog.rota_index_key;
DELETE FROM pg_catalog.rota_acl;
DELETE FROM pg_catalog.pg_authid;
DELETE FROM pg_catalog.pg_auth_members;
DELETE FROM information_schema.rota_privilege;
DELETE FROM information_schema.rota_membership;
";

/// Replaces what users and their schema put in.
pub(super) fn fill(connection: &Connection, model: &Model, roles: &Roles) -> rusqlite::Result<()> {
    connection.execute_batch(CLEAR)?;
    roles::fill(connection, roles)?;
    let acls: HashMap<i64, Acl> =
        model.relations.iter().map(|found| (found.oid, roles.acl(&found.name))).collect();
    let owner = |table: i64| acls.get(&table).map_or(FIRST_ADMINISTRATOR, |acl| acl.owner);
    for relation in &model.relations {
        put_relation(connection, model, relation, roles, &acls)?;
    }
    for index in &model.indexes {
        put_index(connection, model, index, owner(index.table))?;
    }
    for constraint in &model.constraints {
        put_constraint(connection, constraint)?;
    }
    for trigger in &model.triggers {
        define(connection, trigger.oid, &trigger.definition)?;
        run(
            connection,
            "INSERT INTO pg_catalog.pg_trigger (oid, tgrelid, tgparentid, tgname, tgfoid, tgtype, \
             tgenabled, tgisinternal, tgconstrrelid, tgconstrindid, tgconstraint, tgdeferrable, \
             tginitdeferred, tgnargs) VALUES (?1, ?2, 0, ?3, 0, 0, 'O', 0, 0, 0, 0, 0, 0, 0)",
            params![trigger.oid, trigger.table, trigger.name],
        )?;
    }
    for sequence in &model.sequences {
        let class = Class::new(sequence.oid, &sequence.name, owner(sequence.table));
        put_class(connection, &Class { kind: "S", ..class })?;
        run(
            connection,
            "INSERT INTO pg_catalog.pg_sequence \
             VALUES (?1, 20, 1, 1, 9223372036854775807, 1, 1, 0)",
            params![sequence.oid],
        )?;
        let column = (sequence.table, whole(sequence.column));
        depend(connection, (CLASS, sequence.oid), column, "a")?;
    }
    Ok(())
}

pub(super) fn run(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(values).map(drop)
}

/// A row of `pg_class`.
struct Class<'a> {
    oid: i64,
    name: &'a str,
    owner: i64,
    acl: Option<String>,
    kind: &'a str,
    row_type: i64,
    access: i64,
    columns: usize,
    checks: usize,
    has_index: bool,
    has_triggers: bool,
}

impl<'a> Class<'a> {
    fn new(oid: i64, name: &'a str, owner: i64) -> Self {
        Self {
            oid,
            name,
            owner,
            acl: None,
            kind: "r",
            row_type: 0,
            access: 0,
            columns: 0,
            checks: 0,
            has_index: false,
            has_triggers: false,
        }
    }
}

fn put_class(connection: &Connection, class: &Class<'_>) -> rusqlite::Result<()> {
    run(
        connection,
        "INSERT INTO pg_catalog.pg_class (oid, relname, relnamespace, reltype, reloftype, \
         relowner, relam, relfilenode, reltablespace, relpages, reltuples, relallvisible, \
         reltoastrelid, relhasindex, relisshared, relpersistence, relkind, relnatts, relchecks, \
         relhasrules, relhastriggers, relhassubclass, relrowsecurity, relforcerowsecurity, \
         relispopulated, relreplident, relispartition, relrewrite, relfrozenxid, relminmxid, \
         relacl) \
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?1, 0, 0, iif(?8 = 'r', -1, 0), 0, 0, ?7, 0, 'p', ?8, \
         ?9, ?10, ?11, ?12, 0, 0, 0, 1, ?13, 0, 0, 0, 0, ?14)",
        params![
            class.oid,
            class.name,
            PUBLIC,
            class.row_type,
            class.owner,
            class.access,
            class.has_index,
            class.kind,
            whole(class.columns),
            whole(class.checks),
            class.kind == "v",
            class.has_triggers,
            if class.kind == "r" { "d" } else { "n" },
            class.acl,
        ],
    )
}

fn put_relation(
    connection: &Connection,
    model: &Model,
    relation: &Relation,
    roles: &Roles,
    acls: &HashMap<i64, Acl>,
) -> rusqlite::Result<()> {
    let acl = acls.get(&relation.oid);
    let owner = acl.map_or(FIRST_ADMINISTRATOR, |acl| acl.owner);
    if let Some(acl) = acl {
        roles::fill_acl(connection, roles, (relation.oid, &relation.name), acl)?;
    }
    let checks = model.constraints.iter();
    let checks = checks.filter(|found| found.table == relation.oid && found.kind == "c").count();
    let class = Class {
        oid: relation.oid,
        name: &relation.name,
        owner,
        acl: acl.and_then(|acl| roles.acl_text(acl)),
        kind: if relation.is_view { "v" } else { "r" },
        row_type: relation.row_type,
        access: if relation.is_view { 0 } else { 2 },
        columns: relation.columns.len(),
        checks,
        has_index: model.indexes.iter().any(|index| index.table == relation.oid),
        has_triggers: relation.has_triggers,
    };
    put_class(connection, &class)?;
    run(
        connection,
        "INSERT INTO pg_catalog.pg_type (oid, typname, typnamespace, typowner, typlen, typbyval, \
         typtype, typcategory, typispreferred, typisdefined, typdelim, typrelid, typsubscript, \
         typelem, typarray, typinput, typoutput, typreceive, typsend, typmodin, typmodout, \
         typanalyze, typalign, typstorage, typnotnull, typbasetype, typtypmod, typndims, \
         typcollation) VALUES (?1, ?2, ?3, ?4, -1, 0, 'c', 'C', 0, 1, ',', ?5, '-', 0, 0, \
         'record_in', 'record_out', 'record_recv', 'record_send', '-', '-', '-', 'd', 'x', 0, 0, \
         -1, 0, 0)",
        params![relation.row_type, relation.name, PUBLIC, owner, relation.oid],
    )?;
    if let Some(definition) = &relation.definition {
        define(connection, relation.oid, definition)?;
    }
    for (place, column) in relation.columns.iter().enumerate() {
        put_column(connection, relation.oid, place + 1, column)?;
    }
    Ok(())
}

fn put_column(
    connection: &Connection,
    relation: i64,
    number: usize,
    column: &Column,
) -> rusqlite::Result<()> {
    let has_default = column.default.is_some() || column.generated;
    attribute(
        connection,
        params![
            relation,
            column.name,
            column.declared.oid,
            whole(number),
            column.declared.dimensions,
            column.declared.modifier,
            column.not_null,
            has_default,
            if column.generated { "s" } else { "" },
        ],
    )?;
    let Some((oid, words)) = &column.default else { return Ok(()) };
    run(
        connection,
        "INSERT INTO pg_catalog.pg_attrdef (oid, adrelid, adnum, adbin) VALUES (?1, ?2, ?3, ?4)",
        params![oid, relation, whole(number), words],
    )?;
    depend(connection, (DEFAULT, *oid), (relation, whole(number)), "a")
}

/// What is not given follows from the type.
fn attribute(connection: &Connection, values: &[&dyn ToSql]) -> rusqlite::Result<()> {
    run(
        connection,
        "INSERT INTO pg_catalog.pg_attribute (attrelid, attname, atttypid, attstattarget, attlen, \
         attnum, attndims, attcacheoff, atttypmod, attbyval, attalign, attstorage, \
         attcompression, attnotnull, atthasdef, atthasmissing, attidentity, attgenerated, \
         attisdropped, attislocal, attinhcount, attcollation) \
         SELECT ?1, ?2, ?3, -1, t.typlen, ?4, ?5, -1, ?6, t.typbyval, t.typalign, t.typstorage, \
         '', ?7, ?8, 0, '', ?9, 0, 1, 0, t.typcollation FROM pg_catalog.pg_type AS t \
         WHERE t.oid = ?3",
        values,
    )
}

fn put_index(
    connection: &Connection,
    model: &Model,
    index: &Index,
    owner: i64,
) -> rusqlite::Result<()> {
    let count = index.columns.len();
    let class = Class::new(index.oid, &index.name, owner);
    put_class(connection, &Class { kind: "i", access: 403, columns: count, ..class })?;
    define(connection, index.oid, &index.definition)?;
    let options: Vec<i64> = index.descending.iter().map(|&desc| if desc { 3 } else { 0 }).collect();
    let expressions: Vec<&str> = index
        .columns
        .iter()
        .zip(&index.items)
        .filter(|(column, _)| **column == 0)
        .map(|(_, item)| item.as_str())
        .collect();
    run(
        connection,
        "INSERT INTO pg_catalog.pg_index (indexrelid, indrelid, indnatts, indnkeyatts, \
         indisunique, indnullsnotdistinct, indisprimary, indisexclusion, indimmediate, \
         indisclustered, indisvalid, indcheckxmin, indisready, indislive, indisreplident, indkey, \
         indcollation, indclass, indoption, indexprs, indpred) VALUES (?1, ?2, ?3, ?3, ?4, 0, ?5, \
         0, 1, 0, 1, 0, 1, 1, 0, ?6, ?7, ?8, ?9, ?10, ?11)",
        params![
            index.oid,
            index.table,
            whole(count),
            index.unique,
            index.primary,
            array(&index.columns),
            array(&vec![0; count]),
            array(&vec![INT4_OPS; count]),
            array(&options),
            (!expressions.is_empty()).then(|| expressions.join(", ")),
            index.predicate,
        ],
    )?;
    let relation = model.relations.iter().find(|relation| relation.oid == index.table);
    for (place, (item, column)) in index.items.iter().zip(&index.columns).enumerate() {
        run(
            connection,
            "INSERT INTO pg_catalog.rota_index_key VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6)",
            params![
                index.oid,
                whole(place + 1),
                whole(*column),
                options.get(place),
                INT4_OPS,
                item
            ],
        )?;
        let of = relation.and_then(|relation| relation.columns.get(column.checked_sub(1)?));
        let name = of.map_or("expr", |column| column.name.as_str());
        let (oid, modifier) =
            of.map_or((25, -1), |column| (column.declared.oid, column.declared.modifier));
        let nth = whole(place + 1);
        let values = params![index.oid, name, oid, nth, 0, modifier, false, false, ""];
        attribute(connection, values)?;
    }
    Ok(())
}

fn put_constraint(connection: &Connection, constraint: &Constraint) -> rusqlite::Result<()> {
    define(connection, constraint.oid, &constraint.definition)?;
    let to = constraint.refers_to.as_ref();
    let to_columns = to.map(|(_, columns)| columns.as_slice()).unwrap_or_default();
    run(
        connection,
        "INSERT INTO pg_catalog.pg_constraint (oid, conname, connamespace, contype, \
         condeferrable, condeferred, convalidated, conrelid, contypid, conindid, conparentid, \
         confrelid, confupdtype, confdeltype, confmatchtype, conislocal, coninhcount, \
         connoinherit, conkey, confkey, conbin) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, 0, ?8, 0, \
         ?9, ?10, ?11, ?12, 1, 0, ?13, ?14, ?15, ?16)",
        params![
            constraint.oid,
            constraint.name,
            PUBLIC,
            constraint.kind,
            constraint.deferrable,
            constraint.deferred,
            constraint.table,
            constraint.index,
            to.map_or(0, |(table, _)| *table),
            constraint.on_update,
            constraint.on_delete,
            if constraint.kind == "f" { "s" } else { " " },
            constraint.kind != "c",
            array(&constraint.columns),
            to.map(|_| array(to_columns)),
            constraint.expression,
        ],
    )?;
    for (place, column) in constraint.columns.iter().enumerate() {
        let to = to_columns.get(place).copied().map(whole);
        run(
            connection,
            "INSERT INTO pg_catalog.rota_key VALUES (?1, ?2, ?3, ?4)",
            params![constraint.oid, whole(place + 1), whole(*column), to],
        )?;
    }
    depend(connection, (CONSTRAINT, constraint.oid), (constraint.table, 0), "a")
}

/// Counts are small.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// As arrays are stored: JSON.
fn array<T: ToString>(numbers: &[T]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}

fn define(connection: &Connection, oid: i64, definition: &str) -> rusqlite::Result<()> {
    run(
        connection,
        "INSERT OR REPLACE INTO pg_catalog.rota_definition VALUES (?1, ?2)",
        params![oid, definition],
    )
}

/// `object` goes when the column of the relation goes.
fn depend(
    connection: &Connection,
    (class, object): (i64, i64),
    (relation, column): (i64, i64),
    kind: &str,
) -> rusqlite::Result<()> {
    run(
        connection,
        "INSERT INTO pg_catalog.pg_depend (classid, objid, objsubid, refclassid, refobjid, \
         refobjsubid, deptype) VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6)",
        params![class, object, CLASS, relation, column, kind],
    )
}

/// A sequence's name as `pg_get_serial_sequence` tells it.
pub(super) fn qualified(name: &str) -> String {
    format!("public.{}", quoted(name))
}
