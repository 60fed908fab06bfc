//! What all plug-ins share that ask over HTTP: a client that sends keys to one host only, replies of bounded size, errors with the workflow's kinds, and
//! paging that ends.
//!
//! It must not know what a row is. Keys go into headers, and appear nowhere else: URLs are shown without their query, and replies without
//! keys.

use std::collections::HashSet;
use std::io::Read as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use jiff::{SignedDuration, Timestamp};
use repair_core::builtin::Period;
use repair_core::plugin::StepContext;
use repair_core::{Error, ErrorKind, Result};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde_json::Value;

use crate::http::answers::AnswerRule;
use crate::secret::{Secret, without};

/// The default time limit of one request.
const TIMEOUT: Period = Period::minutes(1);

/// The largest reply, unpacked. A page of 50,000 bars, the most that any of these APIs returns, has about 6 MB.
const MOST_BYTES: usize = 32 << 20;
/// The most pages of one answer. With more, each would hold only a few bars.
const MOST_PAGES: u64 = 1_000;
/// The most pages without rows in a row. An API that filters after paging may return a few; one that returns more may never end.
const MOST_EMPTY_PAGES: u64 = 3;
/// How many characters of an unreadable reply are shown.
const SHOWN_CHARS: usize = 120;
/// How many bytes of a reply are examined to show its beginning.
const LOOKED_AT_BYTES: usize = 8 << 10;
/// The longest wait that an API can ask for; longer ones are cut to this.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);
/// How long we wait for the API to allow more requests; for a longer wait, the workflow's `retry` decides.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(2);

/// The words in which errors speak of an API.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Words {
    /// The key of the configuration that holds its address.
    pub address: &'static str,
    /// What a page holds, such as `bars`.
    pub rows: &'static str,
    /// What rows are for, such as `minutes`.
    pub slots: &'static str,
    /// What is asked for, such as `symbols`.
    pub keys: &'static str,
}

impl Default for Words {
    /// Those for an API that a workflow describes.
    fn default() -> Self {
        Self { address: "base_url", rows: "rows", slots: "slots", keys: "keys" }
    }
}

impl Words {
    /// The same words with others for what a page holds, what rows are for, and what is asked for.
    #[must_use]
    pub fn with(self, rows: &'static str, slots: &'static str, keys: &'static str) -> Self {
        Self { rows, slots, keys, ..self }
    }

    /// The same words for an address that another key of the configuration holds.
    #[must_use]
    pub(crate) fn with_address(self, address: &'static str) -> Self {
        Self { address, ..self }
    }
}

/// One request to an API.
#[derive(Clone)]
pub(crate) struct Call {
    /// The method.
    pub(crate) method: Method,
    /// The URL. Its query is never shown.
    pub(crate) url: Url,
    /// What is sent.
    pub(crate) body: Option<Vec<u8>>,
    /// The headers that hold the keys.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The keys, which are removed from everything that is shown.
    pub(crate) secrets: Vec<Secret>,
    /// The variables that hold the keys, for messages that say what to check.
    pub(crate) variables: String,
}

/// An API at one address.
pub(crate) struct Api {
    provider: String,
    words: Words,
    base: Url,
    timeout: Duration,
    client: OnceLock<Client>,
    /// When the API allows the next request, if it said that it allows none before.
    next: Mutex<Option<Timestamp>>,
}

impl Api {
    /// An API at an address.
    ///
    /// # Errors
    /// `invalid` if the address is not that of an API, or keys would be sent to it unencrypted.
    pub(crate) fn new(provider: impl Into<String>, base_url: &str, timeout: Option<Period>, words: Words) -> Result<Self> {
        let provider = provider.into();
        let address = words.address;
        let wrong =
            |what: &str| Error::invalid(format!("`{address}` {what}; write e.g. `https://proxy.example/{}`", provider.to_lowercase()));
        let base = Url::parse(base_url).map_err(|error| wrong(&format!("is not a URL ({error})")))?;
        if base.query().is_some() || base.fragment().is_some() || !base.username().is_empty() || base.password().is_some() {
            return Err(wrong("must have only a host and a path; keys belong in the environment"));
        }
        match base.scheme() {
            "https" => {}
            "http" if is_loopback(&base) => {}
            "http" => return Err(wrong("is not encrypted, but keys would be sent there")),
            _ => return Err(wrong("must use https, or http on this machine")),
        }
        let timeout = timeout.unwrap_or(TIMEOUT).duration();
        Ok(Self { provider, words, base, timeout, client: OnceLock::new(), next: Mutex::new(None) })
    }

    /// The URL of a path under the address, with its parts encoded.
    ///
    /// # Errors
    /// `internal` if the address cannot have paths, which was checked before.
    pub(crate) fn url(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| Error::internal("the URL cannot have a path"))?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// The client, made on first use, because reading the system's certificates takes a while and may fail.
    pub(crate) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("repair/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]))
            .timeout(self.timeout)
            // Each request is reserved, counted and paced, and a redirect would be one more.
            .redirect(redirect::Policy::none())
            .referer(false);
        if is_loopback(&self.base) {
            // Within the machine, proxies and the system's certificates do not apply.
            builder = builder.no_proxy();
            if self.base.scheme() == "http" {
                builder = builder.tls_certs_only([]);
            }
        }
        let client = builder.build().map_err(|error| {
            Error::new(
                ErrorKind::Denied,
                format!("no secure connection to {} is possible; check that certificates are installed on this machine", self.provider),
            )
            .because(error)
        })?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Sends a request, and returns the reply, whatever its status is.
    ///
    /// # Errors
    /// `throttled`, if the API allows no request for long; `transient` or `timeout`, if there is no whole reply; `invalid`, if it is too large;
    /// `cancelled`.
    pub(crate) async fn send(&self, context: &StepContext, call: &Call) -> Result<Reply> {
        let stopped = || Error::new(ErrorKind::Cancelled, "the run was asked to stop");
        let reply = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(stopped()),
            reply = self.exchange(context, call) => reply?,
        };
        context.beat();
        Ok(reply)
    }

    async fn exchange(&self, context: &StepContext, call: &Call) -> Result<Reply> {
        self.wait_for_turn(context).await?;
        let mut request = self.client()?.request(call.method.clone(), call.url.clone());
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| self.unreachable(call, error))?;
        self.note_allowance(context, response.headers());
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.unpacked(call, &headers, self.body(call, response).await?)?;
        tracing::debug!(provider = %self.provider, place = place(&call.url), status = status.as_u16(), bytes = body.len(), "answered");
        Ok(Reply { status, headers, body })
    }

    async fn body(&self, call: &Call, mut response: Response) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(call, error))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(self.too_large(call, &body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A reply as it was before it was packed for the way. The client could do it, with three more crates and no bound.
    fn unpacked(&self, call: &Call, headers: &HeaderMap, body: Vec<u8>) -> Result<Vec<u8>> {
        let packed = headers.get(CONTENT_ENCODING).filter(|_| !body.is_empty());
        let Some(packed) = packed.filter(|packed| !packed.as_bytes().eq_ignore_ascii_case(b"identity")) else { return Ok(body) };
        if ![&b"gzip"[..], b"x-gzip"].iter().any(|known| packed.as_bytes().eq_ignore_ascii_case(known)) {
            let packed = shown(packed.as_bytes(), &call.secrets);
            let what = format!("an answer that is packed as `{packed}`; only gzip is asked for and read");
            return Err(Error::invalid(format!("{} answered {} with {what}", self.provider, place(&call.url))));
        }
        let mut whole = Vec::new();
        MultiGzDecoder::new(&*body).take(MOST_BYTES as u64 + 1).read_to_end(&mut whole).map_err(|error| {
            let what = format!("sent an answer that cannot be unpacked; the request was for {}", place(&call.url));
            Error::new(ErrorKind::Transient, format!("{} {what}", self.provider)).because(error)
        })?;
        if whole.len() > MOST_BYTES { Err(self.too_large(call, &whole)) } else { Ok(whole) }
    }

    fn too_large(&self, call: &Call, body: &[u8]) -> Error {
        self.unusable(call, &format!("more than {} MiB", MOST_BYTES >> 20), body)
    }

    /// Waits until the API allows a request.
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

    /// Records when the next request is allowed, if this was the last one allowed for now.
    fn note_allowance(&self, context: &StepContext, headers: &HeaderMap) {
        let left = number(headers, "x-ratelimit-remaining");
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = match (left, reset(headers)) {
            (Some(0), Some(reset)) => Some(reset.min(context.clock.now().saturating_add(LONGEST_WAIT).unwrap_or(reset))),
            // Replies may arrive out of order, so an older one must not undo what is known.
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
        // The URL of a further page comes from the other side, so the cause is shown without it.
        Error::new(kind, format!("{} {what}; the request was for {}", self.provider, place(&call.url))).because(error.without_url())
    }

    /// The error for a reply whose rows are none, with why.
    pub(crate) fn no_page(&self, call: &Call, why: &str, body: &[u8]) -> Error {
        let why = in_line(why, &call.secrets);
        self.unusable(call, &format!("something that is not a page of {} ({why})", self.words.rows), body)
    }

    /// The value of JSON that a reply is.
    ///
    /// # Errors
    /// `invalid`, with the place where it is something else, and its beginning.
    pub(crate) fn read(&self, call: &Call, reply: &Reply) -> Result<Value> {
        let mut json = serde_json::Deserializer::from_slice(&reply.body);
        let value = Value::deserialize(&mut json).map_err(|error| {
            let kind = reply.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no type given");
            self.no_page(call, &format!("{kind}: {error}"), &reply.body)
        })?;
        json.end().map_err(|error| self.unusable(call, &format!("more than one value ({error})"), &reply.body))?;
        Ok(value)
    }

    /// The error for a reply that cannot be used, which shows how the reply begins.
    pub(crate) fn unusable(&self, call: &Call, what: &str, body: &[u8]) -> Error {
        let message =
            format!("{} answered {} with {what}; the answer begins: {}", self.provider, place(&call.url), shown(body, &call.secrets));
        Error::invalid(message)
    }

    /// The error for a reply that a rule calls one: what the rule found, what the reply says, and how long it asks to wait.
    pub(crate) fn refused_as(&self, context: &StepContext, call: &Call, reply: &Reply, rule: &AnswerRule, kind: ErrorKind) -> Error {
        let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
        let there = rule.at.as_ref().and_then(|at| body.as_ref()?.pointer(at));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let found = there.map(text);
        let message = said(&reply.body).filter(|said| found.as_ref() != Some(said));
        let why = match (&rule.at, &found) {
            (None, _) => String::new(),
            (Some(at), None) => format!(", without anything at `{at}`"),
            (Some(at), Some(found)) => format!(", where `{at}` is `{}`", shown(found.as_bytes(), &call.secrets)),
        };
        let more = match (message, &found) {
            (Some(said), _) => format!(": {}", shown(said.as_bytes(), &call.secrets)),
            (None, Some(_)) => String::new(),
            (None, None) => format!("; the answer begins: {}", shown(&reply.body, &call.secrets)),
        };
        let hint = match kind {
            ErrorKind::Throttled => "; lower the source's `rate_limit`".to_owned(),
            ErrorKind::Denied => format!("; check {}, and whether your plan includes this data", call.variables),
            _ => String::new(),
        };
        let what = format!("{} answered {} with {}{why}{more}{hint}", self.provider, place(&call.url), reply.status.as_u16());
        let error = Error::new(kind, what);
        match wait_asked_for(&reply.headers, context.clock.now()) {
            Some(wait) if matches!(kind, ErrorKind::Throttled | ErrorKind::Transient) => error.retry_after(wait),
            _ => error,
        }
    }

    /// The error for a reply whose status is not a success.
    pub(crate) fn refusal(&self, context: &StepContext, call: &Call, reply: &Reply) -> Error {
        let status = reply.status;
        let said = said(&reply.body).map_or_else(|| shown(&reply.body, &call.secrets), |said| shown(said.as_bytes(), &call.secrets));
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let what = format!("{} answered {} with {}{said}", self.provider, place(&call.url), status.as_u16());
        if status.is_redirection() {
            let to = reply.headers.get(LOCATION).and_then(|to| call.url.join(to.to_str().ok()?).ok());
            let to = to.map_or_else(|| "somewhere else".to_owned(), |to| without(&place(&to), &call.secrets));
            return Error::invalid(format!(
                "{what}, a redirect to {to}, which is not followed, since each request is counted and keys are sent only to {}; correct `{}` if \
                 the API has moved",
                place(&self.base),
                self.words.address
            ));
        }
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let error = Error::new(ErrorKind::Throttled, format!("{what}; lower the source's `rate_limit`"));
                match wait_asked_for(&reply.headers, context.clock.now()) {
                    Some(wait) => error.retry_after(wait),
                    None => error,
                }
            }
            StatusCode::UNAUTHORIZED => Error::new(ErrorKind::Denied, format!("{what}; check {}", call.variables)),
            StatusCode::FORBIDDEN => {
                Error::new(ErrorKind::Denied, format!("{what}; check {}, and whether your plan includes this data", call.variables))
            }
            StatusCode::NOT_FOUND => Error::new(
                ErrorKind::NotFound,
                format!("{what}; check `{}` and the spelling of the {}", self.words.address, self.words.keys),
            ),
            StatusCode::REQUEST_TIMEOUT => Error::new(ErrorKind::Timeout, what),
            // The official clients of these APIs retry after this status.
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

/// A key as the value of a header, after a prefix.
///
/// # Errors
/// `internal` if it cannot be one, which was checked when it was read.
pub(crate) fn header(before: &str, key: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{before}{}", key.reveal()))
        .map_err(|_| Error::internal("a checked key does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A complete reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost" | "[::1]") => true,
        Some(host) => host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

/// A URL in a form that may be shown: without query and user.
pub(crate) fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The beginning of a text in a form that may be shown: on one line and without keys.
pub(crate) fn shown(text: &[u8], secrets: &[Secret]) -> String {
    let whole = text.len() <= LOOKED_AT_BYTES;
    let line = in_line(&String::from_utf8_lossy(text.get(..LOOKED_AT_BYTES).unwrap_or(text)), secrets);
    let cut: String = line.chars().take(SHOWN_CHARS).collect();
    if whole && cut.len() == line.len() { cut } else { cut + " …" }
}

/// A text on one line and without keys.
fn in_line(text: &str, secrets: &[Secret]) -> String {
    let text = without(text, secrets);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// The message in the body of an error.
fn said(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    ["message", "error"].iter().find_map(|name| body.get(name)?.as_str().map(str::to_owned))
}

/// The value of a header, if it is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<i64> {
    text(headers, name)?.parse().ok()
}

/// When the allowance of requests is renewed.
fn reset(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::from_second(number(headers, "x-ratelimit-reset")?).ok()
}

/// The seconds of a `Retry-After`. Some write a fraction, which is rounded up, or more than any number holds, which is the most that one does.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let text = text.trim();
    let (unsigned, is_past) = text.strip_prefix('-').map_or((text, false), |unsigned| (unsigned, true));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let more = u64::from(fraction.bytes().any(|digit| digit != b'0'));
    Some(if is_past { 0 } else { whole.parse::<u64>().unwrap_or(u64::MAX).saturating_add(more) })
}

/// How long to wait before the next request: `Retry-After` (RFC 9110, section 10.2.3: seconds or a date), or until the allowance of requests is
/// renewed.
fn wait_asked_for(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds = text(headers, RETRY_AFTER.as_str()).and_then(seconds);
    let seconds = seconds.map(|seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)));
    let until = |instant: Timestamp| instant.duration_since(now);
    let date = || jiff::fmt::rfc2822::parse(text(headers, RETRY_AFTER.as_str())?).ok().map(|date| until(date.timestamp()));
    let wait = seconds.or_else(date).or_else(|| reset(headers).map(until))?;
    Duration::try_from(wait.clamp(SignedDuration::ZERO, LONGEST_WAIT)).ok()
}

/// How many pages an answer may have, by the configuration of a source.
///
/// # Errors
/// `invalid` if the number is 0 or above the limit.
pub(crate) fn most_pages(configured: Option<u64>) -> Result<u64> {
    match configured {
        None => Ok(MOST_PAGES),
        Some(pages) if (1..=MOST_PAGES).contains(&pages) => Ok(pages),
        Some(pages) => Err(Error::invalid(format!("`max_pages` must be from 1 to {MOST_PAGES}, not {pages}"))),
    }
}

/// Counts the pages of one answer, and ensures that they end.
pub(crate) struct Paging {
    provider: String,
    words: Words,
    most_pages: u64,
    /// The most rows that the answer can hold.
    possible_rows: u64,
    rows: u64,
    pages: u64,
    empty_pages: u64,
    tokens: HashSet<String>,
}

impl Paging {
    /// Pages of an API, of which an answer may have so many, and so many rows.
    pub(crate) fn new(provider: impl Into<String>, words: Words, most_pages: u64, possible_rows: u64) -> Self {
        Self { provider: provider.into(), words, most_pages, possible_rows, rows: 0, pages: 0, empty_pages: 0, tokens: HashSet::new() }
    }

    /// How many pages have arrived.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Counts a page and the token of the next one.
    ///
    /// # Errors
    /// `invalid` if the pages do not end, or hold more rows than the answer can have.
    pub(crate) fn turn(&mut self, rows: usize, next: Option<&str>) -> Result<()> {
        self.pages += 1;
        self.rows = self.rows.saturating_add(rows as u64);
        self.empty_pages = if rows == 0 { self.empty_pages + 1 } else { 0 };
        if self.rows > self.possible_rows {
            return Err(Error::invalid(format!(
                "{} answered with more {} than the {} requested {}; the whole answer is rejected, check the source",
                self.provider, self.words.rows, self.possible_rows, self.words.slots
            )));
        }
        let Some(token) = next else { return Ok(()) };
        if !self.tokens.insert(token.to_owned()) {
            return Err(self.endless(&format!("page {} leads to an earlier page", self.pages)));
        }
        if self.empty_pages > MOST_EMPTY_PAGES {
            return Err(self.endless(&format!("{} pages in a row have no {}, and yet another follows", self.empty_pages, self.words.rows)));
        }
        if self.pages >= self.most_pages {
            return Err(self.endless(&format!("it has more than {} pages, the limit that `max_pages` sets", self.most_pages)));
        }
        Ok(())
    }

    fn endless(&self, what: &str) -> Error {
        Error::invalid(format!("the answer of {} does not end: {what}; the whole answer is rejected, check the source", self.provider))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_honoured_however_it_is_written() {
        for (text, wait) in [
            ("7", Some(7)),
            ("1.2", Some(2)),
            ("3.0", Some(3)),
            ("-5", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("", None),
            (".5", None),
            ("1e3", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(text), wait, "{text}");
        }
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            wait_asked_for(&headers, Timestamp::UNIX_EPOCH)
        };
        assert_eq!((asked("0.5"), asked("99999999999999999999")), (Some(Duration::from_secs(1)), Duration::try_from(LONGEST_WAIT).ok()));
    }
}
