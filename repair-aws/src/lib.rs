//! A data-repair lake on S3 and Athena, and a journal on S3.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod athena;
mod bad;
mod catalog;
mod check;
mod compact;
mod connect;
mod error;
mod extent;
mod footer;
mod given;
mod journal;
mod kept;
mod lake;
mod messages;
mod objects;
mod owner;
mod patience;
mod place;
mod read;
mod results;
mod retract;
pub mod sample;
mod sql;
mod state;
mod tables;
mod write;

pub use athena::Polling;
pub use connect::Connection;
pub use journal::S3Journal;
pub use lake::{AwsLake, AwsOptions};
pub use messages::Messages;

#[cfg(test)]
mod fuzz;
