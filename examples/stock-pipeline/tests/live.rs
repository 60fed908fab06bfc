//! What the pipeline on a clock promises: what it loses is found and repaired beside it, whatever its feed is.

#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy's exception for tests does not reach their helper functions")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use repair::core::plugin::{Clock, ScaledClock};
use repair::jiff::{SignedDuration, Timestamp};
use repair::{Outcome, Repair, RunReport};

fn pipeline(lake: &Path, args: &[&str], environment: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stock-pipeline"));
    command.arg("live").arg("--lake").arg(lake).args(args).envs(environment.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// The lines of a pipeline that has ended.
fn lines(mut pipeline: Child) -> Vec<String> {
    let lines = BufReader::new(pipeline.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(pipeline.wait().unwrap().success());
    lines
}

fn run(workflow: &str, lake: &Path, params: &[(&str, String)], clock: ScaledClock) -> RunReport {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(workflow);
    repair::block_on(async {
        let opening = Repair::open(file).lake(lake).params(params.iter().map(|(name, value)| (*name, value))).clock(Arc::new(clock));
        opening.connect().await?.run().await
    })
    .unwrap_or_else(|error| panic!("{}", error.full()))
}

fn count(report: &RunReport, step: &str, name: &str) -> u64 {
    report.step(step).and_then(|step| step.output[name].as_u64()).unwrap_or_else(|| panic!("{report:?}"))
}

#[test]
fn what_is_lost_is_repaired_beside_it_and_late_bars_win() {
    let lake = tempfile::tempdir().unwrap();
    // Two hours in six seconds; it is killed after some minutes and comes back, so it loses all stocks of some minutes, too.
    let since = Timestamp::now();
    let (speed, from) = ("1200", since.to_string());
    let clock = ScaledClock::new(since, 1_200).unwrap();
    let mut first = pipeline(lake.path(), &["--speed", speed, "--since", &from, "--late", "1"], &[]);
    let mut seen = BufReader::new(first.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(seen.by_ref().filter(|line| line.contains("dropped")).take(20).count() == 20);
    first.kill().unwrap();
    first.wait().unwrap();
    let begun = clock.now();
    let params = |clock: ScaledClock| {
        let to = clock.now() - SignedDuration::from_mins(5);
        [("from", (since + SignedDuration::from_mins(2)).to_string()), ("to", to.to_string())]
    };
    let report = run("standing/ticker-standing.yaml", lake.path(), &params(clock), clock);
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    assert!(count(&report, "find_gaps", "missing") > 0 && count(&report, "check", "missing") == 0);
    // It goes on for an hour: what was dropped half an hour ago arrives now, and wins over what was repaired meanwhile.
    let again = lines(pipeline(lake.path(), &["--speed", speed, "--since", &from, "--late", "1", "--for", "70m"], &[]));
    assert!(again.iter().filter(|line| line.contains("dropped")).count() > 30, "{again:?}");
    assert!(clock.now() > begun + SignedDuration::from_mins(60));
    let report = run("standing/ticker-standing.yaml", lake.path(), &params(clock), clock);
    assert_eq!((report.outcome, count(&report, "check", "missing")), (Some(Outcome::Succeeded), 0), "{report:?}");
    assert!(again.iter().any(|line| line.ends_with(", late")), "{again:?}");
    let left: Vec<_> = std::fs::read_dir(lake.path().join("bars")).unwrap().collect();
    assert!(!left.is_empty());
}

/// Answers as Alpaca's API does: a bar for each symbol and minute that is asked for.
fn alpaca() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut head, mut line) = (String::new(), String::new());
                    while reader.read_line(&mut line).unwrap_or(0) > 2 {
                        head.push_str(&line);
                        line.clear();
                    }
                    let Some(target) = head.split(' ').nth(1) else { return };
                    assert!(
                        head.to_lowercase().contains("apca-api-key-id: id") && head.to_lowercase().contains("apca-api-secret-key: secret"),
                        "{head}"
                    );
                    let query = |name: &str| {
                        let value = target.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default();
                        value.replace("%2C", ",").replace("%3A", ":")
                    };
                    let minute =
                        |name: &str| query(name).parse::<Timestamp>().unwrap_or_else(|_| panic!("{target}")).as_second().div_euclid(60);
                    let bars: Vec<String> = query("symbols")
                        .split(',')
                        .map(|symbol| {
                            let bars: Vec<String> = (minute("start")..=minute("end"))
                                .map(|minute| {
                                    format!(
                                        "{{\"t\":\"{}\",\"o\":10,\"h\":11,\"l\":9,\"c\":10,\"v\":{}}}",
                                        Timestamp::from_second(minute * 60).unwrap(),
                                        minute % 100 + 1
                                    )
                                })
                                .collect();
                            format!("\"{symbol}\":[{}]", bars.join(","))
                        })
                        .collect();
                    let body = format!("{{\"bars\":{{{}}},\"next_page_token\":null}}", bars.join(","));
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn the_feed_may_be_a_provider() {
    let lake = tempfile::tempdir().unwrap();
    let address = alpaca();
    let workflow = Path::new(env!("CARGO_MANIFEST_DIR")).join("standing-alpaca/ticker-alpaca.yaml");
    let base = format!("base_url={address}");
    let args = [
        "--workflow",
        workflow.to_str().unwrap(),
        "--feed",
        "alpaca",
        "--param",
        &base,
        "--param",
        "calendar=24x7",
        "--speed",
        "600",
        "--for",
        "30m",
    ];
    let captured = lines(pipeline(lake.path(), &args, &[("APCA_API_KEY_ID", "id"), ("APCA_API_SECRET_KEY", "secret")]));
    let minutes: Vec<Timestamp> = captured
        .iter()
        .filter(|line| line.contains("10 bars; dropped: "))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    // However late it is on a busy machine, it leaves out no minute from its first to its last.
    assert!(
        minutes.len() >= 2 && minutes.windows(2).all(|pair| pair[1].duration_since(pair[0]) == SignedDuration::from_mins(1)),
        "{captured:?}"
    );
    assert!(!captured.iter().any(|line| line.contains("secret") || line.contains("lost")), "{captured:?}");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(lake.path().join("bars")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            files.push(file.unwrap().path());
        }
    }
    assert!(files.len() >= minutes.len());
    let mut bytes = Vec::new();
    std::fs::File::open(&files[0]).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"PAR1"), "{files:?}");
}
