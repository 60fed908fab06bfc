//! Repaired cells in tables as people have them: of every type, in text files, in names of any case, in views of older versions. The same
//! statements run on the sandbox's own engine and on a real Trino.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "each test uses some of it, and what fails, panics")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int32Builder, Int64Array, ListArray, MapBuilder, RecordBatch, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use async_trait::async_trait;
use repair_aws::AwsLake;
use repair_core::Result;
use repair_core::engine::{Engine, Outcome, StartRequest};
use repair_core::lake::overlay::live::LiveRepairs;
use repair_core::lake::overlay::retraction::{Part, Retraction};
use repair_core::lake::overlay::{self, columns, patch};
use repair_core::lake::rollup::{Function, Measure, Rollup};
use repair_core::lake::{Layer, Overlay, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{Cadence, ColumnRule, ColumnType, Fix, Format, Interval, PartitionUnit, Table};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::testing::{MemoryJournal, VirtualClock};
use repair_core::workflow::Workflow;

use super::{BUCKET, DATABASE, World, at, collect, everything, keys, parquet, texts};

/// A changed column: its old values and its new ones.
type Change<'a> = (&'a str, ArrayRef, ArrayRef);

fn instants(times: &[&str]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(times.iter().map(|time| at(time).as_microsecond())).with_timezone("UTC"))
}

/// Publishes changes of cells, in a run of its own.
async fn change(lake: &AwsLake, table: &Table, (run, strategy): (&str, &str), (key, times): (&str, &[&str]), changes: &[Change<'_>]) {
    let mut fields = vec![Field::new(&table.key[0], DataType::Utf8, false), Field::new(&table.time, overlay::instant_type(), false)];
    let mut values: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![key; times.len()])), instants(times)];
    for (name, old, new) in changes {
        fields.push(Field::new(*name, new.data_type().clone(), true));
        fields.push(Field::new(patch::was(name), old.data_type().clone(), true));
        values.extend([new.clone(), old.clone()]);
    }
    let list = patch::to_text(&changes.iter().map(|(name, ..)| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    fields.push(Field::new(columns::CELLS, DataType::Utf8, true));
    values.push(Arc::new(StringArray::from(vec![list; times.len()])));
    let patches = [RecordBatch::try_new(Arc::new(Schema::new(fields)), values).unwrap()];
    let scope = StageScope { run, step: "fill", visit: 1, table };
    let nothing = Fix { source: "station".to_owned(), ..Fix::default() };
    let request = StageRequest::new("unit", strategy, at("2024-04-01T00:00:00Z"), &nothing).patching(&patches);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

async fn asked(lake: &AwsLake, tables: &[Table], sql: &str) -> Vec<String> {
    texts(&collect(lake.query(&repair_core::lake::Query::new(tables, sql)).await.unwrap()).await)
}

fn days(values: [Option<i32>; 3]) -> ArrayRef {
    Arc::new(Date32Array::from(values.to_vec()))
}

fn prices(values: [Option<i128>; 3]) -> ArrayRef {
    Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(10, 2).unwrap())
}

/// The rows of a station whose names are in capital letters in the workflow.
fn station(values: &[Change<'_>], times: &[&str]) -> RecordBatch {
    let mut all: Vec<(&str, ArrayRef)> = vec![("site", Arc::new(StringArray::from(vec!["A"; times.len()]))), ("ts", instants(times))];
    all.extend(values.iter().map(|(name, old, _)| (*name, old.clone())));
    RecordBatch::try_from_iter_with_nullable(all.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

/// Cells of every type, in a table of repairs that exists already: nulls, values that are not a number, both zeros.
pub async fn columns_of_every_type(world: &World) {
    let mut table = Table::new("Station", Format::Parquet, "TS").with_key(["SITE"]).with_partition("day", PartitionUnit::Day);
    table = Table { location: "station".into(), ..table }.with_cadence(Cadence::MINUTE);
    world
        .declare(
            &table,
            &[
                ("site", "string"),
                ("ts", "timestamp"),
                ("temp", "double"),
                ("hum", "float"),
                ("price", "decimal(10,2)"),
                ("count", "int"),
                ("note", "varchar(20)"),
                ("born", "date"),
                ("seen", "timestamp"),
                ("ok", "boolean"),
            ],
        )
        .await;
    world.add_partition(&table, "2024-03-04").await;
    let times = ["2024-03-04T09:00:00Z", "2024-03-04T09:01:00Z", "2024-03-04T09:02:00Z"];
    let array = |values: [Option<f64>; 3]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let float = |values: [Option<f32>; 3]| Arc::new(Float32Array::from(values.to_vec())) as ArrayRef;
    let whole = |values: [Option<i32>; 3]| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef;
    let text = |values: [Option<&str>; 3]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let flag = |values: [Option<bool>; 3]| Arc::new(BooleanArray::from(values.to_vec())) as ArrayRef;
    let seen = |second: &str| instants(&times.map(|time| format!("{}{second}", &time[..17])).each_ref().map(String::as_str));
    let all: Vec<Change<'_>> = vec![
        ("temp", array([Some(f64::NAN), Some(0.0), None]), array([Some(1.5), Some(-0.0), Some(1e300)])),
        ("hum", float([Some(0.1), Some(-0.0), Some(f32::NAN)]), float([Some(0.2), Some(2.0), Some(3.0)])),
        ("price", prices([Some(-99900), None, Some(0)]), prices([Some(123), Some(-456), Some(10)])),
        ("count", whole([Some(-1), None, Some(0)]), whole([Some(1), Some(2), None])),
        ("note", text([Some(""), Some("say \"no\""), None]), text([Some("é"), Some("it's"), Some("x")])),
        ("born", days([Some(0), None, Some(-1)]), days([Some(19_786), Some(1), Some(-141_000)])),
        ("seen", seen("01.25Z"), seen("02.5Z")),
        ("ok", flag([Some(false), None, Some(true)]), flag([Some(true), Some(true), Some(false)])),
    ];
    world.put("lake/station/day=2024-03-04/a.parquet", parquet(&station(&all, &times)));

    // Repairs of rows have made the table of repairs before.
    let row = station(
        &[
            ("temp", Arc::new(Float64Array::from(vec![5.0])), array([None; 3])),
            ("hum", Arc::new(Float32Array::from(vec![5.0])), array([None; 3])),
        ],
        &["2024-03-04T09:03:00Z"],
    );
    let fix = Fix { rows: vec![row], source: "vendor".into(), ..Fix::default() };
    let scope = StageScope { run: "rows", step: "fill", visit: 1, table: &table };
    world.lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-03-31T00:00:00Z"), &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    let before = texts(&collect(world.lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await);
    assert_eq!(before.len(), 4);

    // An old value with the other zero, and another value that is not a number, are the same.
    let mut changes = all.clone();
    changes[0].1 = array([Some(-f64::NAN), Some(-0.0), None]);
    changes[1].1 = float([Some(0.1), Some(0.0), Some(f32::NAN)]);
    change(&world.lake, &table, ("station", "guess \"1\"\\"), ("A", &times), &changes).await;
    let cells = |columns: &[&str]| {
        let pairs: Vec<String> = columns.iter().map(|column| format!(r#""{column}":"guess \"1\"\\""#)).collect();
        format!("{{{}}}", pairs.join(","))
    };
    let every = cells(&["temp", "hum", "price", "count", "note", "born", "seen", "ok"]);
    let expected = [
        format!("A|2024-03-04T09:00:00Z|1.5|0.2|1.23|1|é|2024-03-04|2024-03-04T09:00:02.500Z|true||{every}"),
        format!("A|2024-03-04T09:01:00Z|-0.0|2.0|-4.56|2|it's|1970-01-02|2024-03-04T09:01:02.500Z|true||{every}"),
        format!("A|2024-03-04T09:02:00Z|1e300|3.0|0.10||x|1583-12-16|2024-03-04T09:02:02.500Z|false||{every}"),
        "A|2024-03-04T09:03:00Z|5.0|5.0|||||||backfill|".to_owned(),
    ];
    for lake in [&world.lake, &world.reopened()] {
        let found = texts(&collect(lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await);
        assert_eq!(found, expected);
    }
    assert_eq!(texts(&collect(world.lake.scan(&table, &everything(Layer::Raw)).await.unwrap()).await).len(), 3);
    // What is asked for does not change what is said.
    let few = ScanRequest::new(Layer::Repaired).with_columns(vec!["COUNT".to_owned()]).of_keys(keys(&["A"]));
    let few = collect(world.lake.scan(&table, &few).await.unwrap()).await;
    let names: Vec<String> = few[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["SITE", "TS", "COUNT", "repaired_by", "repaired_cells"]);
    assert_eq!(texts(&few)[0], format!("A|2024-03-04T09:00:00Z|1||{every}"));
    // As a person reads the view, from the owner's process and from one that has just begun.
    let sql = r#"SELECT SITE, "Temp", hum, price, "COUNT", note, CAST(born AS varchar), CAST(seen AS varchar), ok, repaired_by, repaired_cells FROM
               Station_repaired WHERE day = '2024-03-04'"#;
    let viewed = asked(&world.reopened(), std::slice::from_ref(&table), sql).await;
    assert_eq!(viewed, asked(&world.lake, &[], sql).await);
    assert_eq!(viewed[0], format!("A|-0.0|2.0|-4.56|2|it's|1970-01-02|2024-03-04 09:01:02.500|true||{every}"));
    assert_eq!(viewed.len(), 4);
    let measure = Measure { name: "n".into(), column: "Count".into(), function: Function::Sum };
    let (interval, every_s) = (Interval::parse("2024-03-04", "2024-03-04").unwrap(), Cadence::HOUR);
    let rollup = Rollup { interval, within: vec![], keys: keys(&["A"]), every: every_s, measures: vec![measure], absent_as_of: None };
    assert_eq!(texts(&world.lake.rollup(&table, &rollup).await.unwrap().0), ["A|2024-03-04T09:00:00Z|3|0|4|0"]);

    // The engine reads patches from the table of repairs, with the types of the columns.
    let wanted: Vec<String> = all.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let live = LiveRepairs::read(&world.lake, &table, interval, &keys(&["A"]), &wanted).await.unwrap();
    let own = collect(world.lake.scan(&table, &everything(Layer::Raw)).await.unwrap()).await;
    let own = arrow::compute::concat_batches(&own[0].schema(), &own).unwrap();
    let grid = table.grid().unwrap();
    let patched =
        live.patches().apply(&table, &own, |time_us| grid.slot_of_seconds(time_us.div_euclid(1_000_000)), |_| true).unwrap().unwrap();
    let shown = expected.iter().take(3).map(|row| row.rsplit_once("||").unwrap().0.to_owned()).collect::<Vec<_>>();
    assert_eq!(texts(std::slice::from_ref(&patched.rows)), shown);
    assert!(patched.cells.values().all(|cells| cells.len() == 8), "{:?}", patched.cells);
}

/// Columns that are text in Athena, and typed by their table; one of them in a nested row.
pub async fn typed_text(world: &World) {
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`gauge` (site string, ts string, level string, price string, note string) ROW FORMAT SERDE \
             'org.apache.hadoop.hive.serde2.OpenCSVSerde' LOCATION 's3://{BUCKET}/lake/gauge/' TBLPROPERTIES ('skip.header.line.count'='1')"
        ))
        .await;
    world.put(
        "lake/gauge/a.csv",
        "site,ts,level,price,note\nA,2024-03-04T09:00:00Z,1e3,1.5,-\nA,2024-03-04T09:01:00Z,n/a,2.50,ok\nA,2024-03-04T09:01:00Z,7,2.5,ok\n",
    );
    let table = Table::new("gauge", Format::Csv, "ts")
        .with_key(["site"])
        .with_nulls(["n/a", "-"])
        .with_column("Level", ColumnRule::of_type(ColumnType::Number))
        .with_column("price", ColumnRule::of_type(ColumnType::Decimal(10, 2)))
        .with_cadence(Cadence::MINUTE);
    let numbers = |values: [Option<f64>; 2]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let price = |values: [i128; 2]| Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(10, 2).unwrap()) as ArrayRef;
    let words = |values: [Option<&str>; 2]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let times = ["2024-03-04T09:00:00Z", "2024-03-04T09:01:00Z"];
    let changes: [Change<'_>; 3] = [
        ("level", numbers([Some(1000.0), None]), numbers([Some(1.0), Some(2.0)])),
        ("price", price([150, 250]), price([151, 251])),
        ("note", words([None, Some("late")]), words([Some("fine"), Some("never")])),
    ];
    change(&world.lake, &table, ("gauge", "guess"), ("A", &times), &changes).await;
    let expected = [
        r#"A|2024-03-04T09:00:00Z|1.0|1.51|fine||{"level":"guess","price":"guess","note":"guess"}"#,
        r#"A|2024-03-04T09:01:00Z|2.0|2.51|ok||{"level":"guess","price":"guess"}"#,
        r#"A|2024-03-04T09:01:00Z|7.0|2.51|ok||{"price":"guess"}"#,
    ];
    assert_eq!(texts(&collect(world.lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await), expected);
    let viewed = asked(&world.reopened(), std::slice::from_ref(&table), "SELECT * FROM gauge_repaired").await;
    assert_eq!(viewed, expected);

    // A cell of a member of a struct has the name that its table gives it.
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`probe` (id string, ts timestamp, reading struct<value:double,unit:string>) ROW FORMAT SERDE \
             'org.openx.data.jsonserde.JsonSerDe' LOCATION 's3://{BUCKET}/lake/probe/'"
        ))
        .await;
    world.put("lake/probe/a.json", r#"{"id":"A","ts":"2024-03-04 09:00:00.000","reading":{"value":-1.0,"unit":"C"}}"#);
    let table = Table::new("probe", Format::Jsonl, "ts")
        .with_key(["id"])
        .with_cadence(Cadence::MINUTE)
        .with_column("Celsius", serde_json::from_value(serde_json::json!({ "type": "number", "path": "reading.value" })).unwrap());
    let value = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    change(&world.lake, &table, ("probe", "guess"), ("A", &times[..1]), &[("Celsius", value(-1.0), value(21.5))]).await;
    assert_eq!(
        texts(&collect(world.lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await),
        [r#"A|2024-03-04T09:00:00Z|21.5||{"Celsius":"guess"}"#]
    );
    let sql = "SELECT id, celsius, repaired_cells FROM probe_repaired";
    assert_eq!(asked(&world.reopened(), std::slice::from_ref(&table), sql).await, [r#"A|21.5|{"Celsius":"guess"}"#]);
}

/// A view that an older version has made stays usable until it is made anew; and the view follows when cells of more columns are repaired.
pub async fn views_of_an_older_version(world: &World) {
    let table = Table::new("mast", Format::Parquet, "ts").with_key(["site"]).with_cadence(Cadence::MINUTE);
    world.declare(&table, &[("site", "string"), ("ts", "timestamp"), ("temp", "double"), ("wind", "double")]).await;
    let time = "2024-03-04T09:00:00Z";
    let value = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    world.put("lake/mast/a.parquet", parquet(&station(&[("temp", value(1.0), value(0.0)), ("wind", value(5.0), value(0.0))], &[time])));
    let row = station(&[("temp", value(2.0), value(0.0)), ("wind", value(6.0), value(0.0))], &["2024-03-04T09:01:00Z"]);
    let fix = Fix { rows: vec![row], source: "vendor".into(), ..Fix::default() };
    let scope = StageScope { run: "mast", step: "fill", visit: 1, table: &table };
    world.lake.stage(&scope, &StageRequest::new("unit", "backfill", at("2024-03-31T00:00:00Z"), &fix)).await.unwrap();
    world.lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
    world
        .define(&format!(
            "CREATE OR REPLACE VIEW \"{DATABASE}\".\"mast_repaired\" AS SELECT site, ts, temp, wind, CAST(NULL AS varchar) AS repaired_by FROM \
             \"{DATABASE}\".\"mast\" UNION ALL SELECT site, ts, temp, wind, repair_strategy FROM \"{DATABASE}\".\"mast_repairs\""
        ))
        .await;
    let lake = world.reopened();
    let sql = "SELECT temp, wind, repaired_by FROM mast_repaired";
    assert_eq!(asked(&lake, &[], sql).await, ["1.0|5.0|", "2.0|6.0|backfill"], "it is as it was");
    assert_eq!(texts(&collect(lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await).len(), 2);
    let sql = "SELECT temp, wind, repaired_by, repaired_cells FROM mast_repaired";
    assert_eq!(asked(&lake, std::slice::from_ref(&table), sql).await, ["1.0|5.0||", "2.0|6.0|backfill|"], "it is made anew");

    // A table without repaired cells looks as it did before there were any.
    let repairs = lake.describe(&lake.repairs_of(&table).await.unwrap()).await.unwrap();
    assert!(repairs.fields().iter().all(|field| !field.name().starts_with(columns::WAS) && field.name() != columns::CELLS));

    change(&lake, &table, ("one", "guess"), ("A", &[time]), &[("temp", value(1.0), value(1.25))]).await;
    let first = [r#"1.25|5.0||{"temp":"guess"}"#, "2.0|6.0|backfill|"];
    assert_eq!(asked(&lake, &[], sql).await, first);
    // Another process repairs cells of one more column, those of the repaired row.
    let other = world.reopened();
    change(&other, &table, ("two", "near"), ("A", &["2024-03-04T09:01:00Z"]), &[("wind", value(6.0), value(6.5))]).await;
    let second = [r#"1.25|5.0||{"temp":"guess"}"#, r#"2.0|6.5|backfill|{"wind":"near"}"#];
    assert_eq!(asked(&other, &[], sql).await, second);
    assert_eq!(asked(&world.reopened(), std::slice::from_ref(&table), sql).await, second);
}

/// A wide table, each column with a repaired cell.
pub async fn many_columns(world: &World, count: usize) {
    let table = Table::new("wide", Format::Parquet, "ts").with_key(["site"]).with_cadence(Cadence::MINUTE);
    let names: Vec<String> = (0..count).map(|number| format!("measured_value_number_{number}")).collect();
    let declared: Vec<(&str, &str)> =
        [("site", "string"), ("ts", "timestamp")].into_iter().chain(names.iter().map(|name| (name.as_str(), "double"))).collect();
    world.declare(&table, &declared).await;
    let time = "2024-03-04T09:00:00Z";
    let value = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    let changes: Vec<Change<'_>> = names.iter().map(|name| (name.as_str(), value(1.0), value(2.0))).collect();
    world.put("lake/wide/a.parquet", parquet(&station(&changes, &[time])));
    change(&world.lake, &table, ("all", "guess"), ("A", &[time]), &changes).await;
    let found = collect(world.lake.scan(&table, &everything(Layer::Repaired)).await.unwrap()).await;
    let viewed = collect(
        world.lake.query(&repair_core::lake::Query::new(std::slice::from_ref(&table), "SELECT * FROM wide_repaired")).await.unwrap(),
    )
    .await;
    for batch in [&found[0], &viewed[0]] {
        let cells = batch.column_by_name(overlay::REPAIRED_CELLS).unwrap().as_string::<i32>();
        let cells: serde_json::Map<String, serde_json::Value> = serde_json::from_str(cells.value(0)).unwrap();
        assert_eq!(cells.len(), count);
        assert!(
            names.iter().all(|name| batch.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Float64Type>().value(0) == 2.0)
        );
    }
}

/// The columns of a wide table as Athena declares them, beside its key and time, and how a person sees each; nested ones in parts.
const WIDE: [(&str, &str, &[&str]); 18] = [
    ("temp", "double", &["temp"]),
    ("num", "bigint", &["num"]),
    ("price", "decimal(12,3)", &["price"]),
    ("level", "float", &["level"]),
    ("fr", "double", &["fr"]),
    ("sky", "string", &["sky"]),
    ("tiny", "tinyint", &["tiny"]),
    ("small", "smallint", &["small"]),
    ("whole", "int", &["whole"]),
    ("flag", "boolean", &["flag"]),
    ("born", "date", &["CAST(born AS varchar)"]),
    ("seen", "timestamp", &["CAST(seen AS varchar)"]),
    ("note", "varchar(20)", &["note"]),
    ("raw", "binary", &["length(raw)"]),
    ("items", "array<int>", &["cardinality(items)", "element_at(items, 1)"]),
    ("pair", "struct<x:int,y:string>", &["pair.x", "pair.y"]),
    ("tags", "map<string,int>", &["cardinality(tags)"]),
    ("rest", "string", &["rest"]),
];

/// How many hours a wide table has.
const HOURS: i32 = 72;

/// The wrong cells of a wide table: alone, several of one row, and in a row.
fn wrong(hour: i32, column: &str) -> bool {
    matches!((hour, column), (5 | 7 | 40 | 41, "temp") | (6 | 7, "num") | (7 | 30, "price") | (23 | 41 | 42, "level"))
}

/// The rows of a wide table at some hours of 2024-03-04 and later, right or with their wrong cells.
fn wide_rows(hours: &[i32], is_right: bool) -> RecordBatch {
    let is_wrong = |hour: &i32, column: &str| !is_right && wrong(*hour, column);
    let number = |hour: &i32| f64::from(*hour) * 0.5;
    let some = |hour: &i32| hour % 7 != 3;
    let times = hours.iter().map(|hour| (1_709_510_400 + i64::from(*hour) * 3_600) * 1_000_000);
    let mut tags = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for hour in hours {
        for name in ["a", "b"].iter().take(usize::try_from(hour % 3).unwrap()) {
            tags.keys().append_value(name);
            tags.values().append_value(hour * 10);
        }
        tags.append(some(hour)).unwrap();
    }
    let pair = StructArray::from(vec![
        (
            Arc::new(Field::new("x", DataType::Int32, true)),
            Arc::new(Int32Array::from_iter_values(hours.iter().map(|hour| hour * 2))) as ArrayRef,
        ),
        (
            Arc::new(Field::new("y", DataType::Utf8, true)),
            Arc::new(StringArray::from_iter_values(hours.iter().map(|hour| format!("y{hour}")))),
        ),
    ]);
    let items = hours.iter().map(|hour| some(hour).then(|| vec![Some(*hour), None, Some(1)]));
    let price = hours.iter().map(|hour| (!is_wrong(hour, "price")).then(|| i128::from(*hour) * 21));
    let all: Vec<(&str, ArrayRef)> = vec![
        ("site", Arc::new(StringArray::from(vec!["A"; hours.len()]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(times.clone()).with_timezone("UTC"))),
        (
            "temp",
            Arc::new(hours.iter().map(|hour| Some(if is_wrong(hour, "temp") { -999.0 } else { number(hour) })).collect::<Float64Array>()),
        ),
        (
            "num",
            Arc::new(hours.iter().map(|hour| Some(if is_wrong(hour, "num") { -1 } else { i64::from(*hour) * 3 })).collect::<Int64Array>()),
        ),
        ("price", Arc::new(Decimal128Array::from_iter(price).with_precision_and_scale(12, 3).unwrap())),
        ("level", Arc::new(hours.iter().map(|hour| (!is_wrong(hour, "level")).then_some(*hour as f32)).collect::<Float32Array>())),
        ("fr", Arc::new(hours.iter().map(|hour| some(hour).then(|| number(hour) / 3.0)).collect::<Float64Array>())),
        ("sky", Arc::new(hours.iter().map(|hour| some(hour).then(|| format!("it's \"cloudy\", {hour}"))).collect::<StringArray>())),
        ("tiny", Arc::new(hours.iter().map(|hour| i8::try_from(*hour).ok()).collect::<Int8Array>())),
        ("small", Arc::new(hours.iter().map(|hour| i16::try_from(*hour * 100).ok()).collect::<Int16Array>())),
        ("whole", Arc::new(hours.iter().map(|hour| some(hour).then_some(hour * 100_000)).collect::<Int32Array>())),
        ("flag", Arc::new(hours.iter().map(|hour| some(hour).then_some(hour % 2 == 0)).collect::<BooleanArray>())),
        ("born", Arc::new(hours.iter().map(|hour| Some(hour * 300)).collect::<Date32Array>())),
        ("seen", Arc::new(TimestampMicrosecondArray::from_iter_values(times.map(|us| us + 250_000)).with_timezone("UTC"))),
        ("note", Arc::new(hours.iter().map(|hour| Some(format!("n{hour}"))).collect::<StringArray>())),
        ("raw", Arc::new(hours.iter().map(|hour| Some(vec![0u8; usize::try_from(*hour).unwrap()])).collect::<BinaryArray>())),
        ("items", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(items))),
        ("pair", Arc::new(pair)),
        ("tags", Arc::new(tags.finish())),
        ("rest", Arc::new(hours.iter().map(|hour| some(hour).then(String::new)).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(all.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

/// A source that has all rows of a wide table, without its nested columns and bytes.
struct Right;

#[async_trait]
impl Source for Right {
    fn limits(&self) -> Limits {
        Limits::new(1_000, 1)
    }

    async fn fetch(&self, _: &StepContext, request: &Request) -> Result<Answer> {
        let slots = request.table.grid()?.slots_in(&request.interval);
        let first = 1_709_510_400 / 3_600;
        let hours: Vec<i32> = (0..HOURS).filter(|hour| slots.contains(first + i64::from(*hour))).collect();
        let rows = wide_rows(&hours, true);
        let plain: Vec<usize> = (0..rows.num_columns())
            .filter(|at| !["raw", "items", "pair", "tags"].contains(&rows.schema().field(*at).name().as_str()))
            .collect();
        let covered = request.keys.iter().map(|key| Covered { key: key.clone(), interval: request.interval }).collect();
        Ok(Answer::new(vec![rows.project(&plain)?]).with_covered(covered))
    }
}

/// A wide table with columns of all types, nested ones and bytes too, under each repairer: the wrong cells change, and all others are the same, as
/// a person sees them in the view; undone, all are as they were, and redone, as repaired.
pub async fn every_repairer(world: &World) {
    let all: Vec<i32> = (0..HOURS).collect();
    for (name, repair) in [
        ("wide_line", "repair: interpolate, with: { max_gap: 5h }"),
        ("wide_carried", "repair: carry-forward, with: { max_age: 6h }"),
        ("wide_shifted", "repair: shifted, with: { shift: [-24h, 24h] }"),
        ("wide_filled", "repair: backfill, with: { source: right }"),
        ("wide_set", "repair: set, with: { values: { temp: 1.5, num: 2, price: 3.5, level: 4.5 } }"),
        ("wide_same", "repair: backfill, with: { source: right }"),
    ] {
        let table = Table::new(name, Format::Parquet, "ts").with_key(["site"]).with_cadence(Cadence::HOUR);
        let declared: Vec<(&str, &str)> =
            [("site", "string"), ("ts", "timestamp")].into_iter().chain(WIDE.iter().map(|(column, kind, _)| (*column, *kind))).collect();
        world.declare(&table, &declared).await;
        world.put(&format!("lake/{name}/a.parquet"), parquet(&wide_rows(&all, false)));
        let scope = format!("table: {name}, keys: [A], from: 2024-03-04, to: 2024-03-06");
        let look = match name {
            "wide_same" => format!("detect: differs, with: {{ {scope}, source: right }}"),
            _ => format!(
                "detect: invalid, with: {{ {scope}, rules: [{{ column: temp, not: [-999] }}, {{ column: num, min: 0 }}, {{ column: price, not_null: true }}, \
                 {{ column: level, not_null: true }}] }}"
            ),
        };
        let text = format!(
            "workflow: w\nkind: state-machine\ntables:\n  {name}: {{ location: {name}, format: parquet, key: [site], time: ts, cadence: 1h }}\nsources:\n  \
             right: {{ source: right }}\nstart: look\nsteps:\n  look: {{ {look}, next: fix }}\n  fix: {{ {repair}, of: look, next: check }}\n  check: {{ \
             verify: look, end: true }}\n"
        );
        let mut registry = Registry::default();
        registry.source("right", "has all rows", |_: serde_json::Value| Ok(Right));
        let workflow = Workflow::parse("w.yaml", &text, &registry).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let lake = world.reopened();
        let mut engine = Engine::new(Arc::new(registry), Arc::new(world.reopened()), Arc::new(MemoryJournal::default()));
        engine.clock = Arc::new(VirtualClock::starting_at(at("2024-06-01T00:00:00Z")));
        let report = Box::pin(engine.start(&workflow, StartRequest::new("one"))).await.unwrap();
        assert_eq!(report.outcome, Some(Outcome::Succeeded), "{name}: {:?} {:?}", report.reason, report.problems);
        let output = |step: &str| report.steps.iter().find(|known| known.name == step).unwrap().output.clone();
        assert_eq!((&output("look")["defective"], &output("look")["cells"]), (&8.into(), &11.into()), "{name}");
        assert_eq!(output("check")["defective"], 0, "{name}");

        let shown = async |of: &str| -> BTreeMap<String, Vec<String>> {
            let columns: Vec<&str> = WIDE.iter().flat_map(|(.., shown)| shown.iter().copied()).collect();
            let sql = format!("SELECT CAST(ts AS varchar), {} FROM {of}", columns.join(", "));
            let rows = asked(&lake, std::slice::from_ref(&table), &sql).await;
            let cells = |row: &String| row.split('|').map(str::to_owned).collect::<Vec<_>>();
            rows.iter().map(cells).map(|cells| (cells[0].clone(), cells[1..].to_vec())).collect()
        };
        let columns: Vec<&str> = WIDE.iter().flat_map(|(column, _, shown)| shown.iter().map(|_| *column)).collect();
        let (raw, view) = (shown(name).await, shown(&format!("{name}_repaired")).await);
        let wrong: Vec<(i32, &str)> =
            all.iter().flat_map(|hour| WIDE.iter().map(|(column, ..)| (*hour, *column))).filter(|at| wrong(at.0, at.1)).collect();
        let mut changed: Vec<(i32, &str)> = Vec::new();
        assert_eq!((raw.len(), view.len()), (72, 72), "{name}");
        for (hour, (own, theirs)) in all.iter().zip(raw.values().zip(view.values())) {
            changed.extend(
                columns.iter().zip(own.iter().zip(theirs)).filter(|(_, (own, theirs))| own != theirs).map(|(column, _)| (*hour, *column)),
            );
        }
        assert_eq!(changed, wrong, "{name}");
        let undo = |id: &str, undoes: Option<&str>| Retraction {
            id: id.to_owned(),
            at: at(if undoes.is_some() { "2024-07-02T00:00:00Z" } else { "2024-07-01T00:00:00Z" }),
            undoes: undoes.map(str::to_owned),
            parts: if undoes.is_some() { Vec::new() } else { [Part::of_run("one")].into() },
            by: "a test".to_owned(),
            reason: String::new(),
        };
        lake.retract(&table, &undo("undo", None)).await.unwrap();
        assert_eq!(shown(&format!("{name}_repaired")).await, raw, "{name}");
        lake.retract(&table, &undo("redo", Some("undo"))).await.unwrap();
        assert_eq!(shown(&format!("{name}_repaired")).await, view, "{name}");
    }
}
