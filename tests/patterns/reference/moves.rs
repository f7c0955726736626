//! Which step may follow which: from a place in the steps of a sequence, every way to the next
//! event, with what must not happen on it.

use partita::pattern::{Contiguity, Part, Sequence, Step};

/// A step that took an event: its place in each list of steps from the outermost inwards, and the
/// round of it.
pub(super) type Place = Vec<(usize, u32)>;

/// A way from one taken event to the next, or to the end.
#[derive(Clone, Debug)]
pub(super) struct Move<'a> {
    pub(super) to: To<'a>,
    /// Conditions that no event meets until the move is made.
    pub(super) absent: Vec<u16>,
    /// Conditions that the very next event does not meet.
    pub(super) not_next: Vec<u16>,
    /// Whether a step of its own asks for the very next event, so that there must be one.
    pub(super) needs_next: bool,
    /// Moves into greedy repetitions that this one goes past: they must not be possible.
    pub(super) before: Vec<Move<'a>>,
}

#[derive(Clone, Debug)]
pub(super) enum To<'a> {
    Event {
        place: Place,
        step: &'a Step,
        predicate: u16,
        contiguity: Contiguity,
        is_first_round: bool,
    },
    /// The end; with absent conditions behind the last step, after this long if not at the end of
    /// all.
    End { gap: Option<i64> },
}

/// What was gone past since the last event.
#[derive(Clone, Default)]
struct Passed<'a> {
    absent: Vec<u16>,
    not_next: Vec<u16>,
    needs_next: bool,
    gap: Option<i64>,
    before: Vec<Move<'a>>,
}

pub(super) fn first<'a>(sequence: &'a Sequence) -> Vec<Move<'a>> {
    let mut moves = Vec::new();
    let lists = Lists(&sequence.steps);
    lists.go_on(&[], 0, None, Passed::default(), &mut moves);
    moves
}

pub(super) fn after<'a>(sequence: &'a Sequence, place: &Place) -> Vec<Move<'a>> {
    let mut moves = Vec::new();
    Lists(&sequence.steps).end_of_round(place, Passed::default(), &mut moves);
    moves
}

struct Lists<'a>(&'a [Step]);

impl<'a> Lists<'a> {
    /// The steps among which the step at `place` stands.
    fn around(&self, outer: &[(usize, u32)]) -> &'a [Step] {
        let mut steps = self.0;
        for (index, _) in outer {
            match &steps[*index].part {
                Part::Group(inner) => steps = inner,
                _ => unreachable!("only groups hold steps"),
            }
        }
        steps
    }

    /// A round of the step at `place` is over: again, or on.
    fn end_of_round(&self, place: &[(usize, u32)], passed: Passed<'a>, moves: &mut Vec<Move<'a>>) {
        let ((index, round), outer) = place.split_last().expect("a place is not empty");
        let steps = self.around(outer);
        let step = &steps[*index];
        let (min, max) = (step.times.min, step.times.max);
        let may_leave = *round >= min || can_be_empty(step);
        let may_repeat = max.is_none_or(|max| *round < max);
        let mut passed = passed;
        if may_repeat {
            let mut again = passed.clone();
            self.forbid_between(steps, *index, outer, &mut again);
            let start = moves.len();
            self.enter(outer, *index, round + 1, step.inner, again, moves);
            if step.greedy && matches!(step.part, Part::Event(_)) {
                passed.before.extend_from_slice(&moves[start..]);
            }
        }
        if may_leave {
            self.go_on(outer, index + 1, None, passed, moves);
        }
    }

    /// The absent steps right behind a step hold between its rounds too; for the last of a group
    /// they are those behind the group.
    fn forbid_between(
        &self,
        steps: &'a [Step],
        index: usize,
        outer: &[(usize, u32)],
        passed: &mut Passed<'a>,
    ) {
        if index + 1 == steps.len() {
            if let Some(((index, _), outer)) = outer.split_last() {
                self.forbid_between(self.around(outer), *index, outer, passed);
            }
            return;
        }
        for step in &steps[index + 1..] {
            match step.part {
                Part::Absent(predicate) if step.next == Contiguity::Strict => {
                    passed.not_next.push(predicate);
                }
                Part::Absent(predicate) => passed.absent.push(predicate),
                _ => break,
            }
        }
    }

    /// From before the step at `index`; `first` is the contiguity with which a group of which
    /// nothing was taken yet is entered.
    fn go_on(
        &self,
        outer: &[(usize, u32)],
        index: usize,
        first: Option<Contiguity>,
        mut passed: Passed<'a>,
        moves: &mut Vec<Move<'a>>,
    ) {
        let Some(step) = self.around(outer).get(index) else {
            if first.is_some() {
                return;
            }
            if outer.is_empty() {
                let gap = passed.gap.filter(|_| !passed.absent.is_empty());
                moves.push(passed.into_move(To::End { gap }));
            } else {
                self.end_of_round(outer, passed, moves);
            }
            return;
        };
        if let Part::Absent(predicate) = step.part {
            if step.next == Contiguity::Strict {
                passed.not_next.push(predicate);
                passed.needs_next = true;
            } else {
                passed.absent.push(predicate);
                passed.gap = step.within_gap.map(|gap| gap.0 as i64);
            }
            self.go_on(outer, index + 1, first, passed, moves);
            return;
        }
        let start = moves.len();
        let contiguity = first.unwrap_or(step.next);
        self.enter(outer, index, 1, contiguity, passed.clone(), moves);
        if step.optional || can_be_empty(step) {
            if step.greedy && matches!(step.part, Part::Event(_)) {
                passed.before.extend_from_slice(&moves[start..]);
            }
            self.go_on(outer, index + 1, first, passed, moves);
        }
    }

    fn enter(
        &self,
        outer: &[(usize, u32)],
        index: usize,
        round: u32,
        contiguity: Contiguity,
        passed: Passed<'a>,
        moves: &mut Vec<Move<'a>>,
    ) {
        let step = &self.around(outer)[index];
        let mut place = outer.to_vec();
        place.push((index, round));
        match step.part {
            Part::Event(predicate) => moves.push(passed.into_move(To::Event {
                place,
                step,
                predicate,
                contiguity,
                is_first_round: round == 1,
            })),
            Part::Group(_) => self.go_on(&place, 0, Some(contiguity), passed, moves),
            Part::Absent(_) => unreachable!("nothing enters an absent step"),
        }
    }
}

impl<'a> Passed<'a> {
    fn into_move(self, to: To<'a>) -> Move<'a> {
        Move {
            to,
            absent: self.absent,
            not_next: self.not_next,
            needs_next: self.needs_next,
            before: self.before,
        }
    }
}

/// Whether a round of the group may take nothing.
fn can_be_empty(step: &Step) -> bool {
    match &step.part {
        Part::Group(steps) => steps.iter().all(|step| {
            step.optional || matches!(step.part, Part::Absent(_)) || can_be_empty(step)
        }),
        _ => false,
    }
}
