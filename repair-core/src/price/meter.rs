//! What a lake counts on behalf of an attempt, beside what its calls return.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::model::Usage;

/// A query that an engine billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The engine's id of it.
    pub id: String,
    /// Bytes it read. A query that was cancelled or that failed has read some, too.
    pub bytes_scanned: u64,
    /// Milliseconds the engine worked.
    pub engine_ms: u64,
}

/// What a [`Meter`] has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metered {
    /// What no call has returned: of streams, and of calls that failed or were given up.
    pub usage: Usage,
    /// Every query, also those whose usage a call has returned.
    pub queries: Vec<Query>,
}

impl Metered {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.usage == Usage::default()
    }
}

/// Counts on behalf of one attempt of a step. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Metered>>);

impl Meter {
    /// Counts what no call returns.
    pub fn add(&self, usage: Usage) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).usage += usage;
    }

    /// Counts a query.
    pub fn add_query(&self, query: Query) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).queries.push(query);
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Metered {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
