//! `daos fs get-attr|set-attr|reset-attr`: how the data of a file in a mount is laid out.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use daos_server::control::{Failure, FailureKind};
use daos_types::ByteSize;
use serde_json::json;

use crate::args::InMount;
use crate::commands::{good, size, usage};
use crate::oclass::{self, Of};
use crate::output::{Answered, Text};
use crate::store::Store;

type Result<T> = std::result::Result<T, Failure>;

fn look(at: &InMount) -> Result<(&Path, Metadata)> {
    let path = at.path().ok_or_else(|| usage("name a file or directory in the mount".into()))?;
    let found = fs::metadata(path)
        .map_err(|e| Failure::new(FailureKind::NotFound, format!("{}: {e}", path.display())))?;
    Ok((path, found))
}

pub fn get(store: &mut Store, at: &InMount) -> Result<Answered> {
    let (_, found) = look(at)?;
    let layout = store.ask_mount("layout", json!({ "ino": found.ino() }))?;
    let text = |name: &str| layout[name].as_str().unwrap_or_default().to_owned();
    let chunk = size(layout["chunk_bytes"].as_u64().unwrap_or_default());
    let of_directory = layout["directory"].as_bool() == Some(true);
    let chunk_is = if of_directory { "chunk size of new files" } else { "chunk size" };
    let pairs = [("oid", text("oid")), ("object class", text("class")), (chunk_is, chunk)];
    Ok(good(Text::pairs(&pairs), layout))
}

pub fn set(
    store: &mut Store,
    at: &InMount,
    chunk: Option<ByteSize>,
    class: Option<&str>,
) -> Result<Answered> {
    let missing = at.path().filter(|path| path.symlink_metadata().is_err());
    if let Some(class) = class {
        let directory = missing.is_none() && look(at)?.1.is_dir();
        let of = if directory { Of::Directories } else { Of::Files };
        let shown = at.path().map(|path| path.display().to_string()).unwrap_or_default();
        oclass::check(class, of)
            .map_err(|why| Failure::new(FailureKind::Unsupported, format!("{shown}: {why}")))?;
    }
    if let Some(path) = missing {
        let made = File::options().write(true).create_new(true).open(path);
        made.map_err(|e| Failure::new(FailureKind::Failed, format!("{}: {e}", path.display())))?;
    }
    let ino = look(at)?.1.ino();
    if let Some(ByteSize(chunk_bytes)) = chunk {
        store.ask_mount("set-chunk", json!({ "ino": ino, "chunk_bytes": chunk_bytes }))?;
    }
    get(store, at)
}

pub fn reset(store: &mut Store, at: &InMount) -> Result<Answered> {
    let (_, found) = look(at)?;
    store.ask_mount("set-chunk", json!({ "ino": found.ino() }))?;
    get(store, at)
}
