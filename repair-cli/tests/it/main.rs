//! What the command promises. All tests of the crate are one program, so that they are linked once.

#[cfg(feature = "aws")]
mod aws;
mod bad_input;
mod commands;
mod common;
mod compact;
mod compare;
mod costs;
mod crash_sweep;
mod defects;
mod english;
mod examples;
mod exit_codes;
mod faults;
mod hostile_expressions;
mod hostile_sql;
mod include;
mod init;
mod kill;
mod lessons;
#[cfg(feature = "http")]
mod notify;
#[cfg(feature = "otlp")]
mod otlp;
mod plan;
mod power;
mod provenance;
mod prune;
mod reading;
mod report;
mod terminal;
mod transcript;
mod truth;
#[cfg(feature = "aws")]
mod two_lakes;
mod validate;
