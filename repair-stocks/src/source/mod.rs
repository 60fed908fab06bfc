//! Where missing bars can be asked for.
//!
//! A source must not know what is missing, nor decide what its silence proves: it says what it has, and for which stretch it vouches.

pub mod archive;
pub mod simulated;

use repair_core::plugin::{Limits, Registry};
use repair_core::{Error, Result};

pub(crate) fn register(registry: &mut Registry) {
    archive::register(registry);
    simulated::register(registry);
}

/// The limits that a configuration gives, or the usual ones.
fn limits(rows_per_request: Option<u64>, keys_per_request: Option<usize>) -> Result<Limits> {
    let usual = Limits::default();
    let limits = Limits {
        rows_per_request: rows_per_request.unwrap_or(usual.rows_per_request),
        keys_per_request: keys_per_request.unwrap_or(usual.keys_per_request),
    };
    if limits.rows_per_request == 0 || limits.keys_per_request == 0 {
        return Err(Error::invalid("a request that brings no row or names no key asks nothing; give at least 1, or leave the limit out"));
    }
    Ok(limits)
}
