//! The state root: a Merkle tree over all rows, one subtree per table.
//!
//! ```text
//!   root = H(schema, sqlite_sequence, (table id, subtree)…)
//!            subtree: a binary tree over 2^16 buckets       in memory, 64 bytes a bucket in use
//!              bucket = H(its entries, sorted by key)            in `rota_hashes`
//!                entry = key (hash of declared key, rowid), leaf = H(rowid, values) `rota_buckets`
//! ```
//! A row's bucket is drawn from the hash of its declared key; of a table without one, from the hash
//! of its rowid's chunk of 16, so that rows inserted one after another change few buckets. Empty
//! buckets and subtrees have fixed hashes and take no memory but by groups of 256.

use std::sync::OnceLock;

use rota_core::types::StateRoot;
use rota_hash::{Hasher, hash};
use rusqlite::types::ValueRef;

/// A hash.
pub type Hash = [u8; 32];

/// A table's number, which it keeps when it is renamed.
pub type TableId = u32;

/// A bucket of a table.
pub type Bucket = u16;

/// Which row: the hash of its declared key (zeros if it has none) and its rowid (0 if it has none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Of the declared key's values.
    pub declared: Hash,
    /// SQLite's.
    pub rowid: i64,
}

/// A row's place and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which row.
    pub key: Key,
    /// The hash of its rowid and values.
    pub leaf: Hash,
}

/// An entry's length in a bucket's blob.
pub const ENTRY_BYTES: usize = 72;

/// Rowids that share a bucket, as a power of two.
const CHUNK_BITS: u32 = 4;

impl Key {
    /// Of a row of a table without a declared key.
    pub fn of_rowid(rowid: i64) -> Self {
        Self { declared: [0; 32], rowid }
    }

    /// Where it belongs.
    pub fn bucket(&self) -> Bucket {
        let hashed = if self.declared == [0; 32] {
            hash("rota chunk", &[&(self.rowid >> CHUNK_BITS).to_le_bytes()])
        } else {
            self.declared
        };
        let [a, b, ..] = hashed;
        u16::from_be_bytes([a, b])
    }
}

/// Appends a value: its type, and its content with its length where that varies.
pub fn encode_value(buffer: &mut Vec<u8>, value: ValueRef<'_>, real: bool) {
    match value {
        ValueRef::Null => buffer.push(0),
        ValueRef::Integer(number) if real => {
            encode_value(buffer, ValueRef::Real(number as f64), true)
        }
        ValueRef::Integer(number) => {
            buffer.push(1);
            buffer.extend_from_slice(&number.to_le_bytes());
        }
        ValueRef::Real(number) => {
            buffer.push(2);
            buffer.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        ValueRef::Text(text) => encode_bytes(buffer, 3, text),
        ValueRef::Blob(blob) => encode_bytes(buffer, 4, blob),
    }
}

fn encode_bytes(buffer: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    buffer.push(tag);
    buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    buffer.extend_from_slice(bytes);
}

/// The hash of a declared key's encoded values.
pub fn declared_key(values: &[u8]) -> Hash {
    hash("rota key", &[values])
}

/// The hash of a row's encoded values.
pub fn leaf(rowid: i64, values: &[u8]) -> Hash {
    hash("rota row", &[&rowid.to_le_bytes(), values])
}

/// A bucket's entries, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(Vec<Entry>);

impl Entries {
    /// From a blob of [`Self::bytes`], if it is one.
    pub fn read(blob: &[u8]) -> Option<Self> {
        let mut entries = Vec::with_capacity(blob.len() / ENTRY_BYTES + 1);
        for chunk in blob.chunks(ENTRY_BYTES) {
            let (declared, rest) = chunk.split_first_chunk::<32>()?;
            let (rowid, leaf) = rest.split_first_chunk::<8>()?;
            let key = Key { declared: *declared, rowid: i64::from_le_bytes(*rowid) };
            entries.push(Entry { key, leaf: leaf.try_into().ok()? });
        }
        Some(Self(entries))
    }

    /// All of them, one after another.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * ENTRY_BYTES);
        for entry in &self.0 {
            bytes.extend_from_slice(&entry.key.declared);
            bytes.extend_from_slice(&entry.key.rowid.to_le_bytes());
            bytes.extend_from_slice(&entry.leaf);
        }
        bytes
    }

    /// The leaf of a row.
    pub fn get(&self, key: &Key) -> Option<Hash> {
        let at = self.0.binary_search_by(|entry| entry.key.cmp(key)).ok()?;
        self.0.get(at).map(|entry| entry.leaf)
    }

    /// Sets or removes the leaf of a row, and returns the one before.
    pub fn set(&mut self, key: Key, leaf: Option<Hash>) -> Option<Hash> {
        match (self.0.binary_search_by(|entry| entry.key.cmp(&key)), leaf) {
            (Ok(at), Some(leaf)) => {
                self.0.get_mut(at).map(|entry| std::mem::replace(&mut entry.leaf, leaf))
            }
            (Ok(at), None) => Some(self.0.remove(at).leaf),
            (Err(at), Some(leaf)) => {
                self.0.insert(at, Entry { key, leaf });
                None
            }
            (Err(_), None) => None,
        }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The hash of a bucket with these [`Entries::bytes`].
pub fn bucket_hash(bytes: &[u8]) -> Hash {
    if bytes.is_empty() { [0; 32] } else { hash("rota bucket", &[bytes]) }
}

/// The levels of a subtree above its buckets.
const LEVELS: usize = 16;

/// The hashes of empty trees with 0 to [`LEVELS`] levels.
fn empty() -> &'static [Hash; LEVELS + 1] {
    static EMPTY: OnceLock<[Hash; LEVELS + 1]> = OnceLock::new();
    EMPTY.get_or_init(|| {
        let mut hashes = [[0; 32]; LEVELS + 1];
        let mut below = [0; 32];
        for hash in hashes.iter_mut().skip(1) {
            *hash = node(&below, &below);
            below = *hash;
        }
        hashes
    })
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash("rota node", &[left, right])
}

/// A full binary tree of 256 leaves: number 1 is its root, 2n and 2n+1 are below n, its leaves are
/// 256 to 511.
struct Heap(Box<[Hash; 512]>);

const HEAP_LEAVES: usize = 256;

impl Heap {
    /// Empty, with leaves that stand for empty trees of `height` levels.
    fn new(height: usize) -> Self {
        let mut nodes = Box::new([[0; 32]; 512]);
        for (index, node) in nodes.iter_mut().enumerate().skip(1) {
            let level = height + 8 - (usize::BITS - 1 - index.leading_zeros()) as usize;
            *node = empty()[level];
        }
        Self(nodes)
    }

    /// Sets leaves, given by rising and different indexes, and hashes what is above them.
    fn set(&mut self, leaves: &[(u8, Hash)]) {
        let mut changed: Vec<usize> = Vec::with_capacity(leaves.len());
        for &(index, hash) in leaves {
            let at = HEAP_LEAVES + usize::from(index);
            self.0[at] = hash;
            changed.push(at);
        }
        while changed.first().is_some_and(|&at| at > 1) {
            changed.iter_mut().for_each(|at| *at /= 2);
            changed.dedup();
            for &at in &changed {
                self.0[at] = node(&self.0[2 * at], &self.0[2 * at + 1]);
            }
        }
    }

    fn root(&self) -> Hash {
        self.0[1]
    }
}

/// A table's subtree: the hashes of its buckets and of what is above them.
pub struct Tree {
    top: Heap,
    groups: Vec<Option<Heap>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { top: Heap::new(8), groups: (0..HEAP_LEAVES).map(|_| None).collect() }
    }
}

impl Tree {
    /// Sets the hashes of buckets, given by rising and different numbers.
    pub fn set(&mut self, buckets: &[(Bucket, Hash)]) {
        let mut roots = Vec::new();
        for group in buckets.chunk_by(|a, b| a.0 >> 8 == b.0 >> 8) {
            let Some([high, _]) = group.first().map(|bucket| bucket.0.to_be_bytes()) else {
                continue;
            };
            let leaves: Vec<(u8, Hash)> =
                group.iter().map(|&(bucket, hash)| (bucket.to_be_bytes()[1], hash)).collect();
            let heap = self.groups[usize::from(high)].get_or_insert_with(|| Heap::new(0));
            heap.set(&leaves);
            roots.push((high, heap.root()));
        }
        self.top.set(&roots);
    }

    /// The hash of all rows.
    pub fn root(&self) -> Hash {
        self.top.root()
    }
}

/// The root of everything.
pub fn state_root<'a>(
    schema: &Hash,
    sequence: &Hash,
    tables: impl Iterator<Item = (TableId, &'a Tree)>,
) -> StateRoot {
    let mut hasher = Hasher::new("rota state");
    hasher.update(schema).update(sequence);
    for (id, tree) in tables {
        hasher.update(&id.to_le_bytes()).update(&tree.root());
    }
    StateRoot(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_scratch(buckets: &[(Bucket, Hash)]) -> Hash {
        let mut level = vec![[0; 32]; 1 << 16];
        for &(bucket, hash) in buckets {
            level[usize::from(bucket)] = hash;
        }
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| node(&pair[0], &pair[1])).collect();
        }
        level[0]
    }

    #[test]
    fn a_tree_changed_step_by_step_is_the_tree_made_at_once() {
        let mut tree = Tree::default();
        assert_eq!(tree.root(), from_scratch(&[]));
        tree.set(&[(0, [1; 32]), (1, [2; 32]), (255, [3; 32]), (256, [4; 32]), (65_535, [5; 32])]);
        tree.set(&[(1, [0; 32]), (256, [6; 32]), (4_000, [7; 32])]);
        let end =
            [(0, [1; 32]), (255, [3; 32]), (256, [6; 32]), (4_000, [7; 32]), (65_535, [5; 32])];
        assert_eq!(tree.root(), from_scratch(&end));
    }

    #[test]
    fn entries_survive_being_written() {
        let mut entries = Entries::default();
        for rowid in [5, -3, 9, i64::MAX] {
            assert_eq!(entries.set(Key::of_rowid(rowid), Some([7; 32])), None);
        }
        assert_eq!(entries.set(Key::of_rowid(9), None), Some([7; 32]));
        assert_eq!(Entries::read(&entries.bytes()), Some(entries));
        assert_eq!(Entries::read(&[0; ENTRY_BYTES + 1]), None);
    }
}
