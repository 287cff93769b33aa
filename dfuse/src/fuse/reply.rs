//! Answers: values of dfs as the kernel's structures, and the value that must become an answer.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use dfs::{Attr, Entry, Error, Ino, Kind, Space, Time};
use zerocopy::{Immutable, IntoBytes};

use super::channel::Device;
use super::{abi, notify};
use crate::notices::Notice;

/// What is owed to one request. Dropped without an answer it answers with an I/O error, so that no program waits for ever.
#[derive(Debug)]
pub struct Reply {
    device: Arc<Device>,
    unique: u64,
    owed: bool,
}

impl Reply {
    pub fn new(device: Arc<Device>, unique: u64) -> Self {
        Self { device, unique, owed: true }
    }

    /// Before the answer: the kernel is to ask for attributes again, of an inode that the call holds there, so that this waits for nothing
    /// (`notices.rs`). A notice after the answer could meet the next question, whose answer the kernel would not take in then.
    pub fn tell(&self, nodes: Nodes, ino: Ino) {
        let _known = notify::send(&self.device, nodes, &Notice::Attributes(ino));
    }

    pub fn ok(self) {
        self.data(&[]);
    }

    /// `errno` as `errno.h` counts: positive.
    pub fn error(mut self, errno: i32) {
        self.send(-errno, &[]);
    }

    pub fn data(mut self, data: &[u8]) {
        self.send(0, data);
    }

    pub fn value(self, value: &(impl IntoBytes + Immutable)) {
        self.data(value.as_bytes());
    }

    fn send(&mut self, error: i32, data: &[u8]) {
        self.owed = false;
        let len = (size_of::<abi::OutHeader>() + data.len()) as u32;
        let header = abi::OutHeader { len, error, unique: self.unique };
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(data)];
        self.device.send(if data.is_empty() { &parts[..1] } else { &parts });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.owed {
            self.send(-libc::EIO, &[]);
        }
    }
}

/// The errno of a failure; one that nobody expects is written to the log.
pub fn errno(error: &Error) -> i32 {
    let number = error.errno();
    if matches!(number, libc::EIO | libc::EUCLEAN | libc::EPROTO | libc::ENOTCONN) {
        tracing::error!("a request failed: {error}");
    }
    number
}

/// Between inode numbers and the kernel's nodes: node 1 is the root directory and the root directory is node 1.
#[derive(Clone, Copy, Debug)]
pub struct Nodes {
    pub root: Ino,
}

impl Nodes {
    pub fn ino(self, node: u64) -> Ino {
        if node == abi::ROOT_NODE { self.root } else { Ino(node) }
    }

    pub fn node(self, ino: Ino) -> u64 {
        if ino == self.root { abi::ROOT_NODE } else { ino.0 }
    }

    fn attr(self, attr: &Attr) -> abi::Attr {
        abi::Attr {
            ino: self.node(attr.ino),
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime.sec as u64,
            mtime: attr.mtime.sec as u64,
            ctime: attr.ctime.sec as u64,
            atime_nsec: attr.atime.nsec,
            mtime_nsec: attr.mtime.nsec,
            ctime_nsec: attr.ctime.nsec,
            mode: attr.mode,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            blksize: attr.blksize,
            flags: 0,
        }
    }

    pub fn attr_out(self, attr: &Attr, valid: Duration) -> abi::AttrOut {
        abi::AttrOut {
            valid: valid.as_secs(),
            valid_nsec: valid.subsec_nanos(),
            padding: 0,
            attr: self.attr(attr),
        }
    }

    /// Its generation is 0, because numbers are never used again.
    pub fn entry_out(self, entry: &Entry, name: Duration, attr: Duration) -> abi::EntryOut {
        abi::EntryOut {
            node: self.node(entry.attr.ino),
            generation: 0,
            entry_valid: name.as_secs(),
            entry_valid_nsec: name.subsec_nanos(),
            attr_valid: attr.as_secs(),
            attr_valid_nsec: attr.subsec_nanos(),
            attr: self.attr(&entry.attr),
        }
    }

    pub fn statx_out(self, attr: &Attr, valid: Duration) -> abi::StatxOut {
        let time = |time: Time| abi::StatxTime { sec: time.sec, nsec: time.nsec, reserved: 0 };
        let stat = abi::Statx {
            mask: abi::STATX_ALL,
            blksize: attr.blksize,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            mode: attr.mode as u16,
            ino: self.node(attr.ino),
            size: attr.size,
            blocks: attr.blocks,
            atime: time(attr.atime),
            btime: time(attr.btime),
            ctime: time(attr.ctime),
            mtime: time(attr.mtime),
            rdev_major: (attr.rdev >> 8) & 0xfff,
            rdev_minor: (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xf_ff00),
            ..Default::default()
        };
        abi::StatxOut {
            valid: valid.as_secs(),
            valid_nsec: valid.subsec_nanos(),
            stat,
            ..Default::default()
        }
    }
}

/// What tells the kernel that a name does not exist, for as long as it may believe it: an entry for node 0.
pub fn absent(valid: Duration) -> abi::EntryOut {
    abi::EntryOut {
        entry_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        ..Default::default()
    }
}

pub fn statfs_out(space: &Space) -> abi::StatfsOut {
    let unit = u64::from(space.block_bytes.max(1));
    abi::StatfsOut {
        blocks: space.capacity / unit,
        blocks_free: space.free / unit,
        blocks_available: space.available / unit,
        files: space.inodes,
        files_free: space.inodes_free,
        block_bytes: space.block_bytes,
        name_bytes_max: space.name_bytes_max,
        fragment_bytes: space.block_bytes,
        ..Default::default()
    }
}

/// Entries of a READDIR or READDIRPLUS, at most as many bytes as the kernel has room for.
pub struct Listing {
    bytes: Vec<u8>,
    bytes_max: usize,
}

/// Names that nobody knows yet are taken to be so long.
const NAME_BYTES_GUESS: usize = 16;

impl Listing {
    pub fn new(bytes_max: u32) -> Self {
        let bytes_max = bytes_max as usize;
        Self { bytes: Vec::with_capacity(bytes_max.min(128 << 10)), bytes_max }
    }

    /// How many more entries are worth asking for: what fits if names are as long as those so far. 0: it is full enough.
    pub fn entries_wanted(&self, with_attributes: bool, so_far: usize) -> usize {
        let fixed = fixed_bytes(with_attributes);
        let each = match so_far {
            0 => (fixed + NAME_BYTES_GUESS).next_multiple_of(abi::DIRENT_ALIGN),
            n => self.bytes.len().div_ceil(n),
        };
        let room = self.bytes_max - self.bytes.len();
        // The last eighth is not worth another look into the directory.
        if so_far > 0 && room < self.bytes_max / 8 { 0 } else { (room / each).max(1) }
    }

    /// Adds an entry; false when it has no room. `entry`: of READDIRPLUS.
    #[must_use]
    pub fn add(
        &mut self,
        entry: Option<&abi::EntryOut>,
        node: u64,
        cookie: u64,
        kind: Kind,
        name: &[u8],
    ) -> bool {
        let len = (fixed_bytes(entry.is_some()) + name.len()).next_multiple_of(abi::DIRENT_ALIGN);
        if self.bytes.len() + len > self.bytes_max {
            return false;
        }
        let end = self.bytes.len() + len;
        if let Some(entry) = entry {
            self.bytes.extend_from_slice(entry.as_bytes());
        }
        let dirent = abi::Dirent {
            ino: node,
            cookie,
            name_bytes: name.len() as u32,
            // S_IFMT's bits are DT_*'s, shifted.
            kind: kind as u32 >> 12,
        };
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

const fn fixed_bytes(with_attributes: bool) -> usize {
    size_of::<abi::Dirent>() + if with_attributes { size_of::<abi::EntryOut>() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: Nodes = Nodes { root: Ino(77) };

    fn attr() -> Attr {
        let time = |sec| Time { sec, nsec: 5 };
        Attr {
            ino: Ino(77),
            kind: Kind::CharDevice,
            mode: libc::S_IFCHR | 0o640,
            nlink: 1,
            uid: 2,
            gid: 3,
            rdev: 0x1234_5678,
            size: 4,
            blocks: 8,
            blksize: 4096,
            atime: time(-2),
            mtime: time(20),
            ctime: time(30),
            btime: time(40),
        }
    }

    #[test]
    fn the_root_is_node_1_and_back() {
        assert_eq!((NODES.ino(1), NODES.node(Ino(77))), (Ino(77), 1));
        assert_eq!((NODES.ino(9), NODES.node(Ino(9))), (Ino(9), 9));
        assert_eq!(NODES.attr_out(&attr(), Duration::from_millis(1500)).attr.ino, 1);
    }

    #[test]
    fn times_before_1970_keep_their_fraction() {
        let out = NODES.attr_out(&attr(), Duration::from_millis(1500));
        assert_eq!((out.attr.atime as i64, out.attr.atime_nsec), (-2, 5));
        assert_eq!((out.valid, out.valid_nsec), (1, 500_000_000));
        let statx = NODES.statx_out(&attr(), Duration::ZERO).stat;
        assert_eq!((statx.atime.sec, statx.btime.sec, statx.btime.nsec), (-2, 40, 5));
    }

    #[test]
    fn device_numbers_are_split_as_the_kernel_joins_them() {
        let stat = NODES.statx_out(&attr(), Duration::ZERO).stat;
        let device = u64::from(attr().rdev);
        assert_eq!((stat.rdev_major, stat.rdev_minor), (libc::major(device), libc::minor(device)));
    }

    #[test]
    fn a_listing_is_never_longer_than_the_kernels_room() {
        for (room, plus, name) in
            [(4096, true, 8), (32768, true, 30), (512, false, 255), (100, true, 9)]
        {
            let mut listing = Listing::new(room);
            let entry = plus.then(abi::EntryOut::default);
            let name = vec![b'n'; name];
            let mut count = 0;
            while listing.add(entry.as_ref(), 1, 2, Kind::File, &name) {
                count += 1;
            }
            let each = (fixed_bytes(plus) + name.len()).next_multiple_of(8);
            assert_eq!((count, listing.bytes().len()), (room as usize / each, count * each));
        }
    }

    #[test]
    fn one_question_mostly_fills_a_listing() {
        let mut listing = Listing::new(32 << 10);
        let wanted = listing.entries_wanted(true, 0);
        assert_eq!(wanted, (32 << 10) / 168);
        for _ in 0..wanted {
            assert!(listing.add(
                Some(&abi::EntryOut::default()),
                1,
                2,
                Kind::File,
                b"sixteen bytes at"
            ));
        }
        assert_eq!(listing.entries_wanted(true, wanted), 0);
        let empty = Listing::new(0);
        assert_eq!(empty.entries_wanted(false, 0), 1, "the kernel's room may be absurd");
    }
}
