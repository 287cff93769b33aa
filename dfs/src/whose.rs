//! Whose an object is: its path, by the back pointers alone, so that it is told also where entries and records are damaged.

use std::fmt;

use bytes::Bytes;
use daos_client::Container;
use daos_types::rpc::{FetchPart, Fetched};
use daos_types::{Damage, Epoch, ObjectId, ObjectType};

use crate::keys::{self, Pointer};
use crate::mount::Dfs;
use crate::{Error, Ino, Result};

/// Deeper than any path that can be walked.
const DEPTH_MAX: usize = 4096;

/// What an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The file or directory of that path; of several names, one.
    Path(Bytes),
    /// The same, in the snapshot of that epoch only.
    Snapshot(Epoch, Bytes),
    /// No name leads to the inode, as far as can be read.
    Nameless(Ino),
    /// The filesystem itself.
    Own(&'static str),
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.escape_ascii()),
            Self::Snapshot(epoch, path) => {
                write!(f, "{} in the snapshot of epoch {}", path.escape_ascii(), epoch.0)
            }
            Self::Nameless(ino) => write!(f, "inode {ino}, which no name leads to"),
            Self::Own(what) => f.write_str(what),
        }
    }
}

/// Whose an object of a filesystem is, now or in the newest snapshot that knows it.
///
/// # Errors
/// Those of the targets; damage is none.
pub async fn whose(container: &Container, oid: ObjectId) -> Result<Whose> {
    let now = whose_at(container, oid).await?;
    if !matches!(now, Whose::Nameless(_)) {
        return Ok(now);
    }
    for snapshot in container.snapshots().await?.into_iter().rev() {
        if let Whose::Path(path) = whose_at(&container.at(snapshot.epoch), oid).await? {
            return Ok(Whose::Snapshot(snapshot.epoch, path));
        }
    }
    Ok(now)
}

async fn whose_at(container: &Container, oid: ObjectId) -> Result<Whose> {
    match oid {
        keys::SUPERBLOCK_OID => return Ok(Whose::Own("the superblock")),
        keys::TABLE_OID => return Ok(Whose::Own("the inode table")),
        keys::ORPHANS_OID => return Ok(Whose::Own("the list of orphans")),
        _ => {}
    }
    let root = Ino::root(container.id());
    if oid == keys::directory_oid(root) {
        return Ok(Whose::Path(Bytes::from_static(b"/")));
    }
    let nameless = Whose::Nameless(Ino::new(container.id(), oid.lo));
    let (mut at, mut names) = (oid, Vec::new());
    while names.len() < DEPTH_MAX {
        let Some((parent, name)) = name_of(container, at).await? else { return Ok(nameless) };
        names.push(name);
        if parent == root {
            let mut path = Vec::new();
            for name in names.iter().rev() {
                path.push(b'/');
                path.extend_from_slice(name);
            }
            return Ok(Whose::Path(path.into()));
        }
        at = keys::directory_oid(parent);
    }
    Ok(nameless)
}

/// A name that an object says it has.
async fn name_of(container: &Container, oid: ObjectId) -> Result<Option<(Ino, Bytes)>> {
    if !matches!(oid.object_type(), Some(ObjectType::MultiHashed | ObjectType::ArrayByte)) {
        return Ok(None);
    }
    let part = FetchPart::Akeys {
        object: oid,
        dkey: keys::self_dkey(oid),
        prefix: Bytes::new(),
        array_bytes_max: 0,
    };
    let akeys = match container.fetch(vec![part]).await {
        Ok(mut fetched) => match fetched.pop() {
            Some(Fetched::Akeys(akeys)) => akeys,
            _ => return Err(Error::Protocol { asked: "back pointers" }),
        },
        // Then nothing can be said of its name.
        Err(daos_types::Error::Damaged(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(akeys.iter().find_map(|(akey, _)| match Pointer::of(akey)? {
        Pointer::Back(parent, name) | Pointer::Name(parent, name) => Some((parent, name)),
        Pointer::InTable => None,
    }))
}

impl Dfs {
    /// Whose an object of this container, or of another one of its pool, is.
    ///
    /// # Errors
    /// Those of the targets.
    pub async fn whose(&self, container: u16, oid: ObjectId) -> Result<Whose> {
        let pool = self.container.pool();
        let all = pool.containers().await?;
        let Some(info) = all.into_iter().find(|info| info.id.0 == container) else {
            return Ok(Whose::Own("a container that is gone"));
        };
        whose(&pool.container(&info.uuid.to_string()).await?, oid).await
    }

    /// Tells damage that a read has met, with pool and path.
    pub(crate) async fn tell_damage(&self, oid: ObjectId, error: &Error) {
        let Error::Engine(daos_types::Error::Damaged(damage)) = error else { return };
        let pool = damage.pool.or(Some(self.container.pool().id()));
        let damage = Damage { pool, ..(**damage).clone() };
        match whose_at(&self.container, oid).await {
            Ok(whose) => tracing::error!(path = %whose, %damage),
            Err(error) => tracing::error!(object = %oid, %damage, %error),
        }
    }
}
