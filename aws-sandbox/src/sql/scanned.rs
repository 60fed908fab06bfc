//! How many bytes of objects a query has read, and how many it may read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::QueryError;

/// The bytes that one query scanned. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Scanned {
    bytes: Arc<AtomicU64>,
    limit_bytes: Option<u64>,
}

impl Scanned {
    /// Nothing scanned yet; more than the limit is an error.
    #[must_use]
    pub fn with_limit(limit_bytes: Option<u64>) -> Self {
        Self { bytes: Arc::default(), limit_bytes }
    }

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes; fails beyond the query's limit.
    pub(crate) fn add(&self, bytes: u64) -> Result<(), QueryError> {
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.limit_bytes.is_some_and(|limit| sum > limit) { Err(QueryError::cutoff()) } else { Ok(()) }
    }
}
