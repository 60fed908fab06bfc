//! `notify` of a workflow, as the command delivers it: to a receiver on loopback, which may be dead; and that no secret is anywhere.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use repair_connect::notify::signature;
use repair_connect::secret::Secret;
use repair_core::plugin::{Clock, SystemClock};
use serde_json::Value;

use crate::common::World;

const SECRET: &str = "s3cr3tOfTheHookThatNobodyMaySee";
const VARIABLE: &str = "HOOK_SECRET_OF_THE_TESTS";

/// A request that arrived: its headers in lower case, and its body.
type Arrived = (BTreeMap<String, String>, Vec<u8>);

struct Receiver {
    url: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

impl Receiver {
    /// Answers each request with what `status` says of its number.
    fn start(status: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let arrived = Arc::<Mutex<Vec<Arrived>>>::default();
        let kept = arrived.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for (number, connection) in listener.incoming().enumerate() {
                let _ = serve(&connection.unwrap(), status(number), &kept);
            }
        });
        Self { url, arrived }
    }

    fn bodies(&self) -> Vec<Value> {
        self.arrived.lock().unwrap().iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

fn serve(connection: &TcpStream, status: u16, kept: &Mutex<Vec<Arrived>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if status < 300 {
        kept.lock().unwrap().push((headers, body));
    }
    write!(&mut &*connection, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

/// The workflow of these tests, which notifies a receiver.
fn workflow(world: &World, url: &str) -> PathBuf {
    let notify = format!(
        "notify:\n  ops: {{ to: {{ webhook: {{ url: \"{url}\", secret_env: {VARIABLE} }} }}, on: [succeeded, succeeded-with-exceptions, failed, changed] }}\nlineage: {{ \
         file: events.jsonl }}\nstart: "
    );
    world.workflow(&[("start: ", &notify)])
}

/// Runs the command with the secret in its environment: what it writes, and its exit code.
fn run(world: &World, arguments: &[&str]) -> (String, String, i32) {
    let output = world.repair().env(VARIABLE, SECRET).env("RUST_LOG", "trace").args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

/// Every file below a folder, our own included.
fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all_files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_run_is_announced_and_its_secret_is_nowhere() {
    let (world, receiver) = (World::new(), Receiver::start(|_| 204));
    let workflow = workflow(&world, &receiver.url);
    let (out, err, code) = run(&world, &["run", workflow.to_str().unwrap(), "--run-id", "first"]);
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains("notify:"), "{err}");
    let bodies = receiver.bodies();
    let last = bodies.last().unwrap();
    assert_eq!((&last["run"], &last["to"]), (&"first".into(), &"ops".into()));
    assert!(last["what"].as_str().unwrap().starts_with("succeeded"), "{last}");
    for (headers, body) in receiver.arrived.lock().unwrap().iter() {
        assert!(signature::is_of(&headers["repair-signature"], &Secret::new(SECRET), body, SystemClock.now()));
        assert!(!String::from_utf8_lossy(body).contains(SECRET) && !headers.values().any(|value| value.contains(SECRET)));
    }
    assert!(!out.contains(SECRET) && !err.contains(SECRET), "it is shown");
    let mut files = Vec::new();
    all_files(world.lake().parent().unwrap(), &mut files);
    assert!(files.iter().any(|file| file.ends_with("journal.db")));
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "it is in {}", file.display());
    }
    // The events of OpenLineage name what was read and written.
    let events = std::fs::read_to_string(world.lake().parent().unwrap().join("events.jsonl")).unwrap();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.iter().map(|event| event["eventType"].as_str().unwrap()).collect::<Vec<_>>(), ["START", "COMPLETE"]);
    let lake = world.lake().canonicalize().unwrap();
    let name = |dataset: &Value| dataset["name"].as_str().unwrap().to_owned();
    assert!(events[1]["inputs"].as_array().unwrap().iter().any(|input| Path::new(&name(input)) == lake.join("bars")), "{}", events[1]);
    assert!(
        events[1]["outputs"].as_array().unwrap().iter().any(|output| Path::new(&name(output)) == lake.join("bars_repairs")),
        "{}",
        events[1]
    );
    // Running it again reports it, and says nothing new.
    run(&world, &["run", workflow.to_str().unwrap(), "--run-id", "first"]);
    assert_eq!(receiver.bodies().len(), bodies.len());
}

#[test]
fn what_a_dead_receiver_misses_is_delivered_later_and_changes_nothing_about_the_run() {
    let world = World::new();
    let quiet = World::new();
    let expected = quiet.run_json(&quiet.workflow(&[]), &["--run-id", "first"]);
    // It refuses, so nobody waits for it.
    let refuses = Arc::new(Mutex::new(true));
    let asked = refuses.clone();
    let receiver = Receiver::start(move |_| if *asked.lock().unwrap() { 401 } else { 200 });
    let workflow = workflow(&world, &receiver.url);
    let (out, err, code) = run(&world, &["run", workflow.to_str().unwrap(), "--run-id", "first", "--json"]);
    assert_eq!(code, expected.1);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["outcome"], &report["missing"]), (&expected.0["outcome"], &expected.0["missing"]));
    assert!(err.contains("left for `ops`") && err.contains("401") && err.contains("repair notify --pending"), "{err}");
    assert!(!err.contains(SECRET));
    let (_, _, code) = run(&world, &["notify", "--pending"]);
    assert_eq!(code, 1, "it still refuses");
    *refuses.lock().unwrap() = false;
    let (out, err, code) = run(&world, &["notify", "--pending"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("delivered "), "{out}");
    let bodies = receiver.bodies();
    assert!(bodies.last().unwrap()["what"].as_str().unwrap().starts_with("succeeded"), "{bodies:?}");
    let (out, _, _) = run(&world, &["notify", "--pending", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["delivered"], 0);
    assert_eq!(receiver.bodies().len(), bodies.len());
}

#[test]
fn a_test_message_says_whether_each_receiver_gets_it() {
    let (world, receiver) = (World::new(), Receiver::start(|_| 200));
    let path = workflow(&world, &receiver.url);
    let (out, err, code) = run(&world, &["notify", path.to_str().unwrap(), "--test"]);
    assert_eq!((out.as_str(), code), ("ops (webhook): delivered\n", 0), "{err}");
    assert_eq!(receiver.bodies()[0]["what"], "test");
    let output = world.repair().env_remove(VARIABLE).arg("notify").arg(&path).arg("--test").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains(VARIABLE), "it names the variable that is not set");
    let silent = world.workflow(&[]);
    let (_, err, code) = run(&world, &["notify", silent.to_str().unwrap(), "--test"]);
    assert_eq!(code, 2);
    assert!(err.contains("has no `notify`"), "{err}");
}
