//! A damaged store is mended: what one flipped bit did is undone, what is lost is cut out, what is left of it is in `/lost+found`
//! or in its place, the second check is clean, and power that goes at any write of the repair costs nothing more.

use std::rc::Rc;

use daos_damage::{Filled, Machine, Region, filled, flip, look, regions};
use daos_media::{Device, Fault, FaultDevice, Kind, MemDevice};
use daos_sim::tree::{Tree, tree};
use daos_types::Epoch;
use daos_xstream::{Handle, Random, sim};
use dfs::{Dfs, MountOptions, Repaired};

const SPACE_AT: u64 = 12 << 20;
const NOW: u64 = 1_700_000_000_000_000_000;

/// As `daos fs check --repair` does it; what was done.
async fn repair(machine: &Machine) -> Result<Vec<String>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut done = machine.client.check(true).await.map_err(|e| text(&e))?.mended;
    let container = machine.container().await.map_err(|e| text(&e))?;
    let Repaired { mended, .. } = dfs::repair(&container, NOW).await.map_err(|e| text(&e))?;
    done.extend(mended);
    Ok(done)
}

async fn findings(machine: &Machine) -> Vec<String> {
    let mut found = machine.client.check(false).await.unwrap().findings;
    let dfs = machine.mount().await.unwrap();
    found.extend(dfs.check(|_| {}).await.unwrap().findings);
    found
}

/// Damages a bucket so that more than one bit is wrong.
async fn ruin(disk: &MemDevice, bucket: u64) {
    for at in [100, 3000, 9000, 16000] {
        flip(disk, bucket + at, 0x5a).await;
    }
}

/// A container table and the like: then there is nothing to mend.
fn is_beyond(error: &str) -> bool {
    error.contains("damage: target 0, Bucket") || error.contains("no such")
}

async fn mends(handle: &Handle, filled: &Filled, disk: &Rc<MemDevice>, context: &str) -> bool {
    let machine = Machine::open(disk.clone(), handle, false).await.unwrap();
    let done = match repair(&machine).await {
        Ok(done) => done,
        Err(error) => {
            assert!(is_beyond(&error), "{context}: {error}");
            return false;
        }
    };
    let left = findings(&machine).await;
    // Data cannot be rebuilt: it stays damaged, and told.
    let left: Vec<_> = left.iter().filter(|finding| !finding.contains("Data at byte")).collect();
    assert!(left.is_empty(), "{context}: {left:#?}\nafter {done:#?}");
    let again = repair(&machine).await.unwrap();
    assert!(again.is_empty(), "{context}: {again:#?}");
    let dfs =
        Dfs::mount(machine.container().await.unwrap(), MountOptions::default()).await.unwrap();
    let is_whole = match tree(&dfs).await {
        Ok(_) => true,
        Err(error) => {
            assert!(error.is_damage(), "{context}: {error}");
            false
        }
    };
    let (epoch, before) = &filled.snapshot;
    let lost = past(&machine, *epoch, before, context).await;
    machine.vos.stop().await.unwrap();
    let machine = Machine::open(disk.clone(), handle, false).await.unwrap();
    assert_eq!(past(&machine, *epoch, before, context).await, lost, "{context}: after a restart");
    // A snapshot of what there is now is as whole as that; with the old one its losses go.
    let container = machine.container().await.unwrap();
    let now = container.snapshot_create(None).await.unwrap();
    let read_only = MountOptions { read_only: true, ..MountOptions::default() };
    container.snapshot_destroy(*epoch).await.unwrap();
    let dfs = Dfs::mount(container.at(now.epoch), read_only).await.unwrap();
    assert_eq!(tree(&dfs).await.is_ok(), is_whole, "{context}: a new snapshot");
    machine.vos.stop().await.unwrap();
    true
}

/// How much of a snapshot is damaged; nothing of it is wrong.
async fn past(machine: &Machine, epoch: Epoch, before: &Tree, context: &str) -> usize {
    let container = machine.container().await.unwrap().at(epoch);
    let read_only = MountOptions { read_only: true, ..MountOptions::default() };
    match Dfs::mount(container, read_only).await {
        Ok(dfs) => look(&dfs, before, &format!("{context}: the snapshot")).await.damaged.len(),
        Err(error) => {
            assert!(error.is_damage(), "{context}: the snapshot: {error}");
            before.len()
        }
    }
}

#[test]
fn a_sound_store_is_not_changed() {
    sim::run(3, |handle| async move {
        let filled = filled(&handle).await;
        let machine = Machine::open(filled.stopped.clone(), &handle, false).await.unwrap();
        let newest = machine.vos.store().newest();
        assert_eq!(repair(&machine).await.unwrap(), Vec::<String>::new());
        assert_eq!(machine.vos.store().newest(), newest, "nothing was written");
    });
}

#[test]
fn one_flipped_bit_of_any_bucket_is_undone() {
    one_flipped_bit_is_undone(4, |filled| &filled.stopped);
}

#[test]
fn one_flipped_bit_of_any_bucket_of_a_killed_store_is_undone() {
    one_flipped_bit_is_undone(8, |filled| &filled.later);
}

fn one_flipped_bit_is_undone(seed: u64, which: fn(&Filled) -> &Rc<MemDevice>) {
    sim::run(seed, move |handle| async move {
        let filled = filled(&handle).await;
        let whole = which(&filled);
        let all = regions(whole, SPACE_AT).await;
        let mut random = Random::from_seed(5);
        let buckets: Vec<_> = all
            .iter()
            .filter(|(region, _, _)| matches!(region, Region::Bucket | Region::Fixed))
            .collect();
        for (_, address, bytes) in buckets.iter().step_by(3) {
            let disk = whole.copy();
            let at = address + random.below(*bytes);
            flip(&disk, at, 1 << random.below(8)).await;
            let context = format!("bucket at {address}, byte {at}");
            let machine = Machine::open(disk.clone(), &handle, false).await.unwrap();
            let report = machine.client.check(true).await.unwrap();
            assert!(!report.mended.is_empty() && report.unmended.is_empty(), "{context}");
            machine.vos.stop().await.unwrap();
            let machine = Machine::open(disk, &handle, false).await.unwrap();
            assert_eq!(findings(&machine).await, Vec::<String>::new(), "{context}");
            let seen = look(&*machine.mount().await.unwrap(), &filled.tree, &context).await;
            assert!(seen.damaged.is_empty(), "{context}: {:?}", seen.damaged);
        }
    });
}

#[test]
fn ruined_buckets_are_cut_out_and_the_rest_is_whole() {
    ruined_buckets_are_cut_out(5, |filled| &filled.stopped);
}

#[test]
fn ruined_buckets_of_a_killed_store_are_cut_out_and_the_rest_is_whole() {
    ruined_buckets_are_cut_out(9, |filled| &filled.later);
}

fn ruined_buckets_are_cut_out(seed: u64, which: fn(&Filled) -> &Rc<MemDevice>) {
    sim::run(seed, move |handle| async move {
        let filled = filled(&handle).await;
        let whole = which(&filled);
        let all = regions(whole, SPACE_AT).await;
        let mut mended = 0;
        for (_, address, _) in all.iter().filter(|(region, _, _)| *region == Region::Bucket) {
            let disk = whole.copy();
            ruin(&disk, *address).await;
            let context = format!("ruined bucket at {address}");
            mended += u32::from(mends(&handle, &filled, &disk, &context).await);
        }
        println!("{mended} mended");
        assert!(mended > 20);
    });
}

#[test]
fn power_may_go_at_any_write_of_a_repair() {
    sim::run(6, |handle| async move {
        let filled = filled(&handle).await;
        let all = regions(&filled.stopped, SPACE_AT).await;
        let buckets: Vec<_> =
            all.iter().filter(|(region, _, _)| *region == Region::Bucket).collect();
        let mut cut = 0;
        // Leaves in the middle of the store: of the object table, or of the large directory.
        for (_, address, _) in buckets.iter().skip(buckets.len() / 2).step_by(4).take(3) {
            for nth in (1..60).step_by(7) {
                let disk = filled.stopped.copy();
                ruin(&disk, *address).await;
                let fragile = FaultDevice::new(disk, handle.clone(), nth);
                let machine = Machine::open(fragile.clone(), &handle, false).await.unwrap();
                fragile.aim(Kind::Write, nth, Fault::Cut);
                let gone = fragile.was_cut();
                let work = async { drop(repair(&machine).await) };
                daos_damage::race(work, gone.wait()).await;
                fragile.cut();
                cut += 1;
                let survivor: Rc<dyn Device> = fragile.survivor().await.unwrap();
                let machine = Machine::open(survivor, &handle, false).await.unwrap();
                let context = format!("ruined bucket at {address}, cut at write {nth}");
                let done = repair(&machine).await.unwrap_or_else(|e| panic!("{context}: {e}"));
                let left = findings(&machine).await;
                assert!(left.is_empty(), "{context}: {left:#?} after {done:#?}");
            }
        }
        assert!(cut > 10);
    });
}

/// What replay had to do without is damage for good: were the bucket to read as it was before the log, it would lack what the
/// log had for it.
#[test]
fn a_bucket_that_replay_gave_up_never_comes_back_as_it_was() {
    sim::run(10, |handle| async move {
        let filled = filled(&handle).await;
        let all = regions(&filled.later, SPACE_AT).await;
        let mut given_up = 0;
        for (_, address, _) in all.iter().filter(|(region, _, _)| *region == Region::Bucket) {
            let disk = filled.later.copy();
            ruin(&disk, *address).await;
            let context = format!("ruined bucket at {address}");
            let read_only = Machine::open(disk.clone(), &handle, true).await.unwrap();
            if let Ok(dfs) = read_only.mount().await {
                look(&dfs, &filled.tree, &context).await;
            }
            let machine = Machine::open(disk.clone(), &handle, false).await.unwrap();
            machine.vos.stop().await.unwrap();
            // What was misread is read well again.
            ruin(&disk, *address).await;
            let Ok(machine) = Machine::open(disk.clone(), &handle, false).await else {
                given_up += 1;
                continue;
            };
            match machine.mount().await {
                Ok(dfs) => {
                    let seen = look(&dfs, &filled.tree, &context).await;
                    given_up += u32::from(!seen.damaged.is_empty());
                }
                Err(error) => assert!(error.is_damage(), "{context}: {error}"),
            }
        }
        println!("{given_up} given up");
        assert!(given_up > 5);
    });
}

#[test]
fn data_that_cannot_be_rebuilt_is_told_with_its_file_and_not_called_mended() {
    sim::run(11, |handle| async move {
        let filled = filled(&handle).await;
        let all = regions(&filled.stopped, SPACE_AT).await;
        let mut told = 0;
        for (_, address, _) in
            all.iter().filter(|(region, _, _)| *region == Region::Data).step_by(40)
        {
            let disk = filled.stopped.copy();
            flip(&disk, address + 7, 4).await;
            let machine = Machine::open(disk, &handle, false).await.unwrap();
            for time in ["first", "second"] {
                let report = machine.client.check(true).await.unwrap();
                assert!(
                    report.mended.is_empty() && report.unmended.is_empty(),
                    "{time}: {report:?}"
                );
                // A block that nothing refers to has no checksum.
                assert_eq!(report.data.len(), report.findings.len(), "{report:?}");
                for data in &report.data {
                    assert_eq!(data.damage.address, *address);
                    let container = machine.container().await.unwrap();
                    let whose = dfs::whose(&container, data.object).await.unwrap().to_string();
                    assert!(whose.starts_with('/'), "{whose}");
                    told += 1;
                }
            }
        }
        println!("{told} told");
        assert!(told > 5);
    });
}
