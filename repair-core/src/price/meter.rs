//! Meters: what a lake counts for an attempt, in addition to the usage that its calls return.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::model::Usage;

/// A query that a query engine charged for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The id that the engine gave it.
    pub id: String,
    /// The bytes that the query read, also when it failed or was cancelled.
    pub bytes_scanned: u64,
    /// The milliseconds that the engine worked.
    pub engine_ms: u64,
}

/// What a [`Meter`] has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metered {
    /// Usage that no call returned: of streams, and of calls that failed or were abandoned.
    pub usage: Usage,
    /// Every query, including those whose usage a call returned.
    pub queries: Vec<Query>,
}

impl Metered {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.usage == Usage::default()
    }
}

/// Counts for one attempt of a step. All clones share the same counts.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Metered>>);

impl Meter {
    /// Counts usage that no call returns.
    pub fn add(&self, usage: Usage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).usage += usage;
    }

    /// Counts a query.
    pub fn add_query(&self, query: Query) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).queries.push(query);
    }

    /// What was counted since the last call; the counts start again from zero.
    pub fn take(&self) -> Metered {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
