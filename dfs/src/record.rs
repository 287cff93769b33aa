//! The inode record: DAOS layout 3's 88 bytes and our extension, and nothing else. FORMAT.md shows the bytes.
//!
//! # Invariants
//! 1. `decode(encode(r)) == r`, including bytes of a newer extension that this version does not know.
//! 2. Any change of a stored record raises `version`; (checksum, version, ino) therefore prove a record that was read.
//! 3. A record whose checksum does not match is damage, never attributes.

use bytes::Bytes;
use daos_types::{Csum, Flip, ObjectId, crc32c, flipped_bit};

use crate::{Error, Ino, Kind, Result, Time};

/// DAOS layout 3 ends here.
const BASE_BYTES: usize = 88;
/// Our extension's length in version 1.
const EXTENSION_BYTES: usize = 64;
/// Length of a record that this version makes.
pub(crate) const RECORD_BYTES: usize = BASE_BYTES + EXTENSION_BYTES;
/// A record may grow to this; fetches ask for so much.
pub(crate) const RECORD_BYTES_MAX: u64 = 512;
const EXTENSION_VERSION: u16 = 1;

/// Where the checksum, version and ino lie, next to each other: what a condition compares.
const PROOF: std::ops::Range<usize> = 92..112;
const CSUM: std::ops::Range<usize> = 92..96;

/// Bits of [`Record::flags`].
pub(crate) mod flag {
    /// The entry names an inode whose record is in the inode table; only type, oid and ino count here.
    pub(crate) const REFERENCE: u32 = 1;
    /// The inode has, or had, xattrs: without it nobody needs to look.
    pub(crate) const XATTRS: u32 = 2;
    /// An inode made without a name (O_TMPFILE) that may still get one.
    pub(crate) const LINKABLE: u32 = 4;
    /// A POSIX ACL is stored beside the record: its owner, mask and other are the mode's bits.
    pub(crate) const ACL: u32 = 8;
    /// The directory has a default ACL.
    pub(crate) const DEFAULT_ACL: u32 = 16;
    /// `security.capability` is stored beside the record: writes, truncates and chowns take it away.
    pub(crate) const CAPABILITY: u32 = 32;
}

/// An inode, as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) mode: u32,
    pub(crate) oid: ObjectId,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    /// File: bytes of a chunk. Directory: default for children, 0 = the container's.
    pub(crate) chunk_bytes: u64,
    pub(crate) class: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Symlink: length of the target.
    pub(crate) value_len: u64,
    /// `mtime` holds while the data epoch (directory: the stamp) is at or below this.
    pub(crate) mtime_epoch: u64,
    pub(crate) version: u64,
    pub(crate) ino: Ino,
    /// The file is at least this long.
    pub(crate) size_floor: u64,
    pub(crate) atime: Time,
    pub(crate) nlink: u32,
    /// Birth, nanoseconds since the Unix epoch.
    pub(crate) btime: u64,
    pub(crate) flags: u32,
    pub(crate) rdev: u32,
    /// What a newer version keeps behind our extension.
    pub(crate) tail: Bytes,
}

impl Record {
    pub(crate) fn kind(&self) -> Kind {
        Kind::of_mode(self.mode).expect("decode and create let only known types in")
    }

    pub(crate) fn is_reference(&self) -> bool {
        self.flags & flag::REFERENCE != 0
    }

    pub(crate) fn may_have_xattrs(&self) -> bool {
        self.flags & flag::XATTRS != 0
    }

    pub(crate) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The entry that names this inode once its record is in the inode table: who it is, and nothing else, so that every
    /// reference to an inode has the same bytes.
    pub(crate) fn reference(&self) -> Self {
        Self {
            mode: self.mode & libc::S_IFMT,
            oid: self.oid,
            mtime: Time::default(),
            ctime: Time::default(),
            chunk_bytes: 0,
            class: self.class,
            uid: 0,
            gid: 0,
            value_len: 0,
            mtime_epoch: 0,
            version: 0,
            ino: self.ino,
            size_floor: 0,
            atime: Time::default(),
            nlink: 0,
            btime: 0,
            flags: flag::REFERENCE,
            rdev: 0,
            tail: Bytes::new(),
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = vec![0; RECORD_BYTES + self.tail.len()];
        self.encode_base(&mut bytes);
        self.encode_extension(&mut bytes);
        bytes[RECORD_BYTES..].copy_from_slice(&self.tail);
        let csum = checksum(&bytes);
        bytes[CSUM].copy_from_slice(&csum.to_le_bytes());
        bytes.into()
    }

    fn encode_base(&self, bytes: &mut [u8]) {
        let mut put = Put { bytes, at: 0 };
        put.u32(self.mode);
        put.u64(self.oid.lo);
        put.u64(self.oid.hi);
        put.u64(self.mtime.sec as u64);
        put.u64(self.ctime.sec as u64);
        put.u64(self.chunk_bytes);
        put.u32(self.class);
        put.u64(u64::from(self.mtime.nsec));
        put.u64(u64::from(self.ctime.nsec));
        put.u32(self.uid);
        put.u32(self.gid);
        put.u64(self.value_len);
        put.u64(self.mtime_epoch);
        assert_eq!(put.at, BASE_BYTES);
    }

    fn encode_extension(&self, bytes: &mut [u8]) {
        let mut put = Put { bytes, at: BASE_BYTES };
        let len = EXTENSION_BYTES + self.tail.len();
        put.u16(u16::try_from(len).expect("a tail comes from decode, which bounds it"));
        put.u16(EXTENSION_VERSION);
        put.u32(0);
        put.u64(self.version);
        put.u64(self.ino.0);
        put.u64(self.size_floor);
        put.u64(self.atime.sec as u64);
        put.u32(self.atime.nsec);
        put.u32(self.nlink);
        put.u64(self.btime);
        put.u32(self.flags);
        put.u32(self.rdev);
        assert_eq!(put.at, RECORD_BYTES);
    }

    /// `whose` names the record in a damage report.
    pub(crate) fn decode(bytes: &Bytes, whose: impl Fn() -> String) -> Result<Self> {
        Self::parse(bytes).map_err(|why| Error::Damaged {
            what: "inode record",
            whose: whose(),
            why,
        })
    }

    /// `data` with the checksum that it should have. For `tests/fuzz`.
    #[cfg(feature = "fuzz")]
    pub(crate) fn sealed(data: &[u8]) -> Bytes {
        let mut bytes = data.to_vec();
        bytes.resize(data.len().clamp(RECORD_BYTES, RECORD_BYTES_MAX as usize), 0);
        let end = BASE_BYTES + usize::from(Get { bytes: &bytes, at: BASE_BYTES }.u16());
        if (RECORD_BYTES..=bytes.len()).contains(&end) {
            let csum = checksum(&bytes[..end]);
            bytes[CSUM].copy_from_slice(&csum.to_le_bytes());
        }
        bytes.into()
    }

    /// A record that decodes when one bit of it is flipped back.
    pub(crate) fn mended(bytes: &Bytes) -> Option<Self> {
        if bytes.len() < RECORD_BYTES {
            return None;
        }
        let (stored, found) = (Get { bytes, at: CSUM.start }.u32(), checksum(bytes));
        let mut whole = bytes.to_vec();
        match flipped_bit(whole.len(), Csum(stored), Csum(found))? {
            Flip::Covered { byte, bit } => whole[byte] ^= 1 << bit,
            Flip::Checksum => whole[CSUM].copy_from_slice(&found.to_le_bytes()),
        }
        Self::parse(&whole.into()).ok()
    }

    fn parse(bytes: &Bytes) -> Result<Self, &'static str> {
        if bytes.len() < RECORD_BYTES {
            return Err("too short");
        }
        let extension = usize::from(Get { bytes, at: BASE_BYTES }.u16());
        let end = BASE_BYTES + extension;
        if end < RECORD_BYTES || end > bytes.len() || end as u64 > RECORD_BYTES_MAX {
            return Err("the extension's length is out of bounds");
        }
        if (Get { bytes, at: CSUM.start }).u32() != checksum(&bytes[..end]) {
            return Err("the checksum does not match");
        }
        let record = Self::parse_fields(&bytes.slice(..end));
        if Kind::of_mode(record.mode).is_none() {
            return Err("unknown file type");
        }
        if record.mtime.nsec >= NANOS || record.ctime.nsec >= NANOS || record.atime.nsec >= NANOS {
            return Err("nanoseconds out of range");
        }
        if record.kind() == Kind::File && record.chunk_bytes == 0 && !record.is_reference() {
            return Err("a file without a chunk size");
        }
        Ok(record)
    }

    fn parse_fields(bytes: &Bytes) -> Self {
        let mut get = Get { bytes, at: 0 };
        let mode = get.u32();
        let lo = get.u64();
        let hi = get.u64();
        let (mtime_sec, ctime_sec) = (get.u64() as i64, get.u64() as i64);
        let chunk_bytes = get.u64();
        let class = get.u32();
        let (mtime_nsec, ctime_nsec) = (get.nanos(), get.nanos());
        let (uid, gid) = (get.u32(), get.u32());
        let (value_len, mtime_epoch) = (get.u64(), get.u64());
        get.at = PROOF.start + 4;
        let (version, ino, size_floor) = (get.u64(), Ino(get.u64()), get.u64());
        let atime = Time { sec: get.u64() as i64, nsec: get.u32() };
        let nlink = get.u32();
        let btime = get.u64();
        let (flags, rdev) = (get.u32(), get.u32());
        Self {
            mode,
            oid: ObjectId { hi, lo },
            mtime: Time { sec: mtime_sec, nsec: mtime_nsec },
            ctime: Time { sec: ctime_sec, nsec: ctime_nsec },
            chunk_bytes,
            class,
            uid,
            gid,
            value_len,
            mtime_epoch,
            version,
            ino,
            size_floor,
            atime,
            nlink,
            btime,
            flags,
            rdev,
            tail: bytes.slice(RECORD_BYTES..),
        }
    }

    /// The bytes of `encoded` that prove which version of which inode it is, and their offset.
    pub(crate) fn proof(encoded: &Bytes) -> (u64, Bytes) {
        (PROOF.start as u64, encoded.slice(PROOF))
    }
}

const NANOS: u32 = 1_000_000_000;

/// Over everything but the checksum itself.
fn checksum(bytes: &[u8]) -> u32 {
    let mut image = bytes.to_vec();
    image[CSUM].fill(0);
    crc32c(&image).0
}

struct Put<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Put<'_> {
    fn raw(&mut self, raw: &[u8]) {
        self.bytes[self.at..self.at + raw.len()].copy_from_slice(raw);
        self.at += raw.len();
    }

    fn u16(&mut self, n: u16) {
        self.raw(&n.to_le_bytes());
    }

    fn u32(&mut self, n: u32) {
        self.raw(&n.to_le_bytes());
    }

    fn u64(&mut self, n: u64) {
        self.raw(&n.to_le_bytes());
    }
}

struct Get<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Get<'_> {
    fn raw<const N: usize>(&mut self) -> [u8; N] {
        let raw = self.bytes[self.at..self.at + N].try_into().expect("N bytes were sliced");
        self.at += N;
        raw
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.raw())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.raw())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.raw())
    }

    /// DAOS keeps nanoseconds in 8 bytes; what does not fit in 4 is out of range too.
    fn nanos(&mut self) -> u32 {
        u32::try_from(self.u64()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use daos_types::{ObjectClass, ObjectType};

    use super::*;

    pub(crate) fn sample() -> Record {
        Record {
            mode: libc::S_IFREG | 0o644,
            oid: ObjectId::new(ObjectType::ArrayByte, ObjectClass::SX, 0, 9),
            mtime: Time { sec: -5, nsec: 999_999_999 },
            ctime: Time { sec: 1 << 40, nsec: 1 },
            chunk_bytes: 1 << 20,
            class: 7,
            uid: 1,
            gid: 2,
            value_len: 0,
            mtime_epoch: 11,
            version: 12,
            ino: Ino(1 << 48 | 9),
            size_floor: u64::MAX,
            atime: Time { sec: 3, nsec: 4 },
            nlink: 1,
            btime: 5,
            flags: flag::XATTRS,
            rdev: 0x103,
            tail: Bytes::new(),
        }
    }

    fn decode(bytes: &Bytes) -> Result<Record> {
        Record::decode(bytes, || "test".into())
    }

    #[test]
    fn a_record_survives_its_bytes() {
        assert_eq!(decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn the_base_is_daos_layout_3() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), 152);
        assert_eq!(bytes[0..4], (libc::S_IFREG | 0o644).to_le_bytes());
        assert_eq!(bytes[4..12], 9_u64.to_le_bytes());
        assert_eq!(bytes[20..28], (-5_i64).to_le_bytes());
        assert_eq!(bytes[36..44], (1_u64 << 20).to_le_bytes());
        assert_eq!(bytes[48..56], 999_999_999_u64.to_le_bytes());
        assert_eq!(bytes[64..68], 1_u32.to_le_bytes());
        assert_eq!(bytes[80..88], 11_u64.to_le_bytes());
    }

    #[test]
    fn what_a_newer_version_adds_is_kept() {
        let newer = Record { tail: Bytes::from_static(b"later fields"), ..sample() };
        let read = decode(&newer.encode()).unwrap();
        assert_eq!(read.tail, newer.tail);
        assert_eq!(read.encode(), newer.encode());
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_short_record_is_damage() {
        let good = sample().encode();
        for len in 0..good.len() {
            assert!(decode(&good.slice(..len)).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn references_of_an_inode_are_alike() {
        let (one, other) = (sample(), Record { version: 99, uid: 5, ..sample() });
        assert_eq!(one.reference().encode(), other.reference().encode());
        assert_eq!(decode(&one.reference().encode()), Ok(one.reference()));
    }

    #[test]
    fn the_proof_tells_versions_apart() {
        let (at, old) = Record::proof(&sample().encode());
        let (_, new) = Record::proof(&Record { version: 13, ..sample() }.encode());
        assert_eq!(at, 92);
        assert_ne!(old, new);
    }
}
