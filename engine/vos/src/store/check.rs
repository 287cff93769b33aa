//! The checker's half for what is below trees, and is not read when trees are walked: the WAL, and where buckets lie
//! on the device of which there is a copy in memory.
//!
//! # Not here
//! The segment table against what trees refer to: `audit`, and the checker above.

use daos_types::{Error, Result};

use super::store::Store;
use crate::pages::BucketId;

impl Store {
    /// Verifies on the device what memory hides. Findings are sentences.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn check_device(&self) -> Result<Vec<String>> {
        let met = self.inner.found_at_open.borrow();
        let mut findings: Vec<String> = met.iter().map(ToString::to_string).collect();
        drop(met);
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
        findings.extend(self.verify_log().await?.0.map(|damage| damage.to_string()));
        Ok(())
    }
}
