//! What the lake on one machine promises. All tests of the crate are one program, so that they are linked once.

mod bombs;
mod broken;
mod columns;
mod common;
mod conformance;
mod fuzz;
mod journal;
mod lines;
mod memory;
mod owners;
mod presence;
mod real_data;
mod rollup;
mod tables;
mod torn;
mod unique;
mod view;
mod writing;
