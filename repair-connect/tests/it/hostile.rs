//! Hostile programs: whatever one does, the run ends with an error that says so, nothing is written, and no process is left.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use repair_core::ErrorKind;
use repair_core::engine::Outcome;
use serde_json::json;

use crate::world::{ARCHIVE, SECRET, VARIABLE, World, is_alive, registry, soon};

/// Fills with a program that must not succeed.
async fn refused(program: &str, more: &str, kind: ErrorKind, why: &str) {
    let world = World::new();
    let before = world.seen().await;
    let ran = world.run(&world.filling(program, more)).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Failed), "{program}: {}", ran.said);
    assert_eq!(ran.report.error, Some(kind), "{program}: {:?}", ran.report.problems);
    assert!(ran.said.contains(why), "{program}: `{why}` is not in {:?}, {:?}", ran.report.reason, ran.report.problems);
    assert_eq!(world.seen().await, before, "{program}: something was written");
    assert_eq!(world.repaired().await, 0);
}

const ROW: &str = "a,2024-03-04T05:00:00Z,5.25";

#[tokio::test]
async fn a_program_that_has_the_rows_repairs_them() {
    let world = World::new();
    let ran = world.run(&world.filling(ARCHIVE, "")).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Succeeded), "{}", ran.said);
    assert_eq!((world.repaired().await, ran.report.missing), (4, 0));
    let seen = world.seen().await;
    assert_eq!(seen.len(), 48);
    assert_eq!((&seen[5]["value"], &seen[15]["value"]), (&json!(5.25), &json!(15.25)));
    assert_eq!(ran.report.usage.source_requests, 1, "each call counts");
}

#[tokio::test]
async fn output_without_end_is_cut_off() {
    refused("yes sensor,ts,value", ", max_bytes: 1000000", ErrorKind::Invalid, "answered with more than 1000000 bytes").await;
}

#[tokio::test]
async fn ten_gigabytes_are_cut_off_at_the_limit() {
    let began = Instant::now();
    refused("head -c 10000000000 /dev/zero", "", ErrorKind::Invalid, "answered with more than 67108864 bytes").await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn errors_of_many_megabytes_are_kept_from_their_end() {
    let program = "head -c 20000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo the last words >&2; exit 3";
    let world = World::new();
    let ran = world.run(&world.filling(program, "")).await;
    assert_eq!(ran.report.error, Some(ErrorKind::Invalid));
    assert!(ran.said.contains("ended with exit code 3") && ran.said.contains("the last words"), "{}", ran.said);
    assert!(ran.said.len() < 100_000, "the journal and the report stay small: {}", ran.said.len());
    assert_eq!(world.repaired().await, 0);
}

#[tokio::test]
async fn errors_without_end_are_cut_off() {
    refused("yes mistake >&2", "", ErrorKind::Invalid, "wrote without end to its error output").await;
}

#[tokio::test]
async fn a_child_that_outlives_its_parent_and_holds_the_output_is_an_error_and_is_ended() {
    let world = World::new();
    let program = format!("sleep 600 &\necho $! > child\n{}", ARCHIVE.trim_start_matches("exec "));
    let ran = world.run(&world.filling(&program, "")).await;
    assert_eq!(ran.report.error, Some(ErrorKind::Invalid), "{}", ran.said);
    assert!(ran.said.contains("went on and held its output"), "{}", ran.said);
    assert_eq!(world.repaired().await, 0);
    let child = std::fs::read_to_string(world.path().join("child")).unwrap();
    assert!(soon(|| !is_alive(&child)).await, "the child is still there");
}

#[tokio::test]
async fn a_child_that_only_stays_behind_is_ended() {
    let world = World::new();
    let program = format!("sleep 600 > /dev/null 2>&1 < /dev/null &\necho $! > child\n{ARCHIVE}");
    let ran = world.run(&world.filling(&program, "")).await;
    assert_eq!((ran.report.outcome, world.repaired().await), (Some(Outcome::Succeeded), 4), "{}", ran.said);
    let child = std::fs::read_to_string(world.path().join("child")).unwrap();
    assert!(soon(|| !is_alive(&child)).await, "the child is still there");
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_ended_with_its_children() {
    let world = World::new();
    let began = Instant::now();
    // One that does not end when it is asked to.
    let program = "trap '' TERM; sleep 600 & echo $! > child; while true; do sleep 1; done";
    let ran = world.run(&world.filling(program, ", timeout: 10s")).await;
    assert_eq!(ran.report.error, Some(ErrorKind::Timeout), "{}", ran.said);
    assert!(ran.said.contains("did not end within 10 s"), "{}", ran.said);
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(world.repaired().await, 0);
    let child = std::fs::read_to_string(world.path().join("child")).unwrap();
    assert!(soon(|| !is_alive(&child)).await, "the child is still there");
}

#[tokio::test]
async fn wrong_rows_are_discarded() {
    let csv = |rows: &str| format!("printf '%s\\n' sensor,ts,value '{rows}'");
    for (rows, why) in [
        ("a,2024-03-04T05:00:00Z,high", "`value`: high in line 2, which is no Float64"),
        ("a,2024-03-04T05:00:00Z,NaN", "infinite or not a number"),
        ("a,2024-03-04 05:00:00,5.25", "no instant with its zone"),
        ("a,2024-03-04T05:00:00.0000001Z,5.25", "finer than microseconds"),
        ("a,,5.25", "no `ts` in line 2"),
        (",2024-03-04T05:00:00Z,5.25", "no `sensor` in line 2"),
        ("a,2024-03-04T05:00:00Z", "not CSV"),
        ("c,2024-03-04T05:00:00Z,5.25", "a row of c at 2024-03-04T05:00:00Z, which was not requested"),
        ("a,2024-03-05T05:00:00Z,5.25", "outside the requested"),
        ("a,2024-03-04T05:30:00Z,5.25", "where no slot of 1h begins"),
    ] {
        refused(&csv(rows), "", ErrorKind::Invalid, why).await;
    }
    refused(&csv(&format!("{ROW}\n{ROW}")), "", ErrorKind::Invalid, "twice a row").await;
    refused(
        "echo sensor,ts,value,unit; echo a,2024-03-04T05:00:00Z,5.25,C",
        "",
        ErrorKind::Invalid,
        "a column `unit`, and table `readings` has no such column",
    )
    .await;
    refused("echo sensor,value; echo a,5.25", "", ErrorKind::Invalid, "without the column `ts`").await;
    refused("echo sensor,ts; echo a,2024-03-04T05:00:00Z", "", ErrorKind::Invalid, "without the column `value`").await;
    refused("echo sensor,ts,value,value", "", ErrorKind::Invalid, "the column `value` twice").await;
    refused("printf 'sensor,ts,value\\na,2024-03-04T05:00:00Z,\\377\\n'", "", ErrorKind::Invalid, "not CSV").await;
}

#[tokio::test]
async fn wrong_lines_of_json_are_discarded() {
    let row = |value: &str| format!(r#"{{"sensor": "a", "ts": "2024-03-04T05:00:00Z", "value": {value}}}"#);
    for (lines, why) in [
        ("what?".to_owned(), "not an object of JSON in line 1"),
        ("[1, 2]".to_owned(), "not an object of JSON in line 1"),
        (row("NaN"), "not an object of JSON in line 1"),
        (row("true"), "`value`: true, where a number belongs in line 1"),
        (row("\"high\""), "`value`: high in line 1, which is no Float64"),
        (row("{}"), "where a number belongs"),
        (format!("{}\n{}", row("5.25"), r#"{"sensor": "a", "ts": "2024-03-04T06:00:00Z"}"#), "line 2 and the first differ in `value`"),
        (r#"{"sensor": "a", "ts": 1709528400, "value": 1}"#.to_owned(), "where the text of an instant"),
        (r#"{"sensor": 1.5, "ts": "2024-03-04T05:00:00Z", "value": 1}"#.to_owned(), "`sensor`: 1.5, where a text belongs"),
        (format!("{}\n{}", row("5.25"), r#"{"$rows": 2}"#), "1 rows, and says that there are 2"),
        (r#"{"$what": 2}"#.to_owned(), "line 1, which is neither a row nor"),
        (r#"{"$covered": {"key": "a"}}"#.to_owned(), "not of the form"),
        (r#"{"$covered": {"key": "z", "from": "2024-03-04T05:00:00Z", "to": "2024-03-04T06:00:00Z"}}"#.to_owned(), "was not asked for"),
        (String::new(), "nothing; one that has no rows writes the line"),
        ("\n \n".to_owned(), "no row; one that has none writes the line"),
    ] {
        let world = World::new();
        std::fs::write(world.path().join("answer"), &lines).unwrap();
        let workflow = world.filling("exec cat answer", "").replace("rows: csv", "rows: jsonl");
        let ran = world.run(&workflow).await;
        assert_eq!(ran.report.error, Some(ErrorKind::Invalid), "{lines}: {}", ran.said);
        let problems = format!("{:?} {:?}", ran.report.reason, ran.report.problems).replace("\\\"", "\"");
        assert!(problems.contains(why), "{lines}: `{why}` is not in {problems}");
        assert_eq!(world.repaired().await, 0);
    }
}

#[tokio::test]
async fn an_answer_of_nothing_is_no_answer() {
    refused("exit 0", "", ErrorKind::Invalid, "answered with nothing").await;
    // One that closes its input before it has read anything, and one that never reads it.
    refused("exec 0<&-; exit 0", "", ErrorKind::Invalid, "answered with nothing").await;
    refused("exec 0<&- 1>&- 2>&-; sleep 600", ", timeout: 1s", ErrorKind::Timeout, "did not end within").await;
}

#[tokio::test]
async fn a_large_request_that_nobody_reads_hangs_nothing() {
    let world = World::new();
    let long = "x".repeat(9_000);
    let many: Vec<String> = (0..50).map(|number| format!("p{number}: {long}")).collect();
    let ran = world.run(&world.filling(ARCHIVE, &format!(", params: {{ {} }}", many.join(", ")))).await;
    assert_eq!((ran.report.outcome, world.repaired().await), (Some(Outcome::Succeeded), 4), "{:?}", ran.report.problems);
}

#[tokio::test]
async fn death_by_a_signal_is_an_error() {
    refused(&format!("echo sensor,ts,value; echo {ROW}; kill -9 $$"), "", ErrorKind::Transient, "was ended by signal 9").await;
}

#[tokio::test]
async fn exit_codes_are_kinds_of_errors() {
    for (code, more, kind) in [
        (1, "", ErrorKind::Invalid),
        (69, "", ErrorKind::Transient),
        (75, "", ErrorKind::Transient),
        (77, "", ErrorKind::Denied),
        (75, ", exit_codes: { 75: throttled, 9: not-found }", ErrorKind::Throttled),
        (9, ", exit_codes: { 75: throttled, 9: not-found }", ErrorKind::NotFound),
    ] {
        let program = format!("echo sensor,ts,value; echo {ROW}; echo because >&2; exit {code}");
        refused(&program, more, kind, &format!("ended with exit code {code}; it wrote: because")).await;
    }
}

#[tokio::test]
async fn a_value_of_the_environment_is_seen_nowhere() {
    let echoes = [
        format!("echo \"it is ${VARIABLE}\" >&2; exit 1"),
        format!("echo \"it is ${VARIABLE}\" | base64 >&2; exit 1"),
        format!("echo \"${VARIABLE}\""),
        format!("echo sensor,ts,value; echo \"${VARIABLE},2024-03-04T05:00:00Z,1\""),
        format!("echo sensor,ts,value; echo \"a,${VARIABLE},1\""),
        format!("echo \"it is ${VARIABLE}\" >&2; {ARCHIVE}"),
        format!("echo \"it is ${VARIABLE}\" | cut -c 1-18 >&2; exit 1"),
    ];
    let parts = |text: &str| SECRET.as_bytes().windows(9).any(|part| text.contains(std::str::from_utf8(part).unwrap()));
    for program in echoes {
        let world = World::new();
        let ran = world.run(&world.filling(&program, &format!(", env: [{VARIABLE}]"))).await;
        assert!(!parts(&ran.said), "{program}: {}", ran.said);
        if program.contains("awk") {
            assert_eq!(ran.report.outcome, Some(Outcome::Succeeded));
        } else {
            assert_eq!((ran.report.error, world.repaired().await), (Some(ErrorKind::Invalid), 0), "{program}");
        }
        for (path, bytes) in testdata::files(&world.path().join("lake")) {
            assert!(!parts(&String::from_utf8_lossy(&bytes)), "{program}: {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_program_gets_no_variable_that_it_is_not_given() {
    let world = World::new();
    let program = format!("env > environment; {ARCHIVE}");
    let ran = world.run(&world.filling(&program, "")).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Succeeded), "{}", ran.said);
    let names: Vec<String> = std::fs::read_to_string(world.path().join("environment"))
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        // A shell sets these itself.
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()))
        .collect();
    assert!(names.iter().all(|name| name == "PATH" || name.starts_with("REPAIR_")), "{names:?}");
}

#[test]
fn only_programs_that_are_allowed_may_be_run() {
    use repair_connect::{Commands, Options};
    use repair_core::plugin::PluginKind::{Detector, Repairer, Sensor, Source, Task};
    let with = json!({ "run": ["/usr/bin/curl", "x"] });
    let place = json!({ "table": "t", "from": "2024-03-04", "to": "2024-03-04", "run": ["/usr/bin/curl"] });
    let all = [(Detector, &place), (Repairer, &with), (Sensor, &with), (Source, &with), (Task, &with)];
    let made = |commands: Commands| {
        let registry = registry(&Options::default().with_commands(commands));
        all.map(|(kind, with)| registry.make(kind, "command", with).map(drop).map_err(|error| error.full()))
    };
    assert!(made(Commands::All).iter().all(Result::is_ok));
    assert!(made(Commands::only(["/usr/bin/curl"])).iter().all(Result::is_ok));
    for refused in made(Commands::None).into_iter().chain(made(Commands::only(["curl", "/bin/curl"]))) {
        assert!(refused.unwrap_err().contains("`/usr/bin/curl` may not be run here"));
    }
    let shell = json!({ "shell": "curl x" });
    assert!(registry(&Options::default().with_commands(Commands::only(["curl"]))).make(Task, "command", &shell).is_err());
    assert!(registry(&Options::default().with_commands(Commands::only(["sh"]))).make(Task, "command", &shell).is_ok());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_found_out_before_the_run() {
    use repair_core::plugin::{Plugin, PluginKind};
    for (run, why) in [("no-such-program-of-ours", "in `PATH`"), ("/no/such/program", "at this path"), ("./nor/this", "at this path")] {
        let made = registry(&crate::world::options()).make(PluginKind::Source, "command", &json!({ "run": [run] })).unwrap();
        let Plugin::Source(source) = made else { panic!("not a source") };
        let error = source.ready().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(why), "{error}");
    }
}
