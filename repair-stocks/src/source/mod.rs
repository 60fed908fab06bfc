//! Sources of missing bars.
//!
//! A source must not know what is missing, or decide what its silence proves. It returns what it has, and states for which stretch its answer
//! is complete: it vouches for that stretch.

#[cfg(feature = "http")]
pub mod alpaca;
pub mod archive;
mod astray;
#[cfg(feature = "http")]
pub mod massive;
#[cfg(feature = "http")]
mod provider;
pub mod simulated;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
#[cfg(feature = "http")]
pub use repair_connect::Environment;
use repair_core::plugin::{Limits, Registry};
use repair_core::{Error, Result};

use crate::bar::{Bar, CLOSE, HIGH, LOW, OPEN, VOLUME};

pub(crate) fn register(registry: &mut Registry) {
    archive::register(registry);
    simulated::register(registry);
    #[cfg(feature = "http")]
    {
        let environment: Environment = Arc::new(|name| std::env::var(name).ok());
        register_http(registry, &environment);
    }
}

/// Registers the HTTP sources again, with keys that do not come from the environment of the process but from elsewhere: a vault, or a test.
#[cfg(feature = "http")]
pub fn register_http(registry: &mut Registry, variables: &Environment) {
    alpaca::register(registry, variables);
    massive::register(registry, variables);
}

/// Bars as a batch in the lake's shape.
fn rows(key: &[String], time: &str, symbols: &[&str], times_us: Vec<i64>, bars: &[Bar]) -> Result<RecordBatch> {
    let numbers = |of: fn(&Bar) -> f64| Arc::new(Float64Array::from_iter_values(bars.iter().map(of))) as ArrayRef;
    let key = key.iter().map(|name| (name.as_str(), Arc::new(StringArray::from_iter_values(symbols)) as ArrayRef, false));
    let columns = key.chain([
        (time, Arc::new(TimestampMicrosecondArray::from(times_us).with_timezone("UTC")) as ArrayRef, false),
        (OPEN, numbers(|bar| bar.open), false),
        (HIGH, numbers(|bar| bar.high), false),
        (LOW, numbers(|bar| bar.low), false),
        (CLOSE, numbers(|bar| bar.close), false),
        (VOLUME, numbers(|bar| bar.volume), false),
    ]);
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// The limits from a configuration, or the defaults.
fn limits(rows_per_request: Option<u64>, keys_per_request: Option<usize>) -> Result<Limits> {
    let usual = Limits::default();
    let limits = Limits::new(rows_per_request.unwrap_or(usual.rows_per_request), keys_per_request.unwrap_or(usual.keys_per_request));
    if limits.rows_per_request == 0 || limits.keys_per_request == 0 {
        return Err(Error::invalid("`rows_per_request` and `keys_per_request` must be at least 1; correct them, or remove them"));
    }
    Ok(limits)
}
