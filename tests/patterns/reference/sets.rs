//! `any`, `all` and `count`: what each event makes of those that were there before it.

use partita::pattern::{Condition, Rule, Shape, Skip};

use super::arrival::Applied;
use super::{Found, Out};

/// An event that may be in a match, and the place of each condition it meets.
struct Kept<'a> {
    applied: Applied<'a>,
    number: usize,
    meets: Vec<usize>,
}

impl Kept<'_> {
    fn at(&self) -> i64 {
        self.applied.input.at.0
    }

    fn rank(&self) -> (i64, usize) {
        (self.at(), self.number)
    }
}

pub(super) fn run(rule: &Rule, applied: &[Applied<'_>], end: i64) -> (Vec<Found>, Vec<Found>) {
    let one;
    let (conditions, within, count): (&[Condition], i64, usize) = match &rule.shape {
        Shape::Any { conditions } => (conditions, 0, 0),
        Shape::All { within, conditions } => (conditions, within.0 as i64, 0),
        Shape::Count {
            within,
            at_least,
            condition,
        } => {
            one = [*condition];
            (&one, within.0 as i64, *at_least as usize)
        }
        Shape::Sequence(_) => unreachable!("sequences have a module of their own"),
        Shape::Window(_) => unreachable!("windows have a module of their own"),
    };
    let is_any = matches!(rule.shape, Shape::Any { .. });
    let mut sets = Sets {
        rule,
        conditions,
        within,
        count,
        kept: Vec::new(),
        matches: Vec::new(),
        timed_out: Vec::new(),
    };
    for (number, applied) in applied.iter().enumerate() {
        let meets = sets.meets(applied);
        if is_any {
            let position = applied.input.position;
            for place in meets {
                let events = vec![(conditions[place].name, position)];
                sets.found(applied, applied.input.at.0, events);
            }
            continue;
        }
        sets.let_go(applied.now);
        if !meets.is_empty() {
            let applied = *applied;
            sets.kept.push(Kept {
                applied,
                number,
                meets,
            });
            sets.kept.sort_by_key(Kept::rank);
            if count > 0 {
                sets.count(number, &applied);
            } else {
                sets.all(number, &applied);
            }
        }
    }
    sets.let_go(end);
    (sets.matches, sets.timed_out)
}

struct Sets<'a> {
    rule: &'a Rule,
    conditions: &'a [Condition],
    within: i64,
    count: usize,
    /// By time.
    kept: Vec<Kept<'a>>,
    matches: Vec<Found>,
    timed_out: Vec<Found>,
}

impl Sets<'_> {
    fn meets(&self, applied: &Applied<'_>) -> Vec<usize> {
        let key: Vec<_> = (self.rule.correlate.iter())
            .map(|(_, slot)| applied.input.slots[usize::from(*slot)].clone())
            .collect();
        let holds = |place: &usize| {
            let condition = &self.conditions[*place];
            applied.meets(self.rule, &key, condition.predicate)
        };
        (0..self.conditions.len()).filter(holds).collect()
    }

    fn found(&mut self, applied: &Applied<'_>, at: i64, events: Vec<(u16, u64)>) {
        let out = applied.out();
        self.matches.push(Found { out, at, events });
    }

    /// What begins at the event in `place` and was there without the event of number `but`: of
    /// each condition the first, or all that count.
    fn taken(&self, place: usize, but: Option<usize>) -> Vec<(u16, &Kept<'_>)> {
        let end = self.kept[place].at() + self.within;
        let rest = || {
            let rest = self.kept[place..].iter();
            rest.filter(|kept| kept.at() < end && Some(kept.number) != but)
        };
        if self.count > 0 {
            let name = self.conditions[0].name;
            return rest().map(|kept| (name, kept)).collect();
        }
        let first = |(place, condition): (usize, &Condition)| {
            let kept = rest().find(|kept| kept.meets.contains(&place))?;
            Some((condition.name, kept))
        };
        self.conditions
            .iter()
            .enumerate()
            .filter_map(first)
            .collect()
    }

    fn shown(taken: &[(u16, &Kept<'_>)]) -> Vec<(u16, u64)> {
        let position = |(name, kept): &(u16, &Kept<'_>)| (*name, kept.applied.input.position);
        taken.iter().map(position).collect()
    }

    /// A match for each event that begins one which the new event makes whole.
    fn all(&mut self, number: usize, applied: &Applied<'_>) {
        let whole = self.conditions.len();
        let mut from = (i64::MIN, 0);
        for place in 0..self.kept.len() {
            let is_whole = |but: Option<usize>| self.taken(place, but).len() == whole;
            if self.kept[place].rank() < from {
                continue;
            }
            // An event that is new itself begins something new.
            let was_whole = self.kept[place].number != number && is_whole(Some(number));
            if !is_whole(None) || was_whole {
                continue;
            }
            let taken = self.taken(place, None);
            let last = taken.iter().map(|(_, kept)| kept.rank()).max();
            let last = last.expect("it is whole");
            let of = |name: u16| {
                let found = taken.iter().find(|taken| taken.0 == name);
                found.map_or(from, |(_, kept)| kept.rank())
            };
            from = match self.rule.emit.after_match {
                Skip::None | Skip::ToNext => from,
                Skip::PastLast => (last.0, last.1 + 1),
                Skip::ToFirst(name) | Skip::ToLast(name) => of(name),
            };
            let events = Self::shown(&taken);
            self.found(applied, last.0, events);
        }
        self.kept.retain(|kept| kept.rank() >= from);
    }

    /// A match for each run of so many in a row that holds the new event.
    fn count(&mut self, number: usize, applied: &Applied<'_>) {
        let mut from = (i64::MIN, 0);
        for place in 0..self.kept.len() {
            let taken = self.taken(place, None);
            if self.kept[place].rank() < from || taken.len() < self.count {
                continue;
            }
            let taken = &taken[..self.count];
            if !taken.iter().any(|(_, kept)| kept.number == number) {
                continue;
            }
            let last = taken[self.count - 1].1.rank();
            from = match self.rule.emit.after_match {
                Skip::PastLast => (last.0, last.1 + 1),
                Skip::ToLast(_) => last,
                _ => from,
            };
            let events = Self::shown(taken);
            self.found(applied, last.0, events);
        }
        self.kept.retain(|kept| kept.rank() >= from);
    }

    /// Gives up what no event can join any more, once time has come to `now`.
    fn let_go(&mut self, now: i64) {
        let lateness = self.rule.time.allowed_lateness.0 as i64;
        let whole = self.count.max(self.conditions.len());
        while let Some(first) = self.kept.first() {
            let end = first.at() + self.within;
            if end + lateness > now {
                break;
            }
            let taken = self.taken(0, None);
            if taken.len() < whole {
                let events = Self::shown(&taken);
                self.timed_out.push(Found {
                    out: Out::Time(end + lateness),
                    at: end,
                    events,
                });
            }
            self.kept.remove(0);
        }
    }
}
