//! Repairing minute bars of stocks: which minutes are missing, which sources have them, which bars can be true, and hourly bars that state
//! how complete they are.
//!
//! | name | kind | what it does |
//! | --- | --- | --- |
//! | `stocks.minute-gaps` | detector | finds the minutes of a session that hold no bar ([`minute_gaps`]) |
//! | `stocks.invalid-bars` | detector | finds the bars that no market can have produced ([`invalid_bars`]) |
//! | `stocks.backfill` | repairer | requests the missing bars from a source, and rejects impossible ones ([`backfill`]) |
//! | `stocks.carry-forward` | repairer | repeats the last price, with volume 0 ([`carry_forward`]) |
//! | `stocks.correlated` | repairer | estimates prices from another series, and meets both ends of the gap ([`correlated`]) |
//! | `stocks.archive` | source | a folder of bars ([`source::archive`]) |
//! | `stocks.simulated` | source | a simulated market, the same for each seed ([`source::simulated`]) |
//! | `stocks.alpaca` | source | Alpaca's market data API (feature `http`) |
//! | `stocks.massive`, `stocks.polygon` | source | the API of Massive, formerly Polygon (feature `http`) |
//! | `stocks.hourly-bars` | aggregator | aggregates minute bars to hours, and counts what each hour is made of ([`hourly_bars`]) |
//!
//! There are also the trading calendars of [`calendar`]. All plug-ins are thin: the core searches, requests, judges and aggregates.
//!
//! ```
//! use repair_core::plugin::{PluginKind, Registry};
//!
//! let mut registry = Registry::default();
//! repair_stocks::register(&mut registry);
//! assert!(registry.get(PluginKind::Detector, "stocks.minute-gaps").is_some());
//! assert!(registry.calendars().contains_key("XNYS"));
//! ```
//!
//! Nothing here may know which lake it works on, or how a workflow runs.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod backfill;
pub mod bar;
pub mod calendar;
pub mod carry_forward;
pub mod correlated;
pub mod hourly_bars;
pub mod invalid_bars;
pub mod minute_gaps;
mod numbers;
pub mod source;

use repair_core::plugin::Registry;

/// Adds all calendars and plug-ins of this crate to a registry.
pub fn register(registry: &mut Registry) {
    for calendar in calendar::calendars() {
        registry.add_calendar(calendar);
    }
    minute_gaps::register(registry);
    invalid_bars::register(registry);
    backfill::register(registry);
    carry_forward::register(registry);
    correlated::register(registry);
    source::register(registry);
    hourly_bars::register(registry);
}
