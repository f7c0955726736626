//! Windows of several keys, moved on together.

use std::collections::BTreeMap;
use std::fmt::Debug;

use partita::pattern::aggregate::{Sample, Summary};
use partita::pattern::window::{Arrival, Fired, Hopping, HoppingSpec, SessionSpec, Sessions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stored;

/// The windows of one key.
pub trait OfOne: Serialize + DeserializeOwned + PartialEq + Debug {
    type Spec;
    fn none(spec: &Self::Spec) -> Self;
    fn is_empty(&self) -> bool;
    fn next_due(&self, spec: &Self::Spec) -> Option<i64>;
    fn fire_next(&mut self, spec: &Self::Spec, emit: &mut impl FnMut(Fired, &Summary));
    fn rest(&mut self, _: &Self::Spec) {}
    fn insert(
        &mut self,
        spec: &Self::Spec,
        at: i64,
        sample: Sample,
        watermark: i64,
        emit: &mut impl FnMut(Fired, &Summary),
    ) -> Arrival;
}

macro_rules! of_one {
    ($state:ty, $spec:ty, |$of:ident| $none:expr, { $($rest:item)* }) => {
        impl OfOne for $state {
            type Spec = $spec;
            fn none($of: &$spec) -> Self {
                $none
            }
            fn is_empty(&self) -> bool {
                self.is_empty()
            }
            fn next_due(&self, spec: &$spec) -> Option<i64> {
                self.next_due(spec)
            }
            fn fire_next(&mut self, spec: &$spec, emit: &mut impl FnMut(Fired, &Summary)) {
                self.fire_next(spec, emit);
            }
            fn insert(
                &mut self,
                spec: &$spec,
                at: i64,
                sample: Sample,
                watermark: i64,
                emit: &mut impl FnMut(Fired, &Summary),
            ) -> Arrival {
                self.insert(spec, at, sample, watermark, emit)
            }
            $($rest)*
        }
    };
}

of_one!(Hopping, HoppingSpec, |spec| Hopping::new(spec), {
    fn rest(&mut self, spec: &HoppingSpec) {
        self.rest(spec);
    }
});
of_one!(Sessions, SessionSpec, |_spec| Sessions::default(), {});

/// See the module. State is saved and read back after each event.
pub struct Many<W: OfOne> {
    spec: W::Spec,
    keys: BTreeMap<u8, W>,
    watermark: i64,
}

impl<W: OfOne> Many<W> {
    pub fn new(spec: W::Spec) -> Self {
        Self {
            spec,
            keys: BTreeMap::new(),
            watermark: i64::MIN,
        }
    }

    pub fn insert(
        &mut self,
        key: u8,
        at: i64,
        sample: Sample,
        emit: &mut impl FnMut(u8, Fired, &Summary) -> bool,
    ) -> Arrival {
        let state = self.keys.entry(key).or_insert_with(|| W::none(&self.spec));
        let mut emit = |fired: Fired, summary: &Summary| {
            emit(key, fired, summary);
        };
        state.insert(&self.spec, at, sample, self.watermark, &mut emit)
    }

    /// Saves the state of a key and puts it back.
    pub fn save(&mut self, key: u8) {
        let state = self.keys.get_mut(&key).expect("it is there");
        *state = stored(state);
    }

    /// Fires by ascending end all that is due; `emit` says whether a window was of use.
    pub fn advance(&mut self, watermark: i64, emit: &mut impl FnMut(u8, Fired, &Summary) -> bool) {
        let spec = &self.spec;
        let due = |(key, state): (&u8, &W)| state.next_due(spec).map(|due| (due, *key));
        while let Some((due, key)) = self.keys.iter().filter_map(due).min()
            && due <= watermark
        {
            let state = self.keys.get_mut(&key).expect("it is there");
            let mut is_of_use = true;
            state.fire_next(spec, &mut |fired, summary| {
                is_of_use = emit(key, fired, summary);
            });
            if !is_of_use {
                state.rest(spec);
            }
        }
        self.watermark = watermark;
    }

    pub fn is_empty(&self) -> bool {
        self.keys.values().all(W::is_empty)
    }
}
