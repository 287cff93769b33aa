//! Several tasks at once, each in its own directory, and a power cut: what each finds is a state that its directory
//! was in, not older than its last fsync.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use daos_media::{Fault, Kind};
use daos_sim::machine::{Machine, Setup, fragile, new_disk};
use daos_sim::tree::{Tree, tree_of};
use daos_sim::workload::{Step, apply_below, first_steps, step};
use daos_vos::Sync;
use daos_xstream::{Random, sim};
use dfs::{Caller, Dfs, Ino};

const TASKS: u64 = 5;
const STEPS: usize = 40;
const SETUP: Setup = Setup { sync: Sync::Posix, memory_buckets: 48 };

fn steps(seed: u64, task: u64) -> Vec<Step> {
    let mut random = Random::from_seed(seed * TASKS + task);
    let more = std::iter::repeat_with(|| step(&mut random)).take(STEPS);
    first_steps().into_iter().chain(more).collect()
}

fn name(task: u64) -> Vec<u8> {
    format!("task{task}").into_bytes()
}

async fn directory(dfs: &Dfs, task: u64) -> Ino {
    let owner = Caller::new(0, 0);
    dfs.mkdir(dfs.root(), &name(task), 0o755, owner).await.unwrap().attr.ino
}

/// The states of each task's directory when it works alone: no other task changes them.
fn rehearse(seed: u64) -> Vec<Vec<Tree>> {
    sim::run(seed, move |handle| async move {
        let machine = Machine::boot(new_disk(&handle).await, &handle, SETUP).await;
        let mut states = Vec::new();
        for task in 0..TASKS {
            let top = directory(&machine.dfs, task).await;
            let mut trees = vec![tree_of(&machine.dfs, top).await.unwrap()];
            for step in steps(seed, task) {
                let _may_hit_nothing = apply_below(&machine.dfs, top, &step).await;
                trees.push(tree_of(&machine.dfs, top).await.unwrap());
            }
            states.push(trees);
        }
        states
    })
}

/// How far a task has come.
#[derive(Clone, Copy, Default)]
struct Progress {
    begun: usize,
    durable: usize,
}

async fn work(dfs: Arc<Dfs>, top: Ino, steps: Vec<Step>, progress: Rc<RefCell<Progress>>) {
    for (number, step) in steps.iter().enumerate() {
        progress.borrow_mut().begun = number + 1;
        let result = apply_below(&dfs, top, step).await;
        if matches!(step, Step::Fsync(_)) && result.is_ok() {
            progress.borrow_mut().durable = number + 1;
        }
    }
}

/// A cut at the `nth` write, if there are so many: whether it came.
fn cut(seed: u64, nth: u64, states: Rc<Vec<Vec<Tree>>>) -> bool {
    let replay = format!("seed {seed}, cut at write {nth}");
    sim::run(seed ^ nth << 32, move |handle| async move {
        let disk = fragile(new_disk(&handle).await, &handle, nth);
        let machine = Machine::boot(disk.clone(), &handle, SETUP).await;
        let mut tops = Vec::new();
        for task in 0..TASKS {
            tops.push(directory(&machine.dfs, task).await);
        }
        machine.dfs.sync().await.unwrap();
        disk.aim(Kind::Write, nth, Fault::Cut);
        let progress: Vec<Rc<RefCell<Progress>>> = (0..TASKS).map(|_| Rc::default()).collect();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (top, progress) = (tops[task as usize], progress[task as usize].clone());
                handle.spawn(work(machine.dfs.clone(), top, steps(seed, task), progress))
            })
            .collect();
        let all = async {
            for task in tasks {
                task.await;
            }
        };
        futures_lite::future::or(all, disk.was_cut().wait()).await;
        let came = disk.was_cut().is_set();
        // Taken now: what is answered later is answered by a machine without power.
        let progress: Vec<Progress> = progress.iter().map(|progress| *progress.borrow()).collect();
        disk.cut();
        let survivor = disk.survivor().await.unwrap();
        drop(machine);

        let machine = Machine::boot(survivor, &handle, SETUP).await;
        for (task, Progress { begun, durable }) in progress.into_iter().enumerate() {
            let top = machine.dfs.lookup(machine.dfs.root(), &name(task as u64)).await;
            let top = top.unwrap_or_else(|error| panic!("{replay}: {error}")).attr.ino;
            let found = tree_of(&machine.dfs, top).await;
            let found = found.unwrap_or_else(|error| panic!("{replay}: {error}"));
            let known = states[task][durable..=begun].contains(&found);
            assert!(known, "{replay}: task {task}, steps {durable} to {begun}: found {found:#?}");
        }
        let report = machine.check().await.unwrap();
        assert!(report.findings.is_empty(), "{replay}: {:#?}", report.findings);
        came
    })
}

#[test]
fn each_task_finds_a_state_of_its_own() {
    for seed in 1..=2 {
        let states = Rc::new(rehearse(seed));
        let cuts = (1..).step_by(3).take_while(|nth| cut(seed, *nth, states.clone())).count();
        assert!(cuts > 10, "{cuts} cuts test little");
    }
}
