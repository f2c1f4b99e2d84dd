//! What a server that lags is answered (beside step 8): blocks, or, where it lags too far for them,
//! a snapshot with the proof of its root.
//!
//! ```text
//!   snapshot (H, root) ── block H ── headers H+1 … N, one says: "H has root" ── N is final
//! ```
//! A snapshot is *certified* once a final header names its height with its own root. Headers name
//! every height at which one is made (`replica::propose`).

use std::collections::BTreeMap;
use std::sync::Arc;

use borsh::BorshDeserialize;
use rota_core::block::{Applied, Header};
use rota_core::error::Fault;
use rota_core::journal::Record;
use rota_core::message::{FinalBlocks, Message, Offer};
use rota_core::types::{BlockId, Height, StateRoot};
use rusqlite::OptionalExtension;

use super::{ChainDb, block_id, count, number};
use crate::snapshot::{Manifest, Snapshots};

/// An offer holds no more headers than this: the one that names the snapshot comes within `lag`
/// blocks as a rule, or `k` (`pow`), and one with a certificate soon after.
const MAX_HEADERS: u64 = 20_000;

/// A header's encoding is shorter than this.
const HEADER_BYTES: i64 = 512;

/// What a final header says of an executed state.
pub(super) struct Named {
    what: Applied,
    by: Height,
}

/// What is known of this server's snapshots.
#[derive(Default)]
pub(super) struct Offers {
    pub(super) snapshots: Option<Arc<Snapshots>>,
    /// The heights at which snapshots are made, as final headers name them: root, and the first
    /// header that does.
    named: BTreeMap<Height, (StateRoot, Height)>,
    /// The newest snapshot that was there when this was last looked at: making one takes a while.
    seen: Option<Height>,
    /// The newest certified one, put together once.
    newest: Option<Box<Offer>>,
}

/// The heights whose headers can name this snapshot in an offer. What is below the lowest block
/// here is pruned, or was never here.
fn headers_after(own: Height, lowest: Height, last: Height) -> impl Iterator<Item = Height> {
    let first = own.next().max(lowest);
    (first.0..=last.0.min(own.0.saturating_add(MAX_HEADERS))).map(Height)
}

/// What the headers of final blocks among these say.
pub(super) fn named_by(records: &[Record]) -> Vec<Named> {
    let finalized = records.iter().filter_map(|record| match record {
        Record::Finalized { blocks, .. } => Some(blocks),
        _ => None,
    });
    let headers = finalized.flatten().map(|block| &block.header);
    headers.map(|header| Named { what: header.applied, by: header.height }).collect()
}

impl ChainDb {
    /// From now on these are offered to whoever lags too far.
    pub fn offer_from(&mut self, snapshots: Arc<Snapshots>) -> Result<(), Fault> {
        let all = snapshots.all();
        self.offers = Offers { snapshots: Some(snapshots), ..Offers::default() };
        let mut named = Vec::new();
        for own in all.iter().map(|manifest| manifest.applied.height) {
            for height in headers_after(own, self.prune.lowest, self.last.0) {
                let Some((_, header)) = self.header(height)? else { continue };
                if header.applied.height == own {
                    named.push(Named { what: header.applied, by: height });
                    break;
                }
            }
        }
        self.look_at_snapshots(named);
        Ok(())
    }

    /// New final headers: they may certify a snapshot, so that an older one is needed no more.
    pub(super) fn look_at_snapshots(&mut self, named: Vec<Named>) {
        let Some(snapshots) = &self.offers.snapshots else { return };
        let there = snapshots.newest();
        let mut news = std::mem::replace(&mut self.offers.seen, there) != there;
        for Named { what, by } in named {
            if snapshots.is_due(what.height) && !self.offers.named.contains_key(&what.height) {
                self.offers.named.insert(what.height, (what.root, by));
                news = true;
            }
        }
        if news {
            let certified: Vec<Height> = self.certified().map(|own| own.applied.height).collect();
            let snapshots = self.offers.snapshots.as_ref();
            let oldest = snapshots.and_then(|snapshots| snapshots.keep_newest(&certified));
            if let Some(oldest) = oldest {
                self.offers.named = self.offers.named.split_off(&oldest);
            }
            // Two are there: from the older one on, whoever fetches it finds what comes next.
            self.prune.floor = oldest.filter(|_| certified.len() > 1).unwrap_or_default();
        }
    }

    /// The certified ones, oldest first.
    fn certified(&self) -> impl Iterator<Item = Arc<Manifest>> {
        let all = self.offers.snapshots.as_ref().map(|snapshots| snapshots.all());
        all.unwrap_or_default().into_iter().filter(|own| {
            let named = self.offers.named.get(&own.applied.height);
            named.is_some_and(|(root, _)| *root == own.applied.root)
        })
    }

    /// Blocks where they are here and not too many, or else the newest certified snapshot.
    pub(super) fn blocks_or_offer(&mut self, after: Height) -> Result<Option<Message>, Fault> {
        // Under `pow` everybody checks everything from the first block on.
        let newest = self.certified().last().filter(|_| !self.members.is_none());
        let are_here = after.next() >= self.prune.lowest || self.last.0 == Height(0);
        let every = self.offers.snapshots.as_ref().map_or(u64::MAX, |own| own.every());
        let is_near = |own: &Manifest| after.0.saturating_add(every) >= own.applied.height.0;
        match newest {
            Some(own) if own.applied.height > after && !(are_here && is_near(&own)) => {
                Ok(self.offer(&own)?.map(|offer| Message::Offer(Box::new(offer))))
            }
            _ if are_here => Ok(self.new_blocks(after)?.map(Message::Final)),
            _ => Ok(None),
        }
    }

    /// Final blocks, those included that are noted and not written yet: they are as final.
    fn new_blocks(&self, after: Height) -> Result<Option<FinalBlocks>, Fault> {
        if after < self.last.0 {
            return self.final_after(after);
        }
        let noted = self.unwritten.iter().find_map(|record| match record {
            Record::Finalized { blocks, finality } => {
                let follows = blocks.first()?.header.height == after.next();
                follows.then(|| FinalBlocks { blocks: blocks.clone(), finality: finality.clone() })
            }
            _ => None,
        });
        Ok(noted)
    }

    /// A piece of a certified snapshot.
    pub(super) fn chunk(&self, height: Height, chunk: u32) -> Option<Message> {
        let is_certified = self.certified().any(|own| own.applied.height == height);
        let snapshots = self.offers.snapshots.as_ref().filter(|_| is_certified)?;
        let bytes = snapshots.chunk(height, chunk)?;
        Some(Message::Chunk { height, number: chunk, bytes })
    }

    fn offer(&mut self, own: &Manifest) -> Result<Option<Offer>, Fault> {
        let known = self.offers.newest.as_ref();
        if let Some(known) = known.filter(|known| known.applied == own.applied) {
            return Ok(Some((**known).clone()));
        }
        let height = own.applied.height;
        let Some(&(_, by)) = self.offers.named.get(&height) else { return Ok(None) };
        let Some(last) = self.proven_from(by)? else { return Ok(None) };
        let Some(block) = self.final_block(height)? else { return Ok(None) };
        if last.0.saturating_sub(height.0) > MAX_HEADERS {
            return Ok(None);
        }
        let mut headers = Vec::new();
        let mut next = height;
        while next < last {
            next = next.next();
            let (_, header) = self.header(next)?.ok_or_else(|| self.corrupt("blocks (missing)"))?;
            headers.push(header);
        }
        let finality = self.finality(last)?;
        let chunks = own.chunks.clone();
        let offer =
            Offer { applied: own.applied, block, headers, finality, bytes: own.bytes, chunks };
        self.offers.newest = Some(Box::new(offer.clone()));
        Ok(Some(offer))
    }

    /// The first block from this height on with a proof of its own.
    fn proven_from(&self, height: Height) -> Result<Option<Height>, Fault> {
        let sql = "SELECT height FROM rota_certificates WHERE height >= ?1 ORDER BY height LIMIT 1";
        self.read(sql, |statement| {
            statement.query_row([number(height.0)], |row| count(row, 0).map(Height)).optional()
        })
    }

    /// The id and header of a final block, without reading all of it.
    fn header(&self, height: Height) -> Result<Option<(BlockId, Header)>, Fault> {
        let sql = "SELECT f.id, substr(b.block, 1, ?2) FROM blocks f
            JOIN rota_bodies b ON b.slot = f.slot AND b.id = unhex(f.id) WHERE f.height = ?1";
        let found = self.read(sql, |statement| {
            let read = |row: &rusqlite::Row<'_>| Ok((block_id(row, 0)?, row.get::<_, Vec<u8>>(1)?));
            statement.query_row([number(height.0), HEADER_BYTES], read).optional()
        })?;
        let Some((id, bytes)) = found else { return Ok(None) };
        let header = Header::deserialize(&mut bytes.as_slice());
        match header {
            Ok(header) if header.id(self.chain) == id => Ok(Some((id, header))),
            _ => Err(self.corrupt("bodies (header)")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_from_a_snapshot_or_the_oldest_block_on_and_not_for_ever() {
        let from = |own, lowest, last| {
            let heights = headers_after(Height(own), Height(lowest), Height(last));
            heights.map(|height| height.0).collect::<Vec<_>>()
        };
        assert_eq!(from(10, 0, 12), [11, 12]);
        assert_eq!(from(10, 12, 13), [12, 13]);
        assert_eq!(from(12, 3, 12), [] as [u64; 0]);
        assert_eq!(from(10, 5_000_000, 5_000_001), [] as [u64; 0], "nobody could be shown it");
        assert_eq!(from(10, 3, u64::MAX).len() as u64, MAX_HEADERS);
    }
}
