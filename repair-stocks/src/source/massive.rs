//! The source `stocks.massive`: minute bars of Massive, which was called Polygon, `/v2/aggs/ticker/…/range/1/minute/…`, one symbol and up
//! to 50,000 bars a request. It is known as `stocks.polygon` too.
//!
//! The key comes from the environment alone: `MASSIVE_API_KEY`, or `POLYGON_API_KEY`.
//!
//! A minute without a trade is not in an answer, and an answer without any bar is the same as that about a symbol that Massive does not
//! know; so it vouches only for symbols of which it brought a bar.

use async_trait::async_trait;
use repair_core::builtin::Period;
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, ErrorKind, Result};
use reqwest::Url;
use reqwest::header::AUTHORIZATION;
use schemars::JsonSchema;
use serde::Deserialize;

use super::answered::{Bars, Columns, settled_before, symbol};
use super::http::{Api, Call, Paging, Secret, Variables, most_pages, shown};
use crate::bar::Bar;
use crate::minute_gaps::check_minutes;

const PROVIDER: &str = "Massive";
const BASE_URL: &str = "https://api.massive.com";
const KEYS: [&str; 2] = ["MASSIVE_API_KEY", "POLYGON_API_KEY"];

/// Bars that one request may bring.
const MOST_ROWS: u64 = 50_000;

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MassiveConfig {
    /// Where the API is; `https://api.massive.com` unless given. For a proxy. Without encryption only on this machine.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Whether prices are adjusted for splits; false unless given. It must be what the table has.
    #[serde(default)]
    pub adjusted: Option<bool>,
    /// Whether a minute that an answer leaves out is one without a trade; true unless given.
    #[serde(default)]
    pub vouches: Option<bool>,
    /// How long after a minute its bar may still come; 15m unless given. Of younger minutes the silence proves nothing.
    #[serde(default)]
    pub settles_after: Option<Period>,
    /// How long one request may take; 1m unless given.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// Bars that one request may bring; 50,000 unless given, and no more.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// Pages that one answer may have; one of more is an error. Of a budget in calls, so many are set aside for each request. 1,000 unless given.
    #[serde(default)]
    pub max_pages: Option<u64>,
}

pub(super) fn register(registry: &mut Registry, variables: &Variables) {
    for (name, about) in [
        ("stocks.massive", "minute bars of Massive, which was Polygon"),
        ("stocks.polygon", "minute bars of Polygon, which is Massive now: the same as stocks.massive"),
    ] {
        let variables = variables.clone();
        registry.source(name, about, move |config: MassiveConfig| Massive::new(&config, variables.clone()));
    }
}

struct Massive {
    api: Api,
    variables: Variables,
    adjusted: bool,
    vouches: bool,
    settles_after: Option<Period>,
    limits: Limits,
    most_pages: u64,
    columns: Columns,
}

/// One page.
#[derive(Deserialize)]
struct Page {
    status: String,
    #[serde(default)]
    ticker: Option<String>,
    /// Not there if there are none.
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
    /// Unix milliseconds.
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
    fn new(config: &MassiveConfig, variables: Variables) -> Result<Self> {
        let limits = super::limits(Some(config.rows_per_request.unwrap_or(MOST_ROWS)), Some(1))?;
        if limits.rows_per_request > MOST_ROWS {
            return Err(Error::invalid(format!("`rows_per_request` of {PROVIDER} is at most {MOST_ROWS}")));
        }
        Ok(Self {
            api: Api::new(PROVIDER, config.base_url.as_deref().unwrap_or(BASE_URL), config.timeout)?,
            variables,
            adjusted: config.adjusted.unwrap_or(false),
            vouches: config.vouches.unwrap_or(true),
            settles_after: config.settles_after,
            limits,
            most_pages: most_pages(config.max_pages)?,
            columns: Columns::default(),
        })
    }

    /// The way to a symbol's bars: the parts of the path before the interval.
    fn way(symbol: &str) -> [&str; 7] {
        ["v2", "aggs", "ticker", symbol, "range", "1", "minute"]
    }

    fn call(&self, url: Url) -> Result<Call> {
        let key = Secret::read(&self.variables, PROVIDER, &KEYS)?;
        let headers = vec![(AUTHORIZATION, key.header("Bearer ")?)];
        Ok(Call { url, headers, secrets: vec![key], variables: "MASSIVE_API_KEY" })
    }

    fn first_url(&self, symbol: &str, request: &Request) -> Result<Url> {
        let grid = request.table.grid()?;
        let asked = grid.slots_in(&request.interval);
        // Both ends are included.
        let (from, to) = (grid.start_of(asked.first).as_millisecond(), grid.start_of(asked.end - 1).as_millisecond());
        let mut url = self.api.url(&Self::way(symbol))?;
        url.path_segments_mut().map_err(|()| Error::internal("a URL without paths"))?.extend([from.to_string(), to.to_string()]);
        url.query_pairs_mut()
            .append_pair("adjusted", if self.adjusted { "true" } else { "false" })
            .append_pair("sort", "asc")
            .append_pair("limit", &self.limits.rows_per_request.to_string());
        Ok(url)
    }

    /// The URL of a further page, at our place whatever its host is: the API may have a name behind a proxy that we do not, and a key is
    /// never sent to where an answer says.
    ///
    /// # Errors
    /// `invalid` if it does not lead to further bars of the symbol.
    fn next_url(&self, symbol: &str, next: &str) -> Result<Url> {
        let astray = || {
            Error::invalid(format!(
                "{PROVIDER} says that the next page of {symbol} is one that holds no bars of it; nothing of its answer is used"
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
        let mut paging = Paging::new(PROVIDER, self.most_pages, asked.len());
        let mut url = self.first_url(symbol, request)?;
        loop {
            let call = self.call(url)?;
            let page: Page = self.api.get(context, &call).await?;
            check_status(&page, &call.secrets)?;
            let results = page.results.unwrap_or_default();
            if !results.is_empty() && page.ticker.as_deref() != Some(symbol) {
                let of = shown(page.ticker.unwrap_or_default().as_bytes(), &call.secrets);
                return Err(Error::invalid(format!(
                    "{PROVIDER} was asked for {symbol} and answered with bars of `{of}`; nothing of it is used"
                )));
            }
            let count = results.len();
            for MassiveBar { t, o, h, l, c, v, n, vw } in results {
                let start_us =
                    t.checked_mul(1_000).ok_or_else(|| Error::invalid(format!("{PROVIDER} says that a minute begins at {t} ms")))?;
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

/// What a page says of itself under HTTP 200. Data of a plan that sees it late is data.
fn check_status(page: &Page, secrets: &[Secret]) -> Result<()> {
    let said = || {
        let said = page.error.as_deref().or(page.message.as_deref());
        said.map(|said| format!(": {}", shown(said.as_bytes(), secrets))).unwrap_or_default()
    };
    match page.status.as_str() {
        "OK" | "DELAYED" => Ok(()),
        "NOT_AUTHORIZED" => Err(Error::new(
            ErrorKind::Denied,
            format!("{PROVIDER} does not allow it{}; look at MASSIVE_API_KEY, and whether your plan includes what is asked for", said()),
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
            return Err(Error::invalid("a request for no minute of no symbol; ask for something"));
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
