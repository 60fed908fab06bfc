//! repair-stocks

pub mod calendar;
