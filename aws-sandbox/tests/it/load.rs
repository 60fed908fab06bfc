//! Folders as tables: through the library, and through the command, which another process uses.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::common::{World, parquet};
use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use aws_sandbox::{LoadError, TableFolder};
use aws_sdk_athena::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_athena::types::QueryExecutionState;

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn readings(keys: &[&str], values: &[i32]) -> Vec<u8> {
    let columns: [(&str, ArrayRef); 3] = [
        ("Key", Arc::new(StringArray::from(keys.to_vec()))),
        ("value", Arc::new(Int32Array::from(values.to_vec()))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000; keys.len()]).with_timezone("UTC"))),
    ];
    parquet(&RecordBatch::try_from_iter(columns).unwrap())
}

async fn load(world: &World, name: &str, folder: &Path) -> Result<usize, LoadError> {
    let location = format!("s3://lake/tables/{name}");
    world.sandbox.load(TableFolder { database: "d", name, folder, location: &location }).await
}

#[tokio::test]
async fn folders_of_parquet_become_partitions() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    write(folder.path(), "day=2026-01-01/zone=a b/one.parquet", readings(&["x", "y"], &[1, 2]));
    write(folder.path(), "day=2026-01-02/zone=c/two.parquet", readings(&["x"], &[4]));
    write(folder.path(), "day=2026-01-02/zone=c/_SUCCESS", "");
    write(folder.path(), ".hidden/three.parquet", "no Parquet");
    assert_eq!(load(&world, "readings", folder.path()).await.unwrap(), 2);
    let rows = world.table("SELECT day, zone, key, value, at FROM readings ORDER BY value").await;
    let expected =
        "2026-01-01|a b|x|1|2023-11-14 22:13:20.000\n2026-01-01|a b|y|2|2023-11-14 22:13:20.000\n2026-01-02|c|x|4|2023-11-14 22:13:20.000";
    assert_eq!(rows, expected);
    let table = world.sandbox.catalog().table("d", "readings").unwrap();
    let declared: Vec<(&str, &str)> = table.columns().iter().map(|column| (column.name.as_str(), column.hive_type())).collect();
    assert_eq!(declared, [("key", "string"), ("value", "int"), ("at", "timestamp")]);
}

#[tokio::test]
async fn columns_of_text_are_what_all_its_files_allow() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    write(folder.path(), "a.csv", "key,at,day,value,note\nx,2026-01-01T00:00:00Z,2026-01-01,1,\n");
    write(folder.path(), "b.csv", "key,at,day,value,note\n7,2026-01-01T00:01:00Z,2026-01-02,2.5,late\n");
    assert_eq!(load(&world, "csv", folder.path()).await.unwrap(), 2);
    let rows = world.table("SELECT key, at, day, value FROM csv ORDER BY at").await;
    assert_eq!(rows, "x|2026-01-01T00:00:00Z|2026-01-01|1.0\n7|2026-01-01T00:01:00Z|2026-01-02|2.5");
    let table = world.sandbox.catalog().table("d", "csv").unwrap();
    let declared: Vec<&str> = table.columns().iter().map(aws_sandbox::catalog::Column::hive_type).collect();
    assert_eq!(declared, ["string", "string", "date", "double", "string"]);

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.jsonl", "{\"key\":\"x\",\"value\":1,\"tags\":[\"p\"]}\n{\"key\":\"y\",\"value\":2.5}\n");
    load(&world, "lines", folder.path()).await.unwrap();
    assert_eq!(world.table("SELECT key, value FROM lines ORDER BY key").await, "x|1.0\ny|2.5");
}

#[tokio::test]
async fn a_folder_that_is_no_table_is_refused() {
    let (world, folder) = (World::new().await, tempfile::tempdir().unwrap());
    let path = folder.path();
    let refused = async |name: &str, words: &str| {
        let error = load(&world, name, &path.join(name)).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused("nowhere", "can't read").await;
    write(path, "empty/_SUCCESS", "");
    refused("empty", "no .parquet, .csv or .jsonl files").await;
    write(path, "mixed/a.csv", "a\n1\n");
    write(path, "mixed/b.jsonl", "{\"a\":1}\n");
    refused("mixed", "more than one format").await;
    write(path, "damaged/a.parquet", "no Parquet");
    refused("damaged", "can't find out the columns").await;
    write(path, "uneven/a.csv", "a\n1\n");
    write(path, "uneven/k=1/a.csv", "a\n1\n");
    refused("uneven", "different keys").await;
    write(path, "torn/a.parquet", readings(&["x"], &[1]));
    let text: [(&str, ArrayRef); 1] = [("value", Arc::new(StringArray::from(vec!["one"])))];
    write(path, "torn/b.parquet", parquet(&RecordBatch::try_from_iter(text).unwrap()));
    refused("torn", "disagree about column value").await;
    write(path, "twice/a.csv", "a\n1\n");
    load(&world, "twice", &path.join("twice")).await.unwrap();
    refused("twice", "already exists").await;
    let table = TableFolder { database: "d", name: "t", folder: &path.join("twice"), location: "lake/t" };
    assert!(world.sandbox.load(table).await.unwrap_err().to_string().contains("s3://bucket/prefix"));
}

/// The command, until it is dropped.
struct Serving {
    process: Child,
    // A process that prints to a closed pipe ends.
    _printed: std::io::Lines<BufReader<std::process::ChildStdout>>,
    endpoint: String,
    created: Vec<String>,
}

impl Serving {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(assert_cmd::cargo::cargo_bin!("aws-sandbox"))
            .args(["--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (mut endpoint, mut created) = (String::new(), Vec::new());
        for line in lines.by_ref().map(Result::unwrap) {
            if let Some(url) = line.strip_prefix("export AWS_ENDPOINT_URL=") {
                endpoint = url.to_owned();
            } else if let Some(what) = line.strip_prefix("created: ") {
                created.push(what.to_owned());
                if what.starts_with("table ") {
                    break;
                }
            }
        }
        assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint:?}");
        Self { process, _printed: lines, endpoint, created }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn the_command_creates_what_it_is_given_and_injects_faults() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t/a.csv", "key,value\nx,1\ny,2\n");
    write(folder.path(), "faults.json", r#"[{"service": "athena", "operation": "StartQueryExecution", "times": 1, "fault": "throttled"}]"#);
    let (table, faults) = (format!("t={}", folder.path().join("t").display()), folder.path().join("faults.json"));
    let arguments = [
        "--location",
        "s3://lake/some/where/",
        "--database",
        "d",
        "--workgroup",
        "team",
        "--table",
        &table,
        "--faults",
        faults.to_str().unwrap(),
    ];
    let serving = Serving::start(&arguments);
    assert_eq!(serving.created, ["bucket lake", "workgroup team", "database d", "table d.t at s3://lake/some/where/t, 1 object"]);
    let config = aws_sdk_athena::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&serving.endpoint)
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .retry_config(aws_sdk_athena::config::retry::RetryConfig::disabled())
        .build();
    let athena = aws_sdk_athena::Client::from_conf(config);
    let start = || athena.start_query_execution().query_string("SELECT sum(value) FROM d.t").work_group("team").send();
    assert!(format!("{:?}", start().await.unwrap_err()).contains("ThrottlingException"), "the fault is injected once");
    let id = start().await.unwrap().query_execution_id.unwrap();
    let state = loop {
        let got = athena.get_query_execution().query_execution_id(&id).send().await.unwrap();
        let state = got.query_execution.unwrap().status.unwrap().state.unwrap();
        if !matches!(state, QueryExecutionState::Queued | QueryExecutionState::Running) {
            break state;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(state, QueryExecutionState::Succeeded);
    let results = athena.get_query_results().query_execution_id(&id).send().await.unwrap();
    let rows = results.result_set.unwrap().rows.unwrap();
    assert_eq!(rows[1].data.as_ref().unwrap()[0].var_char_value.as_deref(), Some("3"));
}

#[test]
fn arguments_that_cannot_be_used_are_refused() {
    let run = |arguments: &[&str]| {
        let output = Command::new(assert_cmd::cargo::cargo_bin!("aws-sandbox")).args(["--port", "0"]).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["--location", "bucket/lake"]).contains("s3://bucket/prefix"));
    assert!(run(&["--table", "t"]).contains("NAME=DIR"));
    assert!(run(&["--table", "t=/nowhere"]).contains("--location"));
    assert!(run(&["--location", "s3://b", "--database", "d", "--table", "t=/nowhere/at/all"]).contains("can't read /nowhere/at/all"));
    assert!(run(&["--faults", "/nowhere/faults.json"]).contains("/nowhere/faults.json"));
}
