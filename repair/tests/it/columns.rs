//! Whole workflows over columns as they are found: of several types, of narrow floats, in capital letters.
#![cfg(feature = "sql")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a test that fails, panics"
)]

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
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
