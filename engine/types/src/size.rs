//! Sizes as people write and read them: `64G`, `1.5 TiB`.

/// Bytes. Parses `4096`, `64K`, `64KiB`, `1.5T`; shows three digits and a binary unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl std::str::FromStr for ByteSize {
    type Err = String;

    /// A number and an optional unit; every unit is binary (`K`, `KB` and `KiB` are all 1024).
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size; write for example 512M, 64G or 1.5T");
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = unit_shift(unit.trim()).ok_or_else(wrong)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(wrong);
        }
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * (1u64 << shift) as f64;
        if bytes >= u64::MAX as f64 { Err(wrong()) } else { Ok(Self(bytes as u64)) }
    }
}

fn unit_shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    let letter = match unit.as_str() {
        "" | "b" => return Some(0),
        u => u.strip_suffix("ib").or_else(|| u.strip_suffix('b')).unwrap_or(u),
    };
    let power = ["k", "m", "g", "t", "p", "e"].iter().position(|l| *l == letter)?;
    Some(10 * (power as u32 + 1))
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut unit = 0;
        let mut value = self.0 as f64;
        // 1023.5 would print as 1024 of the smaller unit.
        while value >= 1023.5 && unit < UNITS.len() - 1 {
            value /= 1024.0;
            unit += 1;
        }
        let digits = match value {
            _ if unit == 0 => 0,
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.digits$} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::ByteSize;

    #[test]
    fn sizes_parse_with_any_spelling_of_the_unit() {
        for (text, bytes) in [
            ("4096", 4096),
            ("0", 0),
            ("64K", 64 << 10),
            ("64kb", 64 << 10),
            ("64 KiB", 64 << 10),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_by_name() {
        for text in ["", "G", "-1", "12Q", "1..5G", "99999999999T"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.contains(text) && error.contains("is not a size"), "{error}");
        }
    }

    #[test]
    fn sizes_show_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.50 KiB"),
            (64 << 30, "64.0 GiB"),
            ((1 << 20) - 1, "1.00 MiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
