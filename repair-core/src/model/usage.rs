//! What a step consumed, as counts. A price book turns them into money.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What was consumed. Every field counts one thing, in the unit that its name gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Requests to sources; each page of an answer counts as one.
    pub source_requests: u64,
    /// Rows that sources returned.
    pub source_rows: u64,
    /// Rows read from the lake.
    pub rows_read: u64,
    /// Bytes read from the lake's files.
    pub bytes_scanned: u64,
    /// Rows written to the lake.
    pub rows_written: u64,
    /// Bytes written to the lake.
    pub bytes_written: u64,
    /// Objects (files) written to the lake.
    pub objects_written: u64,
    /// Queries that an engine ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub queries: u64,
    /// Milliseconds that the engine worked on these queries.
    #[serde(skip_serializing_if = "is_zero")]
    pub engine_ms: u64,
    /// Requests to an object store that read an object or its metadata.
    #[serde(skip_serializing_if = "is_zero")]
    pub storage_reads: u64,
    /// Requests to an object store that write or list objects; stores charge them alike.
    #[serde(skip_serializing_if = "is_zero")]
    pub storage_writes: u64,
    /// Messages sent through a queue.
    #[serde(skip_serializing_if = "is_zero")]
    pub queue_messages: u64,
    /// Records put into a stream.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream_records: u64,
    /// Milliseconds that a machine or function worked.
    #[serde(skip_serializing_if = "is_zero")]
    pub compute_ms: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Usage {
    /// What was consumed since an earlier reading of the same counts.
    #[must_use]
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            source_requests: self.source_requests.saturating_sub(earlier.source_requests),
            source_rows: self.source_rows.saturating_sub(earlier.source_rows),
            rows_read: self.rows_read.saturating_sub(earlier.rows_read),
            bytes_scanned: self.bytes_scanned.saturating_sub(earlier.bytes_scanned),
            rows_written: self.rows_written.saturating_sub(earlier.rows_written),
            bytes_written: self.bytes_written.saturating_sub(earlier.bytes_written),
            objects_written: self.objects_written.saturating_sub(earlier.objects_written),
            queries: self.queries.saturating_sub(earlier.queries),
            engine_ms: self.engine_ms.saturating_sub(earlier.engine_ms),
            storage_reads: self.storage_reads.saturating_sub(earlier.storage_reads),
            storage_writes: self.storage_writes.saturating_sub(earlier.storage_writes),
            queue_messages: self.queue_messages.saturating_sub(earlier.queue_messages),
            stream_records: self.stream_records.saturating_sub(earlier.stream_records),
            compute_ms: self.compute_ms.saturating_sub(earlier.compute_ms),
        }
    }

    /// Every count with its name, zeros included.
    pub fn counts(&self) -> [(&'static str, u64); 14] {
        // Destructured, so that a new count cannot be forgotten here.
        let Self {
            source_requests,
            source_rows,
            rows_read,
            bytes_scanned,
            rows_written,
            bytes_written,
            objects_written,
            queries,
            engine_ms,
            storage_reads,
            storage_writes,
            queue_messages,
            stream_records,
            compute_ms,
        } = *self;
        [
            ("source_requests", source_requests),
            ("source_rows", source_rows),
            ("rows_read", rows_read),
            ("bytes_scanned", bytes_scanned),
            ("rows_written", rows_written),
            ("bytes_written", bytes_written),
            ("objects_written", objects_written),
            ("queries", queries),
            ("engine_ms", engine_ms),
            ("storage_reads", storage_reads),
            ("storage_writes", storage_writes),
            ("queue_messages", queue_messages),
            ("stream_records", stream_records),
            ("compute_ms", compute_ms),
        ]
    }
}

/// Counts stay at the largest number there is: a source may claim any.
impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.source_requests = self.source_requests.saturating_add(other.source_requests);
        self.source_rows = self.source_rows.saturating_add(other.source_rows);
        self.rows_read = self.rows_read.saturating_add(other.rows_read);
        self.bytes_scanned = self.bytes_scanned.saturating_add(other.bytes_scanned);
        self.rows_written = self.rows_written.saturating_add(other.rows_written);
        self.bytes_written = self.bytes_written.saturating_add(other.bytes_written);
        self.objects_written = self.objects_written.saturating_add(other.objects_written);
        self.queries = self.queries.saturating_add(other.queries);
        self.engine_ms = self.engine_ms.saturating_add(other.engine_ms);
        self.storage_reads = self.storage_reads.saturating_add(other.storage_reads);
        self.storage_writes = self.storage_writes.saturating_add(other.storage_writes);
        self.queue_messages = self.queue_messages.saturating_add(other.queue_messages);
        self.stream_records = self.stream_records.saturating_add(other.stream_records);
        self.compute_ms = self.compute_ms.saturating_add(other.compute_ms);
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        let mut total = Self::default();
        for usage in all {
            total += usage;
        }
        total
    }
}
