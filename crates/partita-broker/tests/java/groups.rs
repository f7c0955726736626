use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::{Broker, Tool, assert_has, assert_refused, has_java, table, wait_until};

fn member(broker: &Broker, client_id: &str) -> BaseConsumer {
    let consumer: BaseConsumer = broker
        .client()
        .set("group.id", "readers")
        .set("client.id", client_id)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&["t"]).expect("subscribes");
    consumer
}

fn owned(consumer: &BaseConsumer) -> usize {
    consumer.poll(Duration::from_millis(20));
    consumer.assignment().map_or(0, |list| list.count())
}

#[test]
fn groups_with_members_are_shown_and_protected() {
    if !has_java("kafka-consumer-groups and kafka-groups on a group with members") {
        return;
    }
    let broker = Broker::start();
    broker.ask(
        Tool::Topics,
        &["--create", "--topic", "t", "--partitions", "4"],
    );
    // The second comes first: it has all partitions before the other joins.
    let two = member(&broker, "two");
    wait_until("one member has all partitions", || owned(&two) == 4);
    let one = member(&broker, "one");
    // Both are polled each time: a member that is not polled keeps the others waiting.
    wait_until("two members share four partitions", || {
        (owned(&one), owned(&two)) == (2, 2)
    });
    let ask = |arguments: &[&str]| broker.ask(Tool::ConsumerGroups, arguments);
    assert_eq!(ask(&["--list"]).trim(), "readers");
    let said = ask(&["--describe", "--group", "readers", "--members", "--verbose"]);
    let rows = table(&said);
    let of = |client: &str| {
        let mut rows = rows.iter();
        let found = rows.find(|row| row.contains(&client));
        found
            .unwrap_or_else(|| panic!("no {client} in:\n{said}"))
            .join(" ")
    };
    assert!(
        of("one").contains("t:") && of("two").contains("t:"),
        "{said}"
    );
    let said = ask(&["--describe", "--group", "readers", "--state"]);
    assert_has(&said, &["Stable", "cooperative-sticky"]);
    let said = broker.ask(Tool::Groups, &["--list"]);
    assert_has(&said, &["readers", "Classic", "consumer"]);
    let run = |arguments: &[&str]| broker.run(Tool::ConsumerGroups, arguments);
    assert_refused(&run(&["--delete", "--group", "readers"]), &["not empty"]);
    let reset = [
        "--reset-offsets",
        "--group",
        "readers",
        "--topic",
        "t",
        "--to-latest",
        "--execute",
    ];
    assert_refused(&run(&reset), &["inactive"]);
    let said = run(&["--delete-offsets", "--group", "readers", "--topic", "t"]);
    assert_refused(&said, &["subscribed"]);
    drop((one, two));
    wait_until("the group is empty", || {
        ask(&["--describe", "--group", "readers", "--state"]).contains("Empty")
    });
}

#[test]
fn offsets_of_an_idle_group_are_moved_and_deleted() {
    if !has_java("kafka-consumer-groups on an idle group, the console consumer in a group") {
        return;
    }
    let mut broker = Broker::start();
    broker.ask(Tool::Topics, &["--create", "--topic", "t"]);
    broker.produce("t", (0..10).map(|n| (n.to_string(), format!("value {n}"))));
    let said = broker.ask(
        Tool::ConsoleConsumer,
        &[
            "--topic",
            "t",
            "--group",
            "g",
            "--from-beginning",
            "--max-messages",
            "10",
            "--timeout-ms",
            "60000",
        ],
    );
    assert_eq!(said.lines().count(), 10, "{said}");
    let offset = |broker: &Broker| {
        let said = broker.ask(Tool::ConsumerGroups, &["--describe", "--group", "g"]);
        let rows = table(&said);
        let row = rows.iter().find(|row| row.starts_with(&["g", "t", "0"]));
        row.unwrap_or_else(|| panic!("no offset in:\n{said}"))[3].to_owned()
    };
    assert_eq!(offset(&broker), "10");
    let reset = [
        "--reset-offsets",
        "--group",
        "g",
        "--topic",
        "t",
        "--execute",
    ];
    let shift = [&reset[..], &["--shift-by", "-3"]].concat();
    broker.ask(Tool::ConsumerGroups, &shift);
    broker.kill_and_restart();
    assert_eq!(offset(&broker), "7", "offsets survive the broker");
    let said = broker.ask(
        Tool::ConsoleConsumer,
        &[
            "--topic",
            "t",
            "--group",
            "g",
            "--max-messages",
            "3",
            "--timeout-ms",
            "60000",
        ],
    );
    assert_has(&said, &["value 7", "value 8", "value 9"]);
    let ask = |arguments: &[&str]| broker.ask(Tool::ConsumerGroups, arguments);
    assert_has(
        &ask(&["--delete-offsets", "--group", "g", "--topic", "t"]),
        &["Successful"],
    );
    let earliest = [&reset[..], &["--to-earliest"]].concat();
    ask(&earliest);
    assert_eq!(offset(&broker), "0");
    assert_has(&ask(&["--delete", "--group", "g"]), &["was successful"]);
    assert_eq!(ask(&["--list"]).trim(), "");
}
