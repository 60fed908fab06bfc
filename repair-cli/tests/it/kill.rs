//! A run that is killed at any moment and resumed leaves the lake that an undisturbed run leaves.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{World, seen};

#[tokio::test]
async fn killed_anywhere_and_resumed_is_as_if_never_killed() {
    let slow = [
        (
            "with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 30 } }",
            "with: { location: archive, format: csv, keys_per_request: 1, rows_per_request: 30 }, rate_limit: 60/s }\n  restated: { source: stocks.archive, with: { location: \
             restated, format: csv, keys_per_request: 1, rows_per_request: 500 } }",
        ),
        // Rows that are deleted at the source are removed.
        (
            "  hourly:\n    aggregate",
            "  hourly:\n    detect: differs\n    with: { table: bars, source: restated, calendar: XNYS, keys: [AIG, BAC, SPY], from: 2024-03-04, to: 2024-03-04, \
             deleted: remove }\n    next: remove\n  remove: { repair: backfill, of: hourly, with: { source: confirming }, next: gone }\n  gone: { verify: \
             hourly, next: hours }\n  hours:\n    aggregate",
        ),
        (
            "start: find_gaps",
            "  confirming: { source: stocks.archive, with: { location: restated, format: csv, keys_per_request: 1, rows_per_request: 30 }, rate_limit: 30/s }\nstart: find_gaps",
        ),
    ];
    let calm = World::new();
    let deleted = calm.restate();
    let began = Instant::now();
    let (report, code) = calm.run_json(&calm.workflow(&slow), &["--run-id", "one"]);
    // A machine that was busy then makes it too long; a life that ends by itself shows that.
    let mut whole = began.elapsed();
    assert_eq!((code, &report["steps"]["check"]["output"]["missing"]), (0, &0.into()), "{report}");
    let expected = seen(&calm).await;
    assert_eq!(expected["exceptions"].len(), calm.quiet);
    let own = std::fs::read_to_string(calm.lake().join("bars/2024-03-04.csv")).unwrap();
    let filled_and_deleted = deleted.iter().filter(|row| !own.contains(row.as_str())).count();
    assert_eq!(expected["view"].iter().filter(|row| row.contains("stocks.backfill")).count(), calm.dropped - filled_and_deleted);
    assert_eq!(expected["view"].len(), own.lines().count() - 1 + calm.dropped - deleted.len());
    assert!(deleted.len() > 5 && (1..deleted.len()).contains(&filled_and_deleted), "own and filled rows are deleted at the source");

    let rounds = u32::try_from(testdata::seeds(4, 12).end).unwrap();
    let mut interrupted = 0;
    let mut round = 0;
    // How often a round may be repeated since its life was over before it could be killed.
    let mut repeats = 3;
    while round < rounds {
        let world = World::new();
        world.restate();
        let workflow = world.workflow(&slow);
        // Killed once or twice, at moments spread over the whole run, before it has even begun included.
        let mut started = false;
        let mut shorter = None;
        for life in 0..=round % 2 {
            let mut command = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
            command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir(workflow.parent().unwrap());
            if started {
                command.args(["resume", "one"])
            } else {
                command.arg("run").arg(&workflow).args(["--run-id", "one"])
            };
            let mut child = command.spawn().unwrap();
            let born = Instant::now();
            let share = f64::from(round + 1) / f64::from(rounds + 1);
            let kill_after = whole.mul_f64(share) / (life + 1) + Duration::from_millis(u64::from(round % 7));
            while born.elapsed() < kill_after && child.try_wait().unwrap().is_none() {
                std::thread::sleep(kill_after.saturating_sub(born.elapsed()).min(Duration::from_millis(5)));
            }
            if child.try_wait().unwrap().is_none() {
                interrupted += 1;
            } else if life == 0 {
                shorter = Some(born.elapsed());
            }
            child.kill().unwrap();
            child.wait().unwrap();
            started =
                world.lake().join(".repair/journal.db").exists() && world.repair().args(["show", "one"]).output().unwrap().status.success();
        }
        let output = if started {
            world.repair().args(["resume", "one", "--json"]).output().unwrap()
        } else {
            world.repair().arg("run").arg(&workflow).args(["--run-id", "one", "--json"]).output().unwrap()
        };
        let said = [output.stderr.as_slice(), &output.stdout].map(String::from_utf8_lossy);
        assert!(output.status.success(), "round {round}: {said:?}");
        assert_eq!(seen(&world).await, expected, "round {round}");
        match shorter.filter(|life| *life < whole && repeats > 0) {
            Some(life) => {
                whole = life;
                repeats -= 1;
            }
            None => round += 1,
        }
    }
    assert!(interrupted > rounds / 6, "only {interrupted} runs of {rounds} were killed before their end; the test proves nothing");
}

/// `repair`, as a process that goes on by itself.
fn spawn(world: &World, args: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("repair"));
    command.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir(world.lake().parent().unwrap());
    command.spawn().unwrap()
}

/// Waits until what `repair` prints holds a text.
fn wait_for(world: &World, args: &[&str], text: &str) {
    testdata::wait_until(text, || world.said(args).0.contains(text));
}

#[test]
fn two_drivers_of_one_run_are_one_too_many_until_the_first_is_dead() {
    let world = World::new();
    let workflow = world.workflow(&[("for: 10ms", "for: 1h")]);
    let mut first = spawn(&world, &["run", workflow.to_str().unwrap(), "--run-id", "one"]);
    wait_for(&world, &["show", "one"], "`settle` waits until");
    let refused = world.repair().args(["resume", "one"]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(7), "{said}");
    assert!(said.contains(&first.id().to_string()), "it does not say who drives the run: {said}");
    first.kill().unwrap();
    first.wait().unwrap();
    // The first is dead, so nobody has to wait for its lease; the run goes on, and this time somebody cancels it.
    let mut second = spawn(&world, &["resume", "one"]);
    wait_for(&world, &["show", "one", "--events"], "driver-started");
    testdata::wait_until("the end of the second process", || {
        // Refused once the run has ended.
        world.said(&["cancel", "one"]);
        second.try_wait().unwrap().is_some()
    });
    assert_eq!(second.wait().unwrap().code(), Some(1));
    let shown = String::from_utf8(world.repair().args(["show", "one"]).output().unwrap().stdout).unwrap();
    assert!(shown.contains("run one cancelled"), "{shown}");
}

#[test]
fn a_process_that_is_told_to_stop_stops_soon_says_so_and_can_be_resumed() {
    let world = World::new();
    let workflow = world.workflow(&[("for: 10ms", "until: { approval: go on?, every: 50ms }")]);
    let process = spawn(&world, &["run", workflow.to_str().unwrap(), "--run-id", "one"]);
    wait_for(&world, &["show", "one"], "step settle waits for an approval");
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    let ended = process.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(4), "{said}");
    assert!(said.contains("repair resume one"), "{said}");
    world.text(&["approve", "one"]);
    assert!(world.repair().args(["resume", "one"]).output().unwrap().status.success());
}
