//! A store that is full says so, loses nothing, and can be emptied.

use daos_sim::machine::{Machine, Setup, fragile, new_disk};
use daos_sim::tree::tree;
use daos_sim::workload::{Step, apply};
use daos_vos::Sync;
use daos_xstream::sim;

const SETUP: Setup = Setup { sync: Sync::Posix, memory_buckets: 64 };

fn write(path: &str, number: usize) -> Step {
    Step::Write {
        path: path.into(),
        offset: number as u64 * 200_000,
        bytes: 200_000,
        byte: number as u8,
    }
}

/// Fills the filesystem with files of 2 MB; how many writes fitted in.
async fn fill(machine: &Machine) -> usize {
    let mut written = 0;
    for file in 0.. {
        let path = format!("/file{file}");
        let created = apply(&machine.dfs, &Step::Create(path.clone())).await;
        if let Err(error) = created {
            assert_eq!(error.errno(), libc::ENOSPC, "{error}");
            return written;
        }
        for number in 0..10 {
            match apply(&machine.dfs, &write(&path, number)).await {
                Ok(()) => written += 1,
                Err(error) => {
                    assert_eq!(error.errno(), libc::ENOSPC, "{error}");
                    return written;
                }
            }
        }
    }
    unreachable!("a disk is finite")
}

async fn sound(machine: &Machine) {
    let report = machine.check().await.unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn full_store_says_enospc_keeps_everything_and_can_be_emptied() {
    sim::run(1, |handle| async move {
        let disk = new_disk(&handle).await;
        let machine = Machine::boot(disk.clone(), &handle, SETUP).await;
        let written = fill(&machine).await;
        assert!(written > 150, "{written} writes of 200 kB are less than half of the disk");
        let full = tree(&machine.dfs).await.unwrap();
        sound(&machine).await;
        // Full stays full, and what is there can be read, again and again.
        for _ in 0..3 {
            let error = apply(&machine.dfs, &write("/file0", 1000)).await.unwrap_err();
            assert_eq!(error.errno(), libc::ENOSPC, "{error}");
        }
        assert!(tree(&machine.dfs).await.unwrap() == full);
        // Deletes need no space that is not kept for them.
        for path in full.keys().filter(|path| path.as_str() != "/") {
            apply(&machine.dfs, &Step::Unlink(path.clone())).await.unwrap();
        }
        machine.dfs.sync().await.unwrap();
        // Reclaim runs in the background.
        handle.sleep(std::time::Duration::from_secs(20)).await;
        assert_eq!(tree(&machine.dfs).await.unwrap().len(), 1);
        let again = fill(&machine).await;
        assert!(
            again * 10 >= written * 9,
            "{written} writes fitted at first, {again} after the deletes"
        );
        sound(&machine).await;
    });
}

#[test]
fn power_cut_of_a_full_store_loses_nothing_synced() {
    for seed in 0..3 {
        sim::run(seed, move |handle| async move {
            let disk = fragile(new_disk(&handle).await, &handle, seed);
            let machine = Machine::boot(disk.clone(), &handle, SETUP).await;
            fill(&machine).await;
            machine.dfs.sync().await.unwrap();
            let full = tree(&machine.dfs).await.unwrap();
            disk.cut();
            let survivor = disk.survivor().await.unwrap();
            drop(machine);
            let machine = Machine::boot(survivor, &handle, SETUP).await;
            assert!(tree(&machine.dfs).await.unwrap() == full);
            sound(&machine).await;
            for path in full.keys().filter(|path| path.as_str() != "/") {
                apply(&machine.dfs, &Step::Unlink(path.clone())).await.unwrap();
            }
            machine.dfs.sync().await.unwrap();
        });
    }
}
