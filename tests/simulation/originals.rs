//! The records of users' topics, as far as they still lie there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use partita::log::LogError;
use partita::log::kafka::places::Place;
use partita::log::kafka::sources::{SourcePartition, SourceRecord};
use partita::runtime::patterns::Originals;

#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<BTreeMap<Place, SourceRecord>>>);

impl Kept {
    pub fn add(&self, record: SourceRecord) {
        let place = (record.from.clone(), record.offset);
        self.0.lock().unwrap().insert(place, record);
    }

    /// What lay in the topic is deleted.
    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl Originals for Kept {
    fn read(
        &mut self,
        places: &BTreeSet<Place>,
        take: &mut dyn FnMut(SourceRecord),
    ) -> Result<(), LogError> {
        let kept = self.0.lock().unwrap();
        places
            .iter()
            .filter_map(|place| kept.get(place))
            .for_each(|record| take(record.clone()));
        Ok(())
    }
}

/// A record as its producer wrote it, of which rules see no more than the content: spaces, a key, headers.
pub fn as_written(topic: &str, offset: i64, content: &str) -> SourceRecord {
    SourceRecord {
        from: SourcePartition {
            topic: topic.into(),
            partition: 0,
        },
        offset,
        timestamp: None,
        key: Some(format!("key {offset}").into_bytes()),
        value: Some(format!("  {content} ").into_bytes()),
        headers: vec![("mine".to_owned(), vec![0xff, offset as u8])],
    }
}
