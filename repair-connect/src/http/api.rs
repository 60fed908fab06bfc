//! What the HTTP sources share: a client that sends keys to one host only, replies of bounded size, errors with the workflow's kinds, and
//! paging that ends.
//!
//! It must not know what a bar is. Keys go into headers, and appear nowhere else: URLs are shown without their query, and replies without
//! keys.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use repair_connect::secret::{Secret, without};
use repair_core::builtin::Period;
use repair_core::plugin::StepContext;
use repair_core::{Error, ErrorKind, Result};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The default time limit of one request.
const TIMEOUT: Period = Period::minutes(1);

/// The largest reply. A page of 50,000 bars, the most that any of these APIs returns, has about 6 MB.
const MOST_BYTES: usize = 32 << 20;
/// The most pages of one answer. With more, each would hold only a few bars.
const MOST_PAGES: u64 = 1_000;
/// The most pages without bars in a row. An API that filters after paging may return a few; one that returns more may never end.
const MOST_EMPTY_PAGES: u64 = 3;
/// How many characters of an unreadable reply are shown.
const SHOWN_CHARS: usize = 120;
/// How many bytes of a reply are examined to show its beginning.
const LOOKED_AT_BYTES: usize = 8 << 10;
/// The longest wait that an API can ask for; longer ones are cut to this.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(1);
/// How long we wait for the API to allow more requests; for a longer wait, the workflow's `retry` decides.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(2);

/// One request to an API.
pub(super) struct Call {
    /// The URL to get, without keys.
    pub(super) url: Url,
    /// The headers that hold the keys.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The keys, which are removed from everything that is shown.
    pub(super) secrets: Vec<Secret>,
    /// The variables that hold the keys, for messages that say what to check.
    pub(super) variables: &'static str,
}

/// An API at one address.
pub(super) struct Api {
    provider: &'static str,
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
    pub(super) fn new(provider: &'static str, base_url: &str, timeout: Option<Period>) -> Result<Self> {
        let wrong =
            |what: &str| Error::invalid(format!("`base_url` {what}; write e.g. `https://proxy.example/{}`", provider.to_lowercase()));
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
        Ok(Self { provider, base, timeout, client: OnceLock::new(), next: Mutex::new(None) })
    }

    /// The URL of a path under the address, with its parts encoded.
    ///
    /// # Errors
    /// `internal` if the address cannot have paths, which was checked before.
    pub(super) fn url(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| Error::internal("the URL cannot have a path"))?.pop_if_empty().extend(path);
        Ok(url)
    }

    /// The client, made on first use, because reading the system's certificates takes a while and may fail.
    pub(super) fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut builder = Client::builder()
            .user_agent(concat!("repair-stocks/", env!("CARGO_PKG_VERSION")))
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

    /// Gets one page.
    ///
    /// # Errors
    /// `throttled`, `denied`, `not-found`, `transient`, `timeout` or `invalid`, depending on the reply, or `cancelled`.
    pub(super) async fn get<T: DeserializeOwned>(&self, context: &StepContext, call: &Call) -> Result<T> {
        let stopped = || Error::new(ErrorKind::Cancelled, "the run was asked to stop");
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
                return Err(self.unusable(call, &format!("more than {} MiB", MOST_BYTES >> 20), &body));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
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

    fn read<T: DeserializeOwned>(&self, call: &Call, reply: &Reply) -> Result<T> {
        let mut json = serde_json::Deserializer::from_slice(&reply.body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let kind = reply.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("no type given");
            let path = error.path().to_string();
            let at = if path == "." { String::new() } else { format!(" at `{}`", shown(path.as_bytes(), &call.secrets)) };
            let why = shown(error.inner().to_string().as_bytes(), &call.secrets);
            let kind = shown(kind.as_bytes(), &call.secrets);
            self.unusable(call, &format!("something that is not a page of bars{at} ({kind}: {why})"), &reply.body)
        })?;
        json.end().map_err(|error| self.unusable(call, &format!("more than one value ({error})"), &reply.body))?;
        Ok(value)
    }

    /// The error for a reply that cannot be used, which shows how the reply begins.
    fn unusable(&self, call: &Call, what: &str, body: &[u8]) -> Error {
        let message =
            format!("{} answered {} with {what}; the answer begins: {}", self.provider, place(&call.url), shown(body, &call.secrets));
        Error::invalid(message)
    }

    /// The error for a reply whose status is not a success.
    fn refusal(&self, context: &StepContext, call: &Call, reply: &Reply) -> Error {
        let status = reply.status;
        let said = said(&reply.body).map_or_else(|| shown(&reply.body, &call.secrets), |said| shown(said.as_bytes(), &call.secrets));
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        let what = format!("{} answered {} with {}{said}", self.provider, place(&call.url), status.as_u16());
        if status.is_redirection() {
            let to = reply.headers.get(LOCATION).and_then(|to| call.url.join(to.to_str().ok()?).ok());
            let to = to.map_or_else(|| "somewhere else".to_owned(), |to| without(&place(&to), &call.secrets));
            return Error::invalid(format!(
                "{what}, a redirect to {to}, which is not followed, since each request is counted and keys are sent only to {}; correct `base_url` if \
                 the API has moved",
                place(&self.base)
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
            StatusCode::NOT_FOUND => Error::new(ErrorKind::NotFound, format!("{what}; check `base_url` and the spelling of the symbols")),
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
pub(super) fn header(before: &str, key: &Secret) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{before}{}", key.reveal()))
        .map_err(|_| Error::internal("a checked key does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A complete reply.
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

/// A URL in a form that may be shown: without query and user.
fn place(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// The beginning of a text in a form that may be shown: on one line and without keys.
pub(super) fn shown(text: &[u8], secrets: &[Secret]) -> String {
    let whole = text.len() <= LOOKED_AT_BYTES;
    let text = without(&String::from_utf8_lossy(text.get(..LOOKED_AT_BYTES).unwrap_or(text)), secrets);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let cut: String = line.chars().take(SHOWN_CHARS).collect();
    if whole && cut.len() == line.len() { cut } else { cut + " …" }
}

/// The message in the body of an error.
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

/// When the allowance of requests is renewed.
fn reset(headers: &HeaderMap) -> Option<Timestamp> {
    Timestamp::from_second(number(headers, "x-ratelimit-reset")?).ok()
}

/// How long to wait before the next request: `Retry-After` (RFC 9110, section 10.2.3: seconds or a date), or until the allowance of requests is
/// renewed.
fn wait_asked_for(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds = number(headers, RETRY_AFTER.as_str()).map(SignedDuration::from_secs);
    let until = |instant: Timestamp| instant.duration_since(now);
    let date = || jiff::fmt::rfc2822::parse(text(headers, RETRY_AFTER.as_str())?).ok().map(|date| until(date.timestamp()));
    let wait = seconds.or_else(date).or_else(|| reset(headers).map(until))?;
    Duration::try_from(wait.clamp(SignedDuration::ZERO, LONGEST_WAIT)).ok()
}

/// How many pages an answer may have, by the configuration of a source.
///
/// # Errors
/// `invalid` if the number is 0 or above the limit.
pub(super) fn most_pages(configured: Option<u64>) -> Result<u64> {
    match configured {
        None => Ok(MOST_PAGES),
        Some(pages) if (1..=MOST_PAGES).contains(&pages) => Ok(pages),
        Some(pages) => Err(Error::invalid(format!("`max_pages` must be from 1 to {MOST_PAGES}, not {pages}"))),
    }
}

/// Counts the pages of one answer, and ensures that they end.
pub(super) struct Paging {
    provider: &'static str,
    most_pages: u64,
    /// The most bars that the answer can hold.
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

    /// How many pages have arrived.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Counts a page and the token of the next one.
    ///
    /// # Errors
    /// `invalid` if the pages do not end, or hold more bars than the answer can have.
    pub(super) fn turn(&mut self, bars: usize, next: Option<&str>) -> Result<()> {
        self.pages += 1;
        self.bars = self.bars.saturating_add(bars as u64);
        self.empty_pages = if bars == 0 { self.empty_pages + 1 } else { 0 };
        if self.bars > self.possible_bars {
            return Err(Error::invalid(format!(
                "{} answered with more bars than the {} requested minutes; the whole answer is rejected, check the source",
                self.provider, self.possible_bars
            )));
        }
        let Some(token) = next else { return Ok(()) };
        if !self.tokens.insert(token.to_owned()) {
            return Err(self.endless(&format!("page {} leads to an earlier page", self.pages)));
        }
        if self.empty_pages > MOST_EMPTY_PAGES {
            return Err(self.endless(&format!("{} pages in a row have no bars, and yet another follows", self.empty_pages)));
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
