//! From steps that name each other to steps that know each other's places: dependencies,
//! switches, circles, and whether each expression reads only what has ended before it.

use std::collections::HashMap;
use std::sync::Arc;

use super::expressions::Reference;
use super::step::{CaseSource, KindSource, Named, StepSource};
use crate::document::node::Position;
use crate::document::violation::Report;
use crate::expr::nearest;
use crate::workflow::program::{Case, RetryPolicy, Step, StepIndex, StepKind};

/// Steps in their order, and where each is.
pub(super) type Linked = (Vec<Step>, HashMap<Arc<str>, StepIndex>);

/// What a step's expressions read, and where the step stands.
struct Read {
    references: Vec<Reference>,
    at: Position,
    path: String,
}

/// Links the steps of a workflow; `retry` is the workflow's own policy, `output` what its output
/// reads. What comes back is of use only where the report stayed empty.
pub(super) fn link(
    sources: Vec<StepSource>,
    retry: &RetryPolicy,
    output: &[Reference],
    report: &mut Report<'_>,
) -> Linked {
    let by_id = index(&sources, report);
    let mut steps: Vec<Step> = Vec::with_capacity(sources.len());
    let mut guards: Vec<(StepIndex, StepIndex, usize)> = Vec::new();
    let mut read: Vec<Read> = Vec::new();
    for (place, source) in sources.into_iter().enumerate() {
        let mut depends_on = Vec::new();
        for named in &source.depends_on {
            if let Some(on) = resolve(named, &by_id, "depends on", report) {
                depends_on.push(on);
            }
        }
        let mut merged = source.retry.merge(retry, report);
        if let KindSource::Await { .. } | KindSource::AwaitPattern { .. } = &source.kind
            && !source.retry.is_given()
            && !source.on_error.retries()
        {
            // Its timeout says how long it waits. Only its own word makes it wait again.
            merged.max_attempts = 1;
        }
        let kind = link_kind(source.kind, place, &by_id, &mut guards, report);
        read.push(Read {
            references: source.references,
            at: source.at,
            path: source.path,
        });
        steps.push(Step {
            id: source.id,
            kind,
            depends_on,
            dependants: Vec::new(),
            guarded_by: Vec::new(),
            when: source.when,
            retry: merged,
            timeout: source.timeout,
            heartbeat_timeout: source.heartbeat_timeout,
            on_error: source.on_error,
        });
    }
    for (step, switch, branch) in guards {
        steps[step].guarded_by.push((switch, branch));
        steps[step].depends_on.push(switch);
    }
    for place in 0..steps.len() {
        steps[place].depends_on.sort_unstable();
        steps[place].depends_on.dedup();
        for on in steps[place].depends_on.clone() {
            steps[on].dependants.push(place);
        }
    }
    let order = order(&steps);
    if order.len() < steps.len() {
        refuse_circle(&steps, &order, &read, report);
    }
    check_references(&steps, &by_id, &order, &read, output, report);
    (steps, by_id)
}

fn index(sources: &[StepSource], report: &mut Report<'_>) -> HashMap<Arc<str>, StepIndex> {
    let mut by_id: HashMap<Arc<str>, StepIndex> = HashMap::with_capacity(sources.len());
    for (place, source) in sources.iter().enumerate() {
        if let Some(first) = by_id.get(&source.id) {
            let message = format!(
                "the step id `{}` is already taken on line {}",
                source.id, sources[*first].at.line
            );
            report.add(source.at, &format!("{}.id", source.path), message);
        } else {
            by_id.insert(source.id.clone(), place);
        }
    }
    by_id
}

fn resolve(
    named: &Named,
    by_id: &HashMap<Arc<str>, StepIndex>,
    verb: &str,
    report: &mut Report<'_>,
) -> Option<StepIndex> {
    let found = by_id.get(named.name.as_str()).copied();
    if found.is_none() {
        let message = format!("{verb} `{}`, which is no step of this workflow", named.name);
        report.add_with(named.at, &named.path, message, suggest(&named.name, by_id));
    }
    found
}

fn suggest(name: &str, by_id: &HashMap<Arc<str>, StepIndex>) -> Option<String> {
    let mut ids: Vec<&str> = by_id.keys().map(AsRef::as_ref).collect();
    ids.sort_unstable();
    nearest(name, ids).map(|near| format!("did you mean `{near}`?"))
}

fn link_kind(
    kind: KindSource,
    place: StepIndex,
    by_id: &HashMap<Arc<str>, StepIndex>,
    guards: &mut Vec<(StepIndex, StepIndex, usize)>,
    report: &mut Report<'_>,
) -> StepKind {
    let (cases, default) = match kind {
        KindSource::Agent {
            agent,
            task,
            inputs,
        } => {
            return StepKind::Agent {
                agent,
                task,
                inputs,
            };
        }
        KindSource::Await { signal, condition } => {
            return StepKind::Await { signal, condition };
        }
        KindSource::AwaitPattern { key } => return StepKind::AwaitPattern { key },
        KindSource::Switch { cases, default } => (cases, default),
    };
    let branches = cases.len();
    let mut branch = |number: usize, names: &[Named]| {
        let mut steps: Vec<StepIndex> = Vec::new();
        for named in names {
            let Some(step) = resolve(named, by_id, "leads to", report) else {
                continue;
            };
            if step == place {
                report.add(named.at, &named.path, "a switch cannot lead to itself");
            } else if !steps.contains(&step) {
                steps.push(step);
                guards.push((step, place, number));
            }
        }
        steps
    };
    let link_case = |(number, case): (usize, CaseSource)| Case {
        then: branch(number, &case.then),
        name: case.name,
        when: case.when,
    };
    let cases = cases.into_iter().enumerate().map(link_case).collect();
    StepKind::Switch {
        cases,
        default: branch(branches, &default),
    }
}

/// The steps in an order in which each comes after what it depends on; steps in or behind a
/// circle are left out.
fn order(steps: &[Step]) -> Vec<StepIndex> {
    let mut open: Vec<usize> = steps.iter().map(|step| step.depends_on.len()).collect();
    let mut order: Vec<StepIndex> = (0..steps.len()).filter(|place| open[*place] == 0).collect();
    let mut next = 0;
    while let Some(done) = order.get(next).copied() {
        next += 1;
        for dependant in &steps[done].dependants {
            open[*dependant] -= 1;
            if open[*dependant] == 0 {
                order.push(*dependant);
            }
        }
    }
    order
}

/// Names one circle: from any step left out, a dependency that is left out as well leads on, until
/// a step comes up again.
fn refuse_circle(steps: &[Step], order: &[StepIndex], read: &[Read], report: &mut Report<'_>) {
    let mut is_ordered = vec![false; steps.len()];
    for place in order {
        is_ordered[*place] = true;
    }
    let Some(mut at) = (0..steps.len()).find(|place| !is_ordered[*place]) else {
        return;
    };
    let mut way: Vec<StepIndex> = Vec::new();
    while !way.contains(&at) {
        way.push(at);
        let Some(on) = steps[at].depends_on.iter().find(|on| !is_ordered[**on]) else {
            return;
        };
        at = *on;
    }
    let first = way.iter().position(|place| *place == at).unwrap_or(0);
    let mut circle: Vec<StepIndex> = way[first..].to_vec();
    let least = (0..circle.len())
        .min_by_key(|place| circle[*place])
        .unwrap_or(0);
    circle.rotate_left(least);
    let names: Vec<&str> = circle
        .iter()
        .chain(&circle[..1])
        .map(|place| &*steps[*place].id)
        .collect();
    let Read { at, path, .. } = &read[circle[0]];
    report.add(
        *at,
        path,
        format!(
            "steps wait for each other in a circle: {}",
            names.join(" → ")
        ),
    );
}

/// Each step read by an expression must be one, and must have ended before: it has to be among
/// the dependencies, near or far. The run's output may read any.
fn check_references(
    steps: &[Step],
    by_id: &HashMap<Arc<str>, StepIndex>,
    order: &[StepIndex],
    read: &[Read],
    output: &[Reference],
    report: &mut Report<'_>,
) {
    let mut unknown = |reference: &Reference| {
        let message = format!(
            "reads `steps.{0}`, but `{0}` is no step of this workflow",
            reference.step
        );
        report.add_with(
            reference.at,
            &reference.path,
            message,
            suggest(&reference.step, by_id),
        );
    };
    for reference in output
        .iter()
        .chain(read.iter().flat_map(|step| &step.references))
    {
        if !by_id.contains_key(reference.step.as_str()) {
            unknown(reference);
        }
    }
    let before = before(steps, order);
    for place in order {
        for reference in &read[*place].references {
            let Some(on) = by_id.get(reference.step.as_str()).copied() else {
                continue;
            };
            if on == *place {
                report.add(
                    reference.at,
                    &reference.path,
                    format!(
                        "reads `steps.{}`, which is this step itself",
                        reference.step
                    ),
                );
            } else if !before[*place].contains(on) {
                let message = format!(
                    "reads `steps.{0}`, but does not wait for `{0}`",
                    reference.step
                );
                let suggestion = format!(
                    "add `{}` to the `depends_on` of `{}`",
                    reference.step, steps[*place].id
                );
                report.add_with(reference.at, &reference.path, message, Some(suggestion));
            }
        }
    }
}

/// By step: all that has ended before it.
fn before(steps: &[Step], order: &[StepIndex]) -> Vec<StepSet> {
    let mut before: Vec<StepSet> = (0..steps.len())
        .map(|_| StepSet::new(steps.len()))
        .collect();
    for place in order {
        let mut own = StepSet::new(steps.len());
        for on in &steps[*place].depends_on {
            own.insert(*on);
            own.insert_all(&before[*on]);
        }
        before[*place] = own;
    }
    before
}

/// A set of steps, one bit each.
struct StepSet(Vec<u64>);

impl StepSet {
    fn new(steps: usize) -> Self {
        Self(vec![0; steps.div_ceil(64)])
    }

    fn insert(&mut self, step: StepIndex) {
        self.0[step / 64] |= 1 << (step % 64);
    }

    fn insert_all(&mut self, other: &StepSet) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own |= other;
        }
    }

    fn contains(&self, step: StepIndex) -> bool {
        self.0[step / 64] & (1 << (step % 64)) != 0
    }
}
