//! Verbs that ask a server, against one that gives fixed answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::{Ended, folder, run};

/// Serves one answer for each (method, path) for as long as the test lasts.
pub struct Server {
    url: String,
}

impl Server {
    pub fn answering(routes: &'static [(&'static str, u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, routes);
            }
        });
        Self { url }
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["--api", self.url.as_str()];
        all.extend(arguments);
        run(&all)
    }
}

fn answer(stream: TcpStream, routes: &[(&str, u16, &str)]) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().unwrap_or(0);
        }
        if first.is_empty() {
            first = line;
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    let wanted = first.rsplit_once(' ').map_or("", |(wanted, _)| wanted);
    let (status, body) = routes.iter().find(|(route, ..)| *route == wanted).map_or(
        (404, r#"{"title":"Not found","detail":"no such thing"}"#),
        |(_, status, body)| (*status, *body),
    );
    let kind = if body.starts_with("id:") {
        "text/event-stream"
    } else {
        "application/json"
    };
    let _ = write!(
        reader.get_mut(),
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

const RUN: &str = r#"{"id":"r1","workflow":"w","version":2,"status":"completed","progress":1,"output":{"z":1,"a":2},"error":null,"tags":{"team":"a"},"created_at":"2026-11-21T06:00:00.000Z","started_at":"2026-11-21T06:00:00.000Z","ended_at":"2026-11-21T06:00:01.500Z","waiting_for":[],"steps":[{"id":"first","status":"completed","agent":"echo","attempt":1,"scheduled_at":"2026-11-21T06:00:00.000Z","ended_at":"2026-11-21T06:00:00.085Z","output":{"ok":true},"error":null}]}"#;
const FAILED: &str = r#"{"id":"f1","workflow":"w","version":2,"status":"failed","progress":0.5,"output":null,"error":{"class":"timeout","message":"too slow","step":"first"},"tags":{},"created_at":"2026-11-21T06:00:00.000Z","steps":[]}"#;
const RUNNING: &str = r#"{"id":"g1","workflow":"w","version":2,"status":"running","progress":0.5,"output":null,"error":null,"tags":{},"created_at":"2026-11-21T06:00:00.000Z","waiting_for":[{"kind":"task","step":"first","agent":"echo"}],"steps":[]}"#;

const WAITING: &str = r#"{"id":"s1","workflow":"w","version":2,"status":"running","progress":0.5,"output":null,"error":null,"tags":{},"created_at":"2026-11-21T06:00:00.000Z","waiting_for":[{"kind":"signal","step":"approval","signal":"approved","agent":null,"since":"2026-11-21T06:00:00.000Z","until":null},{"kind":"pattern","step":"paid","signal":null,"key":["o-1",5],"agent":null,"since":"2026-11-21T06:00:00.000Z","until":null}],"signals":[{"name":"note","id":null,"received_at":"2026-11-21T06:00:00.000Z"},{"name":"paid","id":"p-1","received_at":"2026-11-21T06:00:00.000Z"}],"steps":[]}"#;

#[test]
fn status_shows_the_run_and_its_steps() {
    let server = Server::answering(&[
        ("GET /v1/runs/s1", 200, WAITING),
        ("GET /v1/runs/r1", 200, RUN),
        ("GET /v1/runs/g1", 200, RUNNING),
    ]);
    let shown = server.run(&["status", "r1"]).code(0).stdout;
    assert!(
        shown.contains("workflow  w@2") && shown.contains("status    completed  100 %"),
        "{shown}"
    );
    assert!(
        shown.contains("took 1.5s") && shown.contains("85ms") && shown.contains("{\"ok\":true}"),
        "{shown}"
    );
    let shown = server.run(&["status", "g1"]).code(0).stdout;
    assert!(
        shown.contains("waits     task of step first at echo"),
        "{shown}"
    );
    let shown = server.run(&["status", "s1"]).code(0).stdout;
    for line in [
        "waits     signal approved of step approval since 2026-11-21T06:00:00.000Z",
        "waits     pattern of step paid since 2026-11-21T06:00:00.000Z for \"o-1\", 5",
        "signals   note, paid",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    // JSON is what the server said, in its order; YAML is the same.
    assert_eq!(
        server
            .run(&["status", "r1", "--json"])
            .code(0)
            .stdout
            .trim_end(),
        RUN
    );
    assert!(
        server
            .run(&["status", "r1", "-o", "yaml"])
            .code(0)
            .stdout
            .contains("workflow: w\n")
    );
    // What is no id could lead elsewhere.
    for arguments in [
        &["status", ".."][..],
        &["history", "."],
        &["pause", "a/b"],
        &["signal", "", "go"],
        &["history", "..", "--follow"],
    ] {
        let ended = server.run(arguments).code(2);
        assert!(ended.stderr.contains("is not a run id"), "{}", ended.stderr);
    }
    assert!(
        server
            .run(&["status", "nobody"])
            .code(4)
            .stderr
            .contains("no such thing")
    );
}

#[test]
fn waiting_for_a_run_tells_how_it_ended() {
    let server = Server::answering(&[
        ("POST /v1/runs", 201, RUNNING),
        ("GET /v1/runs/r1", 200, RUN),
        ("GET /v1/runs/f1", 200, FAILED),
        ("GET /v1/runs/g1", 200, RUNNING),
    ]);
    assert_eq!(
        server.run(&["run", "w", "--id", "g1"]).code(0).stdout,
        "g1\n"
    );
    server.run(&["run", "w", "--id", "r1", "--wait"]).code(0);
    let ended = server
        .run(&["run", "w@2", "--id", "f1", "--wait", "30s", "--json"])
        .code(1);
    assert!(
        ended.stderr.contains("run f1 failed: timeout: too slow"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.json()["error"]["class"], "timeout");
    let ended = server
        .run(&["run", "w", "--id", "g1", "--wait", "200ms"])
        .code(1);
    assert!(
        ended.stderr.contains("run g1 is still running"),
        "{}",
        ended.stderr
    );
}

#[test]
fn refusals_have_their_exit_codes() {
    let server = Server::answering(&[
        (
            "POST /v1/runs",
            409,
            r#"{"title":"Conflict","detail":"taken by another start"}"#,
        ),
        (
            "POST /v1/runs/a:pause",
            409,
            r#"{"title":"Conflict","detail":"it has ended"}"#,
        ),
        ("POST /v1/runs/b:pause", 200, RUNNING),
        (
            "POST /v1/runs/c:signal",
            409,
            r#"{"title":"Conflict","detail":"run `c` is completed"}"#,
        ),
        (
            "POST /v1/runs/d:signal",
            429,
            r#"{"title":"Too many","detail":"100 signals wait"}"#,
        ),
        ("POST /v1/runs/g1:signal", 200, RUNNING),
        (
            "GET /v1/runs?limit=50",
            503,
            r#"{"title":"Unavailable","detail":"restoring"}"#,
        ),
        ("GET /v1/runs?limit=7", 500, "oops"),
    ]);
    assert!(
        server
            .run(&["run", "w"])
            .code(4)
            .stderr
            .contains("taken by another start")
    );
    // All are tried, the first refusal decides.
    let ended = server.run(&["pause", "a", "b"]).code(4);
    assert!(ended.stdout.contains("g1  running"), "{}", ended.stdout);
    server.run(&["signal", "c", "go", "--data", "{}"]).code(4);
    server.run(&["signal", "d", "go"]).code(3);
    server.run(&["signal", "nobody", "go"]).code(4);
    server.run(&["signal", "g1", "go", "--data", "{"]).code(2);
    let sent = server
        .run(&["signal", "g1", "go", "--signal-id", "s-1", "--data", "[1]"])
        .code(0);
    assert!(sent.stdout.contains("g1  running"), "{}", sent.stdout);
    let sent = server.run(&["signal", "g1", "go", "-o", "json"]).code(0);
    assert_eq!(sent.stdout.trim_end(), RUNNING);
    server.run(&["list"]).code(3);
    server.run(&["list", "--limit", "7"]).code(1);
}

#[test]
fn a_history_that_is_not_whole_says_so() {
    const CUT: &str = r#"{"events":[{"type":"partita.run.started","sequence":"0000000001","time":"2026-11-21T06:00:00.000Z","data":{}}],"complete":false}"#;
    let server = Server::answering(&[
        ("GET /v1/runs/cut/events", 200, CUT),
        (
            "GET /v1/runs/all/events",
            200,
            r#"{"events":[],"complete":true}"#,
        ),
    ]);
    server.run(&["history", "all"]).code(0);
    let shown = server.run(&["history", "cut"]).code(1);
    assert!(shown.stdout.contains("run.started"), "{}", shown.stdout);
    let words = "the history is incomplete, with 1 of its events";
    assert!(shown.stderr.contains(words), "{}", shown.stderr);
    let told = server.run(&["history", "cut", "--json"]).code(1);
    assert_eq!(told.stdout.trim_end(), CUT);
    assert!(told.stderr.contains(words), "{}", told.stderr);
}

#[test]
fn a_history_is_followed_to_the_end_of_the_run() {
    let stream = "id: r1/1\ndata: {\"type\":\"partita.run.started\",\"sequence\":\"0000000001\",\"time\":\"t\",\"data\":{}}\n\n\
        id: r1/2\ndata: {\"type\":\"partita.run.completed\",\"sequence\":\"0000000002\",\"time\":\"t\",\"data\":{\"output\":1}}\n\n";
    let routes: &'static [_] = Box::leak(Box::new([(
        "GET /v1/runs/r1/events",
        200,
        &*Box::leak(stream.to_owned().into_boxed_str()),
    )]));
    let server = Server::answering(routes);
    let lines = server
        .run(&["history", "r1", "--follow", "--json"])
        .code(0)
        .stdout;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert!(
        lines
            .lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    );
    let shown = server.run(&["history", "r1", "--follow"]).code(0).stdout;
    assert!(
        shown.contains("run.started") && shown.contains("run.completed"),
        "{shown}"
    );
}

#[test]
fn lists_are_tables_or_what_the_server_said() {
    let page = r#"{"runs":[{"id":"r1","workflow":"w","version":2,"status":"completed","progress":1,"created_at":"x","ended_at":null}],"next_cursor":"abc"}"#;
    let routes: &'static [_] = Box::leak(Box::new([(
        "GET /v1/runs?limit=1&workflow=w&tag=a%3Ab",
        200,
        page,
    )]));
    let server = Server::answering(routes);
    let one = ["list", "--workflow", "w", "--tag", "a=b", "--limit", "1"];
    let ended = server.run(&one).code(0);
    assert!(
        ended.stdout.starts_with("RUN  WORKFLOW  STATUS"),
        "{}",
        ended.stdout
    );
    assert!(ended.stderr.contains("--cursor abc"), "{}", ended.stderr);
    let told = server.run(&[&one[..], &["--json"]].concat()).code(0);
    assert_eq!(told.stdout.trim_end(), page);
}

#[test]
fn a_list_goes_on_behind_a_page_that_ended_early() {
    let server = Server::answering(&[
        (
            "GET /v1/runs?limit=3",
            200,
            r#"{"runs":[{"id":"r1"}],"next_cursor":"aa"}"#,
        ),
        (
            "GET /v1/runs?limit=2&cursor=aa",
            200,
            r#"{"runs":[{"id":"r2"},{"id":"r3"}],"next_cursor":"bb"}"#,
        ),
        (
            "GET /v1/runs?limit=50&cursor=bb",
            200,
            r#"{"runs":[{"id":"r4"}],"next_cursor":"cc"}"#,
        ),
        (
            "GET /v1/runs?limit=49&cursor=cc",
            200,
            r#"{"runs":[],"next_cursor":null}"#,
        ),
    ]);
    let told = server.run(&["list", "--limit", "3", "--json"]).code(0);
    assert_eq!(
        told.stdout.trim_end(),
        r#"{"runs":[{"id":"r1"},{"id":"r2"},{"id":"r3"}],"next_cursor":"bb"}"#
    );
    let told = server.run(&["list", "--cursor", "bb", "--json"]).code(0);
    assert_eq!(
        told.stdout.trim_end(),
        r#"{"runs":[{"id":"r4"}],"next_cursor":null}"#
    );
    let shown = server.run(&["list", "--limit", "3"]).code(0);
    assert_eq!(shown.stdout.lines().count(), 4, "{}", shown.stdout);
    assert!(shown.stderr.contains("--cursor bb"), "{}", shown.stderr);
}

#[test]
fn what_an_apply_came_to_is_a_word() {
    let server = Server::answering(&[
        (
            "PUT /v1/definitions/workflow/taken@1",
            409,
            r#"{"title":"Conflict","detail":"version 1 is another"}"#,
        ),
        ("PUT /v1/definitions/workflow/fresh@1", 201, "{}"),
    ]);
    let definition =
        |name: &str| format!("kind: workflow\nname: {name}\nsteps:\n  - {{id: a, agent: echo}}\n");
    let files = folder(&[
        ("a.yaml", &definition("taken")),
        ("b.yaml", &definition("fresh")),
    ]);
    let path = files.path().to_str().expect("a path");
    let told = server.run(&["apply", path, "--json"]).code(4).json();
    assert_eq!(told["applied"][0]["result"], "conflict");
    assert_eq!(
        told["applied"][0]["message"],
        "Conflict: version 1 is another"
    );
    assert_eq!(told["applied"][1]["result"], "created");
    assert!(told["applied"][1].get("message").is_none(), "{told}");
    let shown = server.run(&["apply", path]).code(4).stdout;
    assert!(
        shown.contains("workflow taken@1: conflict: Conflict: version 1 is another\n"),
        "{shown}"
    );
}

#[test]
fn runs_that_are_steered_are_shown_as_the_server_said_whatever_became_of_the_others() {
    let server = Server::answering(&[("POST /v1/runs/r1:pause", 200, RUN)]);
    let told = server.run(&["pause", "r1", "--json"]).code(0);
    assert_eq!(told.stdout.trim_end(), RUN);
    let told = server
        .run(&["pause", "r1", "nobody", "somebody", "--json", "-q"])
        .code(4);
    assert_eq!(told.stdout.trim_end(), format!(r#"{{"runs":[{RUN}]}}"#));
    for name in ["nobody", "somebody"] {
        assert!(
            told.stderr.contains(&format!("{name}: Not found")),
            "{}",
            told.stderr
        );
    }
}

#[test]
fn rules_are_listed_with_what_they_start() {
    let server = Server::answering(&[(
        "GET /v1/definitions/rule",
        200,
        r#"{"definitions":[{"kind":"rule","name":"storm","version":2,"match":{"count":{}},"start":{"workflow":"w"}},{"kind":"rule","name":"still","version":1,"enabled":false,"match":{"any":[]}}]}"#,
    )]);
    let shown = server.run(&["get", "rules"]).code(0).stdout;
    let line = |name: &str| {
        shown
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_default()
    };
    let words: Vec<&str> = line("storm").split_whitespace().collect();
    assert_eq!(words, ["storm", "2", "count", "w", "live", "-"], "{shown}");
    assert!(line("still").contains("disabled"), "{shown}");
}
