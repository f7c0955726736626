//! Definitions as tables: each `*.yaml` and `*.json` here is parsed, and what comes out must be what
//! stands in the `.expected` beside it: the violations, or the canonical form of each definition.
//! `UPDATE_GOLDEN=1 cargo test --test definitions` writes the expected files anew; read the
//! difference before committing it. After that, what holds for every text.

use std::path::{Path, PathBuf};

use partita::runtime::kinds::{Definition, parse};
use partita::workflow::definition::Defaults;
use proptest::prelude::*;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definitions");
    let entries = std::fs::read_dir(folder).expect("the folder of this test");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    cases.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml" || extension == "json")
    });
    cases.sort();
    cases
}

/// What comes out of a file, as the lines of its `.expected`.
fn outcome(text: &str) -> String {
    match parse(text, None, &Defaults::default()) {
        Ok(definitions) => definitions
            .iter()
            .map(|definition| format!("ok {:?}\n", definition.source))
            .collect(),
        Err(violations) => format!("{violations}\n"),
    }
}

#[test]
fn every_case_gives_what_is_expected() {
    let refresh = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differences = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 10, "the cases are missing");
    for case in cases {
        let found = outcome(&std::fs::read_to_string(&case).expect("readable"));
        let golden = case.with_extension("expected");
        if refresh {
            std::fs::write(&golden, &found).expect("writable");
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if found != expected {
            differences.push(format!(
                "{}\n--- expected\n{expected}--- found\n{found}",
                case.display()
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_valid_case_reads_back_from_its_canonical_form() {
    let mut valid = 0;
    for case in cases() {
        let text = std::fs::read_to_string(&case).expect("readable");
        for definition in parse(&text, None, &Defaults::default()).unwrap_or_default() {
            let again = parse(definition.source.as_str(), None, &Defaults::default())
                .unwrap_or_else(|violations| panic!("{}: {violations}", case.display()));
            assert_eq!(
                again[0].source.as_str(),
                definition.source.as_str(),
                "{}",
                case.display()
            );
            let program = |of: &Definition| match of.workflow() {
                Some(workflow) => format!("{:?}", workflow.steps),
                None => format!("{:?}", of.program),
            };
            assert_eq!(
                program(&again[0]),
                program(&definition),
                "{}",
                case.display()
            );
            valid += 1;
        }
    }
    assert!(valid >= 3, "the valid cases are missing");
}

#[test]
fn hostile_texts_end_in_a_violation() {
    let wrap = |expression: &str| {
        format!("kind: workflow\nname: w\nsteps: [{{id: a, agent: x, when: '{expression}'}}]\n")
    };
    let texts = [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("kind: workflow\na: {}", "- ".repeat(100_000)),
        wrap(&format!(
            "${{{}1{}}}",
            "(".repeat(100_000),
            ")".repeat(100_000)
        )),
        wrap(&format!("${{{}true}}", "!".repeat(100_000))),
        wrap(&format!("${{true{}}}", " && true".repeat(100_000))),
        format!(
            "a: &a [x]\n{}",
            (0..40)
                .map(|n| format!("b{n}: &b{n} [*a, *a]\n"))
                .collect::<String>()
        ),
        billion_laughs(),
        format!(
            "kind: workflow\nname: w\nsteps: [{}]",
            "{id: a, agent: x},".repeat(2_000)
        ),
        "x".repeat(2 * 1024 * 1024),
        "\u{0}".to_owned(),
        String::new(),
    ];
    for text in texts {
        let violations = parse(&text, None, &Defaults::default()).expect_err("it is no definition");
        assert!(!violations.0.is_empty() && violations.to_string().len() < 200_000);
    }
}

/// Aliases of aliases: ten levels of ten.
fn billion_laughs() -> String {
    let mut text = "l0: &l0 x\n".to_owned();
    for level in 1..=10 {
        let aliases = vec![format!("*l{}", level - 1); 10].join(", ");
        text.push_str(&format!("l{level}: &l{level} [{aliases}]\n"));
    }
    text
}

/// Pieces that definitions are made of, put together at random.
fn fragments() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("kind: workflow\n"),
        Just("name: w\n"),
        Just("steps:\n"),
        Just("  - id: a\n"),
        Just("    agent: x\n"),
        Just("    depends_on: [a]\n"),
        Just("    when: \"${"),
        Just("steps.a.output"),
        Just(" > 1 && "),
        Just("}\"\n"),
        Just("    switch: {cases: [{when: true, then: [a]}]}\n"),
        Just("    retry: {max_attempts: 0}\n"),
        Just("timeout: 5\n"),
        Just("---\n"),
        Just("{"),
        Just("["),
        Just("&a *a"),
        Just(": "),
        Just("\t"),
        Just("'"),
        Just("${'"),
        Just("!!str "),
        Just("é\u{feff}"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), fragments()]) {
        if let Err(violations) = parse(&text, Some("file.yaml"), &Defaults::default()) {
            prop_assert!(!violations.0.is_empty());
            for violation in &violations.0 {
                prop_assert!(violation.line >= 1 && violation.column >= 1);
            }
        }
    }

    #[test]
    fn any_json_stands_in_a_task_and_reads_back(value in json()) {
        let document = serde_json::json!({"kind": "workflow", "name": "w", "steps": [{"id": "a", "agent": "x", "task": {"value": value}}]});
        let definitions = parse(&document.to_string(), None, &Defaults::default());
        let definition = &definitions.map_err(|violations| TestCaseError::fail(violations.to_string()))?[0];
        let source: serde_json::Value = serde_json::from_str(definition.source.as_str()).expect("JSON");
        prop_assert_eq!(&source["steps"][0]["task"]["value"], &document["steps"][0]["task"]["value"]);
        let again = parse(definition.source.as_str(), None, &Defaults::default());
        let again = &again.map_err(|violations| TestCaseError::fail(violations.to_string()))?[0];
        prop_assert_eq!(again.source.as_str(), definition.source.as_str());
    }
}

/// JSON whose strings hold anything but expressions.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let text = any::<String>().prop_map(|text| text.replace('$', "€"));
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        (-1e300..1e300).prop_map(|number: f64| number.into()),
        text.clone().prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(
                text.clone()
                    .prop_filter("`<<` is refused", |key| key != "<<"),
                inner,
                0..4
            )
            .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}
