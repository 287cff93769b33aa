//! The structures and numbers of the FUSE protocol, version 7.45, as `linux/fuse.h` of the kernel lays them out.
//!
//! Fields that nobody reads are here because they have a place on the wire. Everything is in the byte order of the machine.
#![allow(dead_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const VERSION: u32 = 7;
/// What we speak, at most.
pub const MINOR_MAX: u32 = 45;
/// The oldest that has every structure below in its present size (Linux 5.4; fields added since are zero there).
pub const MINOR_MIN: u32 = 31;

/// The root directory (`FUSE_ROOT_ID`).
pub const ROOT_NODE: u64 = 1;
/// The kernel reads with at least so much room (`FUSE_MIN_READ_BUFFER`).
pub const READ_BYTES_MIN: usize = 8192;
/// Entries of listings begin at multiples of it (`FUSE_DIRENT_ALIGN`).
pub const DIRENT_ALIGN: usize = 8;

/// `enum fuse_opcode`
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// Capabilities of INIT: `flags` below bit 32, `flags2` above.
pub mod init {
    pub const ASYNC_READ: u64 = 1;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    /// `flags2` counts.
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// `FATTR_*`: what a SETATTR changes.
pub mod fattr {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `FOPEN_*`: how the kernel treats an open file.
pub mod fopen {
    pub const DIRECT_IO: u32 = 1;
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
}

/// `FUSE_IOCTL_DIR`: of a directory.
pub const IOCTL_DIRECTORY: u32 = 1 << 4;
/// The kernel's own pages (`FUSE_WRITE_CACHE`).
pub const WRITE_CACHE: u32 = 1;
/// Set-id bits go with this write (`FUSE_WRITE_KILL_SUIDGID`).
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// fdatasync (`FUSE_FSYNC_FDATASYNC`).
pub const FSYNC_DATA_ONLY: u32 = 1;
/// `FUSE_SETXATTR_ACL_KILL_SGID`
pub const SETXATTR_ACL_KILL_SGID: u32 = 1;
/// What every filesystem tells, and when it was born (`STATX_BASIC_STATS | STATX_BTIME`).
pub const STATX_ALL: u32 = 0xfff;

/// Codes of notices (`enum fuse_notify_code`).
pub mod notify {
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
}

/// In [`InvalEntryOut`] (7.38; older kernels let go of the name altogether): the name is only to be asked for again.
pub const EXPIRE_ONLY: u32 = 1;

macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident ($bytes:literal) { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $bytes);)*
    };
}

layouts! {
    /// `struct fuse_in_header`: begins every request.
    InHeader (40) {
        len: u32,
        opcode: u32,
        unique: u64,
        node: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        /// Of what follows the request's own arguments, in units of 8 bytes.
        extensions: u16,
        padding: u16,
    }
    /// `struct fuse_out_header`: begins every reply.
    OutHeader (16) {
        len: u32,
        /// 0 or a negative errno.
        error: i32,
        unique: u64,
    }
    /// `struct fuse_init_in`
    InitIn (64) {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        flags2: u32,
        unused: [u32; 11],
    }
    /// `struct fuse_init_out`
    InitOut (64) {
        major: u32,
        minor: u32,
        max_readahead: u32,
        flags: u32,
        max_background: u16,
        congestion_threshold: u16,
        max_write: u32,
        time_gran: u32,
        max_pages: u16,
        map_alignment: u16,
        flags2: u32,
        max_stack_depth: u32,
        request_timeout: u16,
        unused: [u16; 11],
    }
    /// `struct fuse_attr`
    Attr (88) {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atime_nsec: u32,
        mtime_nsec: u32,
        ctime_nsec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }
    /// `struct fuse_attr_out`
    AttrOut (104) {
        valid: u64,
        valid_nsec: u32,
        padding: u32,
        attr: Attr,
    }
    /// `struct fuse_entry_out`
    EntryOut (128) {
        node: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }
    /// `struct fuse_sx_time`
    StatxTime (16) {
        sec: i64,
        nsec: u32,
        reserved: i32,
    }
    /// `struct fuse_statx`
    Statx (256) {
        mask: u32,
        blksize: u32,
        attributes: u64,
        nlink: u32,
        uid: u32,
        gid: u32,
        mode: u16,
        spare: u16,
        ino: u64,
        size: u64,
        blocks: u64,
        attributes_mask: u64,
        atime: StatxTime,
        btime: StatxTime,
        ctime: StatxTime,
        mtime: StatxTime,
        rdev_major: u32,
        rdev_minor: u32,
        dev_major: u32,
        dev_minor: u32,
        spare2: [u64; 14],
    }
    /// `struct fuse_statx_in`
    StatxIn (24) {
        getattr_flags: u32,
        reserved: u32,
        handle: u64,
        sync_flags: u32,
        mask: u32,
    }
    /// `struct fuse_statx_out`
    StatxOut (288) {
        valid: u64,
        valid_nsec: u32,
        flags: u32,
        spare: [u64; 2],
        stat: Statx,
    }
    /// `struct fuse_forget_in`
    ForgetIn (8) {
        lookups: u64,
    }
    /// `struct fuse_batch_forget_in`
    BatchForgetIn (8) {
        count: u32,
        padding: u32,
    }
    /// `struct fuse_forget_one`
    ForgetOne (16) {
        node: u64,
        lookups: u64,
    }
    /// `struct fuse_setattr_in`
    SetAttrIn (88) {
        valid: u32,
        padding: u32,
        handle: u64,
        size: u64,
        lock_owner: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atime_nsec: u32,
        mtime_nsec: u32,
        ctime_nsec: u32,
        mode: u32,
        unused: u32,
        uid: u32,
        gid: u32,
        unused2: u32,
    }
    /// `struct fuse_mknod_in`
    MknodIn (16) {
        mode: u32,
        rdev: u32,
        umask: u32,
        padding: u32,
    }
    /// `struct fuse_mkdir_in`
    MkdirIn (8) {
        mode: u32,
        umask: u32,
    }
    /// `struct fuse_rename_in`
    RenameIn (8) {
        to_parent: u64,
    }
    /// `struct fuse_rename2_in`
    Rename2In (16) {
        to_parent: u64,
        flags: u32,
        padding: u32,
    }
    /// `struct fuse_link_in`
    LinkIn (8) {
        node: u64,
    }
    /// `struct fuse_open_in`
    OpenIn (8) {
        flags: u32,
        open_flags: u32,
    }
    /// `struct fuse_open_out`
    OpenOut (16) {
        handle: u64,
        open_flags: u32,
        backing: i32,
    }
    /// `struct fuse_create_in`
    CreateIn (16) {
        flags: u32,
        mode: u32,
        umask: u32,
        open_flags: u32,
    }
    /// What CREATE and TMPFILE answer: two structures, one behind the other.
    CreateOut (144) {
        entry: EntryOut,
        open: OpenOut,
    }
    /// `struct fuse_read_in`
    ReadIn (40) {
        handle: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// `struct fuse_write_in`
    WriteIn (40) {
        handle: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// `struct fuse_write_out`
    WriteOut (8) {
        size: u32,
        padding: u32,
    }
    /// `struct fuse_statfs_out`
    StatfsOut (80) {
        blocks: u64,
        blocks_free: u64,
        blocks_available: u64,
        files: u64,
        files_free: u64,
        block_bytes: u32,
        name_bytes_max: u32,
        fragment_bytes: u32,
        padding: u32,
        spare: [u32; 6],
    }
    /// `struct fuse_release_in`
    ReleaseIn (24) {
        handle: u64,
        flags: u32,
        release_flags: u32,
        lock_owner: u64,
    }
    /// `struct fuse_fsync_in`
    FsyncIn (16) {
        handle: u64,
        flags: u32,
        padding: u32,
    }
    /// `struct fuse_setxattr_in` with SETXATTR_EXT.
    SetXattrIn (16) {
        size: u32,
        flags: u32,
        setxattr_flags: u32,
        padding: u32,
    }
    /// `struct fuse_setxattr_in` without (FUSE_COMPAT_SETXATTR_IN_SIZE).
    SetXattrInShort (8) {
        size: u32,
        flags: u32,
    }
    /// `struct fuse_getxattr_in`
    GetXattrIn (8) {
        size: u32,
        padding: u32,
    }
    /// `struct fuse_getxattr_out`
    GetXattrOut (8) {
        size: u32,
        padding: u32,
    }
    /// `struct fuse_fallocate_in`
    FallocateIn (32) {
        handle: u64,
        offset: u64,
        len: u64,
        mode: u32,
        padding: u32,
    }
    /// `struct fuse_lseek_in`
    LseekIn (24) {
        handle: u64,
        offset: u64,
        whence: u32,
        padding: u32,
    }
    /// `struct fuse_ioctl_in`
    IoctlIn (32) {
        handle: u64,
        flags: u32,
        command: u32,
        argument: u64,
        in_size: u32,
        out_size: u32,
    }
    /// `struct fuse_ioctl_out`
    IoctlOut (16) {
        result: i32,
        flags: u32,
        in_iovs: u32,
        out_iovs: u32,
    }
    /// `struct fuse_lseek_out`
    LseekOut (8) {
        offset: u64,
    }
    /// `struct fuse_copy_file_range_in`
    CopyFileRangeIn (56) {
        from_handle: u64,
        from_offset: u64,
        to_node: u64,
        to_handle: u64,
        to_offset: u64,
        len: u64,
        flags: u64,
    }
    /// `struct fuse_copy_file_range_out`
    CopyFileRangeOut (8) {
        len: u64,
    }
    /// `struct fuse_notify_inval_inode_out`
    InvalInodeOut (24) {
        node: u64,
        /// Negative: no data, only attributes.
        offset: u64,
        /// 0: to the end.
        len: u64,
    }
    /// `struct fuse_notify_inval_entry_out`; the name follows, and a NUL.
    InvalEntryOut (16) {
        parent: u64,
        name_bytes: u32,
        flags: u32,
    }
    /// `struct fuse_dirent`; the name follows.
    Dirent (24) {
        ino: u64,
        cookie: u64,
        name_bytes: u32,
        kind: u32,
    }
}
