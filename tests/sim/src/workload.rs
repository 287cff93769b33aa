//! Random changes of a small tree. Each step is one call that must happen whole or not at all.

use daos_xstream::Random;
use dfs::{Caller, Dfs, Handle, Ino, RenameFlags, Result, SetAttr, XattrSet};

const USER: Caller = Caller::new(0, 0);

#[derive(Clone, Debug)]
pub enum Step {
    Create(String),
    Mkdir(String),
    Symlink(String, String),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, bool),
    Write {
        path: String,
        offset: u64,
        bytes: usize,
        byte: u8,
    },
    Truncate(String, u64),
    PunchHole {
        path: String,
        offset: u64,
        bytes: u64,
    },
    Allocate {
        path: String,
        offset: u64,
        bytes: u64,
    },
    Xattr(String, u8),
    Chmod(String, u32),
    /// Changes nothing; what was before is durable from now on.
    Fsync(String),
}

/// A workload begins with these: later steps then mostly hit something that exists.
pub fn first_steps() -> Vec<Step> {
    let directories = ["/d0", "/d1"].map(|path| Step::Mkdir(path.into()));
    let files = ["/f0", "/f1", "/d0/f0", "/d0/f1", "/d1/f0", "/d1/f2"];
    directories.into_iter().chain(files.map(|path| Step::Create(path.into()))).collect()
}

/// The next step.
pub fn step(random: &mut Random) -> Step {
    let file = |random: &mut Random| match random.below(3) {
        0 => format!("/f{}", random.below(4)),
        _ => format!("/d{}/f{}", random.below(2), random.below(3)),
    };
    let directory = |random: &mut Random| match random.below(4) {
        0 => format!("/d{}/s", random.below(2)),
        _ => format!("/d{}", random.below(2)),
    };
    match random.below(40) {
        0..=6 => Step::Create(file(random)),
        7..=9 => Step::Mkdir(directory(random)),
        10 => Step::Symlink("target".into(), file(random)),
        11..=12 => Step::Link(file(random), file(random)),
        13..=14 => Step::Unlink(file(random)),
        15 => Step::Rmdir(directory(random)),
        16..=18 => Step::Rename(file(random), file(random), random.below(4) == 0),
        19 => Step::Rename(directory(random), directory(random), random.below(4) == 0),
        20..=28 => {
            let bytes_max = [100, 5_000, 60_000][random.below(3) as usize];
            Step::Write {
                path: file(random),
                offset: random.below(3) * random.below(20_000),
                bytes: 1 + random.below(bytes_max) as usize,
                byte: random.below(256) as u8,
            }
        }
        29..=30 => Step::Truncate(file(random), random.below(3) * random.below(20_000)),
        31 => Step::PunchHole {
            path: file(random),
            offset: random.below(10_000),
            bytes: 1 + random.below(20_000),
        },
        32 => Step::Allocate {
            path: file(random),
            offset: random.below(50_000),
            bytes: 1 + random.below(50_000),
        },
        33 => Step::Xattr(file(random), random.below(256) as u8),
        34 => Step::Chmod(file(random), random.below(0o1000) as u32),
        _ => Step::Fsync(directory(random)),
    }
}

/// Does it in the whole filesystem. The errors that a step may have are those of a tree in which its names are not there, or there already.
pub async fn apply(dfs: &Dfs, step: &Step) -> Result<()> {
    apply_below(dfs, dfs.root(), step).await
}

/// As `apply`, with `top` as the root.
pub async fn apply_below(dfs: &Dfs, top: Ino, step: &Step) -> Result<()> {
    let resolve = |path| resolve(dfs, top, path);
    let parent = |path| parent(dfs, top, path);
    match step {
        Step::Create(path) => {
            let (parent, name) = parent(path).await?;
            let flags = libc::O_RDWR | libc::O_EXCL;
            let (entry, opened) = dfs.create(parent, name, 0o644, flags, USER).await?;
            dfs.release(entry.attr.ino, opened.handle).await
        }
        Step::Mkdir(path) => {
            let (parent, name) = parent(path).await?;
            dfs.mkdir(parent, name, 0o755, USER).await.map(drop)
        }
        Step::Symlink(target, path) => {
            let (parent, name) = parent(path).await?;
            dfs.symlink(parent, name, target.as_bytes(), USER).await.map(drop)
        }
        Step::Link(path, new) => {
            let ino = resolve(path).await?;
            let (parent, name) = parent(new).await?;
            dfs.link(ino, parent, name).await.map(drop)
        }
        Step::Unlink(path) => {
            let (parent, name) = parent(path).await?;
            dfs.unlink(parent, name).await.map(|_gone| ())
        }
        Step::Rmdir(path) => {
            let (parent, name) = parent(path).await?;
            dfs.rmdir(parent, name).await.map(|_gone| ())
        }
        Step::Rename(old, new, exchange) => {
            let (parent_of_old, old) = parent(old).await?;
            let (parent_of_new, new) = parent(new).await?;
            let flags = RenameFlags { exchange: *exchange, ..RenameFlags::default() };
            dfs.rename(parent_of_old, old, parent_of_new, new, flags).await.map(drop)
        }
        Step::Write { path, offset, bytes, byte } => {
            let ino = resolve(path).await?;
            let data = vec![*byte; *bytes].into();
            let written = dfs.write(ino, Handle(0), *offset, data, false, false).await?;
            assert_eq!(written, *bytes, "a small write is done whole");
            Ok(())
        }
        Step::Truncate(path, size) => {
            let ino = resolve(path).await?;
            dfs.setattr(ino, SetAttr { size: Some(*size), ..SetAttr::default() }).await.map(drop)
        }
        Step::PunchHole { path, offset, bytes } => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            dfs.fallocate(resolve(path).await?, mode, *offset, *bytes, false).await
        }
        Step::Allocate { path, offset, bytes } => {
            dfs.fallocate(resolve(path).await?, 0, *offset, *bytes, false).await
        }
        Step::Xattr(path, byte) => {
            let ino = resolve(path).await?;
            let value = vec![*byte; 100 + *byte as usize * 10];
            dfs.setxattr(ino, b"user.x", &value, XattrSet::Any, false).await
        }
        Step::Chmod(path, mode) => {
            let ino = resolve(path).await?;
            dfs.setattr(ino, SetAttr { mode: Some(*mode), ..SetAttr::default() }).await.map(drop)
        }
        Step::Fsync(path) => dfs.fsync(resolve(path).await?, false).await,
    }
}

async fn resolve(dfs: &Dfs, top: Ino, path: &str) -> Result<Ino> {
    let mut at = top;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = dfs.lookup(at, name.as_bytes()).await?.attr.ino;
    }
    Ok(at)
}

async fn parent<'a>(dfs: &Dfs, top: Ino, path: &'a str) -> Result<(Ino, &'a [u8])> {
    let (directory, name) = path.rsplit_once('/').expect("paths are absolute");
    Ok((resolve(dfs, top, directory).await?, name.as_bytes()))
}
