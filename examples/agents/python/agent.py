#!/usr/bin/env python3
"""A complete Partita agent in Python: a worker of one agent, over plain Kafka.

    python agent.py cmo_agent
    python agent.py cfo_agent --brokers kafka-1:9092,kafka-2:9092 --concurrency 8

What to take from here for an agent of your own:

* It joins the consumer group of its agent: start as many workers as the task topic has partitions.
* It reads `read_committed`, so it never sees a task of a transaction that was taken back.
* It answers on the topic and the partition that the task's headers name, with the run id as the key.
* A task may be delivered more than once, with the same `task_id`. The answer given last time is
  given again, and the work is not done twice. This memory ends with the process: where the work has
  effects outside, use the `task_id` as the idempotency key there.
* The offset of a task is committed only when its answer has been delivered.
* An output that is no JSON, or larger than a record may be, fails its attempt and says so.
* A cancellation is a record on the same topic; it is seen while the work goes on, because the work
  is done on threads of its own. An answer that comes all the same is ignored by Partita.
* On SIGTERM and SIGINT it takes no more tasks, finishes those at hand, and leaves the group.
"""

import argparse
import collections
import concurrent.futures
import json
import logging
import os
import signal
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

log = logging.getLogger("agent")

REMEMBERED_ANSWERS = 10_000
COMMIT_EVERY_SECONDS = 1.0
SHUTDOWN_SECONDS = 30.0


class Failure(Exception):
    """Raised by a handler to fail its attempt with a class that workflows can react to."""

    def __init__(self, error_class, message, retryable=None, details=None):
        super().__init__(message)
        self.error = {"class": error_class, "message": message}
        if retryable is not None:
            self.error["retryable"] = retryable
        if details is not None:
            self.error["details"] = details


class Cancelled(Exception):
    """The attempt was given up; nobody waits for its answer any more."""


class Context:
    """What a handler can do besides returning its output."""

    def __init__(self, agent, task, headers):
        self.task = task
        self._agent = agent
        self._headers = headers
        self._cancelled = threading.Event()

    def progress(self, fraction, note=None):
        """Tells how far the work is, which also renews the step's heartbeat timeout."""
        self.check()
        reply = {"status": "progress", "progress": fraction}
        if note is not None:
            reply["note"] = note
        self._agent.send(self.task, self._headers, written(self.task, reply))

    def sleep(self, seconds):
        """Sleeps, and raises Cancelled as soon as the attempt is given up."""
        self._cancelled.wait(seconds)
        self.check()

    def check(self):
        if self._cancelled.is_set():
            raise Cancelled()

    def cancel(self):
        self._cancelled.set()


def failed(error_class, message, retryable=None):
    return {"status": "failed", "error": Failure(error_class, message, retryable).error}


def written(task, reply):
    """The reply as the JSON of a record; raises where it is none (NaN is none)."""
    identity = ("task_id", "run_id", "step_id", "attempt", "epoch")
    return json.dumps({name: task[name] for name in identity} | reply, allow_nan=False)


class Offsets:
    """Which records of each partition are dealt with: a commit never passes one that is not."""

    def __init__(self):
        self._lock = threading.Lock()
        self._open = {}
        self._next = {}
        self._committed = {}

    def begin(self, partition, offset):
        with self._lock:
            self._open.setdefault(partition, set()).add(offset)
            self._next[partition] = offset + 1

    def end(self, partition, offset):
        with self._lock:
            # A partition that was taken away meanwhile is somebody else's to commit.
            self._open.get(partition, set()).discard(offset)

    def forget(self, partition):
        with self._lock:
            for table in (self._open, self._next, self._committed):
                table.pop(partition, None)

    def to_commit(self, topic):
        ready = []
        with self._lock:
            for partition, following in self._next.items():
                position = min(self._open[partition], default=following)
                if self._committed.get(partition) != position:
                    self._committed[partition] = position
                    ready.append(TopicPartition(topic, partition, position))
        return ready


class Agent:
    """Takes the tasks of one agent and answers them with `handler(task, inputs, context)`."""

    def __init__(self, name, handler, brokers, prefix="partita.", concurrency=4):
        self.name = name
        self.topic = f"{prefix}tasks.{name}"
        self._handler = handler
        self._concurrency = concurrency
        self._stopping = threading.Event()
        self._running = {}
        self._answers = collections.OrderedDict()
        self._offsets = Offsets()
        self._consumer = Consumer({
            "bootstrap.servers": brokers,
            "group.id": f"{prefix}agent.{name}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            # The topic is made when a workflow first names the agent: look for it often.
            "topic.metadata.refresh.interval.ms": 5000,
        })
        self._producer = Producer({
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 0,
            # Only for tasks without the header that names the partition: as the Java clients do.
            "partitioner": "murmur2_random",
        })
        self._default_reply_topic = f"{prefix}replies"

    def stop(self, *_):
        self._stopping.set()

    def run(self):
        """Works until stop() is called."""
        self._consumer.subscribe([self.topic], on_revoke=self._revoked, on_lost=self._lost)
        workers = concurrent.futures.ThreadPoolExecutor(self._concurrency, f"{self.name}-worker")
        log.info("%s takes tasks from %s", self.name, self.topic)
        last_commit = time.monotonic()
        paused = False
        while not self._stopping.is_set():
            # As many again may wait as are worked on; with more, this worker would hold tasks back
            # from others. A paused consumer still keeps its place in the group.
            full = len(self._running) >= 2 * self._concurrency
            if full:
                self._consumer.pause(self._consumer.assignment())
            elif paused:
                self._consumer.resume(self._consumer.assignment())
            paused = full
            record = self._consumer.poll(0.02 if self._running else 0.2)
            self._producer.poll(0)
            if record is not None:
                self._take(record, workers)
            if time.monotonic() - last_commit >= COMMIT_EVERY_SECONDS:
                self._commit(asynchronous=True)
                last_commit = time.monotonic()
        self._shut_down(workers)

    def _take(self, record, workers):
        if record.error():
            # Not made yet: it will be, when a workflow names this agent.
            if record.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                log.warning("%s: %s", self.topic, record.error())
            return
        place = (record.partition(), record.offset())
        self._offsets.begin(*place)
        try:
            task = json.loads(record.value())
            task_id = task["task_id"]
        except (TypeError, ValueError, KeyError) as error:
            log.error("%s %s is not a task: %r", self.topic, place, error)
            self._offsets.end(*place)
            return
        if task.get("type") == "cancel":
            self._cancel(task)
            self._offsets.end(*place)
        elif task_id in self._running:
            # The same delivery again: its first record, which is before this one, holds the offset.
            self._offsets.end(*place)
        elif task_id in self._answers:
            log.info("task %s again: the answer of last time", task_id)
            self.send(task, dict(record.headers() or []), self._answers[task_id], place)
        else:
            headers = dict(record.headers() or [])
            context = Context(self, task, headers)
            self._running[task_id] = context
            workers.submit(self._work, task, headers, context, place)

    def _cancel(self, cancellation):
        context = self._running.get(cancellation["task_id"])
        if context is not None:
            log.info("task %s given up: %s", context.task["task_id"], cancellation.get("reason"))
            context.cancel()

    def _work(self, task, headers, context, place):
        try:
            reply = self._reply(task, context)
            if reply is None:
                self._offsets.end(*place)
            else:
                self._answer(task, headers, reply, place)
        except Exception:  # The offset stays where it is, so the task will be delivered again.
            log.exception("task %s is not answered", task["task_id"])
        finally:  # Whatever happened: the slot is free for another task.
            self._running.pop(task["task_id"], None)

    def _reply(self, task, context):
        """Has the work done: the JSON of its reply, or None where nobody waits for one any more."""
        try:
            context.check()
            output = self._handler(task["task"], task["inputs"], context)
            reply = {"status": "completed", "output": output}
        except Cancelled:
            return None
        except Failure as failure:
            reply = {"status": "failed", "error": failure.error}
        except Exception as error:  # A bug of the handler is an answer too: the workflow decides.
            log.exception("task %s", task["task_id"])
            reply = failed("error", repr(error))
        try:
            return written(task, reply)
        except (TypeError, ValueError, RecursionError) as error:
            log.error("the answer to task %s is no JSON: %s", task["task_id"], error)
            message = f"the answer is no JSON: {error}"
            return written(task, failed("validation_error", message, retryable=False))

    def _answer(self, task, headers, reply, place):
        try:
            self._remember(task["task_id"], reply)
            self.send(task, headers, reply, place)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            self._answer_too_large(task, headers, reply, place)

    def _answer_too_large(self, task, headers, reply, place):
        log.error("the answer to task %s is too large: %d bytes", task["task_id"], len(reply))
        message = f"the answer has {len(reply)} bytes, more than a record may have"
        reply = written(task, failed("payload_too_large", message, retryable=False))
        self._remember(task["task_id"], reply)
        self.send(task, headers, reply, place)

    def _remember(self, task_id, reply):
        self._answers[task_id] = reply
        while len(self._answers) > REMEMBERED_ANSWERS:
            self._answers.popitem(last=False)

    def send(self, task, headers, reply, place=None):
        """Produces one written reply; when `place` is given, its delivery ends the task's record."""
        topic = headers.get("partita-reply-topic", self._default_reply_topic.encode()).decode()
        partition = int(headers.get("partita-reply-partition", b"-1"))
        passed_on = [("content-type", b"application/json")]
        if "traceparent" in headers:
            passed_on.append(("traceparent", headers["traceparent"]))

        def delivered(error, _record):
            if error is None:
                if place is not None:
                    self._offsets.end(*place)
            elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and place is not None:
                # The topic takes less (max.message.bytes) than this client would send.
                self._answer_too_large(task, headers, reply, place)
            else:
                # The offset stays where it is, so the task will be delivered again.
                log.error("the reply to task %s was not delivered: %s", task["task_id"], error)

        while True:
            try:
                self._producer.produce(topic, reply, key=task["run_id"],
                                       partition=partition, headers=passed_on,
                                       on_delivery=delivered)
                return
            except BufferError:
                self._producer.poll(0.1)

    def _commit(self, asynchronous):
        positions = self._offsets.to_commit(self.topic)
        if not positions:
            return
        try:
            self._consumer.commit(offsets=positions, asynchronous=asynchronous)
        except KafkaException as error:
            # What is not committed is delivered again, and answered as last time.
            log.warning("commit: %s", error)

    def _revoked(self, _consumer, partitions):
        self._producer.flush(5)
        self._commit(asynchronous=False)
        self._lost(_consumer, partitions)

    def _lost(self, _consumer, partitions):
        for partition in partitions:
            self._offsets.forget(partition.partition)

    def _shut_down(self, workers):
        log.info("%s stops; %d tasks at hand", self.name, len(self._running))
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while self._running and time.monotonic() < deadline:
            self._producer.poll(0.05)
        for context in list(self._running.values()):
            context.cancel()
        workers.shutdown(wait=True)
        self._producer.flush(10)
        self._commit(asynchronous=False)
        self._consumer.close()


def analyze_market(task, inputs, context):
    """The handler of `cmo_agent`: an action it knows, with some progress on the way."""
    if task.get("action") != "analyze":
        raise Failure("validation_error", f"unknown action {task.get('action')!r}: the only one is 'analyze'",
                      retryable=False)
    seconds = float(task.get("seconds", 0.2))
    for tenth in range(1, 11):
        context.sleep(seconds / 10)
        if tenth == 5:
            context.progress(0.5, "half of the market looked at")
    return {"market": task.get("target", "market_data"), "trend": "rising", "growth": 0.12}


def forecast(task, inputs, context):
    """The handler of `cfo_agent`: works on what the step before found."""
    growth = (inputs.get("market") or {}).get("growth", 0.0)
    return {"period": task.get("period"), "revenue": round(1_000_000 * (1 + growth)), "confidence": 0.82}


def decide(task, inputs, context):
    """The handler of `ceo_agent`."""
    return {"decision": "expand", "by": "ceo_agent"}


HANDLERS = {"cmo_agent": analyze_market, "cfo_agent": forecast, "ceo_agent": decide}


def main():
    parser = argparse.ArgumentParser(description="A worker of one agent of Partita.")
    parser.add_argument("agent", choices=sorted(HANDLERS))
    parser.add_argument("--brokers", default=os.environ.get("KAFKA_BROKERS", "127.0.0.1:9092"))
    parser.add_argument("--prefix", default="partita.", help="prefix of the topics")
    parser.add_argument("--concurrency", type=int, default=4, help="tasks worked on at a time")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    agent = Agent(arguments.agent, HANDLERS[arguments.agent], arguments.brokers, arguments.prefix,
                  arguments.concurrency)
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, agent.stop)
    agent.run()


if __name__ == "__main__":
    main()
