//! The source `stocks.alpaca`: minute bars from Alpaca's market data API, `/v2/stocks/bars`, with many symbols per request.
//!
//! Keys come from the environment only: `APCA_API_KEY_ID` and `APCA_API_SECRET_KEY`.
//!
//! An answer leaves out minutes without a trade, and also symbols that Alpaca does not know, so it vouches only for symbols with at least one
//! bar. The feed of one exchange shows no trades on the others, so by default only feeds of the whole market vouch.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::civil::Date;
use repair_connect::Environment;
use repair_connect::http::{Api, Call, Paging, header, most_pages};
use repair_connect::secret::{Secret, without};
use repair_core::builtin::Period;
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, Result};
use reqwest::Method;
use reqwest::header::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::answered::{Bars, Columns, settled_before, symbol};
use crate::bar::Bar;
use crate::minute_gaps::check_minutes;

const PROVIDER: &str = "Alpaca";
const BASE_URL: &str = "https://data.alpaca.markets";
const KEY_ID: &str = "APCA_API_KEY_ID";
const SECRET_KEY: &str = "APCA_API_SECRET_KEY";

/// How many bars one page may hold.
const MOST_ROWS: u64 = 10_000;
/// The default number of symbols in one request: they go into the URL, and servers accept about 8 kB.
const SYMBOLS: usize = 100;
/// How many symbols one request may name; with more, the URL would be refused.
const MOST_SYMBOLS: usize = 500;

/// The trades that bars are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// All exchanges of the United States.
    #[default]
    Sip,
    /// The exchange IEX only.
    Iex,
    /// Blue Ocean, overnight.
    Boats,
    /// Derived from Blue Ocean, overnight.
    Overnight,
    /// Over the counter.
    Otc,
    /// All exchanges, 15 minutes late.
    DelayedSip,
}

/// What prices are adjusted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum Adjustment {
    /// Nothing: prices are as traded.
    #[default]
    Raw,
    /// Splits.
    Split,
    /// Dividends.
    Dividend,
    /// Splits and dividends.
    All,
}

/// The configuration of `stocks.alpaca`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AlpacaConfig {
    /// The address of the API, for use with a proxy; default `https://data.alpaca.markets`. Unencrypted addresses are accepted only on this machine.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The trades that bars are made of; default `sip`, all exchanges.
    #[serde(default)]
    pub feed: Option<Feed>,
    /// What prices are adjusted for; default `raw`, nothing. It must match the table.
    #[serde(default)]
    pub adjustment: Option<Adjustment>,
    /// The date whose symbols are meant, for companies that changed them; default: the date of the request.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub asof: Option<Date>,
    /// Whether a minute that an answer leaves out had no trade; default true for `sip` and `delayed_sip`, false for other feeds.
    #[serde(default)]
    pub vouches: Option<bool>,
    /// How long after a minute its bar may still arrive; default 15m. For younger minutes, silence proves nothing.
    #[serde(default)]
    pub settles_after: Option<Period>,
    /// How long one request may take; default 1m.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// The most bars that one request may return; default 10,000, which is also the maximum.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// The most symbols that one request may name; default 100.
    #[serde(default)]
    pub keys_per_request: Option<usize>,
    /// The most pages that one answer may have; more are an error. A budget in calls sets aside this number for each request. Default 1,000.
    #[serde(default)]
    pub max_pages: Option<u64>,
}

pub(super) fn register(registry: &mut Registry, variables: &Environment) {
    let variables = variables.clone();
    registry.source("stocks.alpaca", "minute bars from Alpaca's market data API", move |config: AlpacaConfig| {
        Alpaca::new(&config, variables.clone())
    });
}

struct Alpaca {
    api: Api,
    variables: Environment,
    feed: Feed,
    adjustment: Adjustment,
    asof: Option<Date>,
    vouches: bool,
    settles_after: Option<Period>,
    limits: Limits,
    most_pages: u64,
    columns: Columns,
}

/// One page of an answer. It may end in the middle of a symbol, and lack the symbols after it.
#[derive(Deserialize)]
struct Page {
    /// The bars by symbol; null if there are none. The field itself is required.
    #[serde(deserialize_with = "Option::deserialize")]
    bars: Option<BTreeMap<String, Vec<AlpacaBar>>>,
    #[serde(default)]
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
struct AlpacaBar {
    #[serde(deserialize_with = "instant")]
    t: Timestamp,
    o: f64,
    h: f64,
    l: f64,
    c: f64,
    v: f64,
    n: Option<i64>,
    vw: Option<f64>,
}

fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("not an instant as defined by RFC 3339"))
}

/// The word for a choice, as the API and people write it.
fn word<T: Serialize>(value: T) -> Result<String> {
    let word = serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned));
    word.ok_or_else(|| Error::internal("a choice has no word"))
}

impl Alpaca {
    fn new(config: &AlpacaConfig, variables: Environment) -> Result<Self> {
        let feed = config.feed.unwrap_or_default();
        let limits = super::limits(Some(config.rows_per_request.unwrap_or(MOST_ROWS)), Some(config.keys_per_request.unwrap_or(SYMBOLS)))?;
        if limits.rows_per_request > MOST_ROWS {
            return Err(Error::invalid(format!("`rows_per_request` must be at most {MOST_ROWS} for {PROVIDER}")));
        }
        if limits.keys_per_request > MOST_SYMBOLS {
            return Err(Error::invalid(format!(
                "`keys_per_request` must be at most {MOST_SYMBOLS} for {PROVIDER}, so that the symbols fit into a URL"
            )));
        }
        Ok(Self {
            api: Api::new(PROVIDER, config.base_url.as_deref().unwrap_or(BASE_URL), config.timeout, super::WORDS)?,
            variables,
            feed,
            adjustment: config.adjustment.unwrap_or_default(),
            asof: config.asof,
            vouches: config.vouches.unwrap_or(matches!(feed, Feed::Sip | Feed::DelayedSip)),
            settles_after: config.settles_after,
            limits,
            most_pages: most_pages(config.max_pages)?,
            columns: Columns::default(),
        })
    }

    fn keys(&self) -> Result<[Secret; 2]> {
        Ok([Secret::read(&self.variables, PROVIDER, &[KEY_ID])?, Secret::read(&self.variables, PROVIDER, &[SECRET_KEY])?])
    }

    /// The call for the first page.
    fn call(&self, request: &Request) -> Result<Call> {
        let [id, secret] = self.keys()?;
        let symbols = request.keys.iter().map(symbol).collect::<Result<Vec<_>>>()?;
        let grid = request.table.grid()?;
        let asked = grid.slots_in(&request.interval);
        let mut url = self.api.url(&["v2", "stocks", "bars"])?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("symbols", &symbols.join(","));
            query.append_pair("timeframe", "1Min");
            // The API includes both ends.
            query.append_pair("start", &grid.start_of(asked.first).to_string());
            query.append_pair("end", &grid.start_of(asked.end - 1).to_string());
            query.append_pair("limit", &self.limits.rows_per_request.to_string());
            query.append_pair("adjustment", &word(self.adjustment)?);
            query.append_pair("feed", &word(self.feed)?);
            if let Some(date) = self.asof {
                query.append_pair("asof", &date.to_string());
            }
            query.append_pair("sort", "asc");
        }
        let headers = vec![
            (HeaderName::from_static("apca-api-key-id"), header("", &id)?),
            (HeaderName::from_static("apca-api-secret-key"), header("", &secret)?),
        ];
        let variables = format!("{KEY_ID} and {SECRET_KEY}");
        Ok(Call { method: Method::GET, url, headers, body: None, secrets: vec![id, secret], variables })
    }
}

#[async_trait]
impl Source for Alpaca {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn requests_at_worst(&self) -> u64 {
        self.most_pages
    }

    async fn ready(&self) -> Result<()> {
        self.keys()?;
        self.api.client()?;
        Ok(())
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        check_minutes(&request.table)?;
        let asked = request.table.grid()?.slots_in(&request.interval);
        if asked.is_empty() || request.keys.is_empty() {
            return Err(Error::invalid("the request names no minute or no symbol"));
        }
        let columns = self.columns.of(context, &request.table).await?;
        let first = self.call(request)?;
        let vouches_until = if self.vouches { Some(settled_before(context.clock.now(), self.settles_after)?) } else { None };
        let mut paging = Paging::new(PROVIDER, super::WORDS, self.most_pages, asked.len().saturating_mul(request.keys.len() as u64));
        let mut bars = Bars::default();
        let mut url = first.url.clone();
        loop {
            let call = Call { url, ..first.clone() };
            let page: Page = self.api.get(context, &call).await?;
            let mut count = 0;
            for (symbol, of_symbol) in page.bars.unwrap_or_default() {
                count += of_symbol.len();
                // A symbol that was not asked for is shown.
                let symbol = without(&symbol, &call.secrets);
                for AlpacaBar { t, o, h, l, c, v, n, vw } in of_symbol {
                    let bar = Bar { open: o, high: h, low: l, close: c, volume: v };
                    bars.push(&symbol, t.as_microsecond(), bar, n, vw);
                }
            }
            let next = page.next_page_token.filter(|token| !token.is_empty());
            paging.turn(count, next.as_deref())?;
            let Some(token) = next else { break };
            url = first.url.clone();
            url.query_pairs_mut().append_pair("page_token", &token);
        }
        let said = format!("{PROVIDER}, feed {}, adjustment {}", word(self.feed)?, word(self.adjustment)?);
        bars.answer(request, columns.as_ref(), vouches_until, paging.pages(), said)
    }
}
