//! A door for `tests/fuzz` to what reads labels.

use daos_types::crc32c;

use super::choose;
use super::record::{COPY_BYTES, RawLabel, State, Verified};

/// Two copies of a label: each is refused, or sound and the same when it is written again.
///
/// # Panics
/// When that does not hold.
pub fn label(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let copies = [first, second].map(|data| {
        let mut bytes = vec![0; COPY_BYTES as usize];
        let len = data.len().min(bytes.len());
        bytes[..len].copy_from_slice(&data[..len]);
        bytes[..8].copy_from_slice(b"daosfs\x01\xd5");
        bytes[12..16].fill(0);
        let checksum = crc32c(&bytes);
        bytes[12..16].copy_from_slice(&checksum.0.to_le_bytes());
        bytes
    });
    for (copy, bytes) in copies.iter().enumerate() {
        if let Verified::Good((label, state)) = RawLabel::new(bytes).verify(copy as u32) {
            label.areas.check(label.device_bytes).expect("what is good has sound areas");
            let again = RawLabel::new(&label.encode(state, copy as u32)).verify(copy as u32);
            let Verified::Good(again) = again else {
                panic!("a good label is one when it is written")
            };
            assert_eq!(again, (label.clone(), state));
            if state == State::Ready {
                assert!(label.areas.space.contains(label.root));
            }
        }
    }
    let _chosen_or_refused = choose(&copies.map(|bytes| RawLabel::new(&bytes)));
}
