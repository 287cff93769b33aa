//! Checksums: CRC-32C (Castagnoli, RFC 3720 B.4), the one kind in every format of this project.

/// CRC-32C of a run of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Csum(pub u32);

impl std::fmt::Debug for Csum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl std::fmt::Display for Csum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> Csum {
    Csum(crc32c::crc32c(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_the_published_check_value() {
        // RFC 3720 B.4: "123456789" is the catalogue check string.
        assert_eq!(crc32c(b"123456789"), Csum(0xe306_9283));
    }
}
