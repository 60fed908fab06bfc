//! What a fuzzer found in objects, or began with, is read or refused. `fuzz/README.md` says how to look for more.

#[path = "../../fuzz/src/targets/s3.rs"]
#[allow(clippy::expect_used, clippy::panic, unreachable_pub, reason = "a target of the fuzzer stops where something is wrong")]
mod s3;

#[test]
fn whatever_others_put_into_a_bucket_is_read_or_refused() {
    testdata::replay("s3", s3::run);
}
