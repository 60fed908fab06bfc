//! A lake on a sandbox of AWS, and the tables of its owner: declared and written as anybody would, through Athena and S3.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "each test uses some of it, and what fails, panics")]

pub mod cells;
pub mod reading;
pub mod sql;
pub mod unique;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sandbox::Sandbox;
use aws_sdk_athena::types::{QueryExecutionContext, QueryExecutionState as State, ResultConfiguration};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_types::retry::RetryConfig;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use repair_aws::{AwsLake, AwsOptions, Connection, Polling};
use repair_core::Result;
use repair_core::lake::overlay::fingerprint::of_slots;
use repair_core::lake::partition::{by_partition, time_partition};
use repair_core::lake::{BatchStream, Caller, Lake, Layer, ScanRequest, StageRequest, StageScope, overlay};
use repair_core::model::{Absence, Cadence, Fix, Format, GapList, Interval, Key, PartitionUnit, SlotRange, Table};
use repair_core::testing::LakeSetup;

pub const BUCKET: &str = "bucket";
pub const DATABASE: &str = "market";
pub const WORKGROUP: &str = "repair";
/// For how long calls are repeated in tests: three times, as few as ever, so that a fault that stays ends soon.
pub const PATIENCE: Duration = Duration::ZERO;

/// A sandbox with a bucket, a database and a workgroup, and a lake on it.
pub struct World {
    pub sandbox: Sandbox,
    pub connection: Connection,
    pub lake: AwsLake,
    athena: aws_sdk_athena::Client,
    /// The days of which the partitions of tables by day are projected; otherwise they are registered one by one.
    projected: Option<&'static str>,
}

pub fn config(endpoint: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new("sandbox", "sandbox", None, None, "test")))
        .build()
}

pub fn options() -> AwsOptions {
    let mut options = AwsOptions::new(format!("s3://{BUCKET}/lake"), DATABASE, WORKGROUP);
    options.polling = Polling { first: Duration::from_millis(2), longest: Duration::from_millis(50) };
    options
}

impl World {
    pub async fn new() -> Self {
        Self::on(Sandbox::start(aws_sandbox::Options::default()).await.unwrap()).await
    }

    pub async fn on(sandbox: Sandbox) -> Self {
        let config = config(&sandbox.endpoint());
        let athena = aws_sdk_athena::Client::new(&config);
        let connection = Connection::of(config).with_patience(PATIENCE);
        let _ = sandbox.store().create_bucket(BUCKET);
        let lake = AwsLake::open(&connection, options()).unwrap();
        let world = Self { sandbox, connection, lake, athena, projected: None };
        let results = ResultConfiguration::builder().output_location(format!("s3://{BUCKET}/results/")).build();
        let configuration = aws_sdk_athena::types::WorkGroupConfiguration::builder().result_configuration(results).build();
        world.athena.create_work_group().name(WORKGROUP).configuration(configuration).send().await.unwrap();
        world.define(&format!("CREATE DATABASE IF NOT EXISTS {DATABASE}")).await;
        world.sandbox.faults().clear_log();
        world
    }

    /// As [`World::new`], but whatever lies in the folder of one of these days is that day's partition, without anybody registering it. A query looks at
    /// every day, so few days make a test short.
    pub async fn projected(days: &'static str) -> Self {
        Self { projected: Some(days), ..Self::new().await }
    }

    /// Makes a workgroup, as its owner does.
    pub async fn create_workgroup(&self, name: &str, configuration: aws_sdk_athena::types::WorkGroupConfiguration) {
        self.athena.create_work_group().name(name).configuration(configuration).send().await.unwrap();
    }

    /// Another lake on the same sandbox: as another process sees it.
    pub fn reopened(&self) -> AwsLake {
        self.with(options())
    }

    pub fn with(&self, options: AwsOptions) -> AwsLake {
        AwsLake::open(&self.connection, options).unwrap()
    }

    /// Runs a statement as the owner of the tables does.
    pub async fn define(&self, sql: &str) {
        let context = QueryExecutionContext::builder().database(DATABASE).build();
        let results = ResultConfiguration::builder().output_location(format!("s3://{BUCKET}/results/")).build();
        let started = self.athena.start_query_execution().query_string(sql).query_execution_context(context).result_configuration(results);
        let id = started.work_group(WORKGROUP).send().await.unwrap().query_execution_id.unwrap();
        loop {
            let found = self.athena.get_query_execution().query_execution_id(&id).send().await.unwrap().query_execution.unwrap();
            match found.status().unwrap().state().unwrap() {
                State::Succeeded => return,
                State::Failed | State::Cancelled => panic!("{sql}: {:?}", found.status()),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    pub fn put(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        self.sandbox.store().put(BUCKET, key, bytes.into(), aws_sandbox::Condition::Always, Default::default()).unwrap();
    }

    /// The keys below a prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.sandbox.store().list(BUCKET, prefix, None, usize::MAX).unwrap().into_iter().map(|head| head.key).collect()
    }

    /// The keys below a prefix, without those of records of whose an overlay is.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        self.keys(prefix).into_iter().filter(|key| !key.ends_with("_owner.json")).collect()
    }

    /// How often the sandbox was asked for something.
    pub fn served(&self, service: aws_sandbox::Service, operation: &str) -> usize {
        self.sandbox.faults().served(service, operation)
    }

    /// Declares a table.
    pub async fn declare(&self, table: &Table, columns: &[(&str, &str)]) {
        let columns: Vec<String> = columns.iter().map(|(name, kind)| format!("`{name}` {kind}")).collect();
        let by = time_partition(table).unwrap().map(|by| format!(" PARTITIONED BY (`{}` string)", by.column)).unwrap_or_default();
        let stored = match table.format {
            Format::Parquet => "STORED AS PARQUET",
            Format::Csv => "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'",
            Format::Jsonl => "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'",
            other => panic!("no tables of {other:?} in tests"),
        };
        let mut properties = Vec::new();
        if table.format == Format::Csv {
            properties.push("'skip.header.line.count'='1'".to_owned());
        }
        if let Some((column, days)) = self.projects(table) {
            properties.push("'projection.enabled'='true'".to_owned());
            properties.extend(
                [("type", "date"), ("format", "yyyy-MM-dd"), ("range", days)]
                    .map(|(name, value)| format!("'projection.{column}.{name}'='{value}'")),
            );
        }
        let properties = if properties.is_empty() { String::new() } else { format!(" TBLPROPERTIES ({})", properties.join(", ")) };
        self.define(&format!(
            "CREATE EXTERNAL TABLE IF NOT EXISTS `{DATABASE}`.`{}` ({}){by} {stored} LOCATION 's3://{BUCKET}/lake/{}/'{properties}",
            table.name,
            columns.join(", "),
            table.location
        ))
        .await;
    }

    /// The column of the partitions, and their days, if they are projected.
    fn projects(&self, table: &Table) -> Option<(String, &'static str)> {
        let by = time_partition(table).unwrap().filter(|by| by.unit == PartitionUnit::Day)?;
        Some((by.column.clone(), self.projected?))
    }

    /// Makes a partition known.
    pub async fn add_partition(&self, table: &Table, value: &str) {
        if self.projects(table).is_some() {
            return;
        }
        let column = &time_partition(table).unwrap().unwrap().column;
        self.define(&format!(
            "ALTER TABLE `{DATABASE}`.`{}` ADD IF NOT EXISTS PARTITION (`{column}` = '{value}') LOCATION 's3://{BUCKET}/lake/{}/{column}={value}/'",
            table.name, table.location
        ))
        .await;
    }
}

pub fn parquet(batch: &RecordBatch) -> bytes::Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap().into()
}

fn hive(kind: &DataType) -> &'static str {
    match kind {
        DataType::Utf8 => "string",
        DataType::Float64 => "double",
        DataType::Int64 => "bigint",
        DataType::Timestamp(_, _) => "timestamp",
        other => panic!("no type for {other}"),
    }
}

#[async_trait]
impl LakeSetup for World {
    async fn add_rows(&self, table: &Table, batches: &[RecordBatch]) -> Result<()> {
        for batch in batches {
            let schema = batch.schema();
            let columns: Vec<(&str, &str)> = schema.fields().iter().map(|field| (field.name().as_str(), hive(field.data_type()))).collect();
            self.declare(table, &columns).await;
            let times = batch.column_by_name(&table.time).unwrap().as_primitive::<TimestampMicrosecondType>().clone();
            let by = time_partition(table)?;
            let parts: BTreeMap<Option<String>, Vec<RecordBatch>> = match by {
                None => BTreeMap::from([(None, vec![batch.clone()])]),
                Some(by) => by_partition(by.unit, [(batch, times)])?.into_iter().map(|(name, rows)| (Some(name), rows)).collect(),
            };
            for (value, rows) in parts {
                let folder = match (by, &value) {
                    (Some(by), Some(value)) => format!("lake/{}/{}={value}", table.location, by.column),
                    _ => format!("lake/{}", table.location),
                };
                if let Some(value) = &value {
                    self.add_partition(table, value).await;
                }
                for rows in rows {
                    let number = self.keys(&format!("{folder}/")).len();
                    self.put(&format!("{folder}/{number}.parquet"), parquet(&rows));
                }
            }
        }
        Ok(())
    }

    fn time_resolution_us(&self) -> i64 {
        1_000
    }
}

/// The columns of bars, whole.
pub fn bar_schema() -> Schema {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    Schema::new(vec![
        Field::new("symbol", DataType::Utf8, false),
        Field::new("ts", overlay::instant_type(), false),
        number("open"),
        number("high"),
        number("low"),
        number("close"),
        Field::new("volume", DataType::Int64, true),
    ])
}

pub fn bars() -> Table {
    Table::new("bars", Format::Parquet, "ts").with_key(["symbol"]).with_partition("date", PartitionUnit::Day).with_cadence(Cadence::MINUTE)
}

pub fn at(text: &str) -> jiff::Timestamp {
    text.parse().unwrap()
}

pub fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::from(*name)).collect()
}

/// Bars of a symbol at times, with a close and a volume.
pub fn rows(rows: &[(&str, &str, f64)]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("symbol", DataType::Utf8, false),
        Field::new("ts", overlay::instant_type(), false),
        Field::new("close", DataType::Float64, true),
        Field::new("volume", DataType::Int64, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| at(row.1).as_microsecond())).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|_| 1))),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// On whose behalf a test asks.
pub fn caller(run: &str, attempt: u32) -> Caller {
    Caller::new(run, "find", 1, attempt).with_tags(Arc::new(BTreeMap::from([("idea".to_owned(), "backfill".to_owned())])))
}

pub fn whole_day(table: &Table, day: &str) -> SlotRange {
    table.grid().unwrap().slots_in(&Interval::parse(day, day).unwrap())
}

pub async fn collect(stream: BatchStream) -> Vec<RecordBatch> {
    stream.try_collect().await.unwrap()
}

/// Rows as sorted texts, to compare lakes by.
pub fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let mut all = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let options = arrow::util::display::FormatOptions::default();
            let row: Vec<String> = batch
                .columns()
                .iter()
                .map(|column| arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string())
                .collect();
            all.push(row.join("|"));
        }
    }
    all.sort();
    all
}

pub fn everything(layer: Layer) -> ScanRequest {
    ScanRequest::new(layer)
}

/// Repairs a table in a run of its own.
pub async fn repair(lake: &dyn Lake, table: &Table, run: &str, fixed: &[(&str, &str, f64)], absent: Vec<Absence>) {
    let scope = StageScope { run, step: "fill", visit: 1, table };
    let rows = if fixed.is_empty() { Vec::new() } else { vec![rows(fixed)] };
    let fix = Fix { rows, absent, source: "market".to_owned(), ..Fix::default() };
    let request = StageRequest::new("unit", "backfill", at("2024-04-01T00:00:00Z"), &fix);
    lake.stage(&scope, &request).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

/// Lets a row stand for all of its versions, in a run of its own.
pub async fn keep(lake: &dyn Lake, table: &Table, run: &str, kept: (&str, &str, f64)) {
    let time_us = at(kept.1).as_microsecond();
    let mut place = GapList::default();
    place.push(&Key::from(kept.0), SlotRange::new(time_us, time_us + 1));
    let judged = of_slots(lake, table, &place).await.unwrap();
    let scope = StageScope { run, step: "keep", visit: 1, table };
    let fix = Fix { rows: vec![rows(&[kept])], source: "keep".to_owned(), ..Fix::default() };
    lake.stage(&scope, &StageRequest::new("unit", "keep", at("2024-04-01T00:00:00Z"), &fix).replacing(&judged)).await.unwrap();
    lake.publish(&scope, 0, &["unit".to_owned()]).await.unwrap();
}

/// The rows of a batch for which something holds.
pub fn only(batch: &RecordBatch, keep: impl Fn(usize) -> bool) -> RecordBatch {
    let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(keep(row))).collect();
    filter_record_batch(batch, &mask).unwrap()
}
