//! Bad input is refused with a message that names the place and the remedy, exit code 2, and nothing written.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::common::{World, files};

/// Runs `repair run` on a changed workflow and a changed lake; checks the exit code, the words, and that readers see what they saw.
fn refused(world: &World, changes: &[(&str, &str)], words: &[&str]) -> String {
    let workflow = world.workflow(changes);
    let before = files(&world.lake());
    let output = world.repair().arg("run").arg(&workflow).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(files(&world.lake()), before, "something was written");
    said
}

#[test]
fn mistakes_in_the_workflow_point_and_suggest() {
    let world = World::new();
    for (changes, words) in [
        (("repair: stocks.backfill", "repiar: stocks.backfill"), ["workflow.yaml:17:", "repiar", "repair"]),
        (("goto: settle }\n  settle", "goto: setle }\n  settle"), ["workflow.yaml:14:", "setle", "did you mean `settle`"]),
        (("detect: stocks.minute-gaps", "detect: stocks.minutegaps"), ["workflow.yaml:10:", "stocks.minutegaps", "stocks.minute-gaps"]),
        (("symbols: [AIG", "symbol: [AIG"), ["workflow.yaml:11:", "symbol", "symbols"]),
        (("  settle: {", "  find_gaps: {"), ["workflow.yaml:15:", "find_gaps", "twice"]),
        (
            (
                "when: $output.missing = 0, goto: hourly }\n      - { when",
                "when: \"$output.missing = = 0\", goto: hourly }\n      - { when",
            ),
            ["workflow.yaml:26:", "$output.missing = = 0", "JSONata"],
        ),
        (
            ("of: find_gaps\n    with: { source: market }", "of: find_gap\n    with: { source: market }"),
            ["workflow.yaml:18:", "find_gap", "did you mean"],
        ),
        (("source: market }\n", "source: markt }\n"), ["workflow.yaml:19:", "markt", "market"]),
    ] {
        refused(&world, &[changes], &words);
    }
    for (change, words) in [
        (
            ("with: { table: bars, calendar: XNYS", "with: { table: bras, calendar: XNYS"),
            ["workflow.yaml:11:", "no table `bras`", "`bars`"],
        ),
        (("calendar: XNYS", "calendar: XNYC"), ["workflow.yaml:11:", "no calendar `XNYC`", "`XNYS`"]),
        (("with: { table: bars, into", "with: { table: barz, into"), ["workflow.yaml:32:", "no table `barz`", "`bars`"]),
        (("into: hourly", "into: ../hourly"), ["workflow.yaml:32:", "`into: ../hourly`", "`..`"]),
        (("symbols: [AIG, BAC, SPY]", "symbols: []"), ["workflow.yaml:11:", "`symbols` is empty", "list the stocks"]),
        (
            (
                "source: stocks.archive, with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 30 }",
                "source: stocks.simulated, with: { seed: 1, calendar: XNSY }",
            ),
            ["workflow.yaml:6:", "no calendar `XNSY`", "`XNYS`"],
        ),
    ] {
        refused(&world, &[change], &words);
    }
    assert!(!world.lake().join(".repair").exists(), "not even a journal is written");
}

#[test]
fn a_loop_without_a_way_out_and_a_step_nobody_reaches_are_refused() {
    let world = World::new();
    let endless = [(
        "      - { when: $output.missing = 0, goto: hourly }\n      - { when: $visits < 3, goto: settle }\n      - { goto: hourly }",
        "      - { goto: settle }",
    )];
    refused(&world, &endless, &["settle", "fill", "check"]);
    refused(&world, &[("    end: true\n", "    end: true\n  lost: { fail: nobody comes here }\n")], &["lost", "no run can reach"]);
}

#[test]
fn validate_reports_all_mistakes_at_once() {
    let world = World::new();
    let workflow = world.workflow(&[
        ("goto: settle }\n  settle", "goto: setle }\n  settle"),
        ("symbols: [AIG", "symbol: [AIG"),
        ("source: market }\n", "source: markt }\n"),
    ]);
    let output = world.repair().arg("validate").arg(&workflow).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    for word in ["workflow.yaml:11:", "workflow.yaml:14:", "workflow.yaml:19:", "goto: setle", "symbol: [AIG"] {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    assert!(world.repair().arg("validate").arg(world.workflow(&[])).output().unwrap().status.success());
}

#[test]
fn bombs_are_defused() {
    let world = World::new();
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", ")));
    }
    let huge = format!("workflow: x\nabout: {}\n", "y".repeat(50 << 20));
    for text in [bomb, huge, "[".repeat(100_000)] {
        let file = world.write("bomb.yaml", &text);
        let began = std::time::Instant::now();
        let output = world.repair().arg("validate").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.len() < 10_000);
        assert!(began.elapsed().as_secs() < 120, "an error in the end, but far too late");
    }
}

#[test]
fn broken_data_is_named() {
    let parquet = ("location: bars, format: csv", "location: bars, format: parquet, ignore: '*.csv'");
    let world = World::new();
    std::fs::rename(world.lake().join("bars"), world.lake().join("elsewhere")).unwrap();
    refused(&world, &[], &["bars", "location"]);

    let world = World::new();
    std::fs::write(world.lake().join("bars/broken.parquet"), "this is no Parquet").unwrap();
    refused(&world, &[parquet], &["broken.parquet"]);
    // A file that nobody said anything about makes the step blind, which has an exit code of its own.
    let output = world.repair().arg("run").arg(world.workflow(&[])).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(3) && said.contains("broken.parquet") && said.contains("ignore"), "{said}");

    let world = World::new();
    let file = world.lake().join("bars/2024-03-04.csv");
    let text = std::fs::read_to_string(&file).unwrap();
    let row = text.lines().nth(41).unwrap();
    std::fs::write(&file, text.replacen(row, &format!("{row},one,too,many"), 1)).unwrap();
    refused(&world, &[], &["2024-03-04.csv", "line 42"]);

    let world = World::new();
    std::fs::write(file_of(&world), "symbol,ts,open,high,low,close,volume\nAIG,noonish,1,1,1,1,1\n").unwrap();
    refused(&world, &[], &["2024-03-04.csv", "ts"]);
}

fn file_of(world: &World) -> std::path::PathBuf {
    world.lake().join("bars/2024-03-04.csv")
}

#[test]
fn a_duplicate_is_reported_and_nothing_crashes() {
    let world = World::new();
    let text = std::fs::read_to_string(file_of(&world)).unwrap();
    let row = text.lines().nth(5).unwrap();
    std::fs::write(file_of(&world), format!("{text}{row}\n")).unwrap();
    let (report, code) = world.run_json(&world.workflow(&[]), &[]);
    assert_eq!(code, 0);
    assert_eq!(report["steps"]["find_gaps"]["output"]["duplicates"], 1);
    assert!(report["problems"].to_string().contains("1 duplicate"), "{report}");
}

#[test]
fn a_lake_that_cannot_be_written_is_refused_before_anything_starts() {
    let world = World::new();
    // The folder for the journal is taken by a file: what no permission of ours can mend.
    std::fs::write(world.lake().join(".repair"), "").unwrap();
    refused(&world, &[], &[".repair"]);
}

#[test]
fn a_lake_or_journal_that_is_none_is_told_by_what_the_command_takes() {
    let world = World::new();
    let run = |world: &World, args: &[&str]| {
        let output = world.repair().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let workflow = world.workflow(&[("root: ./lake", "root: ./lak")]);
    let file = workflow.to_str().unwrap();
    let said = run(&world, &["run", file]);
    assert!(
        said.contains("/lak for the lake; create it, correct `root` of profile `local`, or name another lake with --lake DIR"),
        "{said}"
    );
    for args in [&["run", file, "--lake", "nowhere"][..], &["runs", "--lake", "nowhere"]] {
        let said = run(&world, args);
        assert!(
            said.contains("/nowhere for the lake; create it, or name another lake with --lake DIR") && !said.contains("`root`"),
            "{said}"
        );
    }
    let said = run(&world, &["runs", "--lake", "workflow.yaml"]);
    assert!(said.contains("workflow.yaml is a file, but a lake is a folder; name another lake with --lake DIR"), "{said}");
    assert!(run(&world, &["runs"]).contains("nothing was ever run there"));
    std::fs::create_dir(world.lake().join(".repair")).unwrap();
    std::fs::write(world.lake().join(".repair/journal.db"), "this is no database, and long enough to be seen as none".repeat(99)).unwrap();
    for args in [&["runs"][..], &["run", file, "--lake", "lake"]] {
        let said = run(&world, args);
        assert!(said.contains("name another lake with --lake DIR") && !said.contains("another file"), "{said}");
    }
}

#[test]
fn parameters_and_ids_are_refused_as_they_are_written() {
    let world = World::new();
    for (args, words) in [
        (&["--param", "a=1", "--param", "a=2"][..], "--param a is given twice"),
        (&["--param", "=x"], "the name is missing; write it as NAME=VALUE"),
        (&["--param", "x"], "write it as NAME=VALUE"),
        (&["--run-id=-x"], "must begin with a letter or digit"),
        (&["--run-id", "_x"], "must begin with a letter or digit"),
        (&["--run-id", ""], "must begin with a letter or digit"),
        (&["--run-id", "a/b"], "letters, digits"),
    ] {
        let output = world.repair().arg("run").arg(world.workflow(&[])).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(words), "{args:?}: {said}");
    }
}

#[test]
fn a_date_outside_the_calendar_is_blind_and_has_its_own_exit_code() {
    let world = World::new();
    let (report, code) = world.run_json(&world.workflow(&[("to: 2024-03-04", "to: 2031-03-04")]), &[]);
    assert_eq!((code, &report["outcome"]), (3, &"blind".into()));
    assert!(report["problems"].to_string().contains("XNYS covers 1990-01-01 to 2028-12-31"), "{report}");
}

#[cfg(not(feature = "aws"))]
#[test]
fn a_lake_in_s3_is_refused_by_a_program_without_aws() {
    let world = World::new();
    let workflow = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/stock-pipeline/workflows/ticker-hourly.yaml");
    let run = ["run", workflow, "--profile", "aws", "--param", "from=2024-03-04", "--param", "to=2024-03-04"];
    for (arguments, words) in
        [(&run[..], "profile `aws` is of a lake in S3"), (&["runs", "--lake", "s3://bucket/lake"][..], "s3://bucket/lake")]
    {
        let output = world.repair().args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(words) && error.contains("feature `aws`"), "{error}");
    }
}

/// Keys and values of the data may hold anything, such as what clears a terminal's line and begins another.
#[test]
fn text_in_the_data_never_acts_on_a_terminal() {
    let world = World::new();
    let hostile = "X\u{1b}[2K\u{1b}]0;title\u{7}\nrun k succeeded\u{202e}";
    let quoted = serde_json::to_string(hostile).unwrap();
    let rows = |symbol: &str, price: &str| -> String {
        (0..30)
            .map(|minute| format!("{{\"symbol\":{symbol},\"ts\":\"2024-03-04T14:{:02}:00Z\",\"note\":{price}}}\n", 30 + minute))
            .collect()
    };
    std::fs::create_dir(world.lake().join("odd")).unwrap();
    let rows =
        rows("\"A\"", "1") + &rows(&quoted, "2").replacen("14:33", "14:31", 1) + &rows(&quoted, &quoted).replacen("14:35", "14:36", 1);
    std::fs::write(world.lake().join("odd/rows.jsonl"), rows).unwrap();
    let text = format!(
        "workflow: odd\nkind: state-machine\ntables:\n  odd: {{ location: odd, format: jsonl, key: [symbol], time: ts, cadence: 1m, columns: {{ note: {{ type: \
         text }} }} }}\nstart: look\nsteps:\n  look: {{ detect: duplicates, with: {{ table: odd, keys: [A, {quoted}], from: \"2024-03-04T14:30:00Z\", to: \
         \"2024-03-04T15:00:00Z\" }}, next: missing }}\n  missing: {{ detect: gaps, with: {{ table: odd, keys: [A, {quoted}], from: \"2024-03-04T14:30:00Z\", to: \
         \"2024-03-04T16:00:00Z\" }}, next: others }}\n  others: {{ detect: gaps, with: {{ table: odd, keys: [A], from: \"2024-03-04T14:30:00Z\", to: \
         \"2024-03-04T16:00:00Z\" }}, end: true }}\n"
    );
    let workflow = world.write("odd.yaml", &text);
    let workflow = workflow.to_str().unwrap();
    let mut all = String::new();
    for arguments in [
        &["run", workflow, "--lake", "lake", "--run-id", "odd"][..],
        &["plan", workflow, "--lake", "lake"],
        &["show", "odd", "--lake", "lake"],
        &["runs", "--lake", "lake"],
        &["why", "odd", "--lake", "lake", "--key", hostile, "--at", "2024-03-04T14:40:00Z"],
        &["why", "odd", "--lake", "lake", "--key", &format!("{hostile}!"), "--at", "2024-03-04T14:40:00Z"],
        &[
            "except",
            "odd",
            "--lake",
            "lake",
            "--key",
            hostile,
            "--from",
            "2024-03-04T15:00:00Z",
            "--to",
            "2024-03-04T15:10:00Z",
            "--reason",
            hostile,
        ],
    ] {
        let (out, err, _) = world.said(arguments);
        for said in [&out, &err] {
            let acts = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
            assert!(!said.contains(acts), "{arguments:?}: {said:?}");
            assert!(!said.lines().any(|line| line.starts_with("run k succeeded")), "{arguments:?}: {said}");
        }
        all += &(out + &err);
    }
    assert!(all.contains("X\\u{1b}[2K") && all.contains("\\nrun k succeeded\\u{202e}"), "it is seen, written out: {all}");
}

/// Where the system gives no threads, that is an error before anything is done, and no panic.
#[cfg(unix)]
#[test]
fn without_threads_nothing_is_begun() {
    let world = World::new();
    let before = files(&world.lake());
    let workflow = world.workflow(&[]);
    // No stack of this size can be had.
    let output = world.repair().env("RUST_MIN_STACK", (1_u64 << 46).to_string()).arg("run").arg(&workflow).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gives this process no threads; raise its limit") && !said.contains("panicked"), "{said}");
    assert_eq!(files(&world.lake()), before);
}
