//! What steps take, at least and at most, and what that costs. Pure.
//!
//! There are two prices. A plan shows what is charged. Whether a budget can be met depends on what the engine reserves, which prices each call and
//! query at its worst.

use std::ops::AddAssign;

use super::{Amount, Estimate};
use repair_core::model::Usage;
use repair_core::price::Spend;
use repair_core::workflow::Prices;
use rust_decimal::Decimal;

/// What a step takes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Take {
    /// At least, as far as it can be known.
    pub(super) low: Usage,
    /// The part of that which is certain.
    pub(super) certain: Usage,
    /// At most.
    pub(super) high: Usage,
    /// Calls that must be free in a budget for the last unit to begin, beyond what it takes at least.
    pub(super) aside: u64,
}

impl Take {
    /// What was measured, and will be used again.
    pub(super) fn of(usage: Usage) -> Self {
        Self { low: usage, certain: usage, high: usage, aside: 0 }
    }

    /// What a step takes that gets only what others leave.
    pub(super) fn perhaps(self) -> Self {
        Self { low: Usage::default(), certain: Usage::default(), aside: 0, ..self }
    }
}

/// What a plan needs of prices beyond their worst.
pub(super) trait Pricing {
    /// What is charged for some usage: at least, or at most; none without a price.
    fn usd(&self, usage: &Usage, at_most: bool) -> Option<Decimal>;

    /// Usage as plans show it.
    fn amount(&self, usage: &Usage, at_most: bool) -> Amount;

    /// What a plan shows.
    fn estimate(&self, take: &Take) -> Estimate {
        Estimate { low: self.amount(&take.low, false), high: self.amount(&take.high, true) }
    }

    /// What a budget counts of some usage, and whether all of it has a price.
    fn spend(&self, usage: &Usage) -> (Spend, bool);
}

impl Pricing for Prices<'_> {
    fn usd(&self, usage: &Usage, at_most: bool) -> Option<Decimal> {
        let book = self.book?;
        let calls = match (usage.source_requests, self.call) {
            (0, _) => Decimal::ZERO,
            (calls, Some(price)) if at_most => price.worst() * Decimal::from(calls),
            (calls, Some(price)) => price.of(calls),
            (_, None) => return None,
        };
        Some(calls + if at_most { book.worst(usage) } else { book.least(usage) })
    }

    fn amount(&self, usage: &Usage, at_most: bool) -> Amount {
        Amount {
            calls: usage.source_requests,
            queries: usage.queries,
            bytes: usage.bytes_scanned,
            usd: self.usd(usage, at_most).map(|usd| usd.normalize()),
        }
    }

    fn spend(&self, usage: &Usage) -> (Spend, bool) {
        let priced = self.book.is_some() && !self.lack(usage);
        (self.worst(usage), priced)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.queries = self.queries.saturating_add(other.queries);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.usd = self.usd.zip(other.usd).map(|(one, other)| (one + other).normalize());
    }
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, other: Self) {
        self.low += other.low;
        self.high += other.high;
    }
}

/// Usage, multiplied.
pub(super) fn times(usage: Usage, times: u64) -> Usage {
    Usage {
        source_requests: usage.source_requests.saturating_mul(times),
        source_rows: usage.source_rows.saturating_mul(times),
        rows_read: usage.rows_read.saturating_mul(times),
        bytes_scanned: usage.bytes_scanned.saturating_mul(times),
        rows_written: usage.rows_written.saturating_mul(times),
        bytes_written: usage.bytes_written.saturating_mul(times),
        objects_written: usage.objects_written.saturating_mul(times),
        queries: usage.queries.saturating_mul(times),
        engine_ms: usage.engine_ms.saturating_mul(times),
        storage_reads: usage.storage_reads.saturating_mul(times),
        storage_writes: usage.storage_writes.saturating_mul(times),
        queue_messages: usage.queue_messages.saturating_mul(times),
        stream_records: usage.stream_records.saturating_mul(times),
        compute_ms: usage.compute_ms.saturating_mul(times),
    }
}
