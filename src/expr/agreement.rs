//! The lowered tree and the interpreter must agree wherever the tree answers at all, and no text
//! may harm either.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::expression::Expression;
use super::tests::{NAMES, Tree};
use super::*;

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        8 => (-7i64..8).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        2 => prop_oneof![
            Just(0.5),
            Just(-0.0),
            Just(2.0),
            Just(1e300),
            Just(9.007199254740993e15)
        ]
        .prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => "[ab\"\\\\é]{0,3}".prop_map(Value::from),
    ]
}

/// Fields `a` to `d` of any type; `e` is never there.
fn data() -> impl Strategy<Value = Value> {
    let field = prop_oneof![
        4 => scalar(),
        1 => prop::collection::vec(scalar(), 0..4).prop_map(Value::from),
        1 => scalar().prop_map(|inner| json!({"a": inner, "é": 1})),
    ];
    prop::collection::vec(field, 4).prop_map(|fields| {
        let named = ["a", "b", "c", "d"].into_iter().zip(fields);
        json!({"input": Value::Object(named.map(|(name, value)| (name.to_owned(), value)).collect())})
    })
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("null".to_owned()),
        1 => any::<bool>().prop_map(|value| value.to_string()),
        6 => (-7i64..8).prop_map(|value| value.to_string()),
        2 => prop_oneof![
            Just("0.5"),
            Just("-0.0"),
            Just("2.0"),
            Just("9007199254740993")
        ]
        .prop_map(str::to_owned),
        2 => "[abé]{0,2}".prop_map(|text| format!("'{text}'")),
    ]
}

fn expression() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        8 => "[a-d]".prop_map(|name| format!("input.{name}")),
        1 => "[a-e]".prop_map(|name| format!("input.{name}.a")),
        1 => "[a-d]".prop_map(|name| format!("input.{name}[1]")),
        1 => Just("input.e".to_owned()),
    ];
    let leaf = prop_oneof![path.clone(), literal()];
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let binary = prop::sample::select(vec![
            "==", "!=", "<", "<=", ">", ">=", "&&", "||", "+", "-", "*", "/", "%", "in",
        ]);
        let method = prop::sample::select(vec!["startsWith", "endsWith", "contains"]);
        prop_oneof![
            4 => (inner.clone(), binary, inner.clone()).prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            1 => inner.clone().prop_map(|part| format!("!({part})")),
            1 => inner.clone().prop_map(|part| format!("size({part})")),
            1 => (inner.clone(), method, inner.clone()).prop_map(|(text, method, part)| format!("({text}).{method}({part})")),
            1 => (inner.clone(), literal(), literal()).prop_map(|(needle, one, two)| format!("({needle} in [{one}, {two}])")),
            1 => (inner.clone(), inner.clone(), inner).prop_map(|(on, then, otherwise)| format!("({on} ? {then} : {otherwise})")),
            1 => "[a-e]".prop_map(|name| format!("has(input.{name})")),
        ]
    })
}

/// Pieces of CEL, put together without sense.
fn nonsense() -> impl Strategy<Value = String> {
    let pieces = vec![
        "input",
        ".a",
        ".b",
        "[0]",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "'",
        "\"",
        "'''",
        "r'",
        "b'x'",
        "\\",
        "1",
        "0x1F",
        "1u",
        "2.5e3",
        "-9223372036854775808",
        "9223372036854775808",
        "null",
        "true",
        " in ",
        " && ",
        "||",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "?",
        ":",
        ",",
        "==",
        "<",
        ".map(e, e)",
        ".filter(e, ",
        ".all(e, ",
        ".exists_one(input, ",
        "has(",
        "size(",
        "int(",
        "duration('1h')",
        "timestamp('2026-01-01T00:00:00Z')",
        "type(",
        "string(",
        ".matches('(')",
        ".startsWith(",
        "google.protobuf.Any{",
        ".?a",
        "`a-b`",
        "//",
        "é",
        "\n",
        "\u{0}",
        "@0",
        "e",
        "int",
        "dyn(",
    ];
    prop::collection::vec(prop::sample::select(pieces), 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_and_the_interpreter_agree(text in expression(), data in data()) {
        let bindings = Tree(data);
        let compiled = Expression::compile(&text, &NAMES).map_err(|error| TestCaseError::fail(error.to_string()))?;
        // Lists and objects pass through the tree as the text that they are in the data.
        if let Some(lowered) = compiled.lowered_json(&bindings).filter(|json| !json.starts_with(['[', '{'])) {
            prop_assert_eq!(Ok(lowered), compiled.interpreted_json(&bindings), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_the_compiler_or_the_evaluation_panic(
        text in prop_oneof![4 => nonsense(), 1 => any::<String>()],
        data in data(),
    ) {
        let bindings = Tree(data);
        for text in [text.clone(), format!("x ${{{text}}} y")] {
            if let Ok(condition) = Condition::compile(&text, &NAMES) {
                let _ = condition.eval(&bindings);
            }
            if let Ok(template) = Template::compile(&Value::from(text), &NAMES) {
                let _ = template.render(&bindings);
            }
        }
    }
}
