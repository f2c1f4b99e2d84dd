//! Step 6: is a block's content right? Whose turn it was, votes and certificates are the method's
//! business (`consensus`); encodings and signatures were checked before (`verify`).

use super::Replica;
use crate::block::{Applied, Block, Header};
use crate::consensus::{Event, Validate, Verdict};
use crate::types::Height;

impl Replica {
    /// Answers `Action::Validate`. What cannot be said yet is asked again when more is executed.
    pub(super) fn validate(&mut self, wanted: Validate) {
        let block = wanted.block.id(self.chain_id);
        let verdict = self.verdict(&wanted);
        self.postponed = (verdict == Verdict::Later).then_some(wanted);
        self.events.push_back(Event::Validated { block, verdict });
    }

    /// Asks again about a postponed block.
    pub(super) fn validate_postponed(&mut self) {
        if let Some(wanted) = self.postponed.take() {
            self.validate(wanted);
        }
    }

    fn verdict(&self, wanted: &Validate) -> Verdict {
        let parent = &wanted.parent.header;
        let header = &wanted.block.header;
        if header.height != parent.height.next() {
            return invalid("its height does not follow its parent's");
        }
        if header.time < wanted.earliest_time || header.time > wanted.latest_time {
            return invalid("its time is not its parent's certificate's and what passed since");
        }
        if let Err(why) = self.check_envelopes(&wanted.block) {
            return invalid(why);
        }
        match wanted.applied {
            None => self.check_applied(header, parent.applied),
            Some(height) => self.check_exactly(header, height),
        }
    }

    fn check_envelopes(&self, block: &Block) -> Result<(), &'static str> {
        let header = &block.header;
        if block.body.envelopes.is_empty() {
            return Ok(());
        }
        if self.lags(header.height, header.applied) {
            return Err("it holds transactions though execution lags behind");
        }
        block.check_transactions(&self.parameters)
    }

    /// Executed state is agreed and never waited for (docs/methods/poa.md): who has not executed
    /// that far does not vote yet.
    fn check_applied(&self, header: &Header, parent: Applied) -> Verdict {
        let Applied { height, root } = header.applied;
        if height < parent.height || height >= header.height {
            return invalid("its applied height goes back, or is not below its own");
        }
        if height == parent.height {
            return if root == parent.root {
                self.compare_root(height, header)
            } else {
                invalid("its applied root is not its parent's")
            };
        }
        // A restarted server knows no older root than its own: it must not vouch for one, or a liar
        // and two such servers could make any root final. Leaders soon name a height that it knows.
        if height > self.applied.height || !self.roots.contains_key(&height) {
            return Verdict::Later;
        }
        self.compare_root(height, header)
    }

    /// `pow`: the header names this very height, with the root that we have.
    fn check_exactly(&self, header: &Header, height: Height) -> Verdict {
        let named = header.applied;
        if named.height != height {
            return invalid("its applied height is not the one that is final below it");
        }
        if height == Height(0) {
            let is_default = named == Applied::default();
            return if is_default { Verdict::Valid } else { invalid("it names a root too early") };
        }
        if height > self.applied.height || !self.roots.contains_key(&height) {
            return Verdict::Later;
        }
        self.compare_root(height, header)
    }

    fn compare_root(&self, height: Height, header: &Header) -> Verdict {
        match self.roots.get(&height) {
            Some(&ours) if ours != header.applied.root => Verdict::Invalid(format!(
                "its leader has state root {} after height {height}; ours is {ours}",
                header.applied.root
            )),
            _ => Verdict::Valid,
        }
    }
}

fn invalid(why: &str) -> Verdict {
    Verdict::Invalid(why.into())
}
