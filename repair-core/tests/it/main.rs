//! What the engine and the language of workflows promise. All tests of the crate are one program, so that they are linked once.

mod arrivals;
mod backfill;
mod builder;
mod cadences;
mod calendars;
mod common;
mod conformance;
mod defects;
mod detection;
mod driver;
mod engine;
mod expressions;
mod fuzz;
mod guesses;
mod include;
mod language;
mod layers;
mod lifetimes;
mod maps;
mod notify_language;
mod now;
mod remembered;
mod schedule_language;
mod simulation;
mod strategies;
mod sweeps;
