//! The task `usage`: records what another system used, so that its cost appears beside the cost of repairs. It measures nothing, and
//! records the numbers in its configuration.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::model::Usage;
use crate::plugin::{Registry, StepContext, Task};

/// The configuration, `with`: counts, each in the unit of its name.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UsageConfig {
    /// The source that received the requests, by its name in the price book.
    pub source: Option<String>,
    /// Requests made to that source.
    pub source_requests: u64,
    /// Rows that it returned.
    pub source_rows: u64,
    /// Rows read from the lake.
    pub rows_read: u64,
    /// Bytes that queries or programs read from the lake.
    pub bytes_scanned: u64,
    /// Rows written to the lake.
    pub rows_written: u64,
    /// Bytes written to the lake; priced as if kept for a month.
    pub bytes_written: u64,
    /// Objects (files) written to the lake.
    pub objects_written: u64,
    /// Queries that an engine ran.
    pub queries: u64,
    /// Milliseconds that this engine worked on them.
    pub engine_ms: u64,
    /// Requests to an object store that read.
    pub storage_reads: u64,
    /// Requests to an object store that write or list.
    pub storage_writes: u64,
    /// Messages sent through a queue.
    pub queue_messages: u64,
    /// Records put into a stream.
    pub stream_records: u64,
    /// Milliseconds that a machine or function worked.
    pub compute_ms: u64,
}

pub(super) fn register(registry: &mut Registry) {
    registry.task("usage", "records what another system used", |config: UsageConfig| Ok(ReportedUsage { usage: usage(&config) }));
}

fn usage(config: &UsageConfig) -> Usage {
    Usage {
        source_requests: config.source_requests,
        source_rows: config.source_rows,
        rows_read: config.rows_read,
        bytes_scanned: config.bytes_scanned,
        rows_written: config.rows_written,
        bytes_written: config.bytes_written,
        objects_written: config.objects_written,
        queries: config.queries,
        engine_ms: config.engine_ms,
        storage_reads: config.storage_reads,
        storage_writes: config.storage_writes,
        queue_messages: config.queue_messages,
        stream_records: config.stream_records,
        compute_ms: config.compute_ms,
    }
}

struct ReportedUsage {
    usage: Usage,
}

#[async_trait]
impl Task for ReportedUsage {
    async fn perform(&self, _: &StepContext) -> Result<(Value, Usage)> {
        let counted = self.usage.counts().into_iter().filter(|(_, count)| *count > 0);
        let used: Map<String, Value> = counted.map(|(name, count)| (name.to_owned(), count.into())).collect();
        Ok((Value::Object(used), self.usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A count that only one of `with` and the usage has would be lost silently.
    #[test]
    fn every_count_of_a_usage_can_be_given() {
        let mut all = serde_json::Map::new();
        let names = schemars::schema_for!(UsageConfig).to_value()["properties"].as_object().unwrap().clone();
        for (number, name) in (1u64..).zip(names.keys().filter(|name| *name != "source")) {
            all.insert(name.clone(), number.into());
        }
        let given = Value::Object(all);
        let usage = usage(&serde_json::from_value(given.clone()).unwrap());
        assert_eq!(serde_json::to_value(usage).unwrap(), given);
        let counts: Map<String, Value> = usage.counts().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
        assert_eq!(Value::Object(counts), given);
    }
}
