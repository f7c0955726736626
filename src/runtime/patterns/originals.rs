//! The records that events were. What the stage is handed of an event is what a rule sees of it; a dead
//! letter is the record byte for byte, with key and headers: so it is read again from where it lies.

use std::collections::{BTreeMap, BTreeSet};

use super::batch::{Refused, Whole};
use crate::log::LogError;
use crate::log::kafka::places::{Place, PlaceReader};
use crate::log::kafka::sources::{SourcePartition, SourceRecord};

/// Who has the records of users' topics.
pub trait Originals: Send {
    /// Hands what still lies at these places to `take`.
    ///
    /// # Errors
    /// They cannot be read; some may have been handed over.
    fn read(
        &mut self,
        places: &BTreeSet<Place>,
        take: &mut dyn FnMut(SourceRecord),
    ) -> Result<(), LogError>;
}

impl Originals for PlaceReader {
    fn read(
        &mut self,
        places: &BTreeSet<Place>,
        take: &mut dyn FnMut(SourceRecord),
    ) -> Result<(), LogError> {
        PlaceReader::read(self, places, take)
    }
}

/// Puts the records in the place of the events that they were decoded to. One that is not to be had stays
/// what it is, and says why.
pub(super) fn complete<'r>(
    refused: impl Iterator<Item = &'r mut Refused>,
    originals: &mut dyn Originals,
) {
    let mut decoded: Vec<&mut Refused> = refused
        .filter(|refused| refused.whole == Whole::ToBeRead)
        .collect();
    if decoded.is_empty() {
        return;
    }
    let place = |refused: &Refused| -> Place {
        let origin = &refused.origin;
        let at = SourcePartition {
            topic: origin.topic.as_str().into(),
            partition: origin.partition,
        };
        (at, origin.offset)
    };
    let places = decoded.iter().map(|refused| place(refused)).collect();
    let mut found = BTreeMap::new();
    let read = originals.read(&places, &mut |record| {
        found.insert((record.from.clone(), record.offset), record);
    });
    let reason = read.map_or_else(
        |error| error.to_string(),
        |()| "the record does not lie in its topic any more".to_owned(),
    );
    for refused in &mut decoded {
        // One record may be refused by several rules.
        match found.get(&place(refused)) {
            Some(record) => {
                refused.origin = record.origin();
                refused.whole = Whole::Yes;
            }
            None => refused.whole = Whole::No(reason.clone()),
        }
    }
}
