//! Everything that a filesystem holds, as a map from path to what is there.

use std::collections::BTreeMap;

use daos_types::Csum;
use dfs::{Caller, Dfs, Handle, Ino, Kind, Result};

/// What a power cut must not mix up. Times are not in it: nobody syncs them alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub mode: u32,
    pub links: u32,
    /// Bytes of a file, target of a symlink.
    pub content: Vec<u8>,
    /// Name, length and checksum of the value.
    pub xattrs: BTreeMap<String, (usize, Csum)>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Enough of the content to see what it is.
        let head = self.content.iter().take(8).collect::<Vec<_>>();
        let (bytes, hash) = (self.content.len(), daos_types::crc32c(&self.content));
        let Self { kind, mode, links, xattrs, .. } = self;
        write!(f, "{kind:?} {mode:o} x{links} {bytes} bytes {head:?}.. ({hash}) {xattrs:?}")
    }
}

pub type Tree = BTreeMap<String, Node>;

/// Reads all of it.
pub async fn tree(dfs: &Dfs) -> Result<Tree> {
    tree_of(dfs, dfs.root()).await
}

/// Reads what is below a directory; paths begin there.
pub async fn tree_of(dfs: &Dfs, top: Ino) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![(String::from("/"), top)];
    while let Some((path, ino)) = todo.pop() {
        let node = node(dfs, ino).await?;
        if node.kind == Kind::Directory {
            for (name, ino) in entries(dfs, ino).await? {
                let separator = if path == "/" { "" } else { "/" };
                todo.push((format!("{path}{separator}{name}"), ino));
            }
        }
        tree.insert(path, node);
    }
    Ok(tree)
}

async fn entries(dfs: &Dfs, directory: Ino) -> Result<Vec<(String, Ino)>> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let entries = dfs.readdir(directory, after, 100).await?;
        let Some(last) = entries.last() else { return Ok(found) };
        after = last.cookie;
        let named = entries.into_iter().filter(|entry| !entry.name.starts_with(b"."));
        for entry in named {
            let name = String::from_utf8(entry.name.to_vec()).expect("names of tests are ASCII");
            // As programs do: a listed name is looked up.
            let entry = dfs.lookup(directory, name.as_bytes()).await?;
            found.push((name, entry.attr.ino));
        }
    }
}

async fn node(dfs: &Dfs, ino: Ino) -> Result<Node> {
    let attr = dfs.getattr(ino).await?;
    let content = match attr.kind {
        Kind::File => dfs.read(ino, Handle(0), 0, attr.size as usize).await?.to_vec(),
        Kind::Symlink => dfs.readlink(ino).await?.to_vec(),
        _ => Vec::new(),
    };
    let mut xattrs = BTreeMap::new();
    for name in dfs
        .listxattr(ino, Caller::default())
        .await?
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let value = dfs.getxattr(ino, name).await?;
        let name = String::from_utf8_lossy(name).into_owned();
        xattrs.insert(name, (value.len(), daos_types::crc32c(&value)));
    }
    Ok(Node { kind: attr.kind, mode: attr.mode & 0o7777, links: attr.nlink, content, xattrs })
}
