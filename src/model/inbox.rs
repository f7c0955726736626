//! The signals of a run: those that no step has taken yet, and the ids of the last ones.

use std::collections::VecDeque;

use super::{Json, SignalId, SignalName, Timestamp};

/// Signals that a run was sent. Which step takes which is for `workflow` to say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inbox {
    /// Not taken yet, oldest first.
    pub waiting: Vec<WaitingSignal>,
    /// Of the last signals that had one, oldest first; at most [`Inbox::MAX_IDS`].
    pub ids: VecDeque<SignalId>,
    /// So many places have been in use at one time: one more than the highest.
    pub places: u32,
}

/// A signal that waits for its step.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingSignal {
    pub name: SignalName,
    /// Null where the signal had none.
    pub data: Json,
    pub id: Option<SignalId>,
    pub received_at: Timestamp,
    /// Names what is stored of it apart from the run. Stays the same while it waits.
    pub place: u32,
}

impl Inbox {
    /// Ids that are remembered.
    pub const MAX_IDS: usize = 100;

    /// Whether a signal of this id was received: it still waits or is among the last.
    pub fn knows(&self, id: &SignalId) -> bool {
        let waits = |signal: &WaitingSignal| signal.id.as_ref() == Some(id);
        self.ids.contains(id) || self.waiting.iter().any(waits)
    }

    pub fn remember(&mut self, id: SignalId) {
        if self.ids.len() >= Self::MAX_IDS {
            self.ids.pop_front();
        }
        self.ids.push_back(id);
    }

    /// Puts a signal behind the others, in the lowest place that is free.
    pub fn put(&mut self, mut signal: WaitingSignal) {
        let is_taken = |place: &u32| self.waiting.iter().any(|other| other.place == *place);
        signal.place = (0..).find(|place| !is_taken(place)).expect("few wait");
        self.places = self.places.max(signal.place + 1);
        self.waiting.push(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(id: Option<&str>) -> WaitingSignal {
        WaitingSignal {
            name: SignalName::parse("go").unwrap(),
            data: Json::null(),
            id: id.map(|id| SignalId::parse(id).unwrap()),
            received_at: Timestamp(1),
            place: 0,
        }
    }

    #[test]
    fn a_place_stays_while_its_signal_waits_and_is_given_again() {
        let mut inbox = Inbox::default();
        (0..3).for_each(|_| inbox.put(signal(None)));
        inbox.waiting.remove(1);
        let places = |inbox: &Inbox| inbox.waiting.iter().map(|it| it.place).collect::<Vec<_>>();
        assert_eq!(places(&inbox), [0, 2]);
        inbox.put(signal(None));
        assert_eq!((places(&inbox), inbox.places), (vec![0, 2, 1], 3));
    }

    #[test]
    fn the_last_ids_are_known_and_those_of_signals_that_wait() {
        let mut inbox = Inbox::default();
        inbox.put(signal(Some("first")));
        let id = |number: usize| SignalId::parse(&format!("id-{number}")).unwrap();
        (0..=Inbox::MAX_IDS).for_each(|number| inbox.remember(id(number)));
        assert!(!inbox.knows(&id(0)) && inbox.knows(&id(1)) && inbox.knows(&id(Inbox::MAX_IDS)));
        assert_eq!(inbox.ids.len(), Inbox::MAX_IDS);
        assert!(inbox.knows(&SignalId::parse("first").unwrap()));
    }
}
