//! Waiting inside one xstream: events, notifications, semaphores, oneshots. `!Send`; clones are the same object.
//!
//! # Not here
//! Between threads: [`crate::oneshot`] and [`crate::mailbox`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A value passed once, inside one xstream.
#[must_use]
pub fn oneshot<T>() -> (LocalSender<T>, LocalReceiver<T>) {
    let slot = Rc::new(Slot { value: RefCell::new(None), waker: RefCell::new(None) });
    (LocalSender(slot.clone()), LocalReceiver(slot))
}

struct Slot<T> {
    value: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

/// Sends the value; dropped without, the receiver gets `None`.
pub struct LocalSender<T>(Rc<Slot<T>>);

impl<T> LocalSender<T> {
    /// The value is dropped if nobody waits for it any more.
    pub fn send(self, value: T) {
        *self.0.value.borrow_mut() = Some(value);
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl<T> Drop for LocalSender<T> {
    fn drop(&mut self) {
        let waker = self.0.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Resolves to the value, or `None` if the sender was dropped without sending.
pub struct LocalReceiver<T>(Rc<Slot<T>>);

impl<T> LocalReceiver<T> {
    /// Whether a value is there.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.value.borrow().is_some()
    }

    /// The value, if it is there.
    #[must_use]
    pub fn take(&self) -> Option<T> {
        self.0.value.borrow_mut().take()
    }
}

impl<T> Future for LocalReceiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.take() {
            return Poll::Ready(Some(value));
        }
        if Rc::strong_count(&self.0) == 1 {
            return Poll::Ready(None);
        }
        *self.0.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

fn add_waiter(waiters: &mut Vec<Waker>, waker: &Waker) {
    if !waiters.iter().any(|waiting| waiting.will_wake(waker)) {
        waiters.push(waker.clone());
    }
}

/// Something that happens once.
#[derive(Clone, Default)]
pub struct Event(Rc<EventState>);

#[derive(Default)]
struct EventState {
    set: Cell<bool>,
    waiters: RefCell<Vec<Waker>>,
}

impl Event {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// It has happened. Further calls change nothing.
    pub fn set(&self) {
        self.0.set.set(true);
        self.0.waiters.take().into_iter().for_each(Waker::wake);
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.set.get()
    }

    /// Resolves once it has happened.
    #[must_use]
    pub fn wait(&self) -> EventWait {
        EventWait(self.clone())
    }
}

/// Future of [`Event::wait`].
pub struct EventWait(Event);

impl Future for EventWait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.is_set() {
            return Poll::Ready(());
        }
        add_waiter(&mut self.0.0.waiters.borrow_mut(), context.waker());
        Poll::Pending
    }
}

/// Something that happens again and again: wakes all who wait, remembers nothing.
#[derive(Clone, Default)]
pub struct Notify(Rc<NotifyState>);

#[derive(Default)]
struct NotifyState {
    count: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
}

impl Notify {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn notify_all(&self) {
        self.0.count.set(self.0.count.get() + 1);
        self.0.waiters.take().into_iter().for_each(Waker::wake);
    }

    /// Resolves at the first notification after this call (not after the first poll): take it, look at the
    /// condition, then await it, and no notification is missed.
    #[must_use]
    pub fn wait(&self) -> NotifyWait {
        NotifyWait { notify: self.clone(), seen: self.0.count.get() }
    }
}

/// Future of [`Notify::wait`].
pub struct NotifyWait {
    notify: Notify,
    seen: u64,
}

impl Future for NotifyWait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = &self.notify.0;
        if state.count.get() > self.seen {
            return Poll::Ready(());
        }
        add_waiter(&mut state.waiters.borrow_mut(), context.waker());
        Poll::Pending
    }
}

/// Counted permits, given in the order in which they were asked for: a large request is not passed by later small ones.
#[derive(Clone)]
pub struct Semaphore(Rc<SemaphoreState>);

struct SemaphoreState {
    free: Cell<usize>,
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    wants: usize,
    given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Semaphore {
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self(Rc::new(SemaphoreState { free: Cell::new(permits), queue: RefCell::default() }))
    }

    /// Permits that nobody holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.free.get()
    }

    /// Adds permits.
    pub fn add(&self, permits: usize) {
        self.0.free.set(self.0.free.get() + permits);
        self.hand_out();
    }

    /// Asks for `permits` at once, before the first poll; resolves when they are given.
    #[must_use]
    pub fn acquire(&self, permits: usize) -> Acquire {
        let waiter =
            Rc::new(Waiter { wants: permits, given: Cell::new(false), waker: RefCell::new(None) });
        self.0.queue.borrow_mut().push_back(waiter.clone());
        self.hand_out();
        Acquire { semaphore: self.clone(), waiter: Some(waiter) }
    }

    /// Takes `permits` if they are there and nobody waits.
    #[must_use]
    pub fn try_acquire(&self, permits: usize) -> Option<Permit> {
        if !self.0.queue.borrow().is_empty() || self.0.free.get() < permits {
            return None;
        }
        self.0.free.set(self.0.free.get() - permits);
        Some(Permit { semaphore: self.clone(), permits })
    }

    fn hand_out(&self) {
        loop {
            let waiter = {
                let mut queue = self.0.queue.borrow_mut();
                match queue.front() {
                    Some(first) if first.wants <= self.0.free.get() => {
                        queue.pop_front().expect("front is there")
                    }
                    _ => return,
                }
            };
            self.0.free.set(self.0.free.get() - waiter.wants);
            waiter.given.set(true);
            let waker = waiter.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Future of [`Semaphore::acquire`]; dropped, it leaves the queue and gives back what it got.
pub struct Acquire {
    semaphore: Semaphore,
    /// `None` once the permit has been taken out.
    waiter: Option<Rc<Waiter>>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let waiter = self.waiter.as_ref().expect("not polled after it resolved");
        if !waiter.given.get() {
            *waiter.waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let permits = waiter.wants;
        self.waiter = None;
        Poll::Ready(Permit { semaphore: self.semaphore.clone(), permits })
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        if waiter.given.get() {
            self.semaphore.add(waiter.wants);
        } else {
            self.semaphore.0.queue.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
            self.semaphore.hand_out();
        }
    }
}

/// Permits of a [`Semaphore`], given back when dropped.
pub struct Permit {
    semaphore: Semaphore,
    permits: usize,
}

impl Permit {
    #[must_use]
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// Splits off `permits`, to be given back on their own.
    #[must_use]
    pub fn split(&mut self, permits: usize) -> Permit {
        assert!(permits <= self.permits);
        self.permits -= permits;
        Permit { semaphore: self.semaphore.clone(), permits }
    }

    /// The permits are gone for good.
    pub fn forget(mut self) {
        self.permits = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.permits > 0 {
            self.semaphore.add(self.permits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim;

    #[test]
    fn a_sender_dropped_without_sending_gives_none() {
        sim::run(1, |handle| async move {
            let (sender, receiver) = oneshot::<u32>();
            let task = handle.spawn(receiver);
            handle.yield_now().await;
            drop(sender);
            assert_eq!(task.await, None);
        });
    }

    #[test]
    fn an_event_wakes_all_and_stays() {
        for seed in 0..20 {
            sim::run(seed, |handle| async move {
                let event = Event::new();
                let tasks: Vec<_> = (0..3).map(|_| handle.spawn(event.wait())).collect();
                handle.yield_now().await;
                event.set();
                for task in tasks {
                    task.await;
                }
                event.wait().await;
            });
        }
    }

    #[test]
    fn a_notification_between_wait_and_await_is_not_missed() {
        sim::run(1, |_| async move {
            let notify = Notify::new();
            let wait = notify.wait();
            notify.notify_all();
            wait.await;
        });
    }

    #[test]
    fn a_semaphore_is_first_come_first_served() {
        for seed in 0..20 {
            sim::run(seed, |handle| async move {
                let semaphore = Semaphore::new(2);
                let held = semaphore.acquire(2).await;
                let order = Rc::new(RefCell::new(Vec::new()));
                let tasks: Vec<_> = [2, 1, 1]
                    .into_iter()
                    .enumerate()
                    .map(|(number, permits)| {
                        let (acquire, order) = (semaphore.acquire(permits), order.clone());
                        handle.spawn(async move {
                            let permit = acquire.await;
                            order.borrow_mut().push(number);
                            permit
                        })
                    })
                    .collect();
                assert!(semaphore.try_acquire(0).is_none(), "nobody passes the queue");
                drop(held);
                for task in tasks {
                    drop(task.await);
                }
                assert_eq!(order.borrow()[0], 0, "the large request was first");
                assert_eq!(semaphore.free(), 2);
            });
        }
    }

    #[test]
    fn a_dropped_request_gives_back_what_it_got_and_unblocks_the_next() {
        sim::run(1, |_| async move {
            let semaphore = Semaphore::new(1);
            let given = semaphore.acquire(1);
            let too_large = semaphore.acquire(5);
            let small = semaphore.acquire(1);
            drop(given);
            drop(too_large);
            let mut permit = small.await;
            let part = permit.split(1);
            drop(permit);
            assert_eq!(semaphore.free(), 0);
            part.forget();
            semaphore.add(3);
            assert_eq!(semaphore.free(), 3);
        });
    }
}
