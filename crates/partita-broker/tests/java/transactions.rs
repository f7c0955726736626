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
    let producer: BaseProducer = broker
        .client()
        .set("transactional.id", "transfer")
        .set("transaction.timeout.ms", "600000")
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("initialised");
    producer.begin_transaction().expect("begun");
    producer
        .send(BaseRecord::<str, str>::to("t").payload("within"))
        .map_err(|(error, _)| error)
        .expect("room in the queue");
    producer.flush(PATIENCE).expect("acknowledged");
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
    let said = broker.ask(
        Tool::ConsoleConsumer,
        &[
            "--topic",
            "t",
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            "2",
            "--timeout-ms",
            "60000",
        ],
    );
    assert_eq!(said.lines().collect::<Vec<_>>(), ["before", "within"]);
}
