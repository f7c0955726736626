//! `debounce` and `cooldown` on the matches of one key.

use partita::pattern::Rule;

use super::arrival::Arrivals;
use super::{Found, Out};

/// Of each burst the last comes out. Of what comes out so, a match is dropped that lies within
/// `cooldown` from the last which began one.
pub(super) fn thin_out(rule: &Rule, matches: Vec<Found>, arrivals: &Arrivals<'_>) -> Vec<Found> {
    let mut out = match rule.emit.debounce {
        Some(span) => last_of_bursts(span.0 as i64, matches, arrivals.end()),
        None => matches,
    };
    let Some(span) = rule.emit.cooldown else {
        return out;
    };
    let span = span.0 as i64;
    let mut cooldown: Option<i64> = None;
    out.retain(|found| {
        let began = cooldown.unwrap_or(i64::MIN);
        let is_within = cooldown.is_some() && (began..began + span).contains(&found.at);
        if !is_within && found.at >= began {
            cooldown = Some(found.at);
        }
        !is_within
    });
    out
}

/// In the order in which they come out.
fn last_of_bursts(span: i64, matches: Vec<Found>, end: i64) -> Vec<Found> {
    let mut out = Vec::new();
    // In the order in which they were found; time has not come to `span` behind the latest of them.
    let mut burst: Vec<Found> = Vec::new();
    for found in matches {
        out.extend(quiet(span, &mut burst, found.out.now()));
        match burst.iter().map(|other| other.at).max() {
            Some(latest) if found.at <= latest - span => out.push(found),
            _ => burst.push(found),
        }
    }
    out.extend(quiet(span, &mut burst, end));
    out
}

/// What comes of a burst that is over at `now`.
fn quiet(span: i64, burst: &mut Vec<Found>, now: i64) -> Option<Found> {
    let latest = burst.iter().map(|found| found.at).max()?;
    if latest + span > now {
        return None;
    }
    // Of several at one time the one that was found last.
    let found = burst.drain(..).max_by_key(|found| found.at)?;
    let due = found.at + span;
    // It was over already when it was found, if it was held back for so long.
    let is_over = found.out.now() >= due;
    let out = if is_over { found.out } else { Out::Time(due) };
    Some(Found { out, ..found })
}
