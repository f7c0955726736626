//! Which runs of a partition have a tag, for orders that name tags in place of a run. Kept for runs
//! that have not ended, as runs come and end: a run without tags costs nothing, and no order has to
//! look at runs that it is not for.
//!
//! A tag is kept as a hash, some forty bytes for each tag of a run. Two tags of one hash make a
//! candidate that is none, so whoever asks looks at the runs themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;

use rustc_hash::FxHasher;

use crate::codec::state;
use crate::model::RunId;

#[derive(Default)]
pub(super) struct TagIndex(BTreeSet<(u64, RunId)>);

impl TagIndex {
    /// An entry that cannot be read has no tags here; whoever decodes it will say so.
    pub fn insert(&mut self, id: &RunId, entry: &[u8]) {
        for hash in hashes_of(entry) {
            self.0.insert((hash, id.clone()));
        }
    }

    /// The tags of a run never change: those of its last entry are those that it came with.
    pub fn remove(&mut self, id: &RunId, entry: &[u8]) {
        for hash in hashes_of(entry) {
            self.0.remove(&(hash, id.clone()));
        }
    }

    /// The first `limit` runs after `after` that have every tag, by id. Of several tags the rarest
    /// bounds the work: each in turn leaps to the first run that is not before the others'
    /// ("leapfrog join", Veldhuizen 2014).
    pub fn find(
        &self,
        tags: &BTreeMap<String, String>,
        after: Option<&RunId>,
        limit: usize,
    ) -> Vec<RunId> {
        let hashes: Vec<u64> = tags.iter().map(|(key, value)| hash(key, value)).collect();
        let mut found = Vec::new();
        let Some((&first, others)) = hashes.split_first() else {
            return found;
        };
        let following = |id: &RunId| {
            let after = (Bound::Excluded((first, id.clone())), Bound::Unbounded);
            self.0.range(after).next()
        };
        let mut candidate = match after {
            Some(id) => following(id),
            None => self.0.range(lowest(first)..).next(),
        };
        while let Some((of_hash, id)) = candidate {
            if *of_hash != first || found.len() >= limit {
                break;
            }
            candidate = match self.leap(others, id) {
                Leap::Agreed => {
                    found.push(id.clone());
                    following(id)
                }
                Leap::To(later) => self.0.range((first, later.clone())..).next(),
                Leap::Over => break,
            };
        }
        found
    }

    fn leap<'a>(&'a self, hashes: &[u64], id: &RunId) -> Leap<'a> {
        for &hash in hashes {
            match self.0.range((hash, id.clone())..).next() {
                Some((of_hash, later)) if *of_hash == hash && later == id => {}
                Some((of_hash, later)) if *of_hash == hash => return Leap::To(later),
                _ => return Leap::Over,
            }
        }
        Leap::Agreed
    }
}

enum Leap<'a> {
    /// The run has the tags.
    Agreed,
    /// No run before this one has them.
    To(&'a RunId),
    /// Nor has any after it.
    Over,
}

/// Not after any run of this tag: no id comes before it.
fn lowest(hash: u64) -> (u64, RunId) {
    (hash, RunId::parse("-").expect("a proper id"))
}

fn hashes_of(entry: &[u8]) -> Vec<u64> {
    let mut hashes = Vec::new();
    match state::each_tag(entry, |key, value| hashes.push(hash(key, value))) {
        Ok(()) => hashes,
        Err(_) => Vec::new(),
    }
}

fn hash(key: &str, value: &str) -> u64 {
    let mut hasher = FxHasher::default();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Inbox, Json, RunState, RunStatus, Timestamp};

    fn entry(id: &str, tags: &[(&str, &str)]) -> (RunId, Vec<u8>) {
        let id = RunId::parse(id).unwrap();
        let run = RunState {
            id: id.clone(),
            workflow: "w".into(),
            version: 1,
            status: RunStatus::Running,
            requested_version: Some(1),
            input: Json::from_serialize(&"some input").unwrap(),
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            priority: 0,
            created_at: Timestamp(1_795_219_200_000),
            started_at: None,
            ended_at: None,
            deadline: None,
            output: None,
            error: None,
            revision: 1,
            epoch: 0,
            sequence: 0,
            traceparent: None,
            steps: Vec::new(),
            inbox: Inbox::default(),
            watches: Vec::new(),
            provenance: None,
            depth: 0,
        };
        let mut bytes = Vec::new();
        state::encode(&run, &mut bytes, &mut Vec::new());
        (id, bytes)
    }

    fn found(index: &TagIndex, tags: &[(&str, &str)]) -> Vec<String> {
        some(index, tags, None, usize::MAX)
    }

    fn some(
        index: &TagIndex,
        tags: &[(&str, &str)],
        after: Option<&str>,
        limit: usize,
    ) -> Vec<String> {
        let tags = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let after = after.map(|id| RunId::parse(id).unwrap());
        index
            .find(&tags, after.as_ref(), limit)
            .iter()
            .map(|id| id.as_str().to_owned())
            .collect()
    }

    #[test]
    fn runs_with_all_tags_are_found_by_id_until_they_are_removed() {
        let mut index = TagIndex::default();
        let runs = [
            entry("c", &[("team", "red"), ("city", "rome")]),
            entry("a", &[("team", "red"), ("city", "rome"), ("x", "y")]),
            entry("b", &[("team", "red")]),
            entry("-", &[("city", "rome")]),
            entry("~", &[("team", "red"), ("city", "rome")]),
            entry("d", &[]),
        ];
        for (id, entry) in &runs {
            index.insert(id, entry);
        }
        assert_eq!(found(&index, &[("team", "red")]), ["a", "b", "c", "~"]);
        assert_eq!(found(&index, &[("city", "rome")]), ["-", "a", "c", "~"]);
        assert_eq!(
            found(&index, &[("city", "rome"), ("team", "red")]),
            ["a", "c", "~"]
        );
        assert_eq!(found(&index, &[("city", "red")]), [""; 0]);
        assert_eq!(found(&index, &[("te", "amred")]), [""; 0]);
        let red = [("team", "red")];
        assert_eq!(some(&index, &red, None, 2), ["a", "b"]);
        assert_eq!(some(&index, &red, Some("b"), 2), ["c", "~"]);
        assert_eq!(some(&index, &red, Some("bb"), 1), ["c"]);
        assert_eq!(some(&index, &red, Some("~"), 2), [""; 0]);
        index.remove(&runs[1].0, &runs[1].1);
        assert_eq!(
            found(&index, &[("city", "rome"), ("team", "red")]),
            ["c", "~"]
        );
        for (id, entry) in &runs {
            index.remove(id, entry);
        }
        assert!(index.0.is_empty());
    }

    /// Asserts no time: `cargo test --lib tags -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures and asserts no figure"]
    fn a_hundred_thousand_runs_are_no_burden() {
        let runs: Vec<_> = (0..100_000)
            .map(|number| {
                let order = format!("o-{number}");
                let shard = (number % 1_000).to_string();
                entry(
                    &format!("run-{number}"),
                    &[("team", "red"), ("order", &order), ("shard", &shard)],
                )
            })
            .collect();
        let began = std::time::Instant::now();
        let mut index = TagIndex::default();
        for (id, entry) in &runs {
            index.insert(id, entry);
        }
        println!("insert, three tags: {:?} a run", began.elapsed() / 100_000);
        for tags in [
            &[("order", "o-77")][..],
            &[("team", "red"), ("order", "o-77")],
            &[("shard", "77")],
            &[("team", "red"), ("shard", "77")],
            &[("team", "red")],
        ] {
            let began = std::time::Instant::now();
            let count = found(&index, tags).len();
            println!("{tags:?}: {count} of 100,000 in {:?}", began.elapsed());
        }
        let began = std::time::Instant::now();
        let mut count = 0;
        for (_, entry) in &runs {
            state::each_tag(entry, |key, value| {
                count += usize::from((key, value) == ("shard", "77"))
            })
            .unwrap();
        }
        println!(
            "a scan of all entries instead: {count} in {:?}",
            began.elapsed()
        );
    }
}
