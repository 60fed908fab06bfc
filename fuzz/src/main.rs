//! Everything that reads what others wrote, as targets of libFuzzer. `README.md` says how to run them. Each target is a file in `targets/`,
//! which a test of the crate that it is about includes too, and replays `testdata/fuzz` with.
#![no_main]
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "parts of other crates; what fails must stop the fuzzer")]

use std::sync::OnceLock;

// Parts of `repair-aws`, under their names there, without the AWS SDK.
mod journal;
#[path = "../../repair-aws/src/results.rs"]
mod results;
/// What `results` needs.
mod sql {
    pub(crate) const MILLI_US: i64 = 1_000;
}

mod targets {
    pub mod expression;
    pub mod files;
    pub mod journal;
    pub mod s3;
    pub mod yaml;
}

/// The target of a name.
fn target(name: &str) -> fn(&[u8]) {
    match name {
        "yaml" => targets::yaml::run,
        "expression" => targets::expression::run,
        "journal" => targets::journal::run,
        "csv" => targets::files::csv,
        "jsonl" => targets::files::jsonl,
        "parquet" => targets::files::parquet,
        "s3" => targets::s3::run,
        other => panic!("there is no target `{other}`"),
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    let run = TARGET.get_or_init(|| {
        // Panics that are caught, as those of the Parquet reader are, are no crashes: only one that reaches the fuzzer is.
        std::panic::set_hook(Box::new(|_| {}));
        target(&std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names the target"))
    });
    if let Err(panic) = std::panic::catch_unwind(|| run(data)) {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        eprintln!("panicked: {}", text.unwrap_or("with something that is no text"));
        std::process::abort();
    }
});
