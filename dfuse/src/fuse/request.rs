//! Bytes from the kernel as requests.
//!
//! # Invariants
//! 1. `parse` is a pure function that reads no byte outside of its argument and never panics, whatever the bytes are.
//! 2. A name is not empty, has no NUL and no slash; what follows a request's last field is refused.
//!
//! # Not here
//! The layouts: `abi.rs`. What is done: `adapter.rs`.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::abi::{self, InHeader, opcode};

/// One request. Names and values borrow from the bytes that it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub header: InHeader,
    pub operation: Operation<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    Lookup {
        name: &'a [u8],
    },
    /// Nodes and how many lookups of each are forgotten: this request's own node, or those of a batch.
    Forget(Forgets<'a>),
    GetAttr,
    SetAttr(abi::SetAttrIn),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod {
        arguments: abi::MknodIn,
        name: &'a [u8],
    },
    Mkdir {
        arguments: abi::MkdirIn,
        name: &'a [u8],
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    /// RENAME has no flags.
    Rename {
        name: &'a [u8],
        to_parent: u64,
        to_name: &'a [u8],
        flags: u32,
    },
    Link {
        node: u64,
        name: &'a [u8],
    },
    Open(abi::OpenIn),
    Create {
        arguments: abi::CreateIn,
        name: &'a [u8],
    },
    Tmpfile(abi::CreateIn),
    Read(abi::ReadIn),
    Write(WriteRequest),
    Statfs,
    Release(abi::ReleaseIn),
    Fsync(abi::FsyncIn),
    SetXattr {
        flags: u32,
        kill_sgid: bool,
        name: &'a [u8],
        value: &'a [u8],
    },
    GetXattr {
        size: u32,
        name: &'a [u8],
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a [u8],
    },
    Init(abi::InitIn),
    Opendir,
    Releasedir,
    Readdir(abi::ReadIn),
    ReaddirPlus(abi::ReadIn),
    Fallocate(abi::FallocateIn),
    Lseek(abi::LseekIn),
    /// `wide`: the answer counts in 64 bits.
    CopyFileRange {
        arguments: abi::CopyFileRangeIn,
        wide: bool,
    },
    Syncfs,
    Statx(abi::StatxIn),
    /// What it takes along is not looked at.
    Ioctl(abi::IoctlIn),
    Interrupt,
    Destroy,
    /// Nothing that is served here: FLUSH, ACCESS, locks, POLL, BMAP, DAX and what comes in later kernels.
    Other,
}

/// A WRITE, and where its data is in the bytes that were parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    pub arguments: abi::WriteIn,
    pub data: Range<usize>,
}

/// What a FORGET or BATCH_FORGET names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets<'a> {
    One(abi::ForgetOne),
    Many(&'a [u8]),
}

impl Forgets<'_> {
    pub fn iter(&self) -> impl Iterator<Item = abi::ForgetOne> + '_ {
        let (one, many) = match self {
            Self::One(one) => (Some(*one), &[][..]),
            Self::Many(bytes) => (None, *bytes),
        };
        let whole = many.chunks_exact(size_of::<abi::ForgetOne>());
        one.into_iter().chain(whole.filter_map(|b| abi::ForgetOne::read_from_bytes(b).ok()))
    }
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not even a header: nobody can be answered.
    Headless,
    /// The header is whole; this request is answered with an error.
    Body { header: InHeader, what: &'static str },
}

/// Parses what one read of the device gave. `long_setxattr`: SETXATTR_EXT was agreed on.
pub fn parse(bytes: &[u8], long_setxattr: bool) -> Result<Request<'_>, Malformed> {
    let (header, body) = InHeader::read_from_prefix(bytes).map_err(|_| Malformed::Headless)?;
    let operation = whole_body(&header, bytes.len(), body)
        .and_then(|body| operation(&header, body, long_setxattr))
        .map_err(|what| Malformed::Body { header, what })?;
    Ok(Request { header, operation })
}

/// The arguments, without the extensions behind them, of which none was agreed on.
fn whole_body<'a>(header: &InHeader, len: usize, body: &'a [u8]) -> Result<&'a [u8], What> {
    if header.len as usize != len {
        return Err("another length than its header says");
    }
    let extensions = usize::from(header.extensions) * 8;
    let arguments = body.len().checked_sub(extensions).ok_or("extensions longer than it is")?;
    Ok(&body[..arguments])
}

type What = &'static str;

fn operation<'a>(
    header: &InHeader,
    body: &'a [u8],
    long_setxattr: bool,
) -> Result<Operation<'a>, What> {
    let mut fields = Fields { rest: body };
    let operation = match header.opcode {
        opcode::LOOKUP => Operation::Lookup { name: fields.looked_up()? },
        opcode::FORGET => {
            let abi::ForgetIn { lookups } = fields.take()?;
            Operation::Forget(Forgets::One(abi::ForgetOne { node: header.node, lookups }))
        }
        opcode::BATCH_FORGET => Operation::Forget(fields.batch()?),
        // The arguments name a handle, which we do not need.
        opcode::GETATTR => return Ok(Operation::GetAttr),
        opcode::SETATTR => Operation::SetAttr(fields.take()?),
        opcode::READLINK => Operation::Readlink,
        opcode::SYMLINK => Operation::Symlink { name: fields.name()?, target: fields.string()? },
        opcode::MKNOD => Operation::Mknod { arguments: fields.take()?, name: fields.name()? },
        opcode::MKDIR => Operation::Mkdir { arguments: fields.take()?, name: fields.name()? },
        opcode::UNLINK => Operation::Unlink { name: fields.name()? },
        opcode::RMDIR => Operation::Rmdir { name: fields.name()? },
        opcode::RENAME => {
            let abi::RenameIn { to_parent } = fields.take()?;
            fields.rename(to_parent, 0)?
        }
        opcode::RENAME2 => {
            let abi::Rename2In { to_parent, flags, .. } = fields.take()?;
            fields.rename(to_parent, flags)?
        }
        opcode::LINK => {
            let abi::LinkIn { node } = fields.take()?;
            Operation::Link { node, name: fields.name()? }
        }
        opcode::OPEN => Operation::Open(fields.take()?),
        opcode::CREATE => Operation::Create { arguments: fields.take()?, name: fields.name()? },
        opcode::TMPFILE => {
            let arguments = fields.take()?;
            // A name that the kernel made up for it.
            fields.string()?;
            Operation::Tmpfile(arguments)
        }
        opcode::READ => Operation::Read(fields.take()?),
        opcode::WRITE => Operation::Write(fields.write()?),
        opcode::STATFS => Operation::Statfs,
        opcode::RELEASE => Operation::Release(fields.take()?),
        opcode::FSYNC | opcode::FSYNCDIR => Operation::Fsync(fields.take()?),
        opcode::SETXATTR => fields.setxattr(long_setxattr)?,
        opcode::GETXATTR => {
            let abi::GetXattrIn { size, .. } = fields.take()?;
            Operation::GetXattr { size, name: fields.string()? }
        }
        opcode::LISTXATTR => {
            let abi::GetXattrIn { size, .. } = fields.take()?;
            Operation::ListXattr { size }
        }
        opcode::REMOVEXATTR => Operation::RemoveXattr { name: fields.string()? },
        opcode::INIT => Operation::Init(fields.init()?),
        opcode::OPENDIR => {
            fields.take::<abi::OpenIn>()?;
            Operation::Opendir
        }
        opcode::RELEASEDIR => return Ok(Operation::Releasedir),
        opcode::READDIR => Operation::Readdir(fields.take()?),
        opcode::READDIRPLUS => Operation::ReaddirPlus(fields.take()?),
        opcode::FALLOCATE => Operation::Fallocate(fields.take()?),
        opcode::LSEEK => Operation::Lseek(fields.take()?),
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => Operation::CopyFileRange {
            arguments: fields.take()?,
            wide: header.opcode == opcode::COPY_FILE_RANGE_64,
        },
        opcode::STATX => Operation::Statx(fields.take()?),
        opcode::IOCTL => {
            let arguments: abi::IoctlIn = fields.take()?;
            fields.bytes(arguments.in_size as usize)?;
            Operation::Ioctl(arguments)
        }
        opcode::SYNCFS => return Ok(Operation::Syncfs),
        opcode::INTERRUPT => return Ok(Operation::Interrupt),
        opcode::DESTROY => return Ok(Operation::Destroy),
        _ => return Ok(Operation::Other),
    };
    if fields.rest.is_empty() { Ok(operation) } else { Err("bytes behind its end") }
}

/// What is left of a request's body.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, What> {
        let (value, rest) = T::read_from_prefix(self.rest).map_err(|_| "cut off")?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], What> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or("cut off")?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Up to a NUL.
    fn string(&mut self) -> Result<&'a [u8], What> {
        let len = self.rest.iter().position(|b| *b == 0).ok_or("a string without end")?;
        let string = self.bytes(len)?;
        self.rest = &self.rest[1..];
        Ok(string)
    }

    /// Of an entry to make, take away or give another name: `.` and `..` are the kernel's own.
    fn name(&mut self) -> Result<&'a [u8], What> {
        match self.looked_up()? {
            b"." | b".." => Err("a name that nothing can have"),
            name => Ok(name),
        }
    }

    /// Also `.` and `..`, for handles that outlived a mount.
    fn looked_up(&mut self) -> Result<&'a [u8], What> {
        let name = self.string()?;
        if name.is_empty() || name.contains(&b'/') {
            return Err("a name that nothing can have");
        }
        Ok(name)
    }

    fn rename(&mut self, to_parent: u64, flags: u32) -> Result<Operation<'a>, What> {
        Ok(Operation::Rename { name: self.name()?, to_parent, to_name: self.name()?, flags })
    }

    fn batch(&mut self) -> Result<Forgets<'a>, What> {
        let abi::BatchForgetIn { count, .. } = self.take()?;
        let len = (count as usize).checked_mul(size_of::<abi::ForgetOne>()).ok_or("cut off")?;
        Ok(Forgets::Many(self.bytes(len)?))
    }

    fn write(&mut self) -> Result<WriteRequest, What> {
        let arguments: abi::WriteIn = self.take()?;
        self.bytes(arguments.size as usize)?;
        let start = size_of::<InHeader>() + size_of::<abi::WriteIn>();
        Ok(WriteRequest { arguments, data: start..start + arguments.size as usize })
    }

    fn setxattr(&mut self, long: bool) -> Result<Operation<'a>, What> {
        let arguments = if long {
            self.take()?
        } else {
            let abi::SetXattrInShort { size, flags } = self.take()?;
            abi::SetXattrIn { size, flags, ..Default::default() }
        };
        let name = self.string()?;
        let value = self.bytes(arguments.size as usize)?;
        let kill_sgid = arguments.setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0;
        Ok(Operation::SetXattr { flags: arguments.flags, kill_sgid, name, value })
    }

    /// Later kernels may say more, older ones (7.35 and before) say less: 16 bytes.
    fn init(&mut self) -> Result<abi::InitIn, What> {
        let mut whole = [0; size_of::<abi::InitIn>()];
        let len = self.rest.len().min(whole.len());
        if len < 16 {
            return Err("cut off");
        }
        whole[..len].copy_from_slice(&self.rest[..len]);
        self.rest = &[];
        abi::InitIn::read_from_bytes(&whole).map_err(|_| "cut off")
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn header(opcode: u32, len: usize) -> InHeader {
        let len = (size_of::<InHeader>() + len) as u32;
        InHeader { len, opcode, unique: 7, node: 5, uid: 1, gid: 2, pid: 3, ..Default::default() }
    }

    fn bytes(opcode: u32, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        [header(opcode, body.len()).as_bytes(), &body].concat()
    }

    fn parsed(bytes: &[u8]) -> Operation<'_> {
        parse(bytes, true).unwrap().operation
    }

    fn refused(bytes: &[u8]) -> What {
        match parse(bytes, true) {
            Err(Malformed::Body { header, what }) => {
                assert_eq!(header.unique, 7);
                what
            }
            other => panic!("{other:?}"),
        }
    }

    /// One well-formed request of every kind.
    fn all() -> Vec<Vec<u8>> {
        let name = b"name\0";
        let zeros = |len: usize| vec![0; len];
        let write = abi::WriteIn { size: 4, ..Default::default() };
        let setxattr = abi::SetXattrIn { size: 5, ..Default::default() };
        let batch = abi::BatchForgetIn { count: 2, padding: 0 };
        vec![
            bytes(opcode::LOOKUP, &[name]),
            bytes(opcode::FORGET, &[&zeros(8)]),
            bytes(opcode::BATCH_FORGET, &[batch.as_bytes(), &zeros(32)]),
            bytes(opcode::GETATTR, &[&zeros(16)]),
            bytes(opcode::SETATTR, &[&zeros(88)]),
            bytes(opcode::READLINK, &[]),
            bytes(opcode::SYMLINK, &[name, b"a/target\0"]),
            bytes(opcode::MKNOD, &[&zeros(16), name]),
            bytes(opcode::MKDIR, &[&zeros(8), name]),
            bytes(opcode::UNLINK, &[name]),
            bytes(opcode::RMDIR, &[name]),
            bytes(opcode::RENAME, &[&zeros(8), name, b"new\0"]),
            bytes(opcode::RENAME2, &[&zeros(16), name, b"new\0"]),
            bytes(opcode::LINK, &[&zeros(8), name]),
            bytes(opcode::OPEN, &[&zeros(8)]),
            bytes(opcode::CREATE, &[&zeros(16), name]),
            bytes(opcode::TMPFILE, &[&zeros(16), b"/\0"]),
            bytes(opcode::READ, &[&zeros(40)]),
            bytes(opcode::WRITE, &[write.as_bytes(), b"data"]),
            bytes(opcode::STATFS, &[]),
            bytes(opcode::RELEASE, &[&zeros(24)]),
            bytes(opcode::FSYNC, &[&zeros(16)]),
            bytes(opcode::SETXATTR, &[setxattr.as_bytes(), b"user.a\0value"]),
            bytes(opcode::GETXATTR, &[&zeros(8), b"user.a\0"]),
            bytes(opcode::LISTXATTR, &[&zeros(8)]),
            bytes(opcode::REMOVEXATTR, &[b"user.a\0"]),
            bytes(opcode::INIT, &[&zeros(64)]),
            bytes(opcode::INIT, &[&zeros(16)]),
            bytes(opcode::OPENDIR, &[&zeros(8)]),
            bytes(opcode::RELEASEDIR, &[&zeros(24)]),
            bytes(opcode::READDIR, &[&zeros(40)]),
            bytes(opcode::READDIRPLUS, &[&zeros(40)]),
            bytes(opcode::FSYNCDIR, &[&zeros(16)]),
            bytes(opcode::FALLOCATE, &[&zeros(32)]),
            bytes(opcode::LSEEK, &[&zeros(24)]),
            bytes(opcode::COPY_FILE_RANGE, &[&zeros(56)]),
            bytes(opcode::COPY_FILE_RANGE_64, &[&zeros(56)]),
            bytes(opcode::SYNCFS, &[&zeros(8)]),
            bytes(opcode::STATX, &[&zeros(24)]),
            bytes(opcode::IOCTL, &[&zeros(32)]),
            bytes(opcode::INTERRUPT, &[&zeros(8)]),
            bytes(opcode::DESTROY, &[]),
        ]
    }

    #[test]
    fn every_kind_is_known() {
        for request in all() {
            assert_ne!(parsed(&request), Operation::Other, "opcode {}", request[4]);
        }
        assert_eq!(parsed(&bytes(25, &[&[0; 24]])), Operation::Other, "FLUSH");
        assert_eq!(parsed(&bytes(9999, &[b"whatever"])), Operation::Other);
    }

    #[test]
    fn fields_are_where_the_kernel_puts_them() {
        let rename =
            bytes(opcode::RENAME2, &[&9u64.to_ne_bytes(), &[2, 0, 0, 0], &[0; 4], b"a\0bc\0"]);
        let Operation::Rename { name, to_parent, to_name, flags } = parsed(&rename) else {
            panic!()
        };
        assert_eq!((name, to_parent, to_name, flags), (&b"a"[..], 9, &b"bc"[..], 2));
        let write = abi::WriteIn { offset: 11, size: 4, ..Default::default() };
        let write = bytes(opcode::WRITE, &[write.as_bytes(), b"data"]);
        let Operation::Write(request) = parsed(&write) else { panic!() };
        assert_eq!((request.arguments.offset, &write[request.data]), (11, &b"data"[..]));
        let one = |node, lookups| abi::ForgetOne { node, lookups };
        let batch = abi::BatchForgetIn { count: 2, padding: 0 };
        let batch = bytes(
            opcode::BATCH_FORGET,
            &[batch.as_bytes(), one(1, 2).as_bytes(), one(3, 4).as_bytes()],
        );
        let Operation::Forget(forgets) = parsed(&batch) else { panic!() };
        assert_eq!(forgets.iter().collect::<Vec<_>>(), [one(1, 2), one(3, 4)]);
        let forget = bytes(opcode::FORGET, &[&6u64.to_ne_bytes()]);
        let Operation::Forget(forgets) = parsed(&forget) else { panic!() };
        assert_eq!(forgets.iter().collect::<Vec<_>>(), [one(5, 6)]);
    }

    #[test]
    fn setxattr_has_the_size_that_was_agreed_on() {
        let long = abi::SetXattrIn { size: 1, flags: 2, setxattr_flags: 1, padding: 0 };
        let long = bytes(opcode::SETXATTR, &[long.as_bytes(), b"n\0v"]);
        let (name, value) = (&b"n"[..], &b"v"[..]);
        let same = |kill_sgid| Operation::SetXattr { flags: 2, kill_sgid, name, value };
        assert_eq!(parsed(&long), same(true));
        let short = abi::SetXattrInShort { size: 1, flags: 2 };
        let short = bytes(opcode::SETXATTR, &[short.as_bytes(), b"n\0v"]);
        assert_eq!(parse(&short, false).unwrap().operation, same(false));
    }

    #[test]
    fn extensions_are_not_part_of_the_arguments() {
        let mut request = bytes(opcode::UNLINK, &[b"name\0", &[1; 16]]);
        assert_eq!(refused(&request), "bytes behind its end");
        request[36] = 2;
        assert_eq!(parsed(&request), Operation::Unlink { name: b"name" });
        request[36] = 200;
        assert_eq!(refused(&request), "extensions longer than it is");
    }

    #[test]
    fn names_that_nothing_can_have_are_refused() {
        for bad in [&b"\0"[..], b"a/b\0", b".\0", b"..\0", b"endless"] {
            refused(&bytes(opcode::MKDIR, &[&[0; 8], bad]));
        }
        assert_eq!(parsed(&bytes(opcode::LOOKUP, &[b"..\0"])), Operation::Lookup { name: b".." });
        refused(&bytes(opcode::LOOKUP, &[b"a/b\0"]));
    }

    #[test]
    fn what_is_cut_off_or_garbled_is_refused_and_never_panics() {
        for request in all() {
            for len in 0..request.len() {
                let mut cut = request[..len].to_vec();
                match parse(&cut, true) {
                    Err(Malformed::Headless) => assert!(len < 40),
                    Err(Malformed::Body { .. }) => assert!(len >= 40),
                    Ok(_) => panic!("{len} of {} bytes passed", request.len()),
                }
                // With a header that says so.
                if len >= 40 {
                    cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                    let _any = parse(&cut, true);
                }
            }
        }
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let requests = all();
        for _ in 0..200_000 {
            let mut garbled = requests[random() as usize % requests.len()].clone();
            for _ in 0..1 + random() % 4 {
                // Behind the length and the opcode too seldom to matter.
                let at = random() as usize % garbled.len();
                garbled[at] = random() as u8;
            }
            let _any = parse(&garbled, random() & 1 == 0);
        }
    }
}
