//! What the lake on Athena and S3 promises. All tests of the crate are one program, so that they are linked once.

mod arrivals;
mod artifacts;
mod cells;
mod columns;
mod common;
mod conformance;
mod differs;
mod faults;
mod journal;
mod kept;
mod messages;
mod moto;
mod owners;
mod reading;
mod rights;
mod sample;
mod scale;
mod sql;
mod sweep;
mod tables;
mod trino;
mod unique;
mod versions;
