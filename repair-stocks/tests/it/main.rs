//! What the detectors, calendars and sources for stocks promise. All tests of the crate are one program, so that they are linked once.

mod archive;
mod bar;
mod calendar;
mod common;
mod conformance;
mod documents;
mod hourly_bars;
mod http;
mod invalid_bars;
mod liar;
mod market;
mod minute_gaps;
mod own_calendar;
mod repairers;
