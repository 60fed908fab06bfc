//! The life of a query: queued, running, and one of three end states. A query runs in its own task; callers see its state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::catalog::now_seconds;
use crate::faults::Fault;
use crate::server::AwsError;
use crate::sql::{Answer, Category, Engine, Kind, QueryError, Scanned, Statement};
use crate::store::{Condition, Metadata, Store};

use super::Athena;
use super::results;

/// Athena's limit on the length of a statement.
const SQL_LIMIT_BYTES: usize = 262_144;
/// Athena's limit on the size of a batch.
const BATCH_LIMIT: usize = 50;
/// Athena's limit on the rows of a page of results.
const PAGE_LIMIT: usize = 1_000;
/// The number of queries that are remembered; keeping all results would be a leak in a sandbox that runs for days.
const QUERY_LIMIT: usize = 100_000;
/// How long a query waits in the queue, and the least time of a step: long enough to be seen, too short to slow tests down.
const STEP: Duration = Duration::from_millis(5);
/// How long a query that returns to the queue stays in each state: long enough for a poller on a busy machine to see it.
const BACK_STEP: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

#[derive(Debug)]
struct Query {
    id: String,
    sql: String,
    statement: Kind,
    sub_kind: &'static str,
    workgroup: String,
    /// As they were sent: `QueryExecutionContext`, `ResultReuseConfiguration`, `ExecutionParameters`.
    request: Value,
    /// `None` if the result is not written to S3.
    output: Option<String>,
    state: State,
    reason: Option<String>,
    error: Option<Value>,
    submitted: f64,
    completed: Option<f64>,
    /// How long it was queued, and how long it ran.
    queued: Duration,
    ran: Duration,
    scanned: Scanned,
    answer: Option<Arc<Answer>>,
    task: Option<AbortHandle>,
}

impl Query {
    fn describe(&self) -> Value {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let mut status = json!({ "State": self.state.as_str(), "SubmissionDateTime": self.submitted });
        let mut statistics = json!({
            "EngineExecutionTimeInMillis": millis(self.ran),
            "DataScannedInBytes": self.scanned.bytes(),
            "TotalExecutionTimeInMillis": millis(self.queued + self.ran),
            "QueryQueueTimeInMillis": millis(self.queued),
            "ServiceProcessingTimeInMillis": 0,
        });
        if let Some(members) = status.as_object_mut() {
            members.extend(self.completed.map(|at| ("CompletionDateTime".to_owned(), json!(at))));
            members.extend(self.reason.as_ref().map(|reason| ("StateChangeReason".to_owned(), json!(reason))));
            members.extend(self.error.clone().map(|error| ("AthenaError".to_owned(), error)));
        }
        if let (Some(members), State::Succeeded) = (statistics.as_object_mut(), self.state) {
            members.insert("ResultReuseInformation".to_owned(), json!({ "ReusedPreviousResult": false }));
        }
        let mut described = json!({
            "QueryExecutionId": self.id,
            "Query": self.sql,
            "StatementType": self.statement.as_str(),
            "SubstatementType": self.sub_kind,
            "QueryExecutionContext": self.request.get("QueryExecutionContext").cloned().unwrap_or_else(|| json!({})),
            "Status": status,
            "Statistics": statistics,
            "WorkGroup": self.workgroup,
            "EngineVersion": super::workgroups::engine_version(),
        });
        if let Some(members) = described.as_object_mut() {
            match &self.output {
                Some(output) => members.insert("ResultConfiguration".to_owned(), json!({ "OutputLocation": output })),
                None => members.insert("ManagedQueryResultsConfiguration".to_owned(), json!({ "Enabled": true })),
            };
            for member in ["ResultReuseConfiguration", "ExecutionParameters"] {
                members.extend(self.request.get(member).map(|value| (member.to_owned(), value.clone())));
            }
        }
        described
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.completed = Some(now_seconds());
        self.task = None;
    }

    fn fail(&mut self, error: &QueryError) {
        self.reason = Some(error.reason());
        if error.cancelled {
            self.end(State::Cancelled);
            return;
        }
        self.error = Some(athena_error(error.category.number(), error.error_type, error.retryable, &error.reason()));
        self.end(State::Failed);
    }
}

fn athena_error(category: i32, kind: i32, retryable: bool, message: &str) -> Value {
    json!({ "ErrorCategory": category, "ErrorType": kind, "Retryable": retryable, "ErrorMessage": message })
}

#[derive(Debug, Default)]
struct All {
    queries: HashMap<String, Query>,
    /// In the order of submission.
    order: Vec<String>,
    /// The request made with each token, and the query that it started.
    tokens: HashMap<String, (String, String)>,
    count: u64,
}

/// All queries.
#[derive(Debug, Default)]
pub(super) struct Queries(Mutex<All>);

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidRequestException", message)
}

fn text<'a>(input: &'a Value, member: &str) -> Option<&'a str> {
    input.get(member).and_then(Value::as_str)
}

fn not_found(id: &str) -> AwsError {
    invalid(format!("QueryExecution {id} was not found"))
}

impl Queries {
    // Every change affects one query, and is complete before the lock is released.
    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Query)) {
        if let Some(query) = self.lock().queries.get_mut(id)
            && !query.state.is_end()
        {
            change(query);
        }
    }

    pub(super) fn get(&self, input: &Value) -> Result<Value, AwsError> {
        let id = text(input, "QueryExecutionId").unwrap_or_default();
        let all = self.lock();
        Ok(json!({ "QueryExecution": all.queries.get(id).ok_or_else(|| not_found(id))?.describe() }))
    }

    pub(super) fn batch_get(&self, input: &Value) -> Result<Value, AwsError> {
        let ids: Vec<&str> =
            input.get("QueryExecutionIds").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if ids.is_empty() || ids.len() > BATCH_LIMIT {
            return Err(invalid(format!(
                "1 validation error detected: Value at 'queryExecutionIds' failed to satisfy constraint: Member must have length between 1 and \
                 {BATCH_LIMIT}"
            )));
        }
        let all = self.lock();
        let (mut found, mut unprocessed) = (Vec::new(), Vec::new());
        for id in ids {
            match all.queries.get(id) {
                Some(query) => found.push(query.describe()),
                None => unprocessed.push(json!({
                    "QueryExecutionId": id,
                    "ErrorCode": "INVALID_QUERY_EXECUTION_ID",
                    "ErrorMessage": format!("QueryExecution {id} was not found"),
                })),
            }
        }
        Ok(json!({ "QueryExecutions": found, "UnprocessedQueryExecutionIds": unprocessed }))
    }

    pub(super) fn list(&self, input: &Value) -> Result<Value, AwsError> {
        let workgroup = text(input, "WorkGroup").unwrap_or("primary");
        let limit =
            input.get("MaxResults").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(50).clamp(1, 50);
        let from: usize = text(input, "NextToken").map_or(Ok(0), str::parse).map_err(|_| invalid("Invalid NextToken"))?;
        let all = self.lock();
        // Newest first, as Athena lists them.
        let of_group = all.order.iter().rev().filter(|id| all.queries.get(*id).is_some_and(|query| query.workgroup == workgroup));
        let mut ids: Vec<&String> = of_group.skip(from).take(limit + 1).collect();
        let more = ids.len() > limit;
        ids.truncate(limit);
        let mut page = json!({ "QueryExecutionIds": ids });
        if let (Some(members), true) = (page.as_object_mut(), more) {
            members.insert("NextToken".to_owned(), json!((from + limit).to_string()));
        }
        Ok(page)
    }

    pub(super) fn stop(&self, input: &Value) -> Result<Value, AwsError> {
        let id = text(input, "QueryExecutionId").unwrap_or_default();
        let mut all = self.lock();
        let query = all.queries.get_mut(id).ok_or_else(|| not_found(id))?;
        if !query.state.is_end() {
            if let Some(task) = query.task.take() {
                task.abort();
            }
            query.reason = Some("Query cancelled by user".to_owned());
            query.end(State::Cancelled);
        }
        Ok(json!({}))
    }

    pub(super) fn results(&self, input: &Value) -> Result<Value, AwsError> {
        let id = text(input, "QueryExecutionId").unwrap_or_default();
        let limit = match input.get("MaxResults").and_then(Value::as_u64) {
            None => PAGE_LIMIT,
            Some(limit) => usize::try_from(limit).ok().filter(|limit| (1..=PAGE_LIMIT).contains(limit)).ok_or_else(|| {
                invalid(format!(
                    "1 validation error detected: Value '{limit}' at 'maxResults' failed to satisfy constraint: Member must have value between 1 \
                     and {PAGE_LIMIT}"
                ))
            })?,
        };
        let from: usize = text(input, "NextToken").map_or(Ok(0), str::parse).map_err(|_| invalid("Invalid NextToken"))?;
        let answer = {
            let all = self.lock();
            let query = all.queries.get(id).ok_or_else(|| not_found(id))?;
            match (query.state, &query.answer) {
                (State::Succeeded, Some(answer)) => Arc::clone(answer),
                (State::Failed | State::Cancelled, _) => {
                    let state = query.state.as_str();
                    return Err(invalid(format!("Query did not finish successfully. Final query state: {state}")));
                }
                (state, _) => return Err(invalid(format!("Query has not yet finished. Current state: {}", state.as_str()))),
            }
        };
        let (mut page, next) = results::page(&answer, from, limit);
        if let (Some(members), Some(next)) = (page.as_object_mut(), next) {
            members.insert("NextToken".to_owned(), json!(next.to_string()));
        }
        Ok(page)
    }
}

impl Athena {
    pub(super) fn start(&self, input: &Value) -> Result<Value, AwsError> {
        let sql = text(input, "QueryString").unwrap_or_default();
        if sql.trim().is_empty() {
            return Err(invalid("Query string must not be empty"));
        }
        if sql.len() > SQL_LIMIT_BYTES {
            return Err(invalid(format!(
                "1 validation error detected: Value at 'queryString' failed to satisfy constraint: Member must have length less than or equal \
                 to {SQL_LIMIT_BYTES}"
            )));
        }
        let token = text(input, "ClientRequestToken");
        if let Some(token) = token
            && !(32..=128).contains(&token.len())
        {
            return Err(invalid(format!(
                "1 validation error detected: Value '{token}' at 'clientRequestToken' failed to satisfy constraint: Member must have length \
                 between 32 and 128"
            )));
        }
        // The request in a canonical form, since serde_json may keep members in the order of arrival.
        let asked = canonical(input);
        if let Some(token) = token
            && let Some((before, id)) = self.queries.lock().tokens.get(token)
        {
            return if *before == asked {
                Ok(json!({ "QueryExecutionId": id }))
            } else {
                Err(invalid("Idempotent parameters do not match"))
            };
        }
        let (workgroup, output, limit_bytes) = self.place(input)?;
        let statement = Statement::parse(sql)
            .map_err(|error| AwsError::new("InvalidRequestException", error.message).with("AthenaErrorCode", "MALFORMED_QUERY"))?;
        let fault = self.faults.take_of_query("StartQueryExecution", sql);
        let mut all = self.queries.lock();
        // Another caller may have used the same token meanwhile.
        if let Some((before, id)) = token.and_then(|token| all.tokens.get(token)) {
            return if *before == asked {
                Ok(json!({ "QueryExecutionId": id }))
            } else {
                Err(invalid("Idempotent parameters do not match"))
            };
        }
        if all.queries.len() >= QUERY_LIMIT {
            return Err(
                AwsError::new("InternalServerException", format!("the sandbox remembers {QUERY_LIMIT} queries and no more")).status(500)
            );
        }
        all.count += 1;
        let id = query_id(all.count);
        let scanned = Scanned::with_limit(limit_bytes);
        let output = output.map(|output| format!("{}/{id}.{}", output.trim_end_matches('/'), results::extension(statement.kind())));
        let run = Run {
            id: id.clone(),
            database: input.pointer("/QueryExecutionContext/Database").and_then(Value::as_str).map(str::to_owned),
            statement: statement.clone(),
            output: output.clone(),
            scanned: scanned.clone(),
            fault,
            engine: self.engine.clone(),
            store: self.store.clone(),
            queries: Arc::clone(&self.queries),
        };
        let query = Query {
            id: id.clone(),
            sql: sql.to_owned(),
            statement: statement.kind(),
            sub_kind: statement.sub_kind(),
            workgroup,
            request: input.clone(),
            output,
            state: State::Queued,
            reason: None,
            error: None,
            submitted: now_seconds(),
            completed: None,
            queued: Duration::ZERO,
            ran: Duration::ZERO,
            scanned,
            answer: None,
            task: None,
        };
        all.queries.insert(id.clone(), query);
        all.order.push(id.clone());
        if let Some(token) = token {
            all.tokens.insert(token.to_owned(), (asked, id.clone()));
        }
        let task = tokio::spawn(run.finish()).abort_handle();
        if let Some(query) = all.queries.get_mut(&id) {
            query.task = Some(task);
        }
        Ok(json!({ "QueryExecutionId": id }))
    }

    /// The workgroup of a request, the place of its result unless it is kept here, and how much it may scan.
    fn place(&self, input: &Value) -> Result<(String, Option<String>, Option<u64>), AwsError> {
        let workgroups = self.workgroups();
        let workgroup = workgroups.enabled(text(input, "WorkGroup").unwrap_or("primary"))?;
        let asked = input.pointer("/ResultConfiguration/OutputLocation").and_then(Value::as_str).filter(|location| !location.is_empty());
        if workgroup.manages_results() {
            return match asked {
                Some(_) => Err(invalid("ResultConfiguration cannot be set in a workgroup with managed query results")),
                None => Ok((workgroup.name.clone(), None, workgroup.cutoff_bytes())),
            };
        }
        let output = if workgroup.enforces() { workgroup.output_location().or(asked) } else { asked.or(workgroup.output_location()) };
        let output = output.ok_or_else(|| {
            invalid(
                "No output location provided. An output location is required either through the Workgroup result configuration setting or as an \
                 API input.",
            )
        })?;
        if !output.starts_with("s3://") {
            return Err(invalid(format!("outputLocation is not a valid S3 path: {output}")));
        }
        Ok((workgroup.name.clone(), Some(output.to_owned()), workgroup.cutoff_bytes()))
    }
}

/// A request as text, with its members sorted.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            let members: Vec<String> = sorted.into_iter().map(|(name, value)| format!("{name:?}:{}", canonical(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// An id in Athena's form: unique in this sandbox, and in others that were started at another instant.
fn query_id(count: u64) -> String {
    let nanos = jiff::Timestamp::now().as_nanosecond().cast_unsigned();
    let hex = format!("{:016x}{count:016x}", nanos & u128::from(u64::MAX));
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A running query.
struct Run {
    id: String,
    database: Option<String>,
    statement: Statement,
    /// `None` if the result is not written to S3.
    output: Option<String>,
    scanned: Scanned,
    fault: Option<Fault>,
    engine: Engine,
    store: Store,
    queries: Arc<Queries>,
}

impl Run {
    async fn finish(self) {
        let submitted = Instant::now();
        tokio::time::sleep(STEP).await;
        self.enter(State::Running, submitted);
        let mut began = Instant::now();
        match &self.fault {
            Some(Fault::BackToQueued) => {
                tokio::time::sleep(BACK_STEP).await;
                self.enter(State::Queued, submitted);
                tokio::time::sleep(BACK_STEP).await;
                self.enter(State::Running, submitted);
                began = Instant::now();
            }
            Some(Fault::DelayQuery { delay_ms }) => tokio::time::sleep(Duration::from_millis(*delay_ms)).await,
            Some(Fault::FailQuery { category, kind, retryable, message }) => {
                tokio::time::sleep(STEP).await;
                self.queries.change(&self.id, |query| {
                    query.ran = began.elapsed();
                    query.reason = Some(message.clone());
                    query.error = Some(athena_error(*category, *kind, *retryable, message));
                    query.end(State::Failed);
                });
                return;
            }
            _ => {}
        }
        let answered = self.engine.run(&self.statement, self.database.as_deref(), &self.scanned).await;
        let answered = answered.and_then(|answer| self.write(&answer).map(|()| answer));
        self.queries.change(&self.id, |query| {
            query.ran = began.elapsed();
            match answered {
                Ok(answer) => {
                    query.sub_kind = answer.sub_kind;
                    query.answer = Some(Arc::new(answer));
                    query.end(State::Succeeded);
                }
                Err(error) => query.fail(&error),
            }
        });
    }

    fn enter(&self, state: State, submitted: Instant) {
        self.queries.change(&self.id, |query| {
            query.state = state;
            if state == State::Running {
                query.queued = submitted.elapsed();
            }
        });
    }

    /// Writes the result to its place.
    fn write(&self, answer: &Answer) -> Result<(), QueryError> {
        let Some(output) = &self.output else { return Ok(()) };
        let failed = |why: &dyn std::fmt::Display| QueryError {
            category: Category::User,
            error_type: 401,
            ..QueryError::user("", format!("Unable to verify/create output bucket or write results to {output}: {why}"))
        };
        let (bucket, key) = output.trim_start_matches("s3://").split_once('/').ok_or_else(|| failed(&"it names no bucket"))?;
        let kind = if results::has_header(answer) { "text/csv" } else { "text/plain" };
        let metadata = Metadata { content_type: Some(kind.to_owned()), ..Metadata::default() };
        let put = |key: &str, bytes: bytes::Bytes, metadata: Metadata| {
            self.store.put(bucket, key, bytes, Condition::Always, metadata).map(drop).map_err(|error| failed(&error))
        };
        put(key, results::object(answer), metadata)?;
        put(&format!("{key}.metadata"), results::metadata_object(answer), Metadata::default())
    }
}
