//! What expressions mean, as tables.

use serde_json::{Value, json};

use super::*;

/// Binds the members of an object by their names.
pub(super) struct Tree(pub(super) Value);

impl Bindings for Tree {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        self.0.get(path[0]).map(|value| (Json::from(value), 1))
    }
}

pub(super) const NAMES: Names<'static> = Names {
    known: &["input", "steps", "run"],
    refused: &[("vars", "is not there yet")],
};

fn data() -> Tree {
    Tree(json!({
        "input": {
            "n": 3, "x": 2.5, "big": 12345678901234567890_u64, "name": "Ada \"L\"", "flag": true, "none": null,
            "list": [1, 2.0, "three", {"four": 4}], "map": {"a b": 1, "deep": {"er": "x"}}, "text": "äöü",
            "data": "${input.n}",
        },
        "steps": {"a": {"status": "completed", "output": {"score": 0.9, "items": [{"id": 7}]}, "attempt": 1}},
        "run": {"id": "r1", "tags": {}},
    }))
}

fn render(template: Value) -> Result<Value, String> {
    let template = Template::compile(&template, &NAMES).map_err(|errors| errors[0].to_string())?;
    template
        .render(&data())
        .map(|json| json.parse::<serde_json::Value>().expect("not deep"))
        .map_err(|error| error.to_string())
}

fn holds(text: &str) -> Result<bool, String> {
    let condition = Condition::compile(text, &NAMES).map_err(|error| error.message)?;
    condition.eval(&data()).map_err(|error| error.message)
}

#[test]
fn a_whole_expression_keeps_its_type() {
    for (text, value) in [
        ("${input.n}", json!(3)),
        ("${ input.x }", json!(2.5)),
        ("${input.big}", json!(12345678901234567890_u64)),
        ("${input.flag}", json!(true)),
        ("${input.none}", json!(null)),
        ("${input.list}", json!([1, 2.0, "three", {"four": 4}])),
        ("${input.list[3].four}", json!(4)),
        ("${input.map['a b']}", json!(1)),
        ("${input.map[\"deep\"].er}", json!("x")),
        ("${steps.a.output.items[0]}", json!({"id": 7})),
        ("${input.n + 1}", json!(4)),
        ("${input.x * 2.0}", json!(5.0)),
        ("${input.x * 2 - input.n / 2}", json!(4.0)),
        ("${[input.n, 2].map(e, e * 1.5 + 1)}", json!([5.5, 4.0])),
        ("${'a' + input.name}", json!("aAda \"L\"")),
        ("${input.list.size()}", json!(4)),
        ("${input.list.filter(e, type(e) == int)}", json!([1])),
        (
            "${input.list.map(e, e)}",
            json!([1, 2.0, "three", {"four": 4}]),
        ),
        (
            "${{'k': input.n, 'a': [true, null]}}",
            json!({"a": [true, null], "k": 3}),
        ),
        ("${input.n > 2 ? 'many' : 'few'}", json!("many")),
        ("${input.data}", json!("${input.n}")),
    ] {
        assert_eq!(render(json!(text)), Ok(value), "{text}");
    }
}

#[test]
fn other_strings_are_interpolated_at_any_depth() {
    let template = json!({
        "a": ["n=${input.n}, x=${input.x}", {"b": "${input.name}!"}],
        "c": "$${input.n} costs $5 and ${input.none} ${input.map}",
        "d": "${'}'}${\"{\"}",
        "e": 7,
    });
    let expected = json!({
        "a": ["n=3, x=2.5", {"b": "Ada \"L\"!"}],
        "c": "${input.n} costs $5 and null {\"a b\":1,\"deep\":{\"er\":\"x\"}}",
        "d": "}{",
        "e": 7,
    });
    assert_eq!(render(template), Ok(expected));
}

#[test]
fn a_template_without_expressions_is_constant() {
    let compile = |value: Value| Template::compile(&value, &NAMES).expect("it compiles");
    assert!(compile(json!({"a": ["x", 1, null, "$5", "$${x}"]})).is_constant());
    assert!(!compile(json!({"a": ["${input}"]})).is_constant());
    assert_eq!(
        compile(json!([])).render(&data()),
        Ok(Json::from(json!([])))
    );
}

#[test]
fn conditions_hold_or_not() {
    for (text, expected) in [
        ("${steps.a.output.score > 0.6}", true),
        ("steps.a.output.score > 0.6 && input.n == 3", true),
        ("input.n == 3.0", true),
        ("input.n < 3.5 && input.x >= 2", true),
        ("input.n != '3'", true),
        ("!(input.flag) || input.n in [1, 2, 3]", true),
        ("2 in input.list", true),
        ("'a b' in input.map", true),
        ("'b' in input.map", false),
        (
            "input.name.startsWith('Ada') && input.name.endsWith('\"') && input.name.contains('L')",
            true,
        ),
        ("size(input.text) == 3", true),
        ("has(input.n) && !has(input.m)", true),
        ("has(input.none)", true),
        ("has(input.none.x)", false),
        ("has(steps.b.output)", false),
        ("has(input.map.deep.er)", true),
        ("has(input.m) && input.m > 1", false),
        ("input.none == null", true),
        ("input.list.exists(e, e == 'three')", true),
        ("input.list.all(e, has(input.n))", true),
        ("input.n % 2 == 1 && -input.n == -3", true),
        ("input.text.matches('^ä')", true),
        ("type(input.n) == int", true),
        ("true", true),
    ] {
        assert_eq!(holds(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    for (text, message) in [
        ("input.m > 1", "`input` has no field `m`"),
        (
            "steps.a.output.scor > 0.6",
            "`steps.a.output` has no field `scor`",
        ),
        (
            "steps.a.output.score.x == 1",
            "`steps.a.output.score` is a number, so it has no field `x`",
        ),
        (
            "input.none.x == 1",
            "`input.none` is null, so it has no field `x`",
        ),
        ("input.list[9] == 1", "`input.list` has no element 9"),
        ("has(input.n).x == 1", "a value of type bool has no fields"),
        (
            "input.n",
            "a condition must be true or false; this is an integer",
        ),
        ("input.n > 'a'", "`>` does not take int and string"),
        ("input.n / 0 == 1", "division by zero"),
        (
            "input.list.all(e, e.four == 4)",
            "a value of type string has no fields",
        ),
    ] {
        let error = holds(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn what_does_not_compile_says_where() {
    for (text, message, offset, suggestion) in [
        ("${inputs.n}", "unknown name `inputs`", 2, Some("input")),
        ("x == ${1 +}", "CEL", 10, None),
        ("${vars.x}", "`vars` is not there yet", 2, None),
        ("a ${input.n", "no matching `}`", 2, None),
        ("${}", "empty", 2, None),
        (
            "${input.n == 1 && siez(input.list) > 1}",
            "unknown function `siez`",
            18,
            Some("size"),
        ),
        (
            "${_size(input.n)}",
            "unknown function `_size`",
            2,
            Some("size"),
        ),
        (
            "${input.list.exists(e, f == 1)}",
            "unknown name `f`",
            23,
            None,
        ),
    ] {
        let error = Text::compile(text, &NAMES).expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.suggestion.as_deref(), suggestion, "{text}");
        assert_eq!(error.offset, Some(offset), "{text}: {error}");
    }
}

#[test]
fn paths_are_told_with_their_places() {
    let text = Text::compile(
        "a ${steps.a.output.x + steps['b c'].output} ${input.l.map(e, e.x + run.epoch)}",
        &NAMES,
    );
    let text = text.expect("it compiles");
    let paths: Vec<(String, usize)> = text
        .paths()
        .map(|path| (path.to_string(), path.offset))
        .collect();
    let expected = [
        ("steps.a.output.x", 4),
        ("steps[\"b c\"].output", 23),
        ("input.l", 46),
        ("run.epoch", 67),
    ];
    assert_eq!(
        paths,
        expected.map(|(path, offset)| (path.to_owned(), offset))
    );
}

#[test]
fn loops_are_bounded() {
    let list = Value::from((0..2_000).collect::<Vec<_>>());
    let bindings = Tree(json!({"input": {"list": list, "big": "x".repeat(100_000)}}));
    for text in [
        "input.list.all(a, input.list.all(b, a == a))",
        "input.list.exists(a, input.list.exists(b, a < 0))",
        "input.list.map(a, input.list.map(b, b)).size() > 0",
        "input.list.filter(a, input.list.filter(b, a > b).size() > 0).size() > 0",
        "input.list.exists_one(a, input.list.exists_one(b, a == -1))",
        "input.list.map(a, input.list.filter(b, b > 1).map(c, c)).size() > 0",
        "input.list.map(a, [input.big, input.big, input.big, input.big]).size() > 0",
    ] {
        let error = Condition::compile(text, &NAMES)
            .expect(text)
            .eval(&bindings)
            .expect_err(text);
        assert!(
            error.message.contains("too many elements"),
            "{text}: {error}"
        );
    }
    let once = Condition::compile(
        "input.list.filter(a, a % 2 == 0).map(a, a).size() == 1000",
        &NAMES,
    );
    assert_eq!(once.expect("it compiles").eval(&bindings), Ok(true));
}

#[test]
fn values_too_deep_for_the_interpreter_are_an_error() {
    let deep =
        Json::from_text(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))).expect("JSON");
    struct Deep(Json);
    impl Bindings for Deep {
        fn lookup(&self, _: &[&str]) -> Option<(Json, usize)> {
            Some((self.0.clone(), 1))
        }
    }
    let bindings = Deep(deep);
    let evaluate = |text: &str| {
        Condition::compile(text, &NAMES)
            .expect(text)
            .eval(&bindings)
    };
    assert!(
        evaluate("input == input")
            .expect_err("too deep")
            .message
            .contains("cannot be read")
    );
    assert_eq!(evaluate("has(input[0][0].x)"), Ok(false));
    assert_eq!(evaluate("size(input) == 1"), Ok(true));
}

#[test]
fn expressions_at_their_bounds_fit_a_small_stack() {
    let chain = |link: &str, times: usize| format!("1{}", link.repeat(times));
    let nest = |open: &str, close: &str| {
        format!("{}1{}", open.repeat(MAX_NESTING), close.repeat(MAX_NESTING))
    };
    let texts = vec![
        nest("(", ")"),
        nest("[", "]"),
        nest("{1:", "}"),
        nest("size(", ")"),
        nest("[1].map(a, ", ")"),
        chain("+1", MAX_TOKENS),
        chain("?1:1", MAX_TOKENS / 2),
        chain("&&1", MAX_TOKENS / 2),
        format!("{}true", "!".repeat(MAX_TOKENS - 1)),
        format!("{}1", "-".repeat(MAX_TOKENS)),
        format!("input{}", ".a".repeat(MAX_TOKENS / 2 - 1)),
        format!("input{}", "[0]".repeat(MAX_TOKENS - 1)),
        format!("'a'{}", ".size()".repeat(MAX_TOKENS / 3 - 1)),
    ];
    let check = move || {
        let mut compiled = 0;
        for text in texts {
            if let Ok(condition) = Condition::compile(&text, &NAMES) {
                compiled += 1;
                drop(condition.eval(&data()));
            }
        }
        assert!(
            compiled >= 8,
            "only {compiled} of them compile, so they are no test of the bounds"
        );
    };
    let thread = std::thread::Builder::new()
        .stack_size(1024 * 1024)
        .spawn(check)
        .expect("a thread");
    thread.join().expect("no overflow");
}

#[test]
fn compiled_forms_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Template>();
    shared::<Condition>();
}

#[test]
fn lists_of_numbers_have_a_sum_an_average_and_extremes() {
    for (text, value) in [
        ("${sum([1, 2, 3])}", json!(6)),
        ("${[1, 2.5].sum()}", json!(3.5)),
        ("${sum([])}", json!(0)),
        ("${avg([1, 2])}", json!(1.5)),
        ("${min([3, 1, 2])}", json!(1)),
        ("${[3, 1.5, 2].max()}", json!(3.0)),
        (
            "${max([9007199254740993, 9007199254740992])}",
            json!(9_007_199_254_740_993_i64),
        ),
        ("${sum(input.list.filter(e, type(e) == int))}", json!(1)),
        ("${sum(steps.a.output.items.map(i, i.id)) + 1}", json!(8)),
    ] {
        assert_eq!(render(json!(text)), Ok(value), "{text}");
    }
    for (text, words) in [
        ("${avg([])}", "the list is empty"),
        ("${min([])}", "the list is empty"),
        ("${sum(['a'])}", "no number"),
        ("${max(input.n)}", "a list of numbers"),
        ("${sum([9223372036854775807, 1])}", "too large"),
    ] {
        let error = render(json!(text)).expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}
