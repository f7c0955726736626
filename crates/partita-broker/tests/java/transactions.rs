use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::support::{Broker, PATIENCE, Tool, assert_has, has_java, table};

#[test]
fn transactions_are_listed_and_described() {
    if !has_java("kafka-transactions") {
        return;
    }
    let broker = Broker::start();
    broker.ask(Tool::Topics, &["--create", "--topic", "t"]);
    broker.produce("t", [("key".to_owned(), "before".to_owned())]);
    let producer = in_transaction(&broker, "transfer", "within");
    let ask = |arguments: &[&str]| broker.ask(Tool::Transactions, arguments);
    let said = ask(&["list"]);
    assert_has(&said, &["transfer", "Ongoing"]);
    let said = ask(&["describe", "--transactional-id", "transfer"]);
    assert_has(&said, &["Ongoing", "600000", "t-0"]);
    let said = ask(&["describe-producers", "--topic", "t", "--partition", "0"]);
    let open = table(&said)
        .iter()
        .filter(|row| row.last() == Some(&"1"))
        .count();
    assert_eq!(open, 1, "one transaction is open since offset 1:\n{said}");
    let said = ask(&["find-hanging", "--broker-id", "1"]);
    assert_eq!(table(&said).len(), 1, "nothing but the heading:\n{said}");
    producer.commit_transaction(PATIENCE).expect("committed");
    assert_has(&ask(&["list"]), &["CompleteCommit"]);
    assert_eq!(committed(&broker, 2), ["before", "within"]);
}

#[test]
fn an_administrator_ends_transactions_that_were_left_open() {
    if !has_java("kafka-transactions abort and forceTerminateTransaction") {
        return;
    }
    let broker = Broker::start();
    broker.ask(Tool::Topics, &["--create", "--topic", "t"]);
    let ask = |arguments: &[&str]| broker.ask(Tool::Transactions, arguments);
    let left = in_transaction(&broker, "left", "lost");
    ask(&[
        "abort",
        "--topic",
        "t",
        "--partition",
        "0",
        "--start-offset",
        "0",
    ]);
    assert_has(&ask(&["list"]), &["left", "CompleteAbort"]);
    let refused = left.commit_transaction(PATIENCE);
    assert!(refused.is_err(), "it was aborted: {refused:?}");
    let left = in_transaction(&broker, "left", "lost too");
    let said = ask(&["describe", "--transactional-id", "left"]);
    assert_has(&said, &["Ongoing"]);
    ask(&["forceTerminateTransaction", "--transactionalId", "left"]);
    let said = ask(&["describe", "--transactional-id", "left"]);
    assert!(!said.contains("Ongoing"), "it was ended:\n{said}");
    let refused = left.commit_transaction(PATIENCE);
    assert!(refused.is_err(), "it was replaced: {refused:?}");
    // A successor works, and what comes after the transactions is not held back.
    let successor = in_transaction(&broker, "left", "kept");
    successor.commit_transaction(PATIENCE).expect("committed");
    assert_eq!(committed(&broker, 1), ["kept"]);
}

/// A producer that has written one record to `t` in a transaction that is still open.
fn in_transaction(broker: &Broker, id: &str, value: &str) -> BaseProducer {
    let producer: BaseProducer = broker
        .client()
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "600000")
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("initialised");
    producer.begin_transaction().expect("begun");
    producer
        .send(BaseRecord::<str, str>::to("t").payload(value))
        .map_err(|(error, _)| error)
        .expect("room in the queue");
    producer.flush(PATIENCE).expect("acknowledged");
    producer
}

/// The first committed records of `t`.
fn committed(broker: &Broker, count: usize) -> Vec<String> {
    let count = count.to_string();
    let said = broker.ask(
        Tool::ConsoleConsumer,
        &[
            "--topic",
            "t",
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            &count,
            "--timeout-ms",
            "60000",
        ],
    );
    said.lines().map(str::to_owned).collect()
}
