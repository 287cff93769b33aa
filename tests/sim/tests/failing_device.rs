//! A device that fails a write or a flush: the store stops acknowledging, says so to every caller, serves what it has,
//! and after the next boot is what it was before or after the call that failed.

use daos_media::{Fault, Kind};
use daos_sim::machine::{Machine, Setup, fragile, new_disk};
use daos_sim::tree::{Tree, tree};
use daos_sim::workload::{Step, apply, first_steps, step};
use daos_vos::Sync;
use daos_xstream::{Random, sim};

const STEPS: usize = 60;

fn steps(seed: u64) -> Vec<Step> {
    let mut random = Random::from_seed(seed);
    let more = std::iter::repeat_with(|| step(&mut random)).take(STEPS);
    first_steps().into_iter().chain(more).collect()
}

/// The state after each step, when nothing fails.
fn rehearse(seed: u64, setup: Setup) -> Vec<Tree> {
    sim::run(seed, move |handle| async move {
        let machine = Machine::boot(new_disk(&handle).await, &handle, setup).await;
        let mut states = vec![tree(&machine.dfs).await.unwrap()];
        for step in steps(seed) {
            let _may_hit_nothing = apply(&machine.dfs, &step).await;
            states.push(tree(&machine.dfs).await.unwrap());
        }
        states
    })
}

/// Whether the fault struck while there were steps.
fn fail_at(seed: u64, sync: Sync, kind: Kind, nth: u64) -> bool {
    let replay = format!("seed {seed}, {sync:?}, {kind:?} {nth} fails");
    let setup = Setup { sync, memory_buckets: 64 };
    let states = rehearse(seed, setup);
    sim::run(seed, move |handle| async move {
        let disk = fragile(new_disk(&handle).await, &handle, seed);
        let machine = Machine::boot(disk.clone(), &handle, setup).await;
        machine.dfs.sync().await.unwrap();
        disk.aim(kind, nth, Fault::Fail(libc::EIO));

        let mut failed_at = None;
        for (number, step) in steps(seed).iter().enumerate() {
            let result = apply(&machine.dfs, step).await;
            match (failed_at, result) {
                (None, Err(error)) if error.errno() == libc::EIO => failed_at = Some(number),
                (Some(at), Ok(())) => {
                    let now = tree(&machine.dfs).await.unwrap_or_else(|e| panic!("{replay}: {e}"));
                    let unchanged = states[at..=at + 1].contains(&now);
                    assert!(unchanged, "{replay}: step {at} failed, and {step:?} was acknowledged");
                }
                _ => {}
            }
        }
        if failed_at.is_none() {
            // A background flush that failed: the next sync hears of it.
            let heard = machine.dfs.sync().await.is_err();
            assert!(heard || disk.counts().flushes < nth, "{replay}: nobody heard of it");
        }
        disk.cut();
        let survivor = disk.survivor().await.unwrap();
        drop(machine);

        let machine = Machine::boot(survivor, &handle, setup).await;
        let found = tree(&machine.dfs).await.unwrap_or_else(|error| panic!("{replay}: {error}"));
        let newest = failed_at.map_or(states.len() - 1, |at| at + 1);
        let oldest = match (sync, failed_at) {
            (Sync::Always, Some(at)) => at,
            (Sync::Always, None) => newest,
            (Sync::Posix, _) => 0,
        };
        assert!(
            states[oldest..=newest].contains(&found),
            "{replay}: not of steps {oldest} to {newest}"
        );
        let report = machine.check().await.unwrap();
        assert!(report.findings.is_empty(), "{replay}: {:#?}", report.findings);
        failed_at.is_some()
    })
}

#[test]
fn failed_write_latches_the_store_and_loses_nothing_answered() {
    for sync in [Sync::Always, Sync::Posix] {
        let struck = [1, 2, 3, 5, 8, 13, 21]
            .into_iter()
            .filter(|nth| fail_at(*nth, sync, Kind::Write, *nth));
        assert!(struck.count() >= 5, "most of these writes belong to a step");
    }
}

#[test]
fn failed_flush_latches_the_store() {
    let always =
        [1, 2, 3, 5, 8].into_iter().filter(|nth| fail_at(*nth, Sync::Always, Kind::Flush, *nth));
    assert_eq!(always.count(), 5, "every answer waits for a flush");
    for nth in [1, 2, 3] {
        fail_at(nth, Sync::Posix, Kind::Flush, nth);
    }
}
