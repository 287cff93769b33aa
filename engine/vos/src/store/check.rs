//! The checker's half for what is below trees, and is not read when trees are walked: the WAL, and where buckets lie
//! on the device of which there is a copy in memory.
//!
//! # Not here
//! The segment table against what trees refer to: `audit`, and the checker above.

use daos_types::{Error, Result};

use super::store::Store;
use super::wal::{BlockHeader, WAL_BLOCK_BYTES};
use crate::pages::BucketId;

impl Store {
    /// Verifies on the device what memory hides. Findings are sentences.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn check_device(&self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        self.check_wal(&mut findings).await?;
        self.check_homes(&mut findings).await?;
        Ok(findings)
    }

    /// Buckets that are resident and clean: whoever walks the trees sees the copy in memory.
    async fn check_homes(&self, findings: &mut Vec<String>) -> Result<()> {
        let clean: Vec<BucketId> = {
            let state = self.inner.state.borrow();
            let frames = state.arena.buckets().filter(|frame| frame.is_clean());
            frames.map(|frame| frame.bucket).collect()
        };
        for bucket in clean {
            match self.inner.read_bucket(bucket).await {
                Ok(_) => {}
                // Changed or gone meanwhile: then what is on the device is no matter.
                Err(Error::Damaged(_)) if !self.is_clean(bucket) => {}
                Err(Error::Damaged(damage)) => findings.push(damage.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_clean(&self, bucket: BucketId) -> bool {
        let state = self.inner.state.borrow();
        state.arena.peek(bucket).is_some_and(|frame| frame.is_clean())
    }

    /// The blocks of the WAL that a replay would read now.
    async fn check_wal(&self, findings: &mut Vec<String>) -> Result<()> {
        if self.inner.read_only {
            return Ok(()); // Opening it read every block that counts.
        }
        let area = self.inner.areas.wal;
        let blocks = area.bytes / WAL_BLOCK_BYTES as u64;
        let (tail, end, mut pred, incarnation) = {
            let state = self.inner.state.borrow();
            let (tail, pred) = state.wal.tail();
            (tail, state.wal.written_seq(), pred, state.wal.incarnation())
        };
        for seq in tail..end {
            let address = area.start + seq % blocks * WAL_BLOCK_BYTES as u64;
            let block = self.inner.read(address, WAL_BLOCK_BYTES as u64, "the log").await?;
            let found = BlockHeader::verify(&block, self.inner.id, incarnation);
            match found.filter(|found| found.seq == seq && found.pred == pred) {
                Some(found) => pred = found.csum,
                None => {
                    findings.push(format!("the log's block {seq} at byte {address} is damaged"));
                    break;
                }
            }
        }
        Ok(())
    }
}
