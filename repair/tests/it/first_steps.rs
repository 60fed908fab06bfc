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

/// What a folder holds.
#[derive(Debug)]
struct Truth {
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
    let mut truth = Truth { delimiter, decimal, cadence, time, key, days, sentinel, doubled: 0, dropped: 0, rows: 0 };
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
    let header = header.join(delimiter) + "\n";
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
            let line = fields.join(delimiter) + "\n";
            let text = files.entry(if by_day { slot * cadence.1 / 86_400 } else { 0 }).or_insert_with(|| header.clone());
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
        std::fs::write(folder.join(format!("part-{number:03}.csv")), text).unwrap();
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
        ("format", "csv".to_owned()),
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
