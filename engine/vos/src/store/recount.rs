//! A recount of references against the segment table, for tests.
//!
//! It holds an opinion of its own: what is referred to is told by whoever walks the structures, not read from the table.

use daos_types::Result;

use super::space::{ENTRY_BYTES, Entry, SEGMENT_BLOCKS, SegmentKind, count};
use super::store::Store;
use super::{BUCKET_BLOCKS, BlockAddr, BlockRun};

/// Findings of one kind are named up to this many times; the rest is counted.
const FINDINGS_MAX: usize = 20;

/// Which blocks something refers to; one bit each.
pub(super) struct Recount {
    first: u64,
    bits: Vec<u64>,
    findings: Vec<String>,
    more: u64,
}

impl Recount {
    /// Notes that `what` refers to `run`. A block that two refer to is a finding, and so is one outside the space.
    pub(super) fn add(&mut self, run: BlockRun, what: &str) {
        for block in run.addr.0..run.end().0 {
            let index = block.wrapping_sub(self.first);
            let Some(word) = self.bits.get_mut((index / 64) as usize) else {
                self.find(format!("{what} refers to block {block}, which is not in the space"));
                continue;
            };
            if *word >> (index % 64) & 1 == 1 {
                self.find(format!("{what} refers to block {block}, as something else does"));
            }
            self.bits[(index / 64) as usize] |= 1 << (index % 64);
        }
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// What the checker says; sound if there are no findings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SpaceReport {
    /// Blocks that are allocated.
    pub(super) blocks: u64,
    pub(super) findings: Vec<String>,
}

impl Store {
    /// A recount with what the store itself uses: the segment table and the root.
    pub(super) fn recount(&self) -> Recount {
        let state = self.inner.state.borrow();
        let segments = state.space.segments();
        let first = state.space.table_bucket(0).run().addr;
        let words = segments as usize * SEGMENT_BLOCKS as usize / 64;
        let mut recount =
            Recount { first: first.0, bits: vec![0; words], findings: Vec::new(), more: 0 };
        let own = (state.space.table_buckets() + 1) * BUCKET_BLOCKS as u32;
        recount.add(BlockRun::new(first, own), "the store");
        recount
    }

    /// Compares the segment table with `recount`. Nothing else may use the store meanwhile; transactions that have
    /// succeeded need not be stable.
    ///
    /// # Errors
    /// When a bucket of the table cannot be loaded.
    pub(super) async fn check_space(&self, mut recount: Recount) -> Result<SpaceReport> {
        let segments = self.inner.state.borrow().space.segments();
        let mut blocks = 0;
        for segment in 0..segments {
            let (table, at) = self.inner.state.borrow().space.entry_place(segment);
            let entry = self.view(|view| {
                let page = crate::pages::Pages::page(view, table)?;
                Ok(Entry::decode(&page[at..at + ENTRY_BYTES]))
            });
            match entry.await?.0 {
                Some(entry) => {
                    blocks += u64::from(count(entry.allocated));
                    self.check_segment(segment, entry, &mut recount);
                }
                None => recount.find(format!("the entry of segment {segment} makes no sense")),
            }
        }
        let mut findings = recount.findings;
        if recount.more > 0 {
            findings.push(format!("{} more findings about blocks", recount.more));
        }
        Ok(SpaceReport { blocks, findings })
    }

    fn check_segment(&self, segment: u32, entry: Entry, recount: &mut Recount) {
        let state = self.inner.state.borrow();
        let from = segment as usize * SEGMENT_BLOCKS as usize / 64;
        let mut used = [0; 4];
        used.copy_from_slice(&recount.bits[from..from + 4]);
        for (word, referred) in used.into_iter().enumerate() {
            let mut differ = referred ^ entry.allocated[word];
            while differ != 0 {
                let bit = differ.trailing_zeros();
                let index = u64::from(segment * SEGMENT_BLOCKS) + 64 * word as u64;
                let block = BlockAddr(recount.first + index + u64::from(bit));
                recount.find(match referred >> bit & 1 {
                    0 => format!("{block:?} is allocated and nothing refers to it"),
                    _ => format!("{block:?} is referred to and not allocated"),
                });
                differ &= differ - 1;
            }
        }
        let (free, held) = state.space.summary(segment);
        if free + count(entry.allocated) + count(held) != SEGMENT_BLOCKS {
            recount.find(format!(
                "segment {segment}: {free} blocks counted as free, {} allocated, {} held",
                count(entry.allocated),
                count(held)
            ));
        }
        if (entry.kind == SegmentKind::Free) != (entry.allocated == [0; 4]) {
            recount.find(format!("segment {segment} is {:?} by kind, not by bits", entry.kind));
        }
    }
}
