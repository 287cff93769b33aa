//! What is to be set, as people write it: `NAME:VALUE,NAME:VALUE`.

use std::collections::BTreeMap;

use daos_server::control::Limits;
use daos_types::ByteSize;

type Result<T> = std::result::Result<T, String>;

/// Splits the words of a command that sets something into the container's names and what is set. With `by_path` there
/// are no names.
pub fn names_and_pairs(
    words: &[String],
    by_path: bool,
) -> Result<(&[String], Vec<(String, String)>)> {
    let lone = |name: &String, value: &String| vec![(name.clone(), value.clone())];
    match (words, by_path) {
        ([pairs], true) => Ok((&[], parse(pairs)?)),
        ([name, value], true) => Ok((&[], lone(name, value))),
        ([_, _, name, value], false) => Ok((&words[..2], lone(name, value))),
        ([_, name, value], false) if !value.contains([':', '=']) => {
            Ok((&words[..1], lone(name, value)))
        }
        ([names @ .., pairs], false) if matches!(names.len(), 1 | 2) => Ok((names, parse(pairs)?)),
        (_, true) => Err("write NAME:VALUE[,NAME:VALUE...] after --path".into()),
        _ => Err("write [POOL] CONTAINER NAME:VALUE[,NAME:VALUE...]".into()),
    }
}

/// Splits the words of a command about some names of a container. `needed`: there must be such names.
pub fn names_and_list(
    words: &[String],
    by_path: bool,
    needed: bool,
) -> Result<(&[String], Vec<String>)> {
    let list = |text: &String| text.split(',').map(str::to_owned).collect();
    match (words, by_path) {
        ([], true) if !needed => Ok((&[], Vec::new())),
        ([names], true) => Ok((&[], list(names))),
        ([_, _, names], false) => Ok((&words[..2], list(names))),
        ([_, names], false) if needed => Ok((&words[..1], list(names))),
        ([_] | [_, _], false) if !needed => Ok((words, Vec::new())),
        (_, true) => Err("after --path only NAME[,NAME...] may follow".into()),
        _ if needed => Err("write [POOL] CONTAINER NAME[,NAME...]".into()),
        _ => Err("write [POOL] CONTAINER, or POOL CONTAINER NAME[,NAME...]".into()),
    }
}

/// `NAME:VALUE,...`; a comma in a value is one if what follows has no name of its own.
pub fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        match (part.split_once([':', '=']), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.into(), value.into())),
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(part);
            }
            (None, None) => return Err(format!("'{part}' is not of the form NAME:VALUE")),
        }
    }
    Ok(pairs)
}

/// What `set-prop` changes.
#[derive(Debug, Default, PartialEq)]
pub struct Props {
    pub label: Option<String>,
    pub quota: Option<Limits>,
}

impl Props {
    pub fn parse(pairs: Vec<(String, String)>) -> Result<Self> {
        let mut props = Self::default();
        for (name, value) in pairs {
            match name.as_str() {
                "label" => props.label = Some(value),
                "quota" => props.quota = Some(quota(&value)?),
                _ => {
                    return Err(format!(
                        "'{name}' is no property that can be set; those are label:NAME and quota:BYTES,INODES"
                    ));
                }
            }
        }
        Ok(props)
    }
}

fn quota(text: &str) -> Result<Limits> {
    let wrong = |part: &str| {
        format!(
            "quota: '{part}' in '{text}' is not understood; write quota:BYTES,INODES such as quota:10G,100000, 0 for no limit"
        )
    };
    let (bytes, inodes) = text.split_once(',').ok_or_else(|| wrong(text))?;
    let bytes = bytes.parse::<ByteSize>().map_err(|_| wrong(bytes))?.0;
    let inodes = inodes.trim().parse().map_err(|_| wrong(inodes))?;
    Ok(Limits { bytes, inodes })
}

/// Attributes to set: those that are for mounts must be such that a mount understands them.
pub fn attributes(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, Option<String>>> {
    for (name, value) in &pairs {
        dfs::CachingAttributes::check(name, value)?;
    }
    Ok(pairs.into_iter().map(|(name, value)| (name, Some(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect()
    }

    fn pairs(line: &str, by_path: bool) -> Result<(usize, Vec<(String, String)>)> {
        let words = words(line);
        names_and_pairs(&words, by_path).map(|(names, pairs)| (names.len(), pairs))
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn names_and_what_is_set_are_told_apart() {
        let x = vec![pair("a", "1")];
        assert_eq!(pairs("pool cont a:1", false), Ok((2, x.clone())));
        assert_eq!(pairs("cont a:1", false), Ok((1, x.clone())));
        assert_eq!(pairs("cont a=1", false), Ok((1, x.clone())));
        assert_eq!(pairs("pool cont a 1", false), Ok((2, x.clone())));
        assert_eq!(pairs("cont a 1", false), Ok((1, x.clone())));
        assert_eq!(pairs("a:1", true), Ok((0, x.clone())));
        assert_eq!(pairs("a 1", true), Ok((0, x)));
        assert_eq!(pairs("c a:1,b:2", false), Ok((1, vec![pair("a", "1"), pair("b", "2")])));
        assert_eq!(pairs("p c url:http://x", false), Ok((2, vec![pair("url", "http://x")])));
        assert!(pairs("cont", false).is_err());
        assert!(pairs("cont a", false).is_err());
        assert!(pairs("p c a:1", true).is_err());
    }

    #[test]
    fn two_words_are_pool_and_container_unless_something_must_be_named() {
        let list = |line: &str, by_path, needed| {
            let words = words(line);
            names_and_list(&words, by_path, needed).map(|(names, list)| (names.len(), list))
        };
        assert_eq!(list("p c", false, false), Ok((2, vec![])));
        assert_eq!(list("c a,b", false, true), Ok((1, vec!["a".into(), "b".into()])));
        assert_eq!(list("p c a", false, false), Ok((2, vec!["a".into()])));
        assert_eq!(list("", true, false), Ok((0, vec![])));
        assert!(list("", true, true).is_err());
        assert!(list("c", false, true).is_err());
    }

    #[test]
    fn a_quota_is_bytes_and_inodes() {
        let props = |text: &str| Props::parse(parse(text)?);
        let limits = |bytes, inodes| Some(Limits { bytes, inodes });
        assert_eq!(props("quota:10G,100000").unwrap().quota, limits(10 << 30, 100_000));
        let both = props("label:new,quota:0,0").unwrap();
        assert_eq!(both, Props { label: Some("new".into()), quota: limits(0, 0) });
        for wrong in ["quota:10G", "quota:x,1", "quota:1,x", "quota:1,-1"] {
            assert!(props(wrong).unwrap_err().contains("quota:10G,100000"), "{wrong}");
        }
        assert!(props("rd_fac:1").unwrap_err().contains("rd_fac"));
    }
}
