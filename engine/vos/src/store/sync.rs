//! What *acknowledged* means: the one place where the sync modes differ.

use daos_media::How;

use super::Lsn;

/// When a change is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sync {
    /// When it is on stable media: it survives a power cut.
    Always,
    /// When its writes completed: it survives the death of the process, and a power cut within about a second, or
    /// at once when it is forced.
    #[default]
    Posix,
}

/// How far the transactions of a target have come; `newest >= complete >= stable >= persisted`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// Newest transaction.
    pub(super) newest: Lsn,
    /// It and every older one have their WAL blocks and data written.
    pub(super) complete: Lsn,
    /// They were written before a flush that is done.
    pub(super) stable: Lsn,
    /// A block or header on stable media says that they are stable.
    pub(super) persisted: Lsn,
    /// Somebody waits for this to be stable.
    pub(super) force: Lsn,
}

impl Marks {
    pub(super) fn all_at(lsn: Lsn) -> Self {
        Self { newest: lsn, complete: lsn, stable: lsn, persisted: lsn, force: lsn }
    }
}

impl Sync {
    /// The commit mark: what may be answered.
    pub(super) fn acknowledged(self, marks: &Marks) -> Lsn {
        match self {
            Self::Always => marks.stable,
            Self::Posix => marks.complete,
        }
    }

    /// Whether a flush should start now.
    pub(super) fn flush_due(self, marks: &Marks) -> bool {
        let forced = marks.force > marks.stable && marks.complete >= marks.force;
        match self {
            // One flush is under way at a time: what completes meanwhile shares the next one.
            Self::Always => marks.complete > marks.stable,
            Self::Posix => forced,
        }
    }

    /// The way of WAL and data. Buckets go past the page cache: the arena is their cache.
    pub(super) fn how(self) -> How {
        // In both modes through the page cache, so that a read of what was just written costs no device read and posix
        // mode's answer survives the process. `Always` adds the flush.
        How::Buffered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_differ_in_what_they_wait_for() {
        let mut marks = Marks::all_at(Lsn(1));
        marks.newest = Lsn(4);
        marks.complete = Lsn(3);
        assert_eq!(Sync::Posix.acknowledged(&marks), Lsn(3));
        assert_eq!(Sync::Always.acknowledged(&marks), Lsn(1));
        assert!(Sync::Always.flush_due(&marks) && !Sync::Posix.flush_due(&marks));
        marks.force = Lsn(4);
        assert!(!Sync::Posix.flush_due(&marks), "the flush would miss what is still being written");
        marks.complete = Lsn(4);
        assert!(Sync::Posix.flush_due(&marks));
    }
}
