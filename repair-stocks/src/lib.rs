//! Repairing minute bars of stocks: so far, the trading calendars.

pub mod calendar;
