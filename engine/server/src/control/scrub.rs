//! A scrub on the lines of the control socket.

use bytes::Bytes;
use daos_types::rpc::{Finding, Scrubbed};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What one step of a scrub did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScrubStep {
    /// Where to go on; absent at the end.
    pub next: Option<String>,
    /// Bytes that were read and verified.
    pub bytes: u64,
    pub findings: Vec<ScrubFinding>,
}

/// Damage, and whose it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScrubFinding {
    pub what: String,
    pub pool: Option<Uuid>,
    /// The container's number in its pool.
    pub container: Option<u16>,
    /// `hi`, `lo`.
    pub object: Option<[u64; 2]>,
    /// Only snapshots see it.
    pub snapshots_only: bool,
    pub target: Option<u32>,
    /// Which structure.
    pub place: Option<String>,
    /// Byte address on the device.
    pub address: Option<u64>,
    /// Checksums, as hexadecimal digits.
    pub expected: Option<String>,
    pub found: Option<String>,
    /// All of it, for people.
    pub message: String,
}

impl From<Finding> for ScrubFinding {
    fn from(finding: Finding) -> Self {
        let message = match &finding.damage {
            Some(damage) => damage.to_string(),
            None => "its checksum is right, its content makes no sense".into(),
        };
        let Finding { what, container, object, until, damage } = finding;
        let damage = damage.as_ref();
        Self {
            what,
            pool: damage.and_then(|damage| damage.pool).map(|pool| pool.0),
            container: container.map(|container| container.0),
            object: object.map(|object| [object.hi, object.lo]),
            snapshots_only: until.is_some(),
            target: damage.map(|damage| damage.target.0.into()),
            place: damage.map(|damage| format!("{:?}", damage.place).to_lowercase()),
            address: damage.map(|damage| damage.address),
            expected: damage.map(|damage| damage.expected.to_string()),
            found: damage.map(|damage| damage.found.to_string()),
            message,
        }
    }
}

impl ScrubStep {
    pub(crate) fn new(next: Option<Bytes>, step: Scrubbed) -> Self {
        Self {
            next: next.map(|next| hex(&next)),
            bytes: step.bytes,
            findings: step.findings.into_iter().map(ScrubFinding::from).collect(),
        }
    }
}

/// Places of a scrub travel as digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(digits: &str) -> Option<Bytes> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        // Signs are no digits.
        pair.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
        u8::from_str_radix(pair, 16).ok()
    };
    pairs.map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_their_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)).as_deref(), Some(&all[..]));
        for nonsense in ["1", "zz", "+1", "0é"] {
            assert_eq!(unhex(nonsense), None, "{nonsense}");
        }
    }
}
