//! A sandbox with a bucket, and Athena's real SDK to talk to it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test binary uses a part of it, none gives it to others, and what fails, panics"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use aws_sandbox::{Condition, Metadata, Options, Sandbox};
use aws_sdk_athena::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig};
use aws_sdk_athena::error::ProvideErrorMetadata as _;
use aws_sdk_athena::types::{QueryExecution, QueryExecutionContext, QueryExecutionState, ResultConfiguration};
use aws_sdk_athena::{Client, Error};
use parquet::arrow::ArrowWriter;
use tokio::sync::{Mutex, MutexGuard};

/// A Trino reads from one sandbox at a time.
static TRINO: Mutex<()> = Mutex::const_new(());

/// A sandbox, and a client of it.
pub struct World {
    pub sandbox: Sandbox,
    pub athena: Client,
    turn: Option<MutexGuard<'static, ()>>,
}

/// The Trino that queries are to run on, if one is named.
pub fn trino() -> Option<String> {
    std::env::var("TRINO_URL").ok().filter(|url| !url.is_empty())
}

/// The end of a query that did not succeed.
#[derive(Debug)]
pub struct Failed {
    pub state: QueryExecutionState,
    pub reason: String,
    pub execution: QueryExecution,
}

impl World {
    /// With the bucket `lake`, and the database `d`.
    pub async fn new() -> Self {
        Self::with(Options::default(), None).await
    }

    /// The same; but with `TRINO_URL` set, as `scripts/trino` sets it, queries run on that Trino. What a test expects of the sandbox's own
    /// engine is then checked against the engine that it stands for.
    pub async fn of_trino() -> Self {
        match trino() {
            Some(url) => Self::with(Options::default().trino(url), Some(TRINO.lock().await)).await,
            None => Self::new().await,
        }
    }

    async fn with(options: Options, turn: Option<MutexGuard<'static, ()>>) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        sandbox.store().create_bucket("lake").unwrap();
        let config = aws_sdk_athena::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(sandbox.endpoint())
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .build();
        let world = Self { sandbox, athena: Client::from_conf(config), turn };
        world.ddl("CREATE DATABASE d").await;
        world
    }

    /// Starts a statement in the database `d`.
    pub async fn start(&self, sql: &str) -> Result<String, Error> {
        let started = self
            .athena
            .start_query_execution()
            .query_string(sql)
            .query_execution_context(QueryExecutionContext::builder().database("d").build())
            .result_configuration(ResultConfiguration::builder().output_location("s3://lake/results/").build())
            .send()
            .await?;
        Ok(started.query_execution_id.unwrap())
    }

    /// Waits for the end of a query; gives the states that were seen on the way.
    pub async fn end_of(&self, id: &str) -> (QueryExecution, Vec<QueryExecutionState>) {
        let mut seen = Vec::new();
        for _ in 0..60_000 {
            let got = self.athena.get_query_execution().query_execution_id(id).send().await.unwrap();
            let execution = got.query_execution.unwrap();
            let state = execution.status.as_ref().unwrap().state.clone().unwrap();
            if seen.last() != Some(&state) {
                seen.push(state.clone());
            }
            match state {
                QueryExecutionState::Queued | QueryExecutionState::Running => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => return (execution, seen),
            }
        }
        panic!("query {id} does not end");
    }

    /// Runs a statement to its end.
    pub async fn run(&self, sql: &str) -> Result<QueryExecution, Failed> {
        let id = self.start(sql).await.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
        let (execution, _) = self.end_of(&id).await;
        let status = execution.status.clone().unwrap();
        match status.state.unwrap() {
            QueryExecutionState::Succeeded => Ok(execution),
            state => Err(Failed { state, reason: status.state_change_reason.unwrap_or_default(), execution }),
        }
    }

    /// Runs a statement that defines something.
    pub async fn ddl(&self, sql: &str) {
        self.run(sql).await.unwrap_or_else(|failed| panic!("{sql}\n{}", failed.reason));
    }

    /// The rows of a query, without the header; null is `None`.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let execution = self.run(sql).await.unwrap_or_else(|failed| panic!("{sql}\n{}", failed.reason));
        self.rows_of(&execution.query_execution_id.unwrap()).await[1..].to_vec()
    }

    /// All rows of a result, the header too.
    pub async fn rows_of(&self, id: &str) -> Vec<Vec<Option<String>>> {
        let mut rows = Vec::new();
        let mut token = None;
        loop {
            let page = self.athena.get_query_results().query_execution_id(id).set_next_token(token).send().await.unwrap();
            for row in page.result_set.unwrap().rows.unwrap_or_default() {
                rows.push(row.data.unwrap_or_default().into_iter().map(|datum| datum.var_char_value).collect());
            }
            token = page.next_token;
            if token.is_none() {
                return rows;
            }
        }
    }

    /// The rows as one text: values by `|`, rows by lines, null as `∅`.
    pub async fn table(&self, sql: &str) -> String {
        lines(&self.rows(sql).await)
    }

    /// Why a statement fails.
    pub async fn refusal(&self, sql: &str) -> String {
        match self.start(sql).await {
            Err(error) => told(error),
            Ok(id) => {
                let (execution, _) = self.end_of(&id).await;
                let status = execution.status.unwrap();
                assert_ne!(status.state, Some(QueryExecutionState::Succeeded), "{sql}");
                status.state_change_reason.unwrap()
            }
        }
    }

    /// Writes an object.
    pub fn put(&self, key: &str, bytes: impl Into<bytes::Bytes>) {
        self.sandbox.store().put("lake", key, bytes.into(), Condition::Always, Metadata::default()).unwrap();
    }

    /// Writes an object of Parquet.
    pub fn put_parquet(&self, key: &str, batch: &RecordBatch) {
        self.put(key, parquet(batch));
    }
}

/// The bytes of a Parquet file.
pub fn parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// What an error says: its name and its message.
pub fn told(error: impl Into<Error>) -> String {
    let error = error.into();
    format!("{}: {}", error.code().unwrap_or_default(), error.message().unwrap_or_default())
}

/// Values by `|`, rows by lines, null as `∅`.
pub fn lines(rows: &[Vec<Option<String>>]) -> String {
    let line = |row: &Vec<Option<String>>| row.iter().map(|value| value.as_deref().unwrap_or("∅")).collect::<Vec<_>>().join("|");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A batch of named columns.
pub fn batch(columns: Vec<(&str, Arc<dyn arrow::array::Array>)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

/// Tags or parameters by name.
pub type Map = BTreeMap<String, String>;
