//! A simulated xstream: one thread, a virtual clock, and an order of ready tasks chosen by a seed.
//!
//! The clock jumps to the next timer when no task is ready, and creeps a little with every task that runs. The same
//! seed gives the same run, as long as the code takes time, order and randomness from its [`Handle`] alone.

use std::future::Future;

use crate::clock::Clock;
use crate::executor::Core;
use crate::handle::Handle;
use crate::random::Random;
use crate::turn::Lending;
use crate::wake::Entered;

/// Most that one task's turn moves the clock.
const TURN_NS_MAX: u64 = 1000;

/// Runs `main` to its end.
///
/// # Panics
/// With the seed, when `main` waits for something that cannot happen any more. When anything in it panics, the seed
/// is printed.
pub fn run<T: 'static, F>(seed: u64, main: impl FnOnce(Handle) -> F) -> T
where
    F: Future<Output = T> + 'static,
{
    let core = Core::new(Clock::simulated(), Random::from_seed(seed), true, Lending::NONE)
        .expect("a process at its limit of open files cannot run tests");
    let _named = NameSeed(seed);
    let _entered = Entered::enter(&core);
    let _stop = StopOnDrop(&core);
    // The order has numbers of its own: drawing one more in the code does not change every later turn.
    let mut order = Random::from_seed(!seed);
    let (sender, result) = crate::sync::oneshot();
    let main = main(Handle(core.clone()));
    core.spawn(Box::pin(async move { sender.send(main.await) }));
    while !result.is_ready() {
        assert!(
            turn(&core, &mut order),
            "deadlock: every task waits and no timer is set (seed {seed})"
        );
    }
    result.take().expect("the loop ends when there is a result")
}

/// Runs one ready task, or moves the clock to the next timer; false if there is neither.
fn turn(core: &Core, order: &mut Random) -> bool {
    core.take_remote();
    if core.ready_count() == 0 {
        let Some(deadline_ns) = core.timers.next_deadline_ns() else { return false };
        core.clock.advance_to(deadline_ns);
    }
    core.timers.fire(core.clock.monotonic_ns());
    let ready = core.ready_count() as u64;
    if ready > 0 {
        let id = core.pick_ready(order.below(ready) as usize).expect("index < count");
        core.run(id);
        core.clock.advance_to(core.clock.monotonic_ns() + order.below(TURN_NS_MAX));
    }
    true
}

struct StopOnDrop<'a>(&'a Core);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("simulation failed with seed {}", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    fn order_of_ten(seed: u64) -> Vec<u32> {
        run(seed, |handle| async move {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..10)
                .map(|number| {
                    let order = order.clone();
                    handle.spawn(async move { order.borrow_mut().push(number) })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        })
    }

    #[test]
    fn a_seed_repeats_its_order_and_others_differ() {
        assert_eq!(order_of_ten(1), order_of_ten(1));
        let orders: std::collections::HashSet<_> = (0..20).map(order_of_ten).collect();
        assert!(orders.len() > 15);
    }

    #[test]
    fn an_hour_of_sleep_takes_no_time() {
        let start = std::time::Instant::now();
        let (before, after) = run(3, |handle| async move {
            let before = handle.now();
            handle.sleep(Duration::from_secs(3600)).await;
            (before, handle.now())
        });
        assert!(after - before >= 3600 * 1_000_000_000);
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    #[should_panic(expected = "deadlock: every task waits and no timer is set (seed 77)")]
    fn a_deadlock_panics_with_its_seed() {
        run(77, |_| std::future::pending::<()>());
    }
}
