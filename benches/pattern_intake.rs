//! What the intake does to an event, without Kafka: a JSON text in memory is decoded, shown to the rules
//! that may want it, and written as a signal where one does. Two rules that want one event in fifty; and
//! the same with a thousand rules beside them that ask for other types of events. One thread.
//!
//! `cargo bench --bench pattern_intake [-- EVENTS]`; without an argument a million events.

use std::sync::Arc;
use std::time::Instant;

use partita::codec::event::{AvroSchema, NoSchema, RawEvent, Schemas, WriterSchema, decode};
use partita::codec::signal::{EventParts, encode_event};
use partita::model::Timestamp;
use partita::pattern::filter::{Filter, Verdict};
use partita::pattern::{Rule, syntax};

/// Nobody asks: all events are JSON.
struct NoSchemas;

impl Schemas for NoSchemas {
    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        Err(NoSchema::Refused(format!("there is no schema {id}")))
    }

    fn by_fingerprint(&self, _: [u8; 8]) -> Result<Arc<AvroSchema>, NoSchema> {
        Err(NoSchema::Refused("there are no schemas".to_owned()))
    }
}

fn events(count: u64) -> Vec<String> {
    let mut state = 42_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state
    };
    (0..count)
        .map(|number| {
            let kind = char::from(b'A' + ((next() >> 33) % 10) as u8);
            let key = (next() >> 33) % 10_000;
            let value = (next() >> 11) as f64 * 2f64.powi(-53);
            format!(
                r#"{{"kind":"{kind}","key":{key},"value":{value:.12},"at":{number},"source":"sensor-{key:05}","unit":"celsius","note":"an event of the bench, number {number:09}"}}"#
            )
        })
        .collect()
}

fn rules(others: usize) -> Vec<Arc<Rule>> {
    let condition = |id: &str, kind: &str| {
        format!("{{id: {id}, where: \"event.kind == '{kind}' && event.value > 0.9333\"}}")
    };
    let mut text = format!(
        "kind: rule\nname: single\ntopic: t\ncorrelate: {{by: [key]}}\nmatch: {{any: [{}]}}\n---\n\
         kind: rule\nname: pair\ntopic: t\ncorrelate: {{by: [key]}}\nmatch: {{sequence: {{within: 1m, steps: [{}, {}]}}}}\n",
        condition("only", "A"),
        condition("first", "A"),
        condition("second", "B"),
    );
    for number in 0..others {
        let condition = condition("other", &format!("other_{number}"));
        text.push_str(&format!(
            "---\nkind: rule\nname: other_{number}\ntopic: t\ncorrelate: {{by: [key]}}\nmatch: {{any: [{condition}]}}\n"
        ));
    }
    syntax::parse(&text, None).unwrap_or_else(|violations| panic!("{violations}"))
}

/// Events per second, and signals.
fn run(filter: &Filter, events: &[String]) -> (f64, u64) {
    let of_topic = filter.topic("t").expect("the rules read it");
    let (mut signals, mut out) = (0, Vec::new());
    let begin = Instant::now();
    for (offset, event) in (0..).zip(events) {
        let raw = RawEvent {
            value: Some(event.as_bytes()),
            headers: &[],
            timestamp: Some(Timestamp(offset)),
        };
        let event = decode(&raw, &NoSchemas, 1 << 20).expect("JSON");
        let event = event.expect("an event");
        of_topic.select(&event.payload, event.at.into(), &mut |verdict| {
            if let Verdict::Wanted { rule, key, at, .. } = verdict {
                signals += 1;
                out.clear();
                let parts = EventParts {
                    rule: &rule.name,
                    version: rule.version,
                    key: key.as_bytes(),
                    topic: "t",
                    partition: 0,
                    offset,
                    at,
                    payload: &event.payload,
                    begins: true,
                };
                encode_event(&parts, &mut out);
            }
        });
    }
    let seconds = begin.elapsed().as_secs_f64();
    (events.len() as f64 / seconds, signals)
}

fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let events = events(count.unwrap_or(1_000_000));
    let filters = [0, 1_000].map(|others| Filter::new(&rules(others)));
    // By turns, so that what else the machine does meets both.
    let mut best = [(0.0, 0); 2];
    for _ in 0..5 {
        for (filter, best) in filters.iter().zip(&mut best) {
            let (rate, signals) = run(filter, &events);
            *best = (rate.max(best.0), signals);
        }
    }
    for ((rate, signals), rules) in best.iter().zip([2, 1_002]) {
        println!(
            "{rules:>5} rules  {:>6.2} M events/s  {signals} signals",
            rate / 1e6
        );
    }
    println!(
        "a thousand other rules cost {:.0} %",
        (best[0].0 / best[1].0 - 1.0) * 100.0
    );
}
