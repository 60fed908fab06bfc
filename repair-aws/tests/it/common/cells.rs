//! Repaired cells in tables as people have them: of every type, in text files, in names of any case, in views of older versions. The same
//! statements run on the sandbox's own engine and on a real Trino.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "each test uses some of it, and what fails, panics")]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use repair_aws::AwsLake;
use repair_core::lake::overlay::live::LiveRepairs;
use repair_core::lake::overlay::{self, columns, patch};
use repair_core::lake::rollup::{Function, Measure, Rollup};
use repair_core::lake::{Layer, Overlay, ReadLake, ScanRequest, StageRequest, StageScope};
use repair_core::model::{Cadence, ColumnRule, ColumnType, Fix, Format, Interval, PartitionUnit, Table};

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
    texts(&collect(lake.query(tables, sql).await.unwrap()).await)
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
    let rollup = Rollup { interval, within: vec![], keys: keys(&["A"]), every: every_s, measures: vec![measure] };
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
    let viewed = collect(world.lake.query(std::slice::from_ref(&table), "SELECT * FROM wide_repaired").await.unwrap()).await;
    for batch in [&found[0], &viewed[0]] {
        let cells = batch.column_by_name(overlay::REPAIRED_CELLS).unwrap().as_string::<i32>();
        let cells: serde_json::Map<String, serde_json::Value> = serde_json::from_str(cells.value(0)).unwrap();
        assert_eq!(cells.len(), count);
        assert!(
            names.iter().all(|name| batch.column_by_name(name).unwrap().as_primitive::<arrow::datatypes::Float64Type>().value(0) == 2.0)
        );
    }
}
