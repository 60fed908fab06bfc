//! What a person or a program at a terminal sees besides results: help, which runs there are and what they do, progress, logs, formats.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::common::World;

/// A text without what differs from run to run: times, how well they compress, and spaces at the ends of lines.
fn steady(world: &World, text: &str) -> String {
    let text = text.replace(&world.lake().parent().unwrap().display().to_string(), "");
    // What was used is one line here: where it is wrapped depends on how long its numbers are.
    let mut unwrapped: Vec<String> = Vec::new();
    for line in text.lines() {
        match unwrapped.last_mut().filter(|last| last.starts_with("usage: ") && line.starts_with("  ")) {
            Some(last) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            None => unwrapped.push(line.to_owned()),
        }
    }
    let mut lines = Vec::new();
    for line in &unwrapped {
        let words: Vec<&str> = line.split(' ').collect();
        let words = words.iter().enumerate().map(|(index, word)| {
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            let is_time = bare.len() >= 20 && bare.ends_with('Z') && bare.starts_with("20");
            let is_bytes = bare.len() >= 6 && bare.replace(',', "").parse::<u64>().is_ok();
            let is_kilobytes = words.get(index + 1).is_some_and(|unit| unit.starts_with("kB")) && bare.parse::<f64>().is_ok();
            // What was read of a file that was just written is not believed later, so a fast machine may read more rows.
            let is_rows_read = words[..index].ends_with(&["rows", "read"]);
            match (is_time, is_bytes || is_kilobytes) {
                (true, _) => word.replace(bare, "TIME"),
                (_, true) => word.replace(bare, "BYTES"),
                _ if is_rows_read => word.replace(bare, "ROWS"),
                _ => (*word).to_owned(),
            }
        });
        lines.push(words.collect::<Vec<String>>().join(" ").trim_end().to_owned());
    }
    lines.join("\n")
}

/// As [`steady`], without how long things took.
fn without_durations(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(" (") {
        let (before, from) = rest.split_at(at);
        kept.push_str(before);
        let end = from.find(')').map_or(from.len(), |end| end + 1);
        let inside = &from[2..end.saturating_sub(1).max(2)];
        if !(inside.ends_with(" ms") || inside.ends_with(" s")) {
            kept.push_str(&from[..end]);
        }
        rest = &from[end..];
    }
    kept.push_str(rest);
    kept
}

/// What a command prints in so many columns.
fn printed(world: &World, columns: u32, arguments: &[&str]) -> String {
    let output = world.repair().env("COLUMNS", columns.to_string()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= columns as usize, "{arguments:?} is wider than {columns} columns: {line}");
    }
    text
}

#[test]
fn what_people_read_fits_the_terminal() {
    let world = World::new();
    world.stay_new();
    world.workflow(&[]);
    world.text(&["run", "workflow.yaml", "--run-id", "monday"]);
    let mut shown = String::new();
    for columns in [80, 120] {
        for arguments in
            [&["--help"][..], &["help", "runs"], &["runs"], &["show", "monday"], &["costs", "last"], &["plan", "workflow.yaml"]]
        {
            let text = steady(&world, &printed(&world, columns, arguments));
            shown.push_str(&format!("$ COLUMNS={columns} repair {}\n{}\n\n", arguments.join(" "), text.trim_end()));
        }
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn a_run_is_named_by_the_beginning_of_its_id_or_as_the_last() {
    let world = World::new();
    world.workflow(&[]);
    for id in ["monday-1", "monday-2", "tuesday"] {
        world.text(&["run", "workflow.yaml", "--run-id", id]);
    }
    let ids = |arguments: &[&str]| -> Vec<String> {
        let runs = world.json(arguments);
        runs["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&["runs"]), ["tuesday", "monday-2", "monday-1"], "the newest is first");
    assert_eq!(ids(&["ls", "--limit", "2"]), ["tuesday", "monday-2"]);
    assert_eq!(ids(&["history", "--workflow", "another"]), [""; 0]);
    assert_eq!(ids(&["runs", "--status", "succeeded", "--status", "stopped"]).len(), 3);
    assert_eq!(ids(&["runs", "--status", "stopped"]), [""; 0]);
    for (name, run) in [("last", "tuesday"), ("tue", "tuesday"), ("monday-1", "monday-1")] {
        assert_eq!(world.json(&["show", name])["run"], run);
        assert_eq!(world.json(&["gaps", name])["run"], run);
    }
    let (_, error, code) = world.said(&["show", "monday"]);
    assert!(code == 2 && error.contains("the ids of 2 runs begin with `monday`: monday-2, monday-1; write more of the id"), "{error}");
    let (_, error, code) = world.said(&["undo", "wednesday"]);
    assert!(code == 2 && error.contains("there is no run `wednesday`"), "{error}");
    // An id that is whole is meant, even if others begin so.
    world.text(&["run", "workflow.yaml", "--run-id", "monday"]);
    assert_eq!(world.json(&["show", "monday"])["run"], "monday");
}

/// A run that another one runs as a step began later, and its id begins with that of the other.
#[test]
fn a_run_that_is_a_step_of_another_is_not_meant_by_last_or_by_a_beginning() {
    let world = World::new();
    world.workflow(&[]);
    world.write(
        "outer.yaml",
        "workflow: outer\nkind: state-machine\nstart: inner\nsteps:\n  inner: { workflow: ./workflow.yaml, end: true }\n",
    );
    world.text(&["run", "outer.yaml", "--run-id", "outer-run", "--lake", "lake"]);
    let runs = world.json(&["runs"]);
    let inner = runs["runs"][0]["run"].as_str().unwrap();
    assert!(runs["runs"].as_array().unwrap().len() == 2 && inner.starts_with("outer-run-"), "{runs}");
    for (name, run) in [("last", "outer-run"), ("outer", "outer-run"), (inner, inner)] {
        assert_eq!(world.json(&["show", name])["run"], run, "{name}");
    }
}

#[test]
fn a_run_that_is_driven_waits_and_is_killed_is_listed_as_what_it_is() {
    let world = World::new();
    world.workflow(&[("start: find_gaps\nsteps:\n", "start: sleep\nsteps:\n  sleep: { wait: { for: 1h }, next: find_gaps }\n")]);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("repair"));
    command.args(["run", "workflow.yaml", "--run-id", "slow"]).current_dir(world.lake().parent().unwrap());
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = || {
        let (out, _, code) = world.said(&["runs", "--json"]);
        let runs: Value = serde_json::from_str(&out).unwrap_or_default();
        if code == 0 { runs["runs"][0]["status"].as_str().unwrap_or_default().to_owned() } else { String::new() }
    };
    while status() != "waiting" {
        assert!(process.try_wait().unwrap().is_none(), "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(world.text(&["runs"]).contains("waiting until 20"));
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(status(), "stopped");
    assert!(
        world.json(&["doctor"])["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["what"] == "journal" && check["health"] == "warning")
    );
    // Whoever follows a run that nothing drives sees what it did, and is not kept waiting.
    assert!(world.text(&["logs", "slow", "--follow"]).contains("sleep: waiting until"));
    world.text(&["pause", "slow"]);
    assert_eq!(status(), "paused");
    world.text(&["cancel", "slow"]);
    assert_eq!(status(), "ended");
}

#[test]
fn each_step_is_reported_once_and_only_to_those_who_want_it() {
    let world = World::new();
    world.workflow(&[]);
    let (_, progress, code) = world.said(&["run", "workflow.yaml"]);
    assert_eq!(code, 0, "{progress}");
    insta::assert_snapshot!(without_durations(&steady(&world, &progress)));
    assert!(
        progress.lines().any(|line| line.starts_with("find_gaps: ") && (line.ends_with(" ms)") || line.ends_with(" s)"))),
        "{progress}"
    );
    let (out, silence, _) = world.said(&["run", "workflow.yaml", "--quiet"]);
    assert_eq!(silence, "");
    assert!(out.contains("succeeded"));
    let logs = world.text(&["logs", "last"]);
    assert!(logs.lines().all(|line| line.starts_with("20")), "{logs}");
    assert!(logs.contains("  find_gaps: ") && logs.trim_end().ends_with("succeeded"), "{logs}");
    assert_eq!(logs, world.text(&["logs", "last", "--follow"]), "a run that has ended is not waited for");
}

#[test]
fn a_program_reads_events_as_they_happen_and_the_log_as_json() {
    let world = World::new();
    world.workflow(&[]);
    let (out, _, code) = world.said(&["run", "workflow.yaml", "--run-id", "one", "--format", "ndjson"]);
    assert_eq!(code, 0);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (report, events) = lines.split_last().unwrap();
    assert_eq!(*report, world.json(&["show", "one"]));
    assert!(
        events.len() > 10 && events[0]["event"]["kind"] == "run-started" && events.last().unwrap()["event"]["kind"] == "run-ended",
        "{out}"
    );
    let logged: Vec<Value> = world.text(&["logs", "one", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(logged, events);

    let output = world.repair().args(["run", "workflow.yaml", "--run-id", "two", "-q", "-v", "--log-format", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "quiet and verbose do not go together");
    let run = |id: &str| {
        let mut command = world.repair();
        command.args(["run", "workflow.yaml", "--run-id", id, "-q", "--log-format", "json"]);
        command
    };
    let output = run("two").env("RUST_LOG", "repair_core=info").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let log: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    let ended = log.iter().find(|line| line["event"] == "run-ended").unwrap();
    assert_eq!((&ended["span"]["run"], &ended["span"]["workflow"], &ended["level"]), (&"two".into(), &"ticker".into(), &"INFO".into()));
    let output = run("three").env("RUST_LOG", "no such=thing=7").output().unwrap();
    let log: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(log["level"] == "WARN" && log["message"].as_str().unwrap().contains("RUST_LOG cannot be read"), "{log}");
}

#[test]
fn mistakes_and_problems_are_annotations_on_github() {
    let world = World::new();
    let broken = world.write("broken.yaml", "workflow: x\nkind: state-machine\nstart: a\nsteps:\n  a: { detect: gap, end: true }\n");
    let (out, _, code) = world.said(&["validate", &broken.display().to_string(), "--format", "github"]);
    assert_eq!(code, 2);
    assert!(out.starts_with("::error file=") && out.contains(",line=5,col=16::there is no detector `gap`"), "{out}");
    world.workflow(&[("location: archive", "location: nowhere")]);
    let (out, _, code) = world.said(&["run", "workflow.yaml", "--format", "github"]);
    assert!(code != 0 && out.lines().any(|line| line.starts_with("::error title=repair")), "{out}");
}

#[test]
fn colours_are_used_where_they_are_wanted() {
    let world = World::new();
    world.write("broken.yaml", "workflow: x\n");
    let colored = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = world.repair().args(["validate", "broken.yaml"]).args(arguments).envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stderr).unwrap().contains('\u{1b}')
    };
    assert!(!colored(&[], &[]), "this is no terminal");
    assert!(colored(&["--color", "always"], &[]) && colored(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]) && !colored(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn shells_and_man_know_all_commands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = world.text(&["completions", shell]);
        assert!(text.contains("verify-state") && text.contains("run-id"), "{shell}");
    }
    let said = world.text(&["man", "--out", "man1"]);
    let folder = world.lake().parent().unwrap().join("man1");
    let pages: Vec<String> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(pages.contains(&"repair.1".to_owned()) && pages.contains(&"repair-verify-state.1".to_owned()), "{pages:?}");
    assert_eq!(said.trim(), format!("{} pages in man1", pages.len()));
}

#[test]
fn the_doctor_finds_what_a_run_would_fail_on() {
    let world = World::new();
    let health = |arguments: &[&str], what: &str| -> (String, String) {
        let (out, _, _) = world.said(&[arguments, &["--json"]].concat());
        let examination: Value = serde_json::from_str(&out).unwrap();
        let checks = examination["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["what"] == what).unwrap_or_else(|| panic!("nothing about {what}: {out}"));
        (check["health"].as_str().unwrap().to_owned(), check["seen"].as_str().unwrap().to_owned())
    };
    // A calendar without an end: the hours of an exchange are known for some years only.
    let always = ("calendar: XNYS", "calendar: 24x7");
    world.workflow(&[always]);
    for what in ["program", "clock", "lake", "disk", "journal", "workflow `ticker`", "table `bars`"] {
        assert_ne!(health(&["doctor", "workflow.yaml"], what).0, "bad", "{what}");
    }
    let (_, _, code) = world.said(&["doctor", "workflow.yaml"]);
    assert_eq!(code, 0);
    world.workflow(&[always, ("location: bars", "location: nowhere")]);
    let (bad, seen) = health(&["doctor", "workflow.yaml"], "workflow `ticker`");
    assert!(bad == "bad" && seen.contains("nowhere"), "{seen}");
    let (out, _, code) = world.said(&["doctor", "workflow.yaml"]);
    assert!(code == 1 && out.contains("BAD      workflow `ticker`: "), "{out}");
    world.write("broken.yaml", "workflow: x\n");
    assert_eq!(health(&["doctor", "broken.yaml"], "workflow").0, "bad");
    assert_eq!(health(&["doctor", "--lake", "not-there"], "lake").0, "bad");
    assert!(!world.lake().join(".repair").exists(), "it left something behind");
}

/// `docs/commands.md` is what `--help` prints for each command. `DOCS_UPDATE=1` writes it anew.
#[test]
fn the_reference_of_commands_is_what_help_prints() {
    let world = World::new();
    let help = |name: &str| printed(&world, 100, &["help", name]).trim_end().to_owned();
    let overview = printed(&world, 100, &["--help"]);
    let mut page = "# Every command and option\n\nThis is what `repair --help` and `repair help COMMAND` print.\n".to_owned();
    page.push_str(&format!("\n```text\n{}\n```\n", overview.trim_end()));
    let mut commands = 0;
    for line in overview.lines() {
        let is_command = line.starts_with("  ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_lowercase);
        let Some(name) = line.split_whitespace().next().filter(|name| is_command && !["help", "repair"].contains(name)) else { continue };
        page.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help(name)));
        commands += 1;
    }
    assert!(commands > 25, "{commands} commands were found in {overview}");
    let page = page.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
    if std::env::var_os("DOCS_UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == page, "docs/commands.md is not what --help prints; run this test with DOCS_UPDATE=1, and look at what changed");
}
