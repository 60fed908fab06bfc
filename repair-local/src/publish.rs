//! Publishing: staged units become one object for each partition of the table's repairs, and of its exceptions.

use std::sync::{Mutex, PoisonError};

use repair_core::Result;
use repair_core::lake::overlay::staging::{self, StagedRows};
use repair_core::lake::{Published, partition};

use crate::lake::Inner;
use crate::place::Place;
use crate::stage::{self, Scope};
use crate::threads;
use crate::write;

/// Publishes units under the name of a batch.
pub(crate) fn publish(lake: &Inner, scope: &Scope, object: &str, units: &[String]) -> Result<Published> {
    let table = &scope.table;
    let place = Place::to_write(&lake.root, table)?;
    let mut published = Published::default();
    let mut staged = StagedRows::default();
    for unit in units {
        let (summary, batches) = stage::load(scope, unit)?;
        published.rows += summary.rows;
        published.absent += summary.absent;
        staged.add(batches)?;
    }
    let publication = staging::publication(table, staged)?;
    let by = partition::time_partition(table)?;
    for (folder, schema, parts) in [
        (&place.repairs, &publication.repairs_schema, publication.repairs),
        (&place.exceptions, &publication.exceptions_schema, publication.exceptions),
    ] {
        // Each is let go as soon as it is written.
        let parts: Vec<_> = parts.into_iter().map(|(name, batches)| (name, Mutex::new(batches))).collect();
        let written = threads::map_waiting(&parts, |(name, batches)| {
            let folder = match (by, name) {
                (Some(by), Some(name)) => folder.join(format!("{}={name}", by.column)),
                _ => folder.clone(),
            };
            let batches = std::mem::take(&mut *batches.lock().unwrap_or_else(PoisonError::into_inner));
            write::parquet(&folder.join(object), schema, &batches, Vec::new())
        })?;
        written.into_iter().for_each(|usage| published.usage += usage);
    }
    Ok(published)
}
