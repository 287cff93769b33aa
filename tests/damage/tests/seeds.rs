//! Writes the seeds of `tests/fuzz/corpus`: pieces of a real store. Not a test of anything, so it runs only when it is asked for.

use std::path::Path;

use daos_damage::{Region, filled, regions};
use daos_media::{Device, How, IoBuf};
use daos_xstream::sim;

fn seed(target: &str, name: &str, bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(name), bytes).unwrap();
}

/// Without the zeros at its end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[test]
#[ignore = "writes the corpus of tests/fuzz"]
fn seeds() {
    sim::run(1, |handle| async move {
        let filled = filled(&handle).await;
        let disk = filled.killed.clone();
        let read = async |at: u64, bytes: u64| {
            disk.read(IoBuf::zeroed(bytes as usize), at, How::Buffered).await.unwrap()
        };
        let label = read(0, 8192).await;
        seed("label", "both", &[&label[..160], &label[4096..4256]].concat());
        for (slot, at) in [8192, 12288].into_iter().enumerate() {
            seed("header", &format!("slot{slot}"), trimmed(&read(at, 512).await));
        }
        seed("header", "strip", trimmed(&read(1 << 20, 4096).await));
        let mut counts = [0; 2];
        for (region, at, bytes) in regions(&disk, 12 << 20).await {
            match region {
                Region::Wal if counts[0] < 3 => {
                    counts[0] += 1;
                    seed("wal_block", &format!("block{}", counts[0]), &read(at, bytes).await);
                }
                Region::Bucket if counts[1] < 8 => {
                    counts[1] += 1;
                    let page = read(at, bytes).await;
                    let halves = [&page[64..64 + 4096], &page[page.len() - 4096..]].concat();
                    seed("bucket", &format!("node{}", counts[1]), &halves);
                    // Somewhere in a leaf of the object table is an object's record.
                    seed("flat_record", &format!("leaf{}", counts[1]), &page[page.len() - 300..]);
                    seed("record", &format!("leaf{}", counts[1]), &page[page.len() - 120..]);
                }
                _ => {}
            }
        }
        let mut inode = vec![0; 152];
        inode[..4].copy_from_slice(&0o100_644_u32.to_le_bytes());
        inode[36..44].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        inode[88] = 64;
        inode[90] = 1;
        seed("inode_record", "file", &inode);
        seed("name", "short", b"a name");
        seed("name", "long", &[b'x'; 255]);
        seed("name", "orphan", &[1; 16]);
        let lines = [
            r#"{"version":1,"request":"container-query","arguments":{"pool":"default","container":"home"}}"#,
            r#"{"version":1,"request":"filesystem","arguments":{"verb":"query","arguments":{"a":[1,2.5]}}}"#,
            r#"{"version":1,"request":"scrub","arguments":{"place":"00ff","bytes_max":1048576}}"#,
            r#"{"version":1,"request":"stop"}"#,
            r#"{"version":1,"answer":"done"}"#,
            r#"{"version":1,"answer":"pools","value":[{"uuid":"00000000-0000-0000-0000-000000000000","label":"p"}]}"#,
            r#"{"version":1,"error":{"kind":"protocol","message":"no"}}"#,
        ];
        for (number, line) in lines.into_iter().enumerate() {
            seed("control_line", &format!("line{number}"), line.as_bytes());
        }
    });
}
