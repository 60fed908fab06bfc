//! Folders of which the truth is known: what first steps guess and are sure of is right, and the workflow that they write can be planned.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use repair::Repair;
use repair::first_steps::{FirstSteps, Look, Sure};

/// A small generator of random numbers, so that a seed means the same for ever.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Written {
    Csv,
    /// CSV, with this around each field.
    Within(char),
    /// JSON lines, with what belongs to the meter, and what was measured, in records.
    Nested,
}

/// What a folder holds.
#[derive(Debug)]
struct Truth {
    written: Written,
    delimiter: &'static str,
    decimal: &'static str,
    cadence: (&'static str, i64),
    /// How times are written: with a zone, by this pattern, or as seconds.
    time: &'static str,
    /// The name of the key column, and the keys.
    key: Option<(&'static str, Vec<String>)>,
    days: i64,
    sentinel: bool,
    /// Rows that occur twice.
    doubled: u64,
    /// Rows that are not there.
    dropped: u64,
    rows: u64,
}

const FIRST_DAY: &str = "2024-02-05T00:00:00Z";

/// Writes the files of a folder.
fn write(folder: &Path, seed: u64) -> Truth {
    let mut random = Random::new(seed);
    let cadence = random.one_of(&[("1m", 60), ("5m", 300), ("15m", 900), ("1h", 3_600)]);
    let (delimiter, decimal) = random.one_of(&[(",", "."), (";", ","), (";", "."), ("\t", "."), ("|", ".")]);
    let time = random.one_of(&["", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%Y/%m/%d %H:%M", "seconds"]);
    let names = random.one_of(&[["Nord", "Süd", "Ost-1", "West 2", "7"], ["1", "2", "3", "17", "204"]]);
    let keys = usize::try_from(random.below(5)).unwrap();
    let key = (keys > 0).then(|| {
        (
            random.one_of(&["meter", "Stelle", "SYMBOL", "k", "turbine", "Zähler", "EAN"]),
            names[..keys].iter().map(|name| (*name).to_owned()).collect(),
        )
    });
    // Enough days that the day and the month of a date differ.
    let days = match cadence.1 {
        60 => 2,
        300 => 4,
        _ => 14 + i64::try_from(random.below(10)).unwrap(),
    };
    let (by_day, has_words, sentinel) = (random.below(2) == 0, random.below(3) == 0, random.below(3) == 0);
    let written = match seed % 5 {
        2 => Written::Within('\''),
        3 => Written::Within('"'),
        4 => Written::Nested,
        _ => Written::Csv,
    };
    let mut truth = Truth { written, delimiter, decimal, cadence, time, key, days, sentinel, doubled: 0, dropped: 0, rows: 0 };
    let start: Timestamp = FIRST_DAY.parse().unwrap();
    let series: Vec<Option<String>> = match &truth.key {
        Some((_, keys)) => keys.iter().cloned().map(Some).collect(),
        None => vec![None],
    };
    let slots = days * 86_400 / cadence.1;
    let hole = i64::try_from(random.below(u64::try_from(slots - 30).unwrap())).unwrap() + 10;
    let mut header: Vec<&str> = truth.key.iter().map(|(name, _)| *name).collect();
    header.extend([time_column(time), "value"]);
    header.extend(has_words.then_some("remark"));
    let line_of = |fields: &[String]| match written {
        Written::Csv => fields.join(delimiter) + "\n",
        Written::Within(quote) => fields.iter().map(|field| format!("{quote}{field}{quote}")).collect::<Vec<_>>().join(delimiter) + "\n",
        Written::Nested => {
            let (mut meta, mut measured) = (serde_json::Map::new(), serde_json::Map::new());
            for (name, field) in header.iter().zip(fields) {
                let number = || field.replace(',', ".").parse::<f64>().map_or_else(|_| field.as_str().into(), Into::into);
                match *name {
                    "value" => measured.insert("value".to_owned(), number()),
                    "remark" => measured.insert("remark".to_owned(), field.as_str().into()),
                    name => meta.insert(name.to_owned(), field.as_str().into()),
                };
            }
            serde_json::json!({ "meta": meta, "data": { "measured": measured, "unit": [1] } }).to_string() + "\n"
        }
    };
    let first_line = match written {
        Written::Nested => String::new(),
        _ => line_of(&header.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()),
    };
    let mut files: BTreeMap<i64, String> = BTreeMap::new();
    for (number, of) in series.iter().enumerate() {
        for slot in 0..slots {
            // The first and the last slot are there, so that it is clear which days are meant.
            let is_edge = slot == 0 || slot == slots - 1;
            let is_dropped = !is_edge && (random.below(40) == 0 || number == 0 && (hole..hole + 8).contains(&slot));
            if is_dropped {
                truth.dropped += 1;
                continue;
            }
            let at = start + SignedDuration::from_secs(slot * cadence.1);
            let written = match time {
                "" => at.to_string(),
                "seconds" => at.as_second().to_string(),
                pattern => at.strftime(pattern).to_string(),
            };
            let value =
                if sentinel && slot % 97 == 5 { "-999".to_owned() } else { format!("{}.{}", 10 + random.below(90), 1 + random.below(9)) };
            let mut fields: Vec<String> = of.iter().cloned().collect();
            fields.extend([written, value.replace('.', decimal)]);
            fields.extend(has_words.then(|| random.one_of(&["ok", "late", "checked by hand"]).to_owned()));
            let line = line_of(&fields);
            let text = files.entry(if by_day { slot * cadence.1 / 86_400 } else { 0 }).or_insert_with(|| first_line.clone());
            text.push_str(&line);
            truth.rows += 1;
            if seed % 4 == 1 && slot % 211 == 7 {
                text.push_str(&line);
                truth.doubled += 1;
            }
        }
    }
    std::fs::create_dir_all(folder).unwrap();
    for (number, text) in files {
        let ending = if written == Written::Nested { "jsonl" } else { "csv" };
        std::fs::write(folder.join(format!("part-{number:03}.{ending}")), text).unwrap();
    }
    truth
}

/// Seconds are times only where the name says so.
fn time_column(form: &str) -> &'static str {
    if form == "seconds" { "time" } else { "when" }
}

/// What first steps are sure of that is not so.
fn wrong(found: &FirstSteps, truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let last = FIRST_DAY.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(24 * (truth.days - 1));
    let days = format!("2024-02-05, {}", &last.to_string()[..10]);
    let key = truth.key.as_ref().map_or("none", |(name, _)| name);
    let delimiter = if truth.delimiter == "\t" { "tab" } else { truth.delimiter };
    let mut expected = vec![
        ("format", if truth.written == Written::Nested { "jsonl" } else { "csv" }.to_owned()),
        ("delimiter", delimiter.to_owned()),
        ("header", "true".to_owned()),
        ("time", time_column(truth.time).to_owned()),
        ("key", key.to_owned()),
        ("cadence", truth.cadence.0.to_owned()),
        ("from, to", days),
        ("decimal", truth.decimal.to_owned()),
        ("sentinel", "-999".to_owned()),
        ("calendar", "24x7".to_owned()),
        ("zone", "UTC".to_owned()),
        ("duplicates", "first".to_owned()),
    ];
    match truth.time {
        "seconds" => expected.push(("time format", "epoch s".to_owned())),
        "" => {}
        "%Y-%m-%d %H:%M:%S" => expected.push(("time format", "ISO 8601".to_owned())),
        pattern => expected.push(("time format", pattern.to_owned())),
    }
    for guess in found.guesses.iter().filter(|guess| guess.sure == Sure::Sure) {
        let Some((_, truth)) = expected.iter().find(|(what, _)| *what == guess.what) else { continue };
        if guess.value != *truth {
            wrong.push(format!("{}: `{}` ({}), and it is `{truth}`", guess.what, guess.value, guess.why));
        }
    }
    if found.guess("sentinel").is_some_and(|guess| guess.sure == Sure::Sure) && !truth.sentinel {
        wrong.push("sentinel: there is none".to_owned());
    }
    if found.guess("duplicates").is_some_and(|guess| guess.sure == Sure::Sure) && truth.doubled == 0 {
        wrong.push("duplicates: there are none".to_owned());
    }
    wrong
}

#[tokio::test]
async fn what_first_steps_are_sure_of_is_so_and_their_workflow_is_planned() {
    let (mut seeds, mut exact) = (0, 0);
    for seed in testdata::seeds(16, 400) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        let lake = tempfile::tempdir().unwrap();
        let truth = write(&lake.path().join("things"), seed);
        let found = Look::at(lake.path().join("things")).now().unwrap_or_else(|error| panic!("{truth:?}: {}", error.full()));
        let mistakes = wrong(&found, &truth);
        let mut guesses = String::new();
        for guess in &found.guesses {
            writeln!(guesses, "{}: {} ({:?}: {})", guess.what, guess.value, guess.sure, guess.why).unwrap();
        }
        assert!(mistakes.is_empty(), "{truth:?}\n{}\n{guesses}", mistakes.join("\n"));

        let repair = Repair::text("things.yaml", found.workflow.as_str()).lake(lake.path()).connect().await;
        let repair = repair.unwrap_or_else(|error| panic!("{truth:?}: {}\n{}", error.full(), found.workflow));
        let registry = Arc::new(repair::registry());
        let refused = repair::plan::refusals(&registry, repair.workflow(), &BTreeMap::new(), Timestamp::now()).await.unwrap();
        assert!(refused.is_empty(), "{truth:?}: {}", refused[0].full());
        let plan = repair.plan().await.unwrap_or_else(|error| panic!("{truth:?}: {}\n{guesses}\n{}", error.full(), found.workflow));

        // Whether one series has a key cannot be known.
        if truth.key.as_ref().is_some_and(|(_, keys)| keys.len() == 1) {
            continue;
        }
        seeds += 1;
        let value = |what: &str| found.guess(what).map_or("", |guess| guess.value.as_str());
        let key = truth.key.as_ref().map_or("none", |(name, _)| name);
        if (value("key"), value("cadence"), value("calendar")) == (key, truth.cadence.0, "24x7") {
            exact += 1;
            let look = plan.looks.iter().find(|look| look.step == "find_gaps").unwrap();
            let keys = truth.key.as_ref().map_or(1, |(_, keys)| keys.len()) as u64;
            let slots = u64::try_from(truth.days * 86_400 / truth.cadence.1).unwrap() * keys;
            assert_eq!((look.counts.expected, look.counts.missing), (slots, truth.dropped), "{truth:?}\n{guesses}");
        }
    }
    // The rest are guesses of which it was not sure, such as a calendar of few days.
    assert!(testdata::seeds_are_given() || exact * 10 >= seeds * 8, "{exact} of {seeds}");
}

/// Rows at the same times, and a whole number in each: it is the key only where it follows a pattern that a key has.
#[test]
fn whole_numbers_are_a_key_by_their_pattern_and_never_by_chance() {
    let folder = tempfile::tempdir().unwrap();
    let start: Timestamp = FIRST_DAY.parse().unwrap();
    let (mut of_key, mut measured) = ("ts,line,count\n".to_owned(), "ts,count\n".to_owned());
    let mut random = Random::new(7);
    for hour in 0..100 {
        let time = start + SignedDuration::from_hours(hour);
        for line in 1..=3 {
            if hour * 3 + line != 50 {
                writeln!(of_key, "{time},{line},{}", random.below(900)).unwrap();
            }
            writeln!(measured, "{time},{}", random.below(900)).unwrap();
        }
    }
    std::fs::write(folder.path().join("a.csv"), of_key).unwrap();
    let found = Look::at(folder.path()).now().unwrap();
    assert_eq!(found.guess("key").map(|guess| guess.value.as_str()), Some("line"));
    assert!(found.guess("duplicates").is_none());
    // Three rows an hour, and nothing that separates them: no rule may throw two of them away.
    std::fs::write(folder.path().join("a.csv"), measured).unwrap();
    let refused = Look::at(folder.path()).now().unwrap_err().full();
    assert!(
        refused.contains("200 of 300 rows have the time of another one of their series") && refused.contains("`rows: many`"),
        "{refused}"
    );
}

/// Small tables with many holes, so that two rows are most often several slots apart.
#[test]
fn rows_with_many_holes_do_not_make_a_cadence_that_most_of_them_are_off() {
    for seed in testdata::seeds(200, 2_000) {
        let _printed = testdata::PrintedOnPanic::seed(seed);
        let mut random = Random::new(seed);
        let seconds = random.one_of(&[60, 300, 900, 3_600]);
        let folder = tempfile::tempdir().unwrap();
        let start: Timestamp = FIRST_DAY.parse().unwrap();
        let mut text = "when,value\n".to_owned();
        let (rows, most) = (5 + random.below(40), 2 + random.below(4));
        let mut slot = 0;
        let mut slots = Vec::new();
        for _ in 0..rows {
            slots.push(slot);
            writeln!(text, "{},{}", start + SignedDuration::from_secs(slot * seconds), 10 + random.below(90)).unwrap();
            slot += 1 + i64::try_from(random.below(most)).unwrap();
        }
        std::fs::write(folder.path().join("a.csv"), &text).unwrap();
        let found = match Look::at(folder.path()).now() {
            Ok(found) => found,
            Err(error) => panic!("{}\n{text}", error.full()),
        };
        let Some(guess) = found.guess("cadence") else { continue };
        let (count, unit) = guess.value.split_at(guess.value.len() - 1);
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => panic!("{}\n{text}", guess.value),
        };
        let length = count.parse::<i64>().unwrap() * unit;
        let aligned = |length: i64| {
            let mut phases = BTreeMap::new();
            for slot in &slots {
                *phases.entry(slot * seconds % length).or_insert(0usize) += 1;
            }
            phases.into_values().max().unwrap()
        };
        assert!(aligned(length) * 4 >= slots.len() * 3, "{}: {} of {} on its grid\n{text}", guess.value, aligned(length), slots.len());
        let fits_all = aligned(length) == slots.len();
        assert!(length == seconds || fits_all || guess.sure != Sure::Sure, "{} is not sure: it is {seconds} s\n{text}", guess.value);
    }
}

/// Writes one file, whose rows are those of each text that a time gives, and returns the guesses and how many slots the plan misses.
async fn looked_at(header: &str, rows: impl IntoIterator<Item = String>) -> (FirstSteps, u64) {
    let lake = tempfile::tempdir().unwrap();
    let text = rows.into_iter().fold(format!("{header}\n"), |text, row| text + &row + "\n");
    std::fs::create_dir(lake.path().join("things")).unwrap();
    std::fs::write(lake.path().join("things/a.csv"), &text).unwrap();
    let found = Look::at(lake.path().join("things")).now().unwrap_or_else(|error| panic!("{}\n{text}", error.full()));
    let repair = Repair::text("things.yaml", found.workflow.as_str()).lake(lake.path()).connect().await;
    let repair = repair.unwrap_or_else(|error| panic!("{}\n{}", error.full(), found.workflow));
    let plan = repair.plan().await.unwrap_or_else(|error| panic!("{}\n{}", error.full(), found.workflow));
    let missing = plan.looks.iter().find(|look| look.step == "find_gaps").unwrap().counts.missing;
    (found, missing)
}

#[tokio::test]
async fn a_time_may_be_in_columns_of_years_months_days_and_hours() {
    let months = || (2019..2024).flat_map(|year| (1..=12).map(move |month| (year, month))).filter(|at| *at != (2021, 5));
    let value = |found: &FirstSteps, what: &str| found.guess(what).map_or_else(String::new, |guess| guess.value.clone());

    let years = (1960..2024).filter(|year| *year != 1975).flat_map(|year| ["N", "S"].map(|region| format!("{year},{region},{}", year % 7)));
    let (found, missing) = looked_at("Year,region,sales", years).await;
    assert_eq!((value(&found, "time").as_str(), value(&found, "cadence").as_str(), missing), ("Year", "1y", 2), "{:?}", found.guesses);

    let rows = months().flat_map(|(year, month)| ["N", "S"].map(|region| format!("{region},{month},{year},{}", month % 5)));
    let (found, missing) = looked_at("region,month,year,sales", rows).await;
    assert_eq!(
        (value(&found, "time").as_str(), value(&found, "cadence").as_str(), missing),
        ("year, month", "1mo", 2),
        "{:?}",
        found.guesses
    );

    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rows = months().map(|(year, month)| format!("{year},{},{month}.5", names[month - 1]));
    let (found, missing) = looked_at("YEAR,Month,value", rows).await;
    assert_eq!((value(&found, "time format").as_str(), missing), ("%Y %b", 1), "{:?}", found.guesses);

    let start: Timestamp = FIRST_DAY.parse().unwrap();
    let hours = (0..24 * 20).filter(|hour| *hour != 77).map(|hour| {
        let at = (start + SignedDuration::from_hours(hour)).in_tz("UTC").unwrap();
        format!("{},{},{},{},{}", at.year(), at.month(), at.day(), at.hour() + 1, hour % 11)
    });
    let (found, missing) = looked_at("Year,Month,Day,Hour,load", hours).await;
    assert_eq!((value(&found, "time").as_str(), value(&found, "marks").as_str()), ("Year, Month, Day, Hour", "end"), "{:?}", found.guesses);
    assert_eq!((value(&found, "cadence").as_str(), missing), ("1h", 1), "{:?}", found.guesses);

    // What was built in a year has no time.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "house,year_built,rooms\n1,1930,4\n2,1987,5\n3,2001,3\n").unwrap();
    assert!(Look::at(folder.path()).now().unwrap_err().full().contains("no column holds times"));
}

/// Records of Parquet are looked into like those of JSON, and a name that two of them have becomes a name for each.
#[tokio::test]
async fn columns_within_records_get_a_name_and_their_path() {
    let lake = tempfile::tempdir().unwrap();
    std::fs::create_dir(lake.path().join("things")).unwrap();
    let start: Timestamp = FIRST_DAY.parse().unwrap();
    let mut text = String::new();
    for hour in (0..72).filter(|hour| ![7, 8].contains(hour)) {
        let at = start + SignedDuration::from_hours(hour);
        for pair in ["a", "b"] {
            let line = serde_json::json!({"pair": pair, "bid": {"at": at.to_string(), "value": hour}, "ask": {"value": hour + 1}, "value": 1, "list": [{"x": 1}]});
            writeln!(text, "{line}").unwrap();
        }
    }
    std::fs::write(lake.path().join("things/a.jsonl"), &text).unwrap();
    let found = Look::at(lake.path().join("things")).now().unwrap();
    assert!(
        found
            .workflow
            .contains("columns: { at: { path: \"bid.at\" }, bid_value: { path: \"bid.value\" }, ask_value: { path: \"ask.value\" } }"),
        "{}",
        found.workflow
    );
    let repair = Repair::text("things.yaml", found.workflow.as_str()).lake(lake.path()).connect().await.unwrap();
    let report = repair.run().await.unwrap();
    assert_eq!((report.missing, report.step("fill").map(|step| step.output["repaired"].clone())), (0, Some(4.into())), "{report:?}");
}
