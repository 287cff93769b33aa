//! Files that were open without a name when the process was killed, in a store with a damaged bucket: what cannot be reclaimed waits,
//! and everything else is mounted.

use std::rc::Rc;

use daos_damage::{Machine, Region, filled, flip, regions};
use daos_media::MemDevice;
use daos_xstream::{Handle, sim};
use dfs::{Dfs, MountOptions};

const SPACE_AT: u64 = 12 << 20;

/// Opens files, takes their names away, and is gone: a disk with many orphans, whose log is empty.
async fn orphaned(disk: &Rc<MemDevice>, handle: &Handle) -> Rc<MemDevice> {
    let machine = Machine::open(disk.clone(), handle, false).await.unwrap();
    let container = machine.container().await.unwrap();
    let dfs = Dfs::mount(container, MountOptions::default()).await.unwrap();
    let many = dfs.lookup(dfs.root(), b"many").await.unwrap().attr.ino;
    for n in (1..daos_damage::FILES).step_by(2) {
        let name = format!("file{n:04}");
        let found = dfs.lookup(many, name.as_bytes()).await.unwrap();
        dfs.open(found.attr.ino, libc::O_RDONLY).await.unwrap();
        dfs.unlink(many, name.as_bytes()).await.unwrap();
    }
    machine.vos.stop().await.unwrap();
    disk.copy()
}

async fn objects(disk: &Rc<MemDevice>, handle: &Handle, context: &str) -> u64 {
    let machine = Machine::open(disk.clone(), handle, true).await.unwrap();
    let usage = machine.container().await.unwrap().query().await;
    usage.unwrap_or_else(|error| panic!("{context}: {error}")).objects
}

#[test]
fn what_cannot_be_reclaimed_keeps_nothing_from_being_mounted() {
    sim::run(12, |handle| async move {
        let filled = filled(&handle).await;
        let whole = orphaned(&filled.stopped, &handle).await;
        let before = objects(&whole, &handle, "whole").await;
        let (mut mounted, mut reclaimed) = (0, 0);
        for (region, address, _) in regions(&whole, SPACE_AT).await {
            if region != Region::Bucket {
                continue;
            }
            let disk = whole.copy();
            for at in [100, 3000, 9000, 16000] {
                flip(&disk, address + at, 0x5a).await;
            }
            let context = format!("ruined bucket at {address}");
            let Ok(machine) = Machine::open(disk.clone(), &handle, true).await else { continue };
            if machine.mount().await.is_err() {
                continue;
            }
            for time in ["first", "second"] {
                let machine = Machine::open(disk.clone(), &handle, false).await.unwrap();
                let container = machine.container().await.unwrap();
                let dfs = Dfs::mount(container, MountOptions::default()).await;
                let dfs = dfs.unwrap_or_else(|error| panic!("{context}, {time} time: {error}"));
                dfs.unmount().await.unwrap();
                machine.vos.stop().await.unwrap();
            }
            mounted += 1;
            reclaimed += u64::from(objects(&disk, &handle, &context).await < before);
        }
        println!("{mounted} mounted, {reclaimed} with space reclaimed");
        assert!(mounted > 20 && reclaimed > 20);
    });
}
