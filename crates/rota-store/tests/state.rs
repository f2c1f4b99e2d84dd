//! What blocks do to `state.db`: results, receipts, ids, expiry, restarts.

mod support;

use support::Pair;

#[test]
fn a_block_changes_rows_and_the_root_follows() {
    let mut pair = Pair::new();
    let empty = pair.warm.applied().root;
    pair.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, r REAL)");
    let results = pair.run("INSERT INTO t(a, r) VALUES ('x', 1), ('y', 2.5) RETURNING id, a");
    assert_eq!(results[0].rows_affected, 2);
    assert_eq!(results[0].last_insert_rowid, 2);
    assert_eq!(results[0].rows.rows.len(), 2);
    pair.run("UPDATE t SET r = 3 WHERE id = 1; DELETE FROM t WHERE id = 2");
    assert_ne!(pair.warm.applied().root, empty);
    pair.check();
}
