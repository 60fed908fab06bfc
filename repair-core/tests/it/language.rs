//! The workflow language: what is accepted, and how mistakes are reported.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use repair_core::plugin::Registry;
use repair_core::workflow::{AfterIf, StepKind, Workflow, schema, to_dot, to_mermaid};

const SOUND: &str = r#"workflow: readings
kind: state-machine
params:
  from: { type: date }
  to: { type: date, default: 2024-03-05 }
  source: { type: string, default: archive }

tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1m }

start: find_gaps
steps:
  find_gaps:
    detect: gaps
    with: { table: readings, keys: [a, b], from: "{% $params.from %}", to: "{% $params.to %}" }
    next:
      - { when: $output.missing = 0, goto: daily }
      - { goto: settle }
  settle:
    wait: { for: 90s }
    next: fill
  fill:
    repair: carry-forward
    of: find_gaps
    with: { max_age: 5m }
    retry:
      - { on: [throttled, transient], attempts: 2 }
    catch:
      - { on: [denied], goto: give_up }
    next: check
  check:
    verify: find_gaps
    next:
      - { when: $output.missing = 0, goto: daily }
      - { when: $visits < 3, goto: settle }
      - { goto: daily }
  daily:
    aggregate: sql
    with: { into: daily, query: SELECT 1 }
    end: true
  give_up: { fail: the source refused us }
"#;

fn parse(text: &str) -> Result<Workflow, String> {
    Workflow::parse("w.yaml", text, &Registry::default()).map_err(|diagnostics| diagnostics.to_string())
}

/// The mistakes reported for the sound workflow with some of its text replaced.
fn mistakes(changes: &[(&str, &str)]) -> String {
    let mut text = SOUND.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "`{from}` must be there once");
        text = text.replace(from, to);
    }
    parse(&text).map(|workflow| panic!("`{}` was accepted", workflow.name)).unwrap_err()
}

#[test]
fn a_sound_workflow_is_what_it_says() {
    let workflow = parse(SOUND).unwrap();
    assert_eq!(
        workflow.steps.iter().map(|step| step.kind.word()).collect::<Vec<_>>(),
        ["detect", "wait", "repair", "verify", "aggregate", "fail"]
    );
    let StepKind::Aggregate { of, .. } = &workflow.step("daily").unwrap().kind else { panic!() };
    assert_eq!(of.as_deref(), Some("find_gaps"), "the only detect step is meant");
}

#[test]
fn all_mistakes_are_reported_at_once_with_place_and_help() {
    insta::assert_snapshot!(mistakes(&[
        ("detect: gaps", "detect: gap"),
        ("goto: settle }\n  settle", "goto: setle }\n  settle"),
        ("of: find_gaps\n    with: { max_age: 5m }", "of: find_gap\n    with: { max_aeg: 5m }"),
        ("attempts: 2", "attempt: 2"),
        ("on: [denied]", "on: [denid]"),
        ("$visits < 3", "$vists < 3"),
        ("{ for: 90s }", "{ for: 90 }"),
        ("$output.missing = 0, goto: daily }\n      - { when: $v", "$output.misssing = 0, goto: daily }\n      - { when: $v"),
        ("aggregate: sql", "agregate: sql"),
        ("type: date, default", "type: dat, default"),
    ]));
}

/// People write what they know from other tools.
#[test]
fn words_of_other_tools_get_a_hint() {
    for (from, to, meant) in [
        ("retry:", "retries:", "did you mean `retry`?"),
        ("attempts: 2", "max_attempts: 2", "did you mean `attempts`?"),
        ("    catch:", "    on_error:", "did you mean `catch`?"),
        ("location: readings", "path: readings", "did you mean `location`?"),
        ("time: ts", "timestamp: ts", "did you mean `time`?"),
        ("\nsteps:", "\njobs:", "did you mean `steps`?"),
        ("from: \"{% $params.from %}\"", "from: \"{{ params.from }}\"", "write `{% $params.from %}` for an expression"),
        ("from: \"{% $params.from %}\"", "from: \"${{ from }}\"", "write `{% $params.from %}` for an expression"),
    ] {
        let mistakes = mistakes(&[(from, to)]);
        assert!(mistakes.contains(meant), "{to}: {mistakes}");
    }
}

#[test]
fn mistakes_of_plug_ins_point_into_their_with() {
    insta::assert_snapshot!(mistakes(&[
        ("table: readings, keys: [a, b]", "table: reading, key: [a, b], calendar: XNYSE"),
        ("max_age: 5m", "max_age: 5 parsecs"),
        ("into: daily, query: SELECT 1", "into: 7"),
    ]));
    insta::assert_snapshot!(mistakes(&[("repair: carry-forward", "repair: gaps")]));
    for (from, to, words) in [
        ("keys: [a, b]", "keys: [7]", "put it in quotes: \"7\""),
        ("keys: [a, b]", "keys: [[a, 7]]", "put it in quotes: \"7\""),
        ("keys: [a, b]", "keys: [{ a: b }]", "a list with a text for each key column"),
        ("keys: [a, b]", "keys: []", "`keys` is empty"),
        ("into: daily,", "into: ../daily,", "has a part `..`"),
        ("into: daily,", "into: /daily,", "is absolute"),
        ("into: daily,", "into: .repair/daily,", "hidden part, `.repair`"),
        ("into: daily,", "into: .,", "is the lake itself"),
    ] {
        let mistakes = mistakes(&[(from, to)]);
        assert!(mistakes.contains(words) && mistakes.contains("w.yaml:"), "{to}: {mistakes}");
    }
}

#[test]
fn texts_under_with_have_a_limit_too() {
    let long = "x".repeat(10_001);
    for (from, to, place) in [
        ("keys: [a, b]", format!("keys: [a, {long}]"), "w.yaml:15:"),
        ("with: { max_age: 5m }", format!("with: {{ max_age: {long} }}"), "w.yaml:25:"),
    ] {
        let mistakes = mistakes(&[(from, to.as_str())]);
        assert!(mistakes.contains("the text has 10001 bytes; at most 10000 are allowed") && mistakes.contains(place), "{mistakes:.2000}");
    }
    // A query may be longer, and not any longer than that.
    let query = |bytes: usize| format!("query: SELECT 1{}", "-".repeat(bytes - 8));
    parse(&SOUND.replace("query: SELECT 1", &query(100_000))).unwrap();
    let mistakes = mistakes(&[("query: SELECT 1", query(100_001).as_str())]);
    assert!(mistakes.contains("the text has 100001 bytes; at most 100000 are allowed"), "{mistakes:.2000}");
}

#[test]
fn every_loop_has_a_bound_and_every_way_an_end() {
    insta::assert_snapshot!(mistakes(&[(
        "      - { when: $visits < 3, goto: settle }\n      - { goto: daily }",
        "      - { goto: settle }"
    )]));
    insta::assert_snapshot!(mistakes(&[(
        "      - { when: $output.missing = 0, goto: daily }\n      - { when: $visits < 3, goto: settle }\n      - { goto: daily }",
        "      - { goto: settle }"
    )]));
    insta::assert_snapshot!(mistakes(&[("  give_up:", "  lost: { succeed: true }\n  give_up:")]));
    insta::assert_snapshot!(mistakes(&[("start: find_gaps", "start: settle")]));
    let caught = [
        (
            "      - { when: $output.missing = 0, goto: daily }\n      - { when: $visits < 3, goto: settle }\n      - { goto: daily }",
            "      - { goto: settle }",
        ),
        ("    catch:\n      - { on: [denied], goto: give_up }\n", ""),
    ];
    assert!(mistakes(&caught).contains("a run that comes here never ends: settle → fill → check → settle"));
    let bounded = SOUND
        .replace("{ when: $visits < 3, goto: settle }\n      - { goto: daily }", "{ goto: settle }")
        .replace("verify: find_gaps", "verify: find_gaps\n    max_visits: 3");
    parse(&bounded).unwrap();
}

#[test]
fn names_of_the_objects_beside_a_table_are_reserved() {
    for name in ["readings_repairs", "readings_exceptions", "readings_retractions", "Readings_Repaired"] {
        let other = format!("tables:\n  {name}: {{ location: other, format: csv, time: ts }}\n");
        let mistakes = mistakes(&[("tables:\n", &other)]);
        assert!(mistakes.contains(&format!("the name `{name}` is reserved for the repairs of table `readings`")), "{mistakes}");
        assert!(mistakes.contains("1 mistake"), "{mistakes}");
    }
}

#[test]
fn text_that_is_not_yaml_is_reported_with_its_place() {
    let unclosed = mistakes(&[("keys: [a, b]", "keys: [a, b")]);
    assert!(unclosed.contains("w.yaml:15:"), "{unclosed}");
    let twice = mistakes(&[("  settle:\n", "  find_gaps:\n")]);
    assert!(twice.contains("w.yaml:19:3") && twice.contains("the first is on line 13"), "{twice}");
    let condition = mistakes(&[(
        "when: $output.missing = 0, goto: daily }\n      - { goto",
        "when: \"$output.missing = = 0\", goto: daily }\n      - { goto",
    )]);
    assert!(condition.contains("w.yaml:17:17") && condition.contains("not a JSONata expression"), "{condition}");
    for text in ["", "[]", "workflow", "- 1", "a: &a [*a]", "\u{0}", "? [x]\n: y"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn expressions_may_only_use_names_that_exist() {
    let mistakes = mistakes(&[(
        "from: \"{% $params.from %}\", to: \"{% $params.to %}\"",
        "from: \"{% $params.form %}\", to: \"{% $random() & missing & $steps.chek.visits & $strng(1) %}\"",
    )]);
    for said in [
        "there is no parameter `form`",
        "did you mean `from`?",
        "`$random` is not available",
        "`missing` is a field without a variable",
        "there is no step `chek`",
        "no function `$strng`",
    ] {
        assert!(mistakes.contains(said), "`{said}` is not in\n{mistakes}");
    }
}

#[test]
fn a_workflow_can_be_drawn() {
    let workflow = parse(SOUND).unwrap();
    insta::assert_snapshot!(to_mermaid(&workflow));
    insta::assert_snapshot!(to_dot(&workflow));
}

#[test]
fn the_schema_names_every_plug_in_and_what_it_takes() {
    let registry = Registry::default();
    let schema = schema(&registry);
    let text = schema.to_string();
    for entry in registry.entries() {
        assert!(text.contains(&format!("\"{}\"", entry.name)), "{}", entry.name);
    }
    for word in ["max_age", "quiet_spell", "time_marks", "max_visits", "tolerate"] {
        assert!(text.contains(&format!("\"{word}\"")), "{word}");
    }
}

#[test]
fn the_workflow_of_the_readme_is_one() {
    let readme = include_str!("../../../README.md");
    let text = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    if let Err(mistakes) = parse(text) {
        panic!("{mistakes}");
    }
}

const DAG: &str = r#"workflow: nightly
kind: dag
max_parallel: 4
timeout: 2h
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1m }
steps:
  look:
    detect: gaps
    with: { table: readings, keys: [a, b], from: 2024-03-04, to: 2024-03-04 }
    timeout: 10m
    heartbeat: 1m
  fill: { repair: carry-forward, of: look, after: look }
  sum: { aggregate: sql, with: { into: daily, query: SELECT 1 }, after: [fill] }
  alert: { aggregate: sql, with: { into: alerts, query: SELECT 1 }, after: [look, fill], run_if: any_failed }
"#;

#[test]
fn a_dag_says_what_comes_before() {
    let workflow = parse(DAG).unwrap();
    assert!(workflow.kind.is_dag() && workflow.start.is_empty());
    insta::assert_snapshot!(to_mermaid(&workflow));
    let mistakes = parse(
        &DAG.replace("after: look }", "after: lok, next: sum }")
            .replace("max_parallel: 4", "max_parallel: 4\nstart: look")
            .replace("run_if: any_failed", "run_if: any_faild")
            .replace("    timeout: 10m\n    heartbeat: 1m", "    timeout: 1m\n    heartbeat: 10m"),
    )
    .unwrap_err();
    insta::assert_snapshot!(mistakes);
    let circle = parse(&DAG.replace("after: look }", "after: [look, alert] }")).unwrap_err();
    assert!(circle.contains("form a cycle: fill → alert → fill"), "{circle}");
    let blind = parse(&DAG.replace(", after: look }", " }")).unwrap_err();
    assert!(blind.contains("step `fill` does not come after step `look`, whose findings it needs"), "{blind}");
}

#[test]
fn a_dag_says_how_each_step_before_must_have_ended() {
    let each = DAG.replace("after: [look, fill], run_if: any_failed", "after: { look: done, fill: failed, sum: skipped }");
    let workflow = parse(&each).unwrap();
    let alert = workflow.step("alert").unwrap();
    assert_eq!(
        (&alert.after[..], &alert.after_if[..]),
        (&["look".to_owned(), "fill".to_owned(), "sum".to_owned()][..], &[AfterIf::Done, AfterIf::Failed, AfterIf::Skipped][..])
    );
    insta::assert_snapshot!(to_mermaid(&workflow));
    let mistakes = parse(
        &each
            .replace("look: done, fill: failed", "lok: done, fill: failure")
            .replace("after: look }", "after: { look: [failed] } }")
            .replace("after: [fill] }", "after: { fill: succeeded }, run_if: any_failed }")
            .replace("    timeout: 10m", "    after: {}"),
    )
    .unwrap_err();
    insta::assert_snapshot!(mistakes);
    let circle = parse(&each.replace("after: look }", "after: { look: succeeded, alert: skipped } }")).unwrap_err();
    assert!(circle.contains("form a cycle: fill → alert → fill"), "{circle}");
}

const PARALLEL: &str = r#"workflow: both
kind: state-machine
tables:
  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1m }
start: look_at_both
steps:
  look_at_both:
    parallel:
      left:
        start: look_left
        steps:
          look_left:
            detect: gaps
            with: { table: readings, keys: [a], from: 2024-03-04, to: 2024-03-04 }
            end: true
      right:
        start: settle
        steps:
          settle:
            wait: { until: { sensor: gaps, with: { table: readings, keys: [b], from: 2024-03-04, to: 2024-03-04 }, when: $output.missing = 0, every: 1m, timeout: 1h } }
            next: look_right
          look_right:
            detect: gaps
            with: { table: readings, keys: [b], from: 2024-03-04, to: 2024-03-04 }
            end: true
    next: fill
  fill: { repair: carry-forward, of: look_left, end: true }
"#;

#[test]
fn branches_are_state_machines_of_their_own() {
    let workflow = parse(PARALLEL).unwrap();
    assert_eq!(
        workflow.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(),
        ["look_at_both", "look_left", "settle", "look_right", "fill"]
    );
    insta::assert_snapshot!(to_mermaid(&workflow));
    let out = parse(&PARALLEL.replace("next: look_right", "next: fill")).unwrap_err();
    assert!(out.contains("step `settle` cannot go to step `fill`, which is in another branch"), "{out}");
    let start = parse(&PARALLEL.replace("start: settle", "start: look_left")).unwrap_err();
    assert!(start.contains("branch `right` has no step `look_left`"), "{start}");
    let twice = parse(&PARALLEL.replace("  fill: {", "  look_left: {").replace("next: fill", "next: look_left")).unwrap_err();
    assert!(twice.contains("there is another step `look_left`"), "{twice}");
    let beats = parse(&PARALLEL.replace("    next: fill", "    heartbeat: 1m\n    next: fill")).unwrap_err();
    assert!(beats.contains("`parallel` takes no `heartbeat`"), "{beats}");
    let sensor = parse(&PARALLEL.replace("sensor: gaps, with: { table: readings", "sensor: gap, with: { table: reading")).unwrap_err();
    assert!(sensor.contains("there is no sensor `gap`") && sensor.contains("did you mean `gaps`"), "{sensor}");
}

#[test]
fn a_workflow_runs_others_by_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("parts")).unwrap();
    let outer = "workflow: outer\nkind: state-machine\nparams: { day: { type: date } }\nstart: a\nsteps:\n  a: { workflow: parts/inner.yaml, with: { day: \"{% $params.day %}\" }, end: true }\n";
    write("outer.yaml", outer);
    write(
        "parts/inner.yaml",
        "workflow: inner\nkind: state-machine\nparams: { day: { type: date } }\nstart: b\nsteps:\n  b: { workflow: ./last.yaml, end: true }\n",
    );
    write("parts/last.yaml", "workflow: last\nkind: state-machine\nstart: c\nsteps:\n  c: { succeed: true }\n");
    let load = || Workflow::load(&folder.path().join("outer.yaml"), &Registry::default()).map_err(|mistakes| mistakes.to_string());
    let workflow = load().unwrap();
    assert_eq!(workflow.children.len(), 2, "{:?}", workflow.children.keys());
    // What a run keeps is enough to read it again, wherever the files are by then.
    let again = Workflow::parse_with(&workflow.file, &workflow.text, &Registry::default(), &workflow.children).unwrap();
    assert_eq!(again.children, workflow.children);

    write("outer.yaml", &outer.replace("with: { day:", "with: { dy:"));
    let unknown = load().unwrap_err();
    assert!(unknown.contains("the workflow has no parameter `dy`") && unknown.contains("needs parameter `day`"), "{unknown}");
    write("outer.yaml", outer);
    write("parts/last.yaml", "workflow: last\nkind: state-machine\nstart: c\nsteps:\n  c: { workflow: ../outer.yaml, end: true }\n");
    assert!(load().unwrap_err().contains("would run itself"));
    write("parts/last.yaml", "workflow: last\n");
    let inner = load().unwrap_err();
    assert!(inner.contains("outer.yaml:6:18") && inner.contains("inner.yaml` cannot run"), "{inner}");
}
