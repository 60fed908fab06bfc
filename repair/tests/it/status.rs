//! The status of slots, against what is really there whenever a run looks; and slots that people have set aside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use repair::core::lake::{PresenceRequest, ReadLake as _};
use repair::core::model::{Cadence, Format, Key, Table, TimeMark};
use repair::local::LocalLake;
use repair::provenance::Verdict;
use repair::status::{States, Status};
use repair::{Interval, OpenLake, Repair, RunReport};
use serde_json::Value;

const KEYS: [&str; 2] = ["A", "B"];
const DAYS: [&str; 3] = ["2024-03-04", "2024-03-05", "2024-03-06"];
/// The hours of all days.
const HOURS: i64 = 72;
const FIRST_HOUR: i64 = 1_709_510_400 / 3_600;

struct World(tempfile::TempDir);

fn instant(hour: i64) -> repair::jiff::Timestamp {
    repair::jiff::Timestamp::from_second((FIRST_HOUR + hour) * 3_600).unwrap()
}

fn row(key: &str, hour: i64) -> String {
    format!("{key},{},{}\n", instant(hour), hour % 7)
}

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for folder in ["t", "archive"] {
            std::fs::create_dir_all(world.lake().join(folder)).unwrap();
        }
        let all: String = KEYS.iter().flat_map(|key| (0..HOURS).map(move |hour| row(key, hour))).collect();
        std::fs::write(world.lake().join("archive/all.csv"), format!("k,ts,value\n{all}")).unwrap();
        world
    }

    fn lake(&self) -> PathBuf {
        self.0.path().join("lake")
    }

    fn write(&self, rows: &BTreeSet<(usize, i64)>) {
        let mut text = String::from("k,ts,value\n");
        rows.iter().for_each(|(key, hour)| text.push_str(&row(KEYS[*key], *hour)));
        std::fs::write(self.lake().join("t/rows.csv"), text).unwrap();
    }

    async fn open(&self, steps: &str) -> Repair {
        let first = steps.trim_start().split(':').next().unwrap_or_default();
        let text = format!(
            "workflow: w\nkind: state-machine\ntables:\n  t: {{ location: t, format: csv, key: [k], time: ts, cadence: 1h }}\nsources:\n  vendor: {{ source: \
             stocks.archive, with: {{ location: archive, format: csv }} }}\nstart: {first}\nsteps:\n{steps}\n"
        );
        Repair::text("w.yaml", text).lake(self.lake()).connect().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }

    async fn run(&self, steps: &str) -> RunReport {
        self.open(steps).await.run().await.unwrap_or_else(|error| panic!("{}", error.full()))
    }

    fn opened(&self) -> OpenLake {
        OpenLake::at(self.lake()).unwrap()
    }

    async fn status(&self) -> Status {
        self.opened().status().table("t").await.unwrap_or_else(|error| panic!("{}", error.full()))
    }

    fn known(&self) -> PathBuf {
        self.lake().join(".repair/runs/%2Eknown")
    }

    /// What is in each slot now.
    async fn truth(&self) -> BTreeMap<(usize, i64), &'static str> {
        let table = Table {
            format: Format::Csv,
            key: vec!["k".into()],
            cadence: Some(Cadence::HOUR),
            time_marks: TimeMark::Start,
            ..Table::implicit("t", "ts")
        };
        let interval = Interval::new(instant(0), instant(HOURS)).unwrap();
        let grid = table.grid().unwrap();
        let keys: Vec<Key> = KEYS.iter().map(|key| Key::from(*key)).collect();
        let request = PresenceRequest::new(grid.slots_in(&interval), keys.clone(), repair::jiff::Timestamp::now());
        let presence = LocalLake::open(self.lake()).unwrap().presence(&table, &request).await.unwrap();
        let mut all = BTreeMap::new();
        for (number, key) in keys.iter().enumerate() {
            for hour in 0..HOURS {
                let slot = grid.slot_of(instant(hour));
                let has = |sets: &BTreeMap<Key, repair::core::model::SlotSet>| sets.get(key).is_some_and(|set| set.contains(slot));
                let own = presence.raw.keys.get(key).is_some_and(|of_key| of_key.present.contains(slot));
                let state = match () {
                    () if own => "complete",
                    () if has(&presence.repaired) => "repaired",
                    () if has(&presence.absent) => "absent",
                    () => "missing",
                };
                all.insert((number, hour), state);
            }
        }
        all
    }
}

fn output(report: &RunReport, step: &str) -> Value {
    report.step(step).map(|step| step.output.clone()).unwrap_or_default()
}

/// A decision: what, of which key or all, from which hour to which.
type Decision = (String, Verdict, Option<usize>, i64, i64);

/// What the slots that were looked at add up to.
fn counted(seen: &BTreeMap<(usize, i64), &'static str>, decisions: &[Decision], key: usize, day: i64) -> [u64; 7] {
    let mut counts = [0; 7];
    for hour in day * 24..(day + 1) * 24 {
        let Some(state) = seen.get(&(key, hour)) else { continue };
        counts[0] += 1;
        let about = |decision: &&Decision| decision.2.is_none_or(|of| of == key) && decision.3 <= hour && hour < decision.4;
        let verdict = decisions.iter().filter(about).map(|decision| decision.1).min();
        let at = match (*state, verdict) {
            ("complete", _) => 1,
            ("repaired", _) => 2,
            ("absent", _) => 3,
            (_, Some(Verdict::Frozen)) => 5,
            (_, Some(_)) => 6,
            (_, None) => 4,
        };
        counts[at] += 1;
    }
    counts
}

fn of_states(states: &States) -> [u64; 7] {
    let aside = states.given_up + states.elsewhere;
    [states.expected, states.complete, states.repaired, states.absent, states.missing, states.frozen, aside]
}

fn check(seed: u64, step: usize, status: &Status, seen: &BTreeMap<(usize, i64), &'static str>, decisions: &[Decision]) {
    let table = status.tables.first().unwrap();
    for (number, name) in KEYS.iter().enumerate() {
        for (day, date) in (0..).zip(DAYS) {
            let of_key = table.keys.iter().find(|key| key.key == Key::from(*name));
            let found = of_key.and_then(|key| key.days.iter().find(|day| day.date.to_string() == date));
            let expected = counted(seen, decisions, number, day);
            let found_counts = found.map_or([0; 7], |day| of_states(&day.states));
            assert_eq!(found_counts, expected, "seed {seed}, step {step}, key {name}, {date}: {found:?}");
            if let Some(found) = found {
                assert!(found.states.add_up(), "seed {seed}, step {step}: {found:?}");
                assert_eq!(found.part.is_some(), expected[0] < 24, "seed {seed}, step {step}: {found:?}");
                assert!(table.looks.get(found.look).is_some());
            }
        }
    }
}

/// Rows that come and go, looks at parts of the time and of the keys, repairs, undone runs, exceptions and decisions, in any order: the status is what runs
/// saw slot by slot, and after a look at everything it is what is there. It is the same once all that is kept of it is gone or damaged.
#[tokio::test]
async fn the_status_is_what_runs_last_saw_slot_by_slot() {
    for seed in 0..8 {
        story(seed).await;
    }
}

async fn story(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let world = World::new();
    let mut rows: BTreeSet<(usize, i64)> =
        (0..KEYS.len()).flat_map(|key| (0..HOURS).map(move |hour| (key, hour))).filter(|_| random.random_bool(0.8)).collect();
    world.write(&rows);
    let mut seen: BTreeMap<(usize, i64), &'static str> = BTreeMap::new();
    let (mut runs, mut decisions): (Vec<String>, Vec<Decision>) = (Vec::new(), Vec::new());
    for step in 0..14 {
        let (from, length) = (random.random_range(0..HOURS - 1), random.random_range(1..40));
        let to = (from + length).min(HOURS);
        let key = random.random_range(0..KEYS.len());
        match if step == 0 { 0 } else { random.random_range(0..8) } {
            // Looks, and looks with repairs: of all keys, and of one.
            choice @ 0..3 => {
                let of = if choice == 2 { KEYS[key].to_owned() } else { KEYS.join(", ") };
                let scope = format!("table: t, keys: [{of}], from: \"{}\", to: \"{}\"", instant(from), instant(to));
                let repairs = choice != 0;
                let then = if repairs { "next: fill" } else { "end: true" };
                let mut steps = format!("  look: {{ detect: gaps, with: {{ {scope} }}, {then} }}\n");
                if repairs {
                    steps.push_str("  fill: { repair: backfill, of: look, with: { source: vendor }, next: check }\n");
                    steps.push_str("  check: { verify: look, end: true }\n");
                }
                let report = world.run(&steps).await;
                assert!(report.error.is_none(), "seed {seed}, step {step}: {:?}", report.reason);
                let counts = output(&report, "look");
                let of = |name: &str| counts[name].as_u64().unwrap_or(0);
                let all = of("present") + of("absent") + of("missing") + of("frozen") + of("given_up") + of("elsewhere");
                assert_eq!(of("expected"), all, "seed {seed}, step {step}: {counts}");
                if repairs {
                    runs.push(report.run);
                }
                let truth = world.truth().await;
                let examined = |place: &(usize, i64)| from <= place.1 && place.1 < to && (choice != 2 || place.0 == key);
                seen.extend(truth.into_iter().filter(|(place, _)| examined(place)));
            }
            // Rows arrive late, or are lost.
            3 => {
                for hour in from..to {
                    if random.random_bool(0.5) {
                        rows.insert((key, hour))
                    } else {
                        rows.remove(&(key, hour))
                    };
                }
                world.write(&rows);
            }
            4 => {
                if let Some(run) = runs.pop() {
                    // It may have added nothing, or frozen slots.
                    let _ = world.opened().undo(run).await;
                }
            }
            5 => {
                let interval = Interval::new(instant(from), instant(to)).unwrap();
                world.opened().except("t", interval, "nobody measured").key(KEYS[key]).await.unwrap();
            }
            6 => {
                let verdict = Verdict::ALL[random.random_range(0..3)];
                let of = random.random_bool(0.5).then_some(key);
                let lake = world.opened();
                let (from_text, to_text) = (instant(from).to_string(), instant(to).to_string());
                let request = lake.set_aside("t", verdict, to_text, "a test").from(from_text.as_str()).key(of.map(|key| KEYS[key]));
                decisions.push((request.await.unwrap().decision.id, verdict, of, from, to));
            }
            _ => {
                if let Some((id, ..)) = decisions.pop() {
                    world.opened().lift("t", id, "a test").await.unwrap();
                }
            }
        }
        check(seed, step, &world.status().await, &seen, &decisions);
    }
    // A look at everything.
    let report =
        world.run("  look: { detect: gaps, with: { table: t, keys: [A, B], from: 2024-03-04, to: 2024-03-06 }, end: true }\n").await;
    let counts = output(&report, "look");
    let of = |name: &str| counts[name].as_u64().unwrap_or(0);
    let status = world.status().await;
    let total = status.tables[0].total;
    let found = [of("expected"), of("present") - of("repaired"), of("repaired"), of("absent"), of("missing"), of("frozen")];
    assert_eq!(of_states(&total)[..6], found, "seed {seed}: {counts}");
    assert_eq!((total.given_up, total.elsewhere), (of("given_up"), of("elsewhere")), "seed {seed}: {counts}");
    // Gone, and damaged.
    std::fs::remove_dir_all(world.known()).unwrap();
    assert_eq!(world.status().await.tables, status.tables, "seed {seed}");
    for entry in std::fs::read_dir(world.known()).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(world.status().await.tables, status.tables, "seed {seed}");
}

#[tokio::test]
async fn what_nobody_looked_at_is_not_complete_and_what_changed_since_is_noted() {
    let world = World::new();
    world.write(&(0..HOURS).filter(|hour| hour % 5 != 0).map(|hour| (0, hour)).collect());
    let error = world.opened().status().await.map(|status| status.tables).unwrap_err();
    assert_eq!(error.kind(), repair::ErrorKind::NotFound);
    let look = |day: &str| format!("  look: {{ detect: gaps, with: {{ table: t, keys: [A], from: {day}, to: {day} }}, next: fill }}\n");
    let fill = "  fill: { repair: backfill, of: look, with: { source: vendor }, end: true }\n";
    let first = world.run(&format!("{}{fill}", look(DAYS[0]))).await;
    world.run(&format!("{}{fill}", look(DAYS[2]))).await;
    let status = world.status().await;
    let table = &status.tables[0];
    assert_eq!((table.keys[0].days.len(), table.never_looked), (2, 1), "{table:?}");
    assert_eq!((table.total.expected, table.total.missing, table.total.complete), (48, 10, 38), "nothing has looked again");
    assert!(
        table.notes.iter().any(|note| note.contains("has repaired or confirmed absent 5 slots since the latest look")),
        "{:?}",
        table.notes
    );
    world.opened().undo(&first.run).await.unwrap();
    let status = world.status().await;
    assert!(status.tables[0].notes.iter().any(|note| note.contains("were hidden since the latest look")), "{:?}", status.tables[0].notes);
    // Only a part is asked for.
    let lake = world.opened();
    let part = lake.status().table("t").key("A").since("2024-03-06".parse::<repair::jiff::civil::Date>().unwrap()).await.unwrap();
    assert_eq!((part.tables[0].total.expected, part.tables[0].looks.len()), (24, 1));
    assert!(lake.status().table("t").key("nobody").await.is_err());
    let wrong = lake.status().table("tt").await.unwrap_err();
    assert!(wrong.full().contains("did you mean `t`?"), "{}", wrong.full());
    // A picture of it, with words for those who do not see it, and nothing of the data unescaped.
    let picture = repair::status::picture(&status);
    let label = "aria-label=\"Status of table t, 1 key from 2024-03-04 to 2024-03-06, by what is worst of each key and day: 2 missing, 1 never looked at\"";
    assert!(picture.starts_with("<svg") && picture.contains(label), "{picture}");
    assert!(repair::status::page(&status).contains("<style>"));
}

/// Several rows in a slot, and values that break a rule.
#[tokio::test]
async fn suspect_and_replaced_rows_have_their_states() {
    let world = World::new();
    let mut text = String::from("k,ts,value\n");
    for hour in 0..24 {
        let value = if hour == 7 { 900 } else { hour };
        writeln!(text, "A,{},{value}", instant(hour)).unwrap();
    }
    // The first two are the same row twice.
    writeln!(text, "A,{},3\nA,{},4\nA,{},77", instant(3), instant(4), instant(5)).unwrap();
    std::fs::write(world.lake().join("t/rows.csv"), text).unwrap();
    let scope = "table: t, keys: [A], from: 2024-03-04, to: 2024-03-04";
    let only_rows = format!("  twice: {{ detect: duplicates, with: {{ {scope} }}, end: true }}\n");
    world.run(&only_rows).await;
    let states = async |world: &World| world.status().await.tables[0].total;
    let total = states(&world).await;
    assert_eq!((total.expected, total.suspect, total.unexamined), (24, 3, 21), "nobody has looked for gaps: {total:?}");
    let steps = format!(
        "  gaps: {{ detect: gaps, with: {{ {scope} }}, next: odd }}\n  odd: {{ detect: invalid, with: {{ {scope}, rules: [{{ column: value, max: 100 }}] }}, next: \
         twice }}\n  twice: {{ detect: duplicates, with: {{ {scope} }}, next: keep }}\n  keep: {{ repair: keep, of: twice, with: {{ keep: {{ min: value }} }}, next: check }}\n  \
         check: {{ verify: twice, end: true }}\n"
    );
    let report = world.run(&steps).await;
    assert_eq!((output(&report, "twice")["defective"].as_u64(), output(&report, "check")["defective"].as_u64()), (Some(3), Some(0)));
    let total = states(&world).await;
    assert_eq!((total.expected, total.suspect, total.repaired, total.complete, total.unexamined), (24, 1, 3, 20, 0), "{total:?}");
    // The same from new looks at everything.
    let report = world.run(&steps).await;
    assert_eq!(output(&report, "twice")["replaced"], 3);
    assert_eq!(states(&world).await, total);
}

/// What was repaired or hidden counts as it was seen until the step looks again that saw it, whatever other steps look at meanwhile. A note says so.
#[tokio::test]
async fn what_no_step_has_looked_at_again_is_noted_whatever_else_was_looked_at() {
    let world = World::new();
    let mut text = String::from("k,ts,value\n");
    for hour in (0..72).filter(|hour| *hour != 9) {
        let value = if hour == 7 { 900 } else { hour };
        writeln!(text, "A,{},{value}", instant(hour)).unwrap();
    }
    // One of two rows of a slot breaks the rule.
    writeln!(text, "A,{},950", instant(3)).unwrap();
    std::fs::write(world.lake().join("t/rows.csv"), text).unwrap();
    let notes = async |world: &World| world.status().await.tables[0].notes.join("\n");
    let total = async |world: &World| world.status().await.tables[0].total;
    let scope = "table: t, keys: [A], from: 2024-03-04, to: 2024-03-04";
    let odd = format!("detect: invalid, with: {{ {scope}, rules: [{{ column: value, max: 100 }}] }}");
    // A look for something else comes after the repair.
    let first = world
        .run(&format!(
            "  gaps: {{ detect: gaps, with: {{ {scope} }}, next: fill }}\n  fill: {{ repair: backfill, of: gaps, with: {{ source: vendor }}, next: odd }}\n  odd: {{ {odd}, end: true \
             }}\n"
        ))
        .await;
    let since = "has repaired or confirmed absent 1 slot since the latest look";
    assert_eq!(total(&world).await.missing, 1);
    assert!(notes(&world).await.contains(&format!("run {} {since}", first.run)), "{}", notes(&world).await);
    // Nor does a look for gaps elsewhere change that, but one there does.
    world.run("  gaps: { detect: gaps, with: { table: t, keys: [A], from: 2024-03-05, to: 2024-03-06 }, end: true }\n").await;
    assert!(notes(&world).await.contains(since), "{}", notes(&world).await);
    world.run(&format!("  gaps: {{ detect: gaps, with: {{ {scope} }}, end: true }}\n")).await;
    assert_eq!((total(&world).await.missing, notes(&world).await.as_str()), (0, ""));
    // Two steps find something wrong with a slot, and what one of them found is repaired and verified.
    let second = world
        .run(&format!(
            "  odd: {{ {odd}, next: twice }}\n  twice: {{ detect: duplicates, with: {{ {scope} }}, next: keep }}\n  keep: {{ repair: keep, of: twice, with: {{ keep: {{ min: value }} \
             }}, next: check }}\n  check: {{ verify: twice, end: true }}\n"
        ))
        .await;
    let since = "has repaired 1 slot since step `odd` looked and found 2 slots wrong";
    assert_eq!(total(&world).await.suspect, 2);
    assert!(notes(&world).await.contains(&format!("run {} {since}", second.run)), "{}", notes(&world).await);
    world.run(&format!("  odd: {{ {odd}, end: true }}\n")).await;
    assert_eq!((total(&world).await.suspect, notes(&world).await.as_str()), (1, ""));
    // What is hidden shows once somebody has looked there.
    world.opened().undo(&first.run).await.unwrap();
    world.run("  gaps: { detect: gaps, with: { table: t, keys: [A], from: 2024-03-05, to: 2024-03-06 }, end: true }\n").await;
    assert!(notes(&world).await.contains("were hidden since the latest look"), "{}", notes(&world).await);
    // What is kept of it is made anew.
    let before = notes(&world).await;
    std::fs::remove_dir_all(world.known()).unwrap();
    assert_eq!(notes(&world).await, before);
    world.run(&format!("  gaps: {{ detect: gaps, with: {{ {scope} }}, end: true }}\n")).await;
    assert_eq!((total(&world).await.missing, notes(&world).await.as_str()), (1, ""));
}

/// Frozen slots are found and counted apart. No repair writes to them, though they were frozen after they had been found: by filling, replacing, patching.
#[tokio::test]
async fn nothing_is_written_to_frozen_slots() {
    let scope = "table: t, keys: [A], from: 2024-03-04, to: 2024-03-05";
    let cases = [
        ("detect: gaps", "", "repair: backfill", "with: { source: vendor }, ", "missing"),
        ("detect: duplicates", "", "repair: keep", "with: { keep: { min: value } }, ", "defective"),
        ("detect: invalid", ", rules: [{ column: value, max: 100 }]", "repair: interpolate", "", "defective"),
    ];
    for (detect, rules, repair, with, wrong) in cases {
        for frozen_before in [true, false] {
            let world = World::new();
            let mut text = String::from("k,ts,value\n");
            for hour in (0..48).filter(|hour| hour % 24 != 9) {
                let value = if hour % 24 == 7 { 900 } else { hour };
                writeln!(text, "A,{},{value}", instant(hour)).unwrap();
            }
            writeln!(text, "A,{},77\nA,{},77", instant(3), instant(27)).unwrap();
            std::fs::write(world.lake().join("t/rows.csv"), &text).unwrap();
            let steps = format!(
                "  look: {{ {detect}, with: {{ {scope}{rules} }}, next: pause }}\n  pause: {{ wait: {{ until: {{ event: go, every: 50ms, timeout: 2m }} }}, next: fix }}\n  fix: {{ {repair}, of: look, \
                 {with}next: check }}\n  check: {{ verify: look, end: true }}\n"
            );
            let opened = world.open(&steps).await;
            // The table is known once a run has had it.
            world.run("  only: { detect: gaps, with: { table: t, keys: [A], from: 2024-03-06, to: 2024-03-06 }, end: true }\n").await;
            let freeze = async || world.opened().set_aside("t", Verdict::Frozen, "2024-03-04", "the day is closed").await.unwrap();
            let mut id = None;
            if frozen_before {
                id = Some(freeze().await.decision.id);
            }
            let lake = world.opened();
            let running = tokio::spawn(async move { opened.run().id("it").await });
            let mut waited = 0;
            while lake.gaps("it").await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                waited += 1;
                assert!(waited < 2_400, "the run finds nothing");
            }
            if !frozen_before {
                id = Some(freeze().await.decision.id);
            }
            lake.signal("it", "go", None, Value::Null).await.unwrap();
            let report = running.await.unwrap().unwrap_or_else(|error| panic!("{}", error.full()));
            let case = format!("{repair}, frozen before: {frozen_before}");
            let (look, check) = (output(&report, "look"), output(&report, "check"));
            assert_eq!(look[wrong], if frozen_before { 1 } else { 2 }, "{case}: {look}");
            assert_eq!(look["frozen"].as_u64(), frozen_before.then_some(1), "{case}: {look}");
            assert_eq!((&check[wrong], check["gaps"].as_u64()), (&0.into(), Some(0)), "{case}: {check}");
            assert_eq!(output(&report, "fix")["repaired"], 1, "{case}");
            assert_eq!(std::fs::read_to_string(world.lake().join("t/rows.csv")).unwrap(), text);
            let at = |hour: i64| {
                instant(if detect.contains("gaps") {
                    hour + 9
                } else if detect.contains("invalid") {
                    hour + 7
                } else {
                    hour + 3
                })
            };
            let frozen = lake.why("t", at(0)).key("A").await.unwrap();
            assert!(frozen.repairs.is_empty() && frozen.exceptions.is_empty(), "{case}: {frozen:?}");
            assert_eq!(frozen.decisions.len(), 1);
            assert_eq!(lake.why("t", at(24)).key("A").await.unwrap().repairs.len(), 1, "{case}");
            assert_eq!(world.status().await.tables[0].total.frozen, 1, "{case}");
            // Once it is lifted, the next run repairs it.
            lake.lift("t", id.unwrap(), "it was opened again").await.unwrap();
            assert!(lake.asides("t").await.unwrap().decisions.is_empty());
            let again = world
                .run(
                    &steps
                        .replace("next: pause", "next: fix")
                        .replace("  pause: { wait: { until: { event: go, every: 50ms, timeout: 2m } }, next: fix }\n", ""),
                )
                .await;
            assert_eq!((&output(&again, "look")[wrong], &output(&again, "fix")["repaired"]), (&1.into(), &1.into()), "{case}");
            // What was repaired cannot be taken back once it is frozen.
            freeze().await;
            let refused = lake.undo(&again.run).await.unwrap_err();
            assert!(refused.full().contains("frozen"), "{}", refused.full());
        }
    }
}

/// Whoever waits for rows does not wait for those that people have set aside.
#[tokio::test]
async fn nobody_waits_for_frozen_slots() {
    let world = World::new();
    world.write(&(0..24).filter(|hour| *hour != 9).map(|hour| (0, hour)).collect());
    let scope = "table: t, keys: [A], from: 2024-03-04, to: 2024-03-04";
    let wait = format!(
        "  ready: {{ wait: {{ until: {{ sensor: gaps, with: {{ {scope} }}, when: $output.missing = 0, every: 20ms, timeout: 300ms }} }}, end: true }}\n"
    );
    assert_eq!(world.run(&wait).await.error, Some(repair::ErrorKind::Timeout));
    world.opened().set_aside("t", Verdict::GivenUp, "2024-03-04", "nobody has it").key("A").await.unwrap();
    let report = world.run(&wait).await;
    assert_eq!((report.error, &output(&report, "ready")["given_up"]), (None, &1.into()), "{:?}", report.reason);
}

#[tokio::test]
async fn a_lake_in_memory_has_a_status_too() {
    use std::sync::Arc;

    use repair::arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
    use repair::core::testing::{MemoryJournal, MemoryLake};

    let table = Table { key: vec!["k".into()], cadence: Some(Cadence::HOUR), ..Table::implicit("t", "ts") };
    let hours: Vec<i64> = (0..24).filter(|hour| hour % 6 != 5).collect();
    let times = TimestampMicrosecondArray::from_iter_values(hours.iter().map(|hour| instant(*hour).as_microsecond())).with_timezone("UTC");
    let keys = StringArray::from(vec!["A"; hours.len()]);
    let batch = RecordBatch::try_from_iter([("k", Arc::new(keys) as _), ("ts", Arc::new(times) as _)]).unwrap();
    let (lake, journal) = (Arc::new(MemoryLake::default()), Arc::new(MemoryJournal::default()));
    lake.put_table(&table, &[batch]).unwrap();
    let workflow = "workflow: w\nkind: dag\ntables:\n  t: { location: t, format: parquet, key: [k], time: ts, cadence: 1h }\nsteps:\n  look: { detect: gaps, with: { \
                    table: t, keys: [A], from: 2024-03-04, to: 2024-03-04 } }\n";
    let repair = Repair::text("w.yaml", workflow).adapters(lake.clone(), journal.clone()).connect().await.unwrap();
    repair.run().await.unwrap();
    let open = OpenLake::of(lake, journal);
    let total = async || open.status().await.unwrap().tables[0].total;
    assert_eq!(of_states(&total().await), [24, 20, 0, 0, 4, 0, 0]);
    open.set_aside("t", Verdict::Frozen, "2024-03-04T12:00:00Z", "the morning is closed").await.unwrap();
    assert_eq!(of_states(&total().await), [24, 20, 0, 0, 2, 2, 0]);
}
