//! How many requests of each kind the kernel has sent: what `daos fs query` shows and benches divide by.

use std::sync::atomic::{AtomicU64, Ordering};

/// A place for every opcode of `linux/fuse.h`; those above it are counted together, in place 0.
const OPCODES: usize = 64;

/// `enum fuse_opcode` of `linux/fuse.h`, by number.
const NAMES: [(usize, &str); 51] = [
    (0, "OTHER"),
    (1, "LOOKUP"),
    (2, "FORGET"),
    (3, "GETATTR"),
    (4, "SETATTR"),
    (5, "READLINK"),
    (6, "SYMLINK"),
    (8, "MKNOD"),
    (9, "MKDIR"),
    (10, "UNLINK"),
    (11, "RMDIR"),
    (12, "RENAME"),
    (13, "LINK"),
    (14, "OPEN"),
    (15, "READ"),
    (16, "WRITE"),
    (17, "STATFS"),
    (18, "RELEASE"),
    (20, "FSYNC"),
    (21, "SETXATTR"),
    (22, "GETXATTR"),
    (23, "LISTXATTR"),
    (24, "REMOVEXATTR"),
    (25, "FLUSH"),
    (26, "INIT"),
    (27, "OPENDIR"),
    (28, "READDIR"),
    (29, "RELEASEDIR"),
    (30, "FSYNCDIR"),
    (31, "GETLK"),
    (32, "SETLK"),
    (33, "SETLKW"),
    (34, "ACCESS"),
    (35, "CREATE"),
    (36, "INTERRUPT"),
    (37, "BMAP"),
    (38, "DESTROY"),
    (39, "IOCTL"),
    (40, "POLL"),
    (41, "NOTIFY_REPLY"),
    (42, "BATCH_FORGET"),
    (43, "FALLOCATE"),
    (44, "READDIRPLUS"),
    (45, "RENAME2"),
    (46, "LSEEK"),
    (47, "COPY_FILE_RANGE"),
    (48, "SETUPMAPPING"),
    (50, "SYNCFS"),
    (51, "TMPFILE"),
    (52, "STATX"),
    (53, "COPY_FILE_RANGE_64"),
];

/// Counts since the mount. One relaxed addition per request.
pub struct Requests([AtomicU64; OPCODES]);

impl Default for Requests {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; OPCODES])
    }
}

impl Requests {
    pub fn count(&self, opcode: u32) {
        let place = if (opcode as usize) < OPCODES { opcode as usize } else { 0 };
        self.0[place].fetch_add(1, Ordering::Relaxed);
    }

    /// The kinds that there were, by their names in `linux/fuse.h` without `FUSE_`.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let count = |place: usize| self.0[place].load(Ordering::Relaxed);
        NAMES.iter().map(|(place, name)| (*name, count(*place))).filter(|(_, n)| *n > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_name_and_unknown_ones_together() {
        let requests = Requests::default();
        for opcode in [1, 35, 35, 64, u32::MAX] {
            requests.count(opcode);
        }
        assert_eq!(requests.counts(), [("OTHER", 2), ("LOOKUP", 1), ("CREATE", 2)]);
    }
}
