//! A door for `tests/fuzz` to what reads requests: it takes any bytes and asserts what must hold.

use zerocopy::{FromBytes, IntoBytes};

use super::abi::InHeader;
use super::request::{Malformed, Operation, parse};

/// A request as the device gives it: refused, or with names that can be and data that is inside of it.
///
/// The header's length is made right: with another one everything is refused, which bytes as they are show too.
pub fn request(data: &[u8]) {
    for long_setxattr in [false, true] {
        hold(data, long_setxattr);
    }
    let mut whole = data.to_vec();
    if let Some(len) = whole.first_chunk_mut::<4>() {
        *len = (data.len() as u32).to_ne_bytes();
    }
    for long_setxattr in [false, true] {
        hold(&whole, long_setxattr);
    }
}

fn hold(bytes: &[u8], long_setxattr: bool) {
    let header = InHeader::read_from_prefix(bytes).ok().map(|(header, _)| header);
    let request = match parse(bytes, long_setxattr) {
        Ok(request) => request,
        Err(Malformed::Headless) => return assert!(header.is_none()),
        Err(Malformed::Body { header: found, .. }) => return assert_eq!(Some(found), header),
    };
    assert_eq!(Some(&request.header), header.as_ref());
    assert_eq!(request.header.len as usize, bytes.len(), "as long as it says");
    assert_eq!(request.header.as_bytes(), &bytes[..size_of::<InHeader>()]);
    match request.operation {
        Operation::Lookup { name } => looked_up(name),
        Operation::Symlink { name, target } => {
            made(name);
            assert!(!target.contains(&0));
        }
        Operation::Mknod { name, .. }
        | Operation::Mkdir { name, .. }
        | Operation::Unlink { name }
        | Operation::Rmdir { name }
        | Operation::Link { name, .. }
        | Operation::Create { name, .. } => made(name),
        Operation::Rename { name, to_name, .. } => {
            made(name);
            made(to_name);
        }
        Operation::GetXattr { name, .. } | Operation::RemoveXattr { name } => {
            assert!(!name.contains(&0));
        }
        Operation::SetXattr { name, value, .. } => {
            assert!(!name.contains(&0));
            assert!(name.len() + value.len() < bytes.len());
        }
        Operation::Write(write) => {
            let data = bytes.get(write.data.clone()).expect("inside of the request");
            assert_eq!(data.len(), write.arguments.size as usize);
            let extensions = usize::from(request.header.extensions) * 8;
            assert_eq!(write.data.end + extensions, bytes.len(), "all that is there");
        }
        Operation::Forget(forgets) => assert!(forgets.iter().count() <= bytes.len() / 16 + 1),
        _ => {}
    }
}

fn looked_up(name: &[u8]) {
    assert!(!name.is_empty() && !name.iter().any(|b| b"/\0".contains(b)), "{name:?}");
}

fn made(name: &[u8]) {
    looked_up(name);
    assert!(name != b"." && name != b"..", "{name:?}");
}
