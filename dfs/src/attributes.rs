//! Container attributes that say what a kernel may keep of the container, in DAOS's words.
//!
//! One that is not set says nothing: it leaves what it is about as the mount has it. (In DAOS setting one zeroes the others.)

use std::time::Duration;

const ATTR_TIME: &str = "dfuse-attr-time";
const DENTRY_TIME: &str = "dfuse-dentry-time";
const DENTRY_DIR_TIME: &str = "dfuse-dentry-dir-time";
const NDENTRY_TIME: &str = "dfuse-ndentry-time";
const DATA_CACHE: &str = "dfuse-data-cache";
const DIRECT_IO_DISABLE: &str = "dfuse-direct-io-disable";
const NAMES: [&str; 6] =
    [ATTR_TIME, DENTRY_TIME, DENTRY_DIR_TIME, NDENTRY_TIME, DATA_CACHE, DIRECT_IO_DISABLE];
/// Attributes that begin so are ours to understand.
const OURS: &str = "dfuse-";
/// A hundred years: longer is a mistake.
const SECONDS_MAX: u64 = 100 * 365 * 24 * 3600;

/// What `dfuse-data-cache` says of a file's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCache {
    /// They stay.
    On,
    Off,
    /// They go at the last close ("open to close").
    OpenToClose,
    /// They may be used by an open within this time of the last close.
    For(Duration),
}

/// What a container's attributes say; `None` of what they do not speak of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachingAttributes {
    /// Attributes of an inode.
    pub attr: Option<Duration>,
    /// A name, of a directory if `dentry_dir` does not say otherwise.
    pub dentry: Option<Duration>,
    pub dentry_dir: Option<Duration>,
    /// A name that is not there.
    pub ndentry: Option<Duration>,
    pub data: Option<DataCache>,
    /// A file opened with O_DIRECT is cached like any other.
    pub direct_io_disable: Option<bool>,
}

impl CachingAttributes {
    /// Reads the attributes that are meant for mounts among `attributes`, and what is wrong with those that cannot be understood: they
    /// count as not set.
    pub fn read<'a>(
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<String>) {
        let (mut all, mut wrong) = (Self::default(), Vec::new());
        for (name, value) in attributes {
            wrong.extend(all.take(name, value).err());
        }
        (all, wrong)
    }

    /// May this attribute be set?
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub fn check(name: &str, value: &str) -> Result<(), String> {
        Self::default().take(name, value)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            ATTR_TIME => self.attr = Some(time(name, value)?),
            DENTRY_TIME => self.dentry = Some(time(name, value)?),
            DENTRY_DIR_TIME => self.dentry_dir = Some(time(name, value)?),
            NDENTRY_TIME => self.ndentry = Some(time(name, value)?),
            DATA_CACHE => self.data = Some(data_cache(value)?),
            DIRECT_IO_DISABLE => {
                let wrong = || format!("{name}: '{value}' is neither on nor off");
                self.direct_io_disable = Some(on_off(value).ok_or_else(wrong)?);
            }
            _ if name.starts_with(OURS) => {
                return Err(format!(
                    "'{name}' is no attribute that dfuse knows; it knows {}",
                    NAMES.join(", ")
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

fn on_off(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" => Some(true),
        "off" | "false" => Some(false),
        _ => None,
    }
}

fn data_cache(value: &str) -> Result<DataCache, String> {
    match on_off(value) {
        Some(true) => return Ok(DataCache::On),
        Some(false) => return Ok(DataCache::Off),
        None if value.eq_ignore_ascii_case("otoc") => return Ok(DataCache::OpenToClose),
        None => {}
    }
    match seconds(value) {
        Some(0) => Ok(DataCache::Off),
        Some(seconds) => Ok(DataCache::For(Duration::from_secs(seconds))),
        None => Err(format!(
            "{DATA_CACHE}: '{value}' is none of on, off, otoc or a time such as 30, 30s, 5m, 1h or 1d"
        )),
    }
}

fn time(name: &str, value: &str) -> Result<Duration, String> {
    seconds(value).map(Duration::from_secs).ok_or_else(|| {
        format!("{name}: '{value}' is not a time; write seconds, or 30s, 5m, 1h or 1d (0 for none)")
    })
}

/// A number and at most one of `s m h d`.
fn seconds(value: &str) -> Option<u64> {
    let (number, unit) = match value.as_bytes().last()? {
        b's' | b'S' => (&value[..value.len() - 1], 1),
        b'm' | b'M' => (&value[..value.len() - 1], 60),
        b'h' | b'H' => (&value[..value.len() - 1], 3600),
        b'd' | b'D' => (&value[..value.len() - 1], 24 * 3600),
        _ => (value, 1),
    };
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|seconds| *seconds <= SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attributes: &[(&str, &str)]) -> CachingAttributes {
        let (read, wrong) = CachingAttributes::read(attributes.iter().copied());
        assert!(wrong.is_empty(), "{wrong:?}");
        read
    }

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        for (text, seconds) in
            [("0", 0), ("7", 7), ("30s", 30), ("5m", 300), ("2H", 7200), ("1d", 86_400)]
        {
            let read = read(&[(ATTR_TIME, text)]);
            assert_eq!(read.attr, Some(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "s", "-1", "+1", "1.5", "5w", "1 s", "99999999999999999999", "99999999d"]
        {
            let said = CachingAttributes::check(DENTRY_TIME, wrong).unwrap_err();
            assert!(said.contains(DENTRY_TIME) && said.contains("5m"), "{said}");
        }
    }

    #[test]
    fn setting_one_attribute_leaves_the_others_alone() {
        let one = read(&[(NDENTRY_TIME, "1m"), ("mine", "whatever")]);
        let expected = CachingAttributes {
            ndentry: Some(Duration::from_secs(60)),
            ..CachingAttributes::default()
        };
        assert_eq!(one, expected);
    }

    #[test]
    fn data_cache_has_words_and_times() {
        let minute = DataCache::For(Duration::from_secs(60));
        for (text, expected) in [
            ("on", DataCache::On),
            ("TRUE", DataCache::On),
            ("off", DataCache::Off),
            ("false", DataCache::Off),
            ("otoc", DataCache::OpenToClose),
            ("60", minute),
            ("1m", minute),
            ("0", DataCache::Off),
        ] {
            assert_eq!(read(&[(DATA_CACHE, text)]).data, Some(expected), "{text}");
        }
        assert!(CachingAttributes::check(DATA_CACHE, "sometimes").unwrap_err().contains("otoc"));
        assert!(
            CachingAttributes::check(DIRECT_IO_DISABLE, "30s").unwrap_err().contains("on nor off")
        );
    }

    #[test]
    fn an_attribute_that_dfuse_would_ignore_is_refused_by_name() {
        let said = CachingAttributes::check("dfuse-atr-time", "1").unwrap_err();
        assert!(said.contains("dfuse-atr-time") && said.contains(ATTR_TIME), "{said}");
        CachingAttributes::check("anything.else", "x").unwrap();
        let (read, wrong) = CachingAttributes::read([(ATTR_TIME, "x"), (DENTRY_TIME, "1")]);
        assert_eq!((read.attr, read.dentry), (None, Some(Duration::from_secs(1))));
        assert_eq!(wrong.len(), 1);
    }
}
