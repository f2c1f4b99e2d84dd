//! What a client's statement may touch: an allow-list for SQLite's authorizer, which is asked about
//! every table, column and function while a statement is prepared. What is not listed is refused.

use rota_core::error::{Refusal, sqlstate};
use rusqlite::hooks::{AuthAction, AuthContext};

use crate::catalog;
use crate::functions;

/// System tables start with this.
pub const SYSTEM_PREFIX: &str = "rota_";

/// System tables that are not part of the state root, and so not for clients' writes to depend on.
const PRIVATE_TABLES: [&str; 6] =
    ["rota_meta", "rota_roots", "rota_tables", "rota_buckets", "rota_hashes", "rota_recent"];

/// System tables that are for everybody.
const OPEN_TABLES: [&str; 2] = ["rota_sequences", "rota_accounts"];

/// Tables of SQLite's that are there without being made: of pages and plans, and of modules.
pub(crate) const RAW_TABLES: [&str; 7] = [
    "sqlite_dbpage",
    "dbstat",
    "bytecode",
    "tables_used",
    "sqlite_stmt",
    "fts3tokenize",
    "fts4aux",
];

/// SQLite's functions whose results depend on their arguments and the database only, or that
/// `determinism` has replaced. PostgreSQL's are in `functions`.
const FUNCTIONS: [&str; 124] = [
    "->",
    "->>",
    "abs",
    "avg",
    "changes",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "current_user",
    "date",
    "datetime",
    "dense_rank",
    "first_value",
    "format",
    "glob",
    "group_concat",
    "hex",
    "if",
    "ifnull",
    "iif",
    "instr",
    "json",
    "json_array",
    "json_array_insert",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_array",
    "jsonb_array_insert",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_patch",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_set",
    "julianday",
    "lag",
    "last_insert_rowid",
    "last_value",
    "lead",
    "length",
    "like",
    "likelihood",
    "likely",
    "lower",
    "ltrim",
    "max",
    "min",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "octet_length",
    "percent_rank",
    "printf",
    "quote",
    "random",
    "randomblob",
    "rank",
    "replace",
    "rota_nextval",
    "rota_reserve",
    "rota_setval",
    "rota_transfer",
    "round",
    "session_user",
    "row_number",
    "rtrim",
    "sign",
    "soundex",
    "strftime",
    "string_agg",
    "substr",
    "substring",
    "subtype",
    "sum",
    "time",
    "timediff",
    "total",
    "trim",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unistr_quote",
    "unixepoch",
    "unlikely",
    "upper",
    "zeroblob",
    // What ALTER TABLE asks for itself. They are no functions that SQL can name.
    "sqlite_rename_column",
    "sqlite_rename_table",
    "sqlite_rename_test",
    "sqlite_drop_column",
    "sqlite_rename_quotefix",
    "sqlite_add_constraint",
    "sqlite_drop_constraint",
    "sqlite_find_constraint",
    "sqlite_fail",
    "json_each",
    "json_tree",
    "jsonb_each",
    "jsonb_tree",
];

/// Whether clients may call it.
pub fn is_allowed_function(name: &str) -> bool {
    let mut allowed = FUNCTIONS.iter().chain(&functions::NAMES);
    allowed.any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Functions that load code, write to the server's log, or are an extension's: with a parameter,
/// `fts3_tokenizer` gives an address of this process and takes one that is called.
pub(crate) fn is_of_a_module(function: &str) -> bool {
    let modules = ["load_extension", "sqlite_log", "fts3", "fts5", "rtree"];
    modules.into_iter().any(|prefix| starts_with(function, prefix))
}

/// Why a function is refused.
pub fn refused_function(name: &str) -> Refusal {
    unsupported(format!("function {name}() is not available: copies might differ"))
}

fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_schema_table(name: &str) -> bool {
    let names = ["sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"];
    names.iter().any(|table| table.eq_ignore_ascii_case(name))
}

/// Whether a name is the system's.
pub fn is_system(name: &str) -> bool {
    starts_with(name, SYSTEM_PREFIX)
}

/// Whether it is for administrators only.
pub(crate) fn is_closed(table: &str) -> bool {
    is_system(table) && !OPEN_TABLES.iter().any(|open| open.eq_ignore_ascii_case(table))
}

fn writable(table: &str, schema_change: bool) -> Result<(), Refusal> {
    // A CREATE, DROP or ALTER writes SQLite's own tables by itself.
    let by_itself =
        schema_change && (is_schema_table(table) || table.eq_ignore_ascii_case("sqlite_sequence"));
    if by_itself || !(is_system(table) || starts_with(table, "sqlite_")) {
        return Ok(());
    }
    Err(Refusal::new(
        sqlstate::INSUFFICIENT_PRIVILEGE,
        format!("{table} is a system table; it cannot be changed by SQL"),
    ))
}

fn readable(table: &str, column: &str, schema_change: bool) -> Result<(), Refusal> {
    if is_schema_table(table) {
        // The authorizer is not told what an internal statement reads for.
        let local = starts_with(table, "sqlite_temp") || column.eq_ignore_ascii_case("rootpage");
        return if schema_change || !local {
            Ok(())
        } else {
            Err(unsupported(format!("{table}.{column} says what is so on one server only")))
        };
    }
    let mut hidden = RAW_TABLES.iter().chain(&PRIVATE_TABLES);
    let refused = hidden.any(|name| name.eq_ignore_ascii_case(table))
        || starts_with(table, "pragma_")
        || starts_with(table, "sqlite_stat");
    if refused {
        return Err(unsupported(format!("{table} cannot be read in a write: copies might differ")));
    }
    Ok(())
}

/// Whether a client's statement may do this. `schema_change`: it is a CREATE, DROP or ALTER.
pub fn authorize(asked: &AuthContext<'_>, schema_change: bool) -> Result<(), Refusal> {
    use AuthAction as A;
    if asked.database_name.is_some_and(|name| name.eq_ignore_ascii_case("temp")) {
        let harmless = match asked.action {
            A::Read { .. } | A::Select | A::Function { .. } => true,
            // ALTER TABLE looks for what to rename in the temporary schema too, and finds nothing.
            A::Update { table_name, .. } => schema_change && is_schema_table(table_name),
            _ => false,
        };
        if !harmless {
            return Err(unsupported(
                "temporary tables, views and triggers exist on one server only",
            ));
        }
    }
    if asked.database_name.is_some_and(catalog::is_schema) {
        return Err(unsupported(
            "the catalog cannot be read in a write, nor together with users' tables in a \
             transaction, whose reads are checked at COMMIT: ask it in a statement of its own",
        ));
    }
    match asked.action {
        A::Select | A::Recursive => Ok(()),
        A::Read { table_name, .. } if asked.accessor.is_some() && is_closed(table_name) => {
            // Or whoever makes a trigger would have an administrator read it for them.
            Err(Refusal::new(
                sqlstate::INSUFFICIENT_PRIVILEGE,
                format!("{table_name} cannot be read by way of a view, trigger or WITH in a write"),
            ))
        }
        A::Read { table_name, column_name } => readable(table_name, column_name, schema_change),
        A::Insert { table_name } | A::Delete { table_name } => writable(table_name, schema_change),
        A::Update { table_name, .. } => writable(table_name, schema_change),
        A::Function { function_name } if is_allowed_function(function_name) => Ok(()),
        A::Function { function_name } => Err(refused_function(function_name)),
        // The first AUTOINCREMENT makes it. SQLite itself refuses the name to anybody else.
        A::CreateTable { table_name: "sqlite_sequence" } if schema_change => Ok(()),
        A::CreateTable { table_name }
        | A::DropTable { table_name }
        | A::AlterTable { table_name, .. } => writable(table_name, false),
        A::CreateIndex { index_name, table_name } | A::DropIndex { index_name, table_name } => {
            writable(table_name, false)?;
            if is_system(index_name) { writable(index_name, false) } else { Ok(()) }
        }
        A::CreateTrigger { trigger_name, table_name }
        | A::DropTrigger { trigger_name, table_name } => {
            writable(trigger_name, false)?;
            writable(table_name, false)
        }
        A::CreateView { view_name } | A::DropView { view_name } => writable(view_name, false),
        // CREATE INDEX and ALTER TABLE ask for it, for what they have just made.
        A::Reindex { .. } if schema_change => Ok(()),
        ref other => Err(unsupported(refused_action(other))),
    }
}

fn refused_action(action: &AuthAction<'_>) -> String {
    use AuthAction as A;
    let what = match action {
        A::Transaction { .. } | A::Savepoint { .. } => {
            return "BEGIN, COMMIT, ROLLBACK and savepoints are the session's, not a statement's"
                .into();
        }
        A::Pragma { .. } => "PRAGMA",
        A::Attach { .. } | A::Detach { .. } => "ATTACH and DETACH",
        A::CreateVtable { .. } | A::DropVtable { .. } => "virtual tables",
        A::Analyze { .. } => "ANALYZE",
        A::Reindex { .. } => "REINDEX",
        A::CreateTempIndex { .. }
        | A::CreateTempTable { .. }
        | A::CreateTempTrigger { .. }
        | A::CreateTempView { .. }
        | A::DropTempIndex { .. }
        | A::DropTempTable { .. }
        | A::DropTempTrigger { .. }
        | A::DropTempView { .. } => "temporary tables, views and triggers",
        _ => "this statement",
    };
    format!("{what}: not supported, since copies might differ")
}
