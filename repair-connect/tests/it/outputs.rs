//! Programs as tasks and sensors: what conditions see of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use repair_core::ErrorKind;
use repair_core::engine::Outcome;
use serde_json::json;

use crate::world::{SECRET, VARIABLE, World};

fn workflow(world: &World, steps: &str) -> String {
    format!("workflow: w\nkind: state-machine\nstart: go\nsteps:\n{steps}").replace("FOLDER", &world.path().display().to_string())
}

#[tokio::test]
async fn a_task_does_something_and_later_steps_see_what_it_wrote() {
    let world = World::new();
    let steps = "
  go: { task: command, with: { shell: 'echo fetched > file; echo done; echo careful >&2', folder: 'FOLDER' }, next: second }
  second: { task: command, with: { shell: 'echo \"{\\\"files\\\": 3}\"', answer: json }, next: [{ when: $output.files = 3, goto: good }, { goto: bad }] }
  good: { succeed: true }
  bad: { fail: the output is wrong }
";
    let ran = world.run(&workflow(&world, steps)).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Succeeded), "{}", ran.said);
    assert_eq!(ran.report.step("go").unwrap().output, json!({ "stdout": "done", "stderr": "careful" }));
    assert_eq!(std::fs::read_to_string(world.path().join("file")).unwrap(), "fetched\n");
    assert_eq!(ran.report.usage.source_requests, 2, "each is a call");
}

#[tokio::test]
async fn a_task_that_fails_fails_its_step_and_can_be_caught_by_its_kind() {
    let world = World::new();
    let steps = "
  go: { task: command, with: { shell: 'echo no disk >&2; exit 9', exit_codes: { 9: conflict } }, catch: [{ on: [conflict], goto: caught }], end: true }
  caught: { fail: caught }
";
    let ran = world.run(&workflow(&world, steps)).await;
    assert!(ran.said.contains("ended with exit code 9; it wrote: no disk"), "{}", ran.said);
    assert_eq!(ran.report.step("caught").map(|step| step.visits), Some(1));
}

#[tokio::test]
async fn a_task_is_run_again_with_the_same_id() {
    let world = World::new();
    let steps = "
  go:
    task: command
    with: { shell: 'echo $REPAIR_ID $REPAIR_ATTEMPT >> ids; test $REPAIR_ATTEMPT -gt 2 || exit 75', folder: 'FOLDER' }
    retry: [{ on: [transient], attempts: 5, interval: 1ms }]
    end: true
";
    let ran = world.run(&workflow(&world, steps)).await;
    assert_eq!(ran.report.outcome, Some(Outcome::Succeeded), "{}", ran.said);
    assert_eq!(std::fs::read_to_string(world.path().join("ids")).unwrap(), "one/go/1 1\none/go/1 2\none/go/1 3\n");
}

#[tokio::test]
async fn a_sensor_is_asked_until_its_condition_holds() {
    let world = World::new();
    let steps = "
  go: { wait: { until: { sensor: command, with: { shell: 'echo x >> asked; wc -l < asked', folder: 'FOLDER' }, when: $output > 2, every: 1s } }, next: second }
  second: { wait: { until: { sensor: command, with: { run: [test, -e, 'FOLDER/asked'], answer: exit_code }, every: 1s, timeout: 1h } }, next: third }
  third: { wait: { until: { sensor: command, with: { run: [test, -e, 'FOLDER/never'], answer: exit_code }, every: 1s, timeout: 2s } }, end: true }
";
    let ran = world.run(&workflow(&world, steps)).await;
    assert_eq!(ran.report.error, Some(ErrorKind::Timeout), "{}", ran.said);
    assert_eq!(ran.report.step("go").unwrap().output, 3);
    assert_eq!(ran.report.step("second").unwrap().output, true);
    assert_eq!(std::fs::read_to_string(world.path().join("asked")).unwrap().lines().count(), 3);
}

#[tokio::test]
async fn outputs_are_checked() {
    for (with, why) in [
        ("shell: 'echo what', answer: json".to_owned(), "not one value of JSON"),
        ("shell: 'echo 1 2', answer: json".to_owned(), "not one value of JSON"),
        ("shell: 'exit 0', answer: json".to_owned(), "nothing, where a value of JSON belongs"),
        ("shell: 'head -c 3000000 /dev/zero'".to_owned(), "more than 1048576 bytes"),
        ("shell: 'printf \"\\\\377\"'".to_owned(), "not text"),
        (format!("shell: 'echo it is ${VARIABLE}', env: [{VARIABLE}]"), "a value of the variable"),
    ] {
        let world = World::new();
        let ran = world.run(&workflow(&world, &format!("  go: {{ task: command, with: {{ {with} }}, end: true }}\n"))).await;
        assert_eq!(ran.report.error, Some(ErrorKind::Invalid), "{with}: {}", ran.said);
        let why = if why.starts_with("a value") { "which nobody may see" } else { why };
        assert!(ran.said.contains(why) && !ran.said.contains(SECRET), "{with}: {}", ran.said);
    }
}
