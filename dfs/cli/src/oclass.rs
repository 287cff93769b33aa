//! Object classes: which there are in a store of one engine, in DAOS's words.

/// What lies in objects of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Files,
    Directories,
}

impl Of {
    /// The one class that they have.
    pub fn class(self) -> &'static str {
        match self {
            Self::Files => "SX",
            Self::Directories => "S1",
        }
    }

    fn are(self) -> &'static str {
        match self {
            Self::Files => "files are SX here, spread over all targets",
            Self::Directories => "directories are S1 here, each on one target",
        }
    }
}

/// Refuses a class that `of` cannot have, with the reason and what can be used.
pub fn check(name: &str, of: Of) -> Result<(), String> {
    let upper = name.to_ascii_uppercase();
    if upper == of.class() {
        return Ok(());
    }
    let are = of.are();
    let why = if upper.starts_with("RP_") || upper.starts_with("EC_") {
        "keeps data on several engines, and this store has one".to_owned()
    } else if is_sharded(&upper) {
        format!("is not for what is asked; {are}")
    } else {
        format!("is no object class of DAOS; {are}")
    };
    let use_this = of.class();
    Err(format!("object class '{name}' {why}: use {use_this}, or leave it away"))
}

/// `S1`, `S2`, ... `SX`.
fn is_sharded(upper: &str) -> bool {
    upper.strip_prefix('S').is_some_and(|count| count == "X" || count.parse::<u32>().is_ok())
}

/// As [`check`], of `--oclass` of a container, which is about both: one that either can have.
pub fn check_both(name: &str) -> Result<(), String> {
    check(name, Of::Directories).or_else(|_| check(name, Of::Files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_one_engine_has_two_classes() {
        assert_eq!(check("SX", Of::Files), Ok(()));
        assert_eq!(check("s1", Of::Directories), Ok(()));
        assert!(check_both("S1").is_ok() && check_both("sx").is_ok());
        for (name, part) in [
            ("RP_2G1", "several engines"),
            ("ec_4p1gx", "several engines"),
            ("S1", "files are SX"),
            ("S4", "files are SX"),
            ("SY", "no object class"),
            ("", "no object class"),
        ] {
            let refused = check(name, Of::Files).unwrap_err();
            assert!(refused.contains(part) && refused.contains("use SX"), "{name}: {refused}");
        }
        assert!(check("SX", Of::Directories).unwrap_err().contains("use S1"));
    }
}
