//! What a person sees who plans a repair of real bars, applies it, asks what it cost and why a minute is as it is, takes it back, and takes
//! that back too. The whole conversation is a snapshot; what matters of it is asserted besides.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::common::{World, files};
use serde_json::Value;

const DAYS: [&str; 2] = ["2018-04-04", "2018-04-05"];
/// In this order the glitch forgets them, one a minute.
const COINS: [&str; 4] = ["BTCEUR", "BTCUSD", "ETHUSD", "LTCUSD"];

const PRICES: &str = "\
prices: test
as_of: 2026-11-01
currency: USD
items:
  storage_writes: { usd: 0.005, per: 1000, source: page }
  compute_seconds: { usd: 0.0000166667, per: 1, source: page }
  queue_messages: { usd: 1.20, per: 1000000, source: page }
  stream_records: { usd: 0.014, per: 1000000, source: page }
sources:
  archive: { usd_per_call: 0.002, source: the contract }
  stocks.simulated: { usd_per_call: 0.0001, source: the contract }
";

/// A conversation with the command.
struct Talk {
    world: World,
    said: String,
}

impl Talk {
    fn say(&mut self, arguments: &[&str]) -> String {
        let output = self.world.repair().env("USER", "an engineer").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let words: Vec<String> =
            arguments.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() }).collect();
        let _ = writeln!(self.said, "$ repair {}\n{}", words.join(" "), text.trim_end());
        self.said.push('\n');
        text
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.world.json(arguments)
    }
}

/// The two days, the bars that the glitch forgot left out; the archive has them all.
fn bars() -> (World, BTreeMap<&'static str, u64>) {
    let world = World::new();
    for name in ["bars", "archive"] {
        std::fs::remove_dir_all(world.lake().join(name)).unwrap();
    }
    std::fs::create_dir(world.lake().join("archive")).unwrap();
    let (mut kept, mut forgotten) = (0, 0);
    for day in DAYS {
        let text = testdata::text(&format!("crypto-minute/{day}"));
        std::fs::write(world.lake().join(format!("archive/{day}.csv")), &text).unwrap();
        let mut glitched = String::new();
        for line in text.lines() {
            let time = line.split(',').nth(1).unwrap_or_default();
            let number = |from: usize| time.get(from..from + 2).and_then(|digits| digits.parse::<usize>().ok());
            if let (Some(coin), Some(hour), Some(minute)) = (COINS.iter().position(|coin| line.starts_with(coin)), number(11), number(14)) {
                if (hour * 60 + minute) % COINS.len() == coin {
                    forgotten += 1;
                    continue;
                }
                kept += 1;
            }
            writeln!(glitched, "{line}").unwrap();
        }
        let folder = world.lake().join(format!("bars/date={day}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("bars.csv"), glitched).unwrap();
    }
    (world, BTreeMap::from([("kept", kept), ("forgotten", forgotten)]))
}

/// What differs from run to run: the time it is, ids that follow from it, how well instants compress, and what is read again.
fn told(text: &str) -> String {
    let word = |word: &str| {
        let bare = word.trim_matches(|character: char| !character.is_ascii_alphanumeric());
        if bare.len() >= 10 && bare.starts_with("20") && !bare.starts_with("2018") && bare[..10].chars().filter(|c| *c == '-').count() == 2
        {
            return word.replace(bare, "TIME");
        }
        if bare.starts_with("undo-") || bare.starts_with("redo-") {
            return word.replace(bare, &format!("{}ID", &bare[..5]));
        }
        if bare.len() > 6 && bare.replace(',', "").parse::<u64>().is_ok() {
            return word.replace(bare, "BYTES");
        }
        word.to_owned()
    };
    let line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let told = words.iter().enumerate().map(|(index, bare)| {
            // What was read of a file that was just written is not believed later, so a fast machine reads more rows, and keeps less of them.
            let of = |what: [&str; 2]| words[..index].ends_with(&what);
            match line.contains("rows read") {
                true if of(["rows", "read"]) || of(["rows", "written"]) => "ROWS,".to_owned(),
                true if of(["objects", "written"]) => "OBJECTS,".to_owned(),
                _ => word(bare),
            }
        });
        format!("{}{}", &line[..indent], told.collect::<Vec<_>>().join(" "))
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_repair_of_real_bars_from_its_plan_to_the_undo_of_its_undo() {
    let (world, counted) = bars();
    let workflows = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/stock-pipeline/workflows");
    let text = std::fs::read_to_string(workflows.join("ticker-hourly.yaml")).unwrap();
    let as_csv = text.replacen("location: bars\n    format: parquet", "location: bars\n    format: csv", 1);
    assert_ne!(as_csv, text);
    world.write("ticker.yaml", &as_csv);
    world.write("pipeline.yaml", &std::fs::read_to_string(workflows.join("pipeline-usage.yaml")).unwrap());
    world.write("prices.yaml", PRICES);
    let raw = files(&world.lake().join("bars"));
    let mut talk = Talk { world, said: String::new() };

    let params = ["from=2018-04-04", "to=2018-04-05", "calendar=24x7", "symbols=BTCEUR,BTCUSD,ETHUSD,LTCUSD"];
    let params = [&params[..], &["source=archive", "archive=archive", "archive_format=csv", "settle=1s"]].concat();
    let mut plan = vec!["plan", "ticker.yaml"];
    params.iter().for_each(|param| plan.extend(["--param", param]));
    plan.extend(["--prices", "prices.yaml", "-o", "plan.json"]);
    talk.say(&plan);
    talk.say(&["apply", "plan.json", "--run-id", "first"]);
    let bars = counted["kept"].to_string();
    talk.say(&[
        "run",
        "pipeline.yaml",
        "--run-id",
        "ingest",
        "--param",
        "requests=8640",
        "--param",
        &format!("bars={bars}"),
        "--param",
        "files=96",
        "--param",
        "bytes=500000",
    ]);
    talk.say(&["costs", "--prices", "prices.yaml"]);
    let costs = talk.json(&["costs", "--prices", "prices.yaml"]);
    let components: Vec<&Value> = costs["components"].as_array().unwrap().iter().map(|one| &one["tags"]["component"]).collect();
    assert!(components.contains(&&"infrastructure".into()) && components.contains(&&"repair".into()), "{costs}");
    assert_eq!(costs["total"]["rows_repaired"], counted["forgotten"], "every bar that was forgotten is back");

    // At 00:09 the glitch forgot BTCUSD; at 00:08 it did not.
    let why = |at: &'static str| ["why", "bars", "--key", "BTCUSD", "--at", at];
    let (kept, forgotten) = ("2018-04-04T00:08:00Z", "2018-04-04T00:09:00Z");
    talk.say(&why(kept));
    talk.say(&why(forgotten));
    let quiet = ["why", "bars", "--key", "BTCEUR", "--at", "2018-04-05T00:15:00Z"];
    talk.say(&quiet);
    // When the collector had failed, nobody knows whether anything traded.
    talk.say(&why("2018-04-04T20:00:00Z"));
    assert_eq!(talk.json(&why(kept))["standing"], "raw");
    assert_eq!(talk.json(&quiet)["standing"], "absent");
    assert_eq!(talk.json(&why(forgotten))["standing"], "repaired");

    let before = files(&talk.world.lake().join("hourly"));
    talk.say(&["undo", "first", "--reason", "the archive is being checked"]);
    talk.say(&why(forgotten));
    let undone = talk.json(&why(forgotten));
    assert_eq!((&undone["standing"], &undone["stale"][0]), (&"missing".into(), &"hourly".into()), "{undone}");
    let id = undone["repairs"][0]["retracted_by"].as_str().unwrap().to_owned();
    talk.say(&["redo", &id]);
    talk.say(&why(forgotten));
    assert_eq!(talk.json(&why(forgotten))["standing"], "repaired");
    assert_eq!(files(&talk.world.lake().join("hourly")), before, "nothing else has changed");
    assert_eq!(files(&talk.world.lake().join("bars")), raw, "what the pipeline wrote is untouched");
    insta::assert_snapshot!(told(&talk.said));
}
