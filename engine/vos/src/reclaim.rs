//! What was detached and waits to be taken apart: trees, flat runs and whole containers, given back in bounded steps by
//! background transactions.
//!
//! # Invariants
//! 1. A detached structure is reached from this list and from nowhere else; its buckets stay allocated until its step frees them.
//! 2. A step takes pairs of one leaf at most. The caller frees what their values refer to (blocks) in the same transaction.
//!
//! # On disk
//! FORMAT.md, "Reclaim list".

use daos_types::ContainerId;

use crate::btree::Tree;
use crate::flat;
use crate::kv::{Kv, Pair, Seek};
use crate::object::ObjectTable;
use crate::pages::{Abort, BucketId, Pages, PagesMut};

const TREES: u8 = 0;
const RUN: u8 = 1;
const CONTAINER: u8 = 2;
/// First byte of the keys of trees and runs, and of the keys of containers.
const NUMBERED: u8 = 0;
const BY_CONTAINER: u8 = 1;
/// Roots in one entry.
const ROOTS_MAX: usize = 900;

/// Whose pairs they are: it says how to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Contents {
    Object = 0,
    History = 1,
}

impl Contents {
    fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Object),
            1 => Some(Self::History),
            _ => None,
        }
    }
}

/// Pairs that are gone from the store; what they refer to is the caller's to free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaimed {
    pub contents: Contents,
    pub pairs: Vec<Pair>,
}

/// An entry of the list, read.
pub(crate) struct Entry<'e> {
    pub contents: Contents,
    pub body: EntryBody<'e>,
}

pub(crate) enum EntryBody<'e> {
    Trees(&'e [u8]),
    Run(&'e [u8]),
    Container(ContainerId),
}

impl<'e> Entry<'e> {
    /// `None`: the bytes are no entry.
    pub fn parse(bytes: &'e [u8]) -> Option<Self> {
        let &[form, contents, ref body @ ..] = bytes else { return None };
        let body = match form {
            TREES if body.len() % 4 == 0 && !body.is_empty() => EntryBody::Trees(body),
            RUN => EntryBody::Run(body),
            CONTAINER => {
                EntryBody::Container(ContainerId(u16::from_be_bytes(body.try_into().ok()?)))
            }
            _ => return None,
        };
        Some(Self { contents: Contents::from_u8(contents)?, body })
    }
}

/// Roots in a [`EntryBody::Trees`].
pub(crate) fn roots(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Tree> {
    bytes
        .chunks_exact(4)
        .map(|root| Tree { root: BucketId(u32::from_le_bytes(root.try_into().expect("4 bytes"))) })
}

fn container_key(container: ContainerId) -> [u8; 3] {
    let [high, low] = container.0.to_be_bytes();
    [BY_CONTAINER, high, low]
}

/// The list: a tree of entries by number.
#[derive(Clone, Copy, Debug)]
pub struct Reclaim {
    pub tree: Tree,
}

impl Reclaim {
    /// Detached trees, to be emptied and freed.
    pub fn add_trees<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        contents: Contents,
        trees: &[Tree],
    ) -> Result<(), Abort> {
        for some in trees.chunks(ROOTS_MAX) {
            let roots: Vec<u8> = some.iter().flat_map(|tree| tree.root.0.to_le_bytes()).collect();
            self.add(pages, TREES, contents, &roots)?;
        }
        Ok(())
    }

    /// Pairs of a flat object.
    pub(crate) fn add_run<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        contents: Contents,
        run: &[u8],
    ) -> Result<(), Abort> {
        self.add(pages, RUN, contents, run)
    }

    /// Every object of a container, whose number nobody uses until this is done.
    pub fn add_container<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        container: ContainerId,
    ) -> Result<(), Abort> {
        let number = container.0.to_be_bytes();
        let entry = [&[CONTAINER, Contents::Object as u8], &number[..]].concat();
        self.tree.put(pages, &container_key(container), &entry)
    }

    /// True while the number must not be used again.
    pub fn holds_container<P: Pages + ?Sized>(
        self,
        pages: &P,
        container: ContainerId,
    ) -> Result<bool, Abort> {
        Ok(self.tree.value(pages, &container_key(container))?.is_some())
    }

    fn add<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        form: u8,
        contents: Contents,
        body: &[u8],
    ) -> Result<(), Abort> {
        let last = self.tree.view(pages).seek(&[BY_CONTAINER], Seek::Lt)?;
        let number = last.map_or(0, |(key, _)| {
            u64::from_be_bytes(key[1..].try_into().expect("entries have 8-byte numbers")) + 1
        });
        let key = [&[NUMBERED], &number.to_be_bytes()[..]].concat();
        self.tree.put(pages, &key, &[&[form, contents as u8], body].concat())
    }

    /// Takes up to `pairs_max` pairs of what was detached first and frees the buckets they were in. `None`: the list
    /// is empty. No pairs, but `Some`: something was finished.
    pub fn step<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        table: ObjectTable,
        pairs_max: usize,
    ) -> Result<Option<Reclaimed>, Abort> {
        let Some((key, value)) = self.tree.view(pages).seek(b"", Seek::Ge)? else {
            return Ok(None);
        };
        let entry = Entry::parse(&value).expect("the reclaim list holds entries");
        let (pairs, done) = match entry.body {
            EntryBody::Trees(bytes) => {
                self.step_trees(pages, &key, value.len(), bytes, pairs_max)?
            }
            EntryBody::Run(run) => self.step_run(pages, &key, value.len(), run, pairs_max)?,
            EntryBody::Container(container) => match table.first(pages, container)? {
                Some(object) => (object.take_apart(pages, pairs_max)?.0, false),
                None => (Vec::new(), true),
            },
        };
        if done {
            self.tree.remove(pages, &key)?;
        }
        Ok(Some(Reclaimed { contents: entry.contents, pairs }))
    }

    fn step_trees<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        key: &[u8],
        entry_len: usize,
        bytes: &[u8],
        pairs_max: usize,
    ) -> Result<(Vec<Pair>, bool), Abort> {
        let tree = roots(bytes).next_back().expect("an entry has roots");
        let pairs = tree.pop_last(pages, pairs_max)?;
        if tree.is_empty(pages)? {
            pages.free(tree.root)?;
            if bytes.len() == 4 {
                return Ok((pairs, true));
            }
            self.tree.splice(pages, key, entry_len - 4, 4, b"")?;
        }
        Ok((pairs, false))
    }

    fn step_run<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        key: &[u8],
        entry_len: usize,
        run: &[u8],
        pairs_max: usize,
    ) -> Result<(Vec<Pair>, bool), Abort> {
        let Some((splice, pairs)) = flat::remove_range(run, b"", None, pairs_max) else {
            return Ok((Vec::new(), true));
        };
        if splice.removed == run.len() {
            return Ok((pairs, true));
        }
        let at = entry_len - run.len() + splice.at;
        self.tree.splice(pages, key, at, splice.removed, &splice.inserted)?;
        Ok((pairs, false))
    }
}
