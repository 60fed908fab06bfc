//! What a server promises: it runs what is due, shows it, and lets nobody else do anything. All tests of the crate are one program.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy's exception for tests does not reach their helper functions"
)]

mod alerts;
mod guard;
mod live;
mod readers;
mod world;
