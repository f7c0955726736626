//! Offsets without a record, met while reading: mostly what transactions leave behind, or compaction; but
//! where retention was faster than a partition that waited, they are events that nobody will see.

/// The widest run of offsets that was skipped since anybody looked into it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gap(Option<(i64, i64)>);

impl Gap {
    /// The next record to read was to have offset `expected`, and the one that came has `found`. The end of
    /// a transaction takes one offset: that alone is no gap.
    pub(super) fn note(&mut self, expected: i64, found: i64) {
        let width = |(from, to): (i64, i64)| to - from;
        let new = (expected, found);
        if width(new) > 1 && self.0.is_none_or(|known| width(known) < width(new)) {
            self.0 = Some(new);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// How many of its offsets the cluster has deleted, whose first record is `first` now.
    pub(super) fn explain(&mut self, first: i64) -> u64 {
        let deleted = self.0.take().map_or(0, |(from, to)| first.min(to) - from);
        u64::try_from(deleted).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_before_the_first_record_was_deleted() {
        let mut gap = Gap::default();
        gap.note(5, 5);
        gap.note(6, 7);
        assert!(!gap.is_open(), "the end of a transaction");
        gap.note(8, 20);
        gap.note(21, 24);
        assert!(gap.is_open());
        assert_eq!(gap.explain(3), 0, "compacted, or aborted");
        assert!(!gap.is_open());
        for (first, deleted) in [(8, 0), (15, 7), (20, 12), (30, 12)] {
            gap.note(8, 20);
            assert_eq!(gap.explain(first), deleted);
        }
    }
}
