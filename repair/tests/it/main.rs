//! What a program that depends on `repair` alone is promised. All tests of the crate are one program, so that they are linked once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy's exception for tests does not reach their helper functions")]

mod arrivals;
mod budget;
mod cells;
mod columns;
mod common;
mod compare;
mod compared_sql;
mod differs;
mod elsewhere;
mod estimates;
mod first_steps;
mod front_door;
mod guesses;
mod keys;
mod known;
mod ledger;
mod maps;
mod notify;
mod older;
mod places;
mod prune;
mod reading;
mod relations;
mod removals;
mod rows;
mod said;
mod schedule;
mod schedule_alerts;
mod slots;
mod sql;
mod state;
mod status;
mod unique;
mod versions;
mod within;
