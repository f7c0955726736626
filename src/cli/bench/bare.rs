//! The broker's ceiling: a loop that moves runs on with records of the same size and number per
//! step as the engine's, in the same order of calls, and does nothing else. No definitions, no
//! expressions, no timers, no store, no answers to anybody: what the engine could reach if all of
//! that were free. Runs as a process of its own, as the engine does.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Deserialize;

use super::super::args::BareLoopArgs;
use super::FETCH_WAIT;
use super::shape::AGENT;
use crate::cli::{CliError, Context};
use crate::log::kafka::reader_config;

const BATCH_RECORDS: usize = 2_000;
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// Producers of a worker, which take turns as those of the engine do: one whose last markers are still
/// being written would be held up by the client for 20 ms.
const PRODUCERS: usize = 3;
/// Deliveries are awaited in slices of this; `flush` would poll in slices of 100 ms.
const DELIVERY_SLICE: Duration = Duration::from_micros(100);

type Producer = ThreadedProducer<DefaultProducerContext>;

/// `bench-bare-loop`: runs until its stdin closes.
pub fn bare_loop(context: &Context, args: &BareLoopArgs) -> Result<(), CliError> {
    let client = context.config.kafka.client_settings().client_config();
    let workers: Vec<_> = (0..args.workers)
        .map(|worker| {
            let (client, args) = (client.clone(), args.clone());
            let prefix = context.config.topics.prefix.clone();
            std::thread::spawn(move || Worker::start(&client, &prefix, worker, args)?.work())
        })
        .collect();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        // The parent is done with us, or gone; there is nothing to finish.
        std::process::exit(0);
    });
    for worker in workers {
        let ended = worker
            .join()
            .map_err(|_| CliError::Failed("the bare loop panicked".to_owned()))?;
        ended.map_err(|error: KafkaError| {
            CliError::Unreachable(format!("the bare loop: {error}"))
        })?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    run_id: &'a str,
}

struct Worker {
    consumer: BaseConsumer,
    producers: Vec<Producer>,
    /// Whose transaction is open, or was last.
    turn: usize,
    topics: Topics,
    args: BareLoopArgs,
    /// Run → steps answered.
    runs: HashMap<String, usize>,
    filler: String,
    /// Events and state entries still to be written: what an input costs is no whole number.
    owed: Owed,
}

#[derive(Default)]
struct Owed {
    events: f64,
    states: f64,
}

struct Topics {
    commands: String,
    replies: String,
    tasks: String,
    events: String,
    state: String,
}

impl Topics {
    /// The inputs of one of several workers: every n-th partition of n workers, by hand. A group would share
    /// them out while the first runs come, and a transaction under way would then fail.
    fn share_of(
        &self,
        consumer: &BaseConsumer,
        worker: usize,
        workers: usize,
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut share = TopicPartitionList::new();
        for topic in [&self.commands, &self.replies] {
            let metadata = consumer.fetch_metadata(Some(topic), CALL_WITHIN)?;
            for partition in metadata
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions())
            {
                if partition.id() as usize % workers == worker {
                    share.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
                }
            }
        }
        Ok(share)
    }
}

impl Worker {
    fn start(
        client: &ClientConfig,
        prefix: &str,
        worker: usize,
        args: BareLoopArgs,
    ) -> Result<Self, KafkaError> {
        let topic = |name: &str| format!("{prefix}{name}");
        let topics = Topics {
            commands: topic("commands"),
            replies: topic("replies"),
            tasks: topic(&format!("tasks.{AGENT}")),
            events: topic("events"),
            state: topic("state"),
        };
        let group = format!("{prefix}bare-loop");
        let consumer: BaseConsumer = reader_config(client.clone(), &group, FETCH_WAIT).create()?;
        consumer.assign(&topics.share_of(&consumer, worker, args.workers)?)?;
        let producers = (0..PRODUCERS)
            .map(|number| {
                let id = format!("{prefix}bare-loop-{worker}-{number}");
                let producer: Producer = client
                    .clone()
                    .set("transactional.id", id)
                    .set("linger.ms", "0")
                    .set("queue.buffering.max.messages", "1000000")
                    .create()?;
                producer.init_transactions(CALL_WITHIN)?;
                Ok(producer)
            })
            .collect::<Result<_, KafkaError>>()?;
        let filler = "x".repeat(args.event_bytes.max(args.state_bytes).max(args.task_bytes));
        Ok(Self {
            consumer,
            producers,
            turn: 0,
            topics,
            args,
            runs: HashMap::new(),
            filler,
            owed: Owed::default(),
        })
    }

    fn producer(&self) -> &Producer {
        &self.producers[self.turn]
    }

    fn work(mut self) -> Result<(), KafkaError> {
        loop {
            let Some(first) = self.consumer.poll(Duration::from_millis(20)) else {
                continue;
            };
            let mut batch = vec![first?.detach()];
            while batch.len() < BATCH_RECORDS {
                let Some(next) = self.consumer.poll(Duration::ZERO) else {
                    break;
                };
                batch.push(next?.detach());
            }
            self.transaction(&batch)?;
        }
    }

    fn transaction(&mut self, batch: &[OwnedMessage]) -> Result<(), KafkaError> {
        self.turn = (self.turn + 1) % self.producers.len();
        self.producer().begin_transaction()?;
        let mut positions: HashMap<(&str, i32), i64> = HashMap::new();
        for message in batch {
            self.step(message)?;
            positions.insert((message.topic(), message.partition()), message.offset() + 1);
        }
        let deadline = Instant::now() + CALL_WITHIN;
        while self.producer().in_flight_count() > 0 && Instant::now() < deadline {
            std::thread::sleep(DELIVERY_SLICE);
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), next) in positions {
            offsets.add_partition_offset(topic, partition, Offset::Offset(next))?;
        }
        let group = self.consumer.group_metadata().ok_or(KafkaError::Canceled)?;
        self.producer()
            .send_offsets_to_transaction(&offsets, &group, CALL_WITHIN)?;
        self.producer().commit_transaction(CALL_WITHIN)
    }

    /// What the engine writes for one input, in bytes and number.
    fn step(&mut self, message: &OwnedMessage) -> Result<(), KafkaError> {
        let is_reply = message.topic() == self.topics.replies;
        let run = if is_reply {
            let reply = message
                .payload()
                .and_then(|bytes| serde_json::from_slice::<Reply<'_>>(bytes).ok());
            reply.map(|reply| reply.run_id.to_owned())
        } else {
            message
                .key()
                .and_then(|key| std::str::from_utf8(key).ok())
                .map(str::to_owned)
        };
        let Some(run) = run else { return Ok(()) };
        let answered = self.runs.entry(run.clone()).or_insert(0);
        if is_reply {
            *answered += 1;
        }
        let step = *answered;
        let partition = message.partition();
        self.owed.events += self.args.events_per_input;
        while self.owed.events >= 1.0 {
            self.owed.events -= 1.0;
            let event = &self.filler[..self.args.event_bytes];
            self.send(&self.topics.events, partition, &run, event, None)?;
        }
        self.owed.states += self.args.states_per_input;
        while self.owed.states >= 1.0 {
            self.owed.states -= 1.0;
            let state = &self.filler[..self.args.state_bytes];
            self.send(
                &self.topics.state,
                partition,
                &format!("run/{run}"),
                state,
                None,
            )?;
        }
        if step >= self.args.steps {
            self.runs.remove(&run);
            return Ok(());
        }
        let task_id = format!("{run}.s{step}.0.1");
        let head = format!(
            r#"{{"task_id":"{task_id}","run_id":"{run}","workflow":"bare","version":1,"step_id":"s{step}","agent":"{AGENT}","attempt":1,"epoch":0,"task":{{}},"inputs":{{"value":""#
        );
        let fill = self.args.task_bytes.saturating_sub(head.len() + 4);
        let task = format!(r#"{head}{}"}}}}"#, &self.filler[..fill]);
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: "partita-reply-topic",
                value: Some(&self.topics.replies),
            })
            .insert(Header {
                key: "partita-reply-partition",
                value: Some(&partition.to_string()),
            });
        self.send(
            &self.topics.tasks,
            partition,
            &task_id,
            &task,
            Some(headers),
        )
    }

    fn send(
        &self,
        topic: &str,
        partition: i32,
        key: &str,
        value: &str,
        headers: Option<OwnedHeaders>,
    ) -> Result<(), KafkaError> {
        let mut record = BaseRecord::to(topic)
            .partition(partition)
            .key(key)
            .payload(value);
        record.headers = headers;
        self.producer().send(record).map_err(|(error, _)| error)
    }
}
