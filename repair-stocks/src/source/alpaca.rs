//! The source `stocks.alpaca`: minute bars from Alpaca's market data API, `/v2/stocks/bars`, with many symbols per request.
//!
//! `providers/alpaca.yaml` describes the API; here are its settings. Keys come from the environment only: `APCA_API_KEY_ID` and `APCA_API_SECRET_KEY`.
//!
//! An answer leaves out minutes without a trade, and also symbols that Alpaca does not know, so it vouches only for symbols with at least one
//! bar. The feed of one exchange shows no trades on the others, so by default only feeds of the whole market vouch.

use jiff::civil::Date;
use repair_connect::Environment;
use repair_core::builtin::Period;
use repair_core::plugin::Registry;
use repair_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provider::{Bars, Provider, set, set_rows};

const ALPACA: Provider = Provider { name: "alpaca", text: include_str!("../../providers/alpaca.yaml") };

/// How many symbols one request may name; with more, the URL would be refused, since servers accept about 8 kB.
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
    registry.source("stocks.alpaca", "minute bars from Alpaca's market data API", move |config: AlpacaConfig| source(&config, &variables));
}

/// The source that a configuration means.
fn source(own: &AlpacaConfig, variables: &Environment) -> Result<Bars> {
    let mut config = ALPACA.described()?;
    let (feed, adjustment) = (own.feed.unwrap_or_default(), own.adjustment.unwrap_or_default());
    let [feed_word, adjustment_word] = [word(feed)?, word(adjustment)?];
    config.said = Some(format!("Alpaca, feed {feed_word}, adjustment {adjustment_word}"));
    config.query.set("feed", feed_word);
    config.query.set("adjustment", adjustment_word);
    if let Some(date) = own.asof {
        config.query.set("asof", date.to_string());
    }
    set(&mut config.base_url, own.base_url.clone());
    config.vouches = own.vouches.unwrap_or(matches!(feed, Feed::Sip | Feed::DelayedSip));
    config.settles_after = own.settles_after.or(config.settles_after);
    config.timeout = own.timeout.or(config.timeout);
    config.max_pages = own.max_pages.or(config.max_pages);
    set_rows(&mut config, own.rows_per_request)?;
    if own.keys_per_request.is_some_and(|symbols| symbols > MOST_SYMBOLS) {
        return Err(Error::invalid(format!(
            "`keys_per_request` must be at most {MOST_SYMBOLS} for Alpaca, so that the symbols fit into a URL"
        )));
    }
    config.keys_per_request = own.keys_per_request.or(config.keys_per_request);
    Bars::new(&config, variables)
}

/// The word for a choice, as the API and people write it.
fn word<T: Serialize>(value: T) -> Result<String> {
    let word = serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned));
    word.ok_or_else(|| Error::internal("a choice has no word"))
}
