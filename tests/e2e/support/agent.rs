//! An agent that does its work well and its answering badly: a tenth of its replies it sends twice,
//! the second time at once or up to two seconds later, when the run has long gone on.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use super::driver::{Sender, producer};

/// How often offsets are committed.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// The agent `worker`: adds one to `inputs.value`. One first attempt in fifty it fails.
pub struct Worker {
    stop: Arc<AtomicBool>,
    duplicates: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

struct Reply {
    topic: String,
    partition: i32,
    run_id: String,
    body: String,
}

impl Worker {
    pub fn start(bootstrap: &str) -> Worker {
        let stop = Arc::new(AtomicBool::new(false));
        let duplicates = Arc::new(AtomicUsize::new(0));
        let thread = {
            let (stop, duplicates) = (stop.clone(), duplicates.clone());
            let bootstrap = bootstrap.to_owned();
            thread::spawn(move || work(&bootstrap, &stop, &duplicates))
        };
        Worker {
            stop,
            duplicates,
            thread: Some(thread),
        }
    }

    /// Stops it, and says how many replies it sent a second time.
    pub fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("a worker stops once");
        thread.join().expect("the agent does not panic");
        self.duplicates.load(Ordering::SeqCst)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn work(bootstrap: &str, stop: &AtomicBool, duplicates: &AtomicUsize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "worker")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "1000")
        .set("session.timeout.ms", "6000")
        .create()
        .expect("a consumer");
    consumer
        .subscribe(&["partita.tasks.worker"])
        .expect("a subscription");
    let producer = producer(bootstrap);
    let mut late: VecDeque<(Instant, Reply)> = VecDeque::new();
    let mut last_commit = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        // Errors come while the broker is away; the client comes back by itself.
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(10)) {
            if let Some((task_id, reply)) = answer(&record) {
                send(&producer, &reply);
                match hash(&task_id) % 20 {
                    0 => {
                        send(&producer, &reply);
                        duplicates.fetch_add(1, Ordering::SeqCst);
                    }
                    1 => {
                        let wait = Duration::from_millis(hash(&reply.body) % 2000);
                        late.push_back((Instant::now() + wait, reply));
                    }
                    _ => {}
                }
            }
            // A rebalance may have taken the partition away; then its next owner reads it again.
            let _ = consumer.store_offset_from_message(&record);
        }
        while late.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            let (_, reply) = late.pop_front().expect("there is a front");
            send(&producer, &reply);
            duplicates.fetch_add(1, Ordering::SeqCst);
        }
        if last_commit.elapsed() > COMMIT_EVERY {
            producer
                .flush(Duration::from_secs(300))
                .expect("replies are delivered");
            // Nothing stored yet, or the broker is away: the next commit says the same and more.
            let _ = consumer.commit_consumer_state(CommitMode::Async);
            last_commit = Instant::now();
        }
    }
    producer
        .flush(Duration::from_secs(60))
        .expect("replies are delivered");
}

/// The task id and the reply to a task; none for a cancellation.
fn answer(record: &BorrowedMessage<'_>) -> Option<(String, Reply)> {
    let task: Value = serde_json::from_slice(record.payload().expect("a task has a value"))
        .expect("a task is JSON");
    if task["type"] == "cancel" {
        return None;
    }
    let header = |name: &str| {
        let headers = record.headers().expect("a task has headers");
        let header = headers.iter().find(|header| header.key == name);
        let value = header
            .and_then(|header| header.value)
            .expect("a task says where to reply");
        String::from_utf8(value.to_vec()).expect("headers are text")
    };
    let task_id = task["task_id"]
        .as_str()
        .expect("a task has an id")
        .to_owned();
    let fails = task["attempt"] == 1 && hash(&task_id) % 50 == 7;
    let outcome = if fails {
        json!({"status": "failed", "error": {"class": "connection_error", "message": "on purpose"}})
    } else {
        let value = task["inputs"]["value"]
            .as_i64()
            .expect("the value arrives as an integer");
        json!({"status": "completed", "output": {"value": value + 1}})
    };
    let mut body = json!({
        "task_id": task["task_id"], "run_id": task["run_id"], "step_id": task["step_id"],
        "attempt": task["attempt"], "epoch": task["epoch"],
    });
    let (members, more) = (body.as_object_mut(), outcome.as_object());
    members
        .expect("an object")
        .extend(more.expect("an object").clone());
    let reply = Reply {
        topic: header("partita-reply-topic"),
        partition: header("partita-reply-partition")
            .parse()
            .expect("a partition is a number"),
        run_id: task["run_id"]
            .as_str()
            .expect("a task names its run")
            .to_owned(),
        body: body.to_string(),
    };
    Some((task_id, reply))
}

fn send(producer: &Sender, reply: &Reply) {
    producer
        .send(
            BaseRecord::to(&reply.topic)
                .partition(reply.partition)
                .key(&reply.run_id)
                .payload(&reply.body),
        )
        .map_err(|(error, _)| error)
        .expect("the producer's queue takes a reply");
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
