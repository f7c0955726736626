//! `idle_key_ttl`: what is known of a key is forgotten when it had no event for so long.

use partita::pattern::predicate::Nothing;
use partita::pattern::{Matcher, Rule, Scalar};

use super::arrival::Applied;

/// The events of a key between one forgetting and the next, and when that comes, or the end of all.
pub(super) fn lives<'a>(
    rule: &std::sync::Arc<Rule>,
    key: &[Scalar],
    applied: &[Applied<'a>],
    end: i64,
) -> Vec<(Vec<Applied<'a>>, i64)> {
    let Some(ttl) = rule.limits.idle_key_ttl else {
        return vec![(applied.to_vec(), end)];
    };
    let ttl = ttl.0 as i64;
    let matcher = Matcher::new(rule.clone(), false);
    // What no condition asks for never comes to the rule, save where it may break a sequence.
    let counts = |event: &Applied<'_>| {
        let input = event.input.event();
        let (predicates, every_event) = matcher.interest(input.topic);
        let holds = |place: &u16| {
            let predicate = &rule.predicates[usize::from(*place)];
            predicate.holds(rule, &input, key, &Nothing) == Some(true)
        };
        every_event || predicates.iter().any(holds)
    };
    let mut lives: Vec<(Vec<Applied<'a>>, i64)> = Vec::new();
    let (mut life, mut newest, mut now) = (Vec::new(), i64::MIN, i64::MIN);
    for event in applied.iter().filter(|event| counts(event)) {
        let is_idle = newest.saturating_add(ttl) <= event.now && event.now > now;
        if is_idle && !life.is_empty() {
            lives.push((std::mem::take(&mut life), newest + ttl));
            newest = i64::MIN;
        }
        life.push(*event);
        newest = newest.max(event.input.at.0);
        now = event.now;
    }
    lives.push((life, end.min(newest.saturating_add(ttl))));
    lives
}
