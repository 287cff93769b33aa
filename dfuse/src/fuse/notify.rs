//! Notices to the kernel: written to the device like replies, to no request.

use std::io::IoSlice;

use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::abi;
use super::channel::Device;
use super::reply::Nodes;
use crate::notices::Notice;

/// Sends one; false: the kernel does not know what it is about. In the kernel it may wait for locks of requests in progress.
pub fn send(device: &Device, nodes: Nodes, notice: &Notice) -> bool {
    match notice {
        Notice::Name { parent, name } => name_changed(device, nodes.node(*parent), name, 0),
        Notice::NameTime { parent, name } => {
            name_changed(device, nodes.node(*parent), name, abi::EXPIRE_ONLY)
        }
        // The kernel takes a negative offset for: attributes only.
        Notice::Attributes(ino) => inode_changed(device, nodes.node(*ino), -1),
        // And a length of 0 for: to the end.
        Notice::Content(ino) => inode_changed(device, nodes.node(*ino), 0),
    }
}

fn name_changed(device: &Device, parent: u64, name: &[u8], flags: u32) -> bool {
    let changed = abi::InvalEntryOut { parent, name_bytes: name.len() as u32, flags };
    write(device, abi::notify::INVAL_ENTRY, &[changed.as_bytes(), name, &[0]])
}

fn inode_changed(device: &Device, node: u64, offset: i64) -> bool {
    let changed = abi::InvalInodeOut { node, offset: offset as u64, len: 0 };
    write(device, abi::notify::INVAL_INODE, &[changed.as_bytes()])
}

/// In the place of an error is what it is about.
fn write(device: &Device, code: i32, body: &[&[u8]]) -> bool {
    let bytes = body.iter().map(|part| part.len()).sum::<usize>();
    let len = (size_of::<abi::OutHeader>() + bytes) as u32;
    let header = abi::OutHeader { len, error: code, unique: 0 };
    let parts = std::iter::once(header.as_bytes()).chain(body.iter().copied());
    let parts: SmallVec<[_; 4]> = parts.map(IoSlice::new).collect();
    device.notify(&parts)
}
