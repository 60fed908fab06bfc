//! What a fuzzer found, or began with, is read or refused, and nothing panics. `fuzz/README.md` says how to look for more.
#![allow(clippy::expect_used, clippy::panic, unreachable_pub, reason = "a target of the fuzzer stops where something is wrong")]

#[path = "../../../fuzz/src/targets/expression.rs"]
mod expression;
#[path = "../../../fuzz/src/targets/journal.rs"]
mod journal;
#[path = "../../../fuzz/src/targets/yaml.rs"]
mod yaml;

#[test]
fn whatever_a_workflow_says_is_read_or_refused() {
    testdata::replay("yaml", yaml::run);
}

#[test]
fn whatever_an_expression_says_is_computed_or_refused() {
    testdata::replay("expression", expression::run);
}

#[test]
fn whatever_a_journal_says_is_folded_or_refused() {
    testdata::replay("journal", journal::run);
}
