//! Calls within one process: a bounded mailbox to the service's thread, and a oneshot back for each answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use daos_types::{Error, Result};
use daos_xstream::oneshot;
use daos_xstream::{Inbox, Mailbox, Refused, mailbox};

struct Envelope<Q, A> {
    request: Q,
    responder: Responder<A>,
}

/// The two ends of a new way, on which at most `calls_max` calls wait to be received.
#[must_use]
pub fn pair<Q: Send + 'static, A: Send + 'static>(
    calls_max: usize,
) -> (Caller<Q, A>, Service<Q, A>) {
    let (mailbox, inbox) = mailbox(calls_max);
    (Caller { mailbox }, Service { inbox })
}

/// Sends requests, from any thread.
pub struct Caller<Q, A> {
    mailbox: Mailbox<Envelope<Q, A>>,
}

impl<Q, A> Clone for Caller<Q, A> {
    fn clone(&self) -> Self {
        Self { mailbox: self.mailbox.clone() }
    }
}

impl<Q, A> fmt::Debug for Caller<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inproc::Caller")
    }
}

impl<Q: Send + 'static, A: Send + 'static> Caller<Q, A> {
    /// Sends `request` at once, or, when the queue is full, as soon as the call is polled and there is room. Once sent,
    /// the service does the work whether or not the call is kept.
    pub fn call(&self, request: Q) -> Call<A> {
        let (sender, receiver) = oneshot::channel();
        let envelope = Envelope { request, responder: Responder { sender } };
        let posting: Option<Posting> = match self.mailbox.try_send(envelope) {
            Ok(()) => None,
            Err(Refused::Full(envelope)) => {
                let posting = self.mailbox.post(envelope);
                Some(Box::pin(async move { drop(posting.await) }))
            }
            // Dropping the envelope drops its responder, which tells the receiver.
            Err(Refused::Closed(_)) => None,
        };
        Call { posting, receiver }
    }
}

type Posting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Resolves to the answer.
#[must_use = "the answer comes to whoever awaits the call"]
pub struct Call<A> {
    /// While the request waits for room in the queue.
    posting: Option<Posting>,
    receiver: oneshot::Receiver<Result<A>>,
}

impl<A> Future for Call<A> {
    type Output = Result<A>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(posting) = &mut self.posting {
            ready!(posting.as_mut().poll(context));
            self.posting = None;
        }
        let answer = ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(answer.unwrap_or(Err(Error::Stopped)))
    }
}

/// Receives requests, on one xstream.
pub struct Service<Q, A> {
    inbox: Inbox<Envelope<Q, A>>,
}

impl<Q: Send + 'static, A: Send + 'static> Service<Q, A> {
    /// The next request, in the order of arrival; `None` when there is no caller left.
    pub async fn recv(&mut self) -> Option<(Q, Responder<A>)> {
        self.inbox.recv().await.map(|envelope| (envelope.request, envelope.responder))
    }

    /// No request waits to be received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }
}

/// What is owed for one request. Dropped, it answers [`Error::Stopped`].
#[must_use = "a dropped responder answers that the service has stopped"]
pub struct Responder<A> {
    sender: oneshot::Sender<Result<A>>,
}

impl<A> Responder<A> {
    /// Answers. Does nothing if the caller has gone.
    pub fn answer(self, answer: Result<A>) {
        self.sender.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daos_xstream::sim;

    #[test]
    fn calls_are_answered_in_any_order_and_a_full_queue_only_delays() {
        for seed in 0..20 {
            sim::run(seed, |handle| async move {
                let (caller, mut service) = pair::<u32, u32>(2);
                let server = handle.clone();
                let serving = handle.spawn(async move {
                    while let Some((request, responder)) = service.recv().await {
                        let delay = std::time::Duration::from_millis(server.random_u64() % 10);
                        let waiting = server.sleep(delay);
                        server.spawn(async move {
                            waiting.await;
                            responder.answer(Ok(request + 1));
                        });
                    }
                });
                let calls: Vec<_> = (0..10).map(|request| caller.call(request)).collect();
                for (request, call) in calls.into_iter().enumerate() {
                    assert_eq!(call.await, Ok(request as u32 + 1));
                }
                drop(caller);
                serving.await;
            });
        }
    }

    #[test]
    fn dropped_call_is_still_served() {
        sim::run(1, |_| async {
            let (caller, mut service) = pair::<u32, u32>(2);
            drop(caller.call(7));
            let (request, responder) = service.recv().await.unwrap();
            assert_eq!(request, 7);
            responder.answer(Ok(0));
        });
    }

    #[test]
    fn whoever_goes_away_is_answered_for_with_stopped() {
        sim::run(1, |handle| async move {
            let (caller, mut service) = pair::<u32, u32>(1);
            let received = caller.call(1);
            let queued = caller.call(2);
            let serving = handle.spawn(async move {
                drop(service.recv().await);
                service
            });
            assert_eq!(received.await, Err(Error::Stopped));
            let service = serving.await;
            let waiting = caller.call(3);
            drop(service);
            assert_eq!(queued.await, Err(Error::Stopped));
            assert_eq!(waiting.await, Err(Error::Stopped));
            assert_eq!(caller.call(4).await, Err(Error::Stopped));
        });
    }

    #[test]
    fn calls_may_move_between_threads() {
        fn send<T: Send>(_: &T) {}
        let (caller, _service) = pair::<u32, u32>(1);
        send(&caller);
        send(&caller.call(1));
        send(&caller.call(2));
    }
}
