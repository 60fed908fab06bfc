//! The source `stocks.massive`: minute bars from Massive, formerly Polygon, `/v2/aggs/ticker/…/range/1/minute/…`, with one symbol and up to
//! 50,000 bars per request. It is also registered as `stocks.polygon`.
//!
//! `providers/massive.yaml` describes the API; here are its settings. The key comes from the environment only: `MASSIVE_API_KEY`, or `POLYGON_API_KEY`.
//!
//! An answer leaves out minutes without a trade, and the answer for a symbol that Massive does not know has no bars either, so it vouches only
//! for symbols with at least one bar.

use repair_connect::Environment;
use repair_core::Result;
use repair_core::builtin::Period;
use repair_core::plugin::Registry;
use schemars::JsonSchema;
use serde::Deserialize;

use super::provider::{Bars, Provider, set, set_rows};

const MASSIVE: Provider = Provider { name: "massive", text: include_str!("../../providers/massive.yaml") };

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
        registry.source(name, about, move |config: MassiveConfig| source(&config, &variables));
    }
}

/// The source that a configuration means.
fn source(own: &MassiveConfig, variables: &Environment) -> Result<Bars> {
    let mut config = MASSIVE.described()?;
    let adjusted = own.adjusted.unwrap_or(false);
    config.said = Some(format!("Massive, {}", if adjusted { "adjusted for splits" } else { "as traded" }));
    config.query.set("adjusted", adjusted.to_string());
    // An answer that says the opposite is refused.
    for rule in config.answers.iter_mut().filter(|rule| rule.at.as_deref() == Some("/adjusted")) {
        rule.equals = Some((!adjusted).into());
    }
    set(&mut config.base_url, own.base_url.clone());
    set(&mut config.vouches, own.vouches);
    config.settles_after = own.settles_after.or(config.settles_after);
    config.timeout = own.timeout.or(config.timeout);
    config.max_pages = own.max_pages.or(config.max_pages);
    set_rows(&mut config, own.rows_per_request)?;
    Bars::new(&config, variables)
}
