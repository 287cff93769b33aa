//! Reads and writes of open files through the door.

use std::os::fd::BorrowedFd;

use daos_types::door::{Answer, Ask, Token};
use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::process::Resource;

use crate::doors::{self, Again};
use crate::fds::{self, Known, Moving};
use crate::{Done, Outcome, report};

/// A program's memory, in parts, as readv(2) and writev(2) have it; whoever makes one vouches for it.
pub(crate) trait Parts {
    fn bytes(&self) -> usize;
    /// `take` gets the bytes from `from` on, `len` of them, in pieces, with where each is from `from`.
    fn read(&self, from: usize, len: usize, take: &mut dyn FnMut(usize, &[u8]));
    /// As `read`, to be filled.
    fn fill(&mut self, from: usize, len: usize, fill: &mut dyn FnMut(usize, &mut [u8]));
}

/// Of one call of the kernel.
const KERNEL_BYTES_MAX: usize = 1 << 30;

/// Who does a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Door,
    Kernel,
}

/// Where in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Where the descriptor is, which moves.
    Offset,
    Position(i64),
}

struct File<'f> {
    fd: BorrowedFd<'f>,
    known: Known,
    token: Token,
    flags: OFlags,
}

/// A call begins: the turn to move the offset, if it does, and the file, if it goes through the door.
fn begin(fd: i32, at: At) -> (Option<Moving>, Option<File<'static>>) {
    if fds::known(fd).is_none() || !fds::are_ours() {
        return (None, None);
    }
    match at {
        At::Position(_) => (None, file(fd)),
        At::Offset => {
            let Some(turn) = Moving::begin(fd) else { return (None, None) };
            // Others who move it too, only the kernel knows.
            let file = file(fd).filter(|file| file.known.is_own);
            (Some(turn), file)
        }
    }
}

/// The file behind a descriptor, if it goes through the door.
fn file(fd: i32) -> Option<File<'static>> {
    let known = fds::known(fd).filter(|known| !known.is_kernels)?;
    if known.token.is_none() && fds::is_patient(fd) {
        return None;
    }
    let file = borrow(fd);
    if doors::identity(file) != Some((known.device, known.inode)) {
        fds::forget(fd);
        return None;
    }
    let flags = rustix::fs::fcntl_getfl(file).ok()?;
    let token = match known.token {
        Some(token) => token,
        None => match doors::ask_pass(file).and_then(|pass| pass.token) {
            Some(token) => {
                fds::ready(fd, token);
                token
            }
            None => {
                fds::refused(fd);
                return None;
            }
        },
    };
    Some(File { fd: file, known, token, flags })
}

/// As fsync(2): of a file of which nobody has anything but the door.
pub(crate) fn sync(fd: i32, data_only: bool) -> Done {
    fds::known(fd).filter(|known| known.token.is_some() && fds::are_ours())?;
    let file = file(fd)?;
    let ask = Ask::Sync { token: file.token, data_only };
    let answer = doors::ask(file.known.door, &ask.encode(), Again::May, |_| {}, |_, _| {})?;
    match answer {
        Answer::Done(_) => Some(Ok(0)),
        answer => file.undone(fd, Some(answer)),
    }
}

/// Before a call of the kernel that goes by the size that it was last told of.
pub(crate) fn tell_size(fd: i32) {
    if fds::known(fd).is_some() {
        let _ = rustix::fs::fstat(borrow(fd));
    }
}

#[allow(unsafe_code)]
fn borrow(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: not -1, because it is known; that it is open, and what it is, is asked of the kernel before anything else.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

pub(crate) fn read(fd: i32, parts: &mut dyn Parts, at: At) -> Outcome {
    let (turn, file) = begin(fd, at);
    let Some(file) = file else { return bypass(turn) };
    let done = file.transfer(fd, at, parts.bytes(), |file, way, offset, from, len| match way {
        Way::Door => file.read_piece(offset, from, len, parts),
        Way::Kernel => file.read_by_kernel(offset, from, len, parts),
    });
    let outcome = outcome(done, turn);
    report::count_if(&outcome, report::READ);
    outcome
}

pub(crate) fn write(fd: i32, parts: &dyn Parts, at: At) -> Outcome {
    let (turn, file) = begin(fd, at);
    let Some(file) = file else { return bypass(turn) };
    let done = if file.flags.contains(OFlags::APPEND) {
        file.append(fd, parts, at)
    } else if file.is_limited(at, parts.bytes()) {
        None
    } else {
        file.overwrite(fd, parts, at)
    };
    let outcome = outcome(done, turn);
    report::count_if(&outcome, report::WRITE);
    outcome
}

fn bypass(turn: Option<Moving>) -> Outcome {
    Outcome::Bypass(turn.map(Moving::by_kernel))
}

fn outcome(done: Option<Result<usize, i32>>, turn: Option<Moving>) -> Outcome {
    match done {
        Some(Ok(bytes)) => Outcome::Done(bytes),
        Some(Err(errno)) => Outcome::Failed(errno),
        None => bypass(turn),
    }
}

impl File<'_> {
    fn overwrite(&self, fd: i32, parts: &dyn Parts, at: At) -> Option<Result<usize, i32>> {
        self.transfer(fd, at, parts.bytes(), |file, way, offset, from, len| match way {
            Way::Door => file.write_piece(offset, from, len, parts),
            Way::Kernel => file.write_by_kernel(offset, from, len, parts),
        })
    }

    /// One call at the door, or one of the kernel: what goes to the end in several may be in pieces there.
    fn append(&self, fd: i32, parts: &dyn Parts, at: At) -> Option<Result<usize, i32>> {
        let done = self.append_here(fd, parts, at);
        if done.is_none() {
            // The kernel sets the offset by the size.
            tell_size(fd);
        }
        done
    }

    fn append_here(&self, fd: i32, parts: &dyn Parts, at: At) -> Option<Result<usize, i32>> {
        let bytes = parts.bytes();
        let most = doors::data_bytes(self.known.door).unwrap_or(0);
        if !(1..=most).contains(&bytes) || self.is_limited(At::Offset, bytes) {
            return None;
        }
        if let At::Position(offset) = at
            && offset < 0
        {
            return None;
        }
        let ask = Ask::Append { token: self.token, len: bytes as u32 };
        let put = |slot: &daos_fabric::shm::Slot<'_>| {
            parts.read(0, bytes, &mut |at, bytes| slot.put_data(at, bytes))
        };
        let answer = doors::ask(self.known.door, &ask.encode(), Again::MayNot, put, |_, _| {});
        match answer {
            Some(Answer::Appended { bytes: now, end }) => {
                if at == At::Offset && !self.move_to(end) {
                    return Some(Err(libc::EIO));
                }
                Some(Ok((now as usize).min(bytes)))
            }
            answer => self.undone(fd, answer),
        }
    }

    /// What a call comes to of which nothing was done. The kernel has the last word on what a descriptor is good for.
    fn undone(&self, fd: i32, answer: Option<Answer>) -> Done {
        match answer {
            Some(Answer::Failed(errno)) if errno != libc::EBADF as u32 => Some(Err(errno as i32)),
            Some(_) => {
                self.leave(fd, answer);
                None
            }
            None => None,
        }
    }

    /// The descriptor is the kernel's, from now on or this once, which goes by what it was last told of the size.
    fn leave(&self, fd: i32, answer: Option<Answer>) {
        if answer != Some(Answer::NotThis) {
            fds::refused(fd);
        }
        let _ = rustix::fs::fstat(self.fd);
    }

    /// Some limit of the process may be reached: the kernel knows what follows from it.
    fn is_limited(&self, at: At, len: usize) -> bool {
        let limit = rustix::process::getrlimit(Resource::Fsize).current;
        let end = match at {
            At::Position(offset) => (offset as u64).saturating_add(len as u64),
            At::Offset => u64::MAX,
        };
        limit.is_some_and(|limit| end > limit)
    }

    /// Goes through the bytes in pieces that fit into a call, and moves the offset if that is asked for. `piece` is one call, at the door or,
    /// from where that has stopped, of the kernel. `None`: nothing was done.
    fn transfer(
        &self,
        fd: i32,
        at: At,
        bytes: usize,
        mut piece: impl FnMut(&Self, Way, u64, usize, usize) -> Option<Answer>,
    ) -> Option<Result<usize, i32>> {
        let piece_bytes = doors::data_bytes(self.known.door).filter(|_| bytes > 0)?;
        let start = self.start(at, bytes)?;
        let mut done = 0;
        let outcome = loop {
            let mut len = (bytes - done).min(piece_bytes);
            let from = start + done as u64;
            let answer = match piece(self, Way::Door, from, done, len) {
                // Only the kernel ends a call in the middle; whoever refused it here has not done anything of this piece.
                answer @ (None | Some(Answer::Kernel | Answer::NotThis)) if done > 0 => {
                    self.leave(fd, answer);
                    len = (bytes - done).min(KERNEL_BYTES_MAX);
                    piece(self, Way::Kernel, from, done, len)
                }
                answer => answer,
            };
            match answer {
                Some(Answer::Done(now)) => {
                    done += (now as usize).min(bytes - done);
                    if (now as usize) < len || done == bytes {
                        break Some(Ok(done));
                    }
                }
                // What was done before is an answer; the next call meets the error again.
                _ if done > 0 => break Some(Ok(done)),
                answer => break self.undone(fd, answer),
            }
        };
        let done = if let Some(Ok(done)) = outcome { done } else { 0 };
        if at == At::Offset && done < bytes && !self.move_to(start + done as u64) {
            return Some(Err(libc::EIO));
        }
        outcome
    }

    /// Where the bytes go. The offset goes first, in one step: a signal handler or a child that comes in between uses what is behind
    /// this call's bytes. Offsets that no file has are refused by the kernel, in its words.
    fn start(&self, at: At, bytes: usize) -> Option<u64> {
        match at {
            At::Position(offset) => {
                let start = u64::try_from(offset).ok()?;
                (start.saturating_add(bytes as u64) <= i64::MAX as u64).then_some(start)
            }
            At::Offset => {
                let by = i64::try_from(bytes).ok()?;
                let end = rustix::fs::seek(self.fd, SeekFrom::Current(by)).ok()?;
                end.checked_sub(bytes as u64)
            }
        }
    }

    fn move_to(&self, offset: u64) -> bool {
        rustix::fs::seek(self.fd, SeekFrom::Start(offset)).is_ok()
    }

    fn read_piece(
        &self,
        offset: u64,
        from: usize,
        len: usize,
        parts: &mut dyn Parts,
    ) -> Option<Answer> {
        let ask = Ask::Read { token: self.token, offset, len: len as u32 };
        doors::ask(
            self.known.door,
            &ask.encode(),
            Again::May,
            |_| {},
            |slot, answer| {
                if let Answer::Done(got) = answer {
                    let got = (got as usize).min(len);
                    parts.fill(from, got, &mut |at, room| slot.get_data(at, room));
                }
            },
        )
    }

    fn write_piece(
        &self,
        offset: u64,
        from: usize,
        len: usize,
        parts: &dyn Parts,
    ) -> Option<Answer> {
        let ask = Ask::Write { token: self.token, offset, len: len as u32 };
        let put = |slot: &daos_fabric::shm::Slot<'_>| {
            parts.read(from, len, &mut |at, bytes| slot.put_data(at, bytes))
        };
        doors::ask(self.known.door, &ask.encode(), Again::May, put, |_, _| {})
    }

    fn read_by_kernel(
        &self,
        offset: u64,
        from: usize,
        len: usize,
        parts: &mut dyn Parts,
    ) -> Option<Answer> {
        let mut by_kernel = ByKernel::default();
        parts.fill(from, len, &mut |at, room| {
            let len = room.len();
            by_kernel.part(len, |done| {
                rustix::io::pread(self.fd, &mut room[done..], offset + (at + done) as u64)
            });
        });
        Some(by_kernel.answer())
    }

    fn write_by_kernel(
        &self,
        offset: u64,
        from: usize,
        len: usize,
        parts: &dyn Parts,
    ) -> Option<Answer> {
        let mut by_kernel = ByKernel::default();
        parts.read(from, len, &mut |at, bytes| {
            by_kernel.part(bytes.len(), |done| {
                rustix::io::pwrite(self.fd, &bytes[done..], offset + (at + done) as u64)
            });
        });
        Some(by_kernel.answer())
    }
}

/// Parts of a call, one after the other, until one is short.
#[derive(Default)]
struct ByKernel {
    done: usize,
    ended: Option<Option<Errno>>,
}

impl ByKernel {
    /// `call` goes on from what is done of this part.
    fn part(&mut self, len: usize, mut call: impl FnMut(usize) -> Result<usize, Errno>) {
        let mut done = 0;
        while self.ended.is_none() && done < len {
            match call(done) {
                Ok(0) => self.ended = Some(None),
                Ok(now) => done += now,
                Err(Errno::INTR) => {}
                Err(errno) => self.ended = Some(Some(errno)),
            }
        }
        self.done += done;
    }

    fn answer(self) -> Answer {
        match self.ended {
            Some(Some(errno)) if self.done == 0 => Answer::Failed(errno.raw_os_error() as u32),
            _ => Answer::Done(self.done as u32),
        }
    }
}
