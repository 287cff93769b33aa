//! The task table and the ready queue of one xstream. Order and time are decided by the loops that drive it:
//! `thread` (real) and `sim`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Waker};

use crate::clock::Clock;
use crate::random::Random;
use crate::thread::Poll;
use crate::timer::Timers;
use crate::turn::Lending;
use crate::wake::{Remote, TaskId, TaskWaker};

pub(crate) type Call = Box<dyn FnOnce() + Send>;
type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct Core {
    tasks: RefCell<Vec<Slot>>,
    vacant: RefCell<Vec<u32>>,
    ready: RefCell<VecDeque<TaskId>>,
    pub remote: Arc<Remote>,
    pub timers: Timers,
    pub pollers: RefCell<Vec<Weak<dyn Poll>>>,
    pub clock: Clock,
    pub random: RefCell<Random>,
    pub simulated: bool,
    stopped: Cell<bool>,
    /// Empty between uses; kept for its memory.
    scratch: RefCell<Vec<TaskId>>,
    /// What a task panicked with while a guest ran it.
    pub panicked: RefCell<Option<Box<dyn Any + Send>>>,
    /// `main` has its result.
    pub ended: Cell<bool>,
    /// A guest has the turn.
    pub guest: Cell<bool>,
    /// What it does after it.
    pub call: RefCell<Option<Call>>,
    /// When the owner, asleep, wakes by itself.
    pub sleeps_until_ns: Cell<u64>,
    /// There are pollers of whose descriptors the owner, asleep, does not know.
    pub pollers_changed: Cell<bool>,
}

struct Slot {
    generation: u32,
    state: State,
}

enum State {
    Vacant,
    /// Taken out while it is polled.
    Running,
    Waiting(LocalFuture, Arc<TaskWaker>),
}

impl Core {
    pub fn new(
        clock: Clock,
        random: Random,
        simulated: bool,
        lending: Lending,
    ) -> std::io::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            tasks: RefCell::default(),
            vacant: RefCell::default(),
            ready: RefCell::default(),
            remote: Arc::new(Remote::new(lending)?),
            timers: Timers::default(),
            pollers: RefCell::default(),
            clock,
            random: RefCell::new(random),
            simulated,
            stopped: Cell::new(false),
            scratch: RefCell::default(),
            panicked: RefCell::default(),
            ended: Cell::new(false),
            guest: Cell::new(false),
            call: RefCell::default(),
            sleeps_until_ns: Cell::new(u64::MAX),
            pollers_changed: Cell::new(false),
        }))
    }

    pub fn spawn(&self, future: LocalFuture) {
        if self.stopped.get() {
            return; // Spawned by a destructor at the end: dropped, like every other task.
        }
        let mut tasks = self.tasks.borrow_mut();
        let index = self.vacant.borrow_mut().pop().unwrap_or_else(|| {
            tasks.push(Slot { generation: 0, state: State::Vacant });
            u32::try_from(tasks.len() - 1).expect("fewer than 2^32 tasks fit in memory")
        });
        let slot = &mut tasks[index as usize];
        assert!(matches!(slot.state, State::Vacant));
        let id = TaskId { index, generation: slot.generation };
        let waker =
            Arc::new(TaskWaker { id, queued: AtomicBool::new(true), remote: self.remote.clone() });
        slot.state = State::Waiting(future, waker);
        self.push_ready(id);
    }

    pub fn push_ready(&self, id: TaskId) {
        self.ready.borrow_mut().push_back(id);
    }

    pub fn ready_count(&self) -> usize {
        self.ready.borrow().len()
    }

    /// Takes the ready task at `index` out of order.
    pub fn pick_ready(&self, index: usize) -> Option<TaskId> {
        self.ready.borrow_mut().remove(index)
    }

    pub fn next_ready(&self) -> Option<TaskId> {
        self.ready.borrow_mut().pop_front()
    }

    /// Queues what other threads woke. True if there was something.
    pub fn take_remote(&self) -> bool {
        let mut woken = self.scratch.borrow_mut();
        self.remote.take(&mut woken);
        let any = !woken.is_empty();
        self.ready.borrow_mut().extend(woken.drain(..));
        any
    }

    /// Wakes whoever waits for a time that has come. True if there was somebody.
    pub fn fire_timers(&self) -> bool {
        let Some(deadline_ns) = self.timers.next_deadline_ns() else { return false };
        let now_ns = self.clock.monotonic_ns();
        deadline_ns <= now_ns && self.timers.fire(now_ns)
    }

    /// Polls one task, unless it has finished since it was woken.
    pub fn run(&self, id: TaskId) {
        let Some((mut future, waker)) = self.begin(id) else { return };
        waker.queued.store(false, SeqCst);
        let std_waker = Waker::from(waker.clone());
        let finished = future.as_mut().poll(&mut Context::from_waker(&std_waker)).is_ready();
        if finished {
            self.retire(id);
            drop(future); // Its destructors may spawn and wake: no borrow is held here.
        } else {
            self.tasks.borrow_mut()[id.index as usize].state = State::Waiting(future, waker);
        }
    }

    fn begin(&self, id: TaskId) -> Option<(LocalFuture, Arc<TaskWaker>)> {
        let mut tasks = self.tasks.borrow_mut();
        let slot = &mut tasks[id.index as usize];
        if slot.generation != id.generation {
            return None;
        }
        match std::mem::replace(&mut slot.state, State::Vacant) {
            State::Waiting(future, waker) => {
                slot.state = State::Running;
                Some((future, waker))
            }
            State::Running | State::Vacant => {
                unreachable!("a task runs once at a time, and its generation ends with it")
            }
        }
    }

    fn retire(&self, id: TaskId) {
        let slot = &mut self.tasks.borrow_mut()[id.index as usize];
        slot.state = State::Vacant;
        slot.generation = slot.generation.wrapping_add(1);
        self.vacant.borrow_mut().push(id.index);
    }

    /// Whether `what` holds of a poller.
    pub fn any_poller(&self, what: impl Fn(&dyn Poll) -> bool) -> bool {
        let pollers = self.pollers.borrow();
        pollers.iter().filter_map(Weak::upgrade).any(|poller| what(&*poller))
    }

    /// Polls every poller once; true if one made progress.
    pub fn poll_pollers(&self) -> bool {
        let mut progress = false;
        let mut index = 0;
        loop {
            let poller = match self.pollers.borrow().get(index) {
                Some(poller) => poller.upgrade(),
                None => return progress,
            };
            match poller {
                Some(poller) => {
                    progress |= poller.poll();
                    index += 1;
                }
                None => {
                    self.pollers.borrow_mut().swap_remove(index);
                }
            }
        }
    }

    /// Drops every task, in the order of the table. What they wake or spawn meanwhile is dropped too.
    pub fn stop(&self) {
        self.stopped.set(true);
        let slots = self.tasks.take();
        drop(slots);
        self.ready.borrow_mut().clear();
        self.timers.clear();
        self.pollers.borrow_mut().clear();
    }
}
