//! The source `stocks.alpaca`: minute bars of Alpaca's market data API, `/v2/stocks/bars`, many symbols a request.
//!
//! Keys come from the environment alone: `APCA_API_KEY_ID` and `APCA_API_SECRET_KEY`.
//!
//! A minute without a trade is not in an answer, nor is a symbol that Alpaca does not know; so it vouches only for symbols of which it
//! brought a bar. A feed of one exchange says nothing of trades on the others: unless told otherwise, only that of the whole market vouches.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::civil::Date;
use repair_core::builtin::Period;
use repair_core::plugin::{Answer, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, Result};
use reqwest::header::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::answered::{Bars, Columns, settled_before, symbol};
use super::http::{Api, Call, Paging, Secret, Variables, most_pages};
use crate::bar::Bar;
use crate::minute_gaps::check_minutes;

const PROVIDER: &str = "Alpaca";
const BASE_URL: &str = "https://data.alpaca.markets";
const KEY_ID: &str = "APCA_API_KEY_ID";
const SECRET_KEY: &str = "APCA_API_SECRET_KEY";

/// Bars that one page may hold.
const MOST_ROWS: u64 = 10_000;
/// Symbols that one request names, unless the workflow says otherwise: they go into the URL, of which servers bear some 8 kB.
const SYMBOLS: usize = 100;
/// More than this make a URL that is refused.
const MOST_SYMBOLS: usize = 500;

/// Whose trades bars are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Feed {
    /// All exchanges of the United States.
    #[default]
    Sip,
    /// The exchange IEX alone.
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
#[serde(rename_all = "snake_case")]
pub enum Adjustment {
    /// Nothing: as they were traded.
    #[default]
    Raw,
    /// Splits.
    Split,
    /// Dividends.
    Dividend,
    /// Both.
    All,
}

/// What `with` says.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlpacaConfig {
    /// Where the API is; `https://data.alpaca.markets` unless given. For a proxy. Without encryption only on this machine.
    #[serde(default)]
    pub base_url: Option<String>,
    /// Whose trades bars are made of; `sip`, all exchanges, unless given.
    #[serde(default)]
    pub feed: Option<Feed>,
    /// What prices are adjusted for; `raw`, nothing, unless given. It must be what the table has.
    #[serde(default)]
    pub adjustment: Option<Adjustment>,
    /// The date whose symbols are meant, where companies changed them; that of the request unless given.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub asof: Option<Date>,
    /// Whether a minute that an answer leaves out is one without a trade; true for `sip` and `delayed_sip`, false for others unless given.
    #[serde(default)]
    pub vouches: Option<bool>,
    /// How long after a minute its bar may still come; 15m unless given. Of younger minutes the silence proves nothing.
    #[serde(default)]
    pub settles_after: Option<Period>,
    /// How long one request may take; 1m unless given.
    #[serde(default)]
    pub timeout: Option<Period>,
    /// Bars that one request may bring; 10,000 unless given, and no more.
    #[serde(default)]
    pub rows_per_request: Option<u64>,
    /// Symbols that one request may name; 100 unless given.
    #[serde(default)]
    pub keys_per_request: Option<usize>,
    /// Pages that one answer may have; one of more is an error. Of a budget in calls, so many are set aside for each request. 1,000 unless given.
    #[serde(default)]
    pub max_pages: Option<u64>,
}

pub(super) fn register(registry: &mut Registry, variables: &Variables) {
    let variables = variables.clone();
    registry.source("stocks.alpaca", "minute bars of Alpaca's market data API", move |config: AlpacaConfig| {
        Alpaca::new(&config, variables.clone())
    });
}

struct Alpaca {
    api: Api,
    variables: Variables,
    feed: Feed,
    adjustment: Adjustment,
    asof: Option<Date>,
    vouches: bool,
    settles_after: Option<Period>,
    limits: Limits,
    most_pages: u64,
    columns: Columns,
}

/// One page. A page can end within a symbol, and lack the later ones.
#[derive(Deserialize)]
struct Page {
    /// Null if there are none at all; but a page without it is none.
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
    text.parse().map_err(|_| serde::de::Error::custom("no instant as RFC 3339 has it"))
}

/// The word for the API, and for people.
fn word<T: Serialize>(value: T) -> Result<String> {
    let word = serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned));
    word.ok_or_else(|| Error::internal("a choice that is no word"))
}

impl Alpaca {
    fn new(config: &AlpacaConfig, variables: Variables) -> Result<Self> {
        let feed = config.feed.unwrap_or_default();
        let limits = super::limits(Some(config.rows_per_request.unwrap_or(MOST_ROWS)), Some(config.keys_per_request.unwrap_or(SYMBOLS)))?;
        if limits.rows_per_request > MOST_ROWS {
            return Err(Error::invalid(format!("`rows_per_request` of {PROVIDER} is at most {MOST_ROWS}")));
        }
        if limits.keys_per_request > MOST_SYMBOLS {
            return Err(Error::invalid(format!("`keys_per_request` of {PROVIDER} is at most {MOST_SYMBOLS}, which fit into a URL")));
        }
        Ok(Self {
            api: Api::new(PROVIDER, config.base_url.as_deref().unwrap_or(BASE_URL), config.timeout)?,
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
            // Both ends are included.
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
            (HeaderName::from_static("apca-api-key-id"), id.header("")?),
            (HeaderName::from_static("apca-api-secret-key"), secret.header("")?),
        ];
        Ok(Call { url, headers, secrets: vec![id, secret], variables: "APCA_API_KEY_ID and APCA_API_SECRET_KEY" })
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
            return Err(Error::invalid("a request for no minute of no symbol; ask for something"));
        }
        let columns = self.columns.of(context, &request.table).await?;
        let first = self.call(request)?;
        let vouches_until = if self.vouches { Some(settled_before(context.clock.now(), self.settles_after)?) } else { None };
        let mut paging = Paging::new(PROVIDER, self.most_pages, asked.len().saturating_mul(request.keys.len() as u64));
        let mut bars = Bars::default();
        let mut url = first.url.clone();
        loop {
            let call = Call { url, headers: first.headers.clone(), secrets: first.secrets.clone(), variables: first.variables };
            let page: Page = self.api.get(context, &call).await?;
            let mut count = 0;
            for (symbol, of_symbol) in page.bars.unwrap_or_default() {
                count += of_symbol.len();
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
