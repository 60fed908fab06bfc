//! Durable workflows that find what is broken in a lake of data, wait, repair it, verify, and only then aggregate.
//!
//! This crate holds the words ([`model`]), the workflow language ([`workflow`]), the engine ([`engine`]), the traits that lakes
//! ([`lake`]), journals ([`engine::Journal`]) and plug-ins ([`plugin`]) implement, and plug-ins for any kind of data ([`builtin`]). It knows
//! no lake, query engine, database or market. Programs that run workflows depend on the crate `repair`, which re-exports this one.
//!
//! The modules are layers: each may use those above it in this list, and none below.
//!
//! | module | holds |
//! | --- | --- |
//! | [`Error`], [`ErrorKind`] | the one error type |
//! | [`yaml`] | text with positions, and mistakes in it |
//! | [`model`] | tables, slots, presence, defects, fixes, usage |
//! | [`price`] | price books, budgets, meters |
//! | [`lake`] | what a lake must do, and what it may build on |
//! | [`plugin`] | what detectors, repairers, aggregators, sources, sensors and tasks implement |
//! | [`workflow`] | from text to a checked workflow |
//! | [`engine`] | runs workflows |
//! | [`builtin`] | plug-ins for any kind of data |
//! | `testing` | conformance suites and an in-memory world (feature `testing`) |
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod builtin;
pub mod engine;
mod error;
pub mod lake;
pub mod model;
pub mod plugin;
pub mod price;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;
pub mod workflow;
pub mod yaml;

pub use error::{Error, ErrorKind, Hint, Result, UnknownErrorKind};
