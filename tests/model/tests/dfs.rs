//! dfs against an in-memory POSIX tree: the same random calls, the same answers, the same tree afterwards, over remounts that
//! are clean and ones that are not. A failure names its seed; `DFS_SEED=n cargo test -p daos-model --test dfs` replays it,
//! `DFS_STEPS` sets the length.

mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use daos_client::{Client, Container};
use daos_model::spawn_model;
use dfs::{Dfs, MountOptions};
use futures_lite::future::block_on;

use tree::Pair;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn container() -> Container {
    let client = Client::new(vec![spawn_model()]);
    let pool = client.pool_or_create("default").await.unwrap();
    pool.container_or_create("home").await.unwrap()
}

async fn mount(container: &Container, seed: u64) -> Arc<Dfs> {
    let options = MountOptions {
        cache_attributes: seed % 3 != 0,
        // Few chunks of few blocks make many borders; few inodes make many that were forgotten.
        chunk_bytes: 8192,
        inodes_max: if seed % 2 == 0 { 16 } else { 10_000 },
        ..MountOptions::default()
    };
    Dfs::mount(container.clone(), options).await.unwrap()
}

fn run(seed: u64, steps: u64) {
    let result = std::panic::catch_unwind(|| {
        block_on(async {
            let container = container().await;
            let mut pair = Pair::new(seed, mount(&container, seed).await);
            for step in 0..steps {
                pair.step().await;
                if step % 400 == 399 {
                    pair.compare().await;
                    let clean = step % 800 == 799;
                    pair.remount(clean, async || mount(&container, seed).await).await;
                    pair.compare().await;
                    pair.check().await;
                }
            }
            pair.compare().await;
            pair.check().await;
            pair.done()
        })
    });
    match result {
        Ok(done) => assert_every_call_was_tried(&done, steps),
        Err(panic) => {
            eprintln!("seed {seed}: replay with DFS_SEED={seed} DFS_STEPS={steps}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A test of calls that were never made would be worthless.
fn assert_every_call_was_tried(done: &BTreeMap<&'static str, (u64, u64)>, steps: u64) {
    if steps < 2000 {
        return;
    }
    for (call, (worked, _)) in done {
        assert!(*worked > 0, "{call} never worked");
    }
}

#[test]
fn random_calls_answer_as_a_posix_tree_does() {
    let steps = setting("DFS_STEPS").unwrap_or(4000);
    match setting("DFS_SEED") {
        Some(seed) => run(seed, steps),
        None => (1..=6).for_each(|seed| run(seed, steps)),
    }
}
