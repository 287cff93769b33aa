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
    /// The oldest and the newest that somebody waits for to be stable; the flush goes by the oldest, so that a stream of new
    /// wishes does not put it off.
    force_first: Lsn,
    force: Lsn,
}

impl Marks {
    pub(super) fn all_at(lsn: Lsn) -> Self {
        Self {
            newest: lsn,
            complete: lsn,
            stable: lsn,
            persisted: lsn,
            force_first: lsn,
            force: lsn,
        }
    }

    /// Somebody waits for `lsn` to be stable.
    pub(super) fn want(&mut self, lsn: Lsn) {
        if self.force <= self.stable {
            self.force_first = lsn;
        }
        self.force = self.force.max(lsn);
    }

    /// What somebody waits for.
    pub(super) fn wanted(&self) -> Lsn {
        self.force
    }

    /// A flush is done that began when `complete` was what it is here.
    pub(super) fn stabilized(&mut self, complete: Lsn) {
        self.stable = self.stable.max(complete);
        if self.force_first <= self.stable {
            self.force_first = self.force;
        }
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
        let forced = marks.force_first > marks.stable && marks.complete >= marks.force_first;
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
        marks.want(Lsn(4));
        assert!(!Sync::Posix.flush_due(&marks), "the flush would miss what is still being written");
        marks.complete = Lsn(4);
        assert!(Sync::Posix.flush_due(&marks));
    }

    #[test]
    fn wishes_that_keep_coming_do_not_put_a_flush_off() {
        let mut marks = Marks::all_at(Lsn(1));
        let mut flushes = 0;
        for lsn in 2..100 {
            marks.newest = Lsn(lsn);
            marks.want(Lsn(lsn));
            // Completion lags behind by two, always.
            marks.complete = Lsn((lsn - 2).max(1));
            if Sync::Posix.flush_due(&marks) {
                flushes += 1;
                marks.stabilized(marks.complete);
            }
        }
        assert!(flushes > 10, "{flushes} flushes");
        marks.complete = Lsn(99);
        assert!(Sync::Posix.flush_due(&marks));
        marks.stabilized(Lsn(99));
        assert!(!Sync::Posix.flush_due(&marks));
    }
}
