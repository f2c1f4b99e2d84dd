//! Foreign keys, as they matter to whoever drops or fills many tables: each row of a table that
//! others refer to makes SQLite look for rows that refer to it, and where there is no index it
//! looks through all of them.
//!
//! ```text
//!   dropped  children first ─► nothing refers to what goes     no row is looked at
//!   filled   parents first  ─► what is referred to is there    no violation waits to be cured
//!   round a circle, or to itself: an index for the time being
//! ```

use std::collections::{HashMap, VecDeque};

use rota_core::transaction::{Parameters, Statement};

pub use crate::schema::quote;

/// A foreign key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// The table that it is declared in.
    pub child: String,
    /// The table that it refers to, which need not be there.
    pub parent: String,
    /// The columns of the child.
    pub columns: Vec<String>,
}

/// A table, and what makes its turn costly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn<'a> {
    /// The table's place among those given.
    pub table: usize,
    /// Keys that refer to it from itself, or from tables whose turn comes later.
    pub referred: Vec<&'a Key>,
}

/// The tables in an order in which each comes after those that refer to it, as far as there is one.
/// In reverse it is the order to fill them, with the same keys in the way.
pub fn children_first<'a>(tables: &[&str], keys: &'a [Key]) -> Vec<Turn<'a>> {
    let places: HashMap<String, usize> =
        (0..).zip(tables).map(|(place, name)| (name.to_ascii_lowercase(), place)).collect();
    let place = |name: &str| places.get(&name.to_ascii_lowercase()).copied();
    let keys: Vec<(usize, usize, &Key)> = keys
        .iter()
        .filter_map(|key| Some((place(&key.child)?, place(&key.parent)?, key)))
        .collect();
    let mut of_child: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut of_parent: HashMap<usize, Vec<(usize, &Key)>> = HashMap::new();
    let mut left = vec![0usize; tables.len()];
    for (child, parent, key) in &keys {
        of_parent.entry(*parent).or_default().push((*child, key));
        if child != parent {
            of_child.entry(*child).or_default().push(*parent);
            if let Some(left) = left.get_mut(*parent) {
                *left += 1;
            }
        }
    }
    // The newest first: in reverse, unrelated tables come as they were made.
    let mut waiting: VecDeque<usize> = (0..tables.len()).rev().collect();
    let mut ready: Vec<usize> = Vec::new();
    let mut gone = vec![false; tables.len()];
    let mut turns = Vec::with_capacity(tables.len());
    ready.extend(waiting.iter().rev().filter(|table| left.get(**table) == Some(&0)));
    while let Some(table) = ready.pop().or_else(|| waiting.pop_front()) {
        let Some(gone_already) = gone.get_mut(table) else { continue };
        if std::mem::replace(gone_already, true) {
            continue;
        }
        for parent in of_child.remove(&table).unwrap_or_default() {
            if let Some(left) = left.get_mut(parent) {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    ready.push(parent);
                }
            }
        }
        let referring = of_parent.remove(&table).unwrap_or_default().into_iter();
        let in_the_way =
            referring.filter(|(child, _)| *child == table || gone.get(*child) == Some(&false));
        turns.push(Turn { table, referred: in_the_way.map(|(_, key)| key).collect() });
    }
    turns
}

/// Indexes for the time being, whose names begin with something that no other name begins with.
#[derive(Debug)]
pub struct Indexes {
    prefix: String,
    names: Vec<String>,
}

impl Indexes {
    /// None yet.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), names: Vec::new() }
    }

    /// An index by which a key's rows are found.
    pub fn create(&mut self, key: &Key) -> Statement {
        let name = quote(&format!("{}-{}", self.prefix, self.names.len()));
        let columns: Vec<String> = key.columns.iter().map(|column| quote(column)).collect();
        let (child, columns) = (quote(&key.child), columns.join(","));
        let sql = format!("CREATE INDEX {name} ON {child}({columns})");
        self.names.push(name);
        plain(sql)
    }

    /// They go.
    pub fn drop(self) -> impl Iterator<Item = Statement> {
        self.names.into_iter().map(|name| plain(format!("DROP INDEX {name}")))
    }
}

fn plain(sql: String) -> Statement {
    Statement { sql, parameters: Parameters::Positional(Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(tables: &[&str], pairs: &[(&str, &str)]) -> String {
        let key = |(child, parent): &(&str, &str)| Key {
            child: (*child).into(),
            parent: (*parent).into(),
            columns: Vec::new(),
        };
        let keys: Vec<Key> = pairs.iter().map(key).collect();
        let turns = children_first(tables, &keys);
        let name = |turn: &Turn<'_>| {
            let keys: Vec<_> = turn.referred.iter().map(|key| key.child.as_str()).collect();
            format!("{}({})", tables[turn.table], keys.join(","))
        };
        turns.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn children_come_before_their_parents() {
        assert_eq!(order(&["a", "b", "c"], &[]), "c() b() a()");
        assert_eq!(order(&["a", "b"], &[("A", "b")]), "a() b()");
        assert_eq!(order(&["a", "b", "c"], &[("c", "b"), ("b", "a")]), "c() b() a()");
        assert_eq!(order(&["a", "b", "c"], &[("a", "b"), ("b", "c")]), "a() b() c()");
        assert_eq!(order(&["a"], &[("a", "nowhere")]), "a()");
    }

    #[test]
    fn circles_are_broken_and_said_to_be() {
        assert_eq!(order(&["a"], &[("a", "a")]), "a(a)");
        assert_eq!(order(&["a", "b"], &[("a", "b"), ("b", "a")]), "b(a) a()");
        assert_eq!(order(&["a", "b", "c"], &[("a", "b"), ("b", "a"), ("c", "a")]), "c() b(a) a()");
    }
}
