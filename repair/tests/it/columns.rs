//! Whole workflows over columns as they are found: of several types, of narrow floats, in capital letters.
#![cfg(feature = "sql")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test that fails, panics"
)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, NullArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use repair::core::lake::ReadLake;
use repair::core::model::Table;
use repair::{Repair, RunReport};
use repair_local::LocalLake;

/// A folder with a workflow and its lake.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Writes hours of the key `x` from a day on: a column of floats, and another if there is one.
    fn write(&self, file: &str, day: &str, hours: &[i64], columns: &[(&str, ArrayRef)]) {
        let start = format!("{day}T00:00:00Z").parse::<repair::jiff::Timestamp>().unwrap().as_second();
        let seconds: ArrayRef = Arc::new(Int64Array::from_iter_values(hours.iter().map(|hour| start + hour * 3_600)));
        let times = cast(&cast(&seconds, &time(TimeUnit::Second, None)).unwrap(), &time(TimeUnit::Microsecond, None)).unwrap();
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["x"; hours.len()]));
        let batch = RecordBatch::try_from_iter([("b", keys), ("ts", times)].into_iter().chain(columns.iter().cloned())).unwrap();
        let file = std::fs::File::create(self.path(&format!("lake/t/{file}"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    async fn run(&self, workflow: &str) -> Result<RunReport, repair::Error> {
        std::fs::write(self.path("workflow.yaml"), workflow).unwrap();
        Repair::open(self.path("workflow.yaml")).lake(self.path("lake")).connect().await?.run().await
    }

    /// The rows of a query over a table that a workflow wrote, as texts.
    async fn rows(&self, table: &str, time: &str, sql: &str) -> Vec<String> {
        let lake = LocalLake::open(self.path("lake")).unwrap().with_query_engine(std::sync::Arc::new(repair::sql::DataFusion));
        let batches: Vec<RecordBatch> =
            lake.query(&repair_core::lake::Query::new(&[Table::implicit(table, time)], sql)).await.unwrap().try_collect().await.unwrap();
        let text = |batch: &RecordBatch, row: usize| {
            let values: Vec<String> = batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect();
            values.join("|")
        };
        batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| text(batch, row)).collect::<Vec<_>>()).collect()
    }
}

fn time(unit: TimeUnit, zone: Option<&str>) -> DataType {
    DataType::Timestamp(unit, zone.map(Into::into))
}

/// The output of a step, of which one number is wanted.
fn output(report: &RunReport, step: &str, what: &str) -> u64 {
    let step = report.steps.iter().find(|found| found.name == step).unwrap_or_else(|| panic!("no step {step}: {report:?}"));
    step.output[what].as_u64().unwrap_or_else(|| panic!("no {what} in {}", step.output))
}

const GAPS: &str = "\
workflow: drift
kind: state-machine
tables:
  t: { location: t, format: parquet, key: [b], time: ts, cadence: 1h }
start: look
steps:
  look: { detect: gaps, with: { table: t, keys: [x], from: 2024-03-04, to: 2024-03-05 }, next: fill }
  fill: { repair: interpolate, of: look, with: { max_gap: 2h }, next: check }
  check: { verify: look, next: sum }
  sum:
    aggregate: sql
    of: look
    with:
      into: sums
      query: SELECT b, date_trunc('day', ts) AS day, count(v) AS n, sum(v) AS s FROM t_repaired GROUP BY 1, 2 ORDER BY 2
    end: true
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_in_a_column_that_nobody_uses_stops_no_step() {
    let hours: Vec<i64> = (0..24).filter(|hour| *hour != 5).collect();
    let whole: ArrayRef = Arc::new(Int64Array::from_iter_values(hours.iter().copied()));
    let values = cast(&whole, &DataType::Float64).unwrap();
    for (one, other, is_left_out) in [
        (DataType::Decimal128(10, 2), DataType::Decimal128(12, 4), false),
        (DataType::Decimal128(8, 0), DataType::Decimal128(10, 2), false),
        (DataType::Decimal128(38, 0), DataType::Decimal128(10, 2), false),
        (DataType::UInt64, DataType::Int8, false),
        (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Int64)), DataType::Int16, false),
        (time(TimeUnit::Microsecond, Some("UTC")), time(TimeUnit::Microsecond, None), true),
        (DataType::Int64, DataType::Utf8, true),
    ] {
        let world = World::new();
        for (day, kind) in [("2024-03-04", &one), ("2024-03-05", &other)] {
            world.write(&format!("{day}.parquet"), day, &hours, &[("v", values.clone()), ("other", cast(&whole, kind).unwrap())]);
        }
        let report = world.run(GAPS).await.unwrap();
        assert_eq!((output(&report, "look", "missing"), report.missing), (2, 0), "{one} and {other}");
        let sums = world.rows("sums", "day", "SELECT n, s FROM sums ORDER BY day").await;
        assert_eq!(sums, ["24|276.0", "24|276.0"], "{one} and {other}");

        // Nobody is left to believe that the column was seen.
        let noticed = report
            .problems
            .iter()
            .any(|problem| problem.starts_with("look: column `other` is ") && problem.contains("left out of table `t`"));
        assert_eq!(noticed, is_left_out, "{:?}", report.problems);
        let lake = Repair::open(world.path("workflow.yaml")).lake(world.path("lake")).connect().await.unwrap();
        let to = repair::reading::Destination::replacing(world.path("out.csv"));
        let exported = lake.export("t", repair::core::model::Format::Csv, to).await.unwrap();
        let header = std::fs::read_to_string(world.path("out.csv")).unwrap().lines().next().unwrap().to_owned();
        assert_eq!((exported.left_out.len(), header.contains("other")), if is_left_out { (1, false) } else { (0, true) }, "{header}");

        // Only who names the column is refused, and reads why.
        let named = world.run(&GAPS.replace("max_gap: 2h", "columns: [other]")).await;
        if is_left_out {
            let said = named.map_or_else(|error| error.full(), |report| report.reason.unwrap_or_default());
            let parts = [one.to_string(), other.to_string(), "2024-03-05.parquet".to_owned(), "column `other`".to_owned()];
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        } else {
            assert_eq!(named.unwrap().missing, 0);
        }
    }
}

fn invalid(rules: &str) -> String {
    format!(
        "\
workflow: rules
kind: state-machine
tables:
  t: {{ location: t, format: parquet, key: [b], time: ts, cadence: 1h }}
start: look
steps:
  look: {{ detect: invalid, with: {{ table: t, keys: [x], from: 2024-03-04, to: 2024-03-04, rules: [{{ {rules} }}] }}, next: fill }}
  fill: {{ repair: interpolate, of: look, next: check }}
  check: {{ verify: look, next: sum }}
  sum:
    aggregate: sql
    of: look
    with: {{ into: sums, query: \"SELECT b, min(ts) AS ts, min(v) AS least, avg(v) AS mean, count(*) AS n FROM t_repaired GROUP BY 1\" }}
    end: true
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_of_a_column_of_narrow_floats_is_found_and_repaired() {
    let hours: Vec<i64> = (0..24).collect();
    let value = |hour: i64| if [7, 8, 15].contains(&hour) { -28_316.818_f32 } else { hour as f32 * 1.25 - 3.0 };
    let values: ArrayRef = Arc::new(Float32Array::from_iter_values(hours.iter().map(|hour| value(*hour))));
    for rules in
        ["column: v, not: [-28316.818359375]", "column: V, not: [-28316.818359]", "column: v, not: [-28316.818]", "column: v, min: -1000"]
    {
        let world = World::new();
        world.write("a.parquet", "2024-03-04", &hours, &[("v", values.clone())]);
        let report = world.run(&invalid(rules)).await.unwrap();
        assert_eq!((output(&report, "look", "defective"), report.missing), (3, 0), "{rules}");
        assert_eq!(world.rows("sums", "ts", "SELECT least, mean, n FROM sums").await, ["-3.0|11.375|24"], "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_means_the_value_that_the_column_holds() {
    let hours: Vec<i64> = (0..24).collect();
    for (rules, usual, odd) in [
        ("column: v, min: 0.7", 0.7, 0.6),
        ("column: v, max: 0.1", 0.1, 0.2),
        ("holds: v >= 0.7", 0.7, 0.6),
        ("column: v, not: [0.1, 0.2]", 0.3, 0.1),
    ] {
        let world = World::new();
        let value = |hour: &i64| if [3, 9].contains(hour) { odd } else { usual };
        world.write("a.parquet", "2024-03-04", &hours, &[("v", Arc::new(Float32Array::from_iter_values(hours.iter().map(value))))]);
        let report = world.run(&invalid(rules)).await.unwrap();
        assert_eq!((output(&report, "look", "defective"), report.missing), (2, 0), "{rules}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_capital_letters_need_no_quotes() {
    let world = World::new();
    let lost = [10, 11, 100];
    let rows = (1..=288).filter(|slot| !lost.contains(slot)).map(|slot| {
        let (hour, minute) = (slot * 5 / 60, slot * 5 % 60);
        let day = if hour == 24 { "2024-03-05T00" } else { &format!("2024-03-04T{hour:02}") };
        format!("NSW1,{day}:{minute:02}:00+10:00,{}\n", 1_000 + slot)
    });
    let text = format!("REGIONID,SETTLEMENTDATE,TOTALDEMAND\n{}", rows.collect::<String>());
    std::fs::write(world.path("lake/dispatch/d.csv"), text).unwrap();
    for (query, into) in [
        (
            r#"SELECT "REGIONID", date_trunc('hour', "SETTLEMENTDATE" - INTERVAL '1 second') AS hour, count(*) AS n, avg("TOTALDEMAND") AS mw"#,
            "quoted",
        ),
        (
            "SELECT REGIONID, date_trunc('hour', SETTLEMENTDATE - INTERVAL '1 second') AS hour, count(*) AS n, avg(TOTALDEMAND) AS mw",
            "plain",
        ),
        (
            "SELECT regionid, date_trunc('hour', settlementdate - INTERVAL '1 second') AS hour, count(*) AS n, avg(totaldemand) AS mw",
            "lower",
        ),
    ] {
        let workflow = format!(
            "\
workflow: aemo
kind: state-machine
tables:
  t: {{ location: dispatch, format: csv, key: [REGIONID], time: SETTLEMENTDATE, time_marks: end, cadence: 5m }}
start: look
steps:
  look: {{ detect: gaps, with: {{ table: t, keys: [NSW1], from: '2024-03-04T00:00:00+10:00', to: '2024-03-05T00:00:00+10:00' }}, next: fill }}
  fill: {{ repair: interpolate, of: look, with: {{ max_gap: 15m, columns: [TotalDemand] }}, next: check }}
  check: {{ verify: look, next: sum }}
  sum:
    aggregate: sql
    of: look
    with:
      into: {into}
      query: |
        {query}
        FROM t_repaired GROUP BY 1, 2 ORDER BY 2
    end: true
"
        );
        let report = world.run(&workflow).await.unwrap();
        assert_eq!(report.missing, 0, "{into}");
        let sql = format!("SELECT count(*), sum(n), min(mw), max(mw) FROM {into}");
        assert_eq!(world.rows(into, "hour", &sql).await, ["24|288|1006.5|1282.5"], "{into}");
        let names = world.rows(into, "hour", &format!(r#"SELECT "REGIONID" FROM {into} LIMIT 1"#)).await;
        assert_eq!(names, ["NSW1"], "the result has the table's own name");
    }
}

/// A column whose name is in capital letters in one of two files is one column, of which no half is left unseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_in_another_case_in_another_file_is_refused_where_it_is_named() {
    let hours: Vec<i64> = (0..24).filter(|hour| *hour != 5).collect();
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(hours.iter().map(|hour| hour - 3)));
    let world = World::new();
    let written = |names: [&str; 2]| {
        for (day, name) in ["2024-03-04", "2024-03-05"].into_iter().zip(names) {
            world.write(&format!("{day}.parquet"), day, &hours, &[(name, values.clone())]);
        }
    };
    let rule = invalid("column: v, min: 0").replace("to: 2024-03-04", "to: 2024-03-05");
    written(["v", "V"]);
    let said = world.run(&rule).await.map_or_else(|error| error.full(), |report| report.reason.unwrap_or_default());
    let parts = ["column `v` of ", "2024-03-04.parquet is written `V` in ", "2024-03-05.parquet", "write its name in one way in all files"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    // In one way, all of it is judged, in whichever case the rule names it.
    for names in [["v", "v"], ["V", "V"]] {
        written(names);
        assert_eq!(output(&world.run(&rule).await.unwrap(), "look", "defective"), 6, "{names:?}");
    }
}

/// A column without a value in all files has every type, so a query that computes with it gets null, as it would from any other null.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_without_a_value_is_null_of_any_type_in_sql() {
    for format in ["csv", "jsonl", "parquet"] {
        let world = World::new();
        let hours: Vec<i64> = (0..24).filter(|hour| *hour != 5).collect();
        match format {
            "parquet" => {
                let values: ArrayRef = Arc::new(Int64Array::from_iter_values(hours.iter().copied()));
                let nothing: ArrayRef = Arc::new(NullArray::new(hours.len()));
                world.write("a.parquet", "2024-03-04", &hours, &[("v", values), ("fee", nothing)]);
            }
            "csv" => {
                let rows: String = hours.iter().map(|hour| format!("x,2024-03-04T{hour:02}:00:00Z,{hour},\n")).collect();
                std::fs::write(world.path("lake/t/a.csv"), format!("b,ts,v,fee\n{rows}")).unwrap();
            }
            _ => {
                let row = |hour: &i64| format!("{{\"b\":\"x\",\"ts\":\"2024-03-04T{hour:02}:00:00Z\",\"v\":{hour},\"fee\":null}}\n");
                std::fs::write(world.path("lake/t/a.jsonl"), hours.iter().map(row).collect::<String>()).unwrap();
            }
        }
        let workflow = GAPS
            .replace("format: parquet", &format!("format: {format}"))
            .replace("count(v) AS n, sum(v) AS s", "count(fee) AS n, sum(v + coalesce(fee, 0)) AS s, sum(fee) AS f")
            .replace(
                "end: true",
                "next: ask\n  ask: { task: sql, with: { query: \"SELECT sum(fee) AS f, max(v + fee) AS s, count(*) AS n FROM t_repaired WHERE fee IS NULL\" }, next: odd }\n  \
                 odd: { detect: sql, with: { table: t, keys: [x], from: 2024-03-04, to: 2024-03-04, query: \"SELECT b, ts FROM t WHERE fee > 5\" }, end: true }",
            )
            .replace("to: 2024-03-05", "to: 2024-03-04");
        let report = world.run(&workflow).await.unwrap_or_else(|error| panic!("{format}: {}", error.full()));
        assert_eq!(report.error, None, "{format}: {:?}", report.reason);
        assert_eq!((output(&report, "look", "missing"), output(&report, "odd", "defective")), (1, 0), "{format}");
        let first = &report.steps.iter().find(|step| step.name == "ask").unwrap().output["first"];
        assert_eq!(
            (&first["f"], &first["s"], &first["n"]),
            (&serde_json::Value::Null, &serde_json::Value::Null, &24.into()),
            "{format}: {first}"
        );
        assert_eq!(world.rows("sums", "day", "SELECT n, s + 0.0 FROM sums").await, ["0|276.0"], "{format}");

        let repair = Repair::open(world.path("workflow.yaml")).lake(world.path("lake")).connect().await.unwrap();
        for (sql, expected) in [
            ("SELECT sum(fee), avg(fee), max(fee), min(fee) FROM t", "- - - -"),
            ("SELECT max(v * fee), max(round(fee, 2)), max(abs(fee)) FROM t", "- - -"),
            ("SELECT count(*) FROM t WHERE fee > v OR fee IN (1, 2) OR fee BETWEEN 1 AND 2", "0"),
            ("SELECT max(coalesce(fee, 7) + 1), max(CASE WHEN fee > 3 THEN fee ELSE v END) FROM t", "8 23"),
            ("SELECT max(upper(fee)), max(fee || 'x'), count(*) FROM t WHERE fee LIKE 'a%' OR fee IS NULL", "- - 23"),
            ("SELECT count(*) FROM t WHERE NOT coalesce(fee, false)", "23"),
            ("SELECT count(*) FROM t x JOIN t y ON x.fee = y.v", "0"),
            ("SELECT max(s) FROM (SELECT fee AS s FROM t UNION ALL SELECT v FROM t) u", "23"),
            ("SELECT max(date_trunc('day', fee)) FROM t", "-"),
            ("SELECT FEE FROM T ORDER BY TS LIMIT 1", "-"),
        ] {
            let rows = repair.query(sql).first(100).await.unwrap_or_else(|error| panic!("{format}: {sql}: {}", error.full())).rows;
            let text: Vec<String> = rows[0].iter().map(|cell| cell.clone().unwrap_or_else(|| "-".to_owned())).collect();
            assert_eq!((rows.len(), text.join(" ").as_str()), (1, expected), "{format}: {sql}");
        }
    }
}

/// Where a repair has a value, or a long file may have one after its first rows, the column is text as ever. A query that takes it for something else is
/// refused with what to declare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_may_have_a_value_is_text_until_it_is_declared() {
    let world = World::new();
    let start = "2024-01-01T00:00:00Z".parse::<repair::jiff::Timestamp>().unwrap();
    let mut rows = String::from("b,ts,v,fee\n");
    for minute in 0..50_010 {
        let fee = if minute == 50_005 { "70" } else { "" };
        writeln!(rows, "x,{},1,{fee}", start + repair::jiff::SignedDuration::from_mins(minute)).unwrap();
    }
    std::fs::write(world.path("lake/t/a.csv"), rows).unwrap();
    let workflow = |columns: &str| {
        format!(
            "workflow: w\nkind: dag\ntables:\n  t: {{ location: t, format: csv, key: [b], time: ts, cadence: 1m{columns} }}\nsteps:\n  none: {{ task: usage }}\n"
        )
    };
    let open = async |columns: &str| {
        std::fs::write(world.path("w.yaml"), workflow(columns)).unwrap();
        Repair::open(world.path("w.yaml")).lake(world.path("lake")).connect().await.unwrap()
    };
    let repair = open("").await;
    let rows = repair.query("SELECT max(fee), count(fee) FROM t").first(1).await.unwrap().rows;
    assert_eq!(rows, [[Some("70".to_owned()), Some("1".to_owned())]], "nothing is lost");
    let refused = repair.query("SELECT sum(fee) FROM t").first(1).await.map(|rows| rows.rows).unwrap_err().full();
    assert!(
        refused.contains("column `fee` of table `t` has no value in the first rows of any file")
            && refused.contains("`columns: { fee: number }`"),
        "{refused}"
    );
    let rows = open(", columns: { fee: number }").await.query("SELECT sum(fee) FROM t").first(1).await.unwrap().rows;
    assert_eq!(rows, [[Some("70.0".to_owned())]]);

    // A source has what the table lacks.
    let world = World::new();
    let hours = |from: i64| (from..24).map(|hour| format!("x,2024-03-04T{hour:02}:00:00Z,{hour},"));
    std::fs::write(world.path("lake/t/a.csv"), format!("b,ts,v,fee\n{}\n", hours(1).collect::<Vec<_>>().join("\n"))).unwrap();
    let sold: Vec<String> = hours(0).map(|row| format!("{row}low")).collect();
    std::fs::write(world.path("lake/vendor/a.csv"), format!("b,ts,v,fee\n{}\n", sold.join("\n"))).unwrap();
    let workflow = "workflow: w\nkind: state-machine\ntables:\n  t: { location: t, format: csv, key: [b], time: ts, cadence: 1h }\nsources:\n  vendor: { source: stocks.archive, \
                    with: { location: vendor, format: csv } }\nstart: look\nsteps:\n  look: { detect: gaps, with: { table: t, keys: [x], from: 2024-03-04, to: 2024-03-04 }, next: fill }\n  \
                    fill: { repair: backfill, of: look, with: { source: vendor }, end: true }\n";
    let report = world.run(workflow).await.unwrap();
    assert_eq!((report.error, report.missing), (None, 0), "{:?}", report.reason);
    let repair = Repair::open(world.path("workflow.yaml")).lake(world.path("lake")).connect().await.unwrap();
    let rows = repair.query("SELECT max(fee), count(fee), count(*) FROM t_repaired").first(1).await.unwrap().rows;
    assert_eq!(rows, [["low", "1", "24"].map(|cell| Some(cell.to_owned()))], "a repair has a value");
    let rows = repair.query("SELECT sum(fee), count(*) FROM t").first(1).await.unwrap().rows;
    assert_eq!(rows, [[None, Some("23".to_owned())]], "the table itself has none");
}
