//! The HTTP sources against loopback servers: what they request and return, how errors are reported, and how a run uses the answers.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod answers;
mod errors;
mod keys;
mod providers;
mod runs;
mod vendor;

use std::collections::BTreeMap;
use std::sync::Arc;

use repair_core::plugin::{Plugin, PluginKind, Registry, Request, Source, StepContext};
use repair_core::{Error, Result};
use repair_stocks::source::{Environment, register_http};
use serde_json::{Value, json};

use crate::common::{bars, batch, context, flat, interval, keys, lake_with};
use vendor::{KEY_ID, Market, SECRET};

/// An environment that holds the keys of both APIs.
fn variables() -> Environment {
    with_variables(&[("APCA_API_KEY_ID", KEY_ID), ("APCA_API_SECRET_KEY", SECRET), ("MASSIVE_API_KEY", SECRET)])
}

fn with_variables(set: &[(&str, &str)]) -> Environment {
    let set: BTreeMap<String, String> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(move |name| set.get(name).cloned())
}

fn registry(variables: &Environment) -> Registry {
    let mut registry = crate::common::registry();
    register_http(&mut registry, variables);
    registry
}

fn source_with(variables: &Environment, name: &str, with: &Value) -> Result<Arc<dyn Source>> {
    let made = registry(variables).get(PluginKind::Source, name).unwrap().make(with).map_err(Error::from)?;
    let Plugin::Source(source) = made else { panic!("asked for a source") };
    Ok(source)
}

fn source(name: &str, base_url: &str) -> Arc<dyn Source> {
    source_with(&variables(), name, &json!({ "base_url": base_url })).unwrap()
}

/// A context in which the table holds a row.
fn world() -> StepContext {
    let held = batch(&bars(), &[("AAA", "2024-03-08T14:30:00Z", flat(1.0, 1.0))]);
    context(lake_with(&bars(), &held), vec![bars()], "2024-03-12T00:00:00Z")
}

fn request(symbols: &[&str], from: &str, to: &str) -> Request {
    Request::new(bars(), keys(symbols), interval(from, to))
}

/// The minute of an instant, since the epoch.
fn minute(at: &str) -> i64 {
    crate::common::at(at).as_second() / 60
}

/// The bars of a symbol for each minute of a stretch, all different.
fn trade(market: &mut Market, symbol: &str, from: &str, to: &str) {
    let of_symbol = market.entry(symbol.to_owned()).or_default();
    let price = f64::from(symbol.as_bytes()[0]);
    for (index, minute) in (0u32..).zip(minute(from)..minute(to)) {
        let open = price + f64::from(index % 17) / 4.0 + f64::from(index) / 64.0;
        of_symbol.insert(minute, [open, open + 0.5, open - 0.5, open + 0.25, f64::from(100 + index)]);
    }
}
