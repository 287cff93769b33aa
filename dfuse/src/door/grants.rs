//! Which files are used through the door, and when they are the kernel's alone.
//!
//! A file is the door's while every open handle of it was opened by somebody who means to use the door (*tagged*: the kernel keeps no pages
//! for those), and nobody has read it through the kernel, or written to it by the kernel's pages. Anything else makes it the kernel's until its last tagged handle is
//! closed. The door's calls are carried out here, and clients keep nothing; so there is nobody to ask before a file changes hands: what is
//! in flight is waited for, and what comes later is refused.
//!
//! # Invariants
//! 1. `kernel` is never unset, and no call of the door begins on such a file.
//! 2. Who opens a file untagged counts as open before he looks here; who opens it tagged is here before he looks how many have it open. So
//!    of two who open a file at the same time, one sees the other.
//! 3. The kernel keeps neither pages nor attributes of a file that the door writes: they go before the first write (`prepared`), and
//!    attributes that are answered until the file is the kernel's are to be believed for no time.
//! 4. No lock is held while anything is waited for.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use daos_types::door::Token;
use dfs::{Handle, Ino};

/// A handle that was opened for the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    pub ino: Ino,
    pub handle: Handle,
    /// As `open(2)`.
    pub flags: i32,
}

#[derive(Default)]
struct File {
    handles: Vec<(Handle, i32, Option<Token>)>,
    kernel: bool,
    prepared: bool,
    in_flight: usize,
    /// Writes of the door that have begun.
    writes: u64,
    waiting: Vec<Waker>,
}

#[derive(Default)]
struct State {
    files: HashMap<Ino, File>,
    tokens: HashMap<Token, Tagged>,
}

#[derive(Default)]
pub struct Grants {
    state: Mutex<State>,
    /// Files that are here: mostly none, and nobody takes the lock.
    files: AtomicU64,
    /// Writes that have begun; and those to files that are not here any more.
    writes: AtomicU64,
    past_writes: AtomicU64,
}

/// How much was written through the door before attributes were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    all: u64,
    past: u64,
}

/// A call of the door that is under way.
pub struct InFlight {
    grants: Arc<Grants>,
    pub of: Tagged,
}

pub enum Begun {
    Granted(InFlight),
    /// The kernel is to forget what it keeps of it first: [`Grants::prepared`].
    Unprepared(Ino),
    /// The file is the kernel's.
    Kernel,
    /// Nobody has such a handle, or not for this.
    NoHandle,
}

impl Grants {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody uses the door.
    pub fn is_idle(&self) -> bool {
        self.files.load(SeqCst) == 0
    }

    /// Files that have a handle for the door, whoever has them now.
    pub fn count(&self) -> u64 {
        self.files.load(SeqCst)
    }

    /// A tagged handle was opened; `is_new`: with its file made. `opens`: how many handles the file has in all. True: the kernel is to keep
    /// no pages for it.
    pub fn opened(&self, tagged: Tagged, is_new: bool, opens: impl FnOnce() -> u64) -> bool {
        {
            let mut state = self.state();
            let file = state.files.entry(tagged.ino).or_default();
            file.prepared |= is_new;
            file.handles.push((tagged.handle, tagged.flags, None));
            self.files.store(state.files.len() as u64, SeqCst);
        }
        // Invariant 2.
        let opens = opens();
        let mut state = self.state();
        let Some(file) = state.files.get_mut(&tagged.ino) else { return false };
        file.kernel |= opens > file.handles.len() as u64;
        !file.kernel
    }

    /// Whether a write through the kernel is one of a descriptor that came for the door, past the kernel's pages: it changes nothing about
    /// who has the file.
    pub fn is_tagged(&self, ino: Ino, handle: Handle) -> bool {
        let state = self.state();
        let file = state.files.get(&ino);
        file.is_some_and(|file| file.handles.iter().any(|(of, ..)| *of == handle))
    }

    /// Somebody uses the file through the kernel: after this nothing of the door is under way there, nor will be.
    pub async fn kernel_uses(&self, ino: Ino) {
        if self.is_idle() {
            return;
        }
        poll_fn(|context| {
            let mut state = self.state();
            let Some(file) = state.files.get_mut(&ino) else { return Poll::Ready(()) };
            file.kernel = true;
            if file.in_flight == 0 {
                return Poll::Ready(());
            }
            file.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// A handle is closed, tagged or not.
    pub fn released(&self, ino: Ino, handle: Handle) {
        if self.is_idle() {
            return;
        }
        let mut state = self.state();
        let Some(file) = state.files.get_mut(&ino) else { return };
        let Some(at) = file.handles.iter().position(|(of, ..)| *of == handle) else { return };
        if let (_, _, Some(token)) = file.handles.swap_remove(at) {
            state.tokens.remove(&token);
        }
        self.forget_unused(&mut state, ino);
    }

    fn forget_unused(&self, state: &mut State, ino: Ino) {
        let Some(file) = state.files.get(&ino) else { return };
        if file.handles.is_empty() && file.in_flight == 0 {
            self.past_writes.fetch_add(file.writes, SeqCst);
            state.files.remove(&ino);
            self.files.store(state.files.len() as u64, SeqCst);
        }
    }

    /// What proves that somebody has this handle; `None`: it is not one for the door. `random`: a token that nobody can guess.
    pub fn token(&self, ino: Ino, handle: Handle, random: impl FnOnce() -> Token) -> Option<Token> {
        let mut state = self.state();
        let file = state.files.get_mut(&ino).filter(|file| !file.kernel)?;
        let (_, flags, token) = file.handles.iter_mut().find(|(of, ..)| *of == handle)?;
        let (flags, token) = (*flags, *token.get_or_insert_with(random));
        state.tokens.insert(token, Tagged { ino, handle, flags });
        Some(token)
    }

    /// A call of the door wants to begin.
    pub fn begin(self: &Arc<Self>, token: Token, writes: bool) -> Begun {
        let mut state = self.state();
        let Some(of) = state.tokens.get(&token).copied() else { return Begun::NoHandle };
        let wrong = if writes { libc::O_RDONLY } else { libc::O_WRONLY };
        if of.flags & libc::O_ACCMODE == wrong {
            return Begun::NoHandle;
        }
        let Some(file) = state.files.get_mut(&of.ino) else { return Begun::NoHandle };
        if file.kernel {
            return Begun::Kernel;
        }
        if writes && !file.prepared {
            return Begun::Unprepared(of.ino);
        }
        file.in_flight += 1;
        file.writes += u64::from(writes);
        self.writes.fetch_add(u64::from(writes), SeqCst);
        Begun::Granted(InFlight { grants: self.clone(), of })
    }

    /// The kernel has forgotten what it kept of a file; or it could not be told, and keeps the file.
    pub fn prepared(&self, ino: Ino, told: bool) {
        if let Some(file) = self.state().files.get_mut(&ino) {
            file.prepared |= told;
            file.kernel |= !told;
        }
    }

    /// Before attributes are read.
    pub fn written(&self) -> Written {
        let (past, all) = (self.past_writes.load(SeqCst), self.writes.load(SeqCst));
        Written { all, past }
    }

    /// Whether attributes that were read since `before` may be believed for a while: the file is not the door's, and nothing can have
    /// been written to it meanwhile.
    pub fn may_be_believed(&self, ino: Ino, before: Written) -> bool {
        if self.is_idle() {
            // In this order: a file that was written has been counted before it was gone.
            return self.past_writes.load(SeqCst) == before.past;
        }
        let now = self.written();
        match self.state().files.get(&ino) {
            Some(file) => file.kernel && file.in_flight == 0 && now.all == before.all,
            None => self.past_writes.load(SeqCst) == before.past,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.grants.state();
        let Some(file) = state.files.get_mut(&self.of.ino) else { return };
        file.in_flight -= 1;
        if file.in_flight > 0 {
            return;
        }
        let waiting = std::mem::take(&mut file.waiting);
        self.grants.forget_unused(&mut state, self.of.ino);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    const FILE: Ino = Ino(7);
    const TOKEN: Token = Token(1, 2);

    fn tagged(handle: u64, flags: i32) -> Tagged {
        Tagged { ino: FILE, handle: Handle(handle), flags }
    }

    fn granted(grants: &Arc<Grants>, token: Token) -> InFlight {
        match grants.begin(token, true) {
            Begun::Granted(in_flight) => in_flight,
            _ => panic!("not granted"),
        }
    }

    fn one_writer() -> Arc<Grants> {
        let grants = Arc::new(Grants::default());
        assert!(grants.opened(tagged(1, libc::O_WRONLY), false, || 1));
        assert_eq!(grants.token(FILE, Handle(1), || TOKEN), Some(TOKEN));
        assert!(matches!(grants.begin(TOKEN, true), Begun::Unprepared(FILE)));
        grants.prepared(FILE, true);
        grants
    }

    #[test]
    fn a_token_is_good_for_what_its_handle_is_good_for_and_as_long() {
        let grants = one_writer();
        drop(granted(&grants, TOKEN));
        assert!(matches!(grants.begin(TOKEN, false), Begun::NoHandle), "it was opened to write");
        assert!(matches!(grants.begin(Token(1, 3), true), Begun::NoHandle));
        assert_eq!(grants.token(FILE, Handle(9), || TOKEN), None);
        grants.released(FILE, Handle(1));
        assert!(matches!(grants.begin(TOKEN, true), Begun::NoHandle));
        assert!(grants.is_idle());
    }

    #[test]
    fn a_file_that_others_have_open_is_the_kernels() {
        let grants = Arc::new(Grants::default());
        assert!(!grants.opened(tagged(1, libc::O_RDWR), false, || 2));
        assert_eq!(grants.token(FILE, Handle(1), || TOKEN), None);
        // Two of the door's are together.
        grants.released(FILE, Handle(1));
        assert!(grants.opened(tagged(1, libc::O_RDWR), false, || 1));
        assert!(grants.opened(tagged(2, libc::O_RDWR), false, || 2));
    }

    #[test]
    fn who_comes_through_the_kernel_waits_for_what_is_in_flight_and_keeps_the_file() {
        let grants = one_writer();
        let in_flight = granted(&grants, TOKEN);
        let mut using = pin!(grants.kernel_uses(FILE));
        let mut context = Context::from_waker(Waker::noop());
        assert!(using.as_mut().poll(&mut context).is_pending());
        assert!(matches!(grants.begin(TOKEN, true), Begun::Kernel));
        drop(in_flight);
        assert!(using.as_mut().poll(&mut context).is_ready());
        assert!(matches!(grants.begin(TOKEN, true), Begun::Kernel), "until it is closed");
    }

    #[test]
    fn a_file_that_is_closed_in_the_middle_of_a_call_is_waited_for_all_the_same() {
        let grants = one_writer();
        let in_flight = granted(&grants, TOKEN);
        grants.released(FILE, Handle(1));
        let mut using = pin!(grants.kernel_uses(FILE));
        let mut context = Context::from_waker(Waker::noop());
        assert!(using.as_mut().poll(&mut context).is_pending());
        drop(in_flight);
        assert!(using.as_mut().poll(&mut context).is_ready());
        assert!(grants.is_idle());
    }

    #[test]
    fn attributes_beside_a_write_of_the_door_are_not_believed() {
        let grants = one_writer();
        let before = grants.written();
        assert!(!grants.may_be_believed(FILE, before), "it is the door's");
        drop(granted(&grants, TOKEN));
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(grants.kernel_uses(FILE)).poll(&mut context).is_ready());
        assert!(!grants.may_be_believed(FILE, before), "read before the write");
        assert!(grants.may_be_believed(FILE, grants.written()));
        grants.released(FILE, Handle(1));
        assert!(!grants.may_be_believed(FILE, before), "also when it is closed again");
        assert!(grants.may_be_believed(FILE, grants.written()));
    }
}
