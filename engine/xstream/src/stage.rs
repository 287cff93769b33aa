//! The stages of a request on a target, and how long each took.
//!
//! Whoever serves a request wraps it in [`Traced`]; code below says [`Stage::enter`] where the next stage begins, without
//! knowing who is asking. Outside of a `Traced` future that does nothing.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Where a request is. Stages are entered in this order; a request leaves out those that it does not need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// Waits until the target has room for it.
    Admit,
    /// Waits for locks, memory and space that it will need.
    Reserve,
    /// Fetches its data from where it lies.
    Pull,
    /// Data is on its way to the device.
    Persist,
    /// The metadata changes, or is read.
    Commit,
    /// Waits until the answer may be given.
    Reply,
}

impl Stage {
    pub const ALL: [Self; 6] =
        [Self::Admit, Self::Reserve, Self::Pull, Self::Persist, Self::Commit, Self::Reply];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Reserve => "reserve",
            Self::Pull => "pull",
            Self::Persist => "persist",
            Self::Commit => "commit",
            Self::Reply => "reply",
        }
    }

    /// The request that runs now is in this stage from now on. A closure that runs again may go back.
    pub fn enter(self) {
        CURRENT.with(|current| {
            if let Some(mut trace) = current.take() {
                if trace.stage != self {
                    trace.turn_to(self);
                }
                current.set(Some(trace));
            }
        });
    }
}

thread_local! {
    /// The trace of the request whose future is being polled.
    static CURRENT: Cell<Option<Trace>> = const { Cell::new(None) };
}

/// How long a request has been in each stage.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    stage: Stage,
    since: Instant,
    spent: [Option<Duration>; Stage::ALL.len()],
}

impl Trace {
    /// A request that enters `stage` now.
    #[must_use]
    pub fn begin(stage: Stage) -> Self {
        Self { stage, since: Instant::now(), spent: [None; Stage::ALL.len()] }
    }

    fn turn_to(&mut self, stage: Stage) {
        let now = Instant::now();
        *self.spent[self.stage as usize].get_or_insert_default() += now - self.since;
        (self.stage, self.since) = (stage, now);
    }

    /// The stages that were entered, with the time in each; the last one ends now.
    pub fn finish(mut self) -> impl Iterator<Item = (Stage, Duration)> {
        self.turn_to(self.stage);
        Stage::ALL.into_iter().filter_map(move |stage| Some((stage, self.spent[stage as usize]?)))
    }
}

/// Runs a future under a trace, and returns the trace with the result.
pub struct Traced<F> {
    future: F,
    trace: Option<Trace>,
}

impl<F: Future> Traced<F> {
    pub fn new(trace: Trace, future: F) -> Self {
        Self { future, trace: Some(trace) }
    }
}

impl<F: Future> Future for Traced<F> {
    type Output = (F::Output, Trace);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is pinned with its `Traced`: nothing here moves it, there is no `Drop` and no other way to it. `trace` is
        // not pinned, and `Traced` is `Unpin` only where `F` is.
        let (future, trace) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.trace)
        };
        // One traced future may poll another: the outer's trace comes back at the end.
        let outer = CURRENT.replace(trace.take());
        let polled = future.poll(context);
        *trace = CURRENT.replace(outer);
        let output = ready!(polled);
        Poll::Ready((output, trace.take().expect("a poll gives back the trace that it got")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_keeps_its_own_stages_across_waits() {
        crate::sim::run(1, |handle| async move {
            let request = |stages: &'static [Stage]| {
                let waiting = handle.clone();
                Traced::new(Trace::begin(Stage::Admit), async move {
                    for stage in stages {
                        stage.enter();
                        waiting.yield_now().await;
                    }
                })
            };
            let long = handle.spawn(request(&[Stage::Reserve, Stage::Persist, Stage::Commit]));
            let short = handle.spawn(request(&[Stage::Commit]));
            let stages = |trace: Trace| trace.finish().map(|(stage, _)| stage).collect::<Vec<_>>();
            let (((), long), ((), short)) = (long.await, short.await);
            assert_eq!(stages(long), [Stage::Admit, Stage::Reserve, Stage::Persist, Stage::Commit]);
            assert_eq!(stages(short), [Stage::Admit, Stage::Commit]);
        });
        Stage::Reply.enter();
    }
}
