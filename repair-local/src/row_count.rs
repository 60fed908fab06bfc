//! Counting rows by stretches of time: decodes only the key and time columns, file by file, on all threads.

use std::ops::ControlFlow;

use repair_core::Result;
use repair_core::lake::{Layer, RowCountRequest, RowCounts, ScanRequest};
use repair_core::model::Table;

use crate::lake::Inner;
use crate::read::Tally;
use crate::scan::Scan;
use crate::threads;

/// What one thread counts.
struct Counter {
    counts: RowCounts,
    tally: Tally,
}

pub(crate) fn row_counts(lake: &Inner, table: &Table, request: &RowCountRequest) -> Result<RowCounts> {
    request.check(table)?;
    let wanted = ScanRequest::new(Layer::Raw).in_interval(request.interval).of_keys(request.keys.clone()).with_columns(Vec::new());
    let scan = Scan::new(lake, table, &wanted)?;
    let new = || Counter { counts: RowCounts::new(request), tally: Tally::default() };
    let counters = threads::fold_parallel(&scan.files, new, |counter, file| {
        let counts = &mut counter.counts;
        let mut count = |batch| {
            counts.add(table, request, &batch)?;
            Ok(ControlFlow::Continue(()))
        };
        let (_, usage) = scan.raw_file(file, &scan.bounds, &mut counter.tally, &mut count)?;
        counter.counts.usage += usage;
        Ok(())
    })?;
    let mut total = new();
    for counter in counters {
        total.counts.merge(counter.counts);
        total.tally.merge(counter.tally);
    }
    total.tally.check(table)?;
    total.counts.quarantine = total.tally.quarantine;
    Ok(total.counts)
}
