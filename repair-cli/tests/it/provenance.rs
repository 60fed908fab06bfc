//! Why a slot is as it is; taking back what a run added, and that too; late truth; what a person knows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use crate::common::{World, seen};
use serde_json::Value;

fn refused(world: &World, arguments: &[&str]) -> String {
    let output = world.repair().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn rows(world: &World, name: &str) -> Vec<String> {
    std::fs::read_to_string(world.lake().join(name).join("2024-03-04.csv")).unwrap().lines().skip(1).map(str::to_owned).collect()
}

/// Minutes of AIG: one the table has, one that only the archive has, one that nobody has.
fn minutes(world: &World) -> [String; 3] {
    let time = |row: &String| row.split(',').nth(1).unwrap().to_owned();
    let of = |name: &str| rows(world, name).into_iter().filter(|row| row.starts_with("AIG,")).map(|row| time(&row)).collect::<Vec<_>>();
    let (raw, archive) = (of("bars"), of("archive"));
    let repaired = archive.iter().find(|time| !raw.contains(time)).unwrap();
    let quiet = (0..390).map(|minute| format!("2024-03-04T{:02}:{:02}:00Z", (870 + minute) / 60, (870 + minute) % 60));
    [raw[0].clone(), repaired.clone(), quiet.into_iter().find(|time| !archive.contains(time)).unwrap()]
}

#[test]
fn why_tells_of_a_raw_a_repaired_and_an_absent_minute() {
    let world = World::new();
    let [raw, repaired, quiet] = minutes(&world);
    world.run_json(&world.workflow(&[]), &["--run-id", "first"]);
    let why = |at: &str| world.json(&["why", "bars", "--key", "AIG", "--at", at]);
    assert_eq!(why(&raw)["standing"], "raw");
    assert_eq!(why(&raw)["repairs"], Value::Array(vec![]));
    let told = why(&repaired);
    assert_eq!(told["standing"], "repaired");
    let repair = &told["repairs"][0];
    for (name, value) in [("run", "first"), ("step", "fill"), ("source", "market"), ("op", "insert")] {
        assert_eq!(repair[name], value, "{told}");
    }
    assert_eq!((&repair["counts"], &repair["attempts"]), (&true.into(), &1.into()));
    let told = why(&quiet);
    assert_eq!((&told["standing"], &told["exceptions"][0]["counts"]), (&"absent".into(), &true.into()));
    assert!(!told["exceptions"][0]["answer"].as_str().unwrap().is_empty());
    let people = world.text(&["why", "bars", "--key", "AIG", "--at", &repaired]);
    assert!(
        people.contains("repair (it counts)") && people.contains("by run first, step fill") && people.contains("from market"),
        "{people}"
    );
    let people = world.text(&["why", "bars", "--key", "AIG", "--at", &quiet]);
    assert!(people.contains("absent (it counts)") && people.contains("sources are asked again after"), "{people}");
    assert!(refused(&world, &["why", "bars", "--at", &raw]).contains("--key"));
    assert!(refused(&world, &["why", "no_such", "--key", "AIG", "--at", &raw]).contains("no run here has had a table `no_such`"));
}

#[tokio::test]
async fn an_undone_run_leaves_the_view_as_it_was_and_undo_is_undone() {
    let world = World::new();
    let [_, repaired, quiet] = minutes(&world);
    let workflow = world.workflow(&[]);
    world.run_json(&workflow, &["--run-id", "first"]);
    let whole = seen(&world).await;
    let undo = world.json(&["undo", "first", "--reason", "the source was wrong"]);
    let of_bars = &undo["tables"][0];
    assert_eq!((&of_bars["rows"], &of_bars["absent"]), (&world.dropped.into(), &world.quiet.into()), "{undo}");
    assert_eq!(of_bars["stale"][0], "hourly");
    let view = seen(&world).await["view"].clone();
    assert_eq!(view.len(), rows(&world, "bars").len());
    assert!(whole["view"].len() > view.len());
    let why = |at: &str| world.json(&["why", "bars", "--key", "AIG", "--at", at]);
    let told = why(&repaired);
    assert_eq!((&told["standing"], &told["stale"][0]), (&"missing".into(), &"hourly".into()));
    assert_eq!(told["repairs"][0]["retracted_by"], undo["id"]);
    assert_eq!(told["retractions"][0]["reason"], "the source was wrong");
    assert_eq!(why(&quiet)["standing"], "missing");
    // Undo of the undo: all is as it was.
    let id = undo["id"].as_str().unwrap();
    let redo = world.json(&["redo", id]);
    assert_eq!(redo["tables"][0]["rows"], world.dropped, "{redo}");
    assert_eq!(seen(&world).await, whole);
    assert_eq!(why(&repaired)["standing"], "repaired");
    assert!(refused(&world, &["redo", id]).contains("hides nothing any more"));
    assert!(refused(&world, &["redo", "undo-nothing"]).contains("no undo"));
    // In part, and then repaired anew: the next run computes the marked hours again.
    let part = world.json(&["undo", "first", "--key", "AIG", "--from", "2024-03-04T14:30:00Z", "--to", "2024-03-04T15:30:00Z"]);
    let (rows_of_part, absent) = (part["tables"][0]["rows"].as_u64().unwrap(), part["tables"][0]["absent"].as_u64().unwrap());
    assert!(rows_of_part > 0 && rows_of_part < world.dropped as u64);
    assert!(refused(&world, &["undo", "first", "--step", "nothing"]).contains("no step `nothing`"));
    let (again, code) = world.run_json(&workflow, &["--run-id", "second"]);
    assert_eq!((code, &again["steps"]["find_gaps"]["output"]["missing"]), (0, &(rows_of_part + absent).into()), "{again}");
    assert_eq!(seen(&world).await["view"], whole["view"]);
    assert_eq!(seen(&world).await["hourly"], whole["hourly"]);
    assert_eq!(why(&repaired)["stale"], Value::Array(vec![]), "computed again");
}

/// Repaired by carrying forward, then the row itself lands: the view shows it, the hour is computed again, and the error is told.
#[tokio::test]
async fn late_truth_wins() {
    let world = World::new();
    let [_, repaired, _] = minutes(&world);
    let workflow = world.workflow(&[("repair: stocks.backfill", "repair: stocks.carry-forward"), ("with: { source: market }", "with: {}")]);
    world.run_json(&workflow, &["--run-id", "first"]);
    let before = seen(&world).await;
    assert_eq!(world.json(&["why", "bars", "--key", "AIG", "--at", &repaired])["standing"], "repaired");
    let ideas = world.json(&["accuracy", "bars"]);
    let strategy = ideas["strategies"].as_object().unwrap().keys().next().unwrap().clone();
    assert_eq!(ideas["strategies"][&strategy]["judged"], 0, "{ideas}");
    let row = rows(&world, "archive").into_iter().find(|row| row.starts_with(&format!("AIG,{repaired},"))).unwrap();
    std::fs::write(world.lake().join("bars/late.csv"), format!("symbol,ts,open,high,low,close,volume\n{row}\n")).unwrap();
    let told = world.json(&["why", "bars", "--key", "AIG", "--at", &repaired]);
    assert_eq!((&told["standing"], &told["repairs"][0]["counts"]), (&"raw".into(), &false.into()));
    let (raw_volume, guess) = (told["raw"][0]["volume"].as_f64().unwrap(), told["repairs"][0]["row"]["volume"].as_f64().unwrap());
    let accuracy = world.json(&["accuracy", "bars"]);
    let of_volume = &accuracy["strategies"][&strategy]["columns"]["volume"];
    assert_eq!(accuracy["strategies"][&strategy]["judged"], 1);
    assert_eq!(of_volume["mean_absolute"].as_f64().unwrap(), (raw_volume - guess).abs());
    assert_eq!(of_volume["worst_relative"].as_f64().unwrap(), (raw_volume - guess).abs() / raw_volume);
    assert!(raw_volume != guess, "carrying forward knows no volume");
    assert!(world.text(&["accuracy", "bars"]).contains("volume"));
    let (report, _) = world.run_json(&workflow, &["--run-id", "second"]);
    let after = seen(&world).await;
    assert_eq!(after["view"].len(), before["view"].len());
    assert_ne!(after["hourly"], before["hourly"], "the hour is computed again");
    // And on record: charged to the idea that guessed, once.
    assert_eq!(report["steps"]["find_gaps"]["output"]["overtaken"], 1, "{report}");
    let truth = |report: &Value| report["late_truth"]["find_gaps"][&strategy].clone();
    assert_eq!((&truth(&report)["slots"], &truth(&report)["new"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(truth(&report)["columns"]["volume"], *of_volume);
    let (report, _) = world.run_json(&workflow, &["--run-id", "third"]);
    assert_eq!((&truth(&report)["slots"], &truth(&report)["new"]), (&1.into(), &0.into()), "{report}");
    let people = world.text(&["show", "third"]);
    assert!(people.contains("in 1 slot (0 new); the largest error is in column `volume`: 100.00 % on average"), "{people}");
    assert!(world.text(&["show", "second", "--events"]).contains(r#""kind":"late-truth""#));
}

/// What was taken back beyond what a run looks at stays stale, and the run says so, with what to do.
#[test]
fn what_stays_stale_is_told_with_what_to_run() {
    let world = World::new();
    let workflow = world.workflow(&[]);
    world.run_json(&workflow, &["--run-id", "first"]);
    world.json(&["undo", "first"]);
    let narrow = world.workflow(&[("from: 2024-03-04, to: 2024-03-04", "from: 2024-03-04T15:00:00Z, to: 2024-03-04T16:00:00Z")]);
    let (report, code) = world.run_json(&narrow, &["--run-id", "narrow"]);
    assert_eq!((code, report["steps"]["hourly"]["output"]["stale"].as_array().map(Vec::len)), (0, Some(1)), "{report}");
    let told = |line: &Value| {
        let line = line.as_str().unwrap();
        line.starts_with("hourly: table `hourly` is stale between 2024-03-04T14:3") && line.ends_with("to recompute it")
    };
    assert!(report["problems"].as_array().unwrap().iter().any(told), "{report}");
    let (report, _) = world.run_json(&world.workflow(&[]), &["--run-id", "whole"]);
    assert_eq!(report["steps"]["hourly"]["output"]["stale"], Value::Null, "{report}");
}

#[test]
fn a_person_excepts_slots_with_a_reason_and_takes_it_back() {
    let world = World::new();
    let [raw, repaired, _] = minutes(&world);
    let workflow = world.workflow(&[]);
    world.run_json(&workflow, &["--run-id", "first"]);
    world.json(&["undo", "first"]);
    let end = format!("{}30Z", &repaired[..17]);
    let slot = ["--key", "AIG", "--from", &repaired, "--to", &end, "--reason", "halted that day"];
    let except = world.json(&[&["except", "bars"][..], &slot].concat());
    assert_eq!(except["tables"][0]["absent"], 1, "{except}");
    let why = || world.json(&["why", "bars", "--key", "AIG", "--at", &repaired]);
    assert_eq!(why()["standing"], "absent");
    let exception = why()["exceptions"][0].clone();
    assert_eq!((&exception["answer"], &exception["strategy"]), (&"halted that day".into(), &"person".into()));
    assert!(exception["source"].as_str().unwrap().starts_with("person:"));
    world.json(&[&["except", "bars", "--remove"][..], &slot].concat());
    assert_eq!(why()["standing"], "missing");
    assert!(refused(&world, &[&["except", "bars", "--remove"][..], &slot].concat()).contains("nothing was changed"));
    // Who says that a row is not there, which the table has, is in conflict with it, and that is shown.
    let end = format!("{}30Z", &raw[..17]);
    world.json(&["except", "bars", "--key", "AIG", "--from", &raw, "--to", &end, "--reason", "never traded"]);
    let told = world.json(&["why", "bars", "--key", "AIG", "--at", &raw]);
    assert_eq!(told["standing"], "raw");
    assert!(told["conflict"].as_str().unwrap().contains("never traded"), "{told}");
}

#[test]
fn why_begins_with_what_people_decided_and_says_which_repair_counts() {
    let world = World::new();
    std::fs::create_dir_all(world.lake().join("readings")).unwrap();
    let hold = |wrong: i32| {
        let text = format!("k,ts,v\na,2024-03-04T00:00:00Z,1\na,2024-03-04T01:00:00Z,{wrong}\na,2024-03-04T04:00:00Z,4\n");
        std::fs::write(world.lake().join("readings/x.csv"), text).unwrap();
    };
    let workflow = |find: &str, fill: &str| {
        format!(
            "workflow: w\nkind: state-machine\nprofiles: {{ local: {{ lake: local, with: {{ root: lake }} }} }}\ntables:\n  readings: {{ location: \
             readings, format: csv, key: [k], time: ts, cadence: 1h, keys: [a] }}\nstart: find\nsteps:\n  find: {{ detect: {find}, next: fill }}\n  fill: \
             {{ repair: {fill}, of: find, end: true }}\n"
        )
    };
    let scope = "table: readings, from: 2024-03-04T00:00:00Z, to: 2024-03-04T05:00:00Z";
    let why = |hour: u32| world.text(&["why", "readings", "--key", "a", "--at", &format!("2024-03-04T0{hour}:00:00Z")]);
    // The table gets another wrong row, which is replaced anew.
    for (run, wrong, fill) in [("one", -9, "carry-forward"), ("two", -8, "interpolate")] {
        hold(wrong);
        let file = world.write("w.yaml", &workflow(&format!("invalid, with: {{ {scope}, rules: [{{ holds: v >= 0 }}] }}"), fill));
        world.run_json(&file, &["--run-id", run]);
    }
    let told = why(1);
    assert!(told.contains("repair (it counts, and replaces the table's rows)"), "{told}");
    assert!(told.contains("repair (a newer one counts)") && !told.contains("raw wins"), "{told}");

    let gaps = format!("gaps, with: {{ {scope} }}");
    let file = world.write("w.yaml", &workflow(&gaps, "interpolate"));
    world.run_json(&file, &["--run-id", "three"]);
    world.text(&["undo", "three"]);
    assert!(why(2).contains("missing: there is no row, and what repaired it has been undone\n"), "{}", why(2));
    let span = ["--key", "a", "--from", "2024-03-04T02:00:00Z", "--to", "2024-03-04T03:00:00Z", "--reason", "closed"];
    world.text(&[&["except", "readings", "--freeze"], &span[..]].concat());
    assert!(why(2).contains("missing: there is no row, and it is frozen, so nothing repairs it\n"), "{}", why(2));
    assert!(!why(2).contains("nothing says why"));
}
