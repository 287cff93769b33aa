//! Carving a device into areas.

use super::LabelError;

/// Unit of the space area.
pub const SEGMENT_BYTES: u64 = 1 << 20;

const HEADER: Area = Area { start: 8192, bytes: 8192 };
const STRIP: Area = Area { start: 1 << 20, bytes: 4 << 20 };
const WAL_START: u64 = 8 << 20;
const SPACE_SEGMENTS_MIN: u64 = 4;
/// Smallest WAL: 64 blocks of 4 KiB, rounded up to a segment.
const WAL_BYTES_MIN: u64 = SEGMENT_BYTES;

/// Smallest device that a store fits on.
pub(super) const DEVICE_BYTES_MIN: u64 =
    WAL_START + WAL_BYTES_MIN + SPACE_SEGMENTS_MIN * SEGMENT_BYTES;

const _: () = assert!(HEADER.start >= 2 * super::COPY_BYTES, "the labels come first");
const _: () = assert!(HEADER.end() <= STRIP.start && STRIP.end() <= WAL_START);
const _: () = assert!(WAL_START.is_multiple_of(SEGMENT_BYTES));

/// A range of the device, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    pub start: u64,
    pub bytes: u64,
}

impl Area {
    /// One past the last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.bytes
    }

    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        self.start <= address && address < self.end()
    }
}

/// Where everything is. In order of address, never overlapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Areas {
    /// Two checkpoint header slots of 4 KiB.
    pub header: Area,
    /// Double-write strip.
    pub strip: Area,
    pub wal: Area,
    /// Whole segments of data and metadata.
    pub space: Area,
}

impl Areas {
    /// Areas for a device of `device_bytes`; with `wal_bytes`, a WAL of that size (rounded up to segments).
    ///
    /// # Errors
    /// When the device is too small.
    pub fn plan(device_bytes: u64, wal_bytes: Option<u64>) -> Result<Self, LabelError> {
        let wal_bytes = wal_bytes
            .unwrap_or_else(|| wal_bytes_for(device_bytes))
            .max(WAL_BYTES_MIN)
            .next_multiple_of(SEGMENT_BYTES);
        let min = WAL_START + wal_bytes + SPACE_SEGMENTS_MIN * SEGMENT_BYTES;
        if device_bytes < min {
            return Err(LabelError::TooSmall { bytes: device_bytes, min });
        }
        let wal = Area { start: WAL_START, bytes: wal_bytes };
        let space_bytes = (device_bytes - wal.end()) / SEGMENT_BYTES * SEGMENT_BYTES;
        let space = Area { start: wal.end(), bytes: space_bytes };
        Ok(Self { header: HEADER, strip: STRIP, wal, space })
    }

    /// In order of address.
    pub(super) fn all(&self) -> [Area; 4] {
        [self.header, self.strip, self.wal, self.space]
    }

    /// What every label must hold of its areas.
    pub(super) fn check(&self, device_bytes: u64) -> Result<(), &'static str> {
        let mut end = 2 * super::COPY_BYTES;
        for area in self.all() {
            if area.start < end || area.bytes == 0 {
                return Err("areas overlap or are empty");
            }
            end = area.start.checked_add(area.bytes).ok_or("an area ends past 2^64")?;
        }
        if end > device_bytes {
            return Err("an area reaches past the device");
        }
        let unit = |area: &Area| {
            area.start.is_multiple_of(SEGMENT_BYTES) && area.bytes.is_multiple_of(SEGMENT_BYTES)
        };
        if !unit(&self.wal) || !unit(&self.space) {
            return Err("WAL or space are not whole segments");
        }
        Ok(())
    }
}

/// 1/64 of the device between 16 and 128 MiB; on small devices (tests) 1/16 of it.
fn wal_bytes_for(device_bytes: u64) -> u64 {
    if device_bytes < 256 << 20 {
        device_bytes / 16
    } else {
        (device_bytes / 64).clamp(16 << 20, 128 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_every_size_are_sound_and_use_the_device() {
        let mut device_bytes = DEVICE_BYTES_MIN;
        while device_bytes < 1 << 45 {
            let areas = Areas::plan(device_bytes, None).unwrap();
            areas.check(device_bytes).unwrap();
            assert!(device_bytes - areas.space.end() < SEGMENT_BYTES);
            assert!(areas.wal.bytes <= 128 << 20);
            device_bytes += device_bytes / 3 + 512;
        }
        assert!(Areas::plan(DEVICE_BYTES_MIN - 1, None).is_err());
        assert_eq!(Areas::plan(1 << 30, Some(1)).unwrap().wal.bytes, WAL_BYTES_MIN);
    }

    #[test]
    fn senseless_areas_are_found() {
        let good = Areas::plan(1 << 30, None).unwrap();
        let mut overlap = good;
        overlap.space.start -= SEGMENT_BYTES;
        assert!(overlap.check(1 << 30).is_err());
        assert!(good.check(1 << 29).is_err());
        let mut endless = good;
        endless.space.bytes = u64::MAX - SEGMENT_BYTES + 1;
        assert!(endless.check(1 << 30).is_err());
    }
}
