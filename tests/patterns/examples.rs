//! Events in Avro by the schemas that stand beside the examples are what the rules of the examples read.

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use partita::codec::event::AvroSchema;
use partita::runtime::kinds::{self, Definition};
use partita::runtime::replay::replay;
use partita::workflow::definition::Defaults;
use serde_json::{Value, json};

/// The workflows that the rule `name` of a file of examples starts for these events.
fn started(file: &str, name: &str, lines: &[String]) -> Vec<Value> {
    let definitions = kinds::parse(file, None, &Defaults::default()).expect("valid examples");
    let mut rules = definitions.iter().filter_map(Definition::rule);
    let rule = rules.find(|rule| *rule.name == *name).expect("the rule");
    let shown =
        replay(std::slice::from_ref(rule), &lines.join("\n"), None, 1 << 20).expect("events");
    let shown = shown.document();
    let matches = shown["matches"].as_array().expect("a list").iter();
    matches
        .map(|found| found["start"]["workflow"].clone())
        .collect()
}

/// What a rule sees of a record in Avro by this schema.
fn decoded(schema: &str, fields: Vec<(&str, Avro)>) -> Value {
    let own = Schema::parse_str(schema).expect("a schema");
    let fields = fields.into_iter();
    let record = Avro::Record(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    );
    let writer = GenericDatumWriter::builder(&own).build().expect("a writer");
    let datum = writer
        .write_value_to_vec(record)
        .expect("a record of the schema");
    let ours = AvroSchema::parse(schema).expect("a schema of events");
    let json = ours.to_json(&datum, 10_000).expect("an event");
    serde_json::from_str(&json).expect("JSON")
}

#[test]
fn an_alert_in_avro_is_routed_by_its_severity() {
    let schema = include_str!("../../schemas/anomaly-alert.avsc");
    let alert = |severity: u32, word: &str, urgency: f64, id: &str| {
        let text = |text: &str| Avro::String(text.to_owned());
        let event = decoded(
            schema,
            vec![
                ("type", text("latency_anomaly")),
                ("severity", Avro::Enum(severity, word.to_owned())),
                ("confidence", Avro::Double(0.9)),
                ("source", text("probe-3")),
                ("correlation_id", text(id)),
                ("urgency_score", Avro::Double(urgency)),
                (
                    "routing",
                    Avro::Map([("team".to_owned(), text("core"))].into()),
                ),
                ("at", Avro::Union(1, Box::new(Avro::TimestampMillis(5)))),
            ],
        );
        assert_eq!(event["routing"]["team"], "core", "{event}");
        json!({"topic": "anomaly.alerts", "ts": 1, "payload": event}).to_string()
    };
    let lines = [
        alert(3, "critical", 0.0, "a"),
        alert(2, "high", 0.8, "b"),
        alert(2, "high", 0.7, "c"),
        alert(0, "low", 1.0, "d"),
    ];
    let file = include_str!("../../examples/rules/anomaly_alerts.yaml");
    let expected = [
        json!("page_somebody"),
        json!("page_somebody"),
        json!("investigate"),
        json!(null),
    ];
    assert_eq!(started(file, "alert", &lines), expected);
}

#[test]
fn a_semantic_event_in_avro_is_routed_by_type_urgency_and_complexity() {
    let schema = include_str!("../../schemas/semantic-event.avsc");
    let event = |kind: &str, urgency: f64, complexity: f64| {
        let none = || Avro::Map(Default::default());
        let data = decoded(
            schema,
            vec![
                ("urgency", Avro::Double(urgency)),
                ("complexity", Avro::Double(complexity)),
                ("context", none()),
                ("routing", none()),
            ],
        );
        let headers = [
            "ce_specversion",
            "1.0",
            "ce_type",
            kind,
            "ce_source",
            "/desk",
        ];
        json!({"topic": "semantic.events", "ts": 1, "headers": headers, "payload": data})
            .to_string()
    };
    let lines = [
        event("customer.complaint", 0.8, 1.0),
        event("customer.complaint", 0.7, 0.4),
        event("customer.complaint", 0.7, 0.5),
        event("contract.proposed", 0.0, 0.0),
        event("lunch", 1.0, 1.0),
    ];
    let file = include_str!("../../examples/rules/semantic_events.yaml");
    let expected = [
        json!("escalate_complaint"),
        json!("answer_complaint"),
        json!("review_complaint"),
        json!("review_contract"),
        json!(null),
    ];
    assert_eq!(started(file, "semantic_event", &lines), expected);
}
