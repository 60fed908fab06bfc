//! The source `stocks.massive`: minute bars from Massive, formerly Polygon, `/v2/aggs/ticker/…/range/1/minute/…`, with one symbol and up to
//! 50,000 bars per request. It is also registered as `stocks.polygon`.
//!
//! The key comes from the environment only: `MASSIVE_API_KEY`, or `POLYGON_API_KEY`.
//!
//! An answer leaves out minutes without a trade, and the answer for a symbol that Massive does not know has no bars either, so it vouches only
//! for symbols with at least one bar.

use async_trait::async_trait;
use repair_connect::Environment;
use repair_connect::http::{Api, Call, Paging, header, most_pages, shown};
use repair_connect::secret::Secret;
use repair_core::builtin::Period;
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, ErrorKind, Result};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, Url};
use schemars::JsonSchema;
use serde::Deserialize;

use super::answered::{Bars, Columns, settled_before, symbol};
use crate::bar::Bar;
use crate::minute_gaps::check_minutes;

const PROVIDER: &str = "Massive";
const BASE_URL: &str = "https://api.massive.com";
const KEYS: [&str; 2] = ["MASSIVE_API_KEY", "POLYGON_API_KEY"];

/// How many bars one request may return.
const MOST_ROWS: u64 = 50_000;

/// The configuration of `stocks.massive` and `stocks.polygon`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MassiveConfig {
    /// The address of the API, for use with a proxy; default `https://api.massive.com`. Unencrypted addresses are accepted only on this machine.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Whether prices are adjusted for splits; default false. It must match the table.
    #[serde(default)]
    pub adjusted: Option<bool>,
    /// Whether a minute that an answer leaves out had no trade; default true.
    #[serde(default)]
    pub vouches: Option<bool>,
    /// How long after a minute its bar may still arrive; default 15m. For younger minutes, silence proves nothing.
    #[serde(default)]
    pub settles_after: Option<Period>,
    /// How long one request may take; default 1m.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// The most bars that one request may return; default 50,000, which is also the maximum.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// The most pages that one answer may have; more are an error. A budget in calls sets aside this number for each request. Default 1,000.
    #[serde(default)]
    pub max_pages: Option<u64>,
}

pub(super) fn register(registry: &mut Registry, variables: &Environment) {
    for (name, about) in [
        ("stocks.massive", "minute bars from Massive, formerly Polygon"),
        ("stocks.polygon", "minute bars from Polygon, now Massive: the same as stocks.massive"),
    ] {
        let variables = variables.clone();
        registry.source(name, about, move |config: MassiveConfig| Massive::new(&config, variables.clone()));
    }
}

struct Massive {
    api: Api,
    variables: Environment,
    adjusted: bool,
    vouches: bool,
    settles_after: Option<Period>,
    limits: Limits,
    most_pages: u64,
    columns: Columns,
}

/// One page of an answer.
#[derive(Deserialize)]
struct Page {
    status: String,
    #[serde(default)]
    ticker: Option<String>,
    /// The bars; left out if there are none.
    #[serde(default)]
    results: Option<Vec<MassiveBar>>,
    #[serde(default)]
    next_url: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
struct MassiveBar {
    /// The start of the minute, in milliseconds since the Unix epoch.
    t: i64,
    o: f64,
    h: f64,
    l: f64,
    c: f64,
    v: f64,
    n: Option<i64>,
    vw: Option<f64>,
}

impl Massive {
    fn new(config: &MassiveConfig, variables: Environment) -> Result<Self> {
        let limits = super::limits(Some(config.rows_per_request.unwrap_or(MOST_ROWS)), Some(1))?;
        if limits.rows_per_request > MOST_ROWS {
            return Err(Error::invalid(format!("`rows_per_request` must be at most {MOST_ROWS} for {PROVIDER}")));
        }
        Ok(Self {
            api: Api::new(PROVIDER, config.base_url.as_deref().unwrap_or(BASE_URL), config.timeout, super::WORDS)?,
            variables,
            adjusted: config.adjusted.unwrap_or(false),
            vouches: config.vouches.unwrap_or(true),
            settles_after: config.settles_after,
            limits,
            most_pages: most_pages(config.max_pages)?,
            columns: Columns::default(),
        })
    }

    /// The path to a symbol's bars, up to the interval.
    fn way(symbol: &str) -> [&str; 7] {
        ["v2", "aggs", "ticker", symbol, "range", "1", "minute"]
    }

    fn call(&self, url: Url) -> Result<Call> {
        let key = Secret::read(&self.variables, PROVIDER, &KEYS)?;
        let headers = vec![(AUTHORIZATION, header("Bearer ", &key)?)];
        Ok(Call { method: Method::GET, url, headers, body: None, secrets: vec![key], variables: KEYS[0].to_owned() })
    }

    fn first_url(&self, symbol: &str, request: &Request) -> Result<Url> {
        let grid = request.table.grid()?;
        let asked = grid.slots_in(&request.interval);
        // The API includes both ends.
        let (from, to) = (grid.start_of(asked.first).as_millisecond(), grid.start_of(asked.end - 1).as_millisecond());
        let mut url = self.api.url(&Self::way(symbol))?;
        url.path_segments_mut().map_err(|()| Error::internal("a URL without paths"))?.extend([from.to_string(), to.to_string()]);
        url.query_pairs_mut()
            .append_pair("adjusted", if self.adjusted { "true" } else { "false" })
            .append_pair("sort", "asc")
            .append_pair("limit", &self.limits.rows_per_request.to_string());
        Ok(url)
    }

    /// The URL of a further page, with its host replaced by ours: behind a proxy, the API may have a name that we cannot reach, and a key must
    /// never be sent to a host that an answer names.
    ///
    /// # Errors
    /// `invalid` if the path is not that of the symbol's bars.
    fn next_url(&self, symbol: &str, next: &str) -> Result<Url> {
        let astray = || {
            Error::invalid(format!(
                "{PROVIDER} answered with a next page for {symbol} that does not hold its bars; the whole answer is rejected"
            ))
        };
        let next = Url::parse(next).map_err(|_| astray())?;
        let mut url = self.api.url(&Self::way(symbol))?;
        let (base, mut way) = (self.api.url(&[])?, url.path().to_owned());
        way.push('/');
        let prefix = base.path().trim_end_matches('/');
        let own = way.strip_prefix(prefix).unwrap_or(&way);
        let at = next.path().find(own).ok_or_else(astray)?;
        let path = next.path().get(at..).ok_or_else(astray)?;
        url.set_path(&format!("{prefix}{path}"));
        let kept: Vec<(String, String)> = next
            .query_pairs()
            .filter(|(name, _)| !name.eq_ignore_ascii_case("apikey"))
            .map(|(a, b)| (a.into_owned(), b.into_owned()))
            .collect();
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        Ok(url)
    }

    /// All bars of one symbol.
    async fn pages(&self, context: &StepContext, request: &Request, symbol: &str, bars: &mut Bars) -> Result<u64> {
        let asked = request.table.grid()?.slots_in(&request.interval);
        let mut paging = Paging::new(PROVIDER, super::WORDS, self.most_pages, asked.len());
        let mut url = self.first_url(symbol, request)?;
        loop {
            let call = self.call(url)?;
            let page: Page = self.api.get(context, &call).await?;
            check_status(&page, &call.secrets)?;
            let results = page.results.unwrap_or_default();
            if !results.is_empty() && page.ticker.as_deref() != Some(symbol) {
                let of = shown(page.ticker.unwrap_or_default().as_bytes(), &call.secrets);
                return Err(Error::invalid(format!(
                    "{PROVIDER} was asked for {symbol} and answered with bars of `{of}`; the whole answer is rejected"
                )));
            }
            let count = results.len();
            for MassiveBar { t, o, h, l, c, v, n, vw } in results {
                let start_us = t.checked_mul(1_000).ok_or_else(|| {
                    Error::invalid(format!("{PROVIDER} answered with a minute that begins at {t} ms, which is out of range"))
                })?;
                bars.push(symbol, start_us, Bar { open: o, high: h, low: l, close: c, volume: v }, n, vw);
            }
            paging.turn(count, page.next_url.as_deref())?;
            match page.next_url {
                Some(next) => url = self.next_url(symbol, &next)?,
                None => return Ok(paging.pages()),
            }
        }
    }
}

/// Checks the status that a page reports under HTTP 200. Delayed data, as some plans get it, is accepted.
fn check_status(page: &Page, secrets: &[Secret]) -> Result<()> {
    let said = || {
        let said = page.error.as_deref().or(page.message.as_deref());
        said.map(|said| format!(": {}", shown(said.as_bytes(), secrets))).unwrap_or_default()
    };
    match page.status.as_str() {
        "OK" | "DELAYED" => Ok(()),
        "NOT_AUTHORIZED" => Err(Error::new(
            ErrorKind::Denied,
            format!("{PROVIDER} denied the request{}; check MASSIVE_API_KEY, and whether your plan includes this data", said()),
        )),
        other => Err(Error::invalid(format!("{PROVIDER} answered with status `{}`{}", shown(other.as_bytes(), secrets), said()))),
    }
}

#[async_trait]
impl Source for Massive {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn requests_at_worst(&self) -> u64 {
        self.most_pages.saturating_mul(self.limits.keys_per_request as u64)
    }

    async fn ready(&self) -> Result<()> {
        Secret::read(&self.variables, PROVIDER, &KEYS)?;
        self.api.client()?;
        Ok(())
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        check_minutes(&request.table)?;
        if request.table.grid()?.slots_in(&request.interval).is_empty() || request.keys.is_empty() {
            return Err(Error::invalid("the request names no minute or no symbol"));
        }
        let columns = self.columns.of(context, &request.table).await?;
        let vouches_until = if self.vouches { Some(settled_before(context.clock.now(), self.settles_after)?) } else { None };
        let (mut bars, mut requests) = (Bars::default(), 0);
        for key in &request.keys {
            requests += self.pages(context, request, symbol(key)?, &mut bars).await?;
        }
        let said = format!("{PROVIDER}, {}", if self.adjusted { "adjusted for splits" } else { "as traded" });
        bars.answer(request, columns.as_ref(), vouches_until, requests, said)
    }
}
