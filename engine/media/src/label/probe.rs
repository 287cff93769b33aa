//! What a device holds that is not a store of ours, by name. Nothing of it is interpreted beyond its signature.

use std::io;

use super::LabelError;
use crate::IoBuf;
use crate::device::{Device, How};

/// Read from the start of the device: every signature lies inside, and data that has none usually begins there.
const START_BYTES: u64 = 1 << 20;
/// Read from its end: the second GPT and old RAID superblocks.
const END_BYTES: u64 = 64 << 10;

struct Signature {
    name: &'static str,
    offset: usize,
    bytes: &'static [u8],
}

const fn at(name: &'static str, offset: usize, bytes: &'static [u8]) -> Signature {
    Signature { name, offset, bytes }
}

/// In order: what contains others comes after them (a FAT has the MBR's signature, an ext4 may have an old one).
const SIGNATURES: &[Signature] = &[
    at("an XFS filesystem", 0, b"XFSB"),
    at("a btrfs filesystem", 0x10040, b"_BHRfS_M"),
    at("a bcachefs filesystem", 4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    at("a bcachefs filesystem or a bcache device", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    at("an F2FS filesystem", 0x400, b"\x10\x20\xf5\xf2"),
    at("a ZFS pool", 0x20000, b"\x0c\xb1\xba\0\0\0\0\0"),
    at("a ZFS pool", 0x21000, b"\x0c\xb1\xba\0\0\0\0\0"),
    at("an EROFS filesystem", 0x400, b"\xe2\xe1\xf5\xe0"),
    at("a squashfs filesystem", 0, b"hsqs"),
    at("an NTFS filesystem", 3, b"NTFS    "),
    at("an exFAT filesystem", 3, b"EXFAT   "),
    at("a FAT filesystem", 54, b"FAT"),
    at("a FAT filesystem", 82, b"FAT32   "),
    at("an ISO 9660 filesystem", 0x8001, b"CD001"),
    at("a UDF filesystem", 0x8001, b"BEA01"),
    at("an encrypted LUKS volume", 0, b"LUKS\xba\xbe"),
    at("an LVM physical volume", 512, b"LABELONE"),
    at("an LVM physical volume", 0, b"LABELONE"),
    at("a member of a Linux RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    at("a member of a Linux RAID", 0, b"\xfc\x4e\x2b\xa9"),
    at("swap space", 4096 - 10, b"SWAPSPACE2"),
    at("swap space", 4096 - 10, b"SWAP-SPACE"),
    at("a Ceph BlueStore device", 0, b"bluestore block device"),
    at("an SPDK blobstore (a DAOS device)", 0, b"SPDKBLOB"),
    at("a qcow2 image", 0, b"QFI\xfb"),
    at("a VMDK image", 0, b"KDMV"),
    at("a VirtualBox image", 64, b"\x7f\x10\xda\xbe"),
    at("a GPT partition table", 512, b"EFI PART"),
    at("a GPT partition table", 4096, b"EFI PART"),
    at("an MBR partition table or boot sector", 510, b"\x55\xaa"),
    at("an SQLite database", 0, b"SQLite format 3\0"),
    at("a gzip file", 0, b"\x1f\x8b"),
    at("a zip archive", 0, b"PK\x03\x04"),
    at("an xz file", 0, b"\xfd7zXZ\0"),
    at("a zstd file", 0, b"\x28\xb5\x2f\xfd"),
    at("a bzip2 file", 0, b"BZh"),
    at("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c"),
    at("a tar archive", 257, b"ustar"),
    at("an ELF program", 0, b"\x7fELF"),
    at("a PDF document", 0, b"%PDF"),
    at("a PNG image", 0, b"\x89PNG"),
    at("a JPEG image", 0, b"\xff\xd8\xff"),
];

/// The name of what the device holds; `None` when its start and end are all zeros.
pub(super) async fn name(device: &dyn Device) -> Result<Option<String>, LabelError> {
    let start = read(device, 0, START_BYTES.min(device.size())).await?;
    if let Some(name) = name_of(&start) {
        return Ok(Some(name));
    }
    let end_bytes = END_BYTES.min(device.size());
    let end_address = device.size() - end_bytes;
    let end = read(device, end_address, end_bytes).await?;
    if end.windows(8).any(|window| window == b"EFI PART") {
        return Ok(Some("the second copy of a GPT partition table".into()));
    }
    Ok(first_nonzero(&end).map(|at| unknown(end_address + at as u64)))
}

fn name_of(start: &[u8]) -> Option<String> {
    if let Some(name) = ext_name(start) {
        return Some(name.into());
    }
    let matches = |signature: &&Signature| {
        start.get(signature.offset..).is_some_and(|rest| rest.starts_with(signature.bytes))
    };
    if let Some(signature) = SIGNATURES.iter().find(matches) {
        return Some(signature.name.into());
    }
    let first = first_nonzero(start)?;
    Some(if is_text(start) { "text".into() } else { unknown(first as u64) })
}

/// ext2, 3 and 4 differ by their features (superblock at 1024: magic at 56, compat at 92, incompat at 96).
fn ext_name(start: &[u8]) -> Option<&'static str> {
    const HAS_JOURNAL: u32 = 0x4;
    const EXTENTS_64BIT_FLEX_BG: u32 = 0x40 | 0x80 | 0x200;
    let superblock = start.get(1024..2048)?;
    if superblock[56..58] != [0x53, 0xef] {
        return None;
    }
    let word =
        |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().expect("four bytes"));
    Some(if word(96) & EXTENTS_64BIT_FLEX_BG != 0 {
        "an ext4 filesystem"
    } else if word(92) & HAS_JOURNAL != 0 {
        "an ext3 filesystem"
    } else {
        "an ext2 filesystem"
    })
}

fn unknown(first: u64) -> String {
    format!("data of an unknown kind (the first byte that is not zero is at {first})")
}

fn is_text(start: &[u8]) -> bool {
    let head = &start[..start.len().min(64)];
    head.iter().take_while(|byte| **byte != 0).count() >= 4
        && head
            .iter()
            .take_while(|byte| **byte != 0)
            .all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..))
}

fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte != 0)
}

async fn read(device: &dyn Device, address: u64, len: u64) -> Result<IoBuf, LabelError> {
    let result: io::Result<IoBuf> =
        device.read(IoBuf::zeroed(len as usize), address, How::Buffered).await;
    result.map_err(|source| LabelError::Device { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDevice;
    use daos_xstream::sim;

    fn named(parts: &[(usize, &[u8])]) -> Option<String> {
        let mut start = vec![0; START_BYTES as usize];
        for (offset, bytes) in parts {
            start[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        name_of(&start)
    }

    #[test]
    fn every_signature_is_found_by_its_name_first() {
        for signature in SIGNATURES {
            let name = named(&[(signature.offset, signature.bytes)]);
            assert_eq!(name.as_deref(), Some(signature.name));
        }
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn the_ext_family_and_what_carries_two_signatures_are_told_apart() {
        let magic: (usize, &[u8]) = (1024 + 56, &[0x53, 0xef]);
        assert_eq!(named(&[magic]).unwrap(), "an ext2 filesystem");
        assert_eq!(named(&[magic, (1024 + 92, &[4])]).unwrap(), "an ext3 filesystem");
        assert_eq!(named(&[magic, (1024 + 96, &[0x40])]).unwrap(), "an ext4 filesystem");
        let mbr: (usize, &[u8]) = (510, &[0x55, 0xaa]);
        assert_eq!(named(&[mbr, (512, b"EFI PART")]).unwrap(), "a GPT partition table");
        assert_eq!(named(&[mbr, (82, b"FAT32   ")]).unwrap(), "a FAT filesystem");
        assert_eq!(named(&[(0, b"hello\nworld\n")]).unwrap(), "text");
        let unknown = named(&[(5000, &[1])]).unwrap();
        assert!(unknown.starts_with("data of an unknown kind") && unknown.contains("5000"));
    }

    #[test]
    fn data_at_the_end_alone_is_seen() {
        sim::run(1, |_| async {
            let device = MemDevice::new(4 << 20);
            assert_eq!(name(&*device).await.unwrap(), None);
            let mut sector = vec![0; 512];
            sector[..8].copy_from_slice(b"EFI PART");
            let end = device.size() - 512;
            device.write(sector.into(), end, How::Buffered).await.unwrap();
            assert!(name(&*device).await.unwrap().unwrap().contains("GPT"));
        });
    }
}
