//! How many steps wait for what, as `/metrics` tells it: right again after a restart.

use std::time::{Duration, Instant};

use crate::dev::{Dev, get};
use crate::folder;

const WITHIN: Duration = Duration::from_secs(120);

const WAITS: &str = r#"
kind: workflow
name: waits
steps:
  - {id: told, await: go}
  - {id: again, await: go}
  - id: paid
    kind: await_pattern
    match: {any: [{id: it, topic: payments}]}
"#;

fn waiting(dev: &Dev, kind: &str) -> Option<u64> {
    let line = format!("partita_steps_waiting{{kind=\"{kind}\"}} ");
    let metrics = get(&dev.api, "/metrics");
    let value = metrics.lines().find_map(|text| text.strip_prefix(&line));
    value.map(|value| value.trim().parse().expect("a whole number"))
}

fn until_waiting(dev: &Dev, signals: u64, patterns: u64) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let told = (waiting(dev, "signal"), waiting(dev, "pattern"));
        if told == (Some(signals), Some(patterns)) {
            return;
        }
        assert!(Instant::now() < deadline, "{told:?} wait");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn steps_that_wait_are_counted_over_a_restart() {
    let files = folder(&[("waits.yaml", WAITS)]);
    let data = tempfile::tempdir().expect("a folder");
    let arguments = ["--data", data.path().to_str().expect("a path")];
    let dev = Dev::start_with(&arguments, &[]);
    dev.run(&["apply", files.path().to_str().expect("a path")])
        .code(0);
    until_waiting(&dev, 0, 0);
    for id in ["one", "two"] {
        dev.run(&["run", "waits", "--id", id]).code(0);
    }
    until_waiting(&dev, 4, 2);
    // A run that is paused waits all the same.
    dev.run(&["pause", "two"]).code(0);
    dev.run(&["signal", "one", "go"]).code(0);
    until_waiting(&dev, 3, 2);
    assert_eq!(dev.interrupt(), Some(130));

    let dev = Dev::start_with(&arguments, &[]);
    until_waiting(&dev, 3, 2);
    dev.run(&["cancel", "one"]).code(0);
    until_waiting(&dev, 2, 1);
    dev.run(&["cancel", "two"]).code(0);
    until_waiting(&dev, 0, 0);
}
