//! What a scrub reads below the trees: the label's copies, the checkpoint header's slots, the log, and buckets where they lie on
//! the device although memory has them.
//!
//! Nothing is read from the strip: a batch that is home is not needed any more, and no other is there between two of them.

use daos_media::{How, IoBuf, label};
use daos_types::{Csum, Damage, Error, Place, Result};

use super::bucket;
use super::header::{self, Header, SLOT_BYTES};
use super::mend::mend;
use super::store::{Inner, Store, TxOptions};
use super::tx::Tx;
use super::wal::{BlockHeader, WAL_BLOCK_BYTES};
use crate::pages::{BUCKET_BYTES, BUCKET_HEADER_BYTES, BucketId, BucketKind, Pages, PagesMut};

impl Store {
    /// Verifies what lies at fixed places, and what opening met. With the bytes that were read.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn scrub_fixed(&self) -> Result<(Vec<Damage>, u64)> {
        let met = self.inner.found_at_open.borrow().clone();
        let mut found = met.clone();
        let mut bytes = self.scrub_label(&mut found).await?;
        bytes += self.scrub_headers(&mut found).await?;
        bytes += self.scrub_log(&mut found).await?;
        let fixed = self.fixed_buckets();
        let first = (fixed.addr.0 / super::BUCKET_BLOCKS) as u32;
        for number in first..first + fixed.blocks / super::BUCKET_BLOCKS as u32 {
            let damage = self.scrub_bucket(BucketId(number)).await?;
            found.extend(damage.filter(|damage| !met.contains(damage)));
            bytes += BUCKET_BYTES as u64;
        }
        Ok((found, bytes))
    }

    fn named(&self, place: Place, address: u64, expected: Csum, found: Csum) -> Damage {
        Damage { pool: None, target: self.target(), place, address, expected, found }
    }

    async fn scrub_label(&self, found: &mut Vec<Damage>) -> Result<u64> {
        match label::read(&*self.inner.device).await {
            Ok(read) => found.extend(
                read.bad_copy
                    .map(|bad| self.named(Place::Label, bad.address, bad.expected, bad.found)),
            ),
            Err(label::LabelError::Damaged { address, expected, found: there }) => {
                found.push(self.named(Place::Label, address, expected, there));
            }
            Err(label::LabelError::Device { address, source }) => {
                return Err(Error::Device { what: "the label", address, kind: source.kind() });
            }
            // It was one when the store was opened.
            Err(_) => found.push(self.named(Place::Label, 0, Csum(0), Csum(0))),
        }
        Ok(2 * label::COPY_BYTES)
    }

    async fn scrub_headers(&self, found: &mut Vec<Damage>) -> Result<u64> {
        let area = self.inner.areas.header;
        // While nobody writes one.
        let _one = self.inner.cleaning.acquire(1).await;
        let slots = self.inner.read(area.start, 2 * SLOT_BYTES as u64, "the checkpoint header");
        for (index, slot) in slots.await?.chunks(SLOT_BYTES).enumerate() {
            let written = slot[..header::SECTOR_BYTES].iter().any(|byte| *byte != 0);
            if written && Header::decode(slot, self.inner.id).is_none() {
                let (expected, there) = header::sums(slot);
                let address = area.start + (index * SLOT_BYTES) as u64;
                found.push(self.named(Place::Header, address, expected, there));
            }
        }
        Ok(2 * SLOT_BYTES as u64)
    }

    /// The blocks of the log that a replay would read now. Where one is damaged a checkpoint follows: then the log begins behind it.
    async fn scrub_log(&self, found: &mut Vec<Damage>) -> Result<u64> {
        if self.inner.read_only {
            return Ok(0); // Opening it read every block that counts.
        }
        let (damage, bytes) = self.verify_log().await?;
        if let Some(damage) = damage {
            found.push(damage);
            self.checkpoint().await?;
        }
        Ok(bytes)
    }

    /// The first block of the log that is damaged, and the bytes that were read.
    pub(super) async fn verify_log(&self) -> Result<(Option<Damage>, u64)> {
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
                // Not needed any more, and perhaps written again.
                None if self.inner.state.borrow().wal.tail().0 > seq => break,
                None => {
                    let (expected, there) = super::wal::sums(&block);
                    let damage = self.named(Place::Wal, address, expected, there);
                    return Ok((Some(damage), (seq + 1 - tail) * WAL_BLOCK_BYTES as u64));
                }
            }
        }
        Ok((None, (end - tail) * WAL_BLOCK_BYTES as u64))
    }

    /// Verifies a bucket on the device, unless memory has it with changes, or it is gone. One that memory has whole is written home
    /// again.
    ///
    /// # Errors
    /// Those of the device.
    pub async fn scrub_bucket(&self, bucket: BucketId) -> Result<Option<Damage>> {
        let before = self.residence(bucket);
        if before == Residence::Changed {
            return Ok(None);
        }
        // Not through `read_bucket`: that puts right what it can.
        let inner = &self.inner;
        let image = inner.read_home(bucket).await?;
        let verified = bucket::verify(&image, inner.id, bucket).map(drop);
        let Err(not) = inner.unusable.borrow().get(&bucket).map_or(verified, |not| Err(*not))
        else {
            return Ok(None);
        };
        if inner.repairs.borrow().contains_key(&bucket) {
            return Ok(None);
        }
        let damage = self.named(Place::Bucket, bucket.byte_address(), not.expected, not.found);
        if self.residence(bucket) != before {
            // Changed or gone meanwhile: then what is on the device is no matter.
            return Ok(None);
        }
        let fixed = inner.mend_fixed(bucket, &image).is_some();
        if fixed && !inner.read_only {
            self.mend_fixed_places().await?;
            // Told here.
            inner.found_at_open.borrow_mut().retain(|met| *met != damage);
        } else if before == Residence::Clean && !inner.read_only {
            self.write_home_again(bucket).await?;
        }
        Ok(Some(damage))
    }

    /// A change of nothing: the next checkpoint writes the bucket.
    pub(crate) async fn write_home_again(&self, bucket: BucketId) -> Result<()> {
        let touch = |tx: &mut Tx<'_>| {
            let byte = tx.page(bucket)?[BUCKET_HEADER_BYTES];
            tx.write(bucket, BUCKET_HEADER_BYTES, &[byte])
        };
        self.transact(TxOptions { claim: super::space::Claim::GiveBack, background: true }, touch)
            .await?;
        Ok(())
    }

    /// Flips the one bit back that keeps a bucket on the device from being what it was; false: it is not so.
    ///
    /// Only the sector with the bit is written: cut off, it is as before.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) async fn mend_home(&self, bucket: BucketId) -> Result<bool> {
        let (inner, address) = (&self.inner, bucket.byte_address());
        inner.check_writable()?;
        if self.residence(bucket) != Residence::Absent {
            return Ok(false);
        }
        let image = inner.read(address, BUCKET_BYTES as u64, "a bucket").await?;
        let mut whole = IoBuf::copy_of(&image);
        if mend(&mut whole, bucket::MAGIC).is_none()
            || bucket::verify(&whole, inner.id, bucket).is_err()
        {
            return Ok(false);
        }
        for (index, sector) in whole.chunks(header::SECTOR_BYTES).enumerate() {
            let at = index * header::SECTOR_BYTES;
            if sector != &image[at..at + header::SECTOR_BYTES] {
                let data = IoBuf::copy_of(sector).into_bytes();
                let written = inner.device.write(data, address + at as u64, How::Direct).await;
                written.map_err(|error| Error::Device {
                    what: "a bucket that is mended",
                    address,
                    kind: error.kind(),
                })?;
            }
        }
        inner.flush().await?;
        Ok(true)
    }

    /// Writes an empty tree over a bucket that cannot be read. Cut off, it cannot be read still.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) async fn empty_node(&self, bucket: BucketId) -> Result<()> {
        let inner = &self.inner;
        inner.check_writable()?;
        assert_eq!(self.residence(bucket), Residence::Absent, "what is in memory can be read");
        let mut image = IoBuf::zeroed(BUCKET_BYTES);
        crate::btree::empty_leaf(&mut image);
        bucket::seal(&mut image, inner.id, bucket, BucketKind::Node, self.newest());
        let written = inner.device.write(image.into_bytes(), bucket.byte_address(), How::Direct);
        written.await.map_err(|error| Error::Device {
            what: "a bucket that is mended",
            address: bucket.byte_address(),
            kind: error.kind(),
        })?;
        inner.flush().await
    }

    /// What opening met and put right, which is home by now: nobody need be told again.
    ///
    /// # Errors
    /// Those of the device.
    pub(crate) async fn put_right_at_open(&self) -> Result<Vec<Damage>> {
        if self.inner.found_at_open.borrow().is_empty() {
            return Ok(Vec::new());
        }
        // Of everything that opening puts right there is a whole copy on the device after a checkpoint.
        self.checkpoint().await?;
        Ok(std::mem::take(&mut *self.inner.found_at_open.borrow_mut()))
    }

    /// The segment table and the root are written home again where they were put right.
    pub(crate) async fn mend_fixed_places(&self) -> Result<()> {
        let _mending = Mending::new(&self.inner);
        self.write_mended().await
    }

    async fn write_mended(&self) -> Result<()> {
        let mended = self.inner.mended.borrow().clone();
        for bucket in &mended {
            self.write_home_again(*bucket).await?;
        }
        if !mended.is_empty() {
            self.checkpoint().await?;
        }
        // Some perhaps were put right once more for that.
        self.inner.mended.borrow_mut().retain(|bucket| !mended.contains(bucket));
        Ok(())
    }

    fn residence(&self, bucket: BucketId) -> Residence {
        let state = self.inner.state.borrow();
        match state.arena.peek(bucket) {
            Some(frame) if frame.is_clean() => Residence::Clean,
            Some(_) => Residence::Changed,
            None => Residence::Absent,
        }
    }
}

/// While one lives, what is put right when it is loaded is left to who put it up. Several may, and any of them may be dropped.
struct Mending<'s>(&'s Inner);

impl<'s> Mending<'s> {
    fn new(inner: &'s Inner) -> Self {
        inner.mending.update(|many| many + 1);
        Self(inner)
    }
}

impl Drop for Mending<'_> {
    fn drop(&mut self) {
        self.0.mending.update(|many| many - 1);
    }
}

/// Whether memory has a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Residence {
    Absent,
    Clean,
    Changed,
}
