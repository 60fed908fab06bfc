//! What users' SQL over lakes in a folder promises. All tests of the crate are one program, so that they are linked once.

#[path = "../../../repair-local/tests/it/common/mod.rs"]
mod common;
mod sql;
