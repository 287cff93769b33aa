//! Any one flipped bit is found when it is used and by a scrub, is named, and harms only what it hit.
//!
//! Sampled here. `DAMAGE_STRIDE=N` tries every Nth bit of everything instead (1: all of them; hours).

use std::collections::BTreeMap;
use std::rc::Rc;

use daos_damage::{FILES, Filled, Machine, Region, Seen, filled, flip, look, regions, scrub};
use daos_media::MemDevice;
use daos_types::Place;
use daos_types::rpc::Finding;
use daos_xstream::{Handle, Random, sim};
use dfs::{Dfs, MountOptions};

const SPACE_AT: u64 = 12 << 20;

/// Bits to flip: sampled, or every one at a stride.
fn bits(
    random: &mut Random,
    regions: &[(Region, u64, u64)],
    wanted: &[(Region, usize)],
) -> Vec<(Region, u64)> {
    let stride = std::env::var("DAMAGE_STRIDE").ok().and_then(|stride| stride.parse::<u64>().ok());
    let mut found = Vec::new();
    for (region, samples) in wanted {
        let these: Vec<_> = regions.iter().filter(|(of, _, _)| of == region).collect();
        assert!(!these.is_empty(), "there is no {region:?} to damage");
        match stride {
            Some(stride) => {
                for (_, address, bytes) in these {
                    found.extend(
                        (address * 8..(address + bytes) * 8)
                            .step_by(stride as usize)
                            .map(|bit| (*region, bit)),
                    );
                }
            }
            None => {
                for _ in 0..*samples {
                    let (_, address, bytes) = these[random.below(these.len() as u64) as usize];
                    // Headers are where most depends on a bit.
                    let within = if random.one_in(4) { 80 } else { *bytes };
                    found.push((*region, (address + random.below(within)) * 8 + random.below(8)));
                }
            }
        }
    }
    found
}

/// What happened with one bit flipped.
struct Outcome {
    newest: Seen,
    snapshot: Seen,
    found: Vec<Finding>,
    allocated: bool,
}

async fn try_bit(
    handle: &Handle,
    disk: &MemDevice,
    filled: &Filled,
    bit: u64,
    context: &str,
) -> Option<Outcome> {
    let disk = disk.copy();
    flip(&disk, bit / 8, 1 << (bit % 8)).await;
    let machine = match Machine::open(disk.clone(), handle, false).await {
        Ok(machine) => machine,
        Err(error) => {
            assert!(error.to_string().contains("damage: target 0, Bucket"), "{context}: {error}");
            return None;
        }
    };
    let mounted = machine.mount().await;
    let (newest, snapshot) = match mounted {
        Ok(dfs) => {
            let newest = look(&dfs, &filled.tree, context).await;
            let container = machine.container().await.unwrap().at(filled.snapshot.0);
            let options = MountOptions { read_only: true, ..MountOptions::default() };
            let snapshot = match Dfs::mount(container, options).await {
                Ok(dfs) => look(&dfs, &filled.snapshot.1, context).await,
                Err(error) => {
                    assert!(error.is_damage(), "{context}: {error}");
                    Seen::default()
                }
            };
            (newest, snapshot)
        }
        Err(error) => {
            assert!(error.is_damage(), "{context}: {error}");
            (Seen::default(), Seen::default())
        }
    };
    let found = scrub(&machine.client).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let block = bit / 8 / 4096;
    let allocated = match block.checked_sub(SPACE_AT / 4096) {
        Some(index) => {
            let blocks = u64::from(machine.vos.store().segment_blocks());
            let segment = machine.vos.store().segment_use((index / blocks) as u32).await;
            segment.is_ok_and(|segment| segment.is_allocated((index % blocks) as u32))
        }
        None => false,
    };
    Some(Outcome { newest, snapshot, found, allocated })
}

fn named(found: &[Finding], place: Place, address: std::ops::Range<u64>) -> bool {
    found.iter().any(|finding| {
        finding
            .damage
            .as_ref()
            .is_some_and(|damage| damage.place == place && address.contains(&damage.address))
    })
}

/// How the store came to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    Killed,
    /// Stopped, opened again and killed.
    KilledLater,
}

fn run(end: End, wanted: &'static [(Region, usize)], verify: fn(&Outcome, Region, u64, &str)) {
    sim::run(7, move |handle| async move {
        let filled = filled(&handle).await;
        let disk: Rc<MemDevice> = match end {
            End::Stopped => filled.stopped.clone(),
            End::Killed => filled.killed.clone(),
            End::KilledLater => filled.later.clone(),
        };
        let mut random = Random::from_seed(11);
        let regions = regions(&disk, SPACE_AT).await;
        let mut tried: BTreeMap<Region, (u32, u32)> = BTreeMap::new();
        for (region, bit) in bits(&mut random, &regions, wanted) {
            let context = format!("{end:?}, {region:?}, byte {}, bit {}", bit / 8, bit % 8);
            let count = tried.entry(region).or_default();
            count.0 += 1;
            let Some(outcome) = try_bit(&handle, &disk, &filled, bit, &context).await else {
                panic!("{context}: the store does not open");
            };
            verify(&outcome, region, bit / 8, &context);
            count.1 += u32::from(!outcome.found.is_empty());
        }
        println!("tried and found: {tried:?}");
    });
}

#[test]
fn what_holds_no_data_costs_nothing() {
    let wanted = &[
        (Region::Label, 16),
        (Region::Header, 16),
        (Region::Strip, 10),
        (Region::Wal, 10),
        (Region::Fixed, 16),
    ];
    run(End::Stopped, wanted, |outcome, region, address, context| {
        assert!(outcome.newest.damaged.is_empty(), "{context}: {:?}", outcome.newest.damaged);
        assert!(outcome.snapshot.damaged.is_empty(), "{context}: {:?}", outcome.snapshot.damaged);
        assert!(outcome.newest.right > FILES * 9 / 10);
        let copy = address - address % 4096;
        match region {
            Region::Label => {
                assert!(named(&outcome.found, Place::Label, copy..copy + 1), "{context}")
            }
            Region::Header if address % 4096 < 512 => {
                assert!(
                    named(&outcome.found, Place::Header, copy..copy + 1),
                    "{context}: {:?}",
                    outcome.found
                );
            }
            Region::Fixed => {
                let bucket = address - address % 16384;
                assert!(named(&outcome.found, Place::Bucket, bucket..bucket + 1), "{context}");
            }
            _ => assert!(outcome.found.is_empty(), "{context}: {:?}", outcome.found),
        }
    });
}

#[test]
fn the_log_of_a_killed_store_is_read_as_it_was_written() {
    run(
        End::Killed,
        &[(Region::Wal, 60), (Region::Header, 10), (Region::Strip, 5)],
        |outcome, region, _, context| {
            assert!(outcome.newest.damaged.is_empty(), "{context}: {:?}", outcome.newest.damaged);
            assert!(
                outcome.snapshot.damaged.is_empty(),
                "{context}: {:?}",
                outcome.snapshot.damaged
            );
            if region == Region::Wal {
                let damage = outcome.found.iter().filter_map(|finding| finding.damage.as_ref());
                assert!(damage.clone().all(|damage| damage.place == Place::Wal), "{context}");
            }
        },
    );
}

#[test]
fn data_costs_the_file_that_it_is_in() {
    run(End::Stopped, &[(Region::Data, 60)], |outcome, _, address, context| {
        let (newest, snapshot) = (&outcome.newest.damaged, &outcome.snapshot.damaged);
        assert!(newest.len() <= 2 && snapshot.len() <= 2, "{context}: {newest:?} {snapshot:?}");
        let block = address - address % 4096;
        assert!(
            !outcome.allocated || named(&outcome.found, Place::Data, block..block + 1),
            "{context}"
        );
        for (path, error) in newest.iter().chain(snapshot) {
            assert!(
                error.to_string().contains(&format!("Data at byte {block}:")),
                "{context}: {path}: {error}"
            );
        }
        let object = outcome
            .found
            .first()
            .map(|finding| (finding.object.is_some(), finding.container.is_some()));
        assert!(object.is_none_or(|named| named == (true, true)), "{context}");
    });
}

#[test]
fn a_bucket_costs_what_it_holds() {
    run(End::Stopped, &[(Region::Bucket, 80)], |outcome, _, address, context| {
        let bucket = address - address % 16384;
        if outcome.allocated {
            assert!(named(&outcome.found, Place::Bucket, bucket..bucket + 1), "{context}");
        } else {
            assert!(outcome.newest.damaged.is_empty() && outcome.found.is_empty(), "{context}");
        }
    });
}

/// What the log changes is put right by its replay; all else costs what it holds.
#[test]
fn a_bucket_of_a_killed_store_costs_what_it_holds_or_nothing() {
    let wanted = &[(Region::Bucket, 120), (Region::Fixed, 10)];
    run(End::KilledLater, wanted, |outcome, region, address, context| {
        let bucket = address - address % 16384;
        if outcome.allocated {
            assert!(named(&outcome.found, Place::Bucket, bucket..bucket + 1), "{context}");
        }
        if region == Region::Fixed || !outcome.allocated {
            assert!(outcome.newest.damaged.is_empty(), "{context}: {:?}", outcome.newest.damaged);
        }
    });
}
