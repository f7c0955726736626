#!/usr/bin/env python3
"""Checks the Python agents of examples/agents/python against a broker, with no Partita in between.

The broker must not hold topics of the prefix `partita.` yet: minimal.py knows no other.

    check_agent.py HOST:PORT

Plays the orchestrator: produces task records and reads the replies. Prints one line per check and
exits with 1 at the first that fails. Every wait is bounded.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

AGENTS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "agents" / "python"
WAIT_SECONDS = 60
REPLY_PARTITION = 3
# What the topic of replies takes; the client would send 1 MB.
REPLY_BYTES = 600_000
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Orchestrator:
    """Sends tasks for one agent and reads what it answers."""

    def __init__(self, bootstrap, prefix):
        self.bootstrap = bootstrap
        self.tasks = f"{prefix}tasks.cmo_agent"
        self.replies = f"{prefix}replies"
        self.group = f"{prefix}agent.cmo_agent"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        replies = NewTopic(self.replies, 4, 1, config={"max.message.bytes": str(REPLY_BYTES)})
        for future in admin.create_topics([NewTopic(self.tasks, 2, 1), replies]).values():
            future.result(WAIT_SECONDS)
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"check-{uuid.uuid4()}",
                                   "isolation.level": "read_committed"})
        self._consumer.assign([TopicPartition(self.replies, partition, 0) for partition in range(4)])

    def task(self, task):
        run_id = f"run-{uuid.uuid4()}"
        return {"task_id": f"{run_id}.analyze_market.1", "run_id": run_id, "workflow": "strategic_planning",
                "version": 1, "step_id": "analyze_market", "agent": "cmo_agent", "attempt": 1, "epoch": 0,
                "task": task, "inputs": {}, "deadline": None}

    def produce(self, value):
        headers = [("partita-reply-topic", self.replies.encode()),
                   ("partita-reply-partition", str(REPLY_PARTITION).encode()),
                   ("traceparent", TRACE), ("content-type", b"application/json")]
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        key = value["task_id"] if isinstance(value, dict) else "poison"
        self._producer.produce(self.tasks, body, key=key, headers=headers)
        if self._producer.flush(WAIT_SECONDS):
            raise AssertionError("a task was not delivered to the broker")

    def reply(self, within=WAIT_SECONDS):
        """The next reply record, or None."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            record = self._consumer.poll(0.2)
            if record is not None and not record.error():
                return record
        return None

    def final_reply(self, task):
        """The first reply to `task` that is not a progress."""
        while True:
            record = self.reply()
            assert record is not None, f"no reply to {task['task_id']} within {WAIT_SECONDS} s"
            value = json.loads(record.value())
            if value["task_id"] == task["task_id"] and value["status"] != "progress":
                return record, value

    def uncommitted(self):
        """How many task records the agent's group has not committed."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.group})
        partitions = [TopicPartition(self.tasks, partition) for partition in range(2)]
        left = 0
        for position in consumer.committed(partitions, WAIT_SECONDS):
            _, end = consumer.get_watermark_offsets(position, WAIT_SECONDS)
            left += end - max(position.offset, 0)
        consumer.close()
        return left


def start(script, *arguments, **environment):
    return subprocess.Popen([sys.executable, str(script), *arguments], env=os.environ | environment)


def finish(process):
    process.send_signal(signal.SIGTERM)
    return process.wait(WAIT_SECONDS)


def done(what):
    print(f"ok: {what}", flush=True)


def completes(orchestrator):
    task = orchestrator.task({"action": "analyze", "target": "market_data"})
    orchestrator.produce(task)
    record = orchestrator.reply()
    assert record is not None, "no reply at all"
    progress = json.loads(record.value())
    assert (progress["status"], progress["progress"]) == ("progress", 0.5), progress
    record, reply = orchestrator.final_reply(task)
    assert reply["status"] == "completed" and reply["output"]["trend"] == "rising", reply
    for name in ("task_id", "run_id", "step_id", "attempt", "epoch"):
        assert reply[name] == task[name], (name, reply)
    assert record.key().decode() == task["run_id"], record.key()
    assert record.partition() == REPLY_PARTITION, record.partition()
    assert dict(record.headers())["traceparent"] == TRACE, record.headers()
    done("a task is completed: progress, output, identity, key, partition and trace of the reply")
    return task, reply


def answers_again(orchestrator, task, first):
    orchestrator.produce(task)
    record = orchestrator.reply()
    again = json.loads(record.value())
    assert again == first, (again, first)
    done("a task delivered twice gets the same answer, and its work is not done again")


def fails_with_a_class(orchestrator):
    task = orchestrator.task({"action": "guess"})
    orchestrator.produce(task)
    _, reply = orchestrator.final_reply(task)
    assert reply["status"] == "failed", reply
    assert reply["error"]["class"] == "validation_error" and reply["error"]["retryable"] is False, reply
    done("a task it cannot do fails with a class")


def gives_up(orchestrator):
    slow = orchestrator.task({"action": "analyze", "seconds": 600})
    orchestrator.produce(slow)
    cancellation = {name: slow[name] for name in ("task_id", "run_id", "step_id", "agent", "attempt", "epoch")}
    orchestrator.produce(cancellation | {"type": "cancel", "reason": "cancelled"})
    orchestrator.produce(b"{ not a task")
    quick = orchestrator.task({"action": "analyze"})
    orchestrator.produce(quick)
    orchestrator.final_reply(quick)
    deadline = time.monotonic() + WAIT_SECONDS
    while orchestrator.uncommitted() > 0:
        assert time.monotonic() < deadline, f"{orchestrator.uncommitted()} records stay uncommitted"
        time.sleep(0.2)
    done("a cancelled task is given up, a record that is no task is passed over, all offsets are committed")


def answers_what_it_cannot_write(bootstrap):
    """An agent whose handler gives what is no JSON or no record takes it all, with two tasks at a time."""
    prefix = f"check-{uuid.uuid4().hex[:8]}."
    orchestrator = Orchestrator(bootstrap, prefix)
    script = pathlib.Path(__file__).with_name("odd_agent.py")
    agent = start(script, bootstrap, prefix)
    try:
        for what, expected in (("set", "validation_error"), ("nan", "validation_error"), ("loop", "validation_error"),
                               ("large", "payload_too_large"), ("large for the topic", "payload_too_large"),
                               ("large failure", "payload_too_large"), ("details", "validation_error"),
                               ("progress", "error")):
            task = orchestrator.task({"give": what})
            orchestrator.produce(task)
            _, reply = orchestrator.final_reply(task)
            assert reply["status"] == "failed" and reply["error"]["class"] == expected, (what, reply)
        task = orchestrator.task({"give": "good"})
        orchestrator.produce(task)
        _, reply = orchestrator.final_reply(task)
        assert reply["status"] == "completed", reply
        assert finish(agent) == 0, agent.returncode
        assert orchestrator.uncommitted() == 0
    finally:
        if agent.poll() is None:
            agent.kill()
    done("an answer that cannot be written or is too large is a failure, and costs no slot")


def stops_and_goes_on(orchestrator, agent):
    task = orchestrator.task({"action": "analyze", "seconds": 1})
    orchestrator.produce(task)
    record = orchestrator.reply()
    assert json.loads(record.value())["status"] == "progress", record.value()
    assert finish(agent) == 0, agent.returncode
    _, reply = orchestrator.final_reply(task)
    assert reply["status"] == "completed", reply
    assert orchestrator.uncommitted() == 0
    done("on SIGTERM it finishes the task at hand, commits and exits with 0")


def minimal_completes(bootstrap):
    orchestrator = Orchestrator(bootstrap, "partita.")
    process = start(AGENTS / "minimal.py", KAFKA_BROKERS=bootstrap)
    try:
        task = orchestrator.task({"action": "analyze"})
        orchestrator.produce(task)
        _, reply = orchestrator.final_reply(task)
        assert reply["status"] == "completed" and reply["output"] == {"demand": "rising"}, reply
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)
    done("the ten lines of minimal.py complete a task")


def main():
    bootstrap = sys.argv[1]
    prefix = f"check-{uuid.uuid4().hex[:8]}."
    orchestrator = Orchestrator(bootstrap, prefix)
    agent = start(AGENTS / "agent.py", "cmo_agent", "--brokers", bootstrap, "--prefix", prefix)
    try:
        task, reply = completes(orchestrator)
        answers_again(orchestrator, task, reply)
        fails_with_a_class(orchestrator)
        gives_up(orchestrator)
        stops_and_goes_on(orchestrator, agent)
    finally:
        if agent.poll() is None:
            agent.kill()
    answers_what_it_cannot_write(bootstrap)
    minimal_completes(bootstrap)


if __name__ == "__main__":
    main()
