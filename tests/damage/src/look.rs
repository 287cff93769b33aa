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
                assert!(error.is_damage(), "{context}: {path}: {error}");
                seen.damaged.push((path.clone(), error));
            }
        }
    }
    seen
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

/// With attributes and without, in pages of any size, the same is listed, and comes to the same end: what an entry leads to does not
/// keep others from being listed.
async fn list(dfs: &Dfs, ino: Ino) -> dfs::Result<()> {
    let (mut names, mut ends) = (Vec::new(), Vec::new());
    for (plus, max) in [(false, 500), (true, 500), (true, 7)] {
        let (mut listed, mut after) = (Vec::new(), 0);
        let end = loop {
            let page = match plus {
                false => dfs.readdir(ino, after, max).await,
                true => dfs.readdir_plus(ino, after, max).await,
            };
            let page = match page {
                Ok(page) => page,
                Err(error) => break Err(error),
            };
            let Some(last) = page.last() else { break Ok(()) };
            after = last.cookie;
            listed.extend(page.iter().map(|entry| entry.name.clone()));
        };
        names.push(listed);
        ends.push(end);
    }
    let errors: Vec<_> = ends.iter().map(|end| end.as_ref().err().map(dfs::Error::errno)).collect();
    assert!(names.iter().all(|listed| *listed == names[0]), "{names:?} {errors:?}");
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    ends.remove(0)
}
