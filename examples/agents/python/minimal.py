import json, os
from confluent_kafka import Consumer, Producer
kafka = {"bootstrap.servers": os.environ.get("KAFKA_BROKERS", "127.0.0.1:9092")}
tasks = Consumer(kafka | {"group.id": "minimal", "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
replies = Producer(kafka | {"partitioner": "murmur2_random"})
tasks.subscribe(["partita.tasks.cmo_agent"])
while True:
    record = tasks.poll(1)
    if record and not record.error() and (task := json.loads(record.value())).get("type") != "cancel":
        reply = {name: task[name] for name in ("task_id", "run_id", "step_id", "attempt", "epoch")}
        replies.produce("partita.replies", json.dumps(reply | {"status": "completed", "output": {"demand": "rising"}}), key=task["run_id"])
        replies.flush()
