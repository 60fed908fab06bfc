//! A year of real electricity demand (fifty days of it, unless tests may take long), with absurd and missing hours, repaired by a workflow in YAML alone; and its two ideas compared, checked
//! against what a few lines of arithmetic over the file say.

#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::common::{World, files};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use repair_core::lake::{Layer, ReadLake, ScanRequest};
use repair_core::model::{Format, Table};
use repair_local::LocalLake;
use serde_json::Value;

const AUTHORITIES: usize = 11;
const WEEK: i64 = 7 * 24;

/// An authority, and which hour since 1970 began.
type Slot = (String, i64);

struct Power {
    world: World,
    workflow: PathBuf,
    demand: BTreeMap<Slot, i64>,
    /// When the first hour begins, and the last ends.
    span: (&'static str, &'static str),
}

/// The days with the largest absurd hours, and some missing ones.
const FIFTY_DAYS: (&str, &str) = ("2018-03-01T00:00:00Z", "2018-04-20T00:00:00Z");
const YEAR: (&str, &str) = ("2017-12-31T23:00:00Z", "2018-12-31T23:00:00Z");

impl Power {
    fn new() -> Self {
        let (world, span) = (World::new(), testdata::by_length(FIFTY_DAYS, YEAR));
        let (mut demand, mut kept) = (BTreeMap::new(), String::new());
        for (number, line) in testdata::text("us-power-hourly/demand").lines().enumerate() {
            let fields: Vec<&str> = line.split(',').collect();
            if number > 0 {
                // The time marks the end of the hour.
                let hour_of = hour(fields[1]) - 1;
                if !(hour(span.0)..hour(span.1)).contains(&hour_of) {
                    continue;
                }
                demand.insert((fields[0].to_owned(), hour_of), fields[2].parse().unwrap());
            }
            kept.push_str(line);
            kept.push('\n');
        }
        assert_eq!(demand.len(), testdata::by_length(13_121, 91_876));
        std::fs::create_dir(world.lake().join("us-power-hourly")).unwrap();
        std::fs::write(world.lake().join("us-power-hourly/demand.csv"), kept).unwrap();
        let workflow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/workflows/us-power-repaired.yaml");
        Self { world, workflow, demand, span }
    }

    /// The arguments that name the lake and the hours.
    fn arguments(&self) -> [String; 6] {
        let (from, to) = self.span;
        ["--lake".to_owned(), "lake".to_owned(), "--param".to_owned(), format!("from={from}"), "--param".to_owned(), format!("to={to}")]
    }

    /// Runs the workflow.
    fn run(&self) -> Value {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--run-id", "year"]).collect();
        let (report, code) = self.world.run_json(&self.workflow, &arguments);
        assert_eq!(code, 0, "{report}");
        report
    }

    /// The hours outside of a quarter of the median of their authority and five times as much.
    fn absurd(&self) -> BTreeSet<Slot> {
        let mut of_key: BTreeMap<&String, Vec<i64>> = BTreeMap::new();
        self.demand.iter().for_each(|((key, _), mw)| of_key.entry(key).or_default().push(*mw));
        of_key.values_mut().for_each(|values| values.sort_unstable());
        let twice = |key: &String| {
            let values = &of_key[key];
            values[(values.len() - 1) / 2] + values[values.len() / 2]
        };
        let is_absurd = |(slot, mw): &(&Slot, &i64)| 8 * **mw < twice(&slot.0) || 2 * **mw > 5 * twice(&slot.0);
        self.demand.iter().filter(is_absurd).map(|(slot, _)| slot.clone()).collect()
    }

    /// Daily totals that the workflow has written: megawatt hours and hours, by authority and day since 1970.
    async fn totals(&self, name: &str) -> BTreeMap<Slot, (i64, i64)> {
        let table = Table {
            name: name.to_owned(),
            location: name.to_owned(),
            format: Format::Parquet,
            partition_by: Vec::new(),
            key: vec!["ba".to_owned()],
            time: "day".to_owned(),
            time_marks: Default::default(),
            cadence: None,
            ..Table::implicit("bars", "ts")
        };
        let lake = LocalLake::open(self.world.lake()).unwrap();
        let request = ScanRequest::new(Layer::Raw);
        let batches: Vec<RecordBatch> = lake.scan(&table, &request).await.unwrap().try_collect().await.unwrap();
        let mut totals = BTreeMap::new();
        for batch in &batches {
            let column = |name: &str| batch.column_by_name(name).unwrap();
            let (keys, days) = (column("ba").as_string::<i32>(), column("day").as_primitive::<TimestampMicrosecondType>());
            let (sums, hours) = (column("demand_mwh").as_primitive::<Int64Type>(), column("hours").as_primitive::<Int64Type>());
            for row in 0..batch.num_rows() {
                let day = days.value(row) / 86_400_000_000;
                totals.insert((keys.value(row).to_owned(), day), (sums.value(row), hours.value(row)));
            }
        }
        totals
    }
}

/// Hours since 1970 of an instant of 2017, 2018 or 2019.
fn hour(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_second() / 3_600
}

/// What an idea says of a slot, if anything.
type Guess<'a> = &'a dyn Fn(&Slot) -> Option<i64>;

/// The same by hand.
fn by_day(demand: &BTreeMap<Slot, i64>) -> BTreeMap<Slot, (i64, i64)> {
    let mut days: BTreeMap<Slot, (i64, i64)> = BTreeMap::new();
    for ((key, hour), mw) in demand {
        let day = days.entry((key.clone(), hour.div_euclid(24))).or_default();
        *day = (day.0 + mw, day.1 + 1);
    }
    days
}

/// A point on the line between the rows around, if at most so many hours are without one; whole megawatts, half up.
fn line(seen: &BTreeMap<Slot, i64>, (key, hour): &Slot, most: i64) -> Option<i64> {
    let ((_, from), before) = seen.range((key.clone(), i64::MIN)..(key.clone(), *hour)).next_back()?;
    let ((_, to), after) = seen.range((key.clone(), hour + 1)..(key.clone(), i64::MAX)).next()?;
    let part = (hour - from) as f64 / (to - from) as f64;
    let at = *before as f64 + (after - before) as f64 * part;
    (to - from - 1 <= most).then(|| (at + 0.5).floor() as i64)
}

/// The same hour a week before, else a week after.
fn week(seen: &BTreeMap<Slot, i64>, (key, hour): &Slot) -> Option<i64> {
    [hour - WEEK, hour + WEEK].into_iter().find_map(|other| seen.get(&(key.clone(), other)).copied())
}

#[tokio::test]
async fn a_year_of_demand_is_made_whole_in_yaml_alone() {
    let power = Power::new();
    let before = files(&power.world.lake().join("us-power-hourly"));
    let report = power.run();
    assert_eq!(files(&power.world.lake().join("us-power-hourly")), before, "the data is never touched");

    // What the rows around a wrong or missing hour say, worked out by hand.
    let absurd = power.absurd();
    let of_walc: Vec<i64> = absurd.iter().filter(|slot| slot.0 == "WALC").map(|slot| power.demand[slot]).collect();
    assert!(
        of_walc.iter().filter(|mw| (94_000..100_000).contains(*mw)).count() >= 3,
        "below any bound that all authorities share: {of_walc:?}"
    );
    let mut seen = power.demand.clone();
    seen.retain(|slot, _| !absurd.contains(slot));
    let guess = |slot: &Slot| line(&seen, slot, 6).or_else(|| week(&seen, slot));
    let mut whole = seen.clone();
    whole.extend(absurd.iter().filter_map(|slot| Some((slot.clone(), guess(slot)?))));
    let output = |step: &str, name: &str| report["steps"][step]["output"][name].as_u64().unwrap();
    assert_eq!((output("find_absurd", "defective"), output("check_absurd", "defective")), (testdata::by_length(8, 65), 0));
    let keys: BTreeSet<&String> = power.demand.keys().map(|(key, _)| key).collect();
    let year = hour(power.span.0)..hour(power.span.1);
    let missing: Vec<Slot> = keys.iter().flat_map(|key| year.clone().map(|hour| ((*key).clone(), hour))).collect();
    let missing: Vec<Slot> = missing.into_iter().filter(|slot| !power.demand.contains_key(slot)).collect();
    assert_eq!((output("find_gaps", "missing"), missing.len()), testdata::by_length((79, 79), (4_484, 4_484)));
    let fill = &report["steps"]["fill"]["output"];
    assert_eq!((&fill["strategy"], &fill["repaired"]), (&"joint".into(), &missing.len().into()), "{fill}");
    assert_eq!(output("check", "missing"), 0);

    let (raw, repaired) = (power.totals("daily_before").await, power.totals("daily_after").await);
    assert_eq!(raw, by_day(&power.demand));
    let mut filled: BTreeMap<Slot, i64> = BTreeMap::new();
    for (key, hour) in &missing {
        *filled.entry((key.clone(), hour / 24)).or_default() += 1;
    }
    let right = by_day(&whole);
    let usual = |key: &String| {
        let of_key: Vec<i64> = seen.iter().filter(|(slot, _)| slot.0 == *key).map(|(_, mw)| *mw).collect();
        of_key.iter().sum::<i64>() / of_key.len() as i64
    };
    for (day, (sum, hours)) in &repaired {
        let (of_right, hours_of_right) = right.get(day).copied().unwrap_or_default();
        let guessed = filled.get(day).copied().unwrap_or(0);
        assert_eq!(*hours, hours_of_right + guessed, "{day:?}");
        let (estimates, usual) = (sum - of_right, usual(&day.0) * guessed);
        assert!(2 * estimates >= usual && estimates <= 2 * usual, "{day:?}: {estimates} MWh in {guessed} hours, usually {usual}");
    }
    let day = ("AZPS".to_owned(), hour("2018-03-26T05:00:00Z") / 24);
    assert_eq!(raw[&day].0 - repaired[&day].0, 1_676_497 - 2_753, "an hour of 1,676,497 MW is on the line between 2,964 and 2,541");
    let full = |days: &BTreeMap<Slot, (i64, i64)>| days.values().filter(|(_, hours)| *hours == 24).count();
    assert!(full(&repaired) > full(&raw), "{} whole days of {}", full(&repaired), full(&raw));
}

#[test]
fn a_line_and_the_same_hour_a_week_away_are_compared_on_hidden_hours_of_all_series() {
    let mut power = Power::new();
    // The strategies that are easy to work out by hand.
    let text = std::fs::read_to_string(&power.workflow).unwrap();
    let by_hand = text.replace(
        "{ strategy: regress, name: joint, with: { columns: [demand_mw] } }",
        "{ strategy: interpolate, name: line, with: { max_gap: 4h } }",
    );
    let by_hand = by_hand
        .replace("{ strategy: seasonal, with: { columns: [demand_mw] } }", "{ strategy: shifted, name: week, with: { shift: [-7d, 7d] } }");
    assert_eq!(by_hand.matches("name: line").count(), 2);
    power.workflow = power.world.write("by-hand.yaml", &by_hand);
    power.run();
    let absurd = power.absurd();
    let mut right = power.demand.clone();
    right.retain(|slot, _| !absurd.contains(slot));
    for (pattern, share, better) in
        [("random", testdata::by_length("1%", "0.2%"), "fill/line"), ("whole-day", testdata::by_length("2%", "0.5%"), "fill/week")]
    {
        let arguments = ["--of", "find_gaps", "--strategies", "fill/line,fill/week", "--pattern", pattern, "--mask", share, "--seed", "7"];
        let command = || power.world.repair();
        let output = command()
            .arg("compare")
            .arg(&power.workflow)
            .args(power.arguments())
            .args(["--json", "--hidden"])
            .args(arguments)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{told}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["there"], right.len(), "an hour that was found wrong is no truth to be held against");
        let mut hidden: BTreeSet<Slot> = BTreeSet::new();
        for run in report["hidden_slots"].as_array().unwrap() {
            let at = |name: &str| hour(run["interval"][name].as_str().unwrap());
            hidden.extend((at("from")..at("to")).map(|hour| (run["key"].as_str().unwrap().to_owned(), hour)));
        }
        assert_eq!(report["hidden"], hidden.len());
        if pattern == "random" {
            assert_eq!(hidden.iter().map(|(key, _)| key).collect::<BTreeSet<_>>().len(), AUTHORITIES, "hours of every series are hidden");
        }
        let mut seen = right.clone();
        seen.retain(|slot, _| !hidden.contains(slot));
        let guess: [(&str, Guess<'_>); 2] = [("fill/line", &|slot| line(&seen, slot, 4)), ("fill/week", &|slot| week(&seen, slot))];
        for (name, guess) in guess {
            let idea =
                report["strategies"].as_array().unwrap().iter().find(|idea| idea["name"] == name).unwrap_or_else(|| panic!("{report}"));
            let errors: Vec<i64> = hidden.iter().filter_map(|slot| Some(guess(slot)? - right[slot])).collect();
            assert_eq!((&idea["hidden"], &idea["repaired"]), (&hidden.len().into(), &errors.len().into()), "{pattern}: {name}");
            if errors.is_empty() {
                continue;
            }
            let told = &idea["columns"]["demand_mw"];
            let mean = errors.iter().map(|error| error.abs()).sum::<i64>() as f64 / errors.len() as f64;
            let apart = (told["mean_absolute"].as_f64().unwrap() - mean).abs();
            assert!(apart <= 1e-9 * mean, "{pattern}: {name}: {told} and {mean} by hand");
            let worst = errors.iter().map(|error| error.abs()).max().unwrap();
            assert_eq!(told["worst_absolute"].as_f64().unwrap(), worst as f64, "{pattern}: {name}");
        }
        assert_eq!(report["best"], better, "{pattern}: {:?}", report["strategies"]);
    }
}

/// From April to the middle of August, with most of the long gaps that are not of months.
const SPRING: (&str, &str) = ("2018-04-01T00:00:00Z", "2018-08-15T00:00:00Z");

/// Runs like the real gaps are hidden from all series, and guessed by what the example did before there was `regress`, and by what it does.
#[test]
fn the_example_errs_far_less_than_a_line_and_the_week_before() {
    let (world, span) = (World::new(), testdata::by_length(SPRING, YEAR));
    let mut kept = String::new();
    for (number, line) in testdata::text("us-power-hourly/demand").lines().enumerate() {
        if number == 0 || (hour(span.0)..hour(span.1)).contains(&(hour(line.split(',').nth(1).unwrap()) - 1)) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    std::fs::create_dir(world.lake().join("us-power-hourly")).unwrap();
    std::fs::write(world.lake().join("us-power-hourly/demand.csv"), kept).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (example, strategies) = (read("examples/workflows/us-power-repaired.yaml"), read("scripts/predicts/us-power.yaml"));
    let fill = "    repair:
      - { strategy: regress, name: joint, with: { columns: [demand_mw] } }
      - { strategy: seasonal, with: { columns: [demand_mw] } }
    of: find_gaps
";
    assert!(example.contains(fill) && strategies.contains(fill), "what is compared is what the example does");
    assert!(strategies.contains(YEAR.0) && strategies.contains(YEAR.1));
    let workflow = world.write("strategies.yaml", &strategies.replace(YEAR.0, span.0).replace(YEAR.1, span.1));
    for seed in testdata::by_length(vec!["11"], vec!["11", "13"]) {
        let output = world
            .repair()
            .arg("compare")
            .arg(&workflow)
            .args(["--lake", "lake", "--strategies", "before,fill", "--seed", seed, "--json", "--hidden"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["pattern"], "like-gaps");
        let of = |name: &str| report["strategies"].as_array().unwrap().iter().find(|strategy| strategy["name"] == name).unwrap().clone();
        let (before, now) = (of("before"), of("fill"));
        let number = |value: &Value| value.as_f64().unwrap();
        assert!(number(&now["loss"]) <= 0.6 * number(&before["loss"]), "seed {seed}: {} and {}", now["loss"], before["loss"]);
        assert!(number(&now["loss"]) < 0.1, "seed {seed}: {}", now["loss"]);
        assert!(
            number(&now["interval"][1]) < number(&before["interval"][0]),
            "seed {seed}: {} and {}",
            now["interval"],
            before["interval"]
        );
        let longest = report["hidden_slots"].as_array().unwrap().iter().map(|run| {
            let at = |name: &str| hour(run["interval"][name].as_str().unwrap());
            at("to") - at("from")
        });
        assert_eq!(longest.max(), Some(testdata::by_length(408, 2_680)), "seed {seed}: as long as the longest gap");
        assert_eq!(report["best"], "fill", "seed {seed}");
        assert!(report["recommended"].as_str().unwrap().contains("strategy: regress"), "{}", report["recommended"]);
    }
}
