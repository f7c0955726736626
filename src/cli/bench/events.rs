//! `bench patterns`: events of a topic through the intake and the patterns.
//!
//! An engine takes its rules and finds its place in the topic, and stops. The topic is filled, and a
//! second engine works it off: what is timed is that engine, from the first events that it has taken in
//! to the last match, with nobody else at work but the broker. The rules are in shadow, so nothing is
//! started. The broker's other clients, and the time of each kind of thread, say what limits it.

use std::time::{Duration, Instant};

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use serde_json::{Value, json};

use super::super::args::EventsArgs;
use super::engine::Engine;
use super::load::send;
use super::prometheus::counter;
use super::{Ground, rounded};
use crate::cli::anchored::until_anchored;
use crate::cli::client::segment;
use crate::cli::{CliError, Context};
use crate::log::LogError;
use crate::log::kafka::session::{admin, create_topic};
use crate::telemetry::names::{INTAKE_EVENTS_TOTAL, INTAKE_SIGNALS_TOTAL, PATTERN_MATCHES_TOTAL};
use crate::telemetry::process::cpu_by_thread;

/// Of the topic of events.
const PARTITIONS: i32 = 4;
/// Types of events; the rules ask for the first two.
const TYPES: &[u8; 10] = b"ABCDEFGHIJ";
/// Signals that the rules take of an event whose value is high enough, on average: the one rule wants one
/// type, the other two.
const SIGNALS_OF_HIGH: f64 = 0.3;
/// Correlation keys.
const KEYS: u64 = 10_000;
/// The broker has all events within this, and the engine has worked them off.
const DONE_WITHIN: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Every match of this rule is known beforehand.
const SINGLE: &str = "bench_single";
const PAIR: &str = "bench_pair";

/// Threads of an engine by the beginning of their names, and what they do.
const PARTS: [(&str, &str); 4] = [
    ("partita-intake", "intake"),
    ("partita-patter", "patterns"),
    ("rdk:", "kafka_clients"),
    ("", "others"),
];

/// What the measurement came to.
struct Measured {
    events: f64,
    seconds: f64,
    /// Processor seconds by part, as [`PARTS`] has them.
    cpu: [f64; 4],
    signals: f64,
}

pub(super) async fn measure(
    context: &Context,
    ground: &Ground,
    args: &EventsArgs,
) -> Result<Value, CliError> {
    let bench = Bench::new(context, ground, args);
    context.output.say(&format!(
        "bench of patterns against {} at {}",
        ground.kind, ground.brokers
    ));
    bench.anchor().await?;
    context
        .output
        .say(&format!("filling a topic with {} events", args.events));
    let filled = tokio::task::block_in_place(|| bench.fill())?;
    context.output.say("working them off");
    let measured = bench.work_off(filled.singles).await?;
    let cpu: f64 = measured.cpu.iter().sum();
    let share = |part: usize| (measured.cpu[part] / cpu.max(0.01) * 100.0).round() / 100.0;
    Ok(json!({
        "events": args.events,
        "event_bytes": filled.bytes / args.events as u64,
        "signals": measured.signals,
        "rules": 2 + args.other_rules,
        "partitions": PARTITIONS,
        "broker": {"kind": ground.kind, "version": ground.version},
        "events_per_second": rounded(measured.events / measured.seconds),
        "events_per_cpu_second": rounded(measured.events / cpu.max(0.01)),
        "engine_cpu_seconds": (cpu * 100.0).round() / 100.0,
        "cpu_share": PARTS
            .iter()
            .enumerate()
            .map(|(part, (_, name))| ((*name).to_owned(), share(part).into()))
            .collect::<serde_json::Map<_, _>>(),
        "intake_thread_busy": (measured.cpu[0] / measured.seconds * 100.0).round() / 100.0,
        "patterns_thread_busy": (measured.cpu[1] / measured.seconds * 100.0).round() / 100.0,
    }))
}

struct Bench<'a> {
    args: &'a EventsArgs,
    context: &'a Context,
    ground: &'a Ground,
    prefix: String,
    topic: String,
    /// Events above it are high.
    high: f64,
}

/// What was put into the topic.
struct Filled {
    bytes: u64,
    /// Events that `SINGLE` matches.
    singles: u64,
}

impl<'a> Bench<'a> {
    fn new(context: &'a Context, ground: &'a Ground, args: &'a EventsArgs) -> Self {
        let prefix = super::fresh_prefix("patterns");
        Self {
            args,
            context,
            ground,
            topic: format!("{prefix}bench-events"),
            prefix,
            high: 1.0 - f64::from(args.wanted) / 1_000.0 / SIGNALS_OF_HIGH,
        }
    }

    fn settings(&self) -> crate::log::kafka::ClientSettings {
        let mut kafka = self.context.config.kafka.clone();
        kafka.brokers.clone_from(&self.ground.brokers);
        kafka.client_settings()
    }

    /// An engine takes the rules, and its place at the beginning of the empty topic.
    async fn anchor(&self) -> Result<(), CliError> {
        let failed = |error: LogError| CliError::Failed(format!("the topic of events: {error}"));
        let settings = self.settings();
        let admin = admin(&settings).map_err(failed)?;
        create_topic(&admin, &self.topic, PARTITIONS, None)
            .await
            .map_err(failed)?;
        let engine = self.engine().await?;
        for (name, rule) in self.rules() {
            let path = format!("/v1/definitions/rule/{}", segment(&format!("{name}@1")));
            engine.api.put(&path, rule.to_string()).await?;
        }
        let places: Vec<(String, i32)> = (0..PARTITIONS)
            .map(|partition| (self.topic.clone(), partition))
            .collect();
        until_anchored(&settings, &self.prefix, &places)
            .await
            .map_err(CliError::Failed)?;
        tokio::task::block_in_place(|| drop(engine));
        Ok(())
    }

    /// The rules by name: two that want some events, and others that ask for types which never come.
    fn rules(&self) -> Vec<(String, Value)> {
        let rule = |name: &str, after_match: &str, shape: Value| {
            let rule = json!({
                "kind": "rule", "name": name, "version": 1, "mode": "shadow", "topic": self.topic,
                "correlate": {"by": ["key"]}, "match": shape, "emit": {"after_match": after_match},
            });
            (name.to_owned(), rule)
        };
        let condition = |id: &str, kind: &str| {
            let high = self.high;
            json!({"id": id, "where": format!("event.kind == '{kind}' && event.value > {high:?}")})
        };
        let steps = json!([condition("first", "A"), condition("second", "B")]);
        let pair = json!({"sequence": {"within": "1m", "steps": steps}});
        let mut rules = vec![
            rule(SINGLE, "no_skip", json!({"any": [condition("only", "A")]})),
            rule(PAIR, "skip_past_last", pair),
        ];
        rules.extend((0..self.args.other_rules).map(|number| {
            let condition = condition("other", &format!("other_{number}"));
            rule(
                &format!("bench_other_{number}"),
                "no_skip",
                json!({"any": [condition]}),
            )
        }));
        rules
    }

    fn fill(&self) -> Result<Filled, CliError> {
        let mut client = self.settings().client_config();
        client.set("linger.ms", "5");
        client.set("batch.num.messages", "10000");
        let failed = |error| CliError::Failed(format!("the bench's producer: {error}"));
        let producer: ThreadedProducer<DefaultProducerContext> = client.create().map_err(failed)?;
        let mut filled = Filled {
            bytes: 0,
            singles: 0,
        };
        let count = self.args.events as i64;
        let begin = chrono::Utc::now().timestamp_millis() - count;
        let mut stream = Stream(42);
        for place in 0..count {
            let kind = TYPES[(stream.next() >> 33) as usize % TYPES.len()];
            let key = (stream.next() >> 33) % KEYS;
            let value = (stream.next() >> 11) as f64 * 2f64.powi(-53);
            let (kind, at) = (char::from(kind), begin + place);
            let event = format!(
                r#"{{"kind":"{kind}","key":{key},"value":{value:.12},"at":{at},"source":"sensor-{key:05}","unit":"celsius","note":"an event of the bench, number {place:09}"}}"#
            );
            filled.bytes += event.len() as u64;
            // As its text has it.
            let is_high = format!("{value:.12}")
                .parse::<f64>()
                .is_ok_and(|value| value > self.high);
            filled.singles += u64::from(kind == 'A' && is_high);
            send(
                &producer,
                BaseRecord::<str, str>::to(&self.topic)
                    .partition((key % PARTITIONS as u64) as i32)
                    .timestamp(at)
                    .payload(&event),
            )?;
        }
        producer.flush(DONE_WITHIN).map_err(failed)?;
        Ok(filled)
    }

    /// An engine of its own does; `singles` is what its first rule has to find.
    async fn work_off(&self, singles: u64) -> Result<Measured, CliError> {
        let engine = self.engine().await?;
        let deadline = Instant::now() + DONE_WITHIN;
        let mut began = None;
        loop {
            let now = Instant::now();
            let cpu = cpu_of(&engine)?;
            let metrics = engine.metrics().await?;
            let taken = counter(&metrics, INTAKE_EVENTS_TOTAL, "");
            let found = counter(&metrics, PATTERN_MATCHES_TOTAL, SINGLE);
            let is_done = taken >= self.args.events as f64 && found >= singles as f64;
            match began {
                None if taken > 0.0 => began = Some((now, cpu, taken)),
                Some((began, before, first)) if is_done => {
                    return Ok(Measured {
                        events: taken - first,
                        seconds: began.elapsed().as_secs_f64(),
                        cpu: std::array::from_fn(|part| cpu[part] - before[part]),
                        signals: counter(&metrics, INTAKE_SIGNALS_TOTAL, ""),
                    });
                }
                _ => {}
            }
            if now > deadline {
                return Err(CliError::Failed(format!(
                    "{taken} of {} events were taken in and {found} of {singles} matches found",
                    self.args.events
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn engine(&self) -> Result<Engine, CliError> {
        let data_dir = self.ground.folder.path().join(&self.prefix);
        let flags = ["--kafka", &self.ground.brokers, "--prefix", &self.prefix];
        Engine::start(&flags.map(str::to_owned), &data_dir, 1).await
    }
}

/// Processor seconds of the engine's threads so far, by part.
fn cpu_of(engine: &Engine) -> Result<[f64; 4], CliError> {
    let mut cpu = [0.0; PARTS.len()];
    for (name, seconds) in cpu_by_thread(engine.process.id()) {
        let part = PARTS.iter().position(|(begin, _)| name.starts_with(begin));
        cpu[part.unwrap_or(PARTS.len() - 1)] += seconds;
    }
    match cpu.iter().sum::<f64>() > 0.0 {
        true => Ok(cpu),
        false => Err(CliError::Failed(
            "the measured process has ended, or /proc is absent".to_owned(),
        )),
    }
}

/// The stream of numbers that the benches of patterns share.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0
    }
}

pub(super) fn print(context: &Context, result: &Value) {
    let output = &context.output;
    if !output.is_table() {
        output.document(result);
        return;
    }
    let percent = |path: &str| {
        let share = result.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
        format!("{:.0} %", share * 100.0)
    };
    let of = |part: &str| percent(&format!("/cpu_share/{part}"));
    let lines = [
        (
            "events",
            format!(
                "{} of {} bytes, {} signals for {} rules",
                result["events"], result["event_bytes"], result["signals"], result["rules"]
            ),
        ),
        ("events per second", result["events_per_second"].to_string()),
        (
            "engine processor time",
            format!(
                "{} s, {} events a second of it",
                result["engine_cpu_seconds"], result["events_per_cpu_second"]
            ),
        ),
        (
            "of that",
            format!(
                "intake {}, patterns {}, Kafka clients {}, others {}",
                of("intake"),
                of("patterns"),
                of("kafka_clients"),
                of("others")
            ),
        ),
        (
            "threads busy",
            format!(
                "intake {}, patterns {}; the rest of the time they wait for the broker or for a processor",
                percent("/intake_thread_busy"),
                percent("/patterns_thread_busy")
            ),
        ),
    ];
    for (what, figure) in lines {
        output.line(&format!("{what:<22} {figure}"));
    }
}
