//! What the sources over HTTP share: a client that sends keys to one place only, replies of bounded size, errors in the workflow's kinds,
//! and pages that end.
//!
//! It must not know what a bar is. Keys come from the environment, go into headers, and appear nowhere else: what is shown of a URL has
//! no query, and of a reply no key.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use repair_core::builtin::Period;
use repair_core::plugin::StepContext;
use repair_core::{Error, ErrorKind, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Looks a variable of the environment up by its name.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How long one request may take, unless the workflow says otherwise.
const TIMEOUT: Period = Period::minutes(1);

/// A reply beyond this is no page of bars: 50,000 of them, the most that any of these APIs brings, are some 6 MB.
const MOST_BYTES: usize = 32 << 20;
/// Pages of one answer beyond this would be of a few bars each.
const MOST_PAGES: u64 = 1_000;
/// An API that filters after it pages may bring a page without bars; one that goes on like that does not end.
const MOST_EMPTY_PAGES: u64 = 3;
/// Redirects within the API's own host that are followed for one request.
const MOST_REDIRECTS: usize = 3;
/// What is shown of a reply that makes no sense.
const SHOWN_CHARS: usize = 120;
/// What of a reply is looked at to show its beginning.
const LOOKED_AT_BYTES: usize = 8 << 10;
/// A wait that an API asks for is believed up to this.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);
/// So long is waited for more requests to be allowed; beyond it the workflow's `retry` says what to do.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(2);

/// A key of an API. It can be put into a header, and taken out of a text, but not shown.
#[derive(Clone)]
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    /// The value of the first of these variables that is set.
    ///
    /// # Errors
    /// `denied` if none is, or it cannot be a key.
    pub(super) fn read(variables: &Variables, provider: &str, names: &[&str]) -> Result<Self> {
        let value = names.iter().find_map(|name| variables(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()));
        let Some(value) = value else {
            let names = names.join(" (or ");
            let close = if names.contains('(') { ")" } else { "" };
            return Err(Error::new(
                ErrorKind::Denied,
                format!("{provider} needs a key, and the environment holds none; set {names}{close}, and never write it into a workflow"),
            ));
        };
        if value.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(value))
        } else {
            Err(Error::new(ErrorKind::Denied, format!("what {} holds cannot be a key of {provider}; set it anew", names.join(" or "))))
        }
    }

    /// As the value of a header, with something before it.
    pub(super) fn header(&self, before: &str) -> Result<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("{before}{}", self.0)).map_err(|_| Error::internal("a key that was checked"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// One request to an API.
pub(super) struct Call {
    /// What to get. Without keys.
    pub(super) url: Url,
    /// The headers that hold the keys.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The keys, which are taken out of whatever is shown.
    pub(super) secrets: Vec<Secret>,
    /// The variables that hold the keys, to say what to mend.
    pub(super) variables: &'static str,
}

/// An API, at one place.
pub(super) struct Api {
    provider: &'static str,
    base: Url,
    timeout: Duration,
    client: OnceLock<Client>,
    /// When the API allows the next request, if it has said that it allows none before.
    next: Mutex<Option<Timestamp>>,
}

impl Api {
    /// The API at a place.
    ///
    /// # Errors
    /// `invalid` if there can be none, or keys would go there unencrypted.
    pub(super) fn new(provider: &'static str, base_url: &str, timeout: Option<Period>) -> Result<Self> {
        let wrong =
            |what: &str| Error::invalid(format!("`base_url` {what}; write e.g. `https://proxy.example/{}`", provider.to_lowercase()));
        let base = Url::parse(base_url).map_err(|error| wrong(&format!("is no URL ({error})")))?;
        if base.query().is_some() || base.fragment().is_some() || !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("holds more than a host and a path, and keys belong in the environment"));
        }
        match base.scheme() {
            "https" => {}
            "http" if is_loopback(&base) => {}
            "http" => return Err(wrong("is not encrypted, and keys are sent there")),
            _ => return Err(wrong("is neither https nor, of this machine, http")),
        }
        let timeout = timeout.unwrap_or(TIMEOUT).duration();
        Ok(Self { provider, base, timeout, client: OnceLock::new(), next: Mutex::new(None) })
    }

    /// The URL of a path under the place, its parts encoded.
    ///
    /// # Errors
    /// `internal` if the place cannot have paths, which was checked.
    pub(super) fn url(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| Error::internal("a URL without paths"))?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// The client, made on first use: to read the system's certificates takes a while, and may fail.
    pub(super) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let to_itself = redirect::Policy::custom(|attempt| {
            let first = attempt.previous().first().map(Url::origin);
            let stays = first.is_some_and(|first| first == attempt.url().origin());
            if stays && attempt.previous().len() <= MOST_REDIRECTS { attempt.follow() } else { attempt.stop() }
        });
        let mut builder = Client::builder()
            .user_agent(concat!("repair-stocks/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            .redirect(to_itself)
            .referer(false);
        if is_loopback(&self.base) {
            // Neither a proxy nor the system's certificates have a say within the machine.
            builder = builder.no_proxy();
            if self.base.scheme() == "http" {
                builder = builder.tls_certs_only([]);
            }
        }
        let client = builder.build().map_err(|error| {
            Error::new(ErrorKind::Denied, format!("no connection to {} can be made safe; are certificates installed here?", self.provider))
                .because(error)
        })?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Gets one page.
    ///
    /// # Errors
    /// `throttled`, `denied`, `not-found`, `transient`, `timeout`, `invalid` as the API says, or `cancelled`.
    pub(super) async fn get<T: DeserializeOwned>(&self, context: &StepContext, call: &Call) -> Result<T> {
        let stopped = || Error::new(ErrorKind::Cancelled, "the run was told to stop");
        let reply = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(stopped()),
            reply = self.exchange(context, call) => reply?,
        };
        context.beat();
        if reply.status.is_success() { self.read(call, &reply) } else { Err(self.refusal(context, call, &reply)) }
    }

    async fn exchange(&self, context: &StepContext, call: &Call) -> Result<Reply> {
        self.wait_for_turn(context).await?;
        let mut request = self.client()?.get(call.url.clone());
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| self.unreachable(call, error))?;
        self.note_allowance(context, response.headers());
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.body(call, response).await?;
        tracing::debug!(provider = self.provider, place = place(&call.url), status = status.as_u16(), bytes = body.len(), "answered");
        Ok(Reply { status, headers, body })
    }

    async fn body(&self, call: &Call, mut response: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(call, error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(self.senseless(call, &format!("more than {} MiB", MOST_BYTES >> 20), &body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Waits while the API has said that it allows no request.
    async fn wait_for_turn(&self, context: &StepContext) -> Result<()> {
        let next = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = next.filter(|next| *next > context.clock.now()) else { return Ok(()) };
        let wait = next.duration_since(context.clock.now());
        if wait > LONGEST_PAUSE {
            let message = format!("{} allows no request before {next}", self.provider);
            return Err(Error::new(ErrorKind::Throttled, message).retry_after(wait.unsigned_abs()));
        }
        context.clock.sleep_until(next).await;
        Ok(())
    }

    /// Notes when the next request is allowed, if this was the last one.
    fn note_allowance(&self, context: &StepContext, headers: &HeaderMap) {
        let left = number(headers, "x-ratelimit-remaining");
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = match (left, reset(headers)) {
            (Some(0), Some(reset)) => Some(reset.min(context.clock.now().saturating_add(LONGEST_WAIT).unwrap_or(reset))),
            // An older reply may come later: what it says of the past must not undo what is known.
            _ => next.filter(|next| *next > context.clock.now()),
        };
    }

    fn unreachable(&self, call: &Call, error: reqwest::Error) -> Error {
        let (kind, what) = if error.is_timeout() {
            (ErrorKind::Timeout, format!("did not answer within {:?}", self.timeout))
        } else if error.is_connect() {
            (ErrorKind::Transient, "could not be reached".to_owned())
        } else {
            (ErrorKind::Transient, "broke off its answer".to_owned())
        };
        // The URL of a further page comes from the other side; nothing of it is worth to be shown.
        Error::new(kind, format!("{} {what}, asked for {}", self.provider, place(&call.url))).because(error.without_url())
    }

    fn read<T: DeserializeOwned>(&self, call: &Call, reply: &Reply) -> Result<T> {
        let mut json = serde_json::Deserializer::from_slice(&reply.body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let kind = reply.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no type given");
            let path = error.path().to_string();
            let at = if path == "." { String::new() } else { format!(" at `{}`", shown(path.as_bytes(), &call.secrets)) };
            let why = shown(error.inner().to_string().as_bytes(), &call.secrets);
            let kind = shown(kind.as_bytes(), &call.secrets);
            self.senseless(call, &format!("no page of bars{at} ({kind}: {why})"), &reply.body)
        })?;
        json.end().map_err(|error| self.senseless(call, &format!("more than one value ({error})"), &reply.body))?;
        Ok(value)
    }

    /// An answer that makes no sense, with its beginning.
    fn senseless(&self, call: &Call, what: &str, body: &[u8]) -> Error {
        let message = format!("{} answered {} with {what}; it begins: {}", self.provider, place(&call.url), shown(body, &call.secrets));
        Error::invalid(message)
    }

    /// What a reply that is no success means.
    fn refusal(&self, context: &StepContext, call: &Call, reply: &Reply) -> Error {
        let status = reply.status;
        let said = said(&reply.body).map_or_else(|| shown(&reply.body, &call.secrets), |said| shown(said.as_bytes(), &call.secrets));
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let what = format!("{} answered {} with {}{said}", self.provider, place(&call.url), status.as_u16());
        if status.is_redirection() {
            let to = reply.headers.get(LOCATION).and_then(|to| call.url.join(to.to_str().ok()?).ok());
            let to = to.map_or_else(|| "somewhere else".to_owned(), |to| place(&to));
            return Error::invalid(format!("{what}, which leads to {to}; keys are sent to {} only, mend `base_url`", place(&self.base)));
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let error = Error::new(ErrorKind::Throttled, format!("{what}; lower the source's `rate_limit`"));
                match wait_asked_for(&reply.headers, context.clock.now()) {
                    Some(wait) => error.retry_after(wait),
                    None => error,
                }
            }
            StatusCode::UNAUTHORIZED => Error::new(ErrorKind::Denied, format!("{what}; look at {}", call.variables)),
            StatusCode::FORBIDDEN => Error::new(
                ErrorKind::Denied,
                format!("{what}; look at {}, and whether your plan includes what is asked for", call.variables),
            ),
            StatusCode::NOT_FOUND => {
                Error::new(ErrorKind::NotFound, format!("{what}; look at `base_url`, and how the symbols are written"))
            }
            StatusCode::REQUEST_TIMEOUT => Error::new(ErrorKind::Timeout, what),
            // Clients of these APIs try again after them.
            StatusCode::PAYLOAD_TOO_LARGE => Error::new(ErrorKind::Transient, what),
            status if status.is_server_error() || status.as_u16() == 499 => {
                let error = Error::new(ErrorKind::Transient, what);
                match wait_asked_for(&reply.headers, context.clock.now()) {
                    Some(wait) => error.retry_after(wait),
                    None => error,
                }
            }
            _ => Error::invalid(what),
        }
    }
}

/// A reply, whole.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

/// A URL as it may be shown: without query and user.
fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The beginning of a text as it may be shown: on one line, without keys.
pub(super) fn shown(text: &[u8], secrets: &[Secret]) -> String {
    let whole = text.len() <= LOOKED_AT_BYTES;
    let mut text = String::from_utf8_lossy(text.get(..LOOKED_AT_BYTES).unwrap_or(text)).into_owned();
    for secret in secrets {
        text = text.replace(&secret.0, "…");
    }
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let cut: String = line.chars().take(SHOWN_CHARS).collect();
    if whole && cut.len() == line.len() { cut } else { cut + " …" }
}

/// What an error says for itself.
fn said(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    ["message", "error"].iter().find_map(|name| body.get(name)?.as_str().map(str::to_owned))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    text(headers, name)?.parse().ok()
}

/// When the allowance begins anew.
fn reset(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::from_second(number(headers, "x-ratelimit-reset")?).ok()
}

/// How long to wait before the next request: `Retry-After` (RFC 9110, section 10.2.3: seconds or a date), or until the allowance begins
/// anew.
fn wait_asked_for(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds = number(headers, RETRY_AFTER.as_str()).map(SignedDuration::from_secs);
    let until = |instant: Timestamp| instant.duration_since(now);
    let date = || jiff::fmt::rfc2822::parse(text(headers, RETRY_AFTER.as_str())?).ok().map(|date| until(date.timestamp()));
    let wait = seconds.or_else(date).or_else(|| reset(headers).map(until))?;
    Duration::try_from(wait.clamp(SignedDuration::ZERO, LONGEST_WAIT)).ok()
}

/// How many pages an answer may have, as a source is configured.
///
/// # Errors
/// `invalid` if it is none, or more than makes sense.
pub(super) fn most_pages(configured: Option<u64>) -> Result<u64> {
    match configured {
        None => Ok(MOST_PAGES),
        Some(pages) if (1..=MOST_PAGES).contains(&pages) => Ok(pages),
        Some(pages) => Err(Error::invalid(format!("`max_pages` is from 1 to {MOST_PAGES}, not {pages}"))),
    }
}

/// The pages of one answer so far, which must end.
pub(super) struct Paging {
    provider: &'static str,
    most_pages: u64,
    /// More bars than this cannot be in the answer.
    possible_bars: u64,
    bars: u64,
    pages: u64,
    empty_pages: u64,
    tokens: HashSet<String>,
}

impl Paging {
    pub(super) fn new(provider: &'static str, most_pages: u64, possible_bars: u64) -> Self {
        Self { provider, most_pages, possible_bars, bars: 0, pages: 0, empty_pages: 0, tokens: HashSet::new() }
    }

    /// How many pages came.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Counts a page, and the token of the next.
    ///
    /// # Errors
    /// `invalid` if the pages do not end, or bring more bars than there can be.
    pub(super) fn turn(&mut self, bars: usize, next: Option<&str>) -> Result<()> {
        self.pages += 1;
        self.bars = self.bars.saturating_add(bars as u64);
        self.empty_pages = if bars == 0 { self.empty_pages + 1 } else { 0 };
        if self.bars > self.possible_bars {
            return Err(Error::invalid(format!(
                "{} answered with more bars than the {} minutes that were asked for; nothing of it is used, look at the source",
                self.provider, self.possible_bars
            )));
        }
        let Some(token) = next else { return Ok(()) };
        if !self.tokens.insert(token.to_owned()) {
            return Err(self.endless(&format!("page {} leads to a page that came before", self.pages)));
        }
        if self.empty_pages > MOST_EMPTY_PAGES {
            return Err(self.endless(&format!("{} pages without a bar, and yet another", self.empty_pages)));
        }
        if self.pages >= self.most_pages {
            return Err(self.endless(&format!("more than {} pages, which are its `max_pages`", self.most_pages)));
        }
        Ok(())
    }

    fn endless(&self, what: &str) -> Error {
        Error::invalid(format!("the answer of {} does not end: {what}; nothing of it is used, look at the source", self.provider))
    }
}
