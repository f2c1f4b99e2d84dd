//! What a user may do with which table, and what a statement needs: compared before every
//! statement, on a draft (step 1), for a read (step 1), and where it counts, at apply (step 8).
//!
//! SQLite asks its authorizer while it prepares a statement. What it asks for is noted as the
//! statement's [`Needs`] and kept with the prepared statement, so that the next user of it is
//! checked without preparing it again.

use std::collections::BTreeMap;
use std::fmt;

use rota_core::error::{Refusal, sqlstate};
use rusqlite::hooks::{AuthAction, AuthContext};

use super::opened::joins_by_name;
use crate::catalog;
use crate::policy::{is_closed, is_system};
use crate::sql;

/// What may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Rows may be read.
    Select,
    /// Rows may be added.
    Insert,
    /// Rows may be changed.
    Update,
    /// Rows may be deleted.
    Delete,
    /// A table, its indexes and triggers may be changed and dropped; on all tables: new ones may be
    /// made.
    Create,
}

/// All, with PostgreSQL's letters for them (its `aclitem`; `c` is ours).
const PRIVILEGES: [(Privilege, &str, char); 5] = [
    (Privilege::Insert, "INSERT", 'a'),
    (Privilege::Select, "SELECT", 'r'),
    (Privilege::Update, "UPDATE", 'w'),
    (Privilege::Delete, "DELETE", 'd'),
    (Privilege::Create, "CREATE", 'c'),
];

impl Privilege {
    /// By its SQL word, in any case.
    pub fn of_word(word: &str) -> Option<Self> {
        let found = PRIVILEGES.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(privilege, ..)| *privilege)
    }
}

/// A set of privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileges(u8);

impl Privileges {
    /// All there are.
    pub const ALL: Self = Self(0b1_1111);

    /// Adds one.
    pub fn insert(&mut self, privilege: Privilege) {
        self.0 |= 1 << privilege as u8;
    }

    /// Whether one is among them.
    pub fn contains(self, privilege: Privilege) -> bool {
        self.0 & 1 << privilege as u8 != 0
    }

    /// These and those.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without those.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As they are stored: `arwdc`.
    pub fn letters(self) -> String {
        let those = PRIVILEGES.iter().filter(|(privilege, ..)| self.contains(*privilege));
        those.map(|(.., letter)| letter).collect()
    }

    /// From their letters; others are passed over.
    pub fn of_letters(letters: &str) -> Self {
        let mut privileges = Self::default();
        for (privilege, _, letter) in PRIVILEGES {
            if letters.contains(letter) {
                privileges.insert(privilege);
            }
        }
        privileges
    }

    /// Their SQL words.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let those = PRIVILEGES.iter().filter(move |(privilege, ..)| self.contains(*privilege));
        those.map(|(_, word, _)| *word)
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().collect::<Vec<_>>().join(", "))
    }
}

/// All that a user may do: its own grants, its roles', and everybody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Everything.
    pub administrator: bool,
    /// Whether it may make tables, and have those that it made.
    pub(super) makes_own: bool,
    /// On every table.
    pub(super) everywhere: Privileges,
    /// By name, in lower case.
    pub(super) tables: BTreeMap<String, Privileges>,
}

impl Rights {
    /// Whether something may be done with a table.
    pub fn may(&self, privilege: Privilege, table: &str) -> bool {
        self.may_everywhere(privilege) || self.has_on(privilege, table)
    }

    /// Whether it may be done with all tables, those to come included.
    pub fn may_everywhere(&self, privilege: Privilege) -> bool {
        self.administrator || self.everywhere.contains(privilege)
    }

    /// Whether it was granted on this very table.
    pub fn has_on(&self, privilege: Privilege, table: &str) -> bool {
        let granted = self.tables.get(table).copied();
        let granted = granted.or_else(|| self.tables.get(&table.to_ascii_lowercase()).copied());
        granted.is_some_and(|granted| granted.contains(privilege))
    }

    /// Whether new tables may be made.
    pub fn may_make_tables(&self) -> bool {
        self.makes_own || self.may_everywhere(Privilege::Create)
    }

    /// Whether anything may be written anywhere.
    pub fn may_write(&self) -> bool {
        let writes =
            |privileges: &Privileges| !privileges.without(Privileges::of_letters("r")).is_empty();
        let granted = writes(&self.everywhere) || self.tables.values().any(writes);
        granted || self.may_make_tables()
    }

    /// The first thing that a statement needs and may not.
    pub(crate) fn lacks<'a>(&self, needs: &'a Needs) -> Option<&'a Need> {
        if self.administrator {
            return None;
        }
        needs.all.iter().find(|need| !self.satisfies(need))
    }

    pub(crate) fn satisfies(&self, need: &Need) -> bool {
        match need {
            _ if self.administrator => true,
            Need::Administrator(_) => false,
            Need::Anywhere => self.may_make_tables(),
            Need::On(privilege, table, _) => self.may(*privilege, table),
        }
    }
}

/// Something that SQLite asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A privilege on a table or view. True: SQLite has not looked whether there is one of that
    /// name; it may be a subquery's.
    On(Privilege, String, bool),
    /// Making a table or view.
    Anywhere,
    /// Something of the system's.
    Administrator(String),
}

impl Need {
    /// What its user is told.
    pub(crate) fn refusal(&self) -> Refusal {
        let message = match self {
            Self::On(Privilege::Create, table, _) => {
                format!("permission denied: CREATE ON {table} is needed to change or drop it")
            }
            Self::On(_, table, _) => format!("permission denied for table {table}"),
            Self::Anywhere => "permission denied: CREATE ON ALL is needed to make tables".into(),
            Self::Administrator(table) => {
                format!("permission denied for table {table}: it is for administrators")
            }
        };
        Refusal::new(sqlstate::INSUFFICIENT_PRIVILEGE, message)
    }
}

/// All that SQLite asked for while it prepared a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    all: Vec<Need>,
    /// Whether views, triggers or common table expressions take part.
    indirect: bool,
}

impl Needs {
    /// Notes what one question is about.
    pub(crate) fn note(&mut self, asked: &AuthContext<'_>, schema_change: bool) {
        self.indirect |= asked.accessor.is_some();
        if let Some(need) = need(asked, schema_change) {
            self.add(need);
        }
    }

    fn add(&mut self, need: Need) {
        if !self.all.contains(&need) {
            self.all.push(need);
        }
    }

    /// Whether the statement may read what SQLite does not ask about.
    pub(crate) fn may_hide_reads(&self, sql: &str) -> bool {
        self.indirect || joins_by_name(sql)
    }

    /// With the tables that the statement reads. Those whose rows it changes it reads for that.
    #[must_use]
    pub(crate) fn with_read(mut self, tables: impl IntoIterator<Item = String>) -> Self {
        for table in tables {
            if is_free(&table) {
                continue;
            }
            if is_closed(&table) {
                self.add(Need::Administrator(table));
                continue;
            }
            let is_known = self.all.iter().any(|need| match need {
                Need::On(Privilege::Insert, ..) => false,
                Need::On(_, known, _) => known.eq_ignore_ascii_case(&table),
                Need::Anywhere | Need::Administrator(_) => false,
            });
            if !is_known && !is_system(&table) {
                self.add(Need::On(Privilege::Select, table, false));
            }
        }
        self
    }

    /// With what SQLite does not ask about: REPLACE deletes the rows that are in its way, also
    /// where a trigger inserts or updates.
    #[must_use]
    pub(crate) fn with_replaced(mut self, sql: &str) -> Self {
        let named = sql::replaced(sql);
        if named.is_empty() {
            return self;
        }
        let changed = self.all.iter().filter_map(|need| match need {
            Need::On(Privilege::Insert | Privilege::Update, table, _) => Some(table.clone()),
            _ => None,
        });
        for table in changed.chain(named).collect::<Vec<_>>() {
            self.add(Need::On(Privilege::Delete, table, false));
        }
        self
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Need> {
        self.all.iter()
    }
}

/// Tables that functions are: no grants are needed, and users' tables may not have their names.
const FUNCTION_TABLES: [&str; 4] = ["json_each", "json_tree", "jsonb_each", "jsonb_tree"];

/// What a question of the authorizer's needs; `None`: nothing that is granted (`policy` and `query`
/// say what nobody may).
fn need(asked: &AuthContext<'_>, schema_change: bool) -> Option<Need> {
    use AuthAction as A;
    let database = asked.database_name.unwrap_or_default();
    if catalog::is_schema(database) || database.eq_ignore_ascii_case("temp") {
        return None;
    }
    let in_chain = database.eq_ignore_ascii_case("chain");
    let on = |privilege: Privilege, table: &str| {
        if is_free(table) {
            return None;
        }
        if is_system(table) {
            return is_closed(table).then(|| Need::Administrator(table.to_owned()));
        }
        // A CREATE, DROP or ALTER reads and writes rows by itself.
        let privilege = if schema_change { Privilege::Create } else { privilege };
        Some(Need::On(privilege, table.to_owned(), false))
    };
    match asked.action {
        // What is private there is refused to everybody (`query`).
        A::Read { .. } if in_chain => None,
        // No column and no database: `count(*)`, of a table or of a subquery that has a name.
        A::Read { table_name, column_name: "" } if database.is_empty() => {
            match on(Privilege::Select, table_name)? {
                Need::On(privilege, table, _) => Some(Need::On(privilege, table, true)),
                need => Some(need),
            }
        }
        A::Read { table_name, .. } => on(Privilege::Select, table_name),
        A::Insert { table_name } => on(Privilege::Insert, table_name),
        A::Update { table_name, .. } => on(Privilege::Update, table_name),
        A::Delete { table_name } => on(Privilege::Delete, table_name),
        A::CreateTable { table_name: "sqlite_sequence" } => None,
        A::CreateTable { .. } | A::CreateView { .. } => Some(Need::Anywhere),
        A::DropTable { table_name }
        | A::AlterTable { table_name, .. }
        | A::CreateIndex { table_name, .. }
        | A::DropIndex { table_name, .. }
        | A::CreateTrigger { table_name, .. }
        | A::DropTrigger { table_name, .. }
        | A::DropView { view_name: table_name } => on(Privilege::Create, table_name),
        _ => None,
    }
}

/// SQLite's own tables, and those that are functions.
pub(super) fn is_free(table: &str) -> bool {
    let starts = |prefix: &str| {
        table.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    starts("sqlite_")
        || starts("pragma_")
        || FUNCTION_TABLES.iter().any(|name| name.eq_ignore_ascii_case(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_have_letters_and_words() {
        let some = Privileges::of_letters("wr?");
        assert_eq!((some.letters().as_str(), some.to_string().as_str()), ("rw", "SELECT, UPDATE"));
        assert_eq!(Privileges::ALL.letters(), "arwdc");
        assert_eq!(Privileges::of_letters("arwdc"), Privileges::ALL);
        assert!(Privileges::ALL.without(Privileges::ALL).is_empty());
        assert_eq!(Privilege::of_word("Select"), Some(Privilege::Select));
        assert_eq!(Privilege::of_word("truncate"), None);
    }

    #[test]
    fn names_of_tables_are_the_same_in_any_case() {
        let mut rights = Rights::default();
        rights.tables.insert("cities".into(), Privileges::of_letters("r"));
        assert!(rights.may(Privilege::Select, "Cities") && rights.may(Privilege::Select, "cities"));
        assert!(!rights.may(Privilege::Update, "cities") && !rights.may_write());
        rights.everywhere.insert(Privilege::Create);
        assert!(rights.may(Privilege::Create, "new") && rights.may_write());
        assert!(!rights.has_on(Privilege::Create, "new"));
    }
}
