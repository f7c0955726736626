//! `debounce` and `cooldown` on the matches of one key.

use partita::pattern::Rule;

use super::arrival::Arrivals;
use super::{Found, Out};

/// A match waits for `debounce` from its time on; the next one of the key, where it comes before
/// that, takes its place. Of what comes out so, matches within `cooldown` of the last are dropped.
pub(super) fn thin_out(rule: &Rule, matches: Vec<Found>, arrivals: &Arrivals<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (place, found) in matches.iter().enumerate() {
        let Some(span) = rule.emit.debounce else {
            out.push(found.clone());
            continue;
        };
        let due = found.at + span.0 as i64;
        let next = matches.get(place + 1);
        let is_replaced = next.is_some_and(|next| next.out.now() < due);
        if !is_replaced && due <= arrivals.end() {
            // It may have waited longer for a match that would have come before it.
            let out_at = match found.out.now() < due {
                true => Out::Time(due),
                false => found.out,
            };
            out.push(Found {
                out: out_at,
                ..found.clone()
            });
        }
    }
    let Some(span) = rule.emit.cooldown else {
        return out;
    };
    let mut until = i64::MIN;
    out.retain(|found| {
        let is_out = found.at >= until;
        if is_out {
            until = found.at + span.0 as i64;
        }
        is_out
    });
    out
}
