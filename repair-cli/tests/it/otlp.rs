//! The spans of a run, as a receiver of OTLP gets them: a real one on loopback, which decodes what arrives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::World;

/// A request that arrived: its first line, its headers in lower case, and its body.
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// A receiver that answers every request with one status.
struct Receiver {
    endpoint: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let kept = requests.clone();
        // It ends with the process of the tests.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let kept = kept.clone();
                std::thread::spawn(move || serve(connection.unwrap(), status, &kept));
            }
        });
        Self { endpoint, requests }
    }

    fn spans(&self) -> Vec<Arrived> {
        self.requests.lock().unwrap().iter().flat_map(|request| arrived(&request.body)).collect()
    }
}

/// Answers the requests of one connection. What is no request ends it.
fn serve(connection: TcpStream, status: &str, kept: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        kept.lock().unwrap().push(Request { line: line.trim().to_owned(), headers, body });
        if write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

/// A field of a message of Protocol Buffers: a number, or bytes that are a text or a message.
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message, by number, in the order in which they stand.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn number(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(number(&mut bytes)),
            1 => {
                let (value, rest) = bytes.split_first_chunk::<8>().unwrap();
                bytes = rest;
                Field::Number(u64::from_le_bytes(*value))
            }
            2 => {
                let length = usize::try_from(number(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(value.to_vec())
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk::<4>().unwrap();
                bytes = rest;
                Field::Number(u64::from(u32::from_le_bytes(*value)))
            }
            other => panic!("a field of type {other}"),
        };
        all.push((tag >> 3, field));
    }
    all
}

/// All values of a field that are bytes.
fn parts(message: &[u8], field: u64) -> Vec<Vec<u8>> {
    let of_field = fields(message).into_iter().filter(|(number, _)| *number == field);
    of_field.filter_map(|(_, field)| if let Field::Bytes(bytes) = field { Some(bytes) } else { None }).collect()
}

fn text(message: &[u8], field: u64) -> String {
    String::from_utf8(parts(message, field).pop().unwrap_or_default()).unwrap()
}

fn integer(message: &[u8], field: u64) -> u64 {
    let found = fields(message).into_iter().find(|(number, _)| *number == field);
    found.map_or(0, |(_, field)| if let Field::Number(number) = field { number } else { panic!("no number") })
}

/// The attributes in a field of a message.
fn attributes(message: &[u8], field: u64) -> BTreeMap<String, String> {
    let attribute = |pair: Vec<u8>| {
        let value = parts(&pair, 2).pop().unwrap();
        let value = match fields(&value).pop().unwrap() {
            (1, Field::Bytes(text)) => String::from_utf8(text).unwrap(),
            (2 | 3, Field::Number(number)) => number.to_string(),
            (kind, _) => panic!("an attribute of kind {kind}"),
        };
        (text(&pair, 1), value)
    };
    parts(message, field).into_iter().map(attribute).collect()
}

/// A span as it arrived.
struct Arrived {
    resource: BTreeMap<String, String>,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Option<Vec<u8>>,
    name: String,
    from: u64,
    to: u64,
    attributes: BTreeMap<String, String>,
    events: Vec<BTreeMap<String, String>>,
}

/// The spans of a request.
fn arrived(body: &[u8]) -> Vec<Arrived> {
    let mut all = Vec::new();
    for of_resource in parts(body, 1) {
        let resource = parts(&of_resource, 1).pop().map(|resource| attributes(&resource, 1)).unwrap_or_default();
        for span in parts(&of_resource, 2).iter().flat_map(|of_scope| parts(of_scope, 2)) {
            all.push(Arrived {
                resource: resource.clone(),
                trace: parts(&span, 1).pop().unwrap(),
                id: parts(&span, 2).pop().unwrap(),
                parent: parts(&span, 4).pop().filter(|parent| !parent.is_empty()),
                name: text(&span, 5),
                from: integer(&span, 7),
                to: integer(&span, 8),
                attributes: attributes(&span, 9),
                events: parts(&span, 11).iter().map(|event| attributes(event, 3)).collect(),
            });
        }
    }
    all
}

/// A span and those in it, a line each; units, of which there are many, as a line together.
fn tree(spans: &[Arrived], of: &Arrived, depth: usize, lines: &mut Vec<String>) {
    let shown: Vec<String> = of.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.push(format!("{}{} {}", "  ".repeat(depth), of.name, shown.join(" ")));
    let mut inner: Vec<&Arrived> = spans.iter().filter(|span| span.parent.as_ref() == Some(&of.id)).collect();
    inner.sort_by_key(|span| span.from);
    let units: Vec<&&Arrived> = inner.iter().filter(|span| span.name == "unit").collect();
    if !units.is_empty() {
        let mut numbers: Vec<u64> = units.iter().map(|unit| unit.attributes["unit"].parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<u64>>(), "each unit has a span");
        assert!(units.iter().all(|unit| unit.attributes.len() == 1));
        lines.push(format!("{}unit unit=0..{}", "  ".repeat(depth + 1), numbers.len()));
    }
    inner.into_iter().filter(|span| span.name != "unit").for_each(|span| tree(spans, span, depth + 1, lines));
}

/// The time that a receiver has which must get the spans, however busy the machine is.
const PATIENT: (&str, &str) = ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000");

/// Runs the workflow with this environment and no other of its kind.
fn run(world: &World, run: &str, environment: &[(&str, &str)]) -> (Output, Duration) {
    let mut command = world.repair();
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    let began = Instant::now();
    let output = command.arg("run").arg(world.workflow(&[])).args(["--run-id", run, "--json"]).output().unwrap();
    (output, began.elapsed())
}

fn warnings(output: &Output) -> Vec<String> {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    said.lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect()
}

const KEY: (&str, &str) = ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=hunter2%20and%20more");

#[test]
fn a_receiver_gets_the_spans_of_a_whole_run() {
    let (world, receiver) = (World::new(), Receiver::start("200 OK"));
    let (output, _) = run(&world, "monday", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint), KEY, PATIENT]);
    assert!(output.status.success() && warnings(&output).is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    for request in receiver.requests.lock().unwrap().iter() {
        assert_eq!(request.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(request.headers["x-api-key"], "hunter2 and more");
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
    }
    let spans = receiver.spans();
    let runs: Vec<&Arrived> = spans.iter().filter(|span| span.parent.is_none()).collect();
    assert_eq!(runs.len(), 1, "one span has no parent");
    let by_id: BTreeMap<&[u8], &Arrived> = spans.iter().map(|span| (span.id.as_slice(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "each span has an id of its own");
    for span in &spans {
        assert_eq!((&span.trace, span.trace.len(), span.id.len()), (&runs[0].trace, 16, 8));
        assert_eq!(span.resource["service.name"], "repair");
        assert!(span.from <= span.to && span.from > 1_700_000_000_000_000_000, "{}..{}", span.from, span.to);
        if let Some(parent) = &span.parent {
            assert!(by_id[parent.as_slice()].from <= span.from, "a span began before the one it is in");
        }
    }
    // What is logged is in the span in which it happened.
    let recorded = |kind: &str| runs[0].events.iter().any(|event| event.get("event").is_some_and(|event| event == kind));
    assert!(recorded("run-ended"), "{:?}", runs[0].events);
    let mut lines = Vec::new();
    tree(&spans, runs[0], 0, &mut lines);
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn spans_are_sent_only_where_the_environment_asks_for_it() {
    let (world, receiver) = (World::new(), Receiver::start("200 OK"));
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.as_str());
    let nothing: [&[(&str, &str)]; 4] = [
        &[],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        &[endpoint, ("OTEL_SDK_DISABLED", "true")],
        &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
    ];
    for (number, environment) in nothing.iter().enumerate() {
        let (output, _) = run(&world, &format!("run-{number}"), environment);
        assert!(output.status.success() && warnings(&output).is_empty(), "{environment:?}");
    }
    assert!(receiver.requests.lock().unwrap().is_empty());
    let traces = format!("{}/my/traces", receiver.endpoint);
    let named = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", traces.as_str()), ("OTEL_SERVICE_NAME", "nightly"), PATIENT];
    assert!(run(&world, "named", &named).0.status.success());
    let requests = receiver.requests.lock().unwrap();
    assert_eq!(requests.first().map(|request| request.line.as_str()), Some("POST /my/traces HTTP/1.1"));
    assert!(requests.iter().flat_map(|request| arrived(&request.body)).all(|span| span.resource["service.name"] == "nightly"));
}

#[test]
fn a_receiver_that_does_not_answer_delays_a_run_little_and_fails_nothing() {
    let world = World::new();
    let (plain, took) = run(&world, "plain", &[]);
    assert!(plain.status.success());
    // One refuses connections, one accepts them and is silent, one wants another key, one sends elsewhere.
    let refuses = tokio::net::TcpSocket::new_v4().unwrap();
    refuses.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let unauthorized = Receiver::start("401 Unauthorized");
    let other = Receiver::start("200 OK");
    let elsewhere =
        Receiver::start(Box::leak(format!("307 Temporary Redirect\r\nlocation: {}/v1/traces", other.endpoint).into_boxed_str()));
    for (name, endpoint, why) in [
        ("refused", format!("http://{}", refuses.local_addr().unwrap()), "network error"),
        ("silent", format!("http://{}", silent.local_addr().unwrap()), "2 s"),
        ("unauthorized", unauthorized.endpoint.clone(), "status code: 401"),
        ("elsewhere", elsewhere.endpoint.clone(), "status code: 307"),
    ] {
        let mut environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), KEY];
        // Those that answer may take their time to do so, and only the silent one is given up.
        environment.extend((name != "silent").then_some(PATIENT));
        // Whatever else this machine does may delay some of them.
        let mut tries = (0..3).map(|number| {
            let (output, delayed) = run(&world, &format!("{name}-{number}"), &environment);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name}: {said}");
            let warned = warnings(&output);
            assert_eq!(warned.len(), 1, "{name}: {said}");
            assert!(warned[0].contains("spans did not reach the receiver") && warned[0].contains(why), "{name}: {said}");
            assert!(!said.contains("hunter2") && !said.contains(&endpoint), "{name}: {said}");
            delayed
        });
        assert!(tries.any(|delayed| delayed < took + Duration::from_secs(8)), "{name}: each run took 8 s more than {took:?}");
    }
    assert!(other.requests.lock().unwrap().is_empty(), "a key was sent to another host");
}

#[test]
fn what_of_the_environment_cannot_be_followed_is_said_without_its_value() {
    let (world, receiver) = (World::new(), Receiver::start("200 OK"));
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.as_str());
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:hunter2@[")], "OTEL_EXPORTER_OTLP_ENDPOINT cannot be used as an address"),
        (&[endpoint, PATIENT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "sent by http/protobuf"),
        (&[endpoint, PATIENT, ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hunter2")], "entries that are not NAME=VALUE"),
        (&[endpoint, ("OTEL_EXPORTER_OTLP_TIMEOUT", "hunter2")], "no number of milliseconds"),
    ];
    for (number, (environment, words)) in cases.into_iter().enumerate() {
        let (output, _) = run(&world, &format!("run-{number}"), environment);
        let (said, mut warned) = (String::from_utf8_lossy(&output.stderr).into_owned(), warnings(&output));
        if !environment.contains(&PATIENT) {
            // Where nothing says how long, a machine that is busy gives the receiver up.
            warned.retain(|line| !line.contains("spans did not reach the receiver"));
        }
        assert!(output.status.success() && warned.len() == 1 && warned[0].contains(words), "{environment:?}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert!(!receiver.spans().is_empty(), "the others are sent nevertheless");
}
