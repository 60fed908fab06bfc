//! What a fuzzer found in files, or began with, is read or refused, and the same each time. `fuzz/README.md` says how to look for more.
#![allow(clippy::expect_used, clippy::panic, unreachable_pub, reason = "a target of the fuzzer stops where something is wrong")]

#[path = "../../../fuzz/src/targets/files.rs"]
mod files;

#[test]
fn whatever_a_file_of_text_holds_is_read_or_refused() {
    testdata::replay("csv", files::csv);
    testdata::replay("jsonl", files::jsonl);
}

#[test]
fn whatever_a_parquet_file_holds_is_read_or_refused() {
    testdata::replay("parquet", files::parquet);
}
