//! What a valid definition becomes.

use super::*;
use crate::model::Millis;
use crate::workflow::program::{Action, StepKind};

const STRATEGIC_PLANNING: &str = r#"
kind: workflow
name: strategic_planning
version: 1
timeout: 5m
retry: {max_attempts: 3, backoff: {initial: 1s, multiplier: 2, max: 1m}, retry_on: [timeout, connection_error]}
steps:
  - id: analyze_market
    agent: cmo_agent
    task: {action: analyze, target: market_data}
  - id: financial_forecast
    agent: cfo_agent
    depends_on: [analyze_market]
    task: {action: forecast, period: Q2}
    inputs: {market: "${steps.analyze_market.output}"}
  - id: strategic_decision
    agent: ceo_agent
    depends_on: [analyze_market, financial_forecast]
    when: "${steps.financial_forecast.output.confidence > 0.6}"
    on_error: {timeout: retry, validation_error: skip, critical_error: fail}
output: {decision: "${steps.strategic_decision.output}"}
"#;

fn parse_one(text: &str) -> Definition {
    let mut definitions =
        parse(text, None, &Defaults::default()).unwrap_or_else(|violations| panic!("{violations}"));
    assert_eq!(definitions.len(), 1);
    definitions.remove(0)
}

#[test]
fn a_workflow_is_read_whole() {
    let definition = parse_one(STRATEGIC_PLANNING);
    assert_eq!(
        (&*definition.name, definition.version),
        ("strategic_planning", 1)
    );
    let workflow = &definition.workflow;
    assert_eq!(workflow.timeout, Some(Millis(300_000)));
    let ids: Vec<&str> = workflow.steps.iter().map(|step| &*step.id).collect();
    assert_eq!(
        ids,
        ["analyze_market", "financial_forecast", "strategic_decision"]
    );
    assert_eq!(workflow.by_id["strategic_decision"], 2);
    assert_eq!(workflow.steps[2].depends_on, [0, 1]);
    assert_eq!(workflow.steps[0].dependants, [1, 2]);
    let decision = &workflow.steps[2];
    assert!(decision.when.is_some());
    assert_eq!(
        decision.on_error.action("validation_error"),
        Some(Action::Skip)
    );
    assert_eq!(decision.on_error.action("other"), None);
    assert_eq!(
        decision.retry.retry_on,
        Some(vec!["timeout".to_owned(), "connection_error".to_owned()])
    );
    let StepKind::Agent {
        agent,
        task,
        inputs,
    } = &workflow.steps[1].kind
    else {
        panic!("an agent step")
    };
    assert_eq!(&**agent, "cfo_agent");
    assert!(task.is_constant() && !inputs.is_constant());
    assert!(workflow.output.is_some());
}

#[test]
fn the_canonical_form_reads_back_to_itself() {
    let first = parse_one(STRATEGIC_PLANNING);
    let second = parse_one(first.source.as_str());
    assert_eq!(first.source.as_str(), second.source.as_str());
    assert_eq!(
        format!("{:?}", first.workflow.steps),
        format!("{:?}", second.workflow.steps)
    );
}

#[test]
fn aliases_say_the_same_as_their_names() {
    let names = "kind: workflow\nname: w\ntimeout: 90s\nsteps:\n\
        - {id: a, agent: x, retry: {max_attempts: 3, backoff: {multiplier: 3}}}\n\
        - {id: b, agent: y, depends_on: [a], timeout: 1500ms, retry: {max_attempts: 1}}\n";
    let aliases = "kind: workflow\nname: w\nversion: 1\ntimeout_seconds: 90\nsteps:\n\
        - {step_id: a, agent_id: x, retry_config: {retry_count: 2, backoff_multiplier: 3}}\n\
        - {step_id: b, agent_type: y, dependencies: [a], timeout_seconds: 1.5, retry_count: 0}\n";
    let (names, aliases) = (parse_one(names), parse_one(aliases));
    assert_eq!(names.source.as_str(), aliases.source.as_str());
    assert_eq!(names.workflow.steps[0].retry.max_attempts, 3);
    assert_eq!(names.workflow.steps[1].timeout, Some(Millis(1_500)));
}

#[test]
fn retries_merge_key_by_key() {
    let text = "kind: workflow\nname: w\nretry: {max_attempts: 5, backoff: {initial: 2s}}\nsteps:\n\
        - {id: a, agent: x, retry: {backoff: {max: 10s}, retry_on: [timeout]}}\n- {id: b, agent: x}\n";
    let workflow = parse_one(text).workflow;
    let (a, b) = (&workflow.steps[0].retry, &workflow.steps[1].retry);
    assert_eq!(
        (a.max_attempts, a.backoff.initial, a.backoff.max),
        (5, Millis(2_000), Millis(10_000))
    );
    assert_eq!(a.retry_on, Some(vec!["timeout".to_owned()]));
    assert_eq!(
        (b.max_attempts, b.backoff.multiplier, b.backoff.max),
        (5, 2.0, Millis(60_000))
    );
}

#[test]
fn a_switch_guards_the_steps_it_leads_to() {
    let text = r#"
kind: workflow
name: routed
steps:
  - {id: score, agent: scorer}
  - id: route
    depends_on: [score]
    switch:
      cases:
        - {name: high, when: "${steps.score.output.value > 0.8}", then: [approve]}
        - {when: "${steps.score.output.value > 0.5}", then: [review, notify]}
      default: [reject, notify]
  - {id: approve, agent: a}
  - {id: review, agent: a, inputs: {score: "${steps.score.output}", branch: "${steps.route.output.branch}"}}
  - {id: notify, agent: a}
  - {id: reject, agent: a}
"#;
    let workflow = parse_one(text).workflow;
    let step = |id: &str| &workflow.steps[workflow.by_id[id]];
    assert_eq!(step("approve").guarded_by, [(1, 0)]);
    assert_eq!(step("notify").guarded_by, [(1, 1), (1, 2)]);
    assert_eq!(step("notify").depends_on, [1]);
    assert_eq!(step("route").dependants, [2, 3, 4, 5]);
    let StepKind::Switch { cases, default } = &step("route").kind else {
        panic!("a switch")
    };
    assert_eq!(cases[0].name.as_deref(), Some("high"));
    assert_eq!(
        (&cases[1].then[..], &default[..]),
        (&[3, 4][..], &[5, 4][..])
    );
}

#[test]
fn many_documents_and_json_are_read() {
    let many = "---\nkind: workflow\nname: a\nsteps: [{id: s, agent: x}]\n---\n---\nkind: workflow\nname: b\nsteps: [{id: s, agent: x}]\n";
    let names: Vec<_> = parse(many, None, &Defaults::default())
        .expect("valid")
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert_eq!(names, [Arc::from("a"), Arc::from("b")]);
    let json = "{\n\t\"kind\":\"workflow\",\"name\":\"j\",\n\t\"steps\":[\n\t\t{\"id\":\"s\",\"agent\":\"x\",\"task\":{\"url\":\"http:\\/\\/a\",\"e\":\"\\ud83d\\ude00\\u0007\"}}\n\t]\n}\n";
    let definition = parse_one(json);
    assert!(
        definition
            .source
            .as_str()
            .contains(r#""task":{"e":"😀\u0007","url":"http://a"}"#),
        "{:?}",
        definition.source
    );
    assert_eq!(
        parse_one(definition.source.as_str()).source.as_str(),
        definition.source.as_str()
    );
}

#[test]
fn the_readme_names_every_key_of_a_definition() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("\n## Definitions\n").expect("a section");
    let (section, _) = rest.split_once("\n### ").expect("its end");
    for field in [
        document::WORKFLOW_FIELDS,
        step::STEP_FIELDS,
        step::SWITCH_FIELDS,
        step::CASE_FIELDS,
        retry::RETRY_FIELDS,
        retry::BACKOFF_FIELDS,
    ]
    .into_iter()
    .flatten()
    {
        for name in [&field.name].into_iter().chain(field.aliases) {
            let mut words = section.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            assert!(words.any(|word| word == *name), "README.md lacks `{name}`");
        }
    }
}
