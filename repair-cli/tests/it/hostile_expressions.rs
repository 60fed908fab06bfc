//! Expressions that could fill memory are evaluated in a process of its own: the command goes on, and says what was wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::process::Stdio;

use crate::common::World;

/// How a run ends whose only condition is an expression: what it says, its code, and the most memory that the command and its processes had.
fn run(world: &World, condition: &str) -> (String, i32, u64) {
    let workflow = format!(
        "workflow: conditions\nkind: state-machine\nparams:\n  text: {{ type: string, default: 'abcdefghij' }}\nstart: wait\nsteps:\n  wait:\n    \
         wait: {{ for: 0s }}\n    next: [{{ when: {}, goto: yes }}, {{ goto: no }}]\n  yes: {{ wait: {{ for: 0s }}, end: true }}\n  no: {{ fail: \
         the condition does not hold }}\nprofiles:\n  local: {{ lake: local, with: {{ root: ./lake }} }}\n",
        serde_json::to_string(condition).unwrap()
    );
    let workflow = world.write("conditions.yaml", &workflow);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_repair"));
    command.arg("run").arg(workflow).current_dir(world.lake().parent().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut peak_mb = 0;
    while child.try_wait().unwrap().is_none() {
        peak_mb = peak_mb.max(peak_of(child.id()));
        std::thread::yield_now();
    }
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    (said, output.status.code().unwrap(), peak_mb)
}

/// The most memory that a process and those that it started had so far.
#[cfg(target_os = "linux")]
fn peak_of(process: u32) -> u64 {
    let own = |process: &str| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let kb = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kb.unwrap_or(0) / 1024
    };
    let mut peak_mb = own(&process.to_string());
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        peak_mb = children.split_whitespace().map(own).fold(peak_mb, u64::max);
    }
    peak_mb
}

#[cfg(not(target_os = "linux"))]
fn peak_of(_: u32) -> u64 {
    0
}

#[test]
fn conditions_hold_or_do_not_in_a_process_of_their_own_too() {
    let world = World::new();
    for condition in
        ["$length($params.text) = 10", "$count($map([1..5], function($n) { $n * 2 })) = 5", "($a := $params.text; $a & $a != $a)"]
    {
        let (said, code, _) = run(&world, condition);
        assert_eq!(code, 0, "{condition}: {said}");
    }
    let (said, code, _) = run(&world, "$count([1..5]) = 6");
    assert!(code == 1 && said.contains("the condition does not hold"), "{said}");
    // What is wrong is said as anywhere else.
    for (condition, words) in [
        ("$count($map([1..5], function($n) { $uppercase($n) })) = 1", "cannot be computed"),
        ("$count([1..9999999]) > 0", "maximum sequence length"),
    ] {
        let (said, code, _) = run(&world, condition);
        assert!(code != 0 && said.contains(words) && said.contains(condition), "{condition}: {said}");
    }
}

#[test]
fn an_expression_that_needs_too_much_memory_ends_and_not_the_command() {
    let world = World::new();
    for condition in [
        "$count($map([1..90000], function($i) { [1..90000] })) > 0",
        "$length($reduce([1..40], function($a, $b) { $a & $a }, $params.text)) > 0",
        "$length($join($map([1..90000], function($i) { $pad('x', 9000) }))) > 0",
        "$length($string($reduce([1..60], function($a, $b) { [$a, $a, $b] }, $params.text))) > 0",
        "$length($replace($pad('a', 10000, 'a'), 'a', $replace($pad('b', 10000, 'b'), 'b', $params.text))) > 0",
    ] {
        let (said, code, peak_mb) = run(&world, condition);
        assert!(code != 0 && said.contains("cannot be computed"), "{condition}: {code} {said}");
        assert!(peak_mb < 500, "{condition}: {peak_mb} MB");
    }
}
