//! `repair init`: from a folder of files to a workflow that is valid and can be planned at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fmt::Write;
use std::path::Path;

use crate::common::{World, files};
use serde_json::Value;

/// A folder beside the lake `./lake` of a world, with files.
fn folder(world: &World, name: &str, files: &[(&str, &str)]) {
    for (file, text) in files {
        let path = world.lake().join(name).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// What `init` prints and writes. The workflow must be valid, and be planned, as it is.
fn init(world: &World, arguments: &[&str], table: &str) -> (String, String, Value) {
    let printed = world.text(&[&["init"], arguments].concat());
    let file = format!("{table}.yaml");
    let written = std::fs::read_to_string(world.lake().join("..").join(&file)).unwrap();
    world.text(&["validate", &file]);
    let plan = world.json(&["plan", &file]);
    (printed, written, plan)
}

/// Fifteen-minute readings of two meters, as a German utility exports them: local time, decimal commas, a few holes, one line twice, and a
/// number that stands for "no reading". On 27 October the hour from 2:00 comes twice.
fn newcomer() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for day in 25..=28 {
        let mut text = String::from("Zähler;Zeit;kWh;Qualität\n");
        for meter in ["Nord", "Süd"] {
            let mut clock: Vec<(u32, u32)> = (0..96).map(|slot| (slot / 4, slot % 4 * 15)).collect();
            if day == 27 {
                let again: Vec<(u32, u32)> = (8..12).map(|slot| (slot / 4, slot % 4 * 15)).collect();
                clock.splice(12..12, again);
            }
            for (nth, (hour, minute)) in clock.into_iter().enumerate() {
                if (day == 26 && meter == "Nord" && (40..43).contains(&nth)) || (day == 28 && meter == "Süd" && nth == 70) {
                    continue;
                }
                let value = 10.0 + f64::from(hour) / 2.0 + f64::from(minute) / 100.0;
                let value = match (day, nth) {
                    (25, 30 | 31) | (28, 50) if meter == "Süd" => "-999".to_owned(),
                    (26, 60) => "k.A.".to_owned(),
                    _ => format!("{value:.2}").replace('.', ","),
                };
                let line = format!("{meter};{day}.10.2024 {hour:02}:{minute:02};{value};gut\n");
                text.push_str(&line);
                if day == 28 && meter == "Nord" && nth == 20 {
                    text.push_str(&line);
                }
            }
        }
        found.push((format!("2024-10-{day}.csv"), text));
    }
    found
}

#[test]
fn a_newcomer_gets_from_a_folder_of_files_to_a_repaired_table_in_four_commands() {
    let world = World::new();
    let own = newcomer();
    let own: Vec<(&str, &str)> = own.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    folder(&world, "meters", &own);
    let raw = files(&world.lake().join("meters"));
    let (printed, written, _) = init(&world, &["lake/meters"], "meters");
    let plan = world.text(&["plan", "meters.yaml"]);
    let said = format!("$ repair init lake/meters\n{printed}\n$ repair plan meters.yaml\n{plan}\n$ cat meters.yaml\n{written}");
    insta::assert_snapshot!(said);
    let (report, code) = world.run_json(Path::new("meters.yaml"), &["--run-id", "first"]);
    assert_eq!((code, &report["missing"]), (0, &0.into()), "{report}");
    assert_eq!(report["steps"]["find_gaps"]["output"]["missing"], 4, "{report}");
    assert_eq!(report["steps"]["find_duplicates"]["output"]["defective"], 1, "{report}");
    assert_eq!(report["steps"]["find_wrong"]["output"]["defective"], 3, "{report}");
    let page = world.text(&["report", "meters"]);
    assert!(page.contains("repair-report-meters.html"), "{page}");
    assert_eq!(files(&world.lake().join("meters")), raw, "the files are never changed");
    // The page of the book is this conversation.
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/first-steps.md")).unwrap();
    for part in [printed.trim(), written.trim(), plan.trim()] {
        assert!(docs.contains(part), "docs/first-steps.md must contain:\n{part}");
    }
}

#[test]
fn parquet_files_in_folders_of_days_are_described() {
    let world = World::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/field/file-endings/upper");
    for (day, file) in [("20240304", "P0"), ("20240305", "P1"), ("20240306", "P2")] {
        let folder = world.lake().join(format!("readings/dt={day}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(from.join(format!("{file}.PARQUET")), folder.join("part-0.parquet")).unwrap();
    }
    let (printed, written, plan) = init(&world, &["lake/readings"], "readings");
    insta::assert_snapshot!(format!("{printed}\n{written}"));
    assert_eq!(plan["looks"][0]["counts"]["missing"], 0, "{plan}");
}

#[test]
fn minute_bars_of_an_exchange_get_its_calendar_and_are_filled_from_a_source() {
    let world = World::new();
    let (printed, written, plan) = init(&world, &["lake/bars", "--source", "lake/archive"], "bars");
    insta::assert_snapshot!(format!("{printed}\n{written}"));
    assert_eq!(plan["looks"][0]["counts"]["missing"], world.dropped + world.quiet, "{plan}");
    let (report, code) = world.run_json(Path::new("bars.yaml"), &["--run-id", "first"]);
    assert_eq!((code, &report["steps"]["fill"]["output"]["repaired"]), (0, &world.dropped.into()), "{report}");
}

/// Whichever way a table counts the hours of a day, the days and the gaps are those that are there.
#[test]
fn hours_in_a_column_of_their_own_are_read_with_their_date() {
    for (name, date, columns, first, format, marks) in [
        ("from_0", "2024-03-0D", "Date,Hour,Load", 0, "%Y-%m-%d %H", ""),
        ("to_24", "0D.03.2024", "Datum,Stunde,Last", 1, "%d.%m.%Y %H", "marks: end"),
    ] {
        let world = World::new();
        let mut text = format!("{columns}\n");
        let missing = [(4, 7), (5, 0), (6, 23), (7, 12), (7, 13)];
        for (day, hour) in (4..=9).flat_map(|day| (0..24).map(move |hour| (day, hour))).filter(|slot| !missing.contains(slot)) {
            let date = date.replace('D', &day.to_string());
            writeln!(text, "{date},{},{}.5", hour + first, 4_000 + day * 100 + hour).unwrap();
        }
        folder(&world, name, &[("a.csv", &text)]);
        let (_, written, plan) = init(&world, &[&format!("lake/{name}")], name);
        assert!(written.contains(&format!("format: \"{format}\"")) && written.contains(marks), "{written}");
        let counts = &plan["looks"][0]["counts"];
        assert_eq!((&counts["expected"], &counts["missing"]), (&Value::from(144), &Value::from(missing.len())), "{name}: {plan}");
    }
    // Hours that somebody worked are a value of the day.
    let world = World::new();
    let rows: String = (4..=29).map(|day| format!("2024-03-{day:02},{}\n", 4 + day % 7)).collect();
    folder(&world, "worked", &[("a.csv", &format!("date,hours\n{rows}"))]);
    let (_, written, plan) = init(&world, &["lake/worked"], "worked");
    assert!(written.contains("time: date") && !written.contains("%H"), "{written}");
    let counts = &plan["looks"][0]["counts"];
    assert_eq!((&counts["expected"], &counts["missing"]), (&Value::from(26), &Value::from(0)), "{plan}");
}

/// A header that names two columns alike is no row of values.
#[test]
fn columns_of_one_name_get_names_of_their_own() {
    let world = World::new();
    let rows: String = (0..24).map(|hour| format!("2024-03-04T{hour:02}:00:00Z,{hour}.5,{}\n", hour * 2)).collect();
    folder(&world, "twice", &[("a.csv", &format!("ts,v,v\n{rows}")), ("b.csv", &format!("ts,v,v\n{}", rows.replace("03-04", "03-05")))]);
    let (_, written, plan) = init(&world, &["lake/twice"], "twice");
    assert!(written.contains("skip_lines: 1, header: false, names: [ts, v, v_2]"), "{written}");
    let counts = &plan["looks"][0]["counts"];
    assert_eq!((&counts["expected"], &counts["missing"]), (&Value::from(48), &Value::from(0)), "{plan}");
}

#[test]
fn what_is_refused_says_what_to_do() {
    let world = World::new();
    folder(&world, "empty", &[("readme.md", "nothing")]);
    folder(&world, "mixed", &[("a.csv", "ts,v\n"), ("b.jsonl", "{}\n")]);
    folder(&world, "words", &[("a.csv", "name,colour\nanna,red\nbert,blue\n")]);
    folder(&world, "events", &[("a.csv", "at,what\n2024-03-04T00:00:07Z,go\n2024-03-04T00:13:01Z,go\n2024-03-04T07:02:44Z,stop\n")]);
    folder(&world, "delta", &[("_delta_log/00000000000000000000.json", "{}"), ("part-0.parquet", "PAR1")]);
    world.text(&["init", "lake/bars"]);
    let mut said = String::new();
    for arguments in
        [&["lake/empty"][..], &["lake/mixed"], &["lake/words"], &["lake/events"], &["lake/delta"], &["lake/none"], &["lake/bars"]]
    {
        let (out, err, code) = world.said(&[&["init"], arguments].concat());
        assert!(code == 2 || code == 3, "{arguments:?}: {code} {out}{err}");
        writeln!(said, "{}: {code}\n{err}", arguments.join(" ")).unwrap();
    }
    insta::assert_snapshot!(said);
    let in_s3 = [&["init", "s3://bucket/lake/bars"][..], &["init", "lake/bars", "--force", "--source", "s3://bucket/lake/archive"]];
    // A table in S3 can be looked at by a command with AWS, its source cannot.
    for arguments in &in_s3[usize::from(cfg!(feature = "aws"))..] {
        let (_, err, code) = world.said(arguments);
        assert!(code == 2 && err.contains("is not a folder of this machine (s3)") && err.contains("docs/aws.md"), "{code} {err}");
    }
    world.text(&["init", "lake/bars", "--force"]);
    let object = world.json(&["init", "lake/bars", "--out", "other.yaml"]);
    assert_eq!((&object["table"], &object["file"]), (&"bars".into(), &"other.yaml".into()), "{object}");
    assert!(object["guesses"].as_array().unwrap().iter().all(|guess| guess["why"].is_string()), "{object}");
}

#[test]
fn what_data_hold_is_printed_and_written_as_text() {
    let world = World::new();
    let rows: String =
        (0..24).map(|hour| format!("\u{1b}[2Kx,2024-03-04T{hour:02}:00:00Z,{hour}\ny: #,2024-03-04T{hour:02}:00:00Z,{hour}\n")).collect();
    folder(&world, "odd", &[("a.csv", &format!("na\u{202e}me,ts,v\n{rows}"))]);
    let (printed, written, _) = init(&world, &["lake/odd"], "odd");
    for text in [printed, written] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
}

/// Each folder of `testdata/field`: what was guessed, and what `plan` found. Where the guess is not what the data are, the last column says so.
#[test]
fn the_data_of_the_field_are_guessed_or_refused() {
    let cases = [
        ("broken-lines/bad", ""),
        ("broken-lines/cat", ""),
        ("broken-lines/cut", ""),
        ("broken-lines/sp", ""),
        ("broken-lines/tab", ""),
        ("capital-names", ""),
        ("delta-log", "refused: its files are not all rows"),
        ("epoch-header", ""),
        ("epoch-times", ""),
        ("file-endings/csv", ""),
        ("file-endings/gz", ""),
        ("file-endings/mixed", ""),
        ("file-endings/noext", ""),
        ("file-endings/pq", "refused: the folder is empty"),
        ("file-endings/upper", ""),
        ("late-na", ""),
        ("latest-wins", ""),
        ("local-time", ""),
        ("monthly", ""),
        ("offset-grids/d1", "the calendar is that of currencies, which is to be written"),
        ("offset-grids/obs", ""),
        ("own-calendar", "the calendar is Hong Kong's, which two days do not show"),
        ("restated-bars/bars", ""),
        ("text-times", ""),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/field");
    let mut said = String::new();
    for (case, note) in cases {
        let world = World::new();
        copy(&root.join(case), &world.lake().join("field"));
        let (out, _, code) = world.said(&["init", "lake/field", "--json"]);
        let object: Value = serde_json::from_str(&out).unwrap();
        writeln!(said, "{case}{}{note}", if note.is_empty() { "" } else { ": " }).unwrap();
        if code != 0 {
            writeln!(said, "    {code} {}", object["error"]["message"].as_str().unwrap().replace(world.lake().to_str().unwrap(), ""))
                .unwrap();
            continue;
        }
        for guess in object["guesses"].as_array().unwrap() {
            let text = |name: &str| guess[name].as_str().unwrap();
            writeln!(said, "    {}: {} ({}: {})", text("what"), text("value"), text("sure"), text("why")).unwrap();
        }
        world.text(&["validate", "field.yaml"]);
        let (plan, _, code) = world.said(&["plan", "field.yaml", "--json"]);
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let looks = plan["looks"].as_array().map_or(&[][..], Vec::as_slice);
        let counted = |look: &Value, name: &str| look["counts"][name].as_u64().unwrap_or_default();
        let found = looks.iter().map(|look| {
            let [missing, expected, wrong] = ["missing", "expected", "defective"].map(|name| counted(look, name));
            format!("{} {missing} of {expected} missing, {wrong} wrong", look["step"].as_str().unwrap_or_default())
        });
        let found: Vec<String> = found.collect();
        writeln!(said, "    plan: {code} {}{}", found.join("; "), plan["error"]["message"].as_str().unwrap_or_default()).unwrap();
    }
    insta::assert_snapshot!(said);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
