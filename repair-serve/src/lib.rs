//! Runs the workflows of a folder by their schedules, and shows what they do on a live page.
//!
//! ```no_run
//! # async fn example() -> repair::Result<()> {
//! use repair_serve::{Options, Server};
//!
//! let server = Server::bind(Options::new("workflows")).await?;
//! println!("http://{}", server.address());
//! server.run(repair::CancellationToken::new()).await
//! # }
//! ```
//!
//! The server is bound to loopback, unless it has a token. A page of another origin can neither read nor start anything: what is answered is meant for one
//! host, and what changes something needs the origin and a secret of this page. See `guard`.
//!
//! A run never waits for a reader. Readers look at a number, which grows when something has changed, and fetch the page again.
//!
//! This crate must not know how a run is driven, or which lake it works on.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod action;
mod folder;
mod guard;
mod metrics;
mod page;
mod routes;
mod server;
mod standing;
mod watch;

pub use server::{Options, Server};
