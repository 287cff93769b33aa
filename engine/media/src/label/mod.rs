//! The label: whose device this is, and where its areas are. Two copies, so that a torn or rotten one is survived.
//!
//! # On disk
//! `FORMAT.md`.
//!
//! # Order
//! [`begin_format`] writes a label that says *being formatted*; the store then fills its areas; [`Formatting::finish`] flushes them
//! and writes the label that says *ready*. A format that did not finish may be begun again; no other content is ever
//! overwritten.

mod area;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod probe;
mod record;

use std::io;

use daos_types::{Csum, StoreId};

pub use area::{Area, Areas, SEGMENT_BYTES};
pub use record::{COPY_BYTES, Label, VERSION};

use crate::IoBuf;
use crate::device::{Device, How};
use record::{RawLabel, State, Verified};

/// Where the copies are.
const COPIES: [u64; 2] = [0, COPY_BYTES];

#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    // The caller is wrong.
    #[error(
        "the device holds {found}, and is left as it is; if that is not needed, erase it first (wipefs -a, or truncate -s 0 for a file)"
    )]
    Foreign { found: String },
    #[error("the device holds no daosfs store but {found}")]
    NoStore { found: String },
    #[error("the device is empty")]
    Empty,
    #[error("the format of a daosfs store did not finish; format it again")]
    Unfinished,
    #[error("the device holds a daosfs store already: {}", .0.0)]
    StoreExists(StoreId),
    #[error(
        "this store has version {version} of the label, and this program reads up to {VERSION}: use a newer one"
    )]
    Newer { version: u32 },
    #[error(
        "the device holds a daosfs store that uses features this program does not know: {features:#x}"
    )]
    Features { features: u64 },
    #[error("a store needs at least {min} bytes, the device has {bytes}")]
    TooSmall { bytes: u64, min: u64 },
    #[error(
        "the store was made for {formatted} bytes, and its device has {bytes} now: is this the whole device?"
    )]
    Shrunk { bytes: u64, formatted: u64 },

    // The world failed.
    #[error("reading or writing the label at byte {address} failed: {source}")]
    Device { address: u64, source: io::Error },

    // Our data is damaged.
    #[error(
        "both copies of the label are damaged: at byte {address} expected checksum {expected}, found {found}"
    )]
    Damaged { address: u64, expected: Csum, found: Csum },
    #[error("the label's checksum is right but its content is not: {0}")]
    Senseless(&'static str),
}

/// What reading the labels found.
#[derive(Clone, Debug)]
pub struct Read {
    pub label: Label,
    /// A copy that is damaged or out of date; [`repair`] rewrites it.
    pub bad_copy: Option<BadCopy>,
    /// The store uses features that may be read but not changed by this program.
    pub read_only: bool,
}

/// A copy of the label that is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCopy {
    /// Byte address on the device.
    pub address: u64,
    /// The checksum in it, and that of what is there; equal if the copy is out of date only.
    pub expected: Csum,
    pub found: Csum,
}

/// Reads and verifies the label of a store that is ready.
///
/// # Errors
/// The name of what the device holds instead, or what is wrong with the label.
pub async fn read(device: &dyn Device) -> Result<Read, LabelError> {
    let copies = read_copies(device).await?;
    let Some((label, state, bad_copy)) = choose(&copies)? else {
        let found = probe::name(device).await?;
        return Err(found.map_or(LabelError::Empty, |found| LabelError::NoStore { found }));
    };
    if state == State::Formatting {
        return Err(LabelError::Unfinished);
    }
    if label.device_bytes > device.size() {
        return Err(LabelError::Shrunk { bytes: device.size(), formatted: label.device_bytes });
    }
    if label.unknown_incompat() != 0 {
        return Err(LabelError::Features { features: label.unknown_incompat() });
    }
    let read_only = label.unknown_ro_compat() != 0;
    let bad_copy = bad_copy.map(|address| {
        let (expected, found) = copies[usize::from(address != COPIES[0])].sums();
        BadCopy { address, expected, found }
    });
    Ok(Read { label, bad_copy, read_only })
}

/// Writes both copies of a label that was read with a bad copy.
///
/// # Errors
/// Those of the device.
pub async fn repair(device: &dyn Device, label: &Label) -> Result<(), LabelError> {
    write(device, label, State::Ready).await
}

/// Whether [`begin_format`] would accept the device.
///
/// # Errors
/// Why not: by the name of what is there.
pub async fn check_formatable(device: &dyn Device) -> Result<(), LabelError> {
    match choose(&read_copies(device).await?)? {
        Some((_, State::Formatting, _)) => return Ok(()),
        Some((label, State::Ready, _)) => return Err(LabelError::StoreExists(label.store)),
        None => {}
    }
    match probe::name(device).await? {
        Some(found) => Err(LabelError::Foreign { found }),
        None => Ok(()),
    }
}

/// Claims an empty device for a store.
///
/// # Errors
/// When the device holds anything, by its name; when it is too small; and those of the device.
pub async fn begin_format(
    device: &dyn Device,
    store: StoreId,
    created_unix_ns: u64,
    wal_bytes: Option<u64>,
) -> Result<Formatting, LabelError> {
    check_formatable(device).await?;
    let areas = Areas::plan(device.size(), wal_bytes)?;
    let label = Label::new(store, created_unix_ns, device.size(), areas);
    write(device, &label, State::Formatting).await?;
    Ok(Formatting { label })
}

/// A device that is claimed, and whose areas are being filled.
#[must_use = "the device is no store before finish"]
pub struct Formatting {
    label: Label,
}

impl Formatting {
    #[must_use]
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Makes what was written stable, records where the root is, and declares the store ready.
    ///
    /// # Errors
    /// Those of the device.
    ///
    /// # Panics
    /// When the root is outside the space.
    pub async fn finish(mut self, device: &dyn Device, root: u64) -> Result<Label, LabelError> {
        assert!(self.label.areas.space.contains(root), "the root is in the space");
        self.label.root = root;
        device.flush().await.map_err(|source| LabelError::Device { address: 0, source })?;
        write(device, &self.label, State::Ready).await?;
        Ok(self.label)
    }
}

async fn read_copies(device: &dyn Device) -> Result<[RawLabel; 2], LabelError> {
    let end = COPIES[1] + COPY_BYTES;
    if device.size() < end {
        return Err(LabelError::TooSmall { bytes: device.size(), min: area::DEVICE_BYTES_MIN });
    }
    let buffer = IoBuf::zeroed(end as usize);
    let bytes = device
        .read(buffer, 0, How::Buffered)
        .await
        .map_err(|source| LabelError::Device { address: 0, source })?;
    Ok(COPIES.map(|at| RawLabel::new(&bytes[at as usize..][..COPY_BYTES as usize])))
}

/// The newest good copy with its state, and the address of a copy to repair. `None`: no copy is a label at all.
fn choose(copies: &[RawLabel; 2]) -> Result<Option<(Label, State, Option<u64>)>, LabelError> {
    let [first, second] = [copies[0].verify(0), copies[1].verify(1)];
    Ok(match (first, second) {
        (Verified::Good(one), Verified::Good(two)) => {
            // Written one after the other: when they differ, ready is newer than being formatted.
            if one == two {
                Some((one.0, one.1, None))
            } else if two.1 > one.1 {
                Some((two.0, two.1, Some(COPIES[0])))
            } else {
                Some((one.0, one.1, Some(COPIES[1])))
            }
        }
        // A newer program that was interrupted: the copy that it has not come to yet is not the store's any more. (One whose
        // checksum is not right where ours is has a flipped bit in its version.)
        (Verified::Newer(version), Verified::Good(_)) if copies[0].is_right() => {
            return Err(LabelError::Newer { version });
        }
        (Verified::Good(_), Verified::Newer(version)) if copies[1].is_right() => {
            return Err(LabelError::Newer { version });
        }
        (Verified::Good(good), _) => Some((good.0, good.1, Some(COPIES[1]))),
        (_, Verified::Good(good)) => Some((good.0, good.1, Some(COPIES[0]))),
        (Verified::Newer(version), _) | (_, Verified::Newer(version)) => {
            return Err(LabelError::Newer { version });
        }
        (Verified::Senseless(why), _) | (_, Verified::Senseless(why)) => {
            return Err(LabelError::Senseless(why));
        }
        (Verified::Damaged { expected, found }, _) => {
            return Err(LabelError::Damaged { address: COPIES[0], expected, found });
        }
        (_, Verified::Damaged { expected, found }) => {
            return Err(LabelError::Damaged { address: COPIES[1], expected, found });
        }
        (Verified::Absent, Verified::Absent) => None,
    })
}

/// One copy after the other, each stable before the next: a cut leaves at least one.
async fn write(device: &dyn Device, label: &Label, state: State) -> Result<(), LabelError> {
    for (copy, address) in COPIES.into_iter().enumerate() {
        let error = |source| LabelError::Device { address, source };
        let bytes = IoBuf::copy_of(&label.encode(state, copy as u32)).into_bytes();
        device.write(bytes, address, How::Buffered).await.map_err(error)?;
        device.flush().await.map_err(error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, FaultDevice, Kind, MemDevice};
    use bytes::Bytes;
    use daos_xstream::sim;
    use std::rc::Rc;

    const SIZE: u64 = 64 << 20;

    fn store() -> StoreId {
        StoreId(uuid::Uuid::from_u128(0x1234))
    }

    async fn format(device: &dyn Device) -> Result<Label, LabelError> {
        let formatting = begin_format(device, store(), 77, None).await?;
        let root = formatting.label().areas.space.start;
        formatting.finish(device, root).await
    }

    async fn write_at(device: &dyn Device, address: u64, bytes: &[u8]) {
        let sector = address - address % 512;
        let mut buffer = device.read(IoBuf::zeroed(8192), sector, How::Buffered).await.unwrap();
        buffer[(address - sector) as usize..][..bytes.len()].copy_from_slice(bytes);
        device.write(buffer.into_bytes(), sector, How::Buffered).await.unwrap();
    }

    #[test]
    fn a_formatted_device_is_read_back_and_not_formatted_again() {
        sim::run(1, |_| async {
            let device = MemDevice::new(SIZE);
            assert!(matches!(read(&*device).await, Err(LabelError::Empty)));
            let written = format(&*device).await.unwrap();
            let found = read(&*device).await.unwrap();
            assert_eq!(found.label, written);
            assert_eq!((found.bad_copy, found.read_only), (None, false));
            let again = format(&*device).await;
            assert!(matches!(again, Err(LabelError::StoreExists(id)) if id == store()));
        });
    }

    #[test]
    fn one_damaged_copy_is_survived_and_repaired_and_two_are_named() {
        for copy in COPIES {
            sim::run(1, move |handle| async move {
                let device = FaultDevice::new(MemDevice::new(SIZE), handle, 1);
                let written = format(&*device).await.unwrap();
                device.rot(copy + 100, 1).await.unwrap();
                let found = read(&*device).await.unwrap();
                let bad = found.bad_copy.unwrap();
                assert_eq!((&found.label, bad.address), (&written, copy));
                assert_ne!(bad.expected, bad.found);
                repair(&*device, &found.label).await.unwrap();
                assert_eq!(read(&*device).await.unwrap().bad_copy, None);
                device.rot(100, 1).await.unwrap();
                device.rot(COPY_BYTES + 100, 1).await.unwrap();
                assert!(matches!(read(&*device).await, Err(LabelError::Damaged { .. })));
                assert!(matches!(format(&*device).await, Err(LabelError::Damaged { .. })));
            });
        }
    }

    #[test]
    fn a_swapped_copy_is_not_taken() {
        sim::run(1, |_| async {
            let device = MemDevice::new(SIZE);
            format(&*device).await.unwrap();
            let second = device.read(IoBuf::zeroed(4096), COPIES[1], How::Buffered).await.unwrap();
            device.write(second.into_bytes(), COPIES[0], How::Buffered).await.unwrap();
            let bad = read(&*device).await.unwrap().bad_copy.unwrap();
            assert_eq!((bad.address, bad.expected), (COPIES[0], bad.found));
        });
    }

    #[test]
    fn a_format_that_power_ended_at_any_step_can_be_begun_again_or_is_whole() {
        let mut ready = 0;
        for seed in 0..60 {
            let kind = if seed % 2 == 0 { Kind::Write } else { Kind::Flush };
            ready += sim::run(seed, move |handle| async move {
                let device = FaultDevice::new(MemDevice::new(SIZE), handle, seed);
                device.aim(kind, seed / 2 % 5 + 1, Fault::Cut);
                let finished = format(&*device).await.is_ok();
                device.cut();
                let device: Rc<dyn Device> = device.survivor().await.unwrap();
                match read(&*device).await {
                    Ok(_) => 1,
                    Err(LabelError::Empty | LabelError::Unfinished) => {
                        assert!(!finished);
                        format(&*device).await.unwrap();
                        0
                    }
                    Err(error) => panic!("{error}"),
                }
            });
        }
        assert!(0 < ready && ready < 60, "both outcomes were met");
    }

    #[test]
    fn newer_versions_and_unknown_features_are_refused_by_name() {
        sim::run(1, |_| async {
            let device = MemDevice::new(SIZE);
            let label = format(&*device).await.unwrap();
            write(&*device, &Label { incompat: 1 << 40, ..label.clone() }, State::Ready)
                .await
                .unwrap();
            let features = read(&*device).await.unwrap_err();
            assert!(matches!(features, LabelError::Features { features: 0x100_0000_0000 }));
            write(&*device, &Label { ro_compat: 2, ..label.clone() }, State::Ready).await.unwrap();
            assert!(read(&*device).await.unwrap().read_only);
            for copy in COPIES {
                write_at(&*device, copy + 8, &9u32.to_le_bytes()).await;
            }
            let newer = read(&*device).await.unwrap_err();
            assert!(matches!(newer, LabelError::Newer { version: 9 }));
            assert!(newer.to_string().contains("has version 9 of the label"), "{newer}");
            assert!(newer.to_string().contains("reads up to 1: use a newer one"), "{newer}");
            assert!(matches!(format(&*device).await, Err(LabelError::Newer { version: 9 })));
            // Of two copies a newer one counts, unless it is ours with a flipped bit.
            for copy in [0, 1] {
                write(&*device, &label, State::Ready).await.unwrap();
                write_at(&*device, COPIES[copy] + 8, &9u32.to_le_bytes()).await;
                assert_eq!(read(&*device).await.unwrap().bad_copy.unwrap().address, COPIES[copy]);
                let mut bytes = label.encode(State::Ready, copy as u32);
                bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
                bytes[12..16].fill(0);
                let csum = daos_types::crc32c(&bytes);
                bytes[12..16].copy_from_slice(&csum.0.to_le_bytes());
                write_at(&*device, COPIES[copy], &bytes).await;
                let newer = read(&*device).await.unwrap_err();
                assert!(matches!(newer, LabelError::Newer { version: 9 }), "{newer}");
            }
        });
    }

    #[test]
    fn a_device_that_shrank_or_is_too_small_is_refused() {
        sim::run(1, |_| async {
            let large = MemDevice::new(SIZE);
            format(&*large).await.unwrap();
            let small = MemDevice::new(SIZE / 2);
            let label = large.read(IoBuf::zeroed(8192), 0, How::Buffered).await.unwrap();
            small.write(label.into_bytes(), 0, How::Buffered).await.unwrap();
            assert!(matches!(read(&*small).await, Err(LabelError::Shrunk { .. })));
            let tiny = MemDevice::new(1 << 20);
            assert!(matches!(format(&*tiny).await, Err(LabelError::TooSmall { .. })));
        });
    }

    #[test]
    fn foreign_content_is_named_and_untouched() {
        sim::run(1, |_| async {
            let device = MemDevice::new(SIZE);
            device.write(Bytes::from_static(&[1; 512]), 40960, How::Buffered).await.unwrap();
            let error = format(&*device).await.unwrap_err();
            assert!(error.to_string().contains("data of an unknown kind"), "{error}");
            let start = device.read(IoBuf::zeroed(8192), 0, How::Buffered).await.unwrap();
            assert!(start.iter().all(|byte| *byte == 0));
        });
    }
}
