//! Tables as people have them: the cases of `testdata/field`, each a kind of data that other tools read wrongly, with the right value.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::sync::Arc;

use crate::common::{World, copy, output};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use repair::arrow::array::{
    ArrayRef, Date64Array, DictionaryArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use repair::arrow::datatypes::{DataType, Int32Type, TimeUnit};
use repair::core::model::Format;
use repair::reading::Destination;
use repair::{ErrorKind, Outcome};

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn hours(hours: &[i64]) -> ArrayRef {
    // 2024-03-04T00:00:00Z
    Arc::new(TimestampMicrosecondArray::from(hours.iter().map(|hour| (1_709_510_400 + hour * 3_600) * 1_000_000).collect::<Vec<_>>()))
}

#[test]
fn a_clock_that_is_set_back_has_an_hour_twice() {
    let world = World::of("local-time");
    let zone = "format: csv, key: [meter], cadence: 1h, time: { column: reading_at, zone: America/New_York, repeated: file-order }";
    let day = "keys: [\"4711\"], from: 2022-11-06, to: 2022-11-06";
    let counts = world.gaps(zone, day);
    assert_eq!((counts["expected"].as_u64(), counts["missing"].as_u64(), counts["duplicates"].as_u64()), (Some(25), Some(1), Some(0)));
    // Without a word about the doubled hour nobody can know, and without a zone even less.
    let (_, message) = world.refused("format: csv, key: [meter], cadence: 1h, time: { column: reading_at, zone: America/New_York }", day);
    assert!(message.contains("line 3") && message.contains("twice") && message.contains("file-order"), "{message}");
    let (_, message) = world.refused("format: csv, key: [meter], cadence: 1h, time: reading_at", day);
    assert!(message.contains("line 2") && message.contains("zone: "), "{message}");
}

#[test]
fn times_are_numbers_of_several_units() {
    let names = "names: [open_time, open, high, low, close, volume, close_time, qv, n, tb, tq, ignore]";
    let scope = "from: \"2024-12-31T23:55:00Z\", to: \"2025-01-01T00:05:00Z\"";
    let world = World::of("epoch-times");
    let table = format!("format: csv, csv: {{ header: false, {names} }}, cadence: 1m, time: {{ column: open_time, epoch: [ms, us] }}");
    let counts = world.gaps(&table, scope);
    assert_eq!((counts["expected"].as_u64(), counts["missing"].as_u64()), (Some(10), Some(2)));
    let world = World::of("epoch-header");
    assert_eq!(world.missing("format: csv, cadence: 1m, time: { column: open_time, epoch: [ms, us] }", scope), 2);
    // One unit alone does not fit, and the message says which does.
    let (_, message) = world.refused("format: csv, cadence: 1m, time: { column: open_time, epoch: ms }", scope);
    assert!(message.contains("DOGE-1m-2025-01-01.csv") && message.contains("epoch: [ms, us]"), "{message}");
    let (_, message) = world.refused("format: csv, cadence: 1m, time: open_time", scope);
    assert!(message.contains("epoch: ms"), "{message}");
}

#[test]
fn every_file_is_read_whatever_its_ending() {
    let scope = "keys: [EURJPY], from: 2024-03-04, to: 2024-03-06";
    for (case, format) in [("mixed", "csv"), ("gz", "csv"), ("noext", "parquet"), ("upper", "parquet")] {
        let world = World::of(&format!("file-endings/{case}"));
        let counts = world.gaps(&format!("format: {format}, key: [pair], time: ts, cadence: 1h"), scope);
        assert_eq!((counts["present"].as_u64(), counts["missing"].as_u64()), (Some(72), Some(0)), "{case}");
    }
    // What is not named like data makes the table blind, by name, until somebody says what it is.
    let world = World::of("file-endings/mixed");
    world.write("t/README.md", "# Prices\n");
    let (kind, message) = world.refused("format: csv, key: [pair], time: ts, cadence: 1h", scope);
    assert!(kind == ErrorKind::Blind && message.contains("README.md") && message.contains("ignore"), "{message}");
    assert_eq!(world.missing("format: csv, ignore: [\"*.md\"], key: [pair], time: ts, cadence: 1h", scope), 0);
}

#[test]
fn one_file_and_a_glob_are_locations() {
    let world = World::of("file-endings/gz");
    let scope = "keys: [EURJPY], from: 2024-03-04, to: 2024-03-06";
    let text = |location: &str| world.missing_at(location, "format: csv, key: [pair], time: ts, cadence: 1h", scope);
    assert_eq!(text("t/w0.csv.gz"), 48);
    assert_eq!(text("t/w[02].csv.gz"), 24);
    assert_eq!(text("*/*.gz"), 0);
}

#[test]
fn folders_carry_the_time_in_many_ways() {
    let world = World::new();
    for hour in (0..12).filter(|hour| *hour != 5) {
        let rows: [(&str, ArrayRef); 3] = [("dev", texts(&["a"])), ("ts", hours(&[hour])), ("v", Arc::new(Float64Array::from(vec![1.5])))];
        world.parquet(&format!("t/year=2024/month=03/day=04/hour={hour:02}/f.parquet"), &rows);
        world.parquet(&format!("plain/2024/03/04/{hour:02}/f.parquet"), &rows);
        world.parquet(&format!("unpadded/year=2024/month=3/day=4/hour={hour}/f.parquet"), &rows);
    }
    let rows = (0..12).filter(|hour| *hour != 5).collect::<Vec<_>>();
    world.parquet("compact/dt=20240304/f.parquet", &[("dev", texts(&vec!["a"; rows.len()])), ("ts", hours(&rows))]);
    world.parquet("compact/dt=20240307/f.parquet", &[("dev", texts(&["a"])), ("ts", hours(&[72]))]);
    // A folder that is not needed is not read.
    for folder in
        ["t/year=2023/month=01/day=01/hour=00", "plain/2023/01/01/00", "unpadded/year=2023/month=1/day=1/hour=0", "compact/dt=20230101"]
    {
        world.parquet(&format!("{folder}/f.parquet"), &[("dev", texts(&["a"; 50])), ("ts", hours(&[-10_272; 50]))]);
    }
    for (location, pattern) in [
        ("t", "year=%Y/month=%m/day=%d/hour=%H"),
        ("plain", "%Y/%m/%d/%H"),
        ("unpadded", "year=%Y/month=%m/day=%d/hour=%H"),
        ("compact", "dt=%Y%m%d"),
    ] {
        let scope = "keys: [a], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T08:00:00Z\"";
        let table = format!("format: parquet, partition_by: \"{pattern}\", key: [dev], time: ts, cadence: 1h");
        let (missing, rows_read) = world.missing_and_read_at(location, &table, scope);
        assert_eq!(missing, 1, "{location}");
        assert!((7..=11).contains(&rows_read), "{location}: {rows_read}");
    }
}

#[test]
fn a_row_outside_its_folder_is_counted_and_never_lost() {
    let world = World::new();
    // Of the day 03-05, an hour lies in the folder of the day before; of 03-09, one lies in a folder four days away.
    world.parquet("t/dt=20240304/f.parquet", &[("dev", texts(&["a"; 25])), ("ts", hours(&(0..25).collect::<Vec<_>>()))]);
    world.parquet("t/dt=20240305/f.parquet", &[("dev", texts(&["a"; 24])), ("ts", hours(&(25..48).chain([120]).collect::<Vec<_>>()))]);
    let table = "format: parquet, partition_by: \"dt=%Y%m%d\", key: [dev], time: ts, cadence: 1h";
    let look = |from: &str, to: &str| world.gaps(table, &format!("keys: [a], from: {from}, to: {to}"));
    for (from, to, missing, misplaced, stray) in [
        ("2024-03-04", "2024-03-05", 0, 1, 1),
        ("2024-03-05", "2024-03-05", 0, 1, 1),
        // The folder of the next day is opened too, and none of its rows can be of this one.
        ("2024-03-04", "2024-03-04", 0, 0, 0),
        ("2024-03-04", "2024-03-09", 4 * 24, 1, 1),
        ("2024-03-09", "2024-03-09", 24, 0, 0),
    ] {
        let counts = look(from, to);
        let found = ["missing", "misplaced", "stray"].map(|name| counts[name].as_u64().unwrap());
        assert_eq!(found, [missing, misplaced, stray], "{from} to {to}");
    }
}

#[test]
fn tables_with_a_log_of_their_own_are_refused_by_name() {
    let world = World::of("delta-log");
    world.parquet("t/part-0.parquet", &[("dev", texts(&["a"])), ("ts", hours(&[0]))]);
    let table = "format: parquet, key: [dev], time: ts, cadence: 1h";
    let (kind, message) = world.refused(table, "keys: [a], from: 2024-03-04, to: 2024-03-04");
    assert!(kind == ErrorKind::Blind && message.contains("Delta Lake") && message.contains("export"), "{message}");
    for (log, name) in [("t/.hoodie/hoodie.properties", "Hudi"), ("t/metadata/v1.metadata.json", "Iceberg")] {
        let world = World::new();
        world.parquet("t/data/part-0.parquet", &[("dev", texts(&["a"])), ("ts", hours(&[0]))]);
        world.write(log, "{}");
        let (_, message) = world.refused(table, "keys: [a], from: 2024-03-04, to: 2024-03-04");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn broken_lines_are_refused_by_line_or_counted_and_listed() {
    let scope = "keys: [a], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T10:00:00Z\"";
    let table = "format: csv, key: [k], time: ts, cadence: 1m";
    for (case, line, word, bad) in [("cat", 42, "repeats the header", 1), ("bad", 41, "0000-00-00", 1), ("cut", 61, "cut off", 1)] {
        let world = World::of(&format!("broken-lines/{case}"));
        let (_, message) = world.refused(table, scope);
        assert!(message.contains(&format!("line {line}")) && message.contains(word), "{case}: {message}");
        let steps = format!("  look: {{ detect: gaps, with: {{ table: t, {scope} }}, end: true }}");
        let report = world.run(&format!("{table}, on_bad_row: {{ quarantine: 5% }}"), &steps);
        let counts = output(&report, "look");
        assert_eq!(counts["quarantined"].as_u64(), Some(bad), "{case}");
        assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{case}");
        let problem = report.problems.iter().find(|problem| problem.contains("cannot be read")).unwrap();
        assert!(problem.contains("c.csv") && problem.contains(&format!("line {line}")), "{problem}");
        // A limit that is passed makes the table blind.
        let (kind, message) = world.refused(&format!("{table}, on_bad_row: {{ quarantine: 0.1% }}"), scope);
        assert!(kind == ErrorKind::Blind && message.contains("more than the limit of 0.1%"), "{message}");
    }
    let world = World::of("broken-lines/tab");
    let (_, message) = world.refused(table, scope);
    assert!(message.contains("delimiter: tab"), "{message}");
    assert!(world.missing(&format!("csv: {{ delimiter: tab }}, {table}"), scope) > 0);
    let world = World::of("broken-lines/sp");
    let (_, message) = world.refused(table, scope);
    assert!(message.contains("trim: true"), "{message}");
    assert!(world.missing(&format!("csv: {{ trim: true }}, {table}"), scope) > 0);
}

#[test]
fn one_word_in_one_file_does_not_take_a_column_of_numbers_in_silence() {
    for (ending, numbers, words) in [
        ("csv", "k,ts,v\nA,2024-03-04T00:00:00Z,1\nA,2024-03-04T02:00:00Z,3\n", "k,ts,v\nA,2024-03-09T00:00:00Z,offline\n"),
        (
            "jsonl",
            "{\"k\":\"A\",\"ts\":\"2024-03-04T00:00:00Z\",\"v\":1}\n{\"k\":\"A\",\"ts\":\"2024-03-04T02:00:00Z\",\"v\":3}\n",
            "{\"k\":\"A\",\"ts\":\"2024-03-09T00:00:00Z\",\"v\":\"offline\"}\n",
        ),
        ("csv", "k,ts,v\nA,2024-03-04T00:00:00Z,1\nA,2024-03-04T02:00:00Z,3\n", "k,ts,v\nA,2024-03-09T00:00:00Z,true\n"),
    ] {
        for [first, second] in [[numbers, words], [words, numbers]] {
            let world = World::new();
            world.write(&format!("t/a.{ending}"), first);
            world.write(&format!("t/b.{ending}"), second);
            let (of_numbers, of_words) = if first == numbers { ("a", "b") } else { ("b", "a") };
            let steps = "  look: { detect: gaps, with: { table: t, keys: [A], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T03:00:00Z\" }, next: fill }\n  fill: { repair: \
                         interpolate, of: look, with: { max_gap: 2h }, end: true }";
            let table = format!("format: {ending}, key: [k], time: ts, cadence: 1h");
            let report = world.run(&table, steps);
            let said = report.problems.iter().find(|problem| problem.contains("column `v` of table `t` has numbers in"));
            let said = said.unwrap_or_else(|| panic!("{ending}: {:?}", report.problems));
            let places = [format!("{of_numbers}.{ending} and words in"), format!("{of_words}.{ending}, so it is text")];
            assert!(places.iter().all(|place| said.contains(place)) && said.contains("`columns: { v: number }` or `text`"), "{said}");
            // What is declared is meant.
            let report = world.run(&format!("{table}, columns: {{ v: text }}"), &steps.replace("max_gap: 2h", "max_gap: 2h, columns: [v]"));
            assert!(!report.problems.iter().any(|problem| problem.contains("has numbers in")), "{:?}", report.problems);
        }
    }
}

const DAY: &str = "keys: [A], from: 2024-03-04, to: 2024-03-04";

/// What is wrong with a table before anything is read.
fn mistakes(table: &str) -> String {
    let text = format!(
        "workflow: w\nkind: state-machine\ntables: {{ t: {{ location: t, {table} }} }}\nstart: look\nsteps:\n  look: {{ detect: gaps, with: {{ table: t, {DAY} }}, \
         end: true }}\n"
    );
    repair::Workflow::parse("w.yaml", &text, &repair::Registry::default()).unwrap_err().to_string()
}

/// Lines of CSV for hours of the day.
fn lines(header: &str, hours: std::ops::Range<u32>, rest: &str) -> String {
    let rows: String = hours.map(|hour| format!("A,2024-03-04T{hour:02}:00:00Z,{rest}\n")).collect();
    format!("{header}\n{rows}")
}

/// A column that a header names twice cannot be told from its double; it must not come as null where another file has it once.
#[test]
fn a_column_that_a_file_has_twice_is_reported_and_never_null() {
    let table = "format: csv, key: [k], time: ts, cadence: 1h";
    for header in ["k,ts,v,v", "k,ts,V,V"] {
        for [one, two] in [["a", "b"], ["b", "a"]] {
            let world = World::new();
            world.write(&format!("t/{one}.csv"), lines("k,ts,v", 0..12, "1"));
            world.write(&format!("t/{two}.csv"), lines(header, 12..24, "100,7"));
            let report = world.run(table, &format!("  look: {{ detect: gaps, with: {{ table: t, {DAY} }}, end: true }}"));
            let is_said = |text: &String| text.contains(&format!("/{two}.csv and as field 4 of ")) && text.contains("as field 3 of ");
            assert!(report.problems.iter().any(is_said), "{header}: {:?}", report.problems);
            let steps = format!("  look: {{ detect: invalid, with: {{ table: t, {DAY}, rules: [{{ column: v, min: 0 }}] }}, end: true }}");
            let report = world.run(table, &steps);
            assert!(report.reason.as_ref().is_some_and(is_said), "{header}: {:?}", report.reason);
        }
    }
}

/// What a quote has swallowed is in no count, so the file is refused, whatever the table does with bad rows.
#[test]
fn a_quote_that_is_never_closed_takes_no_rows_with_it() {
    let world = World::new();
    let good = lines("k,ts,v", 0..21, "1");
    world.write("t/a.csv", format!("{good}A,2024-03-04T21:00:00Z,\"a\nA,2024-03-04T22:00:00Z,b\n"));
    for table in ["format: csv, key: [k], time: ts, cadence: 1h", "format: csv, on_bad_row: quarantine, key: [k], time: ts, cadence: 1h"] {
        let (_, message) = world.refused(table, DAY);
        assert!(message.contains("line 23") && message.contains("never closed") && message.contains("quote: none"), "{message}");
    }
    assert_eq!(world.missing("format: csv, csv: { quote: none }, key: [k], time: ts, cadence: 1h", DAY), 1);
    // Cut within the last line, only that one is lost.
    world.write("t/a.csv", format!("{good}A,2024-03-04T21:00:00Z,\"a"));
    let (_, message) = world.refused("format: csv, key: [k], time: ts, cadence: 1h", DAY);
    assert!(message.contains("line 23") && message.contains("cut off"), "{message}");
    let counts = world.gaps("format: csv, on_bad_row: { quarantine: 5% }, key: [k], time: ts, cadence: 1h", DAY);
    assert_eq!((counts["missing"].as_u64(), counts["quarantined"].as_u64()), (Some(3), Some(1)));
}

#[test]
fn whole_numbers_among_fractions_lose_no_digit_in_silence() {
    let json = |hour: u32, v: &str| format!("{{\"k\":\"A\",\"ts\":\"2024-03-04T{hour:02}:00:00Z\",\"v\":{v},\"more\":{{\"x\":1}}}}\n");
    let flat = |hour: u32, v: &str| json(hour, v).replace(",\"more\":{\"x\":1}", "");
    let csv = |hour: u32, v: &str| format!("A,2024-03-04T{hour:02}:00:00Z,{v}\n");
    let look = format!("  look: {{ detect: invalid, with: {{ table: t, {DAY}, rules: [{{ column: v, min: 0 }}] }}, end: true }}");
    for (ending, row, header) in [("csv", &csv as &dyn Fn(u32, &str) -> String, "k,ts,v\n"), ("jsonl", &json, ""), ("jsonl", &flat, "")] {
        for in_one in [true, false] {
            let world = World::new();
            let (large, fraction) = (row(0, "9007199254740993"), row(1, "1.5"));
            if in_one {
                world.write(&format!("t/a.{ending}"), format!("{header}{fraction}{large}"));
            } else {
                world.write(&format!("t/a.{ending}"), format!("{header}{large}"));
                world.write(&format!("t/b.{ending}"), format!("{header}{fraction}"));
            }
            let table = format!("format: {ending}, key: [k], time: ts, cadence: 1h");
            let report = world.run(&table, &look);
            let reason = report.reason.unwrap_or_else(|| panic!("{ending} {in_one}: it ended"));
            assert!(reason.contains("9007199254740993") && reason.contains("columns: { v: text }"), "{ending} {in_one}: {reason}");
            assert!(world.run(&format!("{table}, columns: {{ v: number }}"), &look).reason.is_none());
        }
    }
}

#[test]
fn what_is_declared_of_a_column_that_is_not_there_is_reported() {
    let world = World::new();
    world.write("t/a.csv", lines("k,ts,v", 0..24, "-999"));
    let look = format!("  look: {{ detect: gaps, with: {{ table: t, {DAY} }}, end: true }}");
    for (columns, is_said) in [("{ vv: { nulls: [\"-999\"] } }", true), ("{ V: { nulls: [\"-999\"] } }", false), ("{ k: text }", false)] {
        let report = world.run(&format!("format: csv, columns: {columns}, key: [k], time: ts, cadence: 1h"), &look);
        let said = report.problems.iter().any(|problem| problem.contains("`vv`") && problem.contains("does nothing"));
        assert_eq!(said, is_said, "{columns}: {:?}", report.problems);
    }
}

#[test]
fn times_that_only_seem_to_be_some_are_refused() {
    let world = World::new();
    let rows = |of: &dyn Fn(u32) -> String| -> String { (0..24).map(|hour| format!("A,{},1\n", of(hour))).collect() };
    // Half of a day is the other half.
    world.write("t/a.csv", format!("k,ts,v\n{}", rows(&|hour| format!("04.03.2024 {:02}:00", (hour + 11) % 12 + 1))));
    let table = |time: &str| format!("format: csv, key: [k], time: {time}, cadence: 1h");
    let message = mistakes(&table("{ column: ts, format: \"%d.%m.%Y %I:%M\", zone: UTC }"));
    assert!(message.contains("add `%p`"), "{message}");
    // A date is no hour.
    let message = mistakes(&table("{ column: ts, format: \"%d.%m.%Y\", zone: UTC }"));
    assert!(message.contains("has no time of day"), "{message}");
    let dates: ArrayRef = Arc::new(repair::arrow::array::Date32Array::from(vec![19_786]));
    world.parquet("dates/a.parquet", &[("k", texts(&["A"])), ("ts", dates)]);
    std::fs::remove_dir_all(world.0.path().join("lake/t")).unwrap();
    copy(&world.0.path().join("lake/dates"), &world.0.path().join("lake/t"));
    let (_, message) = world.refused("format: parquet, key: [k], time: ts, cadence: 1h", DAY);
    assert!(message.contains("dates without a time of day"), "{message}");
    assert_eq!(world.missing("format: parquet, key: [k], time: ts, cadence: 1d", DAY), 0);
    // Seconds among milliseconds are not the first weeks of 1970.
    std::fs::remove_dir_all(world.0.path().join("lake/t")).unwrap();
    let second = |hour: u32| 1_709_510_400 + u64::from(hour) * 3_600;
    let mixed = rows(&|hour| if hour < 20 { format!("{}000", second(hour)) } else { second(hour).to_string() });
    world.write("t/a.csv", format!("k,ts,v\n{mixed}"));
    let (_, message) = world.refused(&table("{ column: ts, epoch: ms }"), DAY);
    assert!(message.contains("line 22") && message.contains("epoch: [s, ms]"), "{message}");
    assert_eq!(world.missing(&table("{ column: ts, epoch: [s, ms] }"), DAY), 0);
}

#[test]
fn digits_in_parquet_are_times_by_a_pattern() {
    let world = World::new();
    let days: Vec<i64> = vec![20_240_304, 20_240_305, 20_240_307];
    world.parquet("t/a.parquet", &[("k", texts(&["A"; 3])), ("ts", Arc::new(Int64Array::from(days)))]);
    let table = "format: parquet, key: [k], time: { column: ts, format: \"%Y%m%d\" }, cadence: 1d";
    assert_eq!(world.missing(table, "keys: [A], from: 2024-03-04, to: 2024-03-07"), 1);
}

/// A time in a path that the clock shows twice, or never, is what the table says.
#[test]
fn hours_in_paths_are_those_of_the_clock() {
    let world = World::new();
    for (day, hours) in [("20241027", 24), ("20240331", 24)] {
        for hour in 0..hours {
            world.write(&format!("{day}/{day}{hour:02}.csv"), "v\n1\n");
        }
    }
    let table = |more: &str| format!("format: csv, time: {{ path: \"%Y%m%d%H.csv\", zone: Europe/Berlin{more} }}, cadence: 1h");
    let of = |day: &str| {
        let _ = std::fs::remove_dir_all(world.0.path().join("lake/t"));
        copy(&world.0.path().join("lake").join(day), &world.0.path().join("lake/t"));
    };
    of("20241027");
    let first = "from: \"2024-10-27T00:00:00Z\", to: \"2024-10-27T01:00:00Z\"";
    let second = "from: \"2024-10-27T01:00:00Z\", to: \"2024-10-27T02:00:00Z\"";
    for (repeated, missing) in [("earlier", [0, 1]), ("later", [1, 0])] {
        let table = table(&format!(", repeated: {repeated}"));
        assert_eq!([world.missing(&table, first), world.missing(&table, second)], missing, "{repeated}");
    }
    let day = "from: 2024-10-27, to: 2024-10-27";
    let (_, message) = world.refused(&table(""), day);
    assert!(message.contains("2024102702.csv") && message.contains("twice"), "{message}");
    let message = mistakes(&table(", repeated: file-order"));
    assert!(message.contains("the order of rows"), "{message}");
    of("20240331");
    let day = "from: 2024-03-31, to: 2024-03-31";
    let (_, message) = world.refused(&table(""), day);
    assert!(message.contains("2024033102.csv") && message.contains("never shows"), "{message}");
    assert_eq!(world.gaps(&table(", skipped: shift"), day)["duplicates"].as_u64(), Some(1));
}

#[test]
fn records_without_fields_stop_no_repair() {
    let world = World::new();
    let row = |hour: u32, more: &str| format!("{{\"k\":\"A\",\"ts\":\"2024-03-04T{hour:02}:00:00Z\",\"v\":{hour},{more}}}\n");
    // In `meta` and `inner` no field is left that has one shape; the others never had one.
    let rows = [
        row(0, r#""e":{},"none":[],"list":[{}],"meta":{"a":1},"inner":{"x":{"y":[1]}}"#),
        row(2, r#""e":{},"none":[],"list":[],"meta":{"a":{"b":1}},"inner":{"x":{"y":{}}}"#),
    ];
    world.write("t/a.jsonl", rows.concat());
    let steps = "  look: { detect: gaps, with: { table: t, keys: [A], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T03:00:00Z\" }, next: fill }\n  fill: { repair: interpolate, \
                 of: look, with: { max_gap: 2h }, next: check }\n  check: { verify: look, end: true }";
    let report = world.run("format: jsonl, key: [k], time: ts, cadence: 1h", steps);
    assert_eq!(report.step("check").map(|step| step.output["repaired"].clone()), Some(1.into()), "{report:?}");
    let said: Vec<&String> = report.problems.iter().filter(|problem| problem.contains("no type holds the values of both")).collect();
    assert!(said.len() == 2 && said[0].contains("`meta.a`") | said[1].contains("`meta.a`"), "{:?}", report.problems);
}

#[test]
fn lines_that_cannot_be_read_in_tables_that_no_step_examines_are_reported() {
    let world = World::new();
    world.write("t/a.csv", "k,ts,v,site\nA,2024-03-04T00:00:00Z,1,A\nA,2024-03-04T01:00:00Z,2,A\n");
    world.write("sites.csv", "k,opened\nA,2024-03-01\nB,\n");
    let sites = "}\n  sites: { location: sites.csv, format: csv, time: opened, on_bad_row: { quarantine: 50% }";
    let day = "table: t, from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T02:00:00Z\"";
    let list = "keys: { table: sites, since: opened }";
    for (table, with) in [
        // Its table lists the keys, or the step does, or a rule refers to it.
        (format!("cadence: 1h, {list}"), format!("detect: gaps, with: {{ {day} }}")),
        ("cadence: 1h".to_owned(), format!("detect: gaps, with: {{ {day}, {list} }}")),
        (
            "cadence: 1h".to_owned(),
            format!(
                "detect: sql, with: {{ {day}, keys: [A], query: \"SELECT k, ts FROM t WHERE site IN (SELECT k FROM sites) AND v < 0\" }}"
            ),
        ),
        (
            "cadence: 1h".to_owned(),
            format!(
                "detect: invalid, with: {{ {day}, keys: [A], rules: [{{ column: v, min: 0 }}, {{ column: site, in: {{ table: sites, column: k }} }}] }}"
            ),
        ),
    ] {
        let report = world.run(
            &format!("format: csv, key: [k], columns: {{ site: text }}, time: ts, {table} {sites}"),
            &format!("  look: {{ {with}, end: true }}"),
        );
        assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{with}: {:?} {:?}", report.reason, report.problems);
        let said = "1 row of table `sites`, which this step uses, cannot be read and was left out, such as ";
        assert!(
            report.problems.iter().any(|problem| problem.contains(said) && problem.contains("sites.csv, line 3")),
            "{with}: {:?}",
            report.problems
        );
        let counts = output(&report, "look");
        assert_eq!((counts["unread_elsewhere"].as_u64(), counts["quarantined"].as_u64()), (Some(1), Some(0)), "{with}");
    }
    // No step has looked at what the query reads.
    world.write("t/a.csv", "k,ts,v,site\nA,2024-03-04T00:00:00Z,1,A\nA,when,2,A\n");
    for name in ["t", "t_repaired"] {
        let query = format!("SELECT k, min(ts) AS ts, sum(v) AS s FROM {name} GROUP BY k");
        let steps = format!("  sum: {{ aggregate: sql, with: {{ into: sums, query: \"{query}\" }}, end: true }}");
        let report = world.run("format: csv, key: [k], time: ts, cadence: 1h, on_bad_row: { quarantine: 50% }", &steps);
        let said = "sum: 1 row of table `t`, which the query reads, cannot be read and was left out, such as ";
        assert!(report.problems.iter().any(|problem| problem.contains(said) && problem.contains("a.csv, line 3")), "{:?}", report.problems);
    }
}

#[test]
fn times_are_text_and_in_two_columns() {
    let world = World::new();
    let all: Vec<String> = (0..24).filter(|hour| *hour != 7).map(|hour| format!("2024-03-04 {hour:02}:00:00")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    world.parquet("t/f.parquet", &[("k", texts(&vec!["a"; all.len()])), ("ts", texts(&all))]);
    let day = "keys: [a], from: 2024-03-04, to: 2024-03-04";
    assert_eq!(world.missing("format: parquet, key: [k], time: { column: ts, zone: UTC }, cadence: 1h", day), 1);
    let world = World::of("text-times");
    let table = "format: csv, cadence: 1h, time: { columns: [Date, Time], format: \"%m/%d/%Y %H:%M\", zone: UTC }";
    assert_eq!(world.missing(table, "from: 2024-03-04, to: 2024-03-04"), 1);
}

#[test]
fn a_word_for_no_value_is_none() {
    let world = World::of("late-na");
    let steps = "  look: { detect: gaps, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-05 }, next: sum }\n  sum:\n    aggregate: sql\n    of: \
                 look\n    with: { into: sums, query: \"SELECT k, min(ts) AS ts, sum(v) AS s, count(v) AS n FROM t_repaired GROUP BY 1\" }\n    end: true";
    let report = world.run("format: csv, nulls: [N/A], key: [k], time: ts, cadence: 1h", steps);
    assert_eq!(report.missing, 2, "{:?}", report.problems);
    // Each day lacks its last hour, and the second day has one value that is not available.
    assert!((world.sum() - 503.0).abs() < 1e-9, "{}", world.sum());
    // Without that line, the message says which to add.
    let world = World::of("late-na");
    let report = world.run("format: csv, key: [k], time: ts, cadence: 1h", steps);
    let message = report.reason.unwrap();
    assert!(message.contains("later.csv") && message.contains("line 5") && message.contains("nulls: [\"N/A\"]"), "{message}");
}

#[test]
fn the_time_is_in_the_path() {
    let world = World::new();
    for (day, stores) in [("04", &["s1", "s2"][..]), ("05", &["s1", "s2"]), ("07", &["s1"]), ("08", &["s1", "s2"])] {
        world.parquet(
            &format!("t/date=2024-03-{day}/f.parquet"),
            &[("store", texts(stores)), ("v", Arc::new(Int64Array::from(vec![1; stores.len()])))],
        );
        let rows: Vec<String> = stores.iter().map(|store| format!("{store},1\n")).collect();
        world.write(&format!("csv/sales_202403{day}.csv"), format!("store,v\n{}", rows.concat()));
        for store in stores {
            world.write(&format!("keys/{store}/2024-03-{day}.csv"), "v\n1\n");
        }
    }
    let scope = "keys: [s1, s2], from: 2024-03-04, to: 2024-03-08";
    let table = "format: parquet, partition_by: [{ date: day }], key: [store], time: date, cadence: 1d";
    assert_eq!(world.missing(table, scope), 3);
    for (location, table) in [
        ("csv", "format: csv, key: [store], time: { path: \"sales_%Y%m%d.csv\" }, cadence: 1d"),
        ("keys", "format: csv, key: [store], time: { path: \"{store}/%F.csv\" }, cadence: 1d"),
        ("keys", "format: csv, key: [store], partition_by: \"{store}/%F.csv\", time: { path: \"%F.csv\" }, cadence: 1d"),
    ] {
        std::fs::remove_dir_all(world.0.path().join("lake/t")).unwrap_or_default();
        copy(&world.0.path().join("lake").join(location), &world.0.path().join("lake/t"));
        assert_eq!(world.missing(table, scope), 3, "{table}");
    }
}

#[test]
fn whole_numbers_are_keys_even_as_floats() {
    let world = World::new();
    let rows: Vec<i64> = (0..24).filter(|hour| *hour != 7).collect();
    world.parquet("t/f.parquet", &[("meter", Arc::new(Float64Array::from(vec![4711.0; rows.len()]))), ("ts", hours(&rows))]);
    assert_eq!(
        world.missing("format: parquet, key: [meter], time: ts, cadence: 1h", "keys: [\"4711\"], from: 2024-03-04, to: 2024-03-04"),
        1
    );
    world.parquet("t/g.parquet", &[("meter", Arc::new(Float64Array::from(vec![4711.5]))), ("ts", hours(&[30]))]);
    let (_, message) =
        world.refused("format: parquet, key: [meter], time: ts, cadence: 1h", "keys: [\"4711\"], from: 2024-03-05, to: 2024-03-05");
    assert!(message.contains("key column `meter`") && message.contains("a number that is not whole"), "{message}");
}

#[test]
fn parquet_times_without_a_zone_are_those_of_the_table() {
    let world = World::new();
    // New York's clock, all of 2024-11-03, without 01:00 in the second pass.
    let local: Vec<i64> = (0..24).map(|hour| 1_730_592_000_000 + hour * 3_600_000).collect();
    world.parquet("t/f.parquet", &[("k", texts(&["a"; 24])), ("ts", Arc::new(TimestampMillisecondArray::from(local)))]);
    let counts = world.gaps(
        "format: parquet, key: [k], cadence: 1h, time: { column: ts, zone: America/New_York, repeated: earlier }",
        "keys: [a], from: 2024-11-03, to: 2024-11-03",
    );
    assert_eq!((counts["expected"].as_u64(), counts["missing"].as_u64()), (Some(25), Some(1)));
}

#[test]
fn a_european_export_is_read_as_it_is_written() {
    let world = World::new();
    // As SMARD publishes it: a byte-order mark, semicolons, German numbers, a dash for nothing, and the long day in autumn.
    let mut text = "\u{feff}Datum;Uhrzeit;Netzlast [MWh]\r\n".to_owned();
    for hour in [0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23] {
        let load = if hour == 9 { "-".to_owned() } else { format!("4{hour}.123,25") };
        text.push_str(&format!("27.10.2024;{hour:02}:00;{}\r\n", load.replace("40.", "4.")));
    }
    world.write("t/smard.csv", text);
    let table = "format: csv, csv: { delimiter: \";\", decimal: \",\", thousands: \".\" }, nulls: [\"-\"], cadence: 1h, time: { columns: [Datum, Uhrzeit], \
                 format: \"%d.%m.%Y %H:%M\", zone: Europe/Berlin, repeated: file-order }";
    let day = "from: 2024-10-27, to: 2024-10-27";
    let counts = world.gaps(table, day);
    assert_eq!((counts["expected"].as_u64(), counts["present"].as_u64()), (Some(25), Some(25)));
    let steps = format!(
        "  look: {{ detect: invalid, with: {{ table: t, {day}, rules: [{{ column: \"Netzlast [MWh]\", not_null: true, min: 4000 }}] }}, end: true }}"
    );
    let report = world.run(table, &steps);
    assert_eq!(output(&report, "look")["defective"].as_u64(), Some(1), "{:?}", report.problems);
}

#[test]
fn text_comes_in_other_encodings() {
    let scope = "keys: [\"Z\u{fc}rich\"], from: 2024-03-04, to: 2024-03-04";
    let rows: String = (0..24).filter(|hour| *hour != 7).map(|hour| format!("Z\u{fc}rich,2024-03-04T{hour:02}:00Z,1\n")).collect();
    let text = format!("ort,ts,v\n{rows}");
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let utf16 = |mark: bool| -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    };
    for (bytes, encoding) in
        [(latin.clone(), "latin1"), (utf16(true), "utf8"), (utf16(false), "utf16le"), (text.clone().into_bytes(), "utf8")]
    {
        let world = World::new();
        world.write("t/f.csv", bytes);
        let table = format!("format: csv, csv: {{ encoding: {encoding} }}, key: [ort], time: ts, cadence: 1h");
        assert_eq!(world.missing(&table, scope), 1, "{encoding}");
    }
    let world = World::new();
    world.write("t/f.csv", latin);
    let (_, message) = world.refused("format: csv, key: [ort], time: ts, cadence: 1h", scope);
    assert!(message.contains("line 2") && message.contains("encoding: latin1"), "{message}");
}

#[test]
fn values_are_taken_from_within_nested_rows() {
    let world = World::new();
    let rows: String = (0..24)
        .filter(|hour| *hour != 7)
        .map(|hour| {
            format!(
                "{{\"device\": {{\"id\": \"a\"}}, \"at\": {{\"ms\": {}}}, \"quote\": {{\"last\": {hour}.5}}}}\n",
                1_709_510_400_000i64 + hour * 3_600_000
            )
        })
        .collect();
    world.write("t/f.jsonl", rows);
    let table = "format: jsonl, key: [dev], time: { column: ts, epoch: ms }, cadence: 1h, columns: { dev: { path: device.id }, ts: { path: at.ms }, price: { \
                 path: quote.last } }";
    assert_eq!(world.missing(table, "keys: [a], from: 2024-03-04, to: 2024-03-04"), 1);
    let steps = "  look: { detect: invalid, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-04, rules: [{ column: price, max: 22 }] }, end: true }";
    let report = world.run(table, steps);
    assert_eq!(output(&report, "look")["defective"].as_u64(), Some(2), "{:?}", report.problems);
}

/// From the raw file to one number of the repaired table, by YAML alone: rows that are there twice are resolved, gaps are interpolated, and
/// a query computes the rest. Returns how many slots were missing, and the number.
fn repaired(world: &World, table: &str, scope: &str, sum: &str) -> (u64, f64) {
    let steps = format!(
        "  look: {{ detect: duplicates, with: {{ table: t, {scope} }}, next: keep }}
  keep: {{ repair: keep, of: look, with: {{ keep: last }}, next: gaps }}
  gaps: {{ detect: gaps, with: {{ table: t, {scope} }}, next: fill }}
  fill: {{ repair: interpolate, of: gaps, next: check }}
  check: {{ verify: gaps, next: sum }}
  sum: {{ aggregate: sql, of: gaps, with: {{ into: sums, query: '{sum}' }}, end: true }}"
    );
    let report = world.run(table, &steps);
    assert!(report.error.is_none() && report.missing == 0, "{:?} {:?}", report.reason, report.problems);
    (output(&report, "gaps")["missing"].as_u64().unwrap(), world.sum())
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-6
}

#[test]
fn raw_files_of_public_data_become_repaired_tables() {
    // The Numenta benchmark: no zone, five minutes, an hour exported twice, and a step backward.
    let world = World::new();
    let mut lines = vec!["timestamp,value".to_owned()];
    let stamp = |minute: i64| format!("2013-12-02 {:02}:{:02}:00,{}", minute / 60, minute % 60, minute);
    lines.extend((0..12).map(|five| stamp(five * 5)).chain((6..24).filter(|five| *five != 15).map(|five| stamp(five * 5))));
    world.write("t/machine.csv", lines.join("\n"));
    let table = "format: csv, time: { column: timestamp, zone: UTC }, cadence: 5m";
    let hours = "from: \"2013-12-02T00:00:00Z\", to: \"2013-12-02T02:00:00Z\"";
    let sum = "SELECT min(timestamp) AS ts, sum(value) AS s FROM t_repaired";
    assert_eq!(repaired(&world, table, hours, sum), (1, (0..24).map(|five| f64::from(five * 5)).sum()));

    // Klines of Binance: no header, and times that are numbers.
    let world = World::new();
    let line = |minute: i64| {
        let open = 1_704_067_200_000 + minute * 60_000;
        format!("{open},42000.5,42010.0,41990.1,42001.{minute:02},3.5,{},147000.1,99,1.5,63000.2,0", open + 59_999)
    };
    world.write("t/BTCUSDT-1m-2024-01-01.csv", (0..60).filter(|minute| *minute != 30).map(line).collect::<Vec<_>>().join("\n"));
    let table = "format: csv, time: { column: open_time, epoch: ms }, cadence: 1m, csv: { header: false, names: [open_time, open, high, low, close, volume, \
                 close_time, quote, trades, taker_base, taker_quote, ignore] }";
    let hour = "from: \"2024-01-01T00:00:00Z\", to: \"2024-01-01T01:00:00Z\"";
    let (missing, volume) = repaired(&world, table, hour, "SELECT min(open_time) AS ts, sum(volume) AS s FROM t_repaired");
    assert!(missing == 1 && close(volume, 60.0 * 3.5), "{missing} {volume}");

    // UCI's household file: `;`, a date and a time of day, `?` for nothing, `.txt`.
    let world = World::new();
    let mut lines = vec!["Date;Time;Global_active_power;Voltage".to_owned()];
    lines.extend((0..60).filter(|minute| *minute != 7).map(|minute| {
        let power = if minute == 20 { "?".to_owned() } else { format!("{}.500", minute % 5) };
        format!("28/4/2007;00:{minute:02}:00;{power};{}", if minute == 20 { "?" } else { "240.1" })
    }));
    world.write("t/household_power_consumption.txt", lines.join("\n"));
    let table = "format: csv, csv: { delimiter: \";\" }, nulls: [\"?\"], cadence: 1m, time: { columns: [Date, Time], format: \"%d/%m/%Y %H:%M:%S\", zone: \
                 Europe/Paris }";
    let hour = "from: \"2007-04-28T00:00:00+02:00\", to: \"2007-04-28T01:00:00+02:00\"";
    let power = "SELECT min(ts) AS ts, sum(\"Global_active_power\") AS s FROM t_repaired";
    let all: f64 = (0..60).filter(|minute| *minute != 20 && *minute != 7).map(|minute| f64::from(minute % 5) + 0.5).sum();
    let (missing, total) = repaired(&world, table, hour, power);
    // Minute 7 lies between 1.5 and 3.5.
    assert!(missing == 1 && close(total, all + 2.5), "{missing} {total}");

    // Yahoo's daily prices: names with spaces, `null` on a day without a price.
    let world = World::new();
    let days = ["2024-03-04", "2024-03-05", "2024-03-07", "2024-03-08"];
    let rows: Vec<String> = days.iter().zip(1..).map(|(day, price)| format!("{day},1,1,1,1,{price}.5,null")).collect();
    world.write("t/AAPL.csv", format!("Date,Open,High,Low,Close,Adj Close,Volume\n{}\n", rows.join("\n")));
    let week = "from: 2024-03-04, to: 2024-03-08";
    let table = "format: csv, nulls: [\"null\"], columns: { Volume: integer }, time: Date, cadence: 1d";
    let prices = "SELECT min(\"Date\") AS ts, sum(\"Adj Close\") AS s FROM t_repaired";
    // The day that is missing lies between 2.5 and 3.5.
    assert_eq!(repaired(&world, table, week, prices), (1, 1.5 + 2.5 + 3.0 + 3.5 + 4.5));

    // What UNLOAD of Athena writes: names without an ending but that of the compression.
    let world = World::new();
    for (file, hours) in [("20240304_065432_00012_ab1cd_0a1b2c3d.gz", 0..12), ("20240304_065432_00012_ab1cd_4e5f6a7b.gz", 12..24)] {
        let rows: String =
            hours.filter(|hour| *hour != 5).map(|hour| format!("a\u{1}2024-03-04 {hour:02}:00:00.000 UTC\u{1}{hour}\n")).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, rows.as_bytes()).unwrap();
        world.write(&format!("t/{file}"), gzip.finish().unwrap());
    }
    let table = "format: csv, csv: { delimiter: \"\\x01\", header: false, names: [k, ts, v] }, key: [k], time: ts, cadence: 1h";
    let day = "keys: [a], from: 2024-03-04, to: 2024-03-04";
    assert_eq!(repaired(&world, table, day, "SELECT min(ts) AS ts, sum(v) AS s FROM t_repaired"), (1, 276.0));
}

#[test]
fn times_that_follow_a_clock_although_they_are_read_as_utc_are_reported() {
    let world = World::new();
    let zone = repair::jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let hours = (0..366 * 24).map(|hour| repair::jiff::Timestamp::from_second(1_704_067_200 + hour * 3_600).unwrap());
    let local: Vec<i64> =
        hours.map(|at| repair::jiff::tz::TimeZone::UTC.to_timestamp(zone.to_datetime(at)).unwrap().as_millisecond()).collect();
    world.parquet("t/f.parquet", &[("ts", Arc::new(TimestampMillisecondArray::from(local)))]);
    let steps = "  look: { detect: gaps, with: { table: t, from: 2024-01-02, to: 2024-12-30 }, end: true }";
    let report = world.run("format: parquet, time: ts, cadence: 1h", steps);
    assert!(report.problems.iter().any(|problem| problem.contains("zone: Europe/Berlin")), "{:?}", report.problems);
    let report = world.run("format: parquet, time: { column: ts, zone: Europe/Berlin, repeated: file-order }, cadence: 1h", steps);
    assert!(report.missing == 0 && report.problems.is_empty(), "{:?}", report.problems);
}

/// A row that a source holds and cannot read is no row that does not exist: nothing is confirmed absent, and nothing removed.
#[test]
fn what_a_source_cannot_read_is_not_absent() {
    let day = "table: t, from: 2024-03-04, to: 2024-03-04";
    let hours = |lacking: &[usize], junk: Option<usize>, time: &str| -> String {
        let line = |hour: usize| match junk {
            Some(junk) if junk == hour && time.is_empty() => format!("2024-03-04T{hour:02}:00:00Z,junk\n"),
            Some(junk) if junk == hour => format!("{time},{hour}\n"),
            _ => format!("2024-03-04T{hour:02}:00:00Z,{hour}\n"),
        };
        format!("ts,v\n{}", (0..24).filter(|hour| !lacking.contains(hour)).map(line).collect::<String>())
    };
    let table = "format: csv, time: ts, cadence: 1h, on_bad_row: { quarantine: 20% }";
    let archive = "stocks.archive, with: { location: old, format: csv";
    let sql = "sql, with: { complete: true, query: \"SELECT ts, v FROM old WHERE ts >= :from AND ts < :to\"";
    let of = |source: &str| format!("{table} }}\n  old: {{ location: old, {table} }}\nsources:\n  s: {{ source: {source} }}");
    let steps = format!(
        "  look: {{ detect: gaps, with: {{ {day} }}, next: fill }}\n  fill: {{ repair: backfill, of: look, with: {{ source: s }}, next: check }}\n  check: {{ verify: look, end: true }}"
    );
    for source in [archive, sql] {
        for (time, absent) in [("", false), ("2024-03-04T6x", false), ("gone", true)] {
            let world = World::new();
            world.write("t/a.csv", hours(&[5, 6, 20], None, ""));
            // A row that is not there at all is absent, as far as the source vouches.
            let (lacking, junk): (&[usize], _) = if absent { (&[6], None) } else { (&[], Some(6)) };
            world.write("old/a.csv", hours(lacking, junk, time));
            let report = world.run(&of(source), &steps);
            let counts = output(&report, "check");
            let count = |name: &str| counts[name].as_u64().unwrap_or_default();
            let expected = if absent { (2, 1, 0) } else { (2, 0, 1) };
            assert_eq!((count("repaired"), count("absent"), count("missing")), expected, "{source} {time}: {report:?}");
            assert_eq!(report.outcome == Some(Outcome::Succeeded), absent, "{source} {time}");
        }
    }
    // Files that the table ignores may be files of its archive.
    let world = World::new();
    world.write("t/a.csv", hours(&[6], None, ""));
    world.write("old/a.csv", hours(&[6], None, ""));
    world.write("old/b.csv", "ts,v\n2024-03-04T06:00:00Z,6\n");
    let report = world.run(&of(archive).replacen("time: ts", "time: ts, ignore: [\"b*.csv\"]", 1), &steps);
    assert_eq!(output(&report, "check")["repaired"].as_u64(), Some(1), "{report:?}");
    // A row of the table that the source cannot read is not one that the source has deleted.
    let steps = format!(
        "  look: {{ detect: differs, with: {{ {day}, source: s, deleted: {{ at_most: 50% }} }}, next: fill }}\n  fill: {{ repair: backfill, of: look, with: {{ source: s }}, next: check \
         }}\n  check: {{ verify: look, end: true }}"
    );
    for (junk, removed) in [(Some(6), 0), (None, 1)] {
        let world = World::new();
        world.write("t/a.csv", hours(&[], None, ""));
        world.write("old/a.csv", hours(if junk.is_some() { &[] } else { &[6] }, junk, ""));
        let report = world.run(&of(archive), &steps);
        assert_eq!(output(&report, "look")["defective"].as_u64().unwrap_or_default(), removed, "{report:?}");
    }
}

/// A row that a source holds in the folder of another day, too far away to be used, is no row that does not exist.
#[test]
fn what_lies_in_the_folder_of_another_day_is_not_absent() {
    let day = "table: t, from: 2024-03-04, to: 2024-03-04";
    let hours = |days: std::ops::Range<u32>, lacking: &[u32]| -> String {
        let all = days.flat_map(|day| (0..24).map(move |hour| (day, hour))).filter(|(day, hour)| *day != 4 || !lacking.contains(hour));
        format!("ts,v\n{}", all.map(|(day, hour)| format!("2024-03-{day:02}T{hour:02}:00:00Z,{hour}\n")).collect::<String>())
    };
    let table = "format: csv, time: ts, cadence: 1h";
    let by_day = "partition_by: [{ date: day }]";
    let archive = format!("stocks.archive, with: {{ location: old, format: csv, {by_day} }}");
    let sql = "sql, with: { complete: true, query: \"SELECT ts, v FROM old WHERE ts >= :from AND ts < :to\" }";
    let steps = format!(
        "  look: {{ detect: gaps, with: {{ {day} }}, next: fill }}\n  fill: {{ repair: backfill, of: look, with: {{ source: s }}, next: check }}\n  check: {{ verify: look, end: true }}"
    );
    for source in [archive.as_str(), sql] {
        // The row is in the folder of its day, in that of the day after, in one of a week later, or nowhere.
        for (folder, expected) in [(Some(4), (2, 0, 0)), (Some(5), (2, 0, 0)), (Some(11), (1, 0, 1)), (None, (1, 1, 0))] {
            let world = World::new();
            world.write("t/a.csv", hours(4..5, &[5, 6]));
            for day in 3..12 {
                world.write(&format!("old/date=2024-03-{day:02}/a.csv"), hours(day..day + 1, &[6]));
            }
            if let Some(folder) = folder {
                world.write(&format!("old/date=2024-03-{folder:02}/b.csv"), "ts,v\n2024-03-04T06:00:00Z,6\n");
            }
            let report = world
                .run(&format!("{table} }}\n  old: {{ location: old, {table}, {by_day} }}\nsources:\n  s: {{ source: {source}"), &steps);
            let counts = output(&report, "check");
            let count = |name: &str| counts[name].as_u64().unwrap_or_default();
            assert_eq!((count("repaired"), count("absent"), count("missing")), expected, "{source} {folder:?}: {report:?}");
            // The run says why the slot is not known to be absent.
            let said = |problem: &String| {
                problem.contains("too far from the folder") && problem.contains("date=2024-03-11") && problem.contains("absent")
            };
            assert_eq!(report.problems.iter().any(said), folder == Some(11), "{source} {folder:?}: {:?}", report.problems);
            assert_eq!(report.outcome == Some(Outcome::Succeeded), folder != Some(11), "{source} {folder:?}");
        }
    }
}

/// A row in the folder of another day leaves open what it could be: its key at its time, and whatever its folder is about. Of all else, an archive says as
/// well as ever that it is absent.
#[test]
fn one_row_in_the_folder_of_another_day_does_not_keep_all_absences_from_being_known() {
    let lacking = [(4, 6), (6, 6), (11, 6), (6, 9)];
    let rows = |key: &str, days: std::ops::Range<u32>, lacking: &[(u32, u32)]| -> String {
        let all = days.flat_map(|day| (0..24).map(move |hour| (day, hour))).filter(|slot| !lacking.contains(slot));
        all.map(|(day, hour)| format!("{key},2024-03-{day:02}T{hour:02}:00:00Z,{hour}\n")).collect()
    };
    let world = World::new();
    world.write("t/a.csv", format!("k,ts,v\n{}{}", rows("a", 3..12, &lacking), rows("b", 3..12, &lacking)));
    for day in 3..12 {
        let of_day = |key| rows(key, day..day + 1, &lacking[..3]);
        world.write(&format!("old/date=2024-03-{day:02}/a.csv"), format!("k,ts,v\n{}{}", of_day("a"), of_day("b")));
    }
    world.write("old/date=2024-03-11/b.csv", "k,ts,v\na,2024-03-04T06:00:00Z,6\n");
    let table = "format: csv, key: [k], time: ts, cadence: 1h";
    let steps = "  look: { detect: gaps, with: { table: t, keys: [a, b], from: 2024-03-03, to: 2024-03-11 }, next: fill }\n  fill: { repair: backfill, of: look, with: { source: s }, next: \
                 check }\n  check: { verify: look, end: true }";
    let archive = "stocks.archive, with: { location: old, format: csv, partition_by: [{ date: day }] }";
    let report = world.run(&format!("{table} }}\nsources:\n  s: {{ source: {archive}"), steps);
    let counts = output(&report, "check");
    let count = |name: &str| counts[name].as_u64().unwrap_or_default();
    // Repaired is the slot of both that the archive has. Absent are those of the 6th, and that of `b` on the 4th.
    assert_eq!((count("repaired"), count("absent"), count("missing")), (2, 3, 3), "{report:?}");
    assert!(report.problems.iter().any(|problem| problem.contains("at their times or in those of their folders")), "{:?}", report.problems);
}

/// Rows that cannot be read are reported by every step whose query does not see them, and beside the rows of a query and an export.
#[test]
fn queries_say_which_rows_they_do_not_see() {
    let world = World::new();
    world.write("t/a.csv", "ts,v\n2024-03-04T00:00:00Z,1\n2024-03-04T02:00:00Z,3\n");
    world.write("u/a.csv", "ts,v\n2024-03-04T00:00:00Z,1\nnever,2\n2024-03-04T01:00:00Z,2\nnever,3\n");
    let table =
        "format: csv, time: ts, cadence: 1h }\n  u: { location: u, format: csv, time: ts, cadence: 1h, on_bad_row: { quarantine: 60% }";
    let said = "2 rows of table `u`, which the query reads, cannot be read and were left out, such as ";
    let look = "  look: { detect: gaps, with: { table: t, from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T03:00:00Z\" }, next: fill }\n";
    for (step, steps) in [
        ("ask", "  ask: { task: sql, with: { query: \"SELECT count(*) AS n FROM u\" }, end: true }".to_owned()),
        ("sum", "  sum: { aggregate: sql, with: { into: sums, query: \"SELECT min(ts) AS ts, sum(v) AS s FROM u\" }, end: true }".to_owned()),
        (
            "each",
            "  each: { map: { over: { rows: \"SELECT v FROM u\" } }, start: one, steps: { one: { task: sql, with: { query: \"SELECT 1 AS one\" }, end: true } }, end: true }".to_owned(),
        ),
        (
            "fill",
            format!("{look}  fill: {{ repair: sql, of: look, with: {{ query: \"SELECT ts, v FROM u_repaired JOIN $missing USING (ts)\" }}, end: true }}"),
        ),
    ] {
        let report = world.run(table, &steps);
        assert_eq!(report.outcome, Some(Outcome::SucceededWithExceptions), "{step}: {report:?}");
        let of_step: Vec<&String> = report.problems.iter().filter(|problem| problem.starts_with(&format!("{step}: {said}"))).collect();
        assert!(of_step.len() == 1 && of_step[0].contains("a.csv, line 3"), "{step}: {:?}", report.problems);
        assert!(report.reason.as_ref().is_some_and(|reason| reason.contains(said)), "{step}: {:?}", report.reason);
    }
    let repair = world.workflow(table, "  ask: { task: sql, with: { query: \"SELECT 1 AS one\" }, end: true }");
    repair::block_on(async {
        let rows = repair.query("SELECT * FROM u").first(10).await.unwrap();
        assert!(rows.rows.len() == 2 && rows.unread.len() == 1 && rows.unread[0].starts_with(said), "{rows:?}");
        assert_eq!(repair.query("SELECT * FROM t").first(10).await.unwrap().unread, [""; 0]);
    });
}

/// What only Arrow says of a file's types is not passed on: dates in milliseconds are times for other programs, too, and dictionaries are their values.
#[test]
fn dates_in_milliseconds_are_times_for_everybody() {
    let world = World::new();
    let dates = || Arc::new(Date64Array::from_iter_values([0, 1, 3, 4].map(|day| (19_786 + day) * 86_400_000))) as ArrayRef;
    let units: DictionaryArray<Int32Type> = ["kW"; 4].into_iter().collect();
    let (values, units) = (Arc::new(Float64Array::from(vec![1.0, 2.0, 4.0, 5.0])) as ArrayRef, Arc::new(units) as ArrayRef);
    world.parquet("t/f.parquet", &[("k", texts(&["a"; 4])), ("ts", dates()), ("due", dates()), ("unit", units), ("v", values)]);
    let steps = "  look: { detect: gaps, with: { table: t, keys: [a], from: 2024-03-04, to: 2024-03-08 }, next: fill }\n  fill: { repair: interpolate, of: look, next: sum }\n  sum: { \
                 aggregate: sql, with: { into: sums, query: \"SELECT k, min(ts) AS ts, max(due) AS due, arrow_cast(max(due), 'Date64') AS again, max(unit) AS unit, sum(v) AS v FROM \
                 t_repaired GROUP BY k\" }, end: true }";
    let table = "format: parquet, key: [k], time: ts, cadence: 1d";
    let report = world.run(table, steps);
    assert_eq!((output(&report, "look")["missing"].as_u64(), report.missing), (Some(1), 0), "{report:?}");
    let repair = world.workflow(table, steps);
    for (of, columns) in [("t", &["due"][..]), ("sums", &["due", "again"])] {
        let path = world.0.path().join(format!("{of}.parquet"));
        let exported = repair::block_on(async { repair.export(of, Format::Parquet, Destination::file(&path)).await }).unwrap();
        assert_eq!(exported.rows, if of == "t" { 5 } else { 1 });
        let file = std::fs::File::open(&path).unwrap();
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let there = ArrowReaderMetadata::load(&file, options).unwrap();
        for column in columns {
            let kind = there.schema().field_with_name(column).unwrap().data_type();
            assert_eq!(*kind, DataType::Timestamp(TimeUnit::Millisecond, None), "{column} of {of}");
        }
    }
    let path = world.0.path().join("answer.parquet");
    let query = "SELECT arrow_cast(max(due), 'Date64') AS due FROM t";
    repair::block_on(async { repair.query(query).write(Format::Parquet, Destination::file(&path)).await }).unwrap();
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let there = ArrowReaderMetadata::load(&std::fs::File::open(&path).unwrap(), options).unwrap();
    assert_eq!(*there.schema().field(0).data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
}

fn answer(repair: &repair::Repair, sql: &str) -> Vec<String> {
    let rows = repair::block_on(async { repair.query(sql).first(100).await }).unwrap_or_else(|error| panic!("{}", error.full()));
    let shown = |row: &Vec<Option<String>>| row.iter().map(|cell| cell.as_deref().unwrap_or("-")).collect::<Vec<_>>().join("|");
    rows.rows.iter().map(shown).collect()
}

/// Records and lists whose fields differ between files have the fields of all.
#[test]
fn records_that_differ_between_files_are_put_together() {
    let world = World::new();
    world.write(
        "t/a.jsonl",
        "{\"k\":\"A\",\"ts\":\"2024-03-04T00:00:00Z\",\"v\":1,\"meta\":{\"unit\":\"kW\",\"site\":{\"id\":1}},\"all\":[{\"a\":1}]}\n",
    );
    world.write(
        "t/b.jsonl",
        "{\"k\":\"A\",\"ts\":\"2024-03-04T01:00:00Z\",\"v\":2,\"meta\":{\"site\":{\"id\":2.5,\"name\":\"n\"},\"tags\":[\"x\"]},\"all\":[{\"b\":\"y\"}]}\n",
    );
    let table = "format: jsonl, key: [k], time: ts, cadence: 1h";
    let steps =
        "  look: { detect: gaps, with: { table: t, keys: [A], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T02:00:00Z\" }, end: true }";
    let report = world.run(table, steps);
    assert_eq!((report.outcome, report.problems.as_slice()), (Some(Outcome::Succeeded), &[][..]));
    let repair = world.workflow(table, steps);
    let rows = answer(
        &repair,
        "SELECT meta['unit'] AS u, meta['site']['id'] AS i, meta['site']['name'] AS n, meta['tags'][1] AS t, \"all\"[1]['a'] AS a, \"all\"[1]['b'] AS b FROM t ORDER BY ts",
    );
    assert_eq!(rows, ["kW|1.0|-|-|1|-", "-|2.5|n|x|-|y"]);
}

/// A field that `path` makes a column is not in its record as well, where it would be as it was before a repair.
#[test]
fn a_record_shows_nothing_that_a_repair_has_changed() {
    let world = World::new();
    let row = |hour: u32, close: &str| {
        format!(
            "{{\"k\":\"A\",\"ts\":\"2024-03-04T{hour:02}:00:00Z\",\"quote\":{{\"close\":{close},\"volume\":{hour}}},\"last\":{close}}}\n"
        )
    };
    world.write("t/a.jsonl", [row(0, "1.5"), row(1, "900.0"), row(2, "2.5")].concat());
    let table = "format: jsonl, key: [k], time: ts, cadence: 1h, columns: { close: { path: quote.close }, price: { path: last } }";
    let steps = "  look: { detect: invalid, with: { table: t, keys: [A], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T03:00:00Z\", rules: [{ column: close, max: 100 }, { column: price, \
                 max: 100 }] }, next: fix }\n  fix: { repair: interpolate, of: look, end: true }";
    let report = world.run(table, steps);
    assert_eq!(report.outcome, Some(Outcome::Succeeded), "{report:?}");
    let repair = world.workflow(table, steps);
    let shown = answer(&repair, "SELECT * FROM t_repaired ORDER BY ts");
    assert!(shown.len() == 3 && !shown.iter().any(|row| row.contains("900")), "{shown:?}");
    assert_eq!(
        answer(&repair, "SELECT close, price, quote['volume'] AS volume FROM t_repaired ORDER BY ts"),
        ["1.5|1.5|0", "2.0|2.0|1", "2.5|2.5|2"]
    );
    for gone in ["SELECT quote['close'] FROM t_repaired", "SELECT last FROM t_repaired"] {
        assert!(repair::block_on(async { repair.query(gone).first(1).await }).is_err(), "{gone}");
    }
}

/// Lists and records are kept in a filled row where the rows on both sides have the same.
#[test]
fn lists_and_records_are_carried_into_filled_rows() {
    for (strategy, last) in [("interpolate", "-|-"), ("carry-forward", "[x, y]|{a: 1}")] {
        let world = World::new();
        let row = |hour: u32, tags: &str| {
            format!(
                "{{\"k\":\"A\",\"ts\":\"2024-03-04T{hour:02}:00:00Z\",\"v\":{hour},\"tags\":{tags},\"meta\":{{\"a\":{}}}}}\n",
                1 + hour / 4
            )
        };
        world.write("t/a.jsonl", [row(0, "[\"x\",\"y\"]"), row(2, "[\"x\",\"y\"]"), row(4, "[\"x\"]")].concat());
        let table = "format: jsonl, key: [k], time: ts, cadence: 1h";
        let steps = format!(
            "  look: {{ detect: gaps, with: {{ table: t, keys: [A], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T05:00:00Z\" }}, next: fill }}\n  fill: {{ repair: {strategy}, of: look, \
             next: check }}\n  check: {{ verify: look, end: true }}"
        );
        let report = world.run(table, &steps);
        assert_eq!(report.missing, 0, "{report:?}");
        let filled = answer(&world.workflow(table, &steps), "SELECT tags, meta FROM t_repaired WHERE repaired_by IS NOT NULL ORDER BY ts");
        assert_eq!(filled, ["[x, y]|{a: 1}", last], "{strategy}");
    }
}

/// An archive is read as its files are written, not as those of the repaired table, or as a table of the workflow says.
#[test]
fn an_archive_is_written_in_its_own_way() {
    let steps = "  look: { detect: gaps, with: { table: t, from: 2024-03-04, to: 2024-03-04 }, next: fill }\n  fill: { repair: backfill, of: look, with: { source: s }, next: check }\n  \
                 check: { verify: look, end: true }";
    let look = "  look: { detect: gaps, with: { table: t, from: 2024-03-04, to: 2024-03-04 }, end: true }";
    let rows = |lacking: &[u32], row: &dyn Fn(u32) -> String| (0..24).filter(|hour| !lacking.contains(hour)).map(row).collect::<String>();
    let own = |hour: u32| format!("04.03.2024 {hour:02}:00;{hour},5\n");
    let iso = |hour: u32| format!("2024-03-04T{hour:02}:00:00Z;{hour},5\n");
    let other = |hour: u32| format!("{},{hour}.5\n", 1_709_510_400 + i64::from(hour) * 3_600);
    let table =
        "format: csv, csv: { delimiter: \";\", decimal: \",\" }, time: { column: ts, format: \"%d.%m.%Y %H:%M\", zone: UTC }, cadence: 1h";
    let folder = "stocks.archive, with: { location: old, format: csv";
    let of_table = "stocks.archive, with: { table: old";
    let declared = " }\n  old: { location: old, format: csv, time: { column: at, epoch: s, name: ts }, cadence: 1h";
    for (source, more, text) in [
        (folder, "", format!("ts;v\n{}", rows(&[6], &own))),
        (folder, "", format!("ts;v\n{}", rows(&[6], &iso))),
        (of_table, declared, format!("at,v\n{}", rows(&[6], &other))),
    ] {
        let world = World::new();
        world.write("t/a.csv", format!("ts;v\n{}", rows(&[5, 6], &own)));
        world.write("old/a.csv", text.clone());
        let report = world.run(&format!("{table}{more} }}\nsources:\n  s: {{ source: {source} }}"), steps);
        let counts = output(&report, "check");
        let count = |name: &str| counts[name].as_u64().unwrap_or_default();
        assert_eq!((count("repaired"), count("absent"), count("missing")), (1, 1, 0), "{text}: {report:?}");
        assert_eq!(answer(&world.workflow(table, look), "SELECT v FROM t_repaired WHERE repaired_by IS NOT NULL"), ["5.5"], "{text}");
    }
    // What fits in neither way is refused by what the table says.
    let world = World::new();
    world.write("t/a.csv", format!("ts;v\n{}", rows(&[5], &own)));
    world.write("old/a.csv", "ts;v\nyesterday;1\n");
    let report = world.run(&format!("{table} }}\nsources:\n  s: {{ source: {folder} }}"), steps);
    let said = format!("{:?} {:?}", report.reason, report.problems);
    assert!(report.missing == 1 && said.contains("a.csv") && said.contains("%d.%m.%Y"), "{said}");
}

/// In a table whose times mark the ends of slots, the border of two slots means that whose row has this time, and the other is named.
#[test]
fn why_says_which_slot_it_shows_where_times_mark_ends() {
    let world = World::new();
    let row = |hour: u32| format!("A,2024-03-04T{hour:02}:00:00Z,{hour}\n");
    world.write("t/a.csv", format!("k,ts,v\n{}{}{}", row(1), row(2), row(4)));
    let table = "format: csv, key: [k], time: ts, time_marks: end, cadence: 1h";
    let steps =
        "  look: { detect: gaps, with: { table: t, keys: [A], from: \"2024-03-04T00:00:00Z\", to: \"2024-03-04T04:00:00Z\" }, end: true }";
    let report = world.run(table, steps);
    assert_eq!(report.missing, 1, "{report:?}");
    let repair = world.workflow(table, steps);
    let why = |at: &str| repair::block_on(async { repair.why("t", at.parse().unwrap()).key("A").await }).unwrap();
    let stands = |at: &str| {
        let story = why(at);
        let standing = |standing| serde_json::to_value(standing).unwrap().as_str().unwrap().to_owned();
        let other = story.other.map(|other| (other.slot.from().to_string(), standing(other.standing), other.at.to_string()));
        (story.slot.from().to_string(), standing(story.standing), story.time.map(|time| time.to_string()), other)
    };
    let (two, three) = ("2024-03-04T02:00:00Z".to_owned(), "2024-03-04T03:00:00Z".to_owned());
    let within = (two.clone(), "missing".to_owned(), Some(three.clone()), None);
    assert_eq!(stands("2024-03-04T02:30:00Z"), within);
    // The row of 02:00 is that of the hour before; the gap that begins then is the other slot.
    let other = (two.clone(), "missing".to_owned(), "2024-03-04T02:30:00Z".to_owned());
    assert_eq!(stands("2024-03-04T02:00:00Z"), ("2024-03-04T01:00:00Z".to_owned(), "raw".to_owned(), Some(two), Some(other)));
    let (slot, standing, _, other) = stands("2024-03-04T03:00:00Z");
    assert_eq!((slot.as_str(), standing.as_str(), other.map(|other| other.1)), ("2024-03-04T02:00:00Z", "missing", Some("raw".to_owned())));
    // What people have decided is about this slot, not the one before.
    repair::block_on(async {
        repair
            .set_aside("t", repair::provenance::Verdict::GivenUp, "2024-03-04T03:00:00Z", "nobody has it")
            .key("A")
            .from("2024-03-04T02:00:00Z")
            .await
    })
    .unwrap();
    assert_eq!(["2024-03-04T01:30:00Z", "2024-03-04T02:30:00Z", "2024-03-04T03:30:00Z"].map(|at| why(at).decisions.len()), [0, 1, 0]);
}
