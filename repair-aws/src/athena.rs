//! Queries: each is started once, whatever happens to replies and processes; one poller watches them; they are stopped when nobody wants
//! them any more; and their cost is counted whether they succeed or not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_athena::Client;
use aws_sdk_athena::types::{
    AthenaError, QueryExecution, QueryExecutionContext, QueryExecutionState as State, ResultConfiguration, ResultReuseByAgeConfiguration,
    ResultReuseConfiguration, Tag, WorkGroupConfiguration,
};
use jiff::Timestamp;
use repair_core::lake::Caller;
use repair_core::model::Usage;
use repair_core::price::Query;
use repair_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error;
use crate::patience::{LEAST_TRIES, Patience, may_repeat};
use crate::results::Texts;
use crate::sql::MAX_STATEMENT_BYTES;

/// Ids that Athena accepts in one `BatchGetQueryExecution`.
const IDS_A_CALL: usize = 50;

/// Rows in one page of `GetQueryResults`; the first is the header.
const ROWS_A_PAGE: i32 = 1_000;

/// Athena may not know a query right after it was started. After this many polls, the query counts as lost.
const MAX_UNKNOWN: u32 = 20;

/// The smallest cutoff of a workgroup that Athena accepts.
const MIN_CUTOFF_BYTES: u64 = 10_000_000;

/// How long to wait between polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// The first wait after a query was started. It doubles from poll to poll.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for Polling {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(2) }
    }
}

/// How queries are run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) catalog: String,
    pub(crate) database: String,
    /// A template, which may contain `{tag}`s.
    pub(crate) workgroup: String,
    /// Creates missing workgroups.
    pub(crate) create_workgroups: bool,
    /// Where results go, unless the workgroup says; `None` if it must.
    pub(crate) results: Option<String>,
    /// A query that reads more bytes than this is stopped.
    pub(crate) bytes_limit: Option<u64>,
    /// For a lake that is read beside another one: what distinguishes its queries from those of the other, which the same attempt may ask in the same words.
    pub(crate) apart: Option<String>,
    pub(crate) polling: Polling,
}

/// The caller for whom queries are run, and those that were started: a second query of the same text is another query.
#[derive(Debug)]
pub(crate) struct Behalf {
    pub(crate) caller: Caller,
    begun: Mutex<HashMap<[u8; 32], u32>>,
}

impl Behalf {
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller, begun: Mutex::default() }
    }

    /// A token that stays the same when an attempt starts again after a crash, and that no other query has: neither of another run, nor of a run of the same
    /// name in another lake.
    fn token(&self, workgroup: &str, settings: &Settings, sql: &str) -> String {
        let text = *blake3::hash(sql.as_bytes()).as_bytes();
        let number = {
            let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            let number = begun.entry(text).or_default();
            *number += 1;
            *number
        };
        let Caller { run, step, visit, attempt, .. } = &self.caller;
        let mut hasher = blake3::Hasher::new();
        let (visit, attempt, number) = (visit.to_string(), attempt.to_string(), number.to_string());
        let Settings { catalog, database, results, apart, .. } = settings;
        let lake = [catalog, database, results.as_deref().unwrap_or_default()];
        let query = [run.as_ref(), step, &visit, &attempt, workgroup, sql, &number];
        for part in query.into_iter().chain(lake).chain(apart.as_deref()) {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Where a workgroup has results written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Results {
    /// The workgroup has a place of its own, or Athena manages its results: no request names another.
    Own,
    /// It has none, so each request names ours.
    Ours,
    /// The caller may not look at it. A request names none, until Athena asks for one.
    Unknown,
}

fn no_place(workgroup: &str) -> Error {
    Error::invalid(format!(
        "workgroup `{workgroup}` does not say where results of queries go, and nothing is written to the lake of another profile; give that profile \
         `results`, a place in S3, or another `workgroup`"
    ))
}

/// The place of results in the settings of a workgroup.
fn results_of(configuration: Option<&WorkGroupConfiguration>) -> Results {
    let managed = configuration.and_then(|of| of.managed_query_results_configuration()).is_some_and(|managed| managed.enabled());
    let place = configuration.and_then(|of| of.result_configuration()).and_then(|results| results.output_location());
    if managed || place.is_some_and(|place| !place.is_empty()) { Results::Own } else { Results::Ours }
}

/// Whether Athena refuses a query because neither the request nor the workgroup says where its result goes.
fn lacks_a_place(error: &Error) -> bool {
    error.full().to_ascii_lowercase().contains("output location")
}

/// A query that succeeded.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) id: String,
    /// Where its result lies; managed results have no location.
    pub(crate) output: Option<String>,
    pub(crate) usage: Usage,
}

/// The first page of a result.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Texts>,
    /// The columns: name, type, precision, scale.
    pub(crate) columns: Vec<(String, String, i32, i32)>,
    /// Whether the page holds all rows.
    pub(crate) is_all: bool,
    pub(crate) next: Option<String>,
}

struct Waiting {
    result: oneshot::Sender<Result<QueryExecution>>,
    polls: u32,
    unknown: u32,
    /// Since when no poll has had an answer, and how many there were.
    silent: Option<(Instant, u32)>,
}

/// Talks to Athena. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Athena {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    settings: Settings,
    patience: Patience,
    waiting: Mutex<Watched>,
    workgroups: tokio::sync::Mutex<HashMap<String, Results>>,
}

#[derive(Default)]
struct Watched {
    queries: HashMap<String, Waiting>,
    /// Whether a poller is running.
    polled: bool,
}

impl Athena {
    pub(crate) fn new(client: Client, settings: Settings, patience: Patience) -> Self {
        let (waiting, workgroups) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { client, settings, patience, waiting, workgroups }) }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn patience(&self) -> Patience {
        self.inner.patience
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Runs a statement to its end. If the same attempt started the query before a crash, that query is found and not paid for twice.
    ///
    /// # Errors
    /// Those of Athena, in our kinds; `cancelled` if the attempt is to stop.
    pub(crate) async fn run(&self, behalf: Option<&Behalf>, sql: &str) -> Result<Execution> {
        if sql.len() > MAX_STATEMENT_BYTES {
            return Err(Error::invalid(format!(
                "a statement of {} bytes is longer than the {MAX_STATEMENT_BYTES} that Athena accepts; use fewer keys or a shorter interval",
                sql.len()
            )));
        }
        let (workgroup, results) = self.workgroup(behalf).await?;
        loop {
            let token = behalf.map_or_else(|| random_token(sql), |behalf| behalf.token(&workgroup, &self.inner.settings, sql));
            let began = Timestamp::now();
            let id = self.start(behalf, &workgroup, results, &token, sql).await?;
            let found = self.finish(behalf, &id).await?;
            match self.judge(behalf, &id, &workgroup, &found) {
                // This attempt stopped it before a crash; neither this process nor a cutoff did. It is started again, as another query.
                Err(error)
                    if behalf.is_some()
                        && error.kind() == ErrorKind::Transient
                        && state(&found) == Some(&State::Cancelled)
                        // Athena reports milliseconds.
                        && submitted(&found).is_some_and(|at| at.as_millisecond() < began.as_millisecond()) => {}
                judged => return judged,
            }
        }
    }

    async fn start(&self, behalf: Option<&Behalf>, workgroup: &str, results: Results, token: &str, sql: &str) -> Result<String> {
        let Inner { client, settings, patience, .. } = self.inner.as_ref();
        let reuse = ResultReuseByAgeConfiguration::builder().enabled(false).build();
        let request = client
            .start_query_execution()
            .query_string(sql)
            .client_request_token(token)
            .work_group(workgroup)
            .query_execution_context(QueryExecutionContext::builder().catalog(&settings.catalog).database(&settings.database).build())
            // Results are not reused, since the data may have changed a second ago.
            .result_reuse_configuration(ResultReuseConfiguration::builder().result_reuse_by_age_configuration(reuse).build());
        let ours = settings.results.as_ref().map(|place| ResultConfiguration::builder().output_location(place).build());
        let ours = || ours.as_ref().ok_or_else(|| no_place(workgroup));
        let resource = format!("workgroup/{workgroup}");
        // The same token means the same query, so a lost reply costs nothing.
        let sent = async |place: Option<&ResultConfiguration>| {
            let call = || {
                let request = request.clone().set_result_configuration(place.cloned());
                async { request.send().await.map_err(|error| error::of_sdk("athena:StartQueryExecution", &resource, error)) }
            };
            patience.retried_unless(stopped_by(behalf), call).await
        };
        let answer = match results {
            Results::Own => sent(None).await,
            Results::Ours => sent(Some(ours()?)).await,
            Results::Unknown => match sent(None).await {
                Err(error) if lacks_a_place(&error) => sent(Some(ours()?)).await,
                answer => answer,
            },
        };
        let answer = answer.map_err(|error| match behalf {
            Some(behalf) if may_repeat(&error) && behalf.caller.cancel.is_cancelled() => {
                Error::new(ErrorKind::Cancelled, "no query was started, because the run is stopping").because(error)
            }
            _ => error,
        })?;
        answer.query_execution_id.ok_or_else(|| Error::internal("Athena started a query and gave it no id"))
    }

    /// Waits until a query ends, or until it is to stop.
    async fn finish(&self, behalf: Option<&Behalf>, id: &str) -> Result<QueryExecution> {
        let stopper = Stopper { athena: self.clone(), id: id.to_owned(), armed: true };
        let mut ended = self.watch(id);
        let lost = |_| Error::internal("the poller of queries has gone away");
        let ended = tokio::select! {
            ended = &mut ended => ended.map_err(lost)?,
            () = stopped_by(behalf) => {
                self.stop(id).await?;
                // A stopped query has read something, too; how much is known at its end.
                ended.await.map_err(lost)?
            }
        };
        // Of a query whose end nobody knows, nobody waits for the result.
        if ended.is_ok() {
            stopper.disarm();
        }
        ended
    }

    fn judge(&self, behalf: Option<&Behalf>, id: &str, workgroup: &str, found: &QueryExecution) -> Result<Execution> {
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let statistics = found.statistics();
        let bytes_scanned = number(statistics.and_then(|statistics| statistics.data_scanned_in_bytes()));
        let engine_ms = number(statistics.and_then(|statistics| statistics.engine_execution_time_in_millis()));
        let usage = Usage { bytes_scanned, engine_ms, queries: 1, ..Usage::default() };
        if let Some(behalf) = behalf {
            behalf.caller.meter.add_query(Query { id: id.to_owned(), bytes_scanned, engine_ms });
        }
        let failed = match found.status().and_then(|status| status.state()) {
            Some(State::Succeeded) => None,
            Some(State::Cancelled) if behalf.is_some_and(|behalf| behalf.caller.cancel.is_cancelled()) => {
                Some(Error::new(ErrorKind::Cancelled, "the query was stopped because the run is stopping"))
            }
            Some(State::Cancelled) if self.inner.settings.bytes_limit.is_some_and(|limit| bytes_scanned > limit) => Some(Error::new(
                ErrorKind::Budget,
                format!("a query was stopped after reading {bytes_scanned} bytes, more than the profile's `bytes_limit` allows"),
            )),
            Some(State::Cancelled) => Some(stopped(found)),
            _ => Some(failure(found.status().and_then(|status| status.athena_error()), reason(found))),
        };
        match failed {
            None => {
                let output = found.result_configuration().and_then(|results| results.output_location()).map(str::to_owned);
                Ok(Execution { id: id.to_owned(), output, usage })
            }
            Some(error) => {
                if let Some(behalf) = behalf {
                    behalf.caller.meter.add(usage);
                }
                Err(error.on("query", id).on("workgroup", workgroup))
            }
        }
    }

    async fn stop(&self, id: &str) -> Result<()> {
        self.inner
            .patience
            .retried(|| async {
                let stop = self.inner.client.stop_query_execution().query_execution_id(id).send().await;
                stop.map(|_| ()).map_err(|error| error::of_sdk("athena:StopQueryExecution", id, error))
            })
            .await
    }

    /// Adds a query to those that the poller watches.
    fn watch(&self, id: &str) -> oneshot::Receiver<Result<QueryExecution>> {
        let (result, ended) = oneshot::channel();
        let mut watched = self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        watched.queries.insert(id.to_owned(), Waiting { result, polls: 0, unknown: 0, silent: None });
        if !watched.polled {
            watched.polled = true;
            tokio::spawn(poll(self.inner.clone()));
        }
        ended
    }

    /// The first page of a query's result, without the header.
    pub(crate) async fn page(&self, id: &str, from: Option<&str>) -> Result<Page> {
        let request =
            self.inner.client.get_query_results().query_execution_id(id).max_results(ROWS_A_PAGE).set_next_token(from.map(str::to_owned));
        let answer = self
            .inner
            .patience
            .retried(|| {
                let request = request.clone();
                async { request.send().await.map_err(|error| error::of_sdk("athena:GetQueryResults", id, error)) }
            })
            .await?;
        let next = answer.next_token;
        let set = answer.result_set.ok_or_else(|| Error::internal("Athena gave a result without rows or columns"))?;
        let columns = set.result_set_metadata.and_then(|metadata| metadata.column_info).unwrap_or_default();
        let columns = columns.into_iter().map(|column| (column.name, column.r#type, column.precision, column.scale)).collect();
        let rows = set.rows.unwrap_or_default().into_iter().skip(usize::from(from.is_none()));
        let rows = rows.map(|row| row.data.unwrap_or_default().into_iter().map(|datum| datum.var_char_value).collect()).collect();
        Ok(Page { rows, columns, is_all: next.is_none(), next })
    }

    /// The workgroup of a caller, created if it is missing and may be created, and where its results go.
    async fn workgroup(&self, behalf: Option<&Behalf>) -> Result<(String, Results)> {
        let none = BTreeMap::new();
        let tags = behalf.map_or(&none, |behalf| behalf.caller.tags.as_ref());
        let name = workgroup_name(&self.inner.settings.workgroup, tags)?;
        // Locked meanwhile, so that it is created only once.
        let mut known = self.inner.workgroups.lock().await;
        if let Some(results) = known.get(&name) {
            return Ok((name, *results));
        }
        let resource = format!("workgroup/{name}");
        let found = self
            .inner
            .patience
            .retried(|| async {
                let found = self.inner.client.get_work_group().work_group(&name).send().await;
                found.map_err(|error| error::of_sdk("athena:GetWorkGroup", &resource, error))
            })
            .await;
        let results = match found {
            Ok(found) => results_of(found.work_group.as_ref().and_then(|workgroup| workgroup.configuration())),
            Err(error) if is_missing(&error) && self.inner.settings.create_workgroups => {
                self.create_workgroup(&name, tags).await?;
                // Whoever created it has said where its results go.
                Results::Unknown
            }
            Err(error) if is_missing(&error) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "no Athena workgroup `{name}`; create it, correct `workgroup` of the profile, or set `create_workgroups: true` there"
                    ),
                )
                .because(error));
            }
            // A caller who may not look at a workgroup may still be allowed to use it.
            Err(error) if error.kind() == ErrorKind::Denied && !self.inner.settings.create_workgroups => Results::Unknown,
            Err(error) => return Err(error),
        };
        known.insert(name.clone(), results);
        Ok((name, results))
    }

    async fn create_workgroup(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<()> {
        let settings = &self.inner.settings;
        let cutoff = settings.bytes_limit.map(|bytes| i64::try_from(bytes.max(MIN_CUTOFF_BYTES)).unwrap_or(i64::MAX));
        let configuration = WorkGroupConfiguration::builder()
            .set_result_configuration(settings.results.as_ref().map(|place| ResultConfiguration::builder().output_location(place).build()))
            .publish_cloud_watch_metrics_enabled(true)
            .set_bytes_scanned_cutoff_per_query(cutoff)
            .build();
        let mut request =
            self.inner.client.create_work_group().name(name).description("Made for a repair strategy").configuration(configuration);
        for (key, value) in tags {
            request = request.tags(Tag::builder().key(key).value(value).build());
        }
        let resource = format!("workgroup/{name}");
        match request.send().await.map_err(|error| error::of_sdk("athena:CreateWorkGroup", &resource, error)) {
            Ok(_) => Ok(()),
            // Someone else has created it meanwhile.
            Err(error) if error.full().contains("already created") || error.full().contains("already exists") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Ready when the attempt of a caller is to stop.
async fn stopped_by(behalf: Option<&Behalf>) {
    match behalf {
        Some(behalf) => behalf.caller.cancel.cancelled().await,
        None => std::future::pending().await,
    }
}

fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.full().contains("is not found")
}

fn state(found: &QueryExecution) -> Option<&State> {
    found.status().and_then(|status| status.state())
}

fn submitted(found: &QueryExecution) -> Option<Timestamp> {
    let at = found.status()?.submission_date_time()?;
    Timestamp::from_millisecond(at.to_millis().ok()?).ok()
}

fn reason(found: &QueryExecution) -> &str {
    found.status().and_then(|status| status.state_change_reason()).unwrap_or("no reason was given")
}

/// The error for a query that someone else stopped.
fn stopped(found: &QueryExecution) -> Error {
    let reason = reason(found);
    if reason.to_ascii_lowercase().contains("bytes scanned limit") {
        return Error::new(ErrorKind::Budget, format!("Athena stopped a query that read more than its workgroup allows: {reason}"));
    }
    Error::new(ErrorKind::Transient, format!("a query was stopped by someone else: {reason}"))
}

/// The error for a failed query. Athena says whether a retry is worthwhile; the rest follows from its words.
fn failure(error: Option<&AthenaError>, reason: &str) -> Error {
    let said = error.and_then(|error| error.error_message()).unwrap_or(reason);
    if let Some(why) = crate::sql::refused(said) {
        return Error::invalid(format!(
            "{why}; correct the file, or declare how it is written, or leave such rows out with `on_bad_row: {{ quarantine: 1% }}`"
        ));
    }
    let lower = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let (kind, advice) = if has(&["slowdown", "slow down", "reduce your request rate"]) {
        (ErrorKind::Throttled, "")
    } else if has(&["access denied", "accessdenied", "not authorized", "insufficient permissions", "permission_denied"]) {
        (ErrorKind::Denied, "; docs/aws.md lists the permissions it needs")
    } else if has(&["table_not_found", "schema_not_found", "entitynotfoundexception", "does not exist"]) {
        (ErrorKind::NotFound, "; check the profile's `database` and the table's name")
    } else if error.is_some_and(|error| error.retryable()) {
        (ErrorKind::Transient, "")
    } else {
        // 1 is Athena's own fault, 2 the user's: https://docs.aws.amazon.com/athena/latest/ug/error-reference.html
        match error.and_then(|error| error.error_category()) {
            Some(2) => (ErrorKind::Invalid, ""),
            _ => (ErrorKind::Internal, ""),
        }
    };
    Error::new(kind, format!("a query failed in Athena: {said}{advice}"))
}

/// The name of the workgroup for a workflow with these tags: each `{tag}` is replaced by the value of that tag.
///
/// # Errors
/// `invalid` if a tag is missing.
pub(crate) fn workgroup_name(template: &str, tags: &BTreeMap<String, String>) -> Result<String> {
    let mut name = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (tag, after) =
            after.split_once('}').ok_or_else(|| Error::invalid(format!("`workgroup: {template}` has a `{{` without its `}}`")))?;
        let value = tags.get(tag).ok_or_else(|| {
            let known: Vec<&str> = tags.keys().map(String::as_str).collect();
            Error::invalid(format!("`workgroup: {template}` needs a tag `{tag}`; the workflow's tags are: {}", known.join(", ")))
        })?;
        name.push_str(before);
        // The name of a workgroup allows fewer characters than the value of a tag.
        name.extend(value.chars().map(|char| if char.is_ascii_alphanumeric() || "._-".contains(char) { char } else { '-' }));
        rest = after;
    }
    name.push_str(rest);
    Ok(name)
}

/// A token that no other query has.
fn random_token(sql: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(sql.as_bytes());
    hasher.update(&Timestamp::now().as_nanosecond().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    hasher.update(&NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Stops a query whose result nobody waits for any more.
struct Stopper {
    athena: Athena,
    id: String,
    armed: bool,
}

impl Stopper {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        if self.armed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (athena, id) = (self.athena.clone(), std::mem::take(&mut self.id));
            runtime.spawn(async move {
                if let Err(error) = athena.stop(&id).await {
                    tracing::warn!(query = %id, %error, "could not stop a query that nobody waits for");
                }
            });
        }
    }
}

/// The one poller: asks for the status of all watched queries, many in one call, until there are none.
async fn poll(inner: Arc<Inner>) {
    let polling = inner.settings.polling;
    loop {
        let delay = {
            let mut watched = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            watched.queries.retain(|_, waiting| !waiting.result.is_closed());
            let Some(polls) = watched.queries.values().map(|waiting| waiting.polls).min() else {
                watched.polled = false;
                return;
            };
            polling.first.saturating_mul(1 << polls.min(16)).min(polling.longest)
        };
        tokio::time::sleep(delay).await;
        let ids: Vec<String> = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).queries.keys().cloned().collect();
        for ids in ids.chunks(IDS_A_CALL) {
            ask(&inner, ids).await;
        }
    }
}

async fn ask(inner: &Inner, ids: &[String]) {
    let asked = inner.client.batch_get_query_execution().set_query_execution_ids(Some(ids.to_vec())).send().await;
    let answer = asked.map_err(|error| error::of_sdk("athena:BatchGetQueryExecution", &ids.join(","), error));
    let mut watched = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = match answer {
        Ok(answer) => answer,
        // Athena is busy, so ask again later, for as long as any other call.
        Err(error) if may_repeat(&error) => {
            for id in ids {
                let Some(waiting) = watched.queries.get_mut(id) else { continue };
                waiting.polls += 1;
                let (since, polls) = waiting.silent.get_or_insert_with(|| (Instant::now(), 0));
                *polls += 1;
                if *polls >= LEAST_TRIES
                    && since.elapsed() > inner.patience.0
                    && let Some(waiting) = watched.queries.remove(id)
                {
                    let _ = waiting.result.send(Err(Error::new(error.kind(), error.full())));
                }
            }
            return;
        }
        Err(error) => {
            for id in ids {
                if let Some(waiting) = watched.queries.remove(id) {
                    let _ = waiting.result.send(Err(Error::new(error.kind(), error.full())));
                }
            }
            return;
        }
    };
    for execution in answer.query_executions.unwrap_or_default() {
        let Some(id) = execution.query_execution_id().map(str::to_owned) else { continue };
        // A running query may return to the queue, so only an end state counts.
        if matches!(state(&execution), Some(State::Succeeded | State::Failed | State::Cancelled)) {
            if let Some(waiting) = watched.queries.remove(&id) {
                let _ = waiting.result.send(Ok(execution));
            }
        } else if let Some(waiting) = watched.queries.get_mut(&id) {
            waiting.polls += 1;
            waiting.unknown = 0;
            waiting.silent = None;
            if let (Some(limit), Some(read)) =
                (inner.settings.bytes_limit, execution.statistics().and_then(|statistics| statistics.data_scanned_in_bytes()))
                && u64::try_from(read).is_ok_and(|read| read > limit)
            {
                let client = inner.client.clone();
                tokio::spawn(async move { client.stop_query_execution().query_execution_id(id).send().await });
            }
        }
    }
    for unknown in answer.unprocessed_query_execution_ids.unwrap_or_default() {
        let Some(id) = unknown.query_execution_id() else { continue };
        if let Some(waiting) = watched.queries.get_mut(id) {
            waiting.polls += 1;
            waiting.unknown += 1;
            if waiting.unknown > MAX_UNKNOWN
                && let Some(waiting) = watched.queries.remove(id)
            {
                let said = unknown.error_message().unwrap_or("it is unknown");
                let _ =
                    waiting.result.send(Err(Error::new(ErrorKind::Transient, format!("Athena returned no status of query {id}: {said}"))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workgroup_is_named_by_tags() {
        let tags = BTreeMap::from([("idea".to_owned(), "carry forward".to_owned())]);
        assert_eq!(workgroup_name("repair-{idea}", &tags).unwrap(), "repair-carry-forward");
        assert_eq!(workgroup_name("repair", &tags).unwrap(), "repair");
        assert!(workgroup_name("repair-{team}", &tags).unwrap_err().message().contains("needs a tag `team`"));
        assert!(workgroup_name("repair-{idea", &tags).is_err());
    }

    #[test]
    fn athena_error_decides_the_kind() {
        let of = |category, retryable, message: &str| {
            let error = AthenaError::builder().error_category(category).retryable(retryable).error_message(message).build();
            failure(Some(&error), "").kind()
        };
        assert_eq!(of(1, true, "internal"), ErrorKind::Transient);
        assert_eq!(of(1, false, "internal"), ErrorKind::Internal);
        assert_eq!(of(2, false, "SYNTAX_ERROR: line 1:8"), ErrorKind::Invalid);
        assert_eq!(of(2, false, "TABLE_NOT_FOUND: line 1:15: Table 'a.b.c' does not exist"), ErrorKind::NotFound);
        assert_eq!(of(2, false, "Access Denied (Service: Amazon S3)"), ErrorKind::Denied);
        assert_eq!(of(1, true, "Please reduce your request rate. (Service: Amazon S3; Error Code: SlowDown)"), ErrorKind::Throttled);
    }
}
