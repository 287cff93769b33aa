//! A target: one xstream with one store on it, serving requests until it is told to stop.
//!
//! # Invariants
//! 1. At most [`REQUESTS_MAX`] requests are in flight; the next waits in Admit, and behind it at most [`QUEUE_MAX`].
//! 2. `Check` runs alone: it waits for what is in flight and what follows waits for it.
//! 3. Stop answers what is in flight, refuses what is queued with `Stopped`, then stops the store.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use daos_fabric::{Caller, Responder, Service, inproc};
use daos_types::rpc::{Reply, Request};
use daos_types::{Error, Result};
use daos_xstream::sync::{Permit, Semaphore};
use daos_xstream::{Handle, JoinHandle, Stage, Trace, Traced, Xstream, XstreamConfig, oneshot};
use futures_lite::future;

use crate::stats::{Stats, TargetStats, kind};

const REQUESTS_MAX: usize = 128;
const QUEUE_MAX: usize = 256;

/// What a target runs: the store; in tests, a model.
pub trait Backend: 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Result<Reply>>;
    /// Leaves everything on stable media. Nothing is asked afterwards.
    fn stop(&self) -> impl Future<Output = Result<()>>;
    /// While `alone`, no other request is ready to run: there is nothing to gain from waiting for others.
    fn set_alone(&self, _alone: bool) {}
}

/// A running target, seen from other threads.
pub(crate) struct Target {
    caller: Caller,
    stats: Arc<Stats>,
    stop: Option<oneshot::Sender<oneshot::Sender<Result<()>>>>,
    thread: Option<JoinHandle>,
}

impl Target {
    /// Starts the thread and waits until `open` has opened the store on it.
    pub(crate) fn start<B, E, F>(
        config: XstreamConfig,
        open: impl FnOnce(Handle) -> F + Send + 'static,
    ) -> std::io::Result<Result<Self, E>>
    where
        B: Backend,
        E: Send + 'static,
        F: Future<Output = Result<B, E>> + 'static,
    {
        let (caller, service) = inproc::pair(QUEUE_MAX);
        let stats = Arc::new(Stats::default());
        let (stop, stopped) = oneshot::channel();
        let (opened_sender, opened) = oneshot::channel();
        let stats_there = stats.clone();
        let thread = Xstream::start(config, move |handle| async move {
            match open(handle.clone()).await {
                Err(error) => opened_sender.send(Err(error)),
                Ok(backend) => {
                    opened_sender.send(Ok(()));
                    let backend = Rc::new(backend);
                    Server {
                        handle,
                        backend,
                        stats: stats_there,
                        room: Semaphore::new(REQUESTS_MAX),
                    }
                    .run(service, stopped)
                    .await;
                }
            }
        })?;
        let opened = opened
            .wait()
            .unwrap_or_else(|| panic!("the target's thread died while opening its store"));
        Ok(opened.map(|()| Self { caller, stats, stop: Some(stop), thread: Some(thread) }))
    }

    pub(crate) fn caller(&self) -> Caller {
        self.caller.clone()
    }

    pub(crate) fn stats(&self) -> StatsReader {
        StatsReader(self.stats.clone())
    }

    /// Stops the target and waits until its thread is gone. The second time does nothing.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) else {
            return Ok(());
        };
        let (sender, receiver) = oneshot::channel();
        stop.send(sender);
        let stopped = receiver.wait().unwrap_or(Err(Error::Stopped));
        if thread.join().is_err() {
            tracing::error!("the target's thread panicked");
            return Err(Error::Stopped);
        }
        stopped
    }
}

/// Reads a target's counters, also when it has stopped.
pub(crate) struct StatsReader(Arc<Stats>);

impl StatsReader {
    pub(crate) fn report(&self) -> TargetStats {
        self.0.report()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the target did not stop cleanly");
        }
    }
}

/// Serves `backend` on an xstream that is there already, until the last caller is gone: so a simulation runs a store and
/// its clients on one thread. The backend is never stopped; to the store, that is a crash.
pub fn serve_local<B: Backend>(handle: &Handle, backend: B) -> Caller {
    let (caller, mut service) = inproc::pair(QUEUE_MAX);
    let (handle, stats) = (handle.clone(), Arc::new(Stats::default()));
    let backend = Rc::new(backend);
    let server = Server { handle, backend, stats, room: Semaphore::new(REQUESTS_MAX) };
    server.handle.clone().spawn(async move { while server.next(&mut service).await {} });
    caller
}

/// What runs on the target's thread.
struct Server<B> {
    handle: Handle,
    backend: Rc<B>,
    stats: Arc<Stats>,
    room: Semaphore,
}

impl<B: Backend> Server<B> {
    async fn run(self, mut service: Service, stop: oneshot::Receiver<oneshot::Sender<Result<()>>>) {
        let mut stop = std::pin::pin!(stop);
        let stopped = loop {
            // Stop first: a target with a full queue stops too.
            let next = future::or(async { Err(stop.as_mut().await) }, async {
                Ok(self.next(&mut service).await)
            });
            match next.await {
                Ok(true) => {}
                Ok(false) => break None,
                Err(stopped) => break stopped,
            }
        };
        drop(service);
        let idle = self.room.acquire(REQUESTS_MAX).await;
        let result = self.backend.stop().await;
        drop(idle);
        if let Some(stopped) = stopped {
            stopped.send(result);
        }
    }

    /// Takes in one request; false when nobody is left who could ask.
    async fn next(&self, service: &mut Service) -> bool {
        let Some((request, responder)) = service.recv().await else { return false };
        let trace = Trace::begin(Stage::Admit);
        let share = if matches!(request, Request::Check { .. }) { REQUESTS_MAX } else { 1 };
        let permit = self.room.acquire(share).await;
        let alone = service.is_empty() && self.handle.is_idle();
        let mut serving = Box::pin(self.serve(request, responder, trace, permit));
        // A request that comes alone is mostly answered in its first poll: no task, no wake, no second poll.
        if alone && self.poll_alone(serving.as_mut()).await {
            // Others, and whoever wants the turn, come before the next one.
            self.handle.yield_now().await;
        } else {
            self.handle.spawn(serving);
        }
        true
    }

    /// Polls once; true if it is answered.
    async fn poll_alone(&self, mut serving: Pin<&mut impl Future<Output = ()>>) -> bool {
        poll_fn(|context| {
            self.backend.set_alone(true);
            let polled = serving.as_mut().poll(context);
            self.backend.set_alone(false);
            Poll::Ready(polled.is_ready())
        })
        .await
    }

    fn serve(
        &self,
        request: Request,
        responder: Responder,
        trace: Trace,
        permit: Permit,
    ) -> impl Future<Output = ()> + 'static {
        let (backend, stats) = (self.backend.clone(), self.stats.clone());
        async move {
            let kind = kind(&request);
            let (answer, trace) = Traced::new(trace, backend.handle(request)).await;
            stats.record(kind, answer.is_err(), trace);
            drop(permit);
            responder.answer(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daos_model::ModelTarget;
    use std::cell::{Cell, RefCell};
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    struct Slow {
        handle: Handle,
        model: RefCell<ModelTarget>,
        in_flight: Cell<usize>,
        stopped: Arc<AtomicBool>,
    }

    impl Backend for Slow {
        async fn handle(&self, request: Request) -> Result<Reply> {
            self.in_flight.set(self.in_flight.get() + 1);
            if matches!(request, Request::Check { .. }) {
                assert_eq!(self.in_flight.get(), 1, "a check runs alone");
            }
            assert!(self.in_flight.get() <= REQUESTS_MAX);
            self.handle.sleep(std::time::Duration::from_millis(2)).await;
            let answer = self.model.borrow_mut().handle(request);
            self.in_flight.set(self.in_flight.get() - 1);
            answer
        }

        async fn stop(&self) -> Result<()> {
            assert_eq!(self.in_flight.get(), 0, "a store stops when nothing is in flight");
            self.stopped.store(true, SeqCst);
            Ok(())
        }
    }

    fn target(stopped: &Arc<AtomicBool>) -> Target {
        let stopped = stopped.clone();
        let opened = Target::start(XstreamConfig::default(), |handle| async move {
            let model = RefCell::new(ModelTarget::new(1, || 1));
            Ok::<_, Error>(Slow { handle, model, in_flight: Cell::new(0), stopped })
        });
        opened.unwrap().unwrap()
    }

    #[test]
    fn check_runs_alone_among_many_requests() {
        let mut target = target(&Arc::default());
        let caller = target.caller();
        let calls: Vec<_> = (0..200)
            .map(|n| match n % 50 {
                25 => caller.call(Request::Check { repair: false }),
                _ => caller.call(Request::PoolList),
            })
            .collect();
        for call in calls {
            future::block_on(call).unwrap();
        }
        let stats = target.stats().report();
        let counts: Vec<_> =
            stats.requests.iter().map(|kind| (kind.name.as_str(), kind.count)).collect();
        assert_eq!(counts, [("pool-list", 196), ("check", 4)]);
        assert_eq!(stats.stages[0].name, "admit");
        target.stop().unwrap();
    }

    #[test]
    fn stop_answers_what_is_in_flight_and_refuses_the_rest() {
        let stopped = Arc::default();
        let mut target = target(&stopped);
        let caller = target.caller();
        let calls: Vec<_> = (0..380).map(|_| caller.call(Request::PoolList)).collect();
        target.stop().unwrap();
        assert!(stopped.load(SeqCst));
        let (mut served, mut refused) = (0, 0);
        for call in calls {
            match future::block_on(call) {
                Ok(_) => served += 1,
                Err(Error::Stopped) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(served + refused, 380);
        assert!(refused > 0);
        assert_eq!(future::block_on(caller.call(Request::Sync)).err(), Some(Error::Stopped));
    }

    #[test]
    fn simulation_serves_a_store_on_its_own_thread() {
        for seed in 0..10 {
            daos_xstream::sim::run(seed, |handle| async move {
                let model = RefCell::new(ModelTarget::new(1, || 1));
                let (in_flight, stopped) = (Cell::new(0), Arc::default());
                let backend = Slow { handle: handle.clone(), model, in_flight, stopped };
                let caller = serve_local(&handle, backend);
                let calls: Vec<_> = (0..300).map(|_| caller.call(Request::PoolList)).collect();
                for call in calls {
                    call.await.unwrap();
                }
            });
        }
    }

    #[test]
    fn store_that_does_not_open_is_told_to_the_starter() {
        let failed = Target::start(XstreamConfig::default(), |_| async {
            Err::<Slow, _>(Error::Invalid("no store"))
        });
        assert_eq!(failed.unwrap().err(), Some(Error::Invalid("no store")));
    }
}
