//! Power goes at every write of a workload. What is there after the next boot is a state that the filesystem was in,
//! not older than the last fsync, and the store is sound.

use std::cell::RefCell;
use std::rc::Rc;

use daos_media::{Fault, Kind};
use daos_sim::machine::{Machine, Setup, fragile, new_disk};
use daos_sim::tree::{Tree, tree};
use daos_sim::workload::{Step, apply, first_steps, step};
use daos_vos::Sync;
use daos_xstream::{Handle, Random, sim};
use futures_lite::future;

const STEPS: usize = 90;

/// What happened before the power went.
#[derive(Default)]
struct History {
    steps: Vec<Step>,
    /// `trees[n]`: after n steps. The one of the step under way is not there.
    trees: Vec<Tree>,
    /// Steps that must be there after the next boot.
    durable: usize,
}

/// Does steps until power goes or all are done.
async fn work(machine: &Machine, seed: u64, sync: Sync, history: &RefCell<History>) {
    let mut random = Random::from_seed(seed);
    let first = tree(&machine.dfs).await.expect("a new filesystem is read");
    history.borrow_mut().trees.push(first);
    let first = first_steps();
    for number in 1..=STEPS {
        let step = first.get(number - 1).cloned().unwrap_or_else(|| step(&mut random));
        history.borrow_mut().steps.push(step.clone());
        let result = apply(&machine.dfs, &step).await;
        let now = match tree(&machine.dfs).await {
            Ok(now) => now,
            // Only a device without power answers so.
            Err(_) => return future::pending().await,
        };
        let mut history = history.borrow_mut();
        history.trees.push(now);
        if sync == Sync::Always || (matches!(step, Step::Fsync(_)) && result.is_ok()) {
            history.durable = number;
        }
    }
}

/// The whole workload without a cut: its states, and how many writes it takes.
fn rehearse(seed: u64, setup: Setup) -> (Vec<Tree>, u64) {
    sim::run(seed, move |handle| async move {
        let disk = fragile(new_disk(&handle).await, &handle, seed);
        let machine = Machine::boot(disk.clone(), &handle, setup).await;
        let before = disk.counts().writes;
        let history = RefCell::default();
        work(&machine, seed, setup.sync, &history).await;
        (history.into_inner().trees, disk.counts().writes - before)
    })
}

/// The workload with a cut at its `nth` write, and another boot.
fn cut(seed: u64, setup: Setup, nth: u64, order: u64, states: Rc<Vec<Tree>>) {
    let replay = format!("seed {seed}, {setup:?}, cut at write {nth}, order {order}");
    sim::run(seed, move |handle| async move {
        let disk = fragile(new_disk(&handle).await, &handle, order);
        let machine = Machine::boot(disk.clone(), &handle, setup).await;
        disk.aim(Kind::Write, nth, Fault::Cut);
        let history = RefCell::default();
        let gone = disk.was_cut();
        future::or(work(&machine, seed, setup.sync, &history), gone.wait()).await;
        disk.cut();
        let survivor = disk.survivor().await.expect("a disk in memory");
        drop(machine);
        let history = history.into_inner();
        let machine = Machine::boot(survivor, &handle, setup).await;
        verify(&machine, &history, &states, &replay).await;
        go_on(&machine, &handle, &replay).await;
    });
}

async fn verify(machine: &Machine, history: &History, states: &[Tree], replay: &str) {
    let found = tree(&machine.dfs).await.unwrap_or_else(|error| panic!("{replay}: {error}"));
    // The step under way may have happened too.
    let newest = history.trees.len().min(states.len() - 1);
    let known = |number: usize| history.trees.get(number).unwrap_or(&states[number]);
    if !(history.durable..=newest).any(|number| *known(number) == found) {
        let older = (0..history.durable).rev().find(|number| *known(*number) == found);
        panic!(
            "{replay}: steps 0 to {} were durable, {newest} were begun; found what was there after {older:?} of them\n\
             steps {:#?}\nfound {found:#?}\nlast durable {:#?}",
            history.durable,
            &history.steps[history.durable.saturating_sub(1)..],
            known(history.durable),
        );
    }
    let report = machine.check().await.unwrap_or_else(|error| panic!("{replay}: {error}"));
    assert!(report.findings.is_empty(), "{replay}: {:#?}", report.findings);
}

/// The filesystem works as before: it is not only there to be looked at.
async fn go_on(machine: &Machine, handle: &Handle, replay: &str) {
    let mut random = Random::from_seed(handle.random_u64());
    for _ in 0..10 {
        let _may_hit_nothing = apply(&machine.dfs, &step(&mut random)).await;
    }
    machine.dfs.sync().await.unwrap_or_else(|error| panic!("{replay}: {error}"));
    let report = machine.check().await.unwrap_or_else(|error| panic!("{replay}: {error}"));
    assert!(report.findings.is_empty(), "{replay}, then went on: {:#?}", report.findings);
}

/// Every `stride`th write of the workload, `orders` orders of what survives each.
fn cut_everywhere(seed: u64, setup: Setup, stride: usize, orders: u64) {
    let (states, writes) = rehearse(seed, setup);
    let states = Rc::new(states);
    assert!(writes > 20, "a workload of {writes} writes tests little");
    for nth in (1..=writes).step_by(stride) {
        for order in 0..orders {
            cut(seed, setup, nth, order, states.clone());
        }
    }
}

#[test]
fn posix_leaves_a_prefix_not_older_than_the_last_fsync() {
    for seed in 1..=2 {
        cut_everywhere(seed, Setup { sync: Sync::Posix, memory_buckets: 256 }, 1, 2);
    }
}

#[test]
fn always_leaves_everything_that_was_answered() {
    for seed in 3..=4 {
        cut_everywhere(seed, Setup { sync: Sync::Always, memory_buckets: 256 }, 1, 1);
    }
}

#[test]
fn the_same_holds_with_32_buckets_of_memory() {
    for seed in 5..=6 {
        cut_everywhere(seed, Setup { sync: Sync::Posix, memory_buckets: 32 }, 2, 1);
    }
}
