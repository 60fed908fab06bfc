//! S3, Athena, Glue and SNS on loopback, in process, with faults on demand: for tests and trials.
//!
//! [`Sandbox::start`] serves all of them at one address. Any credentials are accepted, and no signature is verified, so it listens on
//! loopback only, and refuses what a web page sends; its content is as safe as the machine it runs on. Objects live in memory, and are gone when it ends. The command `aws-sandbox`
//! serves the same to other processes.
//!
//! This crate is a test double of AWS. It must not know what it is used for: it mentions no repairs, runs or workflows.
//!
//! ```
//! use aws_sandbox::{Fault, Options, Rule, Sandbox, Service};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let sandbox = Sandbox::start(Options::default()).await?;
//! sandbox.store().create_bucket("lake")?;
//! // The next two writes are answered with `SlowDown`.
//! sandbox.faults().add(Rule::new(Service::S3, "PutObject", Fault::SlowDown).times(2));
//! assert!(sandbox.endpoint().starts_with("http://127.0.0.1:"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod athena;
pub mod catalog;
pub mod faults;
pub mod glue;
mod guard;
mod load;
pub mod s3;
pub mod server;
pub mod sns;
pub mod sql;
pub mod store;

pub use faults::{Fault, Faults, Rule, Served, Service};
pub use load::{LoadError, TableFolder};
pub use server::{AwsError, Options, Sandbox};
pub use sns::{Published, Sns};
pub use store::{Condition, Count, Counts, Etag, Metadata, Object, Store, StoreError};

/// The account that owns everything in the sandbox.
pub const ACCOUNT: &str = "123456789012";
