//! What the segment table says, for the checker.

use daos_types::Result;

use super::space::{Bits, SEGMENT_BLOCKS};
use super::store::Store;
use super::{BUCKET_BLOCKS, BlockAddr, BlockRun};

/// The allocated blocks of one segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentUse {
    pub start: BlockAddr,
    bits: Bits,
}

impl SegmentUse {
    #[must_use]
    pub fn is_allocated(&self, index: u32) -> bool {
        self.bits[index as usize / 64] >> (index % 64) & 1 == 1
    }
}

impl Store {
    /// Segments of the space.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.inner.state.borrow().space.segments()
    }

    /// Blocks of one segment.
    #[must_use]
    pub fn segment_blocks(&self) -> u32 {
        SEGMENT_BLOCKS
    }

    /// The buckets that are always allocated: the segment table's and the root.
    #[must_use]
    pub fn fixed_buckets(&self) -> BlockRun {
        let state = self.inner.state.borrow();
        let first = state.space.table_bucket(0).run().addr;
        BlockRun::new(first, (state.space.table_buckets() + 1) * BUCKET_BLOCKS as u32)
    }

    /// What the table says of a segment now.
    ///
    /// # Errors
    /// Those of loading the table's bucket.
    pub async fn segment_use(&self, segment: u32) -> Result<SegmentUse> {
        loop {
            if let Some(entry) = self.inner.resident_entry(segment) {
                let start = self.inner.state.borrow().space.segment_start(segment);
                return Ok(SegmentUse { start, bits: entry.allocated });
            }
            let (table, _) = self.inner.state.borrow().space.entry_place(segment);
            self.inner.load(table).await?;
        }
    }
}
