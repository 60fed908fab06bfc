//! Which page or action a request means. What is answered is decided elsewhere.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{Stream, StreamExt};
use repair::{Error, ErrorKind, Result};

use crate::action::Form;
use crate::guard::Refused;
use crate::page;
use crate::server::Shared;

/// How many bytes a form may have.
const MOST_FORM: usize = 256 * 1024;
/// The least time between two messages to a reader, so that a busy lake does not keep pages busy.
const PACE: Duration = Duration::from_millis(300);
/// What a page may load and do: its own style, script and messages, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";
/// What the page of a report may: it has a policy of its own, with the hashes of its style and script.
const REPORT_POLICY: &str = "frame-ancestors 'none'";

type App = State<Arc<Shared>>;

/// All routes, behind the guard.
pub(crate) fn app(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/workflows/{name}", get(workflow))
        .route("/workflows/{name}/{action}", post(begin))
        .route("/plans/{id}", get(plan))
        .route("/plans/{id}/apply", post(apply))
        .route("/lakes/{lake}/runs/{run}", get(run))
        .route("/lakes/{lake}/runs/{run}/report", get(report))
        .route("/lakes/{lake}/runs/{run}/{action}", post(act))
        .route("/tables", get(tables))
        .route("/api/status", get(api_status))
        .route("/api/runs", get(api_runs))
        .route("/api/schedules", get(api_schedules))
        .route("/api/lakes/{lake}/runs/{run}", get(api_run))
        .route("/events", get(events))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/page.css", get(async || ([(CONTENT_TYPE, "text/css; charset=utf-8")], page::style())))
        .route("/page.js", get(async || ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], page::SCRIPT)))
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such page\n"))
        .layer(DefaultBodyLimit::max(MOST_FORM))
        .layer(middleware::from_fn_with_state(shared.clone(), guarded))
        .with_state(shared)
}

/// Answers only whom the guard lets pass, and says in each answer what it may be used for.
async fn guarded(State(shared): App, request: Request, next: Next) -> Response {
    let mut response = match shared.guard.reads(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refusal(refused),
    };
    let fixed = [
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("x-frame-options"), "DENY"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, axum::http::HeaderValue::from_static(value));
    }
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(axum::http::HeaderValue::from_static(POLICY));
    response
}

fn refusal(refused: Refused) -> Response {
    let answer = (refused.status(), refused.why());
    if refused == Refused::Token {
        ([(WWW_AUTHENTICATE, "Basic realm=\"repair\", charset=\"UTF-8\"")], answer).into_response()
    } else {
        answer.into_response()
    }
}

/// A page, or a page that says why there is none.
fn answered(shared: &Shared, page: Result<Bytes>) -> Response {
    match page {
        Ok(page) => html(StatusCode::OK, page),
        Err(error) => html(status_of(&error), page::error(shared, &error)),
    }
}

fn html(status: StatusCode, page: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], page.into()).into_response()
}

fn status_of(error: &Error) -> StatusCode {
    match error.kind() {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Budget => StatusCode::PAYMENT_REQUIRED,
        ErrorKind::Transient | ErrorKind::Throttled | ErrorKind::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

async fn overview(State(shared): App) -> Response {
    let page = shared.page("/", async || Ok(page::overview(&shared))).await;
    answered(&shared, page)
}

async fn workflow(State(shared): App, Path(name): Path<String>) -> Response {
    let page = shared.page(&format!("/workflows/{name}"), async || page::workflow(&shared, shared.workflow(&name)?.as_ref())).await;
    answered(&shared, page)
}

async fn run(State(shared): App, Path((lake, run)): Path<(usize, String)>) -> Response {
    let page = shared.page(&format!("/lakes/{lake}/runs/{run}"), async || page::run(&shared, lake, &run).await).await;
    answered(&shared, page)
}

async fn tables(State(shared): App) -> Response {
    let page = shared.page("/tables", async || Ok(page::tables(&shared).await)).await;
    answered(&shared, page)
}

async fn api_status(State(shared): App) -> Response {
    let made = async {
        let mut lakes = Vec::new();
        for watched in shared.lakes() {
            lakes.push(serde_json::json!({ "place": watched.place, "status": page::status_of(&watched).await?.map(to_json).transpose()? }));
        }
        Ok(serde_json::json!({ "format": 1, "lakes": lakes }))
    };
    json(made.await)
}

async fn plan(State(shared): App, Path(id): Path<String>) -> Response {
    let page = shared.planned(&id).map(|planned| page::plan(&shared, &planned).into());
    answered(&shared, page)
}

async fn report(State(shared): App, Path((lake, run)): Path<(usize, String)>) -> Response {
    let made = async { shared.lake(lake)?.lake.report_on(run).await };
    match made.await {
        Ok(report) => {
            let mut response = html(StatusCode::OK, report.html());
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, axum::http::HeaderValue::from_static(REPORT_POLICY));
            response
        }
        Err(error) => answered(&shared, Err(error)),
    }
}

/// Reads a form, if the request may change something, and shows the page to which that leads.
async fn changing<F>(shared: &Arc<Shared>, headers: &HeaderMap, body: &Bytes, perform: impl FnOnce(Form) -> F) -> Response
where
    F: Future<Output = Result<String>>,
{
    let form: Form = form_urlencoded::parse(body).into_owned().collect();
    if let Err(refused) = shared.guard.changes(headers, form.get("secret").map(String::as_str)) {
        return refusal(refused);
    }
    match perform(form).await {
        Ok(place) => match place.parse::<axum::http::HeaderValue>() {
            Ok(place) => (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response(),
            Err(_) => answered(shared, Err(Error::internal("a place that is none"))),
        },
        Err(error) => answered(shared, Err(error)),
    }
}

async fn begin(State(shared): App, Path((name, action)): Path<(String, String)>, headers: HeaderMap, body: Bytes) -> Response {
    changing(&shared, &headers, &body, async |form| match action.as_str() {
        "run" => shared.start(&name, &form).await,
        "plan" => shared.plan(&name, &form).await,
        _ => Err(Error::new(ErrorKind::NotFound, format!("`{action}` is nothing that can be done with a workflow"))),
    })
    .await
}

async fn apply(State(shared): App, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    changing(&shared, &headers, &body, async |_| shared.apply(&id).await).await
}

async fn act(State(shared): App, Path((lake, run, action)): Path<(usize, String, String)>, headers: HeaderMap, body: Bytes) -> Response {
    changing(&shared, &headers, &body, async |form| shared.act(lake, &run, &action, &form).await).await
}

fn json(made: Result<serde_json::Value>) -> Response {
    let (status, value) = match made {
        Ok(value) => (StatusCode::OK, value),
        Err(error) => (status_of(&error), serde_json::json!({ "error": error.full(), "kind": error.kind().as_str() })),
    };
    (status, [(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn to_json(value: impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Error::internal("this is not JSON").because(error))
}

async fn api_runs(State(shared): App) -> Response {
    let of_lake = |(number, watched): (usize, &Arc<crate::watch::Watched>)| {
        let seen = watched.seen();
        Ok(serde_json::json!({ "lake": number, "place": watched.place, "error": seen.error, "runs": to_json(&seen.runs)? }))
    };
    let lakes = shared.lakes().iter().enumerate().map(of_lake).collect::<Result<Vec<_>>>();
    json(lakes.map(|lakes| serde_json::json!({ "format": 1, "lakes": lakes })))
}

async fn api_schedules(State(shared): App) -> Response {
    let mut schedules: Vec<_> = shared.schedules().into_values().collect();
    schedules.sort_by(|a, b| a.workflow.cmp(&b.workflow));
    json(to_json(schedules).map(|schedules| serde_json::json!({ "format": 1, "schedules": schedules })))
}

async fn api_run(State(shared): App, Path((lake, run)): Path<(usize, String)>) -> Response {
    let made = async { to_json(shared.lake(lake)?.lake.report(&run).await?) };
    json(made.await)
}

async fn metrics(State(shared): App) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], crate::metrics::text(&shared)).into_response()
}

/// A message each time that something has changed. A reader that is slow gets fewer messages, and nobody waits for it.
async fn events(State(shared): App) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changed = shared.changed.subscribe();
    shared.wake.notify_waiters();
    let messages = futures::stream::unfold((changed, true), |(mut changed, is_first)| async move {
        if !is_first {
            tokio::time::sleep(PACE).await;
            changed.changed().await.ok()?;
        }
        let version = *changed.borrow_and_update();
        Some((Ok(Event::default().event("changed").data(version.to_string())), (changed, false)))
    });
    let stop = shared.stop.clone();
    Sse::new(messages.take_until(async move { stop.cancelled().await })).keep_alive(KeepAlive::default())
}
