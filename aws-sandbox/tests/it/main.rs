//! What the sandbox answers, and where it differs from AWS. All tests of the crate are one program, so that they are linked once.

mod athena;
mod athena_functions;
mod athena_tables;
mod common;
mod guard;
mod load;
mod s3;
mod sns;
