//! Every way to take the events of one key for the steps of a sequence.

use std::collections::BTreeMap;

use partita::model::Json;
use partita::pattern::predicate::History;
use partita::pattern::{Contiguity, Rule, Scalar, Sequence, Taken};

use super::arrival::Applied;
use super::moves::{self, Move, Place, To};
use super::selection::{self, Life, Moment};
use super::{Found, TooMany};

/// Partial matches that are tried of one key.
const MOST: usize = 1_500;

/// What a partial match took: the number of each event among those of the key, and the name.
pub(super) type Path = Vec<(usize, u16)>;

pub(super) fn run(
    rule: &Rule,
    sequence: &Sequence,
    key: &[Scalar],
    applied: &[Applied<'_>],
    end: i64,
) -> Result<(Vec<Found>, Vec<Found>), TooMany> {
    let stream = Stream {
        rule,
        sequence,
        key,
        applied,
        end,
    };
    let mut paths: BTreeMap<Path, Vec<Place>> = BTreeMap::new();
    let mut fresh: Vec<(Path, Vec<Place>)> = stream.children(&Path::new(), &[]);
    while let Some((path, places)) = fresh.pop() {
        fresh.extend(stream.children(&path, &places));
        paths.insert(path, places);
        if paths.len() > MOST {
            return Err(TooMany);
        }
    }
    let lives: Vec<Life> = paths
        .iter()
        .map(|(path, places)| stream.life(path, places))
        .collect();
    Ok(selection::select(rule, applied, lives))
}

struct Stream<'a> {
    rule: &'a Rule,
    sequence: &'a Sequence,
    key: &'a [Scalar],
    applied: &'a [Applied<'a>],
    end: i64,
}

/// What a path took, for conditions that look back.
struct Past<'a>(Vec<(u16, Taken)>, &'a Path);

impl History for Past<'_> {
    fn taken(&self, name: u16) -> Vec<&Taken> {
        let of_name = self.0.iter().filter(|(known, _)| *known == name);
        of_name.map(|(_, taken)| taken).collect()
    }
}

impl<'a> Stream<'a> {
    fn at(&self, number: usize) -> i64 {
        self.applied[number].input.at.0
    }

    fn past<'b>(&self, path: &'b Path) -> Past<'b> {
        let taken = path.iter().map(|(number, name)| {
            let input = self.applied[*number].input;
            let taken = Taken {
                at: input.at,
                order: *number as u64,
                position: input.position,
                slots: Some(input.slots.clone().into()),
                payload: Json::clone(&input.payload),
            };
            (*name, taken)
        });
        Past(taken.collect(), path)
    }

    fn meets(&self, number: usize, place: u16, past: &Past<'_>) -> bool {
        let predicate = &self.rule.predicates[usize::from(place)];
        let event = self.applied[number].input.event();
        predicate.topic == event.topic
            && self.applied[number].missed >> place & 1 == 0
            && predicate.holds(self.rule, &event, self.key, past) == Some(true)
    }

    fn moves(&self, places: &[Place]) -> Vec<Move<'a>> {
        let after = |place: &Place| moves::after(self.sequence, place);
        places.iter().flat_map(after).collect()
    }

    /// Every way to take one event more.
    fn children(&self, path: &Path, places: &[Place]) -> Vec<(Path, Vec<Place>)> {
        let past = self.past(path);
        let moves = match path.is_empty() {
            true => moves::first(self.sequence),
            false => self.moves(places),
        };
        let mut found: BTreeMap<(usize, u16), Vec<Place>> = BTreeMap::new();
        let next = path.last().map_or(0, |(number, _)| number + 1);
        for number in next..self.applied.len() {
            for one in &moves {
                if let To::Event { place, step, .. } = &one.to
                    && self.can_take(one, number, &past)
                {
                    let places = found.entry((number, step.name)).or_default();
                    if !places.contains(place) {
                        places.push(place.clone());
                    }
                }
            }
        }
        let longer = |(last, places): ((usize, u16), Vec<Place>)| {
            let mut path = path.clone();
            path.push(last);
            (path, places)
        };
        found.into_iter().map(longer).collect()
    }

    /// Whether `one` may take the event `number` after what `past` took.
    fn can_take(&self, one: &Move<'_>, number: usize, past: &Past<'_>) -> bool {
        let To::Event {
            step,
            predicate,
            contiguity,
            is_first_round,
            ..
        } = &one.to
        else {
            return false;
        };
        let Some((last, _)) = past.1.last() else {
            // A beginning: nothing lies before it.
            let meets = |predicate: &u16| self.meets(number, *predicate, past);
            return meets(predicate)
                && !one.needs_next
                && !one.absent.iter().any(meets)
                && !step.until.iter().any(meets)
                && !(one.before.iter()).any(|greedy| self.can_take(greedy, number, past));
        };
        let (first, _) = past.1[0];
        let within = self.sequence.within.map(|within| within.0 as i64);
        let is_in_time = within.is_none_or(|within| self.at(number) < self.at(first) + within)
            && (step.within_gap).is_none_or(|gap| self.at(number) < self.at(*last) + gap.0 as i64);
        let between = *last + 1..number;
        let follows = match contiguity {
            Contiguity::Strict => number == last + 1,
            Contiguity::Relaxed => !between.clone().any(|k| self.meets(k, *predicate, past)),
            Contiguity::Any => true,
        };
        let is_ended = match (step.until, is_first_round) {
            (None, _) => false,
            (Some(until), true) => self.meets(number, until, past),
            (Some(until), false) => (*last + 1..=number).any(|k| self.meets(k, until, past)),
        };
        is_in_time
            && follows
            && !is_ended
            && self.meets(number, *predicate, past)
            && self.is_clear(one, *last, number, past)
    }

    /// Whether nothing of what must not happen between `last` and `number` (and with it) did.
    fn is_clear(&self, one: &Move<'_>, last: usize, number: usize, past: &Past<'_>) -> bool {
        let next = last + 1;
        let meets = |k: usize, predicates: &[u16]| {
            let meets = |predicate: &u16| self.meets(k, *predicate, past);
            predicates.iter().any(meets)
        };
        let is_greedily_taken =
            |k: usize| (one.before.iter()).any(|greedy| self.can_take(greedy, k, past));
        let is_broken = |k: usize| {
            meets(k, &one.absent) || (k == next && meets(k, &one.not_next)) || is_greedily_taken(k)
        };
        !(next..=number).any(is_broken)
    }

    /// Whether `one` may still be made after the event `number` went by.
    fn is_open(&self, one: &Move<'_>, number: usize, past: &Past<'_>) -> bool {
        let (last, _) = *past.1.last().expect("a path has events");
        if !self.is_clear(one, last, number, past) || self.is_over(one, number, past) {
            return false;
        }
        let mut span = last + 1..=number;
        match &one.to {
            To::Event {
                step,
                predicate,
                contiguity,
                is_first_round,
                ..
            } => {
                let is_past = match contiguity {
                    Contiguity::Strict => number > last,
                    Contiguity::Relaxed => span.clone().any(|k| self.meets(k, *predicate, past)),
                    Contiguity::Any => false,
                };
                let until = step.until.filter(|_| !is_first_round);
                let is_ended = until.is_some_and(|until| span.any(|k| self.meets(k, until, past)));
                !is_past && !is_ended
            }
            To::End { .. } if one.absent.is_empty() => number == last && one.waits(),
            To::End { .. } => true,
        }
    }

    /// Whether the time of `one` was over when the event `number` came, which had to come first.
    fn is_over(&self, one: &Move<'_>, number: usize, past: &Past<'_>) -> bool {
        let end = self.ends(one, number, past);
        end.is_some_and(|end| end <= self.at(number))
    }

    /// When `one` can no longer be made, where `number` was the last event.
    fn ends(&self, one: &Move<'_>, number: usize, past: &Past<'_>) -> Option<i64> {
        let ((first, _), (last, _)) = (past.1[0], *past.1.last().expect("it has events"));
        let within = self
            .sequence
            .within
            .map(|within| self.at(first) + within.0 as i64);
        if one.needs_next && number == last {
            return within;
        }
        let gap = match &one.to {
            To::Event { step, .. } => step.within_gap.map(|gap| gap.0 as i64),
            To::End { gap } => *gap,
        };
        let gap = gap.map(|gap| self.at(last) + gap);
        match (within, gap) {
            (Some(within), Some(gap)) => Some(within.min(gap)),
            (one, other) => one.or(other),
        }
    }

    /// From when to when a path waits for more, and when it is a match.
    fn life(&self, path: &Path, places: &[Place]) -> Life {
        let past = self.past(path);
        let moves = self.moves(places);
        let (last, _) = *path.last().expect("a path has events");
        let mut life = Life {
            path: path.clone(),
            begins: Moment::event(last),
            ends: None,
            matches: Vec::new(),
            times_out: None,
        };
        let is_now = |one: &Move<'_>| matches!(one.to, To::End { .. }) && !one.waits();
        if moves.iter().any(is_now) {
            life.matches.push((Moment::event(last), self.at(last)));
        }
        let mut open: Vec<&Move<'_>> = moves.iter().filter(|one| one.waits()).collect();
        if open.is_empty() {
            life.ends = Some(life.begins);
            return life;
        }
        for number in last..self.applied.len() {
            if number > last {
                let at = self.at(number);
                let completes = open.iter().any(|one| {
                    matches!(one.to, To::End { .. })
                        && (one.absent.is_empty() || self.is_over(one, number, &past))
                        && self.is_clear(one, last, number, &past)
                });
                if completes {
                    life.matches.push((Moment::event(number), at));
                }
                open.retain(|one| self.is_open(one, number, &past));
                if open.is_empty() {
                    life.ends = Some(Moment::event(number));
                    return life;
                }
            }
            // What runs out before the next event, or by the end of all.
            let next = number + 1;
            let until = match self.applied.get(next) {
                Some(next) => next.input.at.0,
                None => self.end,
            };
            while let Some(end) = open
                .iter()
                .filter_map(|one| self.ends(one, number, &past))
                .min()
            {
                if end > until {
                    break;
                }
                let moment = Moment::time(next, end);
                let completes = open.iter().any(|one| {
                    self.ends(one, number, &past) == Some(end)
                        && matches!(one.to, To::End { .. })
                        && !(one.needs_next && number == last)
                });
                if completes {
                    life.matches.push((moment, end));
                }
                open.retain(|one| self.ends(one, number, &past) != Some(end));
                if open.is_empty() {
                    life.ends = Some(moment);
                    life.times_out = (!completes).then_some((moment, end));
                    return life;
                }
            }
        }
        life
    }
}

impl Move<'_> {
    /// Whether anything is left to wait for.
    fn waits(&self) -> bool {
        match self.to {
            To::Event { .. } => true,
            To::End { .. } => self.needs_next || !self.absent.is_empty() || !self.before.is_empty(),
        }
    }
}
