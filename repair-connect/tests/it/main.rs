//! What programs as plug-ins promise, and what becomes of hostile ones. All tests of the crate are one program, so that they are linked once.
#![cfg(unix)]

mod answers;
mod conformance;
mod detect;
mod hostile;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "smtp")]
mod mail;
#[cfg(feature = "smtp")]
mod mail_tls;
#[cfg(feature = "http")]
mod notify;
mod outputs;
mod sweep;
mod world;
