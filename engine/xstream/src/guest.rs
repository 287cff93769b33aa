//! Running an xstream that sleeps, on the thread that has work for it.
//!
//! A request to a sleeping xstream and its answer cost two changes of thread, 10-20 us each, for a few microseconds of work.
//! A thread inside a [`Guest`] scope that wakes a task of an xstream which lends does not wake the xstream's thread: it takes
//! the turn (`turn.rs`) and runs the task. If somebody has the turn already, that one runs it.
//!
//! # Invariants
//! 1. No turn begins when a scope's turns have taken [`GUEST_US_MAX`] since the first. What is left is the owner's.
//! 2. A guest touches no poller: devices and endpoints belong to the owner's thread. What a task has queued on one for
//!    submission is a reason to wake the owner.
//! 3. A panic of a task in a guest's turn ends the xstream, not the guest: it goes on in the owner.
//! 4. A call that blocks is made with no turn held, when there is nothing else to run and no answer to see to, and by at
//!    most one guest of the process at a time, so that the others are there for what comes meanwhile. Its time does not count.
//! 5. Every xstream that was woken in a scope has been run, or its owner woken, when the scope ends.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::time::{Duration, Instant};

use crate::executor::{Call, Core};
use crate::thread::TASKS_PER_TURN;
use crate::wake::{Entered, Remote, on_xstream};

/// How long the turns of one scope may take together.
pub const GUEST_US_MAX: u64 = 1000;

#[derive(Default)]
struct Scope {
    open: bool,
    /// The xstreams that were woken in it, and not looked after yet.
    woken: Vec<Arc<Remote>>,
}

/// A guest blocks, or is about to.
static BLOCKS: AtomicBool = AtomicBool::new(false);

/// Takes the right to block, which [`Guest::make`] gives back.
pub(crate) fn may_block() -> bool {
    !BLOCKS.swap(true, SeqCst)
}

thread_local! {
    static SCOPE: RefCell<Scope> = RefCell::default();
}

/// A wake of `remote` is left to this thread's scope; false if there is none.
pub(crate) fn leave_to_scope(remote: &Arc<Remote>) -> bool {
    SCOPE
        .try_with(|scope| {
            let mut scope = scope.borrow_mut();
            if scope.open && !scope.woken.iter().any(|other| Arc::ptr_eq(other, remote)) {
                scope.woken.push(remote.clone());
            }
            scope.open
        })
        .unwrap_or(false)
}

/// A scope in which the calling thread runs the xstreams that it wakes, if they sleep and lend. Inside of another scope, and on an
/// xstream's own thread, it does nothing.
pub struct Guest {
    outermost: bool,
    until: Cell<Option<Instant>>,
    /// What was left to it, and is not made yet.
    call: RefCell<Option<Call>>,
    not_send: PhantomData<*const ()>,
}

impl Guest {
    #[must_use]
    pub fn enter() -> Self {
        let outermost = !on_xstream()
            && SCOPE.with_borrow_mut(|scope| !std::mem::replace(&mut scope.open, true));
        Self { outermost, until: Cell::default(), call: RefCell::default(), not_send: PhantomData }
    }

    /// Runs what was woken since the scope began, or since the last call; true if anything ran, so that there may be answers.
    pub fn help(&self) -> bool {
        loop {
            let mut ran = false;
            while let Some(remote) = self.next() {
                ran |= self.run(&remote);
            }
            if ran {
                return true;
            }
            let Some(call) = self.call.take() else { return false };
            self.make(call);
        }
    }

    /// Runs the xstream until nothing is ready, time is up, or its owner wants it. True if it ran.
    fn run(&self, remote: &Remote) -> bool {
        let mut ran = false;
        while remote.has_woken() {
            let until = self.until();
            if Instant::now() >= until {
                remote.wake_owner();
                break;
            }
            // Between setting `has_woken`, which whoever woke a task has done, and looking for the turn.
            fence(SeqCst);
            let Some(held) = remote.turn.try_take() else { break };
            let Some(core) = held.core() else { break };
            let owner_needed = run_turns(core, until);
            // There is none yet: `BLOCKS` is this guest's until it has made it.
            if let Some(call) = core.call.take() {
                *self.call.borrow_mut() = Some(call);
            }
            drop(held);
            ran = true;
            if owner_needed {
                remote.wake_owner();
                break;
            }
            // Between letting go of the turn and looking at `has_woken` again.
            fence(SeqCst);
        }
        ran
    }

    /// A call that panics drops what it owes, which its xstream sees.
    fn make(&self, call: Call) {
        let begun = Instant::now();
        let _made = catch_unwind(AssertUnwindSafe(call));
        BLOCKS.store(false, SeqCst);
        self.until.set(self.until.get().map(|until| until + begun.elapsed()));
    }

    fn until(&self) -> Instant {
        self.until.get().unwrap_or_else(|| {
            let until = Instant::now() + Duration::from_micros(GUEST_US_MAX);
            self.until.set(Some(until));
            until
        })
    }

    fn next(&self) -> Option<Arc<Remote>> {
        if !self.outermost {
            return None;
        }
        SCOPE.with_borrow_mut(|scope| scope.woken.pop())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.outermost {
            return;
        }
        while let Some(remote) = self.next() {
            remote.wake_owner();
        }
        if let Some(call) = self.call.take() {
            self.make(call);
            while let Some(remote) = self.next() {
                remote.wake_owner();
            }
        }
        SCOPE.with_borrow_mut(|scope| scope.open = false);
    }
}

/// True if the owner is needed for what is left. The caller holds the turn.
fn run_turns(core: &Rc<Core>, until: Instant) -> bool {
    if core.panicked.borrow().is_some() {
        return true;
    }
    let _entered = Entered::enter(core);
    core.guest.set(true);
    let turns = catch_unwind(AssertUnwindSafe(|| while turn(core) && Instant::now() < until {}));
    core.guest.set(false);
    if let Err(panic) = turns {
        *core.panicked.borrow_mut() = Some(panic);
        return true;
    }
    needs_owner(core)
}

/// One turn without pollers; false if there is no cause for another.
fn turn(core: &Core) -> bool {
    let mut progress = core.take_remote();
    progress |= core.fire_timers();
    for _ in 0..TASKS_PER_TURN {
        if core.remote.turn.owner_waits() {
            return false;
        }
        match core.next_ready() {
            Some(id) => core.run(id),
            None => break,
        }
        progress = true;
    }
    progress
}

/// Whether there is something that the owner, asleep, does not know of.
fn needs_owner(core: &Core) -> bool {
    core.ready_count() > 0
        || core.ended.get()
        || core.pollers_changed.get()
        || core.timers.next_deadline_ns().is_some_and(|due_ns| due_ns < core.sleeps_until_ns.get())
        || core.any_poller(|poller| {
            poller.queued() || (poller.wait_fd().is_none() && poller.pending())
        })
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::{Handle, JoinHandle, Lending, Mailbox, Poll, Random, Xstream, XstreamConfig};
    use crate::{mailbox, oneshot};
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;
    use std::thread::ThreadId;

    fn lending() -> XstreamConfig {
        // SAFETY: the tasks of these tests hold channels, counters and `Rc`s, across awaits too, and nothing that knows its thread.
        let lending = unsafe { Lending::to_guests() };
        XstreamConfig { name: "lending".into(), lending, ..Default::default() }
    }

    type Question = (u64, oneshot::Sender<(u64, ThreadId)>);

    /// Answers with the number and the thread that ran the task, each after its own kind of wait.
    fn serve(config: XstreamConfig) -> (Mailbox<Question>, JoinHandle) {
        let (mailbox, mut inbox) = mailbox::<Question>(64);
        let thread = Xstream::start(config, move |handle| async move {
            while let Some((number, reply)) = inbox.recv().await {
                let here = handle.clone();
                handle.spawn(async move {
                    wait_somehow(&here, number).await;
                    reply.send((number, std::thread::current().id()));
                });
            }
        });
        (mailbox, thread.unwrap())
    }

    async fn wait_somehow(handle: &Handle, number: u64) {
        match number % 8 {
            1 => handle.yield_now().await,
            2 => handle.sleep(Duration::from_micros(number % 97)).await,
            3 => {
                for _ in 0..200 {
                    handle.yield_now().await;
                }
            }
            4 => {
                // Answered by a thread that is not in a scope.
                let (sender, receiver) = oneshot::channel();
                std::thread::spawn(move || sender.send(()));
                receiver.await;
            }
            5 => handle.spawn(std::future::ready(())).await,
            _ => {}
        }
    }

    fn ask(mailbox: &Mailbox<Question>, number: u64) -> oneshot::Receiver<(u64, ThreadId)> {
        let (sender, receiver) = oneshot::channel();
        mailbox.send((number, sender)).map_err(drop).unwrap();
        receiver
    }

    /// Until the xstream's thread sleeps: long enough on any machine, and if not, no test fails that would pass.
    fn until_asleep() {
        std::thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn a_sleeping_xstream_is_run_by_its_guest_and_a_pinned_one_is_not() {
        for pinned in [false, true] {
            let core = pinned.then_some(0);
            let (mailbox, thread) = serve(XstreamConfig { core, ..lending() });
            let mut here = 0;
            for number in (0..80).step_by(8) {
                until_asleep();
                let guest = Guest::enter();
                let answer = ask(&mailbox, number);
                here += u32::from(guest.help());
                drop(guest);
                let (number_again, ran_on) = answer.wait().unwrap();
                assert_eq!(number_again, number);
                assert!(!pinned || ran_on != std::thread::current().id());
            }
            assert!(if pinned { here == 0 } else { here > 0 });
            drop(mailbox);
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_scope_that_ends_without_help_wakes_the_owner() {
        let (mailbox, thread) = serve(lending());
        until_asleep();
        let guest = Guest::enter();
        let answer = ask(&mailbox, 0);
        drop(guest);
        let (_, ran_on) = answer.wait().unwrap();
        assert_ne!(ran_on, std::thread::current().id());
        drop(mailbox);
        thread.join().unwrap();
    }

    #[test]
    fn no_wake_is_lost_between_guests_their_xstream_and_others() {
        let (mailbox, thread) = serve(lending());
        let (here, asked) = (Arc::new(AtomicU64::new(0)), 4000);
        let callers: Vec<_> = (0..6u64)
            .map(|caller| {
                let (mailbox, here) = (mailbox.clone(), here.clone());
                std::thread::spawn(move || {
                    let mut random = Random::from_seed(caller);
                    for _ in 0..asked {
                        let number = random.next_u64();
                        // Two callers never help; two ask for several things in one scope.
                        let guest = (caller >= 2).then(Guest::enter);
                        let count = if caller >= 4 { 1 + number % 3 } else { 1 };
                        let answers: Vec<_> =
                            (0..count).map(|more| ask(&mailbox, number >> more)).collect();
                        if let Some(guest) = &guest {
                            while guest.help() {}
                        }
                        drop(guest);
                        for (more, answer) in answers.into_iter().enumerate() {
                            let (number_again, ran_on) = answer.wait().unwrap();
                            assert_eq!(number_again, number >> more);
                            if ran_on == std::thread::current().id() {
                                here.fetch_add(1, SeqCst);
                            }
                        }
                    }
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        drop(mailbox);
        thread.join().unwrap();
        assert!(here.load(SeqCst) > 0, "no guest ever ran a task");
    }

    #[test]
    fn a_panic_in_a_guests_turn_ends_the_xstream_and_not_the_guest() {
        let (mailbox, mut inbox) = mailbox::<oneshot::Sender<()>>(4);
        let (ended, end) = mpsc::channel();
        struct TellThread(mpsc::Sender<ThreadId>);
        impl Drop for TellThread {
            fn drop(&mut self) {
                self.0.send(std::thread::current().id()).unwrap();
            }
        }
        let thread = Xstream::start(lending(), move |handle| async move {
            handle.spawn(async move {
                let _told = TellThread(ended);
                std::future::pending::<()>().await;
            });
            let _reply = inbox.recv().await;
            panic!("on purpose");
        })
        .unwrap();
        until_asleep();
        let (sender, answer) = oneshot::channel();
        let guest = Guest::enter();
        mailbox.try_send(sender).map_err(drop).unwrap();
        assert!(guest.help());
        drop(guest);
        assert_eq!(answer.wait(), None);
        let panic = thread.join().unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        assert_ne!(end.recv().unwrap(), std::thread::current().id(), "tasks end on their owner");
        // The xstream is gone, and nobody minds.
        let _guest = Guest::enter();
        let (sender, _answer) = oneshot::channel();
        assert!(mailbox.try_send(sender).is_err());
    }

    #[test]
    fn the_end_of_main_in_a_guests_turn_ends_the_xstream() {
        for _ in 0..50 {
            let (mailbox, mut inbox) = mailbox::<()>(1);
            let thread = Xstream::start(lending(), move |_| async move {
                inbox.recv().await;
            })
            .unwrap();
            std::thread::sleep(Duration::from_micros(300));
            let guest = Guest::enter();
            mailbox.send(()).unwrap();
            guest.help();
            drop(guest);
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_blocking_call_is_made_after_the_turn_by_one_guest_at_a_time() {
        let (mailbox, mut inbox) = mailbox::<oneshot::Sender<Option<ThreadId>>>(64);
        let thread = Xstream::start(lending(), move |handle| async move {
            while let Some(reply) = inbox.recv().await {
                if !handle.claim_guest() {
                    reply.send(None);
                    continue;
                }
                let (sender, made) = oneshot::channel();
                handle.leave_to_guest(move || {
                    std::thread::sleep(Duration::from_millis(5));
                    sender.send(std::thread::current().id());
                });
                handle.spawn(async move { reply.send(made.await) });
            }
        })
        .unwrap();
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    let mut made = 0;
                    for _ in 0..30 {
                        let guest = Guest::enter();
                        let (sender, answer) = oneshot::channel();
                        mailbox.send(sender).map_err(drop).unwrap();
                        while guest.help() {}
                        drop(guest);
                        made += u32::from(answer.wait().unwrap().is_some());
                    }
                    made
                })
            })
            .collect();
        let made: u32 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        assert!(made > 0 && made < 90, "{made} calls");
        drop(mailbox);
        thread.join().unwrap();
    }

    #[test]
    fn a_timer_set_in_a_guests_turn_fires_though_nobody_comes_again() {
        let (mailbox, thread) = serve(lending());
        for number in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            let guest = Guest::enter();
            let answer = ask(&mailbox, 2 + 8 * number);
            guest.help();
            drop(guest);
            assert!(answer.wait().is_some());
        }
        drop(mailbox);
        thread.join().unwrap();
    }

    /// Completes what was queued when its own thread polls it.
    #[derive(Default)]
    struct Device {
        queue: RefCell<Vec<crate::sync::LocalSender<ThreadId>>>,
    }

    impl Poll for Device {
        fn poll(&self) -> bool {
            let queue = self.queue.take();
            let any = !queue.is_empty();
            queue.into_iter().for_each(|sender| sender.send(std::thread::current().id()));
            any
        }
        fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn pending(&self) -> bool {
            self.queued()
        }
        fn queued(&self) -> bool {
            !self.queue.borrow().is_empty()
        }
    }

    #[test]
    fn what_a_guest_queues_on_a_device_is_submitted_by_the_owner() {
        let (mailbox, mut inbox) = mailbox::<oneshot::Sender<ThreadId>>(4);
        let thread = Xstream::start(lending(), move |handle| async move {
            let device = Rc::new(Device::default());
            let poller: Rc<dyn Poll> = device.clone();
            handle.register_poller(Rc::downgrade(&poller));
            while let Some(reply) = inbox.recv().await {
                let (sender, polled) = crate::sync::oneshot();
                device.queue.borrow_mut().push(sender);
                reply.send(polled.await.unwrap());
            }
        })
        .unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(2));
            let guest = Guest::enter();
            let (sender, answer) = oneshot::channel();
            mailbox.send(sender).map_err(drop).unwrap();
            guest.help();
            drop(guest);
            assert_ne!(answer.wait().unwrap(), std::thread::current().id());
        }
        drop(mailbox);
        thread.join().unwrap();
    }
}
