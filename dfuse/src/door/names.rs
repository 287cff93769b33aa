//! Names at the door: who asks has found the directory by the kernel, which has let him.
//!
//! A token for a directory is an xattr of it. Who sets one has been seen by the kernel to be one who may change what is in there, by a mount that
//! may be written to; who asks for one, to be one who may read it. Whether he still may, dfs says for each call; in doubt the call is the
//! kernel's.
//!
//! # Invariants
//! 1. What a call has changed is told to the kernel before it is answered, by the door's thread, when nothing of the call is in flight any
//!    more: in the kernel a notice waits for requests in progress, which need credits and turns.
//! 2. A client is believed which of its threads asks only if it has such a thread.
//! 3. Attributes that somebody was given before, and has not taken in yet, are told of as well (`fuse/given.rs`).

use std::collections::VecDeque;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daos_types::door::names::{Call, Change, DIRECTORIES_MAX, Name, What};
use daos_types::door::{Answer, Token};
use dfs::{Caller, Credentials, Ino, RenameFlags, Result, Right};
use smallvec::{SmallVec, smallvec};

use super::{Owed, Serve};
use crate::exec::{Credit, lock};
use crate::fuse::{Given, Nodes, Thread, errno};
use crate::notices::Notice;
use crate::ops::Filesystem;

/// Tokens that nobody has used yet; the oldest goes.
const OFFERED_MAX: usize = 1024;

/// For how long a thread with an answer may have to wait for a CPU (`fuse/given.rs`).
const AGAIN_FOR: Duration = Duration::from_secs(1);

/// Of a mode that mkdir(2) is given, as the kernel passes it on: set-gid is inherited, and never asked for.
const MKDIR_BITS: u32 = 0o1777;

/// What is known of names at the desk.
#[derive(Default)]
pub struct Names {
    offered: Mutex<VecDeque<(Token, Ino, Right)>>,
    finished: Mutex<Vec<Finished>>,
    /// There is something in `finished`.
    any: AtomicBool,
    used: AtomicBool,
}

/// A call that is done, and what the kernel is to be told before it is answered.
pub struct Finished {
    pub(super) owed: Owed,
    pub(super) answer: Answer,
    pub(super) by: Thread,
    pub(super) directories: SmallVec<[Ino; 2]>,
    pub(super) inodes: SmallVec<[Ino; 2]>,
    pub(super) names: SmallVec<[(Ino, Bytes); 2]>,
    /// The kernel has an answer with older attributes of `inodes`, and has not taken it in yet: they are told of again, until then.
    pub(super) again_until: Option<Instant>,
}

/// How the kernel hears of it.
pub struct Kernel {
    /// Of which directories attributes were given.
    pub directories: Arc<Given>,
    /// And of which other inodes, since names are changed here.
    pub inodes: Arc<Given>,
    /// False: the kernel knows nothing of that sort.
    pub send: Box<dyn Fn(&Notice) -> bool + Send>,
}

impl Names {
    /// Somebody has this token of `directory`, where the kernel gives him this right.
    pub fn offer(&self, token: Token, directory: Ino, right: Right) {
        let mut offered = lock(&self.offered);
        if offered.len() == OFFERED_MAX {
            offered.pop_front();
        }
        offered.push_back((token, directory, right));
    }

    fn take(&self, token: Token) -> Option<(Ino, Right)> {
        let mut offered = lock(&self.offered);
        let at = offered.iter().position(|(of, ..)| *of == token)?;
        offered.remove(at).map(|(_, directory, right)| (directory, right))
    }

    /// Somebody has ever come to change names.
    pub fn are_used(&self) -> bool {
        self.used.load(SeqCst)
    }

    pub fn any_finished(&self) -> bool {
        self.any.load(SeqCst)
    }

    pub(super) fn finish(&self, finished: Finished) {
        lock(&self.finished).push(finished);
        self.any.store(true, SeqCst);
    }

    fn take_finished(&self) -> Vec<Finished> {
        if !self.any.swap(false, SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.finished))
    }
}

/// Where a client is: the directories that it has entered, the last one last.
#[derive(Default)]
pub struct Entered(Mutex<VecDeque<(Ino, Right)>>);

impl Entered {
    fn enter(&self, directory: Ino, right: Right) {
        let mut entered = lock(&self.0);
        if entered.contains(&(directory, right)) {
            return;
        }
        if entered.len() == DIRECTORIES_MAX {
            entered.pop_front();
        }
        entered.push_back((directory, right));
    }

    pub(super) fn has(&self, directory: Ino, right: Right) -> bool {
        lock(&self.0).iter().rev().any(|entered| *entered == (directory, right))
    }
}

impl<F: Filesystem> Serve<F> {
    pub(super) fn names_call(&self, owed: Owed, credit: Credit, call: Call) {
        if self.kernel.is_none() {
            return owed.pay(Answer::Kernel);
        }
        match call {
            Call::Enter { token } => match self.desk.names.take(token) {
                Some((directory, right)) => {
                    if right == Right::Change {
                        // Before it is answered: attributes that are given from then on are marked.
                        self.desk.names.used.store(true, SeqCst);
                    }
                    owed.client.entered.enter(directory, right);
                    owed.pay(Answer::Done(0));
                }
                None => owed.pay(Answer::Failed(libc::EBADF as u32)),
            },
            Call::Change(change) => self.change(owed, credit, change),
            Call::OfInode(asked) => self.of_inode(owed, credit, asked),
        }
    }

    fn change(&self, owed: Owed, credit: Credit, change: Change) {
        let Some(asked) = Asked::of(&owed, change, self.fs.root()) else {
            return owed.pay(Answer::Failed(libc::ESTALE as u32));
        };
        let (fs, desk) = (self.fs.clone(), self.desk.clone());
        self.executor.spawn_with(credit, async move {
            let mut inodes = SmallVec::new();
            // Also when it has failed: what such a call has done is not known.
            let answer = match carry_out(&*fs, &owed.client.who, &asked, &mut inodes).await {
                Ok(Verdict::Done) => Answer::Done(0),
                Ok(Verdict::ThisIsTheKernels) => return owed.pay(Answer::NotThis),
                Ok(Verdict::InDoubt) => return owed.pay(Answer::Kernel),
                Err(error) => Answer::Failed(errno(&error) as u32),
            };
            let (directories, names) = (asked.directories(), asked.names());
            let by = asked.by;
            desk.finish(Finished {
                owed,
                answer,
                by,
                directories,
                inodes,
                names,
                again_until: None,
            });
        });
    }

    /// Invariant 1.
    pub(super) fn tell_finished(&self) -> bool {
        let finished = self.desk.names.take_finished();
        let Some(kernel) = self.kernel.as_ref().filter(|_| !finished.is_empty()) else {
            return false;
        };
        for mut one in finished {
            let again = one.again_until.is_some();
            one.inodes.retain(|ino| {
                let given = again || kernel.inodes.is_to_be_told(*ino, Thread::SEVERAL);
                !(kernel.send)(&Notice::Attributes(*ino)) && given && self.fs.is_looked_up(*ino)
            });
            // A name that the kernel knew takes the attributes of its directory with it, but not what was given and not taken in.
            let mut untold = false;
            for (parent, name) in one.names.drain(..) {
                untold |= !(kernel.send)(&Notice::Name { parent, name });
            }
            for directory in one.directories.drain(..) {
                if kernel.directories.is_to_be_told(directory, one.by) || untold {
                    (kernel.send)(&Notice::Attributes(directory));
                }
            }
            let until = *one.again_until.get_or_insert_with(|| Instant::now() + AGAIN_FOR);
            if one.inodes.is_empty() || Instant::now() > until {
                one.owed.pay(one.answer);
            } else {
                self.desk.names.finish(one);
            }
        }
        true
    }
}

/// A change, with what its places mean.
struct Asked {
    what: What,
    by: Thread,
    at: Ino,
    name: Bytes,
    /// Of one name, `at`.
    to: Ino,
    to_name: Bytes,
}

impl Asked {
    /// `None`: the client has not entered these directories, or these are no names.
    fn of(owed: &Owed, change: Change, root: Ino) -> Option<Self> {
        let (client, Change { what, thread, at, to }) = (&owed.client, change);
        let (len, to_len) = (usize::from(at.bytes), usize::from(to.bytes));
        let mut name = Bytes::from(client.server.data(owed.slot, 0, len + to_len));
        // Nothing of the kernel's has a NUL. Other things that a name must not have, dfs knows.
        if name.len() != len + to_len || name.contains(&0) {
            return None;
        }
        let to_name = name.split_off(len);
        let nodes = Nodes { root };
        let directory = |of: Name| {
            Some(nodes.ino(of.directory)).filter(|ino| client.entered.has(*ino, Right::Change))
        };
        let at_directory = directory(at)?;
        let to_directory = match what {
            What::Link | What::Rename { .. } if to.directory != at.directory => directory(to)?,
            _ => at_directory,
        };
        Some(Self {
            what,
            by: client.thread(thread),
            at: at_directory,
            name,
            to: to_directory,
            to_name,
        })
    }

    /// Those that are changed.
    fn directories(&self) -> SmallVec<[Ino; 2]> {
        match self.what {
            What::Link => smallvec![self.to],
            What::Rename { .. } if self.to != self.at => smallvec![self.at, self.to],
            _ => smallvec![self.at],
        }
    }

    fn names(&self) -> SmallVec<[(Ino, Bytes); 2]> {
        let (at, to) = ((self.at, self.name.clone()), (self.to, self.to_name.clone()));
        match self.what {
            What::Link => smallvec![to],
            What::Rename { .. } => smallvec![at, to],
            _ => smallvec![at],
        }
    }
}

enum Verdict {
    Done,
    /// Nothing was done, because of what the name is.
    ThisIsTheKernels,
    /// Nothing was done, because of who asks.
    InDoubt,
}

/// `inodes`: those that it has changed.
async fn carry_out<F: Filesystem>(
    fs: &F,
    who: &Credentials,
    asked: &Asked,
    inodes: &mut SmallVec<[Ino; 2]>,
) -> Result<Verdict> {
    let Asked { what, at, name, to, to_name, .. } = asked;
    let (at, to) = (*at, *to);
    let may = fs.surely_may(at, who, Right::Change).await?
        && (to == at || fs.surely_may(to, who, Right::Change).await?);
    if !may {
        return Ok(Verdict::InDoubt);
    }
    match *what {
        What::Unlink => inodes.push(fs.unlink(at, name).await?),
        What::Rmdir => inodes.push(fs.rmdir(at, name).await?),
        What::Mkdir { mode, umask } => {
            let caller = Caller { uid: who.uid, gid: who.gid, umask };
            let mode = mode & MKDIR_BITS;
            counted(fs, Box::pin(fs.mkdir(at, name, mode, caller))).await?;
        }
        What::Symlink => {
            let caller = Caller::new(who.uid, who.gid);
            counted(fs, Box::pin(fs.symlink(at, name, to_name, caller))).await?;
        }
        What::Link => {
            let file = counted(fs, fs.lookup(at, name)).await?.attr;
            if !who.surely_may_link(&file) {
                return Ok(Verdict::ThisIsTheKernels);
            }
            inodes.push(file.ino);
            counted(fs, Box::pin(fs.link(file.ino, to, to_name))).await?;
        }
        What::Rename { no_replace } => {
            let file = counted(fs, fs.lookup(at, name)).await?.attr;
            if file.kind == dfs::Kind::Directory {
                return Ok(Verdict::ThisIsTheKernels);
            }
            let flags = RenameFlags { no_replace, exchange: false };
            let moved = match Box::pin(fs.rename(at, name, to, to_name, flags)).await {
                // Of a directory above its own, the kernel has another error.
                Err(dfs::Error::IsDirectory) => return Ok(Verdict::ThisIsTheKernels),
                moved => moved?,
            };
            inodes.extend(moved.inodes.into_iter().flatten().chain(moved.replaced));
        }
    }
    Ok(Verdict::Done)
}

/// What answers an entry has counted a lookup, of which the kernel will know nothing.
pub(super) async fn counted<F: Filesystem>(
    fs: &F,
    answer: impl Future<Output = Result<dfs::Entry>>,
) -> Result<dfs::Entry> {
    let entry = answer.await?;
    if fs.unremember(entry.attr.ino) {
        fs.forgotten(entry.attr.ino).await;
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_the_oldest_go() {
        let names = Names::default();
        let token = |n| Token(7, n);
        for n in 0..=OFFERED_MAX as u64 {
            names.offer(token(n), Ino(n), Right::Search);
        }
        assert_eq!(names.take(token(0)), None);
        assert_eq!(names.take(token(1)), Some((Ino(1), Right::Search)));
        assert_eq!(names.take(token(1)), None);
    }

    #[test]
    fn a_client_leaves_what_it_has_entered_first() {
        let entered = Entered::default();
        for n in 0..=DIRECTORIES_MAX as u64 {
            entered.enter(Ino(n), Right::Search);
            entered.enter(Ino(n), Right::Search);
        }
        let has = |n| entered.has(Ino(n), Right::Search);
        assert!(!has(0) && has(1) && has(DIRECTORIES_MAX as u64));
        assert!(!entered.has(Ino(1), Right::Change));
    }
}
