//! Every path of a tree that is known, read: each is right, or damage says why not.

use daos_sim::tree::{Node, Tree};
use dfs::{Dfs, Handle, Ino, Kind};

/// What was seen of a tree.
#[derive(Default)]
pub struct Seen {
    pub right: usize,
    /// Paths that could not be read, and why.
    pub damaged: Vec<(String, dfs::Error)>,
}

/// Reads everything that `tree` says is there.
///
/// # Panics
/// When something else is there, or when an error is not damage.
pub async fn look(dfs: &Dfs, tree: &Tree, context: &str) -> Seen {
    let mut seen = Seen::default();
    for (path, expected) in tree {
        match read(dfs, path, expected).await {
            Ok(None) => seen.right += 1,
            Ok(Some(wrong)) => panic!("{context}: {path}: wrong {wrong}; it was {expected:?}"),
            Err(error) => {
                assert!(is_damage(&error), "{context}: {path}: {error}");
                seen.damaged.push((path.clone(), error));
            }
        }
    }
    seen
}

pub fn is_damage(error: &dfs::Error) -> bool {
    match error {
        dfs::Error::Damaged { .. } => true,
        dfs::Error::Engine(error) => matches!(error, daos_types::Error::Damaged(_)),
        _ => false,
    }
}

/// What is not as it was.
async fn read(dfs: &Dfs, path: &str, expected: &Node) -> dfs::Result<Option<String>> {
    let mut ino = dfs.root();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        ino = dfs.lookup(ino, name.as_bytes()).await?.attr.ino;
    }
    let attr = dfs.getattr(ino).await?;
    if (attr.kind, attr.mode & 0o7777, attr.nlink) != (expected.kind, expected.mode, expected.links)
    {
        return Ok(Some(format!("attributes: {attr:?}")));
    }
    let content = match attr.kind {
        Kind::File => contents(dfs, ino, attr.size, expected.content.len()).await?,
        Kind::Symlink => dfs.readlink(ino).await?.to_vec(),
        Kind::Directory => {
            list(dfs, ino).await?;
            Vec::new()
        }
        _ => Vec::new(),
    };
    if content != expected.content {
        return Ok(Some(format!("content of {} bytes", content.len())));
    }
    for (name, (len, csum)) in &expected.xattrs {
        let value = dfs.getxattr(ino, name.as_bytes()).await?;
        if (value.len(), daos_types::crc32c(&value)) != (*len, *csum) {
            return Ok(Some(format!("xattr {name}")));
        }
    }
    Ok(None)
}

async fn contents(dfs: &Dfs, ino: Ino, size: u64, expected: usize) -> dfs::Result<Vec<u8>> {
    if size != expected as u64 {
        return Ok(vec![0; 1]);
    }
    Ok(dfs.read(ino, Handle(0), 0, expected).await?.to_vec())
}

async fn list(dfs: &Dfs, ino: Ino) -> dfs::Result<()> {
    let mut after = 2;
    while let Some(last) = dfs.readdir(ino, after, 500).await?.last() {
        after = last.cookie;
    }
    Ok(())
}
