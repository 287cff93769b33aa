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
use crate::pages::{Abort, BucketId, PagesMut};

const TREES: u8 = 0;
const RUN: u8 = 1;
const CONTAINER: u8 = 2;
/// Longest note of an entry.
pub const NOTE_MAX: usize = 32;
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
    /// The key of the object whose range this was, which may be there still and counts these pairs in its header; empty:
    /// the object or history is gone as a whole.
    pub note: Vec<u8>,
    pub pairs: Vec<Pair>,
}

/// An entry of the list, read.
pub(crate) struct Entry<'e> {
    pub contents: Contents,
    note: &'e [u8],
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
        let &[form, contents, note_len, ref rest @ ..] = bytes else { return None };
        let (note, body) = rest.split_at_checked(note_len.into())?;
        let body = match form {
            TREES if body.len() % 4 == 0 && !body.is_empty() => EntryBody::Trees(body),
            RUN => EntryBody::Run(body),
            CONTAINER => {
                EntryBody::Container(ContainerId(u16::from_be_bytes(body.try_into().ok()?)))
            }
            _ => return None,
        };
        Some(Self { contents: Contents::from_u8(contents)?, note, body })
    }
}

/// Roots in a [`EntryBody::Trees`].
pub(crate) fn roots(bytes: &[u8]) -> impl DoubleEndedIterator<Item = Tree> {
    bytes
        .chunks_exact(4)
        .map(|root| Tree { root: BucketId(u32::from_le_bytes(root.try_into().expect("4 bytes"))) })
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
        note: &[u8],
        trees: &[Tree],
    ) -> Result<(), Abort> {
        for some in trees.chunks(ROOTS_MAX) {
            let roots: Vec<u8> = some.iter().flat_map(|tree| tree.root.0.to_le_bytes()).collect();
            self.add(pages, TREES, contents, note, &roots)?;
        }
        Ok(())
    }

    /// Pairs of a flat object.
    pub(crate) fn add_run<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        contents: Contents,
        note: &[u8],
        run: &[u8],
    ) -> Result<(), Abort> {
        self.add(pages, RUN, contents, note, run)
    }

    /// Every object of a container, whose number nobody uses until this is done.
    pub fn add_container<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        container: ContainerId,
    ) -> Result<(), Abort> {
        self.add(pages, CONTAINER, Contents::Object, b"", &container.0.to_be_bytes())
    }

    /// True while the number must not be used again.
    pub fn holds_container<P: PagesMut + ?Sized>(
        self,
        pages: &P,
        container: ContainerId,
    ) -> Result<bool, Abort> {
        let mut held = false;
        self.tree.view(pages).scan(b"", &mut |_, value| {
            let body = Entry::parse(value).map(|entry| entry.body);
            held = matches!(body, Some(EntryBody::Container(id)) if id == container);
            if held {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })?;
        Ok(held)
    }

    fn add<P: PagesMut + ?Sized>(
        self,
        pages: &mut P,
        form: u8,
        contents: Contents,
        note: &[u8],
        body: &[u8],
    ) -> Result<(), Abort> {
        assert!(note.len() <= NOTE_MAX, "a note is short");
        let last = self.tree.view(pages).seek(&[0xff; 9], Seek::Lt)?;
        let number = last.map_or(0, |(key, _)| {
            u64::from_be_bytes(key.try_into().expect("entries have 8-byte keys")) + 1
        });
        let entry = [&[form, contents as u8, note.len() as u8], note, body].concat();
        self.tree.put(pages, &number.to_be_bytes(), &entry)
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
        Ok(Some(Reclaimed { contents: entry.contents, note: entry.note.to_vec(), pairs }))
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
