//! Finds what is broken in a lake of data, waits for late rows, repairs what is left, verifies the result, and only then computes aggregates.
//!
//! [`Repair`] opens a workflow with a profile. It plans, applies and runs the workflow, and compares strategies. [`OpenLake`] is a lake with
//! its past runs: it resumes, redrives, cancels and lists them, explains slots, undoes, and computes costs. A `Repair` has all methods of its lake.
//!
//! ```
//! use repair::Repair;
//!
//! # fn main() -> repair::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let lake = folder.path();
//! # for (table, missing) in [("readings", Some(7)), ("archive", None)] {
//! #     let rows = (0..24).filter(|hour| Some(*hour) != missing).map(|hour| format!("co,2024-03-04T{hour:02}:00:00Z,{hour}\n"));
//! #     let text = format!("sensor,ts,value\n{}", rows.collect::<String>());
//! #     std::fs::create_dir(lake.join(table)).unwrap();
//! #     std::fs::write(lake.join(table).join("2024-03-04.csv"), text).unwrap();
//! # }
//! // A folder with two tables: `readings`, in which the row of 07:00 is missing, and `archive`, which has all rows.
//! let workflow = "
//! workflow: air-quality
//! kind: state-machine
//! tables:
//!   readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h }
//! sources:
//!   vendor: { source: stocks.archive, with: { location: archive, format: csv } }
//! start: find
//! steps:
//!   find: { detect: gaps, with: { table: readings, keys: [co], from: 2024-03-04, to: 2024-03-04 }, next: fill }
//!   fill: { repair: backfill, of: find, with: { source: vendor }, next: check }
//!   check: { verify: find, end: true }
//! ";
//! repair::block_on(async {
//!     let repair = Repair::text("air-quality.yaml", workflow).lake(lake).connect().await?;
//!     let plan = repair.plan().await?;
//!     assert_eq!(plan.missing(), 1);
//!     let report = repair.apply(&plan).await?;
//!     assert_eq!(report.missing, 0);
//!     let costs = repair.costs().runs([&report.run]).group_by(["strategy"]).await?;
//!     assert_eq!(costs.total.rows_repaired, 1);
//!     let undone = repair.undo(&report.run).reason("only a trial").await?;
//!     assert_eq!(undone.rows(), 1);
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # What is where
//!
//! | to | use |
//! | --- | --- |
//! | get from a folder of files to a workflow, by guessing | `first_steps` |
//! | open a workflow: a file, a text, or one built in Rust | [`Repair::open`], [`Repair::text`], [`Repair::of`] |
//! | know what is broken and what repairing it would take, then do exactly that | [`Repair::plan`], [`Repair::apply`], [`plan`] |
//! | run a workflow; list, resume, redrive, cancel or pause runs | [`Repair::run`], [`OpenLake::runs`], [`OpenLake::resume`], … |
//! | know the status of every slot, by table, key and day | [`OpenLake::status`], [`status`] |
//! | freeze slots, give them up, leave them to others | [`OpenLake::set_aside`], [`OpenLake::lift`], [`OpenLake::asides`] |
//! | know why a slot is as it is; undo, redo, record exceptions, judge accuracy | [`OpenLake::why`], [`OpenLake::undo`], …, [`provenance`] |
//! | find out which strategy is most accurate, at what cost | [`Repair::compare`], [`compare`](mod@compare) |
//! | know whether what is kept is still what was written | [`OpenLake::verify_state`] |
//! | have people and other systems hear of runs | [`Opening::notify`], [`notify::Notifications`] |
//! | remove what old runs no longer need | [`OpenLake::prunable`], [`OpenLake::prune`] |
//! | join the small objects in which repairs of a table lie | [`OpenLake::compactable`], [`OpenLake::compact`] |
//! | know what runs cost | [`OpenLake::costs`], [`ledger`] |
//! | read what was repaired: export a table, list its gaps, ask in SQL | [`OpenLake::export`], [`OpenLake::gaps`], [`Repair::query`], [`reading`] |
//! | run a workflow by its schedule | [`schedule::Scheduler`] |
//! | know which days of which keys are complete | [`OpenLake::status`] |
//! | know whether what runs need is in order | [`OpenLake::examine`], [`Opening::examine`], [`doctor`] |
//! | see all of this at a glance, in one HTML file | [`OpenLake::report_on`], [`Repair::report_on_table`], [`mod@report`] |
//! | know what a plan would refuse, before there is a lake | [`plan::refusals`] |
//! | use plug-ins of your own | [`registry`], [`Opening::registry`], [`core::plugin`] |
//! | write an adapter for another kind of lake | [`core::lake`], [`core::engine::Journal`], [`Opening::adapters`] |
//!
//! # Crates
//!
//! This crate re-exports the crates below it, so one line under `[dependencies]` is enough.
//!
//! | crate | here | holds |
//! | --- | --- | --- |
//! | `repair-core` | [`core`] | the model, the workflow language, the engine, the traits, plug-ins for any data |
//! | `repair-connect` | `connect` | programs in any language as plug-ins |
//! | `repair-local` | `local` | a lake of files in a folder, and a journal in SQLite |
//! | `repair-sql` | `sql` | users' SQL over a lake in a folder, as the engine that [`local::LocalLake::with_query_engine`] takes |
//! | `repair-stocks` | `stocks` | exchange calendars, bars, and the plug-ins for them |
//! | `repair-aws` | `aws` | a lake in S3 and Athena, and a journal in S3 |
//! | [`arrow`] | `arrow` | the columns in which rows are read and written |
//! | [`jiff`] | `jiff` | instants, dates, durations |
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `connect` | yes | programs in any language as plug-ins |
//! | `local` | yes | lakes in a folder |
//! | `stocks` | yes | the plug-ins and calendars for stocks |
//! | `sql` | no | SQL of users over lakes in a folder, through DataFusion |
//! | `http` | no | APIs over HTTP: sources, sensors and tasks |
//! | `aws` | no | lakes in S3 and Athena |
//!
//! A profile that needs a feature which is missing is refused with [`Hint::Feature`].
//!
//! # Results
//!
//! What requests return can be serialized, and is then exactly what the command prints with `--json`; each has a field `format`.
//!
//! This crate must not know how an adapter works, and nothing about terminals.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod apart;
mod block_on;
pub mod compact;
pub mod compare;
pub mod doctor;
mod family;
#[cfg(feature = "local")]
pub mod first_steps;
mod hold;
pub mod ledger;
pub mod notify;
mod open;
pub mod plan;
pub mod provenance;
pub mod prune;
pub mod reading;
pub mod report;
mod request;
pub mod run;
pub mod said;
pub mod schedule;
pub mod state;
pub mod status;
mod within;

pub use arrow;
pub use jiff;
#[cfg(feature = "aws")]
pub use repair_aws as aws;
#[cfg(feature = "connect")]
pub use repair_connect as connect;
pub use repair_core as core;
#[cfg(feature = "local")]
pub use repair_local as local;
#[cfg(feature = "sql")]
pub use repair_sql as sql;
#[cfg(feature = "stocks")]
pub use repair_stocks as stocks;

pub use block_on::{block_on, init, runtime};
pub use open::{Notice, OpenLake, Opening, Repair, registry};
pub use repair_core::engine::{JsonFormat, Outcome, RunReport};
pub use repair_core::model::Interval;
pub use repair_core::plugin::Registry;
pub use repair_core::price::PriceBook;
pub use repair_core::workflow::Workflow;
pub use repair_core::{Error, ErrorKind, Hint, Result};
pub use tokio_util::sync::CancellationToken;
pub use within::Within;

/// The Rust of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The Rust of the page about workflows in Rust is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/workflows/in-rust.md")]
struct WorkflowsInRust;

/// The Rust of the page about plug-ins is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/plugins.md")]
struct PlugIns;

/// The Rust of the page about programs is compiled as a test.
#[cfg(all(doctest, feature = "connect"))]
#[doc = include_str!("../../docs/bring-your-own-repair.md")]
struct BringYourOwnRepair;

/// The Rust of the page about reading is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/reading.md")]
struct Reading;

/// The Rust of the page about the status is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/status.md")]
struct StatusPage;

/// The Rust of the page about reports is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../docs/report.md")]
struct Reports;
