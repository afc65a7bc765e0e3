//! `--metrics` and `--verbose`: what Prometheus is told, and what is said while a command works.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use crate::place::{Place, ran, until};

fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: &str, path: &str) -> String {
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n"))
}

/// The value of the one series that begins so.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.rsplit_once(' ')?.1.parse().ok())
}

#[test]
fn while_a_command_holds_a_lock_its_metrics_are_served() {
    let place = Place::new();
    let arguments = ["--metrics", "127.0.0.1:0", "-v", "lock", "plan.md", "--", "sh", "-c", "echo ready; read end"];
    let mut command = place.mutext(&arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut err) =
        (BufReader::new(child.stdout.take().unwrap()), BufReader::new(child.stderr.take().unwrap()));
    let (mut said, mut ready) = (String::new(), String::new());
    err.read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("info: mutext::metrics: metrics are at http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    out.read_line(&mut ready).unwrap();

    let answer = get(address, "/metrics");
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", text.len())), "{head}");
    assert_eq!(value(text, "mutext_locks_acquired_total{engine=\"embedded\"}"), Some(1.0), "{text}");
    assert!(!text.contains("plan.md"), "{text}");
    until("the queue is looked at", || {
        let text = get(address, "/metrics");
        value(&text, "mutext_lock_leases{context=\"default\",engine=\"embedded\"}").is_some()
    });
    assert!(get(address, "/").starts_with("HTTP/1.1 404"));
    assert!(http(address, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    let head = http(address, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    // Somebody who connects and goes away is in nobody's way.
    drop(TcpStream::connect(address).unwrap());
    assert!(get(address, "/metrics?x=y").starts_with("HTTP/1.1 200"));

    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(TcpStream::connect(address).is_err(), "served after its end");
}

#[test]
fn a_file_holds_the_metrics_when_the_command_has_ended() {
    let place = Place::new();
    ran(place.mutext(&["put", "a", "x", "--metrics", "m.prom"]).env("MUTEXT_METRICS", "other.prom")).done();
    assert!(!place.path("other.prom").exists(), "a flag overrides the environment");
    let text = std::fs::read_to_string(place.path("m.prom")).unwrap();
    let committed = "mutext_commit_seconds_count{engine=\"embedded\",outcome=\"committed\"}";
    assert_eq!(value(&text, committed), Some(1.0), "{text}");
    assert!(text.contains("# TYPE mutext_commit_seconds histogram"), "{text}");

    // A refusal is measured as well, and the command's own answer stays what it is.
    ran(place.mutext(&["put", "a", "y", "--if-revision", "7"]).env("MUTEXT_METRICS", "m.prom"))
        .refused(3, &["revision 1"]);
    let text = std::fs::read_to_string(place.path("m.prom")).unwrap();
    let conflict = "mutext_commit_seconds_count{engine=\"embedded\",outcome=\"conflict\"}";
    assert_eq!((value(&text, committed), value(&text, conflict)), (Some(0.0), Some(1.0)), "{text}");

    let names = std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains("prom")).count(), 1, "nothing is left beside it");
}

#[test]
fn the_command_under_a_lock_does_not_write_over_its_metrics() {
    let place = Place::new();
    let script = "echo \"[$MUTEXT_METRICS]\"; mutext put plan.md x >/dev/null";
    let mut command = place.mutext(&["lock", "plan.md", "--", "sh", "-c", script]);
    assert_eq!(ran(command.env("MUTEXT_METRICS", "m.prom")).done(), "[]\n");
    let text = std::fs::read_to_string(place.path("m.prom")).unwrap();
    assert_eq!(value(&text, "mutext_locks_acquired_total{engine=\"embedded\"}"), Some(1.0), "{text}");
    assert_eq!(value(&text, "mutext_lock_hold_seconds_count{engine=\"embedded\"}"), Some(1.0), "{text}");
}

#[test]
fn what_cannot_be_served_or_written_is_said_before_the_work_starts() {
    let place = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::create_dir(place.path("dir")).unwrap();
    let put = |metrics: &str| place.run(&["put", "a", "x", "--metrics", metrics]);
    put(&address).refused(7, &["--metrics", &address, "free port"]);
    put("missing/m.prom").refused(7, &["missing/m.prom", "directory that exists"]);
    put("dir").refused(2, &["dir is a directory", "dir/mutext.prom"]);
    put("new/").refused(2, &["new/ is a directory", "new/mutext.prom"]);
    put("9187").refused(2, &["\"9187\"", "127.0.0.1:9187", "./metrics.prom"]);
    put(":9187").refused(2, &["\":9187\"", "127.0.0.1:9187"]);
    ran(place.mutext(&["put", "a", "x"]).env("MUTEXT_METRICS", "127.0.0.1")).refused(2, &["MUTEXT_METRICS", "no port"]);
    assert!(!place.path(".mutext").exists(), "something was done all the same");
}

#[test]
fn more_is_said_only_to_whoever_asks() {
    let place = Place::new();
    place.run(&["put", "a", "x"]).done();
    let lock = ["lock", "plan.md", "--", "true"];
    assert_eq!(place.run(&lock).err, "");
    let asked = |arguments: &[&str], variable: &str, filter: &str| {
        let mut command = place.mutext(&lock[..2]);
        ran(command.args(arguments).args(&lock[2..]).env(variable, filter)).err
    };
    let expected = "debug: mutext::metrics: a lock was asked for (engine embedded, ";
    for said in [asked(&["-vv"], "X", ""), asked(&[], "MUTEXT_LOG", "debug"), asked(&[], "RUST_LOG", "mutext=debug")] {
        assert!(said.contains(expected) && !said.contains('\x1b'), "{said:?}");
    }
    assert_eq!(asked(&["-v"], "MUTEXT_LOG", "debug"), "", "a flag overrides the environment");
    let line: serde_json::Value =
        serde_json::from_str(asked(&["-vv", "--json"], "X", "").lines().last().unwrap()).unwrap();
    assert_eq!(line["log"]["level"], "debug");

    let refused = ran(place.mutext(&["ls"]).env("MUTEXT_LOG", "mutext=loud"));
    refused.refused(2, &["MUTEXT_LOG", "mutext=loud", "as in info"]);
    let others = asked(&[], "RUST_LOG", "mutext=loud");
    assert!(others.contains("warning:") && others.contains("MUTEXT_LOG"), "{others}");
}
