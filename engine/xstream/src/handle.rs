//! What code on an xstream may ask of it.

use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll as Ready};
use std::time::Duration;

use crate::executor::Core;
use crate::guest;
use crate::sync::LocalReceiver;
use crate::thread::Poll;
use crate::timer::TimerKey;

/// The xstream that the code runs on. `!Send`: it stays on its thread.
#[derive(Clone)]
pub struct Handle(pub(crate) Rc<Core>);

impl Handle {
    /// Starts a task. It runs whether or not the [`Task`] is kept or awaited.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let (sender, receiver) = crate::sync::oneshot();
        self.0.spawn(Box::pin(async move {
            sender.send(future.await);
        }));
        Task(receiver)
    }

    /// Resolves no earlier than `duration` from now.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let wait_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sleep_until(self.monotonic().saturating_add(wait_ns))
    }

    /// Resolves once [`Handle::monotonic`] is at least `deadline_ns`.
    #[must_use]
    pub fn sleep_until(&self, deadline_ns: u64) -> Sleep {
        Sleep { core: self.0.clone(), deadline_ns, timer: None }
    }

    /// Lets every other ready task run first.
    #[must_use]
    pub fn yield_now(&self) -> YieldNow {
        YieldNow { yielded: false }
    }

    /// Nanoseconds since the Unix epoch. May jump when somebody sets the system's clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.clock.unix_ns()
    }

    /// Nanoseconds since the xstream started; never falls.
    #[must_use]
    pub fn monotonic(&self) -> u64 {
        self.0.clock.monotonic_ns()
    }

    /// Reproducible under simulation; not for secrets.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.0.random.borrow_mut().next_u64()
    }

    /// Has the loop of this xstream poll `poller` for as long as somebody else keeps it alive.
    ///
    /// # Panics
    /// Under simulation, where nothing comes from outside.
    pub fn register_poller(&self, poller: Weak<dyn Poll>) {
        assert!(
            !self.0.simulated,
            "a simulated xstream has no pollers: nothing comes from outside"
        );
        self.0.pollers.borrow_mut().push(poller);
        self.0.pollers_changed.set(true);
    }

    /// Whether a guest has the turn that can make a blocking call when it has let go of it: one call, and one guest of the
    /// process at a time. If so, [`Handle::leave_to_guest`] has to follow.
    #[must_use]
    pub fn claim_guest(&self) -> bool {
        self.0.guest.get() && self.0.call.borrow().is_none() && guest::may_block()
    }

    /// The guest makes this call after its turn.
    ///
    /// # Panics
    /// When it has not been claimed.
    pub fn leave_to_guest(&self, call: impl FnOnce() + Send + 'static) {
        assert!(self.0.guest.get(), "a guest has been claimed");
        let before = self.0.call.replace(Some(Box::new(call)));
        assert!(before.is_none(), "a guest makes one call");
    }

    /// No other task is ready to run, as far as is known without looking. Under simulation the seed may say that one is: what is
    /// done at once when idle is then done in either way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.0.ready_count() == 0 && !(self.0.simulated && self.random_u64().is_multiple_of(2))
    }

    /// Whether time and order come from a seed.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.0.simulated
    }
}

/// A task's result, when it has one. Dropping it detaches the task.
pub struct Task<T>(LocalReceiver<T>);

impl<T> Task<T> {
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_ready()
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Ready<T> {
        Pin::new(&mut self.0).poll(context).map(|value| {
            value.expect(
                "a task is dropped unfinished only at the end of its xstream, with all others",
            )
        })
    }
}

/// Future of [`Handle::sleep`].
pub struct Sleep {
    core: Rc<Core>,
    deadline_ns: u64,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Ready<()> {
        if self.core.clock.monotonic_ns() >= self.deadline_ns {
            return Ready::Ready(());
        }
        match self.timer {
            Some(key) => self.core.timers.rearm(key, context.waker()),
            None => {
                let key = self.core.timers.register(self.deadline_ns, context.waker().clone());
                self.timer = Some(key);
            }
        }
        Ready::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.core.timers.cancel(key);
        }
    }
}

/// Future of [`Handle::yield_now`].
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Ready<()> {
        if self.yielded {
            return Ready::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Ready::Pending
    }
}
