//! The journal of a lake in which nothing was ever run, for requests about a table that a workflow declares: it has no run, and takes none.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use repair_core::engine::{Event, Journal, Recorded, RunHead, Signal};
use repair_core::{Error, ErrorKind, Result};

/// A journal without runs.
pub(crate) struct NoRuns;

fn refused(run: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no run `{run}`: nothing was ever run in this lake"))
}

#[async_trait]
impl Journal for NoRuns {
    async fn append(&self, run: &str, _: u64, _: Timestamp, _: &[Event]) -> Result<()> {
        Err(refused(run))
    }

    async fn read(&self, _: &str, _: u64, _: usize) -> Result<Vec<Recorded>> {
        Ok(Vec::new())
    }

    async fn runs(&self) -> Result<Vec<RunHead>> {
        Ok(Vec::new())
    }

    async fn acquire(&self, run: &str, _: &str, _: Timestamp, _: Duration) -> Result<()> {
        Err(refused(run))
    }

    async fn release(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn driver(&self, _: &str, _: Timestamp) -> Result<Option<String>> {
        Ok(None)
    }

    async fn signal(&self, run: &str, _: Option<Signal>) -> Result<()> {
        Err(refused(run))
    }

    async fn signaled(&self, _: &str) -> Result<Option<Signal>> {
        Ok(None)
    }
}
