//! SQL of users runs in a process of its own: whatever it needs, the command goes on, and says what was wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;

use crate::common::World;

/// How a run ends whose only step is a query: what it says, and its code.
fn run(world: &World, query: &str, more: &str) -> (String, i32) {
    let workflow = format!(
        "workflow: sql\nkind: state-machine\ntables:\n  bars: {{ location: bars, format: csv, key: [symbol], time: ts, cadence: 1m }}\nstart: sum\nsteps:\n  sum:\n    \
         aggregate: sql\n    with: {{ into: sums, query: {} }}\n{more}    end: true\nprofiles:\n  local: {{ lake: local, with: {{ root: ./lake }} }}\n",
        serde_json::to_string(query).unwrap()
    );
    let workflow = world.write("sql.yaml", &workflow);
    let output = world.repair().env("TMPDIR", world.lake()).arg("run").arg(workflow).output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    (said, output.status.code().unwrap())
}

/// The processes of queries of this lake that are still there. A process keeps its program's arguments and, of its environment, where temporary
/// files go.
#[cfg(target_os = "linux")]
fn workers(temporary: &Path) -> usize {
    let read = |path: &Path, name: &str| std::fs::read(path.join(name)).unwrap_or_default();
    let has = |bytes: &[u8], part: &[u8]| bytes.split(|byte| *byte == 0).any(|one| one == part);
    let variable = [b"TMPDIR=", temporary.as_os_str().as_encoded_bytes()].concat();
    let is_worker = |path: &Path| has(&read(path, "cmdline"), b"repair-sql-worker") && has(&read(path, "environ"), &variable);
    std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| is_worker(&entry.path())).count()
}

#[test]
fn a_query_gives_its_rows_or_says_why_it_cannot() {
    let world = World::new();
    let (said, code) = run(&world, "SELECT symbol, max(ts) AS ts, count(*) AS bars FROM bars GROUP BY symbol", "");
    assert_eq!(code, 0, "{said}");
    assert!(world.lake().join("sums").exists());
    for (query, words) in [
        ("SELECT ts, clsoe FROM bars", &["clsoe", "close"][..]),
        ("SELECT ts FROM bras", &["bras"]),
        ("SELECT ts, CAST(symbol AS BIGINT) AS s FROM bars", &["Cannot cast"]),
        (&format!("SELECT ts, 1{} AS s FROM bars", "+1".repeat(3_000)), &["nests 3002 expressions", "may nest 400"]),
        (&format!("SELECT ts FROM bars WHERE {}", "NOT ".repeat(5_000) + "true"), &["could not be run"]),
    ] {
        let (said, code) = run(&world, query, "");
        assert_eq!(code, 2, "{said}");
        assert!(words.iter().all(|word| said.contains(word)) && !said.contains("panicked"), "{words:?}: {said}");
    }
}

#[test]
fn a_query_that_needs_too_much_memory_ends_and_not_the_command() {
    let world = World::new();
    for (query, words) in [
        ("SELECT ts, repeat('x', 2000000000) || repeat('y', 2000000000) AS s FROM bars", "more than 4 GiB of memory"),
        ("SELECT max(ts) AS ts, count(*) AS n FROM (SELECT ts, rpad(symbol, 2147483647, 'xy') AS s FROM bars) WHERE s > 'a'", "memory"),
        ("SELECT ts, repeat('x', 1000000) AS s FROM bars", "MiB for"),
    ] {
        let (said, code) = run(&world, query, "");
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_query_ends_with_its_step() {
    let world = World::new();
    let endless =
        "SELECT max(a.ts) AS ts FROM bars a, bars b, bars c WHERE sqrt(a.close * b.close) + ln(c.close) + exp(a.close / 1000) < 0";
    let (said, code) = run(&world, endless, "    timeout: 2s\n");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("timeout"), "{said}");
    testdata::wait_until("its process is gone", || workers(&world.lake()) == 0);
}
